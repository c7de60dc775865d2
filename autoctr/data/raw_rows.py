"""The raw rows of one split, for instance to try an exported model on the very rows that were held out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoctr.data.cache import Recipe
from autoctr.data.dataset import SPLITS
from autoctr.data.encoding import split_chunks
from autoctr.errors import UserError

if TYPE_CHECKING:
    import polars as pl


def raw_rows(recipe: Recipe, split: str, limit: int | None = None) -> pl.DataFrame:
    """The raw columns of the first ``limit`` rows of a split (all without it), in the encoded order.

    Raises:
        UserError: for an unknown split.
    """
    import polars as pl

    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; legal are {', '.join(SPLITS)}")
    parts, rows = [], 0
    for chunk, codes in split_chunks(recipe.schema, recipe.split, recipe.read().source):
        part = chunk.filter(pl.Series(codes == SPLITS.index(split))).select(recipe.schema.raw_columns)
        parts.append(part)
        rows += len(part)
        if limit is not None and rows >= limit:
            break
    return pl.concat(parts).head(limit if limit is not None else rows)
