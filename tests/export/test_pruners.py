"""Pruners of neurons and of the input in generated models, with constants of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_dataset

from autoctr.data.dataset import Dataset
from autoctr.data.statistics import Kind
from autoctr.export.fusion_plan import FusionPlan
from autoctr.model.architecture import ADD, CONCAT, Architecture, Node, one_hot
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort
from export import members
from export.members import check, generated, member, run, source_of, uniform_wiring, unknown_rows

FORMS = ("fusion", "binarization", "scaling")
CONSTANTS: dict[str, Any] = {"sparsity_alpha": 9.5, "sparsity_epsilon": 0.45, "sparsity_beta": 1.7}
PLAIN: dict[str, Any] = {"embedding": 3, "width": 8, "blocks": 2, "wiring": uniform_wiring(CONCAT), "sparsity": 0.4}
EMBEDDING_ALONE = Architecture(
    (
        Node((True, False), one_hot(ADD)),
        Node((True, False), one_hot(ADD)),
        Node((True, False, False, False), one_hot(ADD)),
    )
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(tasks=TASKS, unseen=0.1)


def cohort_of(dataset: Dataset, progress: float = 0.7, **changes: Any) -> Cohort:
    return member(dataset, Candidate(**{**PLAIN, **changes}), progress)


def open_every_second_field(dataset: Dataset, cohort: Cohort) -> None:
    """Choose the input pruner's bias so that an unknown domain keeps every second field."""
    weights = cohort.network.layout.views(cohort.flat)
    unseen = dataset.statistics.offsets[dataset.statistics.domain_field]
    bias = weights["x0.pruner.bias"][0]
    wanted = torch.tensor([1.0, -1.0]).repeat(len(bias))[: len(bias)]
    bias.copy_(wanted - cohort.table[unseen, 0] @ weights["x0.pruner.domain"][0])


def plan_of(cohort: Cohort) -> FusionPlan:
    plan = members.plan_of(cohort)
    assert isinstance(plan, FusionPlan)
    return plan


@pytest.mark.parametrize("source", ["both", "domain"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("input_pruner", [False, True])
def test_constants_are_the_candidates(input_pruner: bool, form: str, source: str, dataset: Dataset) -> None:
    given = {"sparsity_form": form, "pruner_input": source, "input_pruner": input_pruner}
    cohort = cohort_of(dataset, **CONSTANTS, **given)
    if input_pruner:
        open_every_second_field(dataset, cohort)
    check(dataset, cohort)
    check(dataset, cohort, unknown_rows(dataset))
    default = member(dataset, Candidate(**PLAIN, **given))
    assert np.abs(run(generated(cohort), dataset.valid) - run(generated(default), dataset.valid)).max() > 1e-3


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_steepness_ends_at_the_candidates(progress: float, dataset: Dataset) -> None:
    cohort = cohort_of(dataset, progress, input_pruner=True, **CONSTANTS)
    check(dataset, cohort)
    assert plan_of(cohort).steepness == pytest.approx(0.1 + 9.4 * progress)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", [8, 0])
def test_fields_alone_are_pruned_where_no_neuron_is_left(width: int, form: str, dataset: Dataset) -> None:
    changes = {"blocks": 1, "wiring": EMBEDDING_ALONE, "width": width, "sparsity_form": form}
    cohort = cohort_of(dataset, **changes, input_pruner=True, **CONSTANTS)
    check(dataset, cohort)
    source = source_of(cohort)
    for gone in ("Pruner", "ALPHA", "sigmoid(v)", "domain_embedding"):
        assert gone not in source
    assert "domain" in generated(cohort).inputs
    without = cohort_of(dataset, **changes, **CONSTANTS)
    assert "domain" not in generated(without).inputs


@pytest.mark.parametrize("kinds", [(), (Kind.NUMERIC,), (Kind.MULTI,), (Kind.VECTOR,), tuple(Kind)])
def test_every_kind_of_field_has_its_factor(kinds: tuple[Kind, ...]) -> None:
    dataset = fake_dataset(tasks=TASKS, kinds=kinds, unseen=0.1)
    cohort = cohort_of(dataset, input_pruner=True, width=0, sparsity_form="scaling")
    check(dataset, cohort)
    factors = plan_of(cohort).field_factors
    assert factors is not None
    widths = cohort.network.embedding.widths
    assert factors.shape == (5, sum(widths))
    for part in factors.split(widths, 1):
        assert torch.equal(part, part[:, :1].expand_as(part))
    assert len({float(part[0, 0]) for part in factors.split(widths, 1)}) == len(widths)
