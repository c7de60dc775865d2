"""Scoring a table of any size with an exported model: read, encode, predict and write, chunk by chunk."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autoctr.atomic import replacing
from autoctr.data.chunk import encode_inputs
from autoctr.data.columns import unreadable
from autoctr.data.encoder import Encoder
from autoctr.data.source import FileSource, need
from autoctr.data.statistics import Kind
from autoctr.errors import UserError
from autoctr.export.served import load_format
from autoctr.export.standalone import Model, probabilities

if TYPE_CHECKING:
    import polars as pl

ON_ERROR = ("stop", "skip")
SHOWN_ROWS = 5
SUFFIXES = (".parquet", ".csv")


@dataclasses.dataclass
class Predicted:
    """What was done: ``rows`` written, ``damaged`` of them without a score, ``torn`` lines of csv left out."""

    rows: int = 0
    damaged: int = 0
    torn: int = 0


def predict_table(
    folder: Path | str,
    table: Path | str,
    out: Path | str,
    *,
    keep: Sequence[str] = (),
    on_error: str = "stop",
    device: str = "cpu",
    format: str = "python",
    on_rows: Callable[[int], None] = lambda rows: None,
    on_line: Callable[[str], None] = lambda text: None,
) -> Predicted:
    """Write the probabilities of every row of a table, ``p_TASK`` for each task, in the order of the rows.

    Memory holds one chunk of rows, however long the table is, and ``out`` appears only when it is whole.

    Args:
        folder: an export.
        table: a parquet or csv file, or a folder of them.
        out: a parquet or csv file.
        keep: columns of the table that are copied beside the probabilities.
        on_error: a number that cannot be read, or a line of csv with too many or too few values, ends it with ``stop``;
            with ``skip`` such a row gets no score, and such a line is left out.
        format: which of the export's formats computes; ``onnx`` and ``pt2`` run on the CPU.
        on_rows: told how many rows are written so far. on_line: told of damaged rows, the first few.

    Raises:
        UserError: for whatever the user can mend.
    """
    import polars as pl

    if on_error not in ON_ERROR:
        raise UserError(f"--on-error is {on_error!r}; legal are {', '.join(ON_ERROR)}")
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise UserError(f"cannot write {out}; its name must end in {' or '.join(SUFFIXES)}")
    model, scored = load_format(folder, format, device), Predicted()
    skips = on_error == "skip"

    def torn(line: str) -> bool:
        if skips:
            scored.torn += 1
            if scored.torn <= SHOWN_ROWS:
                on_line(f"left out a line with another number of values than the header: {line.strip()[:100]}")
        return skips

    source = FileSource(Path(table), on_torn=torn)
    wanted = list(dict.fromkeys([*model.encoder.raw_columns, *keep]))
    need(table, wanted, source.columns)
    if twice := sorted(set(keep) & {f"p_{task}" for task in model.tasks}):
        raise UserError(f"the column {', '.join(twice)} cannot be kept: a probability has that name")
    with replacing(out) as temporary, _writer(temporary, out.suffix) as write:
        for chunk in source.chunks(wanted):
            nested = [name for name in keep if chunk[name].dtype.is_nested()]
            if nested and out.suffix == ".csv":
                raise UserError(f"the column {nested[0]} holds lists, which do not go into csv; write .parquet instead")
            write(_scores(model, chunk, _damaged(chunk, model.encoder, scored, skips, on_line), keep))
            scored.rows += len(chunk)
            on_rows(scored.rows)
        if not scored.rows:
            nothing = pl.DataFrame(schema=dict.fromkeys(wanted, pl.String))
            write(_scores(model, nothing, np.zeros(0, bool), keep))
    return scored


def _damaged(
    chunk: pl.DataFrame, encoder: Encoder, scored: Predicted, skips: bool, on_line: Callable[[str], None]
) -> npt.NDArray[np.bool_]:
    """Which rows hold a number that cannot be read, [N]; the first few are told.

    Raises:
        UserError: of the first, unless such rows are skipped.
    """
    numeric = sorted({field.source for field in encoder.fields if field.kind is Kind.NUMERIC})
    failed = {name: unreadable(chunk[name]) for name in numeric}
    damaged = np.zeros(len(chunk), bool)
    for mask in failed.values():
        damaged |= mask
    for place in np.flatnonzero(damaged)[: max(SHOWN_ROWS - scored.damaged, 0)].tolist():
        row = scored.rows + place + 1
        shown = ", ".join(f"{name} {chunk[name][place]!r}" for name, mask in failed.items() if mask[place])
        if not skips:
            raise UserError(f"row {row} holds no number in {shown}; mend it, or leave it out with --on-error skip")
        on_line(f"no score for row {row}, which holds no number in {shown}")
    scored.damaged += int(damaged.sum())
    return damaged


def _scores(model: Model, chunk: pl.DataFrame, damaged: npt.NDArray[np.bool_], keep: Sequence[str]) -> pl.DataFrame:
    """The kept columns and the probabilities, null for damaged rows."""
    import polars as pl

    whole = chunk.filter(pl.Series(~damaged)) if damaged.any() else chunk
    rows = encode_inputs(whole, model.encoder)
    found = probabilities(model, {name: getattr(rows, name) for name in model.inputs})
    columns = {name: chunk[name] for name in keep}
    for task, values in zip(model.tasks, found.T, strict=True):
        every = np.full(len(chunk), np.nan, np.float32)
        every[~damaged] = values
        columns[f"p_{task}"] = pl.Series(every).fill_nan(None) if damaged.any() else pl.Series(every)
    return pl.DataFrame(columns)


@contextlib.contextmanager
def _writer(path: Path, suffix: str) -> Iterator[Callable[[pl.DataFrame], None]]:
    """A function that appends a frame to the file at ``path``."""
    if suffix == ".csv":
        with open(path, "wb") as file:
            yield lambda frame: frame.write_csv(file, include_header=not file.tell())
        return
    import pyarrow.parquet as pq

    opened: list[Any] = []

    def write(frame: pl.DataFrame) -> None:
        table = frame.to_arrow()
        if not opened:
            opened.append(pq.ParquetWriter(path, table.schema))
        opened[0].write_table(table.cast(opened[0].schema))

    try:
        yield write
    finally:
        for file in opened:
            file.close()
