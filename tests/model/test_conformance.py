"""Relaxed with hard gates = masked: the supernet and the discrete network read from it say the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_data import TASKS, fake_dataset

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import OPERATORS, Architecture, consumers, one_hot
from autoctr.model.candidate import Candidate
from autoctr.search.oneshot import discretise, read_out
from autoctr.training.cohort import Cohort
from autoctr.training.fit import Splits
from model.networks import TINY, mixed_batch, random_cohort, random_wiring, resident, scored, uniform_wiring

FORMS = ("fusion", "binarization", "scaling")
PARTS: dict[str, dict[str, Any]] = {
    "vector cross": {"cross": "vector"},
    "matrix cross": {"cross": "matrix"},
    "adapters": {"rank": 2, "rank_tilt": 1.5},
    "wide adapters": {"rank": 20},
    "without projection": {"width": 0, "embedding": 2},
    **{
        f"{form} pruner, reads {source}": {"sparsity": 0.3, "sparsity_form": form, "pruner_input": source}
        for form in FORMS
        for source in ("both", "domain")
    },
    "batch norm": {"norm": "batch"},
    "everything": {"norm": "batch", "rank": 2, "sparsity": 0.3, "cross": "vector"},
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=120, tasks=TASKS, unseen=0.15)


def supernet(dataset: Dataset, settings: dict[str, Any], dtype: torch.dtype = torch.float64) -> Cohort:
    return random_cohort(dataset, [Candidate(**TINY | settings, architecture="learn")], dtype=dtype)


def harden(cohort: Cohort, wiring: Architecture) -> None:
    """Gate logits of both signs and any size, operator logits whose softmax is one-hot."""
    draw = torch.Generator().manual_seed(1)
    views = cohort.network.architecture.views(cohort.architecture)
    for name, node in zip(consumers(cohort.network.blocks), wiring.nodes, strict=True):
        gates = views[f"{name}.gates"]
        size = torch.rand(gates.shape, generator=draw, dtype=torch.float64) + 0.01
        gates.copy_(size * torch.tensor([1.0 if is_open else -1.0 for is_open in node.open]))
        views[f"{name}.operators"].copy_(torch.tensor([[1e4 if w == 1 else -1e4 for w in node.operators]]))


def assert_conforms(cohort: Cohort, wiring: Architecture, dataset: Dataset, dtype: torch.dtype = torch.float64) -> None:
    discrete = discretise(cohort, wiring, dataset)
    assert discrete.network.layout.size < cohort.network.layout.size
    batch = mixed_batch(resident(dataset, dtype=dtype), 6)
    relaxed, masked = scored(cohort, batch), scored(discrete, batch)
    scale = 1.0 if dtype == torch.float64 else float(relaxed.abs().max().clamp(min=1))
    assert float((relaxed - masked).abs().max()) <= scale * (1e-9 if dtype == torch.float64 else 1e-5)
    assert float(relaxed.std()) > 1e-3


@pytest.mark.parametrize("operator", range(4), ids=OPERATORS)
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_relaxed_operator_with_hard_gates_is_the_masked_one(
    dataset: Dataset, operator: int, every: int, dtype: torch.dtype
) -> None:
    cohort = supernet(dataset, {"blocks": 2}, dtype)
    wiring = uniform_wiring(one_hot(operator), 2, every)
    harden(cohort, wiring)
    assert_conforms(cohort, wiring, dataset, dtype)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_relaxed_part_with_hard_gates_is_the_masked_one(dataset: Dataset, part: str, seed: int) -> None:
    cohort = supernet(dataset, PARTS[part] | {"blocks": 2})
    wiring = random_wiring(2, seed)
    harden(cohort, wiring)
    assert_conforms(cohort, wiring, dataset)


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_a_random_architecture_conforms(dataset: Dataset, blocks: int, seed: int) -> None:
    cohort = supernet(dataset, {"blocks": blocks, "rank": 2, "sparsity": 0.3})
    wiring = random_wiring(blocks, seed)
    harden(cohort, wiring)
    assert_conforms(cohort, wiring, dataset)
    splits = Splits(resident(dataset, "train"), resident(dataset))
    candidate = cohort.network.candidates[0].replace(readout="hard", retrain="supernet")
    assert read_out(cohort, candidate, splits, dataset) == wiring


@pytest.mark.parametrize("part", ["matrix cross", "everything"])
def test_the_soft_read_out_is_the_relaxed_network(dataset: Dataset, part: str) -> None:
    cohort = supernet(dataset, PARTS[part] | {"blocks": 2})
    splits = Splits(resident(dataset, "train"), resident(dataset))
    candidate = cohort.network.candidates[0].replace(readout="soft")
    wiring = read_out(cohort, candidate, splits, dataset)
    assert not all(node.hard for node in wiring.nodes)
    assert_conforms(cohort, wiring, dataset)


def test_a_node_whose_gates_are_all_closed_is_read_out_with_the_input_it_was_computed_with(dataset: Dataset) -> None:
    cohort = supernet(dataset, {"blocks": 1})
    harden(cohort, uniform_wiring(one_hot(0), 1))
    gates = cohort.network.architecture.views(cohort.architecture)["O.gates"]
    gates.copy_(torch.tensor([[-3.0, -1.0, -0.5, -2.0]]))
    splits = Splits(resident(dataset, "train"), resident(dataset))
    wiring = read_out(cohort, cohort.network.candidates[0].replace(readout="hard"), splits, dataset)
    assert wiring.nodes[-1].open == (False, False, True, False)
    assert_conforms(cohort, wiring, dataset)


def test_the_drop_read_out_is_hard_legal_and_not_worse_than_the_mixture(dataset: Dataset) -> None:
    cohort = supernet(dataset, {"blocks": 1})
    splits = Splits(resident(dataset, "train"), resident(dataset))
    candidate = cohort.network.candidates[0]
    dropped, hard = (read_out(cohort, candidate.replace(readout=kind), splits, dataset) for kind in ("drop", "hard"))

    def loss(wiring: Architecture) -> float:
        logits = discretise(cohort, wiring, dataset).logits(splits.valid)[0]
        return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, splits.valid.labels))

    assert all(node.hard for node in dropped.nodes)
    assert loss(dropped) < loss(hard)


def test_discretising_leaves_the_supernet_alone(dataset: Dataset) -> None:
    cohort = supernet(dataset, {"blocks": 1, "norm": "batch"})
    before = cohort.weights().copy()
    discrete = discretise(cohort, random_wiring(1, 0), dataset)
    for batch in resident(dataset, "train").batches(0, 0, 40):
        discrete.step(batch)
    after = cohort.weights()
    assert torch.equal(before.flat, after.flat)
    assert torch.equal(before.table, after.table)
    assert torch.equal(before.running, after.running)
