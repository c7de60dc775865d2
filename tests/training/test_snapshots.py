from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest
import torch
from fake_data import MARKETS, fake_dataset
from reference import transfer
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.data.statistics import Field, Kind
from autoctr.model.architecture import parallel
from autoctr.model.candidate import Candidate
from autoctr.model.embedding import FeatureEmbedding, SnapshotField
from autoctr.model.parameters import Layout
from autoctr.training.cohort import Cohort, frozen_tables
from autoctr.training.rows import ResidentRows
from autoctr.training.snapshots import LeakError, Snapshot, SnapshotBank, TinyModel, narrowed, require_earlier

Pooling = Literal["attention", "mean", "last"]
WINDOW, MEMBERS = 3, 2
FAST: dict[str, Any] = {"embedding": 4, "width": 8, "blocks": 1, "wiring": parallel(1), "batch": 32, "averaging": 0.0}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=120)


def make_bank(
    dataset: Dataset, *, width: int = 4, window: int = WINDOW, pooling: Pooling = "attention"
) -> SnapshotBank:
    return SnapshotBank(dataset.statistics, ["user", "item"], width, window, pooling)


def snapshot(dataset: Dataset, end: int, *, latest: int, width: int = 4, seen: float = 0.6) -> Snapshot:
    """Random embeddings of a share of the ids."""
    draw = torch.Generator().manual_seed(end)
    tables = {}
    for field in dataset.statistics.fields:
        if field.name in ("user", "item"):
            shown = torch.rand(field.size, 1, generator=draw) < seen
            tables[field.name] = torch.randn(field.size, width, generator=draw) * shown
            tables[field.name][0] = 0
    return Snapshot(tables, end, latest)


class Pooled:
    """The embedding layer of two members over a bank of five snapshots, in float64."""

    def __init__(self, dataset: Dataset, pooling: Pooling, width: int) -> None:
        self.bank = make_bank(dataset, width=width, pooling=pooling)
        for end in range(2, 12, 2):
            self.bank.add(snapshot(dataset, end, latest=end - 1, width=width))
        self.rows = dataclasses.replace(dataset.train, time=np.arange(len(dataset.train)) % 13)
        assert self.rows.time is not None
        self.days = self.rows.time
        columns = self.bank.columns(self.rows, self.days)
        self.vectors = torch.from_numpy(np.concatenate([self.rows.vectors, columns], 1))
        self.statistics = self.bank.widened(dataset.statistics)
        tables = {**frozen_tables(dataset), **self.bank.tables}
        self.layer = FeatureEmbedding(self.statistics, 4, {name: table.double() for name, table in tables.items()})
        self.layout = Layout()
        self.layer.declare(self.layout)
        draw = torch.Generator().manual_seed(5)
        self.flat = torch.randn(MEMBERS, self.layout.size, dtype=torch.float64, generator=draw)
        self.table = torch.randn(
            self.statistics.vocabulary, MEMBERS, 4, dtype=torch.float64, generator=draw
        ).requires_grad_()

    def forward(self) -> Tensor:
        """The pooled vectors of user and item, [K, B, 2, d]."""
        ids, numbers = torch.from_numpy(np.array(self.rows.ids)), torch.from_numpy(np.array(self.rows.numbers))
        x0, _ = self.layer.forward(self.layout.views(self.flat), self.table, ids, ids, numbers, self.vectors)
        width = self.bank.fields[0].width
        return x0[:, :, -2 * width :].unflatten(2, (2, width))

    def expected(self, member: int, row: int, place: int) -> np.ndarray[Any, Any]:
        """The reference's pool of one row and field."""
        field = self.bank.fields[place]
        ids = self.rows.ids[row]
        offset, size = self.statistics.offsets[field.of], sizes(self.statistics.fields)[field.of]
        (number,) = [n for n in ids if offset <= n < offset + size]
        read = [s for s in self.bank.snapshots if s.end <= self.days[row]][-WINDOW:]
        stack = [s.tables[field.of][number - offset].numpy() for s in read] or [np.zeros(field.width)]
        known = [bool(vector.any()) for vector in stack]
        if field.pooling == "mean":
            return transfer.mean_pool(stack, known)
        if field.pooling == "last":
            return transfer.last_pool(stack, known)
        query = self.table[number, member].detach().numpy()
        if field.width != 4:
            query = query @ self.layout.views(self.flat)[f"{field.name}.query"][member].numpy()
        return transfer.attention_pool(stack, known, query)


