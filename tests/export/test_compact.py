"""Exports that are smaller and cheaper than the searched network, domain by domain, with the same probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_dataset
from torch.utils.flop_counter import FlopCounterMode

from autoctr.data.dataset import Dataset, Rows
from autoctr.export import footprint
from autoctr.export.fusion_plan import FusionPlan
from autoctr.export.generate import model_state
from autoctr.export.rounding import rounded
from autoctr.export.verify import searched_probabilities
from autoctr.model.architecture import ADD, ATTENTION, CONCAT, PRODUCT, parallel
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort
from export import members
from export.members import check, full_wiring, generated, member, random_wiring, run, source_of, uniform_wiring

DOMAINS = 4
WIDTH = 16
PLAIN: dict[str, Any] = {"embedding": 3, "width": WIDTH, "blocks": 2, "wiring": parallel(2)}
STATIC: dict[str, Any] = {"sparsity": 0.5, "pruner_input": "domain", "sparsity_epsilon": 0.7}
WIRINGS = {
    "parallel": parallel(2),
    "add": full_wiring((1.0, 0.0, 0.0, 0.0)),
    "product": uniform_wiring(PRODUCT),
    "concat": uniform_wiring(CONCAT),
    "attention": uniform_wiring(ATTENTION),
    "mixture": full_wiring((0.2, 0.3, 0.1, 0.4)),
    "random": random_wiring(3, 2, (ADD, PRODUCT)),
}
METHODS: dict[str, dict[str, Any]] = {
    "none": {},
    "norm": {"norm": "batch"},
    "static": STATIC,
    "static scaling": STATIC | {"sparsity_form": "scaling"},
    "static binarization": STATIC | {"sparsity_form": "binarization", "sparsity_epsilon": 0.45},
    "static, input": STATIC | {"input_pruner": True},
    "static, input, fields": STATIC | {"input_pruner": True, "width": 0},
    "static, adapters": STATIC | {"rank": 2, "rank_tilt": 2.0},
    "static, adapters, norm": STATIC | {"rank": 2, "norm": "batch"},
    "static, tickets": STATIC | {"keep_rate": 0.3},
    "few tickets": {"keep_rate": 0.04},
    "few tickets of the network": {"keep_rate": 0.04, "ticket_unit": "network"},
    "few tickets, adapters": {"keep_rate": 0.04, "domain_ranks": (1, 0, 2, 0)},
    "few tickets of tasks": STATIC | {"keep_rate": 0.04, "ticket_unit": "task", "rank": 1, "input_pruner": True},
    "dynamic, few tickets": {"sparsity": 0.4, "keep_rate": 0.04, "rank": 1},
    "everything": STATIC | {"keep_rate": 0.1, "rank": 1, "rank_tilt": 3.0, "input_pruner": True, "norm": "batch"},
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(tasks=TASKS, unseen=0.1)


def cohort_of(dataset: Dataset, **changes: Any) -> Cohort:
    return member(dataset, Candidate(**{**PLAIN, **changes}), scale=0.7)


def plan_of(cohort: Cohort, *names: str) -> FusionPlan:
    plan = members.plan_of(cohort, *names)
    assert isinstance(plan, FusionPlan)
    return plan


def rows_of(dataset: Dataset, domain: int) -> Rows:
    return dataset.valid.take(np.flatnonzero(dataset.valid.domain == domain))


@pytest.mark.parametrize(
    ("method", "wiring"),
    [
        (method, wiring)
        for method in METHODS
        for wiring in WIRINGS
        if method in ("static", "everything") or wiring in ("product", "mixture")
    ],
)
def test_equals_the_searched_network(method: str, wiring: str, dataset: Dataset) -> None:
    cohort = cohort_of(dataset, **METHODS[method], wiring=WIRINGS[wiring])
    check(dataset, cohort, spread=0)
    source = source_of(cohort)
    assert max(map(len, source.splitlines())) <= 120
    assert all(line == line.rstrip() for line in source.splitlines())


@pytest.mark.parametrize("method", METHODS)
def test_batches_of_one_domain_and_empty_ones(method: str, dataset: Dataset) -> None:
    cohort = cohort_of(dataset, **METHODS[method], wiring=WIRINGS["mixture"])
    single, double = generated(cohort), generated(cohort, dtype=torch.float64)
    for domain in range(DOMAINS + 1):
        rows = rows_of(dataset, domain)
        exact = searched_probabilities(cohort, rows, torch.float64)
        np.testing.assert_allclose(run(single, rows), exact, rtol=0, atol=1e-5)
        np.testing.assert_allclose(run(double, rows, torch.float64), exact, rtol=0, atol=1e-12)
    for split_rows in (0, 1 << 30):
        model = generated(cohort, split_rows=split_rows)
        assert run(model, dataset.valid.take(slice(0, 0))).shape == (0, len(TASKS))


@pytest.mark.parametrize(
    ("method", "wiring"), [*((method, "mixture") for method in METHODS), ("static", "parallel"), ("static", "product")]
)
def test_multiply_adds_are_those_that_are_made(method: str, wiring: str, dataset: Dataset) -> None:
    """Beside matrix products, a crossed neuron, a factor and a further input of a product count one each."""
    cohort = cohort_of(dataset, **METHODS[method], wiring=WIRINGS[wiring])
    plan, model = plan_of(cohort), generated(cohort)
    found = footprint.exported(plan, model_state(plan, cohort.network, cohort.weights()))
    width, passes = plan.width, len(TASKS) if plan.per_task else 1
    scaled = 0
    for component in (*plan.components, plan.output):
        scaled += width * (component.name.startswith("c"))
        for part in component.parts:
            scaled += width * {"product": len(part.sources) - 1, "attention": len(part.sources)}.get(part.operator, 0)
        if component.deep and plan.layers[component.name][0].factors is not None:
            scaled += width
    scaled = passes * scaled + (0 if plan.field_factors is None else plan.fields_width)
    if plan.per_task:  # a matrix times a vector is not counted as one
        scaled += width * len(TASKS)
    for domain in range(DOMAINS + 1):
        rows = rows_of(dataset, domain)
        with FlopCounterMode(display=False) as counter:
            run(model, rows)
        assert found[domain].multiply_adds == counter.get_total_flops() // 2 // len(rows) + scaled


def test_closed_neurons_are_gone(dataset: Dataset) -> None:
    """The tensors are smaller, and so are those of the layer that would read them."""
    cohort = cohort_of(dataset, **STATIC, cross="fm")
    plan = plan_of(cohort)
    weights = cohort.network.layout.views(cohort.flat)
    embedded = cohort.table[members.scope_of(cohort).domain_ids, 0]
    v = embedded @ weights["D1.pruner.domain"][0] + weights["D1.pruner.bias"][0]
    is_open = 2 * (plan.steepness * v).sigmoid() > 0.7
    for domain in range(DOMAINS + 1):
        count = int(is_open[domain].sum())
        assert count <= 0.75 * WIDTH
        d1, d2 = (plan.layers[name][0].product(domain) for name in ("d1", "d2"))
        assert d1.weight.shape == (count + 1, WIDTH)  # and one that is always 0
        assert d2.reads is not None
        assert d2.reads.tolist() == is_open[domain].nonzero()[:, 0].tolist()
        assert d2.weight.shape[1] == count
    state = model_state(plan, cohort.network, cohort.weights())
    assert not [name for name in state if "pruner" in name]
    found = footprint.compared(plan, state, cohort.network, cohort.weights())
    for domain in found["domains"]:
        assert domain["after"]["multiply_adds"] < 0.8 * domain["before"]["multiply_adds"]
        assert domain["after"]["parameters"] < 0.8 * domain["before"]["parameters"]


def test_a_concatenation_is_part_of_the_map_behind_it(dataset: Dataset) -> None:
    wiring = full_wiring([float(operator == CONCAT) for operator in range(4)])
    cohort = cohort_of(dataset, wiring=wiring)
    state, source = members.state_of(cohort), source_of(cohort)
    assert "self.d1_concat" not in source
    assert "self.o_concat" not in source
    assert "self.c1_concat" in source  # a cross reads its input twice
    assert state["d2.weight"].shape == (WIDTH, 4 * WIDTH)
    assert state["head.weight"].shape == (len(TASKS), 6 * WIDTH)
    adapted = source_of(cohort_of(dataset, wiring=wiring, rank=2))
    assert "self.d1_concat" in adapted  # it would be merged into every domain's matrix
    assert "self.o_concat" not in adapted


def test_few_closed_neurons_leave_the_weights_shared(dataset: Dataset) -> None:
    """A factor per domain is cheaper than weights per domain that save less than a quarter."""
    cohort = cohort_of(dataset, **STATIC | {"sparsity_form": "scaling"})
    plan = plan_of(cohort)
    for name in ("d1", "d2"):
        (layer,) = plan.layers[name]
        assert layer.is_shared
        assert layer.factors is not None
        assert layer.product(0).is_linear
    for gone in ("PerDomain", "Sparse", "rows_by_"):
        assert gone not in source_of(cohort)


def test_adapters_are_merged_or_kept(dataset: Dataset) -> None:
    plan = plan_of(cohort_of(dataset, domain_ranks=(3, 0, 2, 0)))
    (layer,) = plan.layers["d1"]
    assert len(layer.products) == 3
    assert layer.product(1) is layer.product(3) is layer.product(4)
    assert all(product.is_linear for product in layer.products)
    assert plan.groups == (0, 1, 2, 1, 1)
    few = plan_of(cohort_of(dataset, domain_ranks=(1, 0, 8, 0), keep_rate=0.04))
    for name in ("d1", "d2"):
        (layer,) = few.layers[name]
        assert layer.product(0).down is not None
        assert layer.product(0).multiply_adds < WIDTH * WIDTH
        assert layer.product(2).down is None


def test_domains_with_equal_layers_share_them(dataset: Dataset) -> None:
    cohort = cohort_of(dataset, domain_ranks=(0, 2, 0, 0))
    state, source = members.state_of(cohort), source_of(cohort)
    assert sorted(name for name in state if name.startswith("d1.")) == [
        f"d1.products.{number}.{part}" for number in range(2) for part in ("bias", "weight")
    ]
    assert '((0,), nn.Linear(WIDTH, WIDTH)),  # "de", "jp", "us", unknown domains' in source
    assert "GROUPS = (0, 1, 0, 0, 0)" in source
    alone = cohort_of(dataset, domain_ranks=(0, 0, 0, 0))
    assert "domain" not in generated(alone).inputs


def close(dataset: Dataset, cohort: Cohort, *names: str) -> None:
    """Make the input's pruner close these fields for every domain and open all others."""
    weights = cohort.network.layout.views(cohort.flat)
    weights["x0.pruner.domain"].mul_(0.01)
    closed = [name in names for name in cohort.network.embedding.names]
    weights["x0.pruner.bias"][0] = torch.where(torch.tensor(closed), -9.0, 3.0) + 0.1 * torch.arange(len(closed))


