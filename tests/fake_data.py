"""A small made-up data set with every kind of field, for tests of any part: raw columns, their encoder, encoded rows.

Raw columns: ``user`` and ``item`` (texts and whole numbers), ``market`` (the domain, of unequal size), ``tags`` (texts
separated by ``|``), ``price`` (a number with gaps). ``price`` is read twice, scaled and in bins, and ``item`` twice, as
a category and as the id of a frozen vector. Labels follow a planted model, so that training has something to find.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoctr.data.dataset import Dataset, Rows, write_meta
from autoctr.data.encoder import Encoder, FieldEncoder
from autoctr.data.statistics import Kind, Statistics

MARKETS = ("de", "fr", "jp", "us")
SHARES = (0.55, 0.3, 0.1, 0.05)
TASKS = ("click", "conversion")
TAGS = ("art", "books", "cars", "dogs", "eggs")
USERS, ITEMS, VECTOR_WIDTH, TAG_SLOTS = 30, 20, 5, 3

Columns = dict[str, list[Any]]


def fake_encoder(tasks: Sequence[str] = TASKS[:1], kinds: Collection[Kind] = tuple(Kind)) -> Encoder:
    """The encoder of the fields whose kind is among ``kinds``; user, item and market are always there."""
    users = tuple(f"u{n}" for n in range(USERS))
    items = tuple(str(n) for n in range(ITEMS))
    fields = [
        FieldEncoder("user", Kind.CATEGORICAL, "user", vocabulary=users, slots=1),
        FieldEncoder("tags", Kind.MULTI, "tags", vocabulary=TAGS, separator="|", slots=TAG_SLOTS),
        FieldEncoder("price", Kind.NUMERIC, "price", mean=10.0, std=4.0),
        FieldEncoder("market", Kind.CATEGORICAL, "market", vocabulary=("de", "us", "fr", "jp"), slots=1),
        FieldEncoder("price bin", Kind.NUMERIC, "price", edges=(5.0, 9.5, 14.0), slots=1),
        FieldEncoder("item vector", Kind.VECTOR, "item", vocabulary=items[: ITEMS // 2], width=VECTOR_WIDTH),
        FieldEncoder("item", Kind.CATEGORICAL, "item", vocabulary=items, slots=1),
    ]
    kept = tuple(field for field in fields if field.kind is Kind.CATEGORICAL or field.kind in kinds)
    return Encoder(kept, "market", MARKETS, tuple(tasks))


def fake_columns(rows: int, seed: int = 0, tasks: Sequence[str] = TASKS[:1], unseen: float = 0.0) -> Columns:
    """Raw columns by name. A share ``unseen`` of users, items, tags and markets are values that no encoder knows."""
    draw = np.random.default_rng(seed)

    def known(values: Any, stranger: Any) -> list[Any]:
        strange = draw.random(rows) < unseen
        return [stranger if hidden else value for value, hidden in zip(values, strange, strict=True)]

    user, item = draw.integers(0, USERS, rows), draw.integers(0, ITEMS, rows)
    market = draw.choice(len(MARKETS), rows, p=SHARES)
    price = draw.normal(10.0, 4.0, rows).round(2)
    tags = [draw.choice(TAGS, draw.integers(0, TAG_SLOTS + 2), replace=False).tolist() for _ in range(rows)]
    columns: Columns = {
        "user": known([f"u{n}" for n in user], "nobody"),
        "item": known(item.tolist(), ITEMS + 7),
        "market": known([MARKETS[n] for n in market], "atlantis"),
        "tags": known(["|".join(several) for several in tags], "novelty|art"),
        "price": [None if gap else float(value) for value, gap in zip(price, draw.random(rows) < 0.1, strict=True)],
    }
    # users like what lies near them on a circle; how much the price counts differs between markets
    logit = 2 * np.cos(2 * np.pi * (user / USERS - item / ITEMS)) + (market - 1) * (price - 10) / 5 - 0.5
    for n, task in enumerate(tasks):
        columns[task] = (draw.random(rows) < 1 / (1 + np.exp(n - logit))).astype(int).tolist()
    return columns


def fake_rows(encoder: Encoder, columns: Columns) -> Rows:
    """Encoded rows, with users and times as a dataset on disk has them."""
    rows = encoder.encode(columns)
    users = {name: number for number, name in enumerate(dict.fromkeys(columns["user"]), 1)}
    user = np.asarray([users[name] for name in columns["user"]], np.int32)
    return Rows(rows.ids, rows.numbers, rows.vectors, rows.domain, rows.labels, user, np.arange(len(rows)))


def fake_dataset(
    folder: Path | None = None,
    *,
    rows: int = 600,
    tasks: Sequence[str] = TASKS[:1],
    kinds: Collection[Kind] = tuple(Kind),
    seed: int = 0,
    unseen: float = 0.0,
) -> Dataset:
    """A dataset of ``rows`` training rows and a third as many for each of validation and test.

    Args:
        folder: where to write it, with its ``encoder.json`` (created); None keeps it in memory only.
        tasks: the labels, of :data:`TASKS`.
        kinds: which kinds of fields it has beside categorical ones.
        unseen: share of unknown values in validation and test rows.
    """
    encoder = fake_encoder(tasks, kinds)
    splits: dict[str, Rows] = {}
    for number, (split, count) in enumerate({"train": rows, "valid": rows // 3, "test": rows // 3}.items()):
        columns = fake_columns(count, 3 * seed + number, tasks, unseen if number else 0.0)
        splits[split] = fake_rows(encoder, columns)
    train = splits["train"]
    statistics = Statistics(
        fields=tuple(field.field for field in encoder.fields),
        domain_field="market",
        domains=encoder.domains,
        domain_rows=tuple(np.bincount(train.domain, minlength=len(MARKETS)).tolist()),
        tasks=encoder.labels,
        rates=tuple(train.labels.mean(axis=0).tolist()),
    )
    tables = {"item vector": _vectors(seed)} if Kind.VECTOR in kinds else {}
    dataset = Dataset("fake", f"fake-{seed}", statistics, **splits, tables=tables, info={})
    if folder is None:
        return dataset
    dataset.write(folder)
    write_meta(folder, dataset)
    encoder.save(folder)
    return Dataset.open(folder)


def _vectors(seed: int) -> npt.NDArray[np.float32]:
    """Frozen vectors of half of the items; row 0 stands for an item without one."""
    table = np.random.default_rng(seed).normal(size=(ITEMS // 2 + 1, VECTOR_WIDTH)).astype(np.float32)
    table[0] = 0
    return table
