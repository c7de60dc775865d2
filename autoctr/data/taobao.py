"""Taobao theme clicks (Tianchi 9716), and the simulated files that stand in for them.

Processed as in MLoRA (arXiv 2408.08913). Negatives and splits are drawn against all of a user's clicks, test
clicks included: a sampled negative never is a click of another split, so the absence of an
item already says something, equally for every model. Compare models by it; do not read the probabilities as
calibrated.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoctr.data.cache import Recipe, built, cache_root
from autoctr.data.encoding import RawTable
from autoctr.data.hashing import file_digest
from autoctr.data.raw_files import find
from autoctr.data.schema import Column, Schema
from autoctr.data.source import FileSource, FrameSource, first_row, need
from autoctr.data.splits import ColumnSplit
from autoctr.data.statistics import Kind
from autoctr.data.themes import Integers, ThemeLog, build_theme_log, first_themes, sample_negatives
from autoctr.data.vectors import VectorTable, read_vectors
from autoctr.errors import UserError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FILES", "SCHEMA", "ThemeLog", "read_theme_log", "recipe", "sample_negatives", "simulated"]

FILES = ("theme_click_log.csv", "user_embedding.csv", "item_embedding.csv")
SCHEMA = Schema(
    (
        Column("user_vector", Kind.VECTOR, source="user_id", table=FILES[1]),
        Column("item_vector", Kind.VECTOR, source="item_id", table=FILES[2]),
        Column("theme_id", min_count=1),
    ),
    labels=("click",),
    domain="theme_id",
    user="user_id",
)
_HINT = (
    "They come from Tianchi data set 9716 (https://tianchi.aliyun.com/dataset/9716). "
    "Without them run: autoctr search --dataset taobao-sim"
)
_LOG_COLUMNS = ("user_id", "item_id", "theme_id")
_SPLIT = "split"


def recipe(data: Path | None, themes: int, seed: int) -> Recipe:
    """The first ``themes`` themes of the log; 60/20/20 inside each."""
    files = find(data, "taobao", (FILES,), _HINT)
    return _recipe(f"taobao-{themes}", files, themes, seed, None)


def simulated(cache: Path | None, rows: int, seed: int, truth: str) -> Recipe:
    """Ten themes from a planted click model; the files are generated in the cache and read like the real ones.

    Split and negatives use the same ``seed``.
    """
    from autoctr.data import simulation

    generator = file_digest([Path(simulation.__file__)])[:8]
    folder = cache_root(cache) / "raw" / f"taobao-sim-{rows}-{seed}-{truth}-{generator}"
    built(folder, lambda target: simulation.simulate(target, rows=rows, seed=seed, truth=truth))
    return _recipe("taobao-sim", [folder / name for name in FILES], 10, seed, folder / simulation.TRUTH_FILE)


def _recipe(name: str, files: list[Path], themes: int, seed: int, truth: Path | None) -> Recipe:
    content: dict[str, Any] = {"files": file_digest(files), "themes": themes, "seed": seed, "version": 1}
    if truth is not None:
        content["truth"] = file_digest([truth])

    def read() -> RawTable:
        log, tables = read_theme_log(files, themes, seed)
        info: dict[str, Any] = {
            "source": str(files[0].parent),
            "rho": {str(theme): rho for theme, rho in zip(log.themes, log.rho, strict=True)},
            "items": {str(theme): items for theme, items in zip(log.themes, log.items, strict=True)},
        }
        if truth is not None:
            info["ceiling"] = _ceilings(truth, log)
        return RawTable(FrameSource(to_frame(log)), tables, info)

    return Recipe(name, SCHEMA, ColumnSplit(_SPLIT), content, read)


def read_theme_log(files: list[Path], themes: int = 10, seed: int = 0) -> tuple[ThemeLog, dict[str, VectorTable]]:
    """Read the three raw files: labelled rows, and the vectors of their users and items.

    Raises:
        UserError: if a file cannot be read, holds ids that are not whole numbers, or no click has both
        vectors.
    """
    clicks = _clicks(files[0])
    kept = first_themes(clicks["theme_id"], themes)
    if len(kept) < themes:
        raise UserError(f"{files[0]} holds {len(kept)} themes, fewer than the {themes} asked for")
    inside = np.isin(clicks["theme_id"], kept)
    clicks = {name: values[inside] for name, values in clicks.items()}
    tables, known = {}, np.ones(int(inside.sum()), np.bool_)
    for part, file in (("user", files[1]), ("item", files[2])):
        ids = clicks[f"{part}_id"]
        table = read_vectors(file, frozenset(map(str, np.unique(ids).tolist())))
        tables[f"{part}_vector"] = table
        known &= np.isin(ids, np.asarray([int(text) for text in table.ids], np.int64))
    if not known.any():
        raise UserError(f"no click of {files[0]} has both a user and an item vector; do the files belong together?")
    user, item, theme = (clicks[name][known] for name in _LOG_COLUMNS)
    return build_theme_log(user, item, theme, kept, seed), tables


def to_frame(log: ThemeLog) -> pl.DataFrame:
    """Columns user_id, item_id, theme_id, domain, click and split (train, valid, test)."""
    import polars as pl

    return pl.DataFrame(
        {
            "user_id": log.user_id,
            "item_id": log.item_id,
            "theme_id": log.theme_id,
            "domain": log.domain,
            "click": log.label,
            _SPLIT: np.asarray(["train", "valid", "test"])[log.split].tolist(),
        }
    )


def _clicks(file: Path) -> dict[str, Integers]:
    import polars as pl

    first = first_row(file)
    # without a header the original's first three columns are user, item and theme
    headerless = all(cell.strip().lstrip("-").isdigit() for cell in first[:3])
    names = ["column_0", "column_1", "column_2"] if headerless else list(_LOG_COLUMNS)
    source = FileSource(file, headerless)
    need(file, names, source.columns)
    parts = []
    for chunk in source.chunks(names):
        try:
            parts.append(chunk.select(pl.col(names).cast(pl.Int64)))
        except pl.exceptions.PolarsError as error:
            raise UserError(f"{file} holds an id that is not a whole number: {str(error).splitlines()[0]}") from error
    if not parts:
        raise UserError(f"{file} holds no clicks")
    frame = pl.concat(parts).drop_nulls()
    return {name: frame[column].to_numpy() for name, column in zip(_LOG_COLUMNS, names, strict=True)}


def _ceilings(truth: Path, log: ThemeLog) -> dict[str, Any]:
    from autoctr.data.simulation import ceiling

    parts = {"valid": log.split == 1, "test": log.split == 2}
    return {
        name: ceiling(truth, log.user_id, log.item_id, log.theme_id, log.label.astype(np.int64), part)
        for name, part in parts.items()
    }
