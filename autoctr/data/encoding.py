"""Encoding a raw table into the arrays of a dataset, in two streams over it: fit on train, then write."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autoctr.data.array_file import ArrayFile
from autoctr.data.canonical import natural
from autoctr.data.chunk import encode_chunk, read_labels
from autoctr.data.columns import count_texts, times
from autoctr.data.counts import Counts
from autoctr.data.dataset import SPLITS, Dataset, load_rows, write_meta
from autoctr.data.encoder import Encoder
from autoctr.data.fitting import fit_for
from autoctr.data.sample import Sample
from autoctr.data.schema import Schema
from autoctr.data.source import CHUNK_ROWS, Source, need
from autoctr.data.splits import SplitRule
from autoctr.data.statistics import Kind, Statistics
from autoctr.data.vectors import VectorTable
from autoctr.errors import UserError

if TYPE_CHECKING:
    import polars as pl

_CODES = ".splits"


@dataclasses.dataclass(frozen=True)
class RawTable:
    """A table ready to be encoded: rows, side tables of vector columns, and facts for ``Dataset.info``."""

    source: Source
    tables: dict[str, VectorTable] = dataclasses.field(default_factory=dict)
    info: dict[str, Any] = dataclasses.field(default_factory=dict)


def encode(
    folder: Path,
    name: str,
    key: str,
    schema: Schema,
    split: SplitRule,
    raw: RawTable,
    chunk_rows: int = CHUNK_ROWS,
) -> None:
    """Write the encoded dataset and its ``encoder.json`` into ``folder``, which is created.

    Memory holds one chunk, the vocabularies and the side tables, however long the raw table is.

    Raises:
        UserError: for a missing column, a label other than 0 and 1, a row without a domain, an empty split.
    """
    need(name, _columns(schema, split), raw.source.columns)
    folder.mkdir(parents=True)
    codes = folder / _CODES
    encoder, sizes = _fit(codes, schema, split, raw, chunk_rows)
    counts = _write(folder, codes, sizes, encoder, schema, raw, chunk_rows)
    codes.unlink()
    (folder / "tables").mkdir()
    for field, table in raw.tables.items():
        # row 0 stands for an id without a vector
        np.save(folder / "tables" / f"{field}.npy", np.pad(table.matrix, ((1, 0), (0, 0))))
    encoder.save(folder)
    statistics = Statistics(
        fields=tuple(field.field for field in encoder.fields),
        domain_field=schema.domain_column.name,
        domains=encoder.domains,
        domain_rows=tuple(counts.rows[0, :-1].tolist()),
        tasks=schema.labels,
        rates=counts.rates(),
    )
    splits: dict[str, Any] = {part: load_rows(folder / part) for part in SPLITS}
    info = {**raw.info, **counts.info(encoder.domains, schema.labels)}
    tables = {field: table.matrix for field, table in raw.tables.items()}
    write_meta(folder, Dataset(name, key, statistics, **splits, tables=tables, info=info))


def split_chunks(
    schema: Schema, split: SplitRule, source: Source, chunk_rows: int = CHUNK_ROWS
) -> Iterator[tuple[pl.DataFrame, npt.NDArray[np.int8]]]:
    """The raw table chunk by chunk, and the split of every row: 0 train, 1 valid, 2 test, -1 none."""
    quantiles = None
    if (column := split.times()) is not None:
        sample = Sample()
        for chunk in source.chunks([column], chunk_rows):
            sample.add(times(chunk[column]))
        quantiles = sample.sorted().astype(np.int64)
    assigner = split.assigner(schema.domain_column.raw, schema.labels, quantiles)
    for chunk in source.chunks(_columns(schema, split), chunk_rows):
        yield chunk, assigner.assign(chunk)


def _columns(schema: Schema, split: SplitRule) -> list[str]:
    return list(dict.fromkeys([*schema.raw_columns, *split.columns(schema.domain_column.raw, schema.labels)]))


def _fit(
    codes_file: Path, schema: Schema, split: SplitRule, raw: RawTable, chunk_rows: int
) -> tuple[Encoder, list[int]]:
    """First stream: check every row, write its split to ``codes_file``, and learn from the training rows.

    Returns: the fitted encoder, and the number of rows of each split.
    """
    import polars as pl

    fits = [fit_for(column, raw.tables) for column in schema.inputs]
    domain = schema.domain_column.raw
    domains: Counter[str] = Counter()
    sizes, row = np.zeros(len(SPLITS), np.int64), 0
    with open(codes_file, "wb") as out:
        for chunk, codes in split_chunks(schema, split, raw.source, chunk_rows):
            for label in schema.labels:
                read_labels(chunk, label, row)
            _need_domain(chunk[domain], row)
            out.write(codes.tobytes())
            train = chunk.filter(pl.Series(codes == 0))
            for fit, column in zip(fits, schema.inputs, strict=True):
                fit.add(train[column.raw])
            count_texts(train[domain], domains)
            sizes += np.bincount(codes[codes >= 0], minlength=len(SPLITS))
            row += len(chunk)
    if not row:
        raise UserError("the table has no rows; nothing to encode")
    for name, size in zip(SPLITS, sizes, strict=True):
        if not size:
            raise UserError(f"the split leaves no rows for {name} (of {row}); choose another split or more data")
    names = tuple(sorted(domains, key=natural))
    fields = tuple(fit.finish() for fit in fits)
    return Encoder(fields, domain, names, schema.labels, schema.user, schema.timestamp), sizes.tolist()


def _need_domain(series: pl.Series, before: int) -> None:
    import polars as pl

    empty = series.is_null() | (series == "") if series.dtype == pl.String else series.is_null()
    if series.dtype.is_float():
        empty |= series.is_nan()
    if empty.any():
        row = before + int(empty.arg_true()[0]) + 1
        raise UserError(f"the domain column {series.name} is empty in row {row}; every row needs a domain")


def _write(
    folder: Path, codes_file: Path, sizes: list[int], encoder: Encoder, schema: Schema, raw: RawTable, chunk_rows: int
) -> Counts:
    """Second stream: encode every row and append it to the arrays of its split."""
    all_codes = np.memmap(codes_file, np.int8, "r")
    counts = Counts(len(encoder.domains), len(schema.labels))
    counts.dropped = len(all_codes) - sum(sizes)
    files: list[dict[str, ArrayFile]] = []
    for name, size in zip(SPLITS, sizes, strict=True):
        (folder / name).mkdir()
        shapes = _shapes(encoder, schema).items()
        files.append(
            {part: ArrayFile(folder / name / f"{part}.npy", dtype, (size, *tail)) for part, (dtype, tail) in shapes}
        )
    users: dict[str, int] = {}
    row = 0
    try:
        for chunk in raw.source.chunks(schema.raw_columns, chunk_rows):
            codes = np.asarray(all_codes[row : row + len(chunk)])
            if len(codes) != len(chunk):
                raise UserError("the raw table changed while it was read; prepare it again")
            rows = encode_chunk(chunk, encoder, users, row)
            row += len(chunk)
            for code in range(len(SPLITS)):
                kept = rows.take(np.flatnonzero(codes == code))
                counts.add(code, kept.domain, kept.labels)
                for part, file in files[code].items():
                    file.append(getattr(kept, part))
    finally:
        for group in files:
            for file in group.values():
                file.close()
    return counts


def _shapes(encoder: Encoder, schema: Schema) -> dict[str, tuple[type, tuple[int, ...]]]:
    fields = [item.field for item in encoder.fields]
    scaled = sum(field.kind is Kind.NUMERIC and not field.size for field in fields)
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        "ids": (np.int32, (sum(field.slots for field in fields),)),
        "numbers": (np.float32, (scaled,)),
        "vectors": (np.int32, (sum(field.kind is Kind.VECTOR for field in fields),)),
        "domain": (np.int32, ()),
        "labels": (np.float32, (len(schema.labels),)),
    }
    if schema.user:
        shapes["user"] = (np.int32, ())
    if schema.timestamp:
        shapes["time"] = (np.int64, ())
    return shapes
