"""Gradients in float64 against central differences, and the surrogates where the forward is a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fake_data import fake_dataset
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model import node as node_module
from autoctr.model import sparsity
from autoctr.model.architecture import Architecture, Node, inputs
from autoctr.model.candidate import Candidate
from autoctr.model.gates import open_gates, straight_through
from autoctr.model.network import Batch
from autoctr.model.segments import Segments
from autoctr.training.cohort import Cohort
from model.networks import TINY, mixed_batch, random_cohort, random_wiring, resident

STEP = 1e-5
MIXED = Architecture(tuple(Node((True,) * count, (0.2, 0.3, 0.4, 0.1)) for count in inputs(2)))
SMOOTH: dict[str, dict[str, Any]] = {
    "vector cross": {"cross": "vector", "wiring": MIXED},
    "matrix cross": {"cross": "matrix", "wiring": MIXED},
    "hard wiring": {"wiring": random_wiring(2, 5)},
    "segment adapters": {"wiring": MIXED, "rank": 6},
    "wide adapters": {"wiring": MIXED, "rank": 2, "rank_tilt": 1.0},
    "scaling pruner": {"wiring": MIXED, "sparsity": 0.3, "sparsity_form": "scaling"},
    "static scaling pruner": {
        "wiring": MIXED, "sparsity": 0.3, "sparsity_form": "scaling", "pruner_input": "domain",
    },
    "batch norm": {"wiring": MIXED, "norm": "batch"},
    "dropout": {"wiring": MIXED, "dropout": 0.4, "embedding_dropout": 0.2},
    "supernet": {},
    "supernet with all": {"norm": "batch", "rank": 2, "sparsity": 0.3, "sparsity_form": "scaling"},
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=80, unseen=0.15)


def loss_of(cohort: Cohort, batch: Batch, step: int | None) -> Callable[..., Tensor]:
    """A fixed random combination of all logits as a function of flat, table and architecture."""
    shape = (cohort.network.members, len(batch), 1)
    weigh = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def loss(flat: Tensor, table: Tensor, architecture: Tensor) -> Tensor:
        result = cohort.network.forward(
            flat,
            table,
            batch.ids,
            batch,
            architecture=architecture if cohort.network.relaxed else None,
            running=cohort.running.clone(),
            step=step,
            progress=cohort.progress,
        )
        return (result.logits * weigh).sum()

    return loss


def numeric(loss: Callable[..., Tensor], arguments: list[Tensor], place: int, entry: tuple[int, ...]) -> float:
    """A central difference of fourth order."""
    total = 0.0
    for steps, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
        moved = [argument.clone() for argument in arguments]
        moved[place][entry] += steps * STEP
        total += weight * float(loss(*moved))
    return total / (12 * STEP)


@pytest.mark.parametrize(
    ("name", "step"),
    [*((name, None) for name in SMOOTH), *((name, 3) for name in ("batch norm", "dropout", "supernet with all"))],
)
def test_gradients_equal_central_differences(dataset: Dataset, name: str, step: int | None) -> None:
    settings: dict[str, Any] = TINY | {"width": 4, "embedding": 2, "blocks": 2} | SMOOTH[name]
    cohort = random_cohort(dataset, [Candidate(**settings, seed=seed) for seed in (1, 2)])
    batch = mixed_batch(resident(dataset), 2)
    loss = loss_of(cohort, batch, step)
    arguments = [cohort.flat.clone(), cohort.table.clone(), cohort.architecture.clone()]
    leaves = [argument.clone().requires_grad_() for argument in arguments]
    gradients = torch.autograd.grad(loss(*leaves), leaves, allow_unused=True)
    draw = torch.Generator().manual_seed(0)
    entries: list[tuple[int, tuple[int, ...]]] = []
    start = 0
    for weight in cohort.network.layout.weights.values():
        entries.append((0, (len(entries) % 2, start + int(torch.randint(weight.size, (), generator=draw)))))
        start += weight.size
    touched = batch.ids.unique()
    for _ in range(8):
        row = int(touched[torch.randint(len(touched), (), generator=draw)])
        entries.append((1, (row, int(torch.randint(2, (), generator=draw)), 1)))
    at = 0
    for weight in cohort.network.architecture.weights.values():
        if weight.name.endswith("operators"):
            entries += [(2, (0, at + n)) for n in range(4)]
        at += weight.size
    alive = 0
    rounding = 1e-9 * float(loss(*arguments).abs())
    for place, entry in entries:
        gradient = gradients[place]
        assert gradient is not None
        expected = numeric(loss, arguments, place, entry)
        assert float(gradient[entry]) == pytest.approx(expected, rel=1e-6, abs=1e-7 + rounding)
        alive += abs(expected) > 1e-4
    assert alive > len(entries) // 4


def test_a_gates_gradient_is_the_gradient_of_the_hard_gate(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY, blocks=2, architecture="learn")])
    batch = mixed_batch(resident(dataset), 2)
    loss = loss_of(cohort, batch, None)
    leaf = cohort.architecture.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(cohort.flat, cohort.table, leaf), [leaf])
    hard = cohort.architecture.clone()
    for name, view in cohort.network.architecture.views(hard).items():
        if name.endswith("gates"):
            view.copy_(open_gates(view).to(view.dtype))
    # the forward as a smooth function of the gates themselves
    monkeypatch.setattr(node_module, "straight_through", lambda gates: gates)
    at, seen = 0, set()
    for weight in cohort.network.architecture.weights.values():
        for n in range(weight.size if weight.name.endswith("gates") else 0):
            expected = numeric(loss, [cohort.flat, cohort.table, hard], 2, (0, at + n))
            assert float(gradient[0, at + n]) == pytest.approx(expected, rel=2e-5, abs=2e-7)
            seen.add((float(hard[0, at + n]), abs(expected) > 1e-6))
        at += weight.size
    assert {(0.0, True), (1.0, True)} <= seen


@pytest.mark.parametrize("logits", [[0.7, -0.2, 0.1], [-0.5, -0.1, -3.0]], ids=["some open", "all closed"])
def test_the_straight_through_gradient_is_the_identity_also_where_a_node_was_repaired(logits: list[float]) -> None:
    a = torch.tensor([logits], dtype=torch.float64, requires_grad=True)
    weigh = torch.tensor([[2.0, -3.0, 5.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((straight_through(a) * weigh).sum(), [a])
    assert torch.equal(gradient, weigh)


@pytest.mark.parametrize("form", ["fusion", "binarization"])
def test_a_pruners_gradient_is_that_of_its_sigmoid_also_below_the_threshold(form: str) -> None:
    v = torch.linspace(-3, 3, 25, dtype=torch.float64).reshape(1, 5, 5).requires_grad_()
    steepness = 2.0
    factors = sparsity.factors(form, v, steepness)
    (gradient,) = torch.autograd.grad(factors.sum(), [v])
    s = (steepness * v.detach()).sigmoid()
    height = sparsity.BETA if form == "fusion" else 1.0
    torch.testing.assert_close(gradient, height * steepness * s * (1 - s), rtol=1e-12, atol=0)
    assert bool((factors == 0).any())
    assert bool((gradient[factors == 0] > 0).all())


@pytest.mark.parametrize("form", ["fusion", "binarization"])
def test_the_closed_shares_gradient_is_that_of_a_sigmoid_around_the_threshold(form: str) -> None:
    v = torch.linspace(-3, 3, 24, dtype=torch.float64).reshape(1, 4, 6).requires_grad_()
    one_hot = Segments(torch.tensor([0, 0, 1, 1]), 2, torch.float64).one_hot
    weigh = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    shares = sparsity.closed_share(form, v, 2.0, one_hot)
    (gradient,) = torch.autograd.grad((shares * weigh).sum(), [v])
    s = ((sparsity.threshold(form, 2.0) - v.detach()) * 2.0).sigmoid()
    rows = torch.tensor([1.0, 1.0, -2.0, -2.0], dtype=torch.float64) / 2
    torch.testing.assert_close(gradient, -2.0 * s * (1 - s) * rows[None, :, None] / 6, rtol=1e-12, atol=0)
