"""Lottery tickets and cut adapters in generated models."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_dataset

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import ADD, CONCAT, Architecture, Node, one_hot
from autoctr.model.candidate import Candidate
from autoctr.training.adapters import truncated
from autoctr.training.cohort import Cohort
from export.members import (
    check,
    full_wiring,
    generated,
    member,
    random_wiring,
    run,
    source_of,
    state_of,
    uniform_wiring,
    unknown_rows,
)

DOMAINS = 4
PLAIN: dict[str, Any] = {"embedding": 3, "width": 8, "blocks": 2, "wiring": uniform_wiring(CONCAT), "keep_rate": 0.5}
EVERYTHING: dict[str, Any] = {
    "blocks": 3,
    "wiring": random_wiring(3, 3, range(4)),
    "cross": "bilinear",
    "rank": 2,
    "rank_tilt": 1.5,
    "sparsity": 0.3,
    "input_pruner": True,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "as wide as the fields": {"width": 0},
    "batch norm": {"norm": "batch"},
    "adapters": {"rank": 2},
    "pruner": {"sparsity": 0.3},
    "soft mixture": {"wiring": full_wiring((0.2, 0.3, 0.1, 0.4))},
    "everything": EVERYTHING,
}
ILLEGAL = ("task", "batch norm")
UNITS = ("domain", "task", "network")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(tasks=TASKS, unseen=0.1)


def cohort_of(dataset: Dataset, **changes: Any) -> Cohort:
    return member(dataset, Candidate(**{**PLAIN, **changes}), scale=0.8)


@pytest.mark.parametrize(
    ("unit", "name"), [(unit, name) for unit in UNITS for name in CASES if (unit, name) != ILLEGAL]
)
def test_rows_of_all_domains(unit: str, name: str, dataset: Dataset) -> None:
    cohort = cohort_of(dataset, ticket_unit=unit, **CASES[name])
    assert set(dataset.valid.domain.tolist()) == set(range(DOMAINS + 1))
    check(dataset, cohort)
    check(dataset, cohort, unknown_rows(dataset))
    dense = member(dataset, dataclasses.replace(cohort.network.candidates[0], keep_rate=1.0), scale=0.8)
    assert np.abs(run(generated(cohort), dataset.valid) - run(generated(dense), dataset.valid)).max() > 0.01


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("unit", UNITS)
def test_few_rows(unit: str, count: int, dataset: Dataset) -> None:
    check(dataset, cohort_of(dataset, ticket_unit=unit), dataset.valid.take(slice(0, count)))


def test_one_ticket_is_part_of_the_weights(dataset: Dataset) -> None:
    cohort = cohort_of(dataset, ticket_unit="network")
    state = state_of(cohort)
    assert "PerDomain" not in source_of(cohort)
    assert cohort.masks is not None
    kept = sum(int(state[f"{name}.weight"].count_nonzero()) for name in ("d1", "d2"))
    assert kept == int(cohort.masks.sum()) < 2 * 8 * 8


def test_a_single_task_or_domain_needs_no_masks() -> None:
    dataset = fake_dataset(tasks=TASKS[:1], unseen=0.1)
    cohort = cohort_of(dataset, ticket_unit="task")
    check(dataset, cohort)
    assert "PerDomain" not in source_of(cohort)
    assert "ModuleList" not in source_of(cohort)
    whole = int(sum(dataset.statistics.domain_rows))
    statistics = dataclasses.replace(dataset.statistics, domains=("all",), domain_rows=(whole,))
    valid = dataclasses.replace(dataset.valid, domain=np.minimum(dataset.valid.domain, 1))
    single = dataclasses.replace(dataset, statistics=statistics, valid=valid)
    cohort = cohort_of(single)
    check(single, cohort)
    assert "PerDomain" not in source_of(cohort)
    assert "ModuleList" not in source_of(cohort)


def test_inputs_tell_whether_the_domain_is_read(dataset: Dataset) -> None:
    for unit in UNITS:
        assert ("domain" in generated(cohort_of(dataset, ticket_unit=unit)).inputs) == (unit == "domain")
    nothing_deep = Architecture(
        (
            Node((True, False), one_hot(ADD)),
            Node((True, False), one_hot(ADD)),
            Node((True, False, False, False), one_hot(ADD)),
        )
    )
    cohort = cohort_of(dataset, blocks=1, wiring=nothing_deep, rank=2)
    assert "domain" not in generated(cohort).inputs
    check(dataset, cohort)


def test_products_of_domains(dataset: Dataset) -> None:
    """A ticket serves its own domain's rows alone; unknown ones have what any domain keeps."""
    cohort = cohort_of(dataset)
    model = generated(cohort)
    kept = [product.weight != 0 for product in model.d1.products]
    assert len(kept) == DOMAINS + 1
    assert torch.equal(kept[-1], torch.stack(kept[:-1]).any(0))
    assert 0 < int(kept[0].sum()) < int(kept[-1].sum()) < 64
    before = run(model, dataset.valid)
    for changed in range(DOMAINS + 1):
        weight = model.d1.products[changed].weight.data
        whole = weight.clone()
        weight += 0.1
        moved = np.abs(run(model, dataset.valid) - before).max(axis=1) > 1e-6
        weight.copy_(whole)
        assert moved.any()
        assert not moved[dataset.valid.domain != changed].any()


def test_products_of_tasks(dataset: Dataset) -> None:
    model = generated(cohort_of(dataset, ticket_unit="task"))
    before = run(model, dataset.valid)
    for task in range(2):
        weight = model.d2[task].weight.data
        whole = weight.clone()
        weight += 0.1
        moved = np.abs(run(model, dataset.valid) - before).max(axis=0) > 1e-6
        weight.copy_(whole)
        assert moved.tolist() == [task == 0, task == 1]


@pytest.mark.parametrize("strange", [DOMAINS + 3, -1])
def test_any_other_number_is_an_unknown_domain(strange: int, dataset: Dataset) -> None:
    model, rows = generated(cohort_of(dataset, rank=2)), unknown_rows(dataset)
    other = dataclasses.replace(rows, domain=np.full_like(rows.domain, strange))
    np.testing.assert_array_equal(run(model, other), run(model, rows))


@pytest.mark.parametrize("unit", UNITS)
def test_source_is_tidy(unit: str, dataset: Dataset) -> None:
    source = source_of(cohort_of(dataset, ticket_unit=unit, **EVERYTHING))
    assert max(map(len, source.splitlines())) <= 120
    assert all(line == line.rstrip() for line in source.splitlines())
    assert "\n\n\n\n" not in source


@pytest.mark.parametrize("wanted", [(2, 0, 1, 3), (0, 0, 2, 0), (0, 0, 0, 0)])
@pytest.mark.parametrize("keep_rate", [1.0, 0.5])
def test_adapters_after_truncation(wanted: tuple[int, ...], keep_rate: float, dataset: Dataset) -> None:
    whole = cohort_of(dataset, rank=3, truncate=True, keep_rate=keep_rate)
    cohort = truncated(whole, list(wanted), dataset)
    check(dataset, cohort)
    assert ("domain" in generated(cohort).inputs) == (any(wanted) or keep_rate < 1)
    assert ("PerDomain" in source_of(cohort)) == (any(wanted) or keep_rate < 1)


def test_ranks_of_domains_without_truncation(dataset: Dataset) -> None:
    check(dataset, cohort_of(dataset, domain_ranks=(0, 2, 0, 4), rank=1, keep_rate=1.0))