def sizes(fields: tuple[Field, ...]) -> dict[str, int]:
    return {field.name: field.size for field in fields}


@pytest.mark.parametrize(("pooling", "width"), [("attention", 4), ("attention", 3), ("mean", 3), ("last", 4)])
def test_the_pool_is_the_references(dataset: Dataset, pooling: Pooling, width: int) -> None:
    pooled = Pooled(dataset, pooling, width)
    found = pooled.forward().detach().numpy()
    for member in range(MEMBERS):
        for row in range(len(pooled.rows)):
            for place in range(2):
                np.testing.assert_allclose(found[member, row, place], pooled.expected(member, row, place), atol=1e-12)
    empty = found[0, :, 0][pooled.days < 2]
    assert not empty.any()
    assert found[0, :, 0][pooled.days >= 6].any()


def test_the_gradient_reaches_the_query_and_no_snapshot(dataset: Dataset) -> None:
    pooled = Pooled(dataset, "attention", 4)
    towards = torch.randn(pooled.forward().shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (pooled.forward() * towards).sum().backward()
    assert pooled.table.grad is not None
    assert not any(table.requires_grad for table in pooled.layer.tables)
    row = int(np.flatnonzero(pooled.days >= 6)[0])
    offset = pooled.statistics.offsets["item"]
    (number,) = [n for n in pooled.rows.ids[row] if offset <= n < offset + 21]
    readers = [r for r in range(len(pooled.rows)) if number in pooled.rows.ids[r]]
    step = 1e-6
    for member in range(MEMBERS):
        for place in range(4):
            sides = []
            for sign in (1, -1):
                with torch.no_grad():
                    pooled.table[number, member, place] += sign * step
                    sides.append(
                        sum(float(pooled.expected(member, r, 1) @ towards[member, r, 1].numpy()) for r in readers)
                    )
                    pooled.table[number, member, place] -= sign * step
            slope = (sides[0] - sides[1]) / (2 * step)
            assert pooled.table.grad[number, member, place].item() == pytest.approx(slope, abs=1e-7)
    assert pooled.table.grad[number].any()


def test_without_snapshots_nothing_is_added(dataset: Dataset) -> None:
    plain, layout = FeatureEmbedding(dataset.statistics, 4, frozen_tables(dataset)), Layout()
    plain.declare(layout)
    assert plain.pools == {}
    assert list(layout.weights) == ["numbers"]


def test_a_row_reads_only_the_snapshots_that_ended_before_its_day(dataset: Dataset) -> None:
    bank = make_bank(dataset)
    for end in (2, 4, 6):
        bank.add(snapshot(dataset, end, latest=end - 1))
    assert bank.versions(np.arange(8)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    rows = dataclasses.replace(dataset.train.take(slice(0, 8)), time=np.arange(8))
    columns = bank.columns(rows, np.arange(8))
    for place, name in enumerate(("user", "item")):
        size = sizes(dataset.statistics.fields)[name]
        assert (columns[:, place] // size).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        table = bank.tables[f"snapshots of {name}"]
        assert len(table) == (WINDOW + 3) * size
        assert not table[: WINDOW * size].any()
        assert torch.equal(table[-size:], bank.snapshots[-1].tables[name])


@pytest.mark.parametrize("latest", [5, 6, 90])
def test_a_snapshot_of_later_rows_is_refused(dataset: Dataset, latest: int) -> None:
    bank = make_bank(dataset)
    bank.add(snapshot(dataset, 2, latest=1))
    bank.add(snapshot(dataset, 4, latest=latest))
    rows = dataclasses.replace(dataset.train.take(slice(0, 4)), time=np.asarray([1, 3, 5, 7]))
    with pytest.raises(LeakError, match=f"up to time {latest}, but rows from time 5 on"):
        bank.columns(rows, np.asarray([1, 3, 4, 5]))
    bank.columns(rows.take(slice(0, 2)), np.asarray([1, 3]))


def test_what_was_learned_must_be_older() -> None:
    require_earlier("a model", 4, 5)
    with pytest.raises(LeakError, match="a model has learned from rows up to time 5, but rows from time 5 on read it"):
        require_earlier("a model", 5, 5)


def tiny_model(dataset: Dataset) -> TinyModel:
    return TinyModel(dataset.statistics, ["user", "item"], Candidate(**FAST), embedding=3, seed=9)


def test_a_snapshot_holds_the_ids_of_its_period_and_stays(dataset: Dataset) -> None:
    model = tiny_model(dataset)
    rows = dataset.train.take(np.flatnonzero(dataset.train.domain == 0)[:12])
    model.train(rows, [0, 1])
    taken = model.snapshot(rows, 3)
    assert rows.time is not None
    assert (taken.end, taken.latest) == (3, int(rows.time.max()))
    table, offsets = model.cohort.table[:, 0].clone(), model.statistics.offsets
    kept = {name: whole.clone() for name, whole in taken.tables.items()}
    for name, whole in taken.tables.items():
        start = dataset.statistics.offsets[name]
        shown = {int(n) - start for n in rows.ids.ravel() if start <= n < start + len(whole)} - {0}
        assert {int(n) for n in whole.any(1).nonzero()} == shown
        assert 0 < len(shown) < len(whole) - 1
        for number in shown:
            assert torch.equal(whole[number], table[offsets[name] + number])
    model.train(dataset.train, [2])
    assert not torch.equal(model.cohort.table[:, 0], table)
    assert all(torch.equal(taken.tables[name], whole) for name, whole in kept.items())
    assert model.snapshot(rows, 4).latest == len(dataset.train) - 1


def test_the_row_that_many_ids_share_is_in_no_snapshot() -> None:
    strange = fake_dataset(rows=60, unseen=0.5)
    offset = strange.statistics.offsets["user"]
    assert (strange.valid.ids == offset).any()
    model = tiny_model(strange)
    model.train(strange.valid, [0])
    assert not model.snapshot(strange.valid, 1).tables["user"][0].any()


def test_the_tiny_model_sees_its_own_fields_alone(dataset: Dataset) -> None:
    statistics = dataset.statistics
    fields = tuple(field for field in statistics.fields if field.name in ("user", "item", "market"))
    rows = narrowed(dataset.train, statistics, fields)
    small = dataclasses.replace(statistics, fields=fields)
    assert rows.ids.shape == (len(dataset.train), 3)
    assert rows.numbers.shape == rows.vectors.shape == (len(dataset.train), 0)
    for place, field in enumerate(fields):
        local = rows.ids[:, place] - small.offsets[field.name]
        assert ((local >= 0) & (local < field.size)).all()
        start = statistics.offsets[field.name]
        whole = [[n - start for n in ids if start <= n < start + field.size] for ids in dataset.train.ids.tolist()]
        assert local.tolist() == [numbers[0] for numbers in whole]
    assert len(MARKETS) == len(small.domains)
    assert len(tiny_model(dataset).cohort.table) == sum(field.size for field in fields)


def test_a_network_reads_the_snapshots_that_are_attached(dataset: Dataset) -> None:
    bank = make_bank(dataset)
    tables = {**frozen_tables(dataset), **bank.tables}
    cohort = Cohort(bank.widened(dataset.statistics), [Candidate(**FAST)], tables, ramp=1)
    bank.add(snapshot(dataset, 1, latest=0, seen=1.0))
    rows = dataclasses.replace(dataset.valid, time=np.arange(len(dataset.valid)) + 5)
    early = np.concatenate([rows.vectors, bank.columns(rows, np.full(len(rows), 0))], 1)
    late = np.concatenate([rows.vectors, bank.columns(rows, np.full(len(rows), 5))], 1)
    bank.attach(cohort)
    before, after = (
        cohort.logits(
            ResidentRows(dataclasses.replace(rows, vectors=v), len(MARKETS), dtype=torch.float32, device="cpu")
        )
        for v in (early, late)
    )
    assert not torch.equal(before, after)
    assert isinstance(cohort.network.statistics.vectors[-1], SnapshotField)
    assert cohort.network.statistics.vectors[-1].kind is Kind.VECTOR
