"""One chunk of a raw table as encoded rows: the same ids that :class:`autoctr.data.encoder.Encoder` gives."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from autoctr.data.columns import lists, map_texts, numbers, times
from autoctr.data.dataset import Rows
from autoctr.data.encoder import Encoder, FieldEncoder
from autoctr.data.statistics import Kind
from autoctr.errors import UserError

if TYPE_CHECKING:
    import polars as pl


def encode_chunk(chunk: pl.DataFrame, encoder: Encoder, users: dict[str, int], before: int) -> Rows:
    """Encode a chunk that starts after ``before`` rows; ``users`` numbers the users seen so far and grows."""
    user = time = None
    if encoder.user:
        user = map_texts(chunk[encoder.user], lambda text: users.setdefault(text, len(users) + 1), 0, np.int32)
    if encoder.timestamp:
        time = times(chunk[encoder.timestamp])
    labels = np.stack([read_labels(chunk, label, before) for label in encoder.labels], axis=1)
    return dataclasses.replace(encode_inputs(chunk, encoder), labels=labels, user=user, time=time)


def encode_inputs(chunk: pl.DataFrame, encoder: Encoder) -> Rows:
    """Encode what a model reads of a chunk; ``labels`` are [N, 0], ``user`` and ``time`` are left out.

    Raises:
        UserError: if a number cannot be read.
    """
    count = len(chunk)
    ids: list[npt.NDArray[np.int32]] = []
    scaled: list[npt.NDArray[np.float32]] = []
    vectors: list[npt.NDArray[np.int32]] = []
    for field in encoder.fields:
        series = chunk[field.source]
        if field.kind is Kind.NUMERIC and field.edges is None:
            scaled.append(field.scale(numbers(series))[:, None])
            continue
        found = _ids(field, series)
        (vectors if field.kind is Kind.VECTOR else ids).append(found + np.int32(encoder.offsets.get(field.name, 0)))
    places = {name: place for place, name in enumerate(encoder.domains)}
    return Rows(
        ids=np.concatenate([np.empty((count, 0), np.int32), *ids], axis=1),
        numbers=np.concatenate([np.empty((count, 0), np.float32), *scaled], axis=1),
        vectors=np.concatenate([np.empty((count, 0), np.int32), *vectors], axis=1),
        domain=map_texts(chunk[encoder.domain], lambda text: places.get(text, len(places)), len(places), np.int32),
        labels=np.empty((count, 0), np.float32),
    )


def _ids(field: FieldEncoder, series: pl.Series) -> npt.NDArray[np.int32]:
    """Ids [N, slots], without the field's offset."""
    if field.kind is Kind.NUMERIC:
        return field.cut(numbers(series))[:, None]

    def lookup(text: str) -> int:
        return field.index.get(text, field.unknown)

    if field.kind is not Kind.MULTI:
        return map_texts(series, lookup, field.unknown, np.int32)[:, None]
    several = lists(series, field.separator).list.head(field.slots)
    lengths = several.list.len().fill_null(0).to_numpy().astype(np.int64)
    found = map_texts(several.filter(several.list.len() > 0).explode(), lookup, field.unknown, np.int32)
    result = np.zeros((len(series), field.slots), np.int32)
    row = np.repeat(np.arange(len(series)), lengths)
    result[row, np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)] = found
    return result


def read_labels(chunk: pl.DataFrame, name: str, before: int) -> npt.NDArray[np.float32]:
    """A label column as 0 and 1; ``before`` rows came before the chunk, for the error message.

    Raises:
        UserError: naming the first row whose label is missing or anything else.
    """
    try:
        values = numbers(chunk[name])
    except UserError as error:
        raise UserError(f"label {name} must be 0 or 1: {error}") from error
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if len(wrong):
        value = values[wrong[0]]
        what = "is missing" if np.isnan(value) else f"is {value:g}"
        raise UserError(f"label {name} {what} in row {before + int(wrong[0]) + 1}; every label must be 0 or 1")
    return values.astype(np.float32)
