"""The order of a pass: batches of a single domain each, in a random order over the whole pass."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from fake_data import fake_dataset
from model.networks import TINY, random_cohort, resident
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import full
from autoctr.model.candidate import Candidate
from autoctr.model.network import Batch
from autoctr.search.oneshot import supernet_candidate, train_supernets
from autoctr.training.cohort import Cohort
from autoctr.training.fit import Splits, fit
from autoctr.training.rows import ResidentRows


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=900, unseen=0.1)


@pytest.fixture(scope="module")
def rows(dataset: Dataset) -> ResidentRows:
    """The validation rows, some of an unknown domain."""
    return resident(dataset)


def numbered(rows: ResidentRows) -> ResidentRows:
    """The same rows with their numbers as labels, so that a batch tells which rows it holds."""
    part = rows.head(len(rows))
    part.labels = torch.arange(len(rows), dtype=rows.dtype)[:, None]
    return part


def held(batch: Batch) -> list[int]:
    return [int(number) for number in batch.labels[:, 0].tolist()]


def a_pass(rows: ResidentRows, size: int, seed: int = 0, epoch: int = 0, chosen: Tensor | None = None) -> list[Batch]:
    return list(numbered(rows).batches(seed, epoch, size, chosen, alternating=True))


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_trap_3_8_5_every_row_comes_exactly_once_in_batches_of_one_domain(rows: ResidentRows, size: int) -> None:
    batches = a_pass(rows, size)
    assert sorted(number for batch in batches for number in held(batch)) == list(range(len(rows)))
    counts = torch.bincount(rows.domain, minlength=5)
    assert int(counts.min()) > 0
    assert len(batches) == sum(-(-count // size) for count in counts.tolist())
    for batch in batches:
        assert 0 < len(batch) <= size
        domain = batch.segments.domain
        assert bool((domain == domain[0]).all())
        assert torch.equal(domain, rows.domain[torch.tensor(held(batch))])


def test_the_bounds_of_a_batch_are_those_of_its_rows(rows: ResidentRows) -> None:
    seen = set()
    for batch in a_pass(rows, 16):
        domain = batch.segments.domain
        seen.add(int(domain[0]))
        assert list(batch.segments.bounds) == [int((domain < d).sum()) for d in range(rows.domains + 1)]
        assert torch.equal(batch.segments.one_hot.sum(0), torch.bincount(domain, minlength=5)[:4].to(rows.dtype))
    assert seen == {0, 1, 2, 3, 4}


def test_trap_3_8_4_the_order_of_the_batches_is_random_over_the_whole_pass(dataset: Dataset) -> None:
    train = resident(dataset, "train")
    passes = [[int(b.segments.domain[0]) for b in a_pass(train, 8, seed)] for seed in range(40)]
    counts = torch.bincount(train.domain).tolist()
    # a domain's batches lie anywhere: their mean place is the middle, and neither blocks nor turns are the rule
    total = len(passes[0])
    for d, count in enumerate(counts):
        places = torch.tensor([[n for n, domain in enumerate(order) if domain == d] for order in passes]).double()
        assert places.shape[1] == -(-count // 8)
        assert float(places.mean()) / (total - 1) == pytest.approx(0.5, abs=0.06)
        assert int(places.min()) < 0.1 * total
        assert int(places.max()) > 0.9 * total
    changes = [sum(a != b for a, b in itertools.pairwise(order)) / (total - 1) for order in passes]
    share = [-(-count // 8) / total for count in counts]
    assert sum(changes) / len(changes) == pytest.approx(1 - sum(s * s for s in share), abs=0.04)


def test_the_order_is_one_of_seed_and_epoch(rows: ResidentRows) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return [held(batch) for batch in a_pass(rows, 16, seed, epoch)]

    first = order(1, 0)
    assert order(1, 0) == first
    assert order(1, 1) != first
    assert order(2, 0) != first
    # rows are shuffled inside a domain as well, not only the batches
    assert {frozenset(batch) for batch in order(1, 1)} != {frozenset(batch) for batch in first}


def test_only_chosen_rows_are_visited(rows: ResidentRows) -> None:
    chosen = torch.zeros(len(rows), dtype=torch.bool)
    chosen[rows.domain == 2] = True
    chosen[:5] = True
    visited = [number for batch in a_pass(rows, 4, chosen=chosen) for number in held(batch)]
    assert sorted(visited) == chosen.nonzero()[:, 0].tolist()
    assert a_pass(rows, 4, chosen=torch.zeros(len(rows), dtype=torch.bool)) == []


def test_no_rows_no_batches(rows: ResidentRows) -> None:
    assert list(rows.head(0).batches(0, 0, 8, alternating=True)) == []


@pytest.fixture
def domains_seen(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The domains of every batch that some cohort learns from."""
    inner, seen = Cohort.step, []

    def step(cohort: Cohort, batch: Batch, **options: Any) -> Tensor:
        seen.append(set(batch.segments.domain.tolist()))
        return inner(cohort, batch, **options)

    monkeypatch.setattr(Cohort, "step", step)
    return seen


@pytest.mark.parametrize("order", ["mixed", "alternating"])
def test_a_fit_keeps_to_the_order(dataset: Dataset, order: str, domains_seen: list[set[int]]) -> None:
    splits = Splits(resident(dataset, "train", torch.float32), resident(dataset, "valid", torch.float32))
    member = Candidate(**TINY, wiring=full(2), order=order, batch=64, rank=2)
    cohort = random_cohort(dataset, [member], dtype=torch.float32)
    result = fit(cohort, splits, dataset, metric="logloss", seed=0, epochs=2)
    assert [rung.rows for rung in result.rungs] == [900, 1800]
    assert len(domains_seen) == (
        2 * sum(-(-n // 64) for n in dataset.statistics.domain_rows) if order[0] == "a" else 30
    )
    assert max(map(len, domains_seen)) == (1 if order == "alternating" else 4)


@pytest.mark.parametrize("held_out", [False, True])
def test_a_supernet_keeps_to_the_order(
    dataset: Dataset, held_out: bool, domains_seen: list[set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoctr.search.oneshot.FEWEST_STEPS", 4)
    splits = Splits(resident(dataset, "train", torch.float32), resident(dataset, "valid", torch.float32))
    wanted = Candidate(**TINY, blocks=1, architecture="learn", order="alternating", alternating=held_out, warmup=0.1)
    candidate = supernet_candidate(wanted, 1, len(splits.train))
    assert candidate.order == "alternating"
    train_supernets([candidate], splits, dataset, seed=0)
    assert len(domains_seen) > 4
    assert {len(domains) for domains in domains_seen} == {1}


def test_an_alternating_batch_moves_its_own_domains_adapter_only(dataset: Dataset) -> None:
    member = Candidate(**TINY, wiring=full(2), order="alternating", rank=2, learning_rate=0.01)
    cohort = random_cohort(dataset, [member])
    for batch in list(resident(dataset, "train").batches(0, 0, 64, alternating=True))[:1]:
        d = int(batch.segments.domain[0])
        before = cohort.network.layout.views(cohort.flat)["D1.lora.B"].clone()
        cohort.step(batch)
        after = cohort.network.layout.views(cohort.flat)["D1.lora.B"]
        moved = [n for n in range(4) if not torch.equal(before[0, n], after[0, n])]
        assert moved == [d]
