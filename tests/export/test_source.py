"""The generated model against the searched network, and what must not stand in it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_dataset

from autoctr.data.dataset import Dataset
from autoctr.data.statistics import Kind
from autoctr.model.architecture import ADD, ATTENTION, CONCAT, OPERATORS, PRODUCT, Architecture, Node, one_hot, parallel
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort, frozen_tables
from autoctr.training.rows import ResidentRows
from export.members import check, full_wiring, generated, member, run, source_of, state_of, uniform_wiring, unknown_rows

SOFT = (0.125, 0.3, 0.375, 0.2)
PLAIN: dict[str, Any] = {"embedding": 3, "width": 8, "blocks": 2, "wiring": uniform_wiring(CONCAT)}
EVERYTHING: dict[str, Any] = PLAIN | {
    "wiring": full_wiring(SOFT),
    "norm": "batch",
    "rank": 2,
    "rank_tilt": 1.5,
    "sparsity": 0.3,
}
CASES: dict[str, dict[str, Any]] = {
    **{f"operator {name}": {"wiring": uniform_wiring(number)} for number, name in enumerate(OPERATORS)},
    **{f"full {name}": {"wiring": full_wiring(one_hot(number))} for number, name in enumerate(OPERATORS)},
    "soft mixture": {"wiring": full_wiring(SOFT)},
    "soft without two": {"wiring": full_wiring((0.6, 0.0, 0.4, 0.0))},
    "attention and product": {"wiring": full_wiring((0.0, 0.5, 0.0, 0.5))},
    "vector cross": {"cross": "vector"},
    "batch norm": {"norm": "batch"},
    "batch norm of the second deep": {
        "norm": "batch",
        "wiring": Architecture(
            (
                Node((True, False), one_hot(ADD)),
                Node((True, False), one_hot(ADD)),
                Node((True, False, False, False), one_hot(ADD)),
                Node((False, True, True, False), one_hot(PRODUCT)),
                Node((False, False, False, False, False, True), one_hot(ADD)),
            )
        ),
    },
    "adapters": {"rank": 3},
    "adapters of different rank": {"rank": 3, "rank_tilt": 2.0},
    "domains without adapter": {"rank": 1, "rank_tilt": 3.0},
    **{
        f"pruner {form} {source}": {"sparsity": 0.4, "sparsity_form": form, "pruner_input": source}
        for form in ("fusion", "binarization", "scaling")
        for source in ("both", "domain")
    },
    "as wide as the fields": {"width": 0, "rank": 2},
    "soft and as wide as the fields": {"width": 0, "wiring": full_wiring(SOFT), "sparsity": 0.2},
    "one block": {"blocks": 1, "wiring": parallel(1)},
    "three blocks": {"blocks": 3, "wiring": full_wiring(SOFT, 3), "rank": 2},
    "embedding alone": {
        "blocks": 1,
        "wiring": Architecture(
            (
                Node((True, False), one_hot(ADD)),
                Node((True, False), one_hot(ADD)),
                Node((True, False, False, False), one_hot(ADD)),
            )
        ),
        "rank": 2,
        "sparsity": 0.3,
        "norm": "batch",
    },
    "everything": EVERYTHING,
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(tasks=TASKS, unseen=0.1)


def cohort_of(dataset: Dataset, **changes: Any) -> Any:
    return member(dataset, Candidate(**{**PLAIN, **changes}))


@pytest.mark.parametrize("case", CASES)
def test_equals_the_searched_network(case: str, dataset: Dataset) -> None:
    check(dataset, cohort_of(dataset, **CASES[case]))


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_steepness_is_that_of_the_weights(progress: float, dataset: Dataset) -> None:
    check(dataset, member(dataset, Candidate(**{**PLAIN, "sparsity": 0.3}), progress))


@pytest.mark.parametrize("kinds", [(), (Kind.NUMERIC,), (Kind.MULTI,), (Kind.VECTOR,), (Kind.MULTI, Kind.VECTOR)])
@pytest.mark.parametrize("tasks", [TASKS[:1], TASKS])
def test_every_kind_of_field(kinds: tuple[Kind, ...], tasks: tuple[str, ...]) -> None:
    dataset = fake_dataset(tasks=tasks, kinds=kinds, unseen=0.1)
    cohort = cohort_of(dataset, rank=2, sparsity=0.3)
    check(dataset, cohort)
    source = source_of(cohort)
    assert ("mean_of_known" in source) == (Kind.MULTI in kinds)
    assert ("numbers" in source) == (Kind.NUMERIC in kinds)
    assert ("vectors" in source) == (Kind.VECTOR in kinds)


def test_equals_the_cohort_itself(dataset: Dataset) -> None:
    cohort = cohort_of(dataset, **EVERYTHING)
    rows = ResidentRows(dataset.valid, len(dataset.statistics.domains), dtype=torch.float32, device="cpu")
    np.testing.assert_allclose(
        run(generated(cohort), dataset.valid), cohort.logits(rows)[0].sigmoid().numpy(), rtol=0, atol=1e-5
    )


def test_equals_a_trained_member(dataset: Dataset) -> None:
    """Also while it trains, where the weights that are scored may be averages."""
    candidate = Candidate(**{**EVERYTHING, "batch": 100, "learning_rate": 0.01})
    cohort = Cohort(dataset.statistics, [candidate], frozen_tables(dataset), ramp=600)
    rows = ResidentRows(dataset.train, len(dataset.statistics.domains), dtype=torch.float32, device="cpu")
    for batch in rows.batches(0, 0, 100):
        cohort.step(batch)
    expected = cohort.logits(rows)[0].sigmoid().numpy()
    np.testing.assert_allclose(run(generated(cohort), dataset.train), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("case", ["everything", "operator product", "adapters of different rank"])
def test_few_rows(count: int, case: str, dataset: Dataset) -> None:
    check(dataset, cohort_of(dataset, **CASES[case]), dataset.valid.take(slice(0, count)))


def test_unknown_domain_has_no_adapter(dataset: Dataset) -> None:
    unknown = unknown_rows(dataset)
    cohort = cohort_of(dataset, rank=3)
    check(dataset, cohort, unknown)
    without = cohort_of(dataset, rank=3)
    for name, view in without.network.layout.views(without.flat).items():
        if "lora" in name:
            view.zero_()
    np.testing.assert_array_equal(run(generated(cohort), unknown), run(generated(without), unknown))


def test_every_weight_matters(dataset: Dataset) -> None:
    cohort = cohort_of(dataset, **EVERYTHING)
    model = generated(cohort, dtype=torch.float64)
    before = run(model, dataset.valid, torch.float64)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            kept = tensor.clone()
            tensor += 0.01 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)).double()
            assert np.abs(run(model, dataset.valid, torch.float64) - before).max() > 1e-9, name
            tensor.copy_(kept)


ABSENT = {
    "PerDomain": {"rank": 0},
    "Pruner": {"sparsity": 0.0},
    "projection": {"width": 0},
    "softmax": {"wiring": full_wiring((0.5, 0.25, 0.25, 0.0))},
    "concat": {"wiring": full_wiring((0.5, 0.25, 0.0, 0.25))},
    " * ": {"wiring": full_wiring(one_hot(CONCAT)), "cross": "matrix"},
    "ALPHA": {"sparsity": 0.3, "sparsity_form": "scaling"},
}


@pytest.mark.parametrize("text", ABSENT)
def test_what_is_off_is_not_in_the_source(text: str, dataset: Dataset) -> None:
    source = source_of(cohort_of(dataset, **ABSENT[text]))
    if text == " * ":
        source = source.split("    def forward")[-1].replace("* WIDTH", "")
    assert text not in source
    if text != " * ":
        assert text in source_of(cohort_of(dataset, **EVERYTHING))


def test_closed_connections_and_dead_nodes_are_not_in_the_source(dataset: Dataset) -> None:
    wiring = Architecture(
        (
            Node((True, True), one_hot(ATTENTION)),  # C1 is read by nobody
            Node((True, False), one_hot(CONCAT)),
            Node((True, True, True, False), one_hot(ATTENTION)),  # C2 neither
            Node((False, False, False, True), one_hot(ADD)),
            Node((True, False, False, False, False, True), one_hot(CONCAT)),
        )
    )
    cohort = cohort_of(dataset, wiring=wiring, rank=2)
    source = source_of(cohort)
    body = source.split("def forward")[-1]
    for gone in ("c0", "c1", "c2", "Cross", "attention", "Attention"):
        assert gone not in source
    assert "d1 = torch.relu(self.d1(self.d1_concat(e), rows))" in body
    assert "d2 = torch.relu(self.d2(d1, rows))" in body
    assert "self.head(torch.cat([e, d2], dim=1))" in body
    names = state_of(cohort)
    assert not [name for name in names if name.startswith("c")]
    check(dataset, cohort)


@pytest.mark.parametrize("case", CASES)
def test_source_is_tidy(case: str, dataset: Dataset) -> None:
    source = source_of(cohort_of(dataset, **CASES[case]))
    assert "autoctr" not in source.split('"""')[2]
    assert max(map(len, source.splitlines())) <= 120
    assert all(line == line.rstrip() for line in source.splitlines())
    assert "\n\n\n\n" not in source


