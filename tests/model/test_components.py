"""The six cross components: the reference's numbers, gradients, members, shapes of tokens and what they cost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fake_data import fake_dataset
from reference import components, fusion
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from autoctr.data.dataset import Dataset
from autoctr.data.statistics import Kind
from autoctr.model.architecture import full
from autoctr.model.candidate import Candidate
from autoctr.model.components import CROSS, token_width
from autoctr.model.parameters import Layout
from autoctr.training.cohort import Cohort, frozen_tables
from model.networks import TINY, mixed_batch, random_cohort, resident, scored

K, B = 2, 5
SHAPES = [(12, 4), (6, 6), (10, 4), (9, 6), (8, 3)]  # width, embedding: tokens of 4, 6, 2, 3 and 1 neurons


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=120, unseen=0.15)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights_of(kind: str, width: int, token: int, members: int = K) -> dict[str, Tensor]:
    layout = Layout()
    CROSS[kind].declare(layout, "C", width, token)
    shapes = {name: weight.shape for name, weight in layout.weights.items()}
    return {name: drawn(members, *shape, seed=7 + n) for n, (name, shape) in enumerate(shapes.items())}


def expected(
    kind: str, weights: dict[str, npt.NDArray[Any]], x: npt.NDArray[Any], anchor: npt.NDArray[Any], token: int
) -> npt.NDArray[Any]:
    """One member's output by the reference, from its weights by name."""
    if kind == "vector":
        return fusion.cross_vector(x, anchor, weights["C.weight"][:, 0], weights["C.bias"])
    if kind == "matrix":
        return fusion.cross_matrix(x, anchor, weights["C.weight"], weights["C.bias"])
    if kind == "lowrank":
        return components.lowrank_cross(x, anchor, weights["C.down"], weights["C.weight"], weights["C.bias"])
    if kind == "fm":
        return components.fm(x, anchor, token)
    if kind == "bilinear":
        return components.bilinear(x, anchor, weights["C.weight"])
    q, k, v, residual = np.split(weights["C.weight"], 4, axis=1)
    return components.field_attention(x, q, k, v, residual, 2 if token % 2 == 0 else 1)


