"""Side tables of frozen vectors: an id and its numbers, from csv or parquet."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoctr.data.canonical import canonical
from autoctr.errors import UserError

_NUMBER = re.compile(r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$")
_BETWEEN = re.compile(r"[\s,;|\[\]]+")
_BLOCK = 1 << 24


@dataclasses.dataclass(frozen=True)
class VectorTable:
    """Vectors by id: ``ids`` in canonical form, ``matrix`` float32 [len(ids), width] in the same order."""

    ids: tuple[str, ...]
    matrix: npt.NDArray[np.float32]

    @property
    def width(self) -> int:
        """Numbers per vector."""
        return int(self.matrix.shape[1])


def read_vectors(path: Path, keep: frozenset[str] | None = None) -> VectorTable:
    """Read a side table: id and numbers, id and a list, or id and one text of separated numbers.

    A csv file may lack its header. ``keep`` limits the table to these ids, so that memory does not grow with
    the rest of the file. Of an id that comes twice the first vector counts.

    Raises:
        UserError: if the file cannot be read, is empty, or its rows differ in length.
    """
    ids: list[str] = []
    seen: set[str] = set()
    blocks: list[npt.NDArray[np.float32]] = []
    width: int | None = None
    for names, matrix in _blocks(path):
        if width is not None and matrix.shape[1] != width:
            raise UserError(f"{path} holds vectors of {width} and of {matrix.shape[1]} numbers; make them all equal")
        width = matrix.shape[1]
        rows = []
        for row, name in enumerate(names):
            if name is None or name in seen or (keep is not None and name not in keep):
                continue
            seen.add(name)
            ids.append(name)
            rows.append(row)
        block = matrix[rows]
        if not np.isfinite(block).all():
            bad = names[rows[int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])]]
            raise UserError(f"{path}: the vector of id {bad} holds something that is not a finite number")
        blocks.append(block)
    if not width:
        raise UserError(f"{path} holds no vectors; expected an id and its numbers on every row")
    return VectorTable(tuple(ids), np.concatenate(blocks).astype(np.float32, copy=False))


def _blocks(path: Path) -> Iterator[tuple[list[str | None], npt.NDArray[np.float32]]]:
    from autoctr.data.source import FileSource

    source = FileSource(path, headerless=_headerless(path))
    columns = source.columns
    if len(columns) < 2:
        raise UserError(f"{path} has one column; expected an id and its numbers")
    for chunk in source.chunks(columns, rows=50_000):
        frame = chunk.to_arrow()
        names = [canonical(value) for value in frame.column(0).to_pylist()]
        if len(columns) > 2:
            yield names, _number_columns(path, chunk, columns)
        else:
            yield names, _number_lists(path, names, frame.column(1).to_pylist())


def _number_columns(path: Path, chunk: Any, columns: list[str]) -> npt.NDArray[np.float32]:
    import polars as pl

    try:
        numbers = chunk.select(pl.col(columns[1:]).cast(pl.Float32))
    except pl.exceptions.PolarsError as error:
        line = str(error).splitlines()[0]
        raise UserError(f"{path} holds something that is not a number: {line}") from error
    empty = numbers.select(pl.any_horizontal(pl.all().is_null())).to_series()
    if empty.any():
        bad = canonical(chunk.row(int(empty.arg_max()))[0])
        raise UserError(f"{path}: the vector of id {bad} is shorter than {len(columns) - 1} numbers")
    matrix: npt.NDArray[np.float32] = numbers.to_numpy()
    return matrix


def _number_lists(path: Path, names: list[str | None], values: list[Any]) -> npt.NDArray[np.float32]:
    rows = [_number_list(path, name, value) for name, value in zip(names, values, strict=True)]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        short, long = min(widths), max(widths)
        bad = next(name for name, row in zip(names, rows, strict=True) if len(row) != len(rows[0]))
        raise UserError(f"{path} holds vectors of {short} and of {long} numbers (id {bad}); make them all equal")
    return np.asarray(rows, dtype=np.float32).reshape(len(rows), -1)


def _number_list(path: Path, name: str | None, value: Any) -> list[float]:
    parts = value if isinstance(value, list) else [part for part in _BETWEEN.split(str(value or "")) if part]
    try:
        return [float(part) for part in parts]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: the vector of id {name} holds something that is not a number") from error


def _headerless(path: Path) -> bool:
    """Whether the first line of a text file already is a row: an id and nothing but numbers."""
    if path.is_dir() or path.suffix == ".parquet":
        return False
    from autoctr.data.source import first_row

    cells = first_row(path)
    numbers = [part for cell in cells[1:] for part in _BETWEEN.split(cell) if part]
    return bool(numbers) and all(_NUMBER.match(part) for part in numbers)
