"""Rules that put every row into train, valid or test.

A rule is assigned row by row in the order of the file, so that memory does not grow with it, and from hashes
of the row's number, so that the result depends on the seed alone and not on chunking or platform.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from autoctr.data.hashing import uniforms, word, words
from autoctr.errors import UserError

if TYPE_CHECKING:
    import polars as pl

Codes = npt.NDArray[np.int8]
DROPPED = -1
_BLOCK = 20


class Assigner(Protocol):
    """Assigns rows chunk by chunk."""

    def assign(self, chunk: pl.DataFrame) -> Codes:
        """Next rows, in order.

        Returns: int8 [N], 0 train, 1 valid, 2 test, -1 for a row that belongs to none.
        """


class SplitRule(Protocol):
    """A way to split a table. Implementations are frozen dataclasses; their fields go into the cache key."""

    def columns(self, domain: str, labels: tuple[str, ...]) -> list[str]:
        """Raw columns that the rule reads, given those of domain and labels."""

    def times(self) -> str | None:
        """Column whose training-independent quantiles the rule needs before it can assign, or None."""

    def assigner(self, domain: str, labels: tuple[str, ...], quantiles: npt.NDArray[np.int64] | None) -> Assigner:
        """Start assigning at the first row; ``quantiles`` are a sorted sample of the column ``times`` names."""


def _check_fractions(fractions: tuple[float, ...]) -> None:
    if len(fractions) != 3 or any(f < 0 for f in fractions) or abs(sum(fractions) - 1) > 1e-6:
        shown = ", ".join(f"{f:g}" for f in fractions)
        raise UserError(f"split fractions are {shown}; give three numbers for train, valid and test that add up to 1")


def permuted_blocks(
    place: npt.NDArray[np.int64], stratum: npt.NDArray[np.uint64], fractions: tuple[float, ...], seed: int
) -> Codes:
    """Random splits of almost exact proportions: every 20 consecutive rows of a stratum are dealt out by a permutation.

    ``place`` int64 [N] counts the rows of the same ``stratum`` before this one.

    Returns: int8 [N].
    """
    block = place // _BLOCK
    own = words(seed, "split", stratum, place)
    rank = np.zeros(len(place), np.int64)
    for other in range(_BLOCK):
        rank += words(seed, "split", stratum, block * _BLOCK + other) < own
    # the second draw matters only where a fraction is no multiple of 1/20
    position = (rank + uniforms(seed, "split within", stratum, place)) / _BLOCK
    bounds = np.cumsum(np.asarray(fractions))[:2] + 1e-12
    return np.searchsorted(bounds, position, side="right").astype(np.int8)


@dataclasses.dataclass(frozen=True)
class RandomSplit:
    """Random rows, 80/10/10 by default."""

    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0

    def __post_init__(self) -> None:
        _check_fractions(self.fractions)

    def columns(self, domain: str, labels: tuple[str, ...]) -> list[str]:
        """None."""
        return []

    def times(self) -> str | None:
        """None."""
        return None

    def assigner(self, domain: str, labels: tuple[str, ...], quantiles: npt.NDArray[np.int64] | None) -> Assigner:
        """See :class:`SplitRule`."""
        return _Strata(self.fractions, self.seed, ())


@dataclasses.dataclass(frozen=True)
class StratifiedSplit:
    """Random rows with the same fractions in every domain and, within it, for every combination of labels."""

    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    seed: int = 0

    def __post_init__(self) -> None:
        _check_fractions(self.fractions)

    def columns(self, domain: str, labels: tuple[str, ...]) -> list[str]:
        """Domain and labels."""
        return [domain, *labels]

    def times(self) -> str | None:
        """None."""
        return None

    def assigner(self, domain: str, labels: tuple[str, ...], quantiles: npt.NDArray[np.int64] | None) -> Assigner:
        """See :class:`SplitRule`."""
        return _Strata(self.fractions, self.seed, (domain, *labels))


@dataclasses.dataclass(frozen=True)
class TimeSplit:
    """By time: train is before ``boundaries[0]``, valid before ``boundaries[1]``, test from there on.

    Without boundaries ``fractions`` of the rows in the order of time place them; beyond 262,144 rows from a
    sample.
    """

    column: str
    boundaries: tuple[int, int] | None = None
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)

    def __post_init__(self) -> None:
        _check_fractions(self.fractions)
        if self.boundaries is not None and self.boundaries[0] > self.boundaries[1]:
            raise UserError(f"time boundaries are {self.boundaries}; the first must not be later than the second")

    def columns(self, domain: str, labels: tuple[str, ...]) -> list[str]:
        """The time column."""
        return [self.column]

    def times(self) -> str | None:
        """The time column, unless the boundaries are given."""
        return self.column if self.boundaries is None else None

    def assigner(self, domain: str, labels: tuple[str, ...], quantiles: npt.NDArray[np.int64] | None) -> Assigner:
        """See :class:`SplitRule`."""
        bounds = self.boundaries
        if bounds is None:
            if quantiles is None or not len(quantiles):
                raise UserError(f"the time column {self.column} holds no times; give time boundaries or another split")
            ends = np.cumsum(np.asarray(self.fractions))[:2] * len(quantiles)
            picked = np.minimum(np.ceil(ends - 1e-9).astype(np.int64), len(quantiles) - 1)
            bounds = (int(quantiles[picked[0]]), int(quantiles[picked[1]]))
        return _Boundaries(self.column, bounds)


@dataclasses.dataclass(frozen=True)
class ColumnSplit:
    """By a column that says it. Rows with any other value are left out."""

    column: str
    train: tuple[str, ...] = ("train",)
    valid: tuple[str, ...] = ("valid",)
    test: tuple[str, ...] = ("test",)

    def columns(self, domain: str, labels: tuple[str, ...]) -> list[str]:
        """The column."""
        return [self.column]

    def times(self) -> str | None:
        """None."""
        return None

    def assigner(self, domain: str, labels: tuple[str, ...], quantiles: npt.NDArray[np.int64] | None) -> Assigner:
        """See :class:`SplitRule`."""
        return _Named(self.column, {name: code for code, names in enumerate(self._names()) for name in names})

    def _names(self) -> tuple[tuple[str, ...], ...]:
        return (self.train, self.valid, self.test)


class _Strata:
    def __init__(self, fractions: tuple[float, ...], seed: int, columns: tuple[str, ...]) -> None:
        self._fractions, self._seed, self._columns = fractions, seed, columns
        self._seen: dict[int, int] = {}

    def assign(self, chunk: pl.DataFrame) -> Codes:
        from autoctr.data.columns import map_texts

        stratum = np.zeros(len(chunk), np.uint64)
        for name in self._columns:
            stratum = words(0, "stratum", stratum, map_texts(chunk[name], word, word(""), np.uint64))
        keys, inverse, counts = np.unique(stratum, return_inverse=True, return_counts=True)
        place = np.empty(len(chunk), np.int64)
        place[np.argsort(inverse, kind="stable")] = np.arange(len(chunk)) - np.repeat(
            np.cumsum(counts) - counts, counts
        )
        place += np.asarray([self._seen.get(int(key), 0) for key in keys], np.int64)[inverse]
        for key, count in zip(keys, counts, strict=True):
            self._seen[int(key)] = self._seen.get(int(key), 0) + int(count)
        return permuted_blocks(place, stratum, self._fractions, self._seed)


class _Boundaries:
    def __init__(self, column: str, bounds: tuple[int, int]) -> None:
        self._column, self._bounds = column, np.asarray(bounds, np.int64)

    def assign(self, chunk: pl.DataFrame) -> Codes:
        from autoctr.data.columns import times

        return np.searchsorted(self._bounds, times(chunk[self._column]), side="right").astype(np.int8)


class _Named:
    def __init__(self, column: str, codes: dict[str, int]) -> None:
        self._column, self._codes = column, codes

    def assign(self, chunk: pl.DataFrame) -> Codes:
        from autoctr.data.columns import map_texts

        return map_texts(chunk[self._column], lambda name: self._codes.get(name, DROPPED), DROPPED, np.int8)


RULES: dict[str, type] = {
    "random": RandomSplit,
    "stratified": StratifiedSplit,
    "time": TimeSplit,
    "column": ColumnSplit,
}


def split_to_dict(rule: SplitRule) -> dict[str, Any]:
    """JSON-ready form, part of the cache key."""
    kind = next(name for name, cls in RULES.items() if type(rule) is cls)
    return {"kind": kind, **dataclasses.asdict(rule)}  # type: ignore[call-overload]


def split_from_dict(value: dict[str, Any], where: str = "split") -> SplitRule:
    """Read a rule such as ``{kind: time, column: day, boundaries: [5, 7]}``.

    Raises:
        UserError: for an unknown kind or field, or a wrong type.
    """
    arguments = dict(value)
    kind = arguments.pop("kind", None)
    if kind not in RULES:
        raise UserError(f"{where}: unknown kind of split {kind!r}; legal are {', '.join(RULES)}")
    fields = {f.name: str(f.type) for f in dataclasses.fields(RULES[kind])}
    for name, entry in arguments.items():
        if name not in fields:
            raise UserError(f"{where}: a {kind} split has no field {name!r}; legal are {', '.join(fields)}")
        expected = "text" if fields[name] == "str" else "whole number" if fields[name] == "int" else "list"
        if expected == "list":
            entry = [entry] if isinstance(entry, str) else entry
            inner = str if "str" in fields[name] else int if "int" in fields[name] else (int, float)
            legal = isinstance(entry, (list, tuple)) and all(isinstance(part, inner) for part in entry)
            legal = legal and ("..." in fields[name] or len(entry) == fields[name].count(",") + 1)
        else:
            legal = isinstance(entry, str if expected == "text" else int) and not isinstance(entry, bool)
        if not legal:
            raise UserError(f"{where}: {name} is {value[name]!r}, expected a {expected} ({fields[name]})")
        arguments[name] = tuple(entry) if expected == "list" else entry
    try:
        rule: SplitRule = RULES[kind](**arguments)
    except TypeError as error:
        raise UserError(f"{where}: a {kind} split needs the field column") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return rule
