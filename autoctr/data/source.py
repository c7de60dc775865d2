"""Raw tables, read chunk by chunk: memory does not grow with the file."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from autoctr.errors import UserError

if TYPE_CHECKING:
    import polars as pl

CHUNK_ROWS = 1 << 18
_TEXT = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_BLOCK_BYTES = 8 << 20


class Source(Protocol):
    """A table that can be read several times from the start."""

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""

    def chunks(self, columns: Sequence[str], rows: int = CHUNK_ROWS) -> Iterator[pl.DataFrame]:
        """The given columns in row order, about ``rows`` rows at a time."""


@dataclasses.dataclass(frozen=True)
class FrameSource:
    """A polars frame in memory."""

    frame: pl.DataFrame

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return list(self.frame.columns)

    def chunks(self, columns: Sequence[str], rows: int = CHUNK_ROWS) -> Iterator[pl.DataFrame]:
        """The given columns in row order, ``rows`` rows at a time."""
        yield from self.frame.select(list(dict.fromkeys(columns))).iter_slices(rows)


@dataclasses.dataclass(frozen=True)
class FileSource:
    """A parquet or csv file, or a folder of files of one kind (read in the order of their paths).

    Every column of a csv file is read as text: what a value means never depends on what stands in other rows.
    """

    path: Path
    headerless: bool = False
    #: Told of a csv line with another number of values than the header; True leaves it out, else reading stops there.
    on_torn: Callable[[str], bool] = lambda line: False

    @property
    def files(self) -> list[Path]:
        """The files, in reading order."""
        if not self.path.exists():
            raise UserError(f"{self.path} does not exist; give a parquet or csv file, or a folder of such files")
        if self.path.is_file():
            return [self.path]
        found = sorted(
            file
            for file in self.path.rglob("*")
            if file.is_file() and not any(part.startswith((".", "_")) for part in file.relative_to(self.path).parts)
        )
        parquet = [file for file in found if file.suffix == ".parquet"]
        text = [file for file in found if file.name.endswith(_TEXT)]
        if bool(parquet) == bool(text):
            what = "both parquet and csv files" if parquet else "no parquet or csv file"
            raise UserError(f"the folder {self.path} holds {what}; keep the files of one table of one kind in it")
        return parquet or text

    @property
    def columns(self) -> list[str]:
        """Names of all columns of the first file."""
        return _columns(self.files[0], self.headerless)

    def chunks(self, columns: Sequence[str], rows: int = CHUNK_ROWS) -> Iterator[pl.DataFrame]:
        """The given columns in row order, about ``rows`` rows at a time."""
        import polars as pl
        import pyarrow as pa

        wanted = list(dict.fromkeys(columns))
        for file in self.files:
            need(file, wanted, _columns(file, self.headerless))
            batches = _parquet(file, wanted, rows) if file.suffix == ".parquet" else self._text(file, wanted)
            try:
                for batch in batches:
                    frame = pl.from_arrow(pa.Table.from_batches([batch]))
                    assert isinstance(frame, pl.DataFrame)
                    yield from frame.select(wanted).iter_slices(rows)
            except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
                raise _unreadable(file, error) from error

    def digest(self) -> str:
        """Hash of the contents of all files."""
        from autoctr.data.hashing import file_digest

        return file_digest(self.files)

    def _text(self, file: Path, columns: list[str]) -> Iterator[Any]:
        import pyarrow as pa
        from pyarrow import csv

        names = _columns(file, self.headerless)
        yield from csv.open_csv(
            file,
            csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=names, skip_rows=0 if self.headerless else 1),
            csv.ParseOptions(
                delimiter=_delimiter(file),
                newlines_in_values=True,
                invalid_row_handler=lambda row: "skip" if self.on_torn(row.text) else "error",
            ),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=columns,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )


def need(path: Path | str, wanted: Sequence[str], present: Sequence[str]) -> None:
    """Raise unless every wanted column is present.

    Raises:
        UserError: naming the missing columns and those that exist.
    """
    missing = [name for name in wanted if name not in present]
    if missing:
        shown = ", ".join(present[:40]) + (f" and {len(present) - 40} more" if len(present) > 40 else "")
        plural = "s" if len(missing) > 1 else ""
        raise UserError(f"{path} has no column{plural} {', '.join(missing)}; its columns are {shown}")


def first_row(path: Path) -> list[str]:
    """The cells of the first line of a text file.

    Raises:
        UserError: if the file cannot be read or is empty.
    """
    import csv
    import gzip

    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            row = next(csv.reader(file, delimiter=_delimiter(path)), None)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error
    if not row:
        raise UserError(f"{path} is empty; expected a header line and rows")
    return row


def _columns(file: Path, headerless: bool) -> list[str]:
    if file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            names = list(pq.read_schema(file).names)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file, error) from error
    elif file.name.endswith(_TEXT):
        names = first_row(file)
        if headerless:
            return [f"column_{position}" for position in range(len(names))]
    else:
        raise UserError(f"{file} is neither parquet nor csv; its name must end in .parquet, {', '.join(_TEXT)}")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{file} has more than one column named {', '.join(twice)}; give every column its own name")
    return names


def _parquet(file: Path, columns: list[str], rows: int) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, pre_buffer=False) as opened:
        yield from opened.iter_batches(batch_size=rows, columns=columns)


def _delimiter(file: Path) -> str:
    return "\t" if ".tsv" in file.suffixes else ","


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"cannot read {file}: {' '.join(str(error).split())[:300]}")
