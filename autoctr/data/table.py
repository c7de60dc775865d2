"""The user's own table with a schema file, and a first schema guessed from a table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from autoctr.data.cache import Recipe
from autoctr.data.encoding import RawTable
from autoctr.data.schema import load_schema_and_split
from autoctr.data.source import FileSource, need
from autoctr.data.splits import RandomSplit
from autoctr.data.vectors import read_vectors
from autoctr.errors import UserError

if TYPE_CHECKING:
    import polars as pl

_SAMPLE_ROWS = 50_000
_ROLES = {
    "domain": (
        "domain",
        "scenario",
        "scene",
        "tab",
        "theme",
        "theme_id",
        "market",
        "country",
        "channel",
        "segment",
    ),
    "user": ("user_id", "user", "uid", "userid", "member_id", "customer_id"),
    "timestamp": ("timestamp", "time", "ts", "event_time", "time_ms", "datetime", "unix_time", "date"),
}
_LABELS = (
    "label",
    "click",
    "clicked",
    "is_click",
    "conversion",
    "converted",
    "purchase",
    "target",
    "y",
    "buy",
)
_AFTERWARDS = re.compile(r"dwell|stay|play_time|watch_time|finish|profile_enter")
_IDENTIFIER = re.compile(r"(^|_)(id|ids|uid|key|code|zip|date|day|hour)$|id$")
_SEPARATORS = ("|", ";", ",", " ")


def recipe(table: Path, schema_file: Path, seed: int) -> Recipe:
    """A parquet or csv file, or a folder of them. Without a ``split`` in the schema file: random 80/10/10."""
    schema, split = load_schema_and_split(schema_file)
    split = split or RandomSplit(seed=seed)
    source = FileSource(Path(table))
    wanted = [*schema.raw_columns, *split.columns(schema.domain_column.raw, schema.labels)]
    need(table, wanted, source.columns)
    sides = {c.name: Path(schema_file).parent / c.table for c in schema.columns if c.table is not None}
    for name, file in sides.items():
        if not file.exists():
            raise UserError(f"{schema_file}: the table {file} of column {name} does not exist")
    content = {
        "files": source.digest(),
        "tables": {name: FileSource(file).digest() for name, file in sides.items()},
    }

    def read() -> RawTable:
        return RawTable(source, {name: read_vectors(file) for name, file in sides.items()}, {"source": str(table)})

    return Recipe(Path(table).stem or "table", schema, split, {**content, "version": 1}, read)


def guess_schema(path: Path) -> str:
    """A first schema as YAML with comments, from the first 50,000 rows; meant to be read and corrected.

    Raises:
        UserError: if the table cannot be read or nothing in it looks like a label or a domain.
    """
    source = FileSource(Path(path))
    frame = next(source.chunks(source.columns, _SAMPLE_ROWS), None)
    if frame is None or not len(frame):
        raise UserError(f"{path} has no rows; nothing to guess from")
    looks = {name: _Look(frame[name]) for name in frame.columns}
    labels = _named(looks, _LABELS, lambda look: look.binary) or [n for n, look in looks.items() if look.binary][:1]
    if not labels:
        raise UserError(f"no column of {path} holds only 0 and 1; a schema needs a label, add one first")
    others = [name for name in looks if name not in labels]
    user = next(iter(_named(looks, _ROLES["user"])), None)
    time = next(iter(_named(looks, _ROLES["timestamp"], lambda look: look.moment)), None)
    small = [name for name in others if 2 <= looks[name].distinct <= 50 and name not in (user, time)]
    few = sorted(small, key=lambda name: (looks[name].binary, looks[name].distinct))
    domain = next(iter([*_named(looks, _ROLES["domain"], lambda look: look.distinct >= 1), *few]), None)
    if domain is None or domain in labels:
        raise UserError(f"no column of {path} looks like a domain (2 to 50 values); a schema needs one, add it first")
    also = ", ".join(name for name in few if name != domain) or "none"
    lines = [
        f"# Guessed from the first {len(frame):,} rows of {Path(path).name}. Read every line before you trust it.",
        "# Take out what is known only after the impression (dwell time, later counts): it leaks the label.",
        f"labels: [{', '.join(_quoted(name) for name in labels)}]  # columns of 0 and 1",
        f"domain: {_quoted(domain)}  # {looks[domain].distinct} values; other candidates: {also}",
    ]
    lines += [f"user: {_quoted(user)}  # groups rows for grouped AUC"] if user else []
    lines += [f"timestamp: {_quoted(time)}"] if time else []
    lines.append("split: {kind: random, fractions: [0.8, 0.1, 0.1], seed: 0}")
    if time:
        lines.append(f"# split: {{kind: time, column: {_quoted(time)}, fractions: [0.8, 0.1, 0.1]}}")
    lines.append("columns:")
    for name in others:
        if name == time:
            continue
        doubt = "" if name == domain else _doubt(name, looks[name])
        entry = f"- {{name: {_quoted(name)}, {looks[name].kind_of(name)}}}  # {looks[name].distinct:,} values"
        lines.append(f"  # {entry}; left out: {doubt}" if doubt else f"  {entry}")
    return "\n".join(lines) + "\n"


class _Look:
    """What a column looks like in a sample."""

    def __init__(self, series: pl.Series) -> None:
        import polars as pl

        plain = series.drop_nulls()
        self.nested = series.dtype.is_nested()
        text = series.dtype in (pl.String, pl.Categorical, pl.Enum)
        values = plain.cast(pl.Float64, strict=False) if not self.nested and not series.dtype.is_temporal() else None
        numeric = values is not None and len(plain) > 0 and values.null_count() == 0
        distinct = plain.explode().n_unique() if self.nested else plain.n_unique()
        self.distinct = int(distinct)
        self.binary = bool(numeric and values is not None and values.is_in([0.0, 1.0]).all() and self.distinct <= 2)
        self.moment = series.dtype.is_temporal() or (numeric and self.distinct > 50) or text
        fractional = bool(numeric and values is not None and (values != values.floor()).any())
        if self.nested:
            self.kind = "kind: multi"
        elif text and not numeric and (separator := _separator(plain.cast(pl.String))):
            self.kind = f"kind: multi, separator: {_quoted(separator)}"
        elif fractional:
            self.kind = "kind: numeric"
        else:
            self.kind = "kind: categorical"
        self._countable = numeric and not fractional and self.distinct > 1000

    def kind_of(self, name: str) -> str:
        """The entry for a column of this name: whole numbers of many values are binned unless they name something."""
        if self._countable and not _IDENTIFIER.search(name.lower()):
            return "kind: numeric, bins: 20"
        return self.kind


def _separator(texts: pl.Series) -> str | None:
    """What splits most texts into parts that come again in other rows."""
    sample = texts.head(2000)
    for separator in _SEPARATORS:
        inside = sample.filter(sample.str.contains(separator, literal=True))
        if len(inside) > 0.2 * len(sample):
            parts = inside.str.split(separator).explode()
            if parts.n_unique() < 0.3 * len(parts):
                return separator
    return None


def _named(looks: dict[str, _Look], names: tuple[str, ...], test: Callable[[_Look], bool] | None = None) -> list[str]:
    found = [name for wanted in names for name in looks if name.lower() == wanted]
    return [name for name in found if test is None or test(looks[name])]


def _doubt(name: str, look: _Look) -> str:
    """Why a column should not be an input before someone has looked at it."""
    if look.distinct <= 1:
        return "one value only"
    if look.binary:
        return "a label, or known only after the impression?"
    return "known only after the impression?" if _AFTERWARDS.search(name.lower()) else ""


def _quoted(text: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) and text.lower() not in (
        "y",
        "n",
        "yes",
        "no",
        "on",
        "off",
    )
    return text if plain and text.lower() not in ("true", "false", "null") else json.dumps(text, ensure_ascii=False)
