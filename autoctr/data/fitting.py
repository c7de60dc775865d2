"""What is learned from the training split before encoding: vocabularies, bins, scalers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from autoctr.data.columns import count_texts, lists, numbers
from autoctr.data.encoder import FieldEncoder
from autoctr.data.sample import Sample
from autoctr.data.schema import Column
from autoctr.data.statistics import Kind
from autoctr.data.vectors import VectorTable
from autoctr.errors import UserError

if TYPE_CHECKING:
    import polars as pl


class Fit(Protocol):
    """Sees the training values of one column, chunk by chunk."""

    def add(self, series: pl.Series) -> None:
        """Next training values."""

    def finish(self) -> FieldEncoder:
        """The encoder they give."""


def fit_for(column: Column, tables: dict[str, VectorTable]) -> Fit:
    """The fit that a column needs."""
    if column.kind is Kind.VECTOR:
        return VectorFit(column, tables[column.name])
    kinds: dict[Kind, type[CategoricalFit] | type[MultiFit] | type[NumericFit]] = {
        Kind.CATEGORICAL: CategoricalFit,
        Kind.MULTI: MultiFit,
        Kind.NUMERIC: NumericFit,
    }
    return kinds[column.kind](column)


class CategoricalFit:
    """Counts values; those seen ``min_count`` times or more get an id, the most frequent first."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self.counts: Counter[str] = Counter()

    def add(self, series: pl.Series) -> None:
        """See :class:`Fit`."""
        if series.dtype.is_nested():
            raise UserError(f"the categorical column {self.column.raw} holds {series.dtype}; its kind should be multi")
        count_texts(series, self.counts)

    def finish(self) -> FieldEncoder:
        """See :class:`Fit`."""
        return FieldEncoder(self.column.name, self.column.kind, self.column.raw, vocabulary=_vocabulary(self), slots=1)


class MultiFit:
    """As :class:`CategoricalFit`, of the values in lists; slots are limited to the longest list seen."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self.counts: Counter[str] = Counter()
        self._longest = 1

    def add(self, series: pl.Series) -> None:
        """See :class:`Fit`."""
        several = lists(series, self.column.separator)
        longest = several.list.len().max()
        if isinstance(longest, int):
            self._longest = max(self._longest, longest)
        count_texts(several.explode(), self.counts)

    def finish(self) -> FieldEncoder:
        """See :class:`Fit`."""
        return FieldEncoder(
            self.column.name,
            self.column.kind,
            self.column.raw,
            vocabulary=_vocabulary(self),
            separator=self.column.separator,
            slots=min(self._longest, self.column.max_length),
        )


class NumericFit:
    """Mean and standard deviation, or quantiles; missing values are left out."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._sample = Sample()

    def add(self, series: pl.Series) -> None:
        """See :class:`Fit`."""
        values = numbers(series)
        values = values[~np.isnan(values)]
        if self.column.bins:
            self._sample.add(values)
        elif len(values):
            # Chan, Golub and LeVeque: merging (count, mean, squares) keeps the precision that plain sums lose
            mean, total = float(values.mean()), self._count + len(values)
            away = mean - self._mean
            self._squares += float(((values - mean) ** 2).sum()) + away**2 * self._count * len(values) / total
            self._mean += away * len(values) / total
            self._count = total

    def finish(self) -> FieldEncoder:
        """See :class:`Fit`."""
        column = self.column
        if column.bins:
            values = self._sample.sorted()
            inner = np.linspace(0.0, 1.0, column.bins + 1)[1:-1]
            edges = np.unique(np.quantile(values, inner)) if len(values) else np.empty(0)
            return FieldEncoder(column.name, column.kind, column.raw, edges=tuple(edges.tolist()), slots=1)
        deviation = (self._squares / self._count) ** 0.5 if self._count else 0.0
        # what rounding leaves of a constant column is not a spread
        std = deviation if deviation > 1e-12 * max(1.0, abs(self._mean)) else 1.0
        return FieldEncoder(column.name, column.kind, column.raw, mean=self._mean, std=std)


class VectorFit:
    """Nothing to fit: the side table is frozen."""

    def __init__(self, column: Column, table: VectorTable) -> None:
        self.column, self._table = column, table

    def add(self, series: pl.Series) -> None:
        """See :class:`Fit`."""

    def finish(self) -> FieldEncoder:
        """See :class:`Fit`."""
        column, table = self.column, self._table
        return FieldEncoder(column.name, column.kind, column.raw, vocabulary=table.ids, width=table.width)


def _vocabulary(fit: CategoricalFit | MultiFit) -> tuple[str, ...]:
    kept = [(value, count) for value, count in fit.counts.items() if count >= fit.column.min_count]
    return tuple(value for value, _ in sorted(kept, key=lambda entry: (-entry[1], entry[0])))