FIELDS: dict[str, Any] = STATIC | {"input_pruner": True}


@pytest.mark.parametrize(
    ("closed", "embedding_rows"),
    [
        (("user",), 31),
        (("tags", "item"), 28),
        (("price", "item vector[0:5]"), 0),
        (("market", "price bin"), 10),
        (("user", "tags", "price", "market", "price bin"), 48),
    ],
)
@pytest.mark.parametrize("stored", ["fp32", "int8"])
def test_fields_that_every_domain_closes_are_gone(
    stored: Any, closed: tuple[str, ...], embedding_rows: int, dataset: Dataset
) -> None:
    cohort = cohort_of(dataset, **FIELDS)
    close(dataset, cohort, *closed)
    plan = members.plan_of(cohort)
    assert len(plan.rows) == dataset.statistics.vocabulary - embedding_rows
    state = members.state_of(cohort)
    assert len(state["embedding.weight"]) == len(plan.rows)
    assert ("number_weights" in state) == ("price" not in closed)
    assert ("vectors_item_vector" in state) == ("item vector[0:5]" not in closed)
    widths = dict(zip(cohort.network.embedding.names, cohort.network.embedding.widths, strict=True))
    assert plan.fields_width == sum(width for name, width in widths.items() if name not in closed)
    if stored == "fp32":
        check(dataset, cohort)
        return
    table = cohort.table
    cohort.table = rounded(table, "int8")
    tables = cohort.network.embedding.tables
    tables[0] = rounded(tables[0], "int8")
    found = run(generated(cohort, stored="int8"), dataset.valid)
    np.testing.assert_allclose(found, searched_probabilities(cohort, dataset.valid, torch.float32), rtol=0, atol=1e-5)


def test_a_closed_field_that_something_else_reads_stays(dataset: Dataset) -> None:
    """Pruners that read neurons read the domain's embedding, too."""
    cohort = cohort_of(dataset, sparsity=0.3, input_pruner=True)
    close(dataset, cohort, "market", "user")
    assert len(members.plan_of(cohort).rows) == dataset.statistics.vocabulary - 31
    check(dataset, cohort)
