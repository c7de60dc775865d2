"""Generated models of the multi-domain networks MMoE, PLE, STAR and PEPNet."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_dataset

from autoctr.data.dataset import Dataset
from autoctr.model.build import BACKBONES
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort, frozen_tables
from autoctr.training.rows import ResidentRows
from export.members import check, generated, member, run, source_of, unknown_rows

KINDS = [name for name in BACKBONES if name != "fusion"]
CASES: dict[str, dict[str, Any]] = {
    "two layers": {"blocks": 2},
    "one layer": {"blocks": 1},
    "three layers": {"blocks": 3, "experts": 3},
    "one expert": {"blocks": 2, "experts": 1},
    "as wide as the fields": {"blocks": 2, "width": 0},
    "wide": {"blocks": 1, "width": 40},
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(tasks=TASKS, unseen=0.1)


def cohort_of(dataset: Dataset, kind: str, **changes: Any) -> Cohort:
    return member(dataset, Candidate(**{"embedding": 3, "width": 8, "experts": 4, "backbone": kind, **changes}))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_trained_network(kind: str, case: str, dataset: Dataset) -> None:
    cohort = cohort_of(dataset, kind, **CASES[case])
    check(dataset, cohort)
    check(dataset, cohort, unknown_rows(dataset), spread=1e-4)
    source = source_of(cohort)
    assert "autoctr" not in source.split('"""')[2]
    assert max(map(len, source.splitlines())) <= 120
    assert all(line == line.rstrip() for line in source.splitlines())
    assert "\n\n\n\n" not in source


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_few_rows(kind: str, count: int, dataset: Dataset) -> None:
    check(dataset, cohort_of(dataset, kind), dataset.valid.take(slice(0, count)))


@pytest.mark.parametrize("kind", KINDS)
def test_one_task_without_further_fields(kind: str) -> None:
    dataset = fake_dataset(tasks=TASKS[:1], kinds=(), unseen=0.1)
    check(dataset, cohort_of(dataset, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_cohort_itself(kind: str, dataset: Dataset) -> None:
    """After steps of training, where the weights that are scored are averages."""
    candidate = Candidate(embedding=3, width=8, backbone=kind, learning_rate=0.01)
    cohort = Cohort(dataset.statistics, [candidate], frozen_tables(dataset), ramp=1)
    rows = ResidentRows(dataset.train, len(dataset.statistics.domains), dtype=torch.float32, device="cpu")
    for batch in rows.batches(0, 0, 100):
        cohort.step(batch)
    expected = cohort.logits(rows)[0].sigmoid().numpy()
    np.testing.assert_allclose(run(generated(cohort), dataset.train), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_matters(kind: str, dataset: Dataset) -> None:
    model = generated(cohort_of(dataset, kind, blocks=2), dtype=torch.float64)
    before = run(model, dataset.valid, torch.float64)
    for name, tensor in model.state_dict().items():
        kept = tensor.clone()
        tensor += 0.01 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)).double()
        assert np.abs(run(model, dataset.valid, torch.float64) - before).max() > 1e-9, name
        tensor.copy_(kept)


@pytest.mark.parametrize("kind", KINDS)
def test_any_other_number_is_an_unknown_domain(kind: str, dataset: Dataset) -> None:
    model, rows = generated(cohort_of(dataset, kind)), unknown_rows(dataset)
    assert ("domain" in model.inputs) == (kind != "pepnet")
    other = dataclasses.replace(rows, domain=np.full_like(rows.domain, 9))
    np.testing.assert_array_equal(run(model, other), run(model, rows))


@pytest.mark.parametrize("kind", ["mmoe", "ple", "star"])
def test_names_of_many_domains_are_one_per_line(kind: str, dataset: Dataset) -> None:
    names = ("a", 'quoted "b"', "c" * 60, "d" * 60)
    statistics = dataclasses.replace(dataset.statistics, domains=names)
    cohort = cohort_of(dataclasses.replace(dataset, statistics=statistics), kind)
    assert max(map(len, source_of(cohort).splitlines())) <= 120
    generated(cohort)
