"""A first schema, guessed from a table: names and values of its columns say what they are likely to be."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from autoctr.data.source import FileSource
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


@dataclasses.dataclass(frozen=True)
class Guess:
    """What a table's columns are likely to be.

    Attributes:
        text: the schema as YAML with comments, meant to be read and corrected.
        labels, domain, user, timestamp: the columns taken for these roles.
        inputs: columns that the network reads. left_out: those that may give away the label.
        doubts: what nobody should search before having looked at it.
    """

    text: str
    labels: tuple[str, ...]
    domain: str
    user: str | None
    timestamp: str | None
    inputs: tuple[str, ...]
    left_out: tuple[str, ...]
    doubts: tuple[str, ...]

    def __str__(self) -> str:
        """The roles in one line."""
        roles = [f"label {' and '.join(self.labels)}", f"domain {self.domain}"]
        roles += [f"user {self.user}"] if self.user else []
        roles += [f"timestamp {self.timestamp}"] if self.timestamp else []
        roles.append(f"inputs {', '.join(self.inputs)}")
        roles += [f"left out {', '.join(self.left_out)}"] if self.left_out else []
        return "; ".join(roles)


def guess(path: Path) -> Guess:
    """Look at the first 50,000 rows.

    Raises:
        UserError: if the table cannot be read or nothing in it looks like a label or a domain.
    """
    source = FileSource(Path(path))
    frame = next(source.chunks(source.columns, _SAMPLE_ROWS), None)
    if frame is None or not len(frame):
        raise UserError(f"{path} has no rows; nothing to guess from")
    looks = {name: _Look(frame[name]) for name in frame.columns}
    binary = [name for name, look in looks.items() if look.binary]
    named = _named(looks, _LABELS, lambda look: look.binary)
    labels = named or binary[:1]
    if not labels:
        raise UserError(f"no column of {path} holds only 0 and 1; a schema needs a label, add one first")
    others = [name for name in looks if name not in labels]
    user = next(iter(_named(looks, _ROLES["user"])), None)
    time = next(iter(_named(looks, _ROLES["timestamp"], lambda look: look.moment)), None)
    small = [name for name in others if 2 <= looks[name].distinct <= 50 and name not in (user, time)]
    few = sorted(small, key=lambda name: (looks[name].binary, looks[name].distinct))
    called = _named(looks, _ROLES["domain"], lambda look: look.distinct >= 1)
    domain = next(iter([*called, *few]), None)
    if domain is None or domain in labels:
        raise UserError(f"no column of {path} looks like a domain (2 to 50 values); a schema needs one, add it first")
    rest = tuple(name for name in few if name != domain)
    doubts = []
    if not named and len(binary) > 1:
        doubts.append(f"which of {', '.join(binary)} is the label")
    if not called and rest:
        doubts.append(f"which of {', '.join([domain, *rest])} is the domain")
    unsure = {name: "" if name == domain else _doubt(name, looks[name]) for name in others if name != time}
    return Guess(
        text=_text(Path(path), len(frame), looks, labels, domain, rest, user, time, unsure),
        labels=tuple(labels),
        domain=domain,
        user=user,
        timestamp=time,
        inputs=tuple(name for name, doubt in unsure.items() if not doubt),
        left_out=tuple(name for name, doubt in unsure.items() if doubt),
        doubts=tuple(doubts),
    )


def _text(
    path: Path,
    rows: int,
    looks: dict[str, _Look],
    labels: list[str],
    domain: str,
    domains: tuple[str, ...],
    user: str | None,
    time: str | None,
    unsure: dict[str, str],
) -> str:
    others = ", ".join(domains) or "none"
    lines = [
        f"# Guessed from the first {rows:,} rows of {path.name}. Read every line before you trust it.",
        "# Take out what is known only after the impression (dwell time, later counts): it leaks the label.",
        f"labels: [{', '.join(_quoted(name) for name in labels)}]  # columns of 0 and 1",
        f"domain: {_quoted(domain)}  # {looks[domain].distinct} values; other candidates: {others}",
    ]
    lines += [f"user: {_quoted(user)}  # groups rows for grouped AUC"] if user else []
    lines += [f"timestamp: {_quoted(time)}"] if time else []
    lines.append("split: {kind: random, fractions: [0.8, 0.1, 0.1], seed: 0}")
    if time:
        lines.append(f"# split: {{kind: time, column: {_quoted(time)}, fractions: [0.8, 0.1, 0.1]}}")
    lines.append("columns:")
    for name, doubt in unsure.items():
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
