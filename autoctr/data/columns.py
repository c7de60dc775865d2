"""Columns of a polars frame as arrays, by the rules of :mod:`autoctr.data.encoder` for single values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autoctr.data.canonical import canonical
from autoctr.data.encoder import MISSING_NUMBERS, TRUTH_NUMBERS, split_text
from autoctr.errors import UserError

if TYPE_CHECKING:
    import polars as pl


def map_texts(series: pl.Series, function: Callable[[str], int], missing: int, dtype: Any) -> npt.NDArray[Any]:
    """Apply ``function`` to the canonical form of every value, ``missing`` to what has none.

    Returns: [N] of ``dtype``; the function is called once per distinct value.
    """
    import polars as pl

    target = pl.UInt64 if dtype is np.uint64 else pl.Int64
    plain = _plain(series)
    values = plain.drop_nulls().unique(maintain_order=True)
    texts = [canonical(value) for value in _elements(values)]
    results = [missing if text is None else function(text) for text in texts]
    if plain.null_count() == len(plain):
        return np.full(len(plain), missing, dtype)
    mapped = plain.replace_strict(values, pl.Series(results, dtype=target), default=missing, return_dtype=target)
    return mapped.to_numpy().astype(dtype, copy=False)


def count_texts(series: pl.Series, counts: Counter[str]) -> None:
    """Add the canonical values of ``series`` to ``counts``."""
    table = _plain(series).drop_nulls().rename("value").value_counts()
    for value, count in zip(_elements(table["value"]), table["count"].to_list(), strict=True):
        text = canonical(value)
        if text is not None:
            counts[text] += count


def lists(series: pl.Series, separator: str | None) -> pl.Series:
    """A multi-valued column as a list series; of text, the parts without blanks around them."""
    import polars as pl

    if isinstance(series.dtype, (pl.List, pl.Array)):
        return series.cast(pl.List(series.dtype.inner))
    plain = series.cast(pl.String)
    values = plain.drop_nulls().unique()
    parts = pl.Series([split_text(value, separator) for value in values.to_list()], dtype=pl.List(pl.String))
    table = pl.DataFrame({"value": values, "parts": parts})
    joined = pl.DataFrame({"value": plain}).join(table, on="value", how="left", maintain_order="left")
    return joined["parts"]


def numbers(series: pl.Series) -> npt.NDArray[np.float64]:
    """A numeric column; NaN where it is missing or not finite.

    Raises:
        UserError: for a text that is not a number.
    """
    import polars as pl

    series = _plain(series)
    if series.dtype == pl.String:
        result, failed = _read(series)
        if failed.any():
            wrong = series.filter(failed)[0]
            raise UserError(f"the numeric column {series.name} holds {wrong!r}, which is not a number")
    elif series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null):
        result = series.cast(pl.Float64)
    else:
        raise UserError(f"the numeric column {series.name} holds {series.dtype}; make it a number or another kind")
    values: npt.NDArray[np.float64] = result.fill_null(np.nan).to_numpy().astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    return values


def unreadable(series: pl.Series) -> npt.NDArray[np.bool_]:
    """Which values of a numeric column :func:`numbers` cannot read, [N]."""
    import polars as pl

    series = _plain(series)
    if series.dtype != pl.String:
        return np.zeros(len(series), bool)
    failed: npt.NDArray[np.bool_] = _read(series)[1].to_numpy()
    return failed


def _read(texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Texts as numbers, null where they are none, and whether each is neither a number nor a word for a missing one."""
    import polars as pl

    text = texts.str.strip_chars()
    result = text.cast(pl.Float64, strict=False)
    if result.null_count() > text.null_count():
        text = text.replace(TRUTH_NUMBERS)
        result = text.cast(pl.Float64, strict=False)
    missing = text.str.to_lowercase().is_in(MISSING_NUMBERS)
    return result, (result.is_null() & text.is_not_null() & ~missing).fill_null(False)


def times(series: pl.Series) -> npt.NDArray[np.int64]:
    """A time column: numbers as they are, dates and moments (also as ISO text) in milliseconds since 1970.

    Raises:
        UserError: for a missing time or a text that is neither number nor date.
    """
    import polars as pl

    name, series = series.name, _plain(series)
    if series.dtype == pl.String:
        whole = series.cast(pl.Int64, strict=False)
        if whole.null_count() > series.null_count():
            try:
                whole = series.str.to_datetime(time_unit="ms", strict=False, exact=True).dt.replace_time_zone(None)
            except pl.exceptions.PolarsError:
                whole = pl.Series([None] * len(series), dtype=pl.Int64)
        if whole.null_count() > series.null_count():
            bad = series.filter(whole.is_null() & series.is_not_null())[0]
            raise UserError(
                f"the time column {name} holds {bad!r}; expected a number or a date like 2024-01-31T12:00:00"
            )
        series = whole
    if series.dtype == pl.Date or isinstance(series.dtype, pl.Datetime):
        series = series.cast(pl.Datetime("ms"))
    elif not series.dtype.is_numeric():
        raise UserError(f"the time column {name} holds {series.dtype}; expected numbers or dates")
    if series.null_count():
        raise UserError(f"the time column {name} is empty in {series.null_count()} rows; fill them or drop the rows")
    result: npt.NDArray[np.int64] = series.cast(pl.Int64, strict=False).fill_null(0).to_numpy()
    return result


def _plain(series: pl.Series) -> pl.Series:
    import polars as pl

    if series.dtype in (pl.Categorical, pl.Enum) or series.dtype == pl.Null:
        return series.cast(pl.String)
    return series.fill_nan(None) if series.dtype.is_float() else series


def _elements(values: pl.Series) -> Any:
    """Distinct values for :func:`canonical`; float32 stays float32, so that 0.1 keeps its short form."""
    import polars as pl

    return values.to_numpy() if values.dtype == pl.Float32 else values.to_list()
