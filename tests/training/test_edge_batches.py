"""Batches and splits at the edge of what can come: nothing may crash or become not a number."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from fake_data import TASKS, fake_dataset
from model.networks import TINY, batch_of, mixed_batch, random_cohort, random_wiring, reference_logits, resident, scored
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.data.statistics import Kind
from autoctr.model.architecture import full, parallel
from autoctr.model.candidate import Candidate
from autoctr.model.network import Batch
from autoctr.training.cohort import Cohort
from autoctr.training.fit import score_members
from autoctr.training.metrics import score
from autoctr.training.rows import ResidentRows

EVERYTHING: dict[str, Any] = {"rank": 2, "sparsity": 0.4, "dropout": 0.3, "embedding_dropout": 0.1}
MEMBERS: dict[str, dict[str, Any]] = {
    "plain": {"wiring": parallel(2)},
    "everything": {"wiring": random_wiring(2, 1, True)} | EVERYTHING,
    "wide adapters": {"wiring": full(2), "rank": 30},
    "batch norm": {"wiring": full(2), "norm": "batch", "rank": 2, "sparsity": 0.3, "pruner_input": "domain"},
    "binarization": {"wiring": full(2), "sparsity": 0.3, "sparsity_form": "binarization"},
    "supernet": {"architecture": "learn", "norm": "batch"} | EVERYTHING,
}
BATCHES = ["one row", "one unknown row", "a domain lacks", "one domain", "unknown only", "no row"]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=150, tasks=TASKS, unseen=0.2)


def batch_like(name: str, rows: ResidentRows) -> Batch:
    numbers = torch.arange(len(rows))
    known = numbers[rows.domain < rows.domains]
    unknown = numbers[rows.domain == rows.domains]
    chosen: dict[str, Tensor] = {
        "one row": known[:1],
        "one unknown row": unknown[:1],
        "a domain lacks": known[rows.domain[known] != 1][:9],
        "one domain": known[rows.domain[known] == 1][:6],
        "unknown only": unknown[:5],
        "no row": numbers[:0],
    }
    return batch_of(rows, chosen[name].tolist())


def finite(cohort: Cohort) -> bool:
    tensors = (cohort.flat, cohort.table, cohort.running, cohort.architecture)
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("name", BATCHES)
def test_edge_batches_are_scored_like_the_reference(dataset: Dataset, member: str, name: str) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY | MEMBERS[member], seed=seed) for seed in (1, 2)])
    batch = batch_like(name, resident(dataset))
    logits = scored(cohort, batch)
    assert logits.shape == (2, len(batch), len(TASKS))
    for k in range(2 if len(batch) else 0):
        torch.testing.assert_close(
            logits[k], torch.from_numpy(reference_logits(cohort, k, batch)), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("name", BATCHES[:-1])
def test_edge_batches_are_trained_on(dataset: Dataset, member: str, name: str) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY | MEMBERS[member], seed=1)])
    start = cohort.weights().copy()
    rows = resident(dataset)
    for batch in (batch_like(name, rows), mixed_batch(rows), batch_like(name, rows)):
        loss = cohort.step(batch, wire=cohort.network.relaxed)
        assert bool(loss.isfinite().all())
    assert finite(cohort)
    assert not torch.equal(start.flat, cohort.flat)


@pytest.mark.parametrize("form", ["segments", "wide"])
def test_an_adapter_of_an_absent_domain_rests(dataset: Dataset, form: str) -> None:
    rank = 2 if form == "wide" else 20
    cohort = random_cohort(dataset, [Candidate(**TINY | {"wiring": parallel(1), "blocks": 1, "rank": rank})])
    before = {name: v.clone() for name, v in cohort.network.layout.views(cohort.flat).items() if "lora" in name}
    cohort.step(batch_like("a domain lacks", resident(dataset)))
    after = cohort.network.layout.views(cohort.flat)
    for name, old in before.items():
        assert torch.equal(after[name][:, 1], old[:, 1])
        assert not torch.equal(after[name][:, 0], old[:, 0])


def test_an_unknown_domain_gets_the_shared_network_only(dataset: Dataset) -> None:
    member = Candidate(**TINY | {"wiring": parallel(1), "blocks": 1, "rank": 2})
    cohort = random_cohort(dataset, [member])
    batch = batch_like("unknown only", resident(dataset))
    before = scored(cohort, batch)
    known = batch_like("one domain", resident(dataset))
    known_before = scored(cohort, known)
    for name, view in cohort.network.layout.views(cohort.flat).items():
        if "lora" in name:
            view.normal_()
    assert torch.equal(scored(cohort, batch), before)
    assert not torch.equal(scored(cohort, known), known_before)


def test_a_batch_of_one_row_leaves_the_running_statistics_alone_and_uses_them(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY | MEMBERS["batch norm"])])
    before = cohort.running.clone()
    cohort.step(batch_like("one row", resident(dataset)))
    assert torch.equal(cohort.running, before)
    cohort.step(mixed_batch(resident(dataset)))
    assert not torch.equal(cohort.running, before)


def test_a_list_that_is_all_padding_pools_to_zero(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY | {"wiring": full(1), "blocks": 1})])
    whole = mixed_batch(resident(dataset))
    statistics = dataset.statistics
    slot = 0
    for field in statistics.embedded:
        if field.kind is Kind.MULTI:
            break
        slot += field.slots
    ids = whole.ids.clone()
    ids[:, slot : slot + field.slots] = statistics.offsets[field.name]
    batch = dataclasses.replace(whole, ids=ids)
    logits = scored(cohort, batch)
    assert bool(logits.isfinite().all())
    torch.testing.assert_close(logits[0], torch.from_numpy(reference_logits(cohort, 0, batch)), rtol=0, atol=1e-9)
    # whatever the padding's own row holds
    cohort.table[statistics.offsets[field.name]] += 100
    assert torch.equal(scored(cohort, batch), logits)
    cohort.step(batch)
    assert finite(cohort)


def test_an_empty_split_has_scores_that_are_none(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY | {"wiring": parallel(2)})])
    empty = ResidentRows(
        dataset.valid.take(slice(0, 0)), len(dataset.statistics.domains), dtype=torch.float64, device="cpu"
    )
    scores = score_members(cohort, empty, dataset)[0]
    assert (scores.auc, scores.wauc, scores.mean_auc, scores.gauc, scores.domains) == (None, None, None, None, {})
    assert [scores.value(metric) for metric in ("wauc", "auc", "logloss")] == [-math.inf] * 3
    assert list(empty.batches(0, 0, 8)) == []
    assert cohort.logits(empty).shape == (1, 0, len(TASKS))


def test_a_split_of_one_class_has_a_logloss_and_no_auc() -> None:
    logits, domain = torch.tensor([0.3, -2.0, 1.0]), torch.tensor([0, 1, 2])
    scores = score(logits, torch.ones(3), domain, ["a", "b"], torch.tensor([4, 4, 0]))
    assert (scores.auc, scores.wauc, scores.mean_auc, scores.gauc) == (None, None, None, None)
    assert scores.value("auc") == -math.inf
    assert scores.value("logloss") == -scores.logloss
    assert {name: part.auc for name, part in scores.domains.items()} == {"a": None, "b": None, "unknown": None}


def test_scores_come_in_the_order_of_the_rows_whatever_the_chunks(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY | {"wiring": full(1), "blocks": 1, "rank": 2})])
    rows = resident(dataset)
    whole = cohort.logits(rows)
    one = torch.stack([scored(cohort, batch_of(rows, [n]))[:, 0] for n in range(len(rows))], 1)
    torch.testing.assert_close(whole, one, rtol=0, atol=1e-12)
    monkeypatch.setattr("autoctr.training.cohort.SCORING_ROWS", 7)
    torch.testing.assert_close(cohort.logits(rows), whole, rtol=0, atol=1e-12)


def test_one_pass_visits_every_row_once_sorted_by_domain_in_an_order_of_seed_and_epoch(dataset: Dataset) -> None:
    rows = resident(dataset)

    def visited(seed: int, epoch: int) -> list[list[float]]:
        seen = []
        for batch in rows.batches(seed, epoch, 8):
            domain = batch.segments.domain
            assert bool((domain[1:] >= domain[:-1]).all())
            assert list(batch.segments.bounds) == [int((domain < d).sum()) for d in range(rows.domains + 1)]
            seen += torch.cat([batch.ids, batch.numbers], 1).tolist()
        return seen

    first = visited(1, 0)
    everything = torch.cat([rows.ids, rows.numbers], 1).tolist()
    assert sorted(first) == sorted(everything)
    assert visited(1, 0) == first
    assert visited(1, 1) != first
    assert visited(2, 0) != first


def test_batches_mix_domains(dataset: Dataset) -> None:
    rows = resident(dataset, "train")
    mixed = [len(batch.segments.domain.unique()) for batch in rows.batches(0, 0, 25)]
    assert min(mixed) > 1
