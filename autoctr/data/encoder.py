"""Raw values to ids, after training: needs numpy and ``encoder.json``, neither data nor a table engine."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoctr.data.canonical import canonical
from autoctr.data.dataset import Rows
from autoctr.data.statistics import Field, Kind
from autoctr.errors import UserError

FILE = "encoder.json"
MISSING_NUMBERS = ("", "nan", "na", "null", "none", "inf", "-inf", "+inf", "infinity", "-infinity")
TRUTH_NUMBERS = {"true": "1", "True": "1", "false": "0", "False": "0"}


@dataclasses.dataclass(frozen=True)
class FieldEncoder:
    """How one input is encoded; everything in it was fitted on the training split.

    ``source`` is the raw column. ``vocabulary`` are the known values in the order of their ids, which begin
    at :attr:`first`; for ``vector`` the ids of the side table in the order of its rows. ``edges`` cut a
    number into bins, ``mean`` and ``std`` scale it. ``slots`` is how many values of a multi-valued input are
    kept, ``separator`` what splits its text.
    """

    name: str
    kind: Kind
    source: str
    vocabulary: tuple[str, ...] = ()
    edges: tuple[float, ...] | None = None
    mean: float = 0.0
    std: float = 1.0
    separator: str | None = None
    slots: int = 0
    width: int = 0

    @property
    def first(self) -> int:
        """Id of the first known value."""
        return 2 if self.kind is Kind.MULTI else 1

    @property
    def unknown(self) -> int:
        """Id of a missing, unseen or too rare value."""
        return self.first - 1

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Id of every known value."""
        return {value: self.first + place for place, value in enumerate(self.vocabulary)}

    @property
    def field(self) -> Field:
        """The entry in the dataset's statistics."""
        if self.kind is Kind.VECTOR:
            return Field(self.name, self.kind, width=self.width)
        if self.kind is Kind.NUMERIC:
            return Field(self.name, self.kind) if self.edges is None else Field(self.name, self.kind, self.bins, 1)
        return Field(self.name, self.kind, self.first + len(self.vocabulary), self.slots)

    @property
    def bins(self) -> int:
        """Embedding rows of a number cut into bins: one for missing, then the bins."""
        return len(self.edges or ()) + 2

    def scale(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Standardise; missing (NaN) becomes 0."""
        return np.nan_to_num((values - self.mean) / self.std).astype(np.float32)

    def cut(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """Bin of every number: 0 if missing, else 1 + the edges that are not above it."""
        found = np.searchsorted(np.asarray(self.edges, np.float64), values, side="right") + 1
        return np.where(np.isnan(values), 0, found).astype(np.int32)

    def ids(self, values: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Ids of raw values without the field's offset.

        Returns: int32 [N, slots].
        """
        if self.kind is Kind.MULTI:
            result = np.zeros((len(values), self.slots), np.int32)
            for row, value in enumerate(values):
                kept = [self._id(part) for part in _parts(value, self.separator)[: self.slots]]
                result[row, : len(kept)] = kept
            return result
        if self.kind is Kind.NUMERIC:
            return self.cut(read_numbers(self.source, values))[:, None]
        return _each(values, self._id)[:, None]

    def _id(self, value: Any) -> int:
        text = canonical(value)
        return self.unknown if text is None else self.index.get(text, self.unknown)


@dataclasses.dataclass(frozen=True)
class Encoder:
    """All inputs of a dataset, and its roles, which are raw columns."""

    fields: tuple[FieldEncoder, ...]
    domain: str
    domains: tuple[str, ...]
    labels: tuple[str, ...]
    user: str | None = None
    timestamp: str | None = None

    @functools.cached_property
    def offsets(self) -> dict[str, int]:
        """First row of every embedded field in the joint embedding table."""
        sizes = {encoder.name: encoder.field.size for encoder in self.fields if encoder.field.size}
        starts = np.cumsum([0, *sizes.values()])[:-1]
        return {name: int(start) for name, start in zip(sizes, starts, strict=True)}

    @property
    def raw_columns(self) -> list[str]:
        """Raw columns that :meth:`encode` needs."""
        return list(dict.fromkeys([*(encoder.source for encoder in self.fields), self.domain]))

    def encode(self, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]]) -> Rows:
        """Encode raw columns, given by name, all of N values.

        Labels are encoded where they are among the columns, else the result has none (``labels`` [N, 0]). An
        unknown domain gets index D. ``user`` and ``time`` are left out: training alone needs them.

        Returns: rows as in an encoded dataset.

        Raises:
            UserError: if a column is missing or a number cannot be read.
        """
        missing = [name for name in self.raw_columns if name not in columns]
        if missing:
            raise UserError(f"missing columns {', '.join(missing)}; the table has {', '.join(columns)}")
        rows = len(columns[self.domain])
        ids: list[npt.NDArray[np.int32]] = [np.empty((rows, 0), np.int32)]
        numbers: list[npt.NDArray[np.float32]] = [np.empty((rows, 0), np.float32)]
        vectors: list[npt.NDArray[np.int32]] = [np.empty((rows, 0), np.int32)]
        for encoder in self.fields:
            values = columns[encoder.source]
            if encoder.kind is Kind.VECTOR:
                vectors.append(encoder.ids(values))
            elif encoder.name in self.offsets:
                ids.append(encoder.ids(values) + np.int32(self.offsets[encoder.name]))
            else:
                numbers.append(encoder.scale(read_numbers(encoder.source, values))[:, None])
        places = {name: place for place, name in enumerate(self.domains)}
        labels = [read_numbers(name, columns[name]) for name in self.labels if name in columns]
        return Rows(
            ids=np.concatenate(ids, axis=1),
            numbers=np.concatenate(numbers, axis=1),
            vectors=np.concatenate(vectors, axis=1),
            domain=_each(columns[self.domain], lambda value: places.get(canonical(value) or "", len(places))),
            labels=np.stack(labels, axis=1).astype(np.float32)
            if len(labels) == len(self.labels)
            else np.empty((rows, 0), np.float32),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Encoder:
        """Inverse of :meth:`to_dict`."""
        fields = tuple(
            FieldEncoder(
                **{
                    **field,
                    "kind": Kind(field["kind"]),
                    "vocabulary": tuple(field["vocabulary"]),
                    "edges": None if field["edges"] is None else tuple(field["edges"]),
                }
            )
            for field in value["fields"]
        )
        lists = {name: tuple(value[name]) for name in ("domains", "labels")}
        return cls(fields=fields, domain=value["domain"], user=value["user"], timestamp=value["timestamp"], **lists)

    def save(self, folder: Path) -> None:
        """Write ``encoder.json`` into ``folder``."""
        (folder / FILE).write_text(json.dumps(self.to_dict(), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> Encoder:
        """Read ``encoder.json`` of an encoded dataset or an export.

        Raises:
            UserError: if the file is missing or damaged.
        """
        path = Path(folder) / FILE
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot read the encoder {path} ({error}); prepare the dataset again") from error


def read_numbers(name: str, values: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Raw values as float64 [N]; NaN where missing or not finite.

    Raises:
        UserError: for a text that is not a number.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        result = values.astype(np.float64)
    else:
        result = np.asarray([_number(name, value) for value in values], np.float64)
    result[~np.isfinite(result)] = np.nan
    return result


def split_text(text: str, separator: str | None) -> list[str]:
    """The parts of a multi-valued text, without blanks around them.

    Without a separator ``a, b`` and ``[a, b]`` are read.
    """
    if separator is None:
        text, separator = text.strip().removeprefix("[").removesuffix("]"), ","
    return [part.strip() for part in text.split(separator) if part.strip()]


def _number(name: str, value: Any) -> float:
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING_NUMBERS):
        return float("nan")
    try:
        return float(TRUTH_NUMBERS.get(value, value) if isinstance(value, str) else value)
    except (TypeError, ValueError) as error:
        raise UserError(f"the numeric column {name} holds {value!r}, which is not a number") from error


def _parts(value: Any, separator: str | None) -> Sequence[Any]:
    if value is None or isinstance(value, float):
        return []
    if isinstance(value, str):
        return split_text(value, separator)
    return list(value) if isinstance(value, (Sequence, np.ndarray)) else [value]


def _each(values: Sequence[Any] | npt.NDArray[Any], function: Callable[[Any], int]) -> npt.NDArray[np.int32]:
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" and len(values):
        distinct, inverse = np.unique(values, return_inverse=True)
        return np.asarray([function(value) for value in distinct], np.int32)[inverse]
    return np.asarray([function(value) for value in values], np.int32)