@pytest.mark.parametrize("kind", CROSS)
@pytest.mark.parametrize(("width", "embedding"), SHAPES)
def test_a_component_equals_the_reference(kind: str, width: int, embedding: int) -> None:
    token = token_width(width, embedding)
    assert token == components.token_width(width, embedding)
    weights, x, anchor = weights_of(kind, width, token), drawn(K, B, width), drawn(K, B, width, seed=1)
    out = CROSS[kind].forward(weights, "C", x, anchor, token)
    assert out.shape == x.shape
    for k in range(K):
        own = {name: weight[k].numpy() for name, weight in weights.items()}
        np.testing.assert_allclose(
            out[k].numpy(), expected(kind, own, x[k].numpy(), anchor[k].numpy(), token), rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("kind", CROSS)
@pytest.mark.parametrize(("width", "embedding"), [(12, 4), (10, 4)])
def test_a_components_gradients_equal_central_differences(kind: str, width: int, embedding: int) -> None:
    token = token_width(width, embedding)
    weights = weights_of(kind, width, token)
    names = list(weights)
    leaves = [drawn(K, 3, width), drawn(K, 3, width, seed=1), *weights.values()]

    def forward(x: Tensor, anchor: Tensor, *given: Tensor) -> Tensor:
        return CROSS[kind].forward(dict(zip(names, given, strict=True)), "C", x, anchor, token)

    for leaf in leaves:
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(forward, leaves, eps=1e-6, atol=1e-7, rtol=1e-6)
    gradients = torch.autograd.grad(forward(*leaves).square().sum(), leaves, allow_unused=kind == "attention")
    dead = [n for n, gradient in enumerate(gradients) if gradient is None or not bool((gradient != 0).any())]
    assert dead == ([1] if kind == "attention" else [])  # AutoInt has no anchor


@pytest.mark.parametrize("kind", CROSS)
def test_members_do_not_see_each_other(kind: str) -> None:
    width, token = 10, 2
    weights, x, anchor = weights_of(kind, width, token, 4), drawn(4, B, width), drawn(4, B, width, seed=1)
    together = CROSS[kind].forward(weights, "C", x, anchor, token)
    for k in range(4):
        own = {name: weight[k : k + 1] for name, weight in weights.items()}
        alone = CROSS[kind].forward(own, "C", x[k : k + 1], anchor[k : k + 1], token)
        torch.testing.assert_close(together[k], alone[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", CROSS)
def test_a_batch_without_rows_passes(kind: str) -> None:
    nothing = torch.zeros(K, 0, 10, dtype=torch.float64)
    assert CROSS[kind].forward(weights_of(kind, 10, 2), "C", nothing, nothing, 2).shape == (K, 0, 10)


@pytest.mark.parametrize("embedding", [4, 3, 2])
def test_attention_is_the_same_by_any_kernel(embedding: int) -> None:
    width = 12
    weights, x = weights_of("attention", width, embedding), drawn(K, B, width)
    default = CROSS["attention"].forward(weights, "C", x, x, embedding)
    with sdpa_kernel(SDPBackend.MATH):  # what CUDA falls back on where no fused kernel takes the shape
        plain = CROSS["attention"].forward(weights, "C", x, x, embedding)
    torch.testing.assert_close(plain, default, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", CROSS)
@pytest.mark.parametrize(("width", "embedding"), [(12, 4), (16, 4), (9, 6), (3, 4)])
def test_the_cost_is_the_multiply_adds_of_a_row(kind: str, width: int, embedding: int) -> None:
    token = token_width(width, embedding)
    weights, x, anchor = weights_of(kind, width, token, 1), drawn(1, 1, width), drawn(1, 1, width, seed=1)
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        CROSS[kind].forward(weights, "C", x, anchor, token)
    # per neuron: the product with the anchor, and for others the sum over the tokens and the difference from it
    single = {"vector": 1, "matrix": 1, "lowrank": 1, "attention": 0, "fm": 3, "bilinear": 3}[kind] * width
    assert CROSS[kind].cost(width, token) == counter.get_total_flops() // 2 + single


@pytest.mark.parametrize("kind", ["attention", "fm", "bilinear"])
def test_components_of_tokens_treat_all_tokens_alike(kind: str) -> None:
    width, token = 12, 3
    weights, x, anchor = weights_of(kind, width, token), drawn(K, B, width), drawn(K, B, width, seed=1)
    order = torch.tensor([2, 0, 3, 1])

    def permuted(values: Tensor) -> Tensor:
        return values.view(K, B, -1, token)[:, :, order].reshape(values.shape)

    out = CROSS[kind].forward(weights, "C", x, anchor, token)
    again = CROSS[kind].forward(weights, "C", permuted(x), permuted(anchor), token)
    torch.testing.assert_close(again, permuted(out), rtol=0, atol=1e-12)
    # and one token sees the others
    x[:, :, -1] += 1
    assert not torch.allclose(CROSS[kind].forward(weights, "C", x, anchor, token)[:, :, :token], out[:, :, :token])


def test_fm_keeps_what_its_neurons_sum_to() -> None:
    x = drawn(1, B, 12)
    crossed = CROSS["fm"].forward({}, "C", x, x, 3) - x
    fields = x.view(B, 4, 3)
    pairs = sum(fields[:, i] * fields[:, j] for i in range(4) for j in range(i))
    torch.testing.assert_close(crossed.view(B, 4, 3).sum(1), 2 * pairs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", CROSS)
@pytest.mark.parametrize(
    ("settings", "kinds", "token"),
    [
        ({"width": 6, "embedding": 3}, tuple(Kind), 3),
        ({"width": 10, "embedding": 4}, tuple(Kind), 2),
        ({"width": 7, "embedding": 4}, tuple(Kind), 1),
        ({"width": 0, "embedding": 4}, (), 4),  # without a projection: the fields themselves
        ({"width": 0, "embedding": 4}, (Kind.VECTOR,), 1),  # a frozen vector of 5 numbers breaks them up
        ({"width": 0, "embedding": 10}, (Kind.VECTOR,), 5),
    ],
    ids=str,
)
def test_the_networks_components_read_their_node_and_x0(
    kind: str, settings: dict[str, Any], kinds: tuple[Kind, ...], token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = fake_dataset(rows=60, kinds=kinds, unseen=0.2)
    members = [Candidate(**TINY | settings, cross=kind, blocks=2, wiring=full(2), seed=n) for n in range(2)]
    cohort = random_cohort(dataset, members)
    component, seen = CROSS[kind], []
    inner = type(component).forward

    def spy(self: Any, weights: Any, name: str, x: Tensor, anchor: Tensor, tokens: int) -> Tensor:
        out = inner(self, weights, name, x, anchor, tokens)
        seen.append((name, x, anchor, tokens, out))
        return out

    monkeypatch.setattr(type(component), "forward", spy)
    logits = scored(cohort, mixed_batch(resident(dataset)))
    assert float(logits.std()) > 1e-3
    assert [name for name, *_ in seen] == ["C0", "C1", "C2"]
    assert torch.equal(seen[0][1], seen[0][2])
    views = cohort.network.layout.views(cohort.flat)
    for name, x, anchor, tokens, out in seen:
        assert tokens == token == math.gcd(cohort.network.width, settings["embedding"])
        assert torch.equal(anchor, seen[0][1])
        for k in range(2):
            own = {f"C{part}": view[k].numpy() for part, view in
                   ((n.removeprefix(name), v) for n, v in views.items() if n.startswith(f"{name}."))}  # fmt: skip
            own = {part: value for part, value in own.items() if "concat" not in part and "attention" not in part}
            np.testing.assert_allclose(
                out[k].numpy(), expected(kind, own, x[k].numpy(), anchor[k].numpy(), token), rtol=1e-9, atol=1e-9
            )


@pytest.mark.parametrize("kind", ["lowrank", "attention", "fm", "bilinear"])
@pytest.mark.parametrize("shape", [{"width": 10, "embedding": 4}, {"width": 0, "embedding": 5}], ids=str)
def test_three_together_are_three_alone_after_20_steps(dataset: Dataset, kind: str, shape: dict[str, Any]) -> None:
    settings: dict[str, Any] = TINY | shape | {"cross": kind, "blocks": 2, "learning_rate": 1e-2}
    members = [
        Candidate(**settings | own, wiring=full(2), seed=n)
        for n, own in enumerate([{}, {"learning_rate": 3e-2, "weight_decay": 0.1}, {"dropout": 0.3}])
    ]
    rows = resident(dataset, "train")
    together = random_cohort(dataset, members)
    alone = [random_cohort(dataset, [member]) for member in members]
    views = together.network.layout.views(together.flat)
    for k, cohort in enumerate(alone):
        for name, view in cohort.network.layout.views(cohort.flat).items():
            view[0].copy_(views[name][k])
        cohort.table[:, 0].copy_(together.table[:, k])
    start = together.flat.clone()
    for epoch in range(4):
        for batch in rows.batches(1, epoch, 24):
            for cohort in (together, *alone):
                cohort.step(batch)
    assert together.steps == 20
    assert bool(((together.flat - start).abs().amax(1) > 0.05).all())
    for k, cohort in enumerate(alone):
        torch.testing.assert_close(together.flat[k], cohort.flat[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(together.table[:, k], cohort.table[:, 0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", CROSS)
def test_every_component_learns_and_starts_alive(dataset: Dataset, kind: str) -> None:
    member = Candidate(**TINY | {"width": 12, "embedding": 4}, cross=kind, blocks=1, wiring=full(1))
    cohort = Cohort(dataset.statistics, [member], frozen_tables(dataset), ramp=1, dtype=torch.float64)
    before = {name: view.clone() for name, view in cohort.network.layout.views(cohort.flat).items()}
    cohort.step(mixed_batch(resident(dataset), 8))
    after = cohort.network.layout.views(cohort.flat)
    still = [name for name, old in before.items() if not bool((after[name] != old).any())]
    assert still == []