def test_large_networks_are_tidy_too(dataset: Dataset) -> None:
    for weights in (SOFT, *map(one_hot, range(4))):
        cohort = cohort_of(dataset, blocks=12, wiring=full_wiring(weights, 12))
        source = source_of(cohort)
        assert max(map(len, source.splitlines())) <= 120
        assert run(generated(cohort), dataset.valid.take(slice(0, 3))).shape == (3, 2)


def test_strange_names_stay_harmless() -> None:
    dataset = fake_dataset(tasks=TASKS[:1], kinds=tuple(Kind))
    strange = '"""; import os #\n\\'
    names = {"item vector": strange}
    fields = [dataclasses.replace(field, name=names.get(field.name, field.name)) for field in dataset.statistics.fields]
    statistics = dataclasses.replace(
        dataset.statistics, fields=tuple(fields), tasks=(strange,), domains=(strange, "b", "c", "d")
    )
    dataset = dataclasses.replace(dataset, statistics=statistics, tables={strange: dataset.tables["item vector"]})
    check(dataset, cohort_of(dataset, rank=2))


@pytest.mark.parametrize("space", ["all", "clicked", "esmm"])
@pytest.mark.parametrize(
    "changes", [{}, {"keep_rate": 0.5, "ticket_unit": "task"}, {"backbone": "star", "wiring": None}]
)
def test_tasks_after_the_first(changes: dict[str, Any], space: str, dataset: Dataset) -> None:
    cohort = cohort_of(dataset, task_space=space, **changes)
    check(dataset, cohort)
    source = source_of(cohort)
    assert ("entire_space(" in source) == ("both labels" in source) == (space == "esmm")
    assert ("given that the first label" in source) == (space == "clicked")
    rows = dataset.valid
    if space == "esmm":
        plain = run(generated(cohort_of(dataset, **changes)), rows)
        np.testing.assert_allclose(
            run(generated(cohort), rows), plain * [[1, 0]] + plain[:, :1] * plain[:, 1:] * [[0, 1]], atol=1e-6
        )
    alone = fake_dataset(tasks=TASKS[:1])
    assert "entire_space" not in source_of(cohort_of(alone, task_space=space, **changes))


def test_a_supernet_cannot_be_exported(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="discrete"):
        source_of(cohort_of(dataset, wiring=None))
