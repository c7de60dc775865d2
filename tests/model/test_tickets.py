"""Tickets: pruning, overlap and masked layers against the reference, masks inside the network, and the traps 4.7."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_dataset
from reference import tickets as reference
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import cross, full, parallel
from autoctr.model.build import multiply_adds
from autoctr.model.candidate import Candidate
from autoctr.model.parameters import Layout, zeros
from autoctr.model.segments import Segments
from autoctr.model.tickets import masked_linear, movable, overlap, prune, round_rate
from autoctr.training.cohort import Cohort
from autoctr.training.optimiser import DenseAdam
from model.networks import TINY, batch_of, mixed_batch, random_cohort, resident, scored

K, B, IN, OUT, D = 2, 7, 4, 3, 3


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=160, tasks=TASKS, unseen=0.15)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_masks(*shape: int, seed: int = 0, share: float = 0.6) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def ticketed(dataset: Dataset, count: int = 1, seed: int = 0, **settings: Any) -> Cohort:
    """Members with random weights and masks."""
    chosen: dict[str, Any] = TINY | {"blocks": 2, "wiring": full(2), "keep_rate": 0.5} | settings
    cohort = random_cohort(dataset, [Candidate(**chosen, seed=n) for n in range(count)])
    network = cohort.network
    cohort.masks = random_masks(count, network.units, network.maskable.size, seed=seed).double()
    return cohort


# pruning


@pytest.mark.parametrize("keep", [0.01, 0.2, 0.5, 0.97])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_the_rate_of_a_round_equals_the_reference(keep: float, rounds: int) -> None:
    assert round_rate(keep, rounds) == pytest.approx(reference.round_rate(keep, rounds), abs=1e-12)
    assert (1 - round_rate(keep, rounds)) ** rounds == pytest.approx(keep)


LAYERS = [(3, 4), (5, 2), (4, 4)]


@pytest.mark.parametrize("ranking", ["global", "layer"])
@pytest.mark.parametrize("rate", [0.0, 0.13, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("ties", [False, True], ids=["", "ties"])
def test_pruning_equals_the_reference_round_after_round(ranking: str, rate: float, ties: bool) -> None:
    sizes = [a * b for a, b in LAYERS]
    mask = torch.ones(sum(sizes), dtype=torch.bool)
    expected = [np.ones(shape) for shape in LAYERS]
    for turn in range(4):
        weights = torch.cat([drawn(size, seed=10 * turn + n) * 3.0**n for n, size in enumerate(sizes)])
        if ties:
            weights = weights.round() / 2
        layered = [w.view(shape).numpy() for w, shape in zip(weights.split(sizes), LAYERS, strict=True)]
        expected = reference.prune(layered, expected, rate, ranking)
        mask = prune(weights, mask, rate, sizes if ranking == "layer" else None)
        assert mask.tolist() == np.concatenate([part.reshape(-1) for part in expected]).astype(bool).tolist()


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_trap_4_7_5_exactly_round_pn_survivors_go_and_the_pruned_are_never_ranked_again(share: float) -> None:
    weights, mask = drawn(101), random_masks(101, share=share)
    weights[~mask] = 0.0  # the smallest of all, were they ranked
    for rate in (0.3, 0.25, 0.5, 1 / 3):
        before = mask.clone()
        mask = prune(weights, mask, rate)
        assert int(before.sum()) - int(mask.sum()) == round(rate * int(before.sum())) > 0
        assert not bool((mask & ~before).any())
        gone, left = weights[before & ~mask].abs(), weights[mask].abs()
        assert float(gone.max()) <= float(left.min())
        weights[~mask] = 1e6  # nor do they come back


def test_pruning_leaves_its_arguments_alone() -> None:
    weights, mask = drawn(20), torch.ones(20, dtype=torch.bool)
    kept = weights.clone()
    prune(weights, mask, 0.5)
    assert bool(mask.all())
    assert torch.equal(weights, kept)


def test_overlap_equals_the_reference() -> None:
    masks = random_masks(4, 50)
    masks[3] = masks[1]
    found = overlap(masks)
    for a, b in itertools.product(range(4), repeat=2):
        assert float(found[a, b]) == pytest.approx(reference.overlap(masks[a].numpy(), masks[b].numpy()), abs=1e-12)
    assert found.diagonal().tolist() == [1.0] * 4


def test_two_empty_tickets_are_the_same() -> None:
    masks = torch.zeros(2, 6, dtype=torch.bool)
    assert float(overlap(masks)[0, 1]) == reference.overlap(masks[0].numpy(), masks[1].numpy()) == 1


# a masked layer


@pytest.mark.parametrize(
    "units", [[0, 0, 1, 1, 1, 2, 2], [0, 0, 0, 2, 2, 3, 3], [1] * 7, [3] * 7, [0, 1, 2, 3, 3, 3, 3]], ids=str
)
@pytest.mark.parametrize("biased", [True, False])
def test_a_masked_layer_equals_the_reference(units: list[int], biased: bool) -> None:
    x, w, masks = drawn(K, B, IN), drawn(K, IN, OUT, seed=1), random_masks(K, D, IN, OUT).double()
    bias = drawn(K, OUT, seed=2) if biased else None
    out = masked_linear(x, w, masks, bias, Segments(torch.tensor(units), D, torch.float64))
    for k in range(K):
        b = np.zeros(OUT) if bias is None else bias[k].numpy()
        expected = reference.masked_linear(x[k].numpy(), w[k].numpy(), list(masks[k].numpy()), units, b)
        np.testing.assert_allclose(out[k].numpy(), expected, rtol=0, atol=1e-9)


def test_one_mask_holds_for_all_rows() -> None:
    x, w, masks = drawn(K, B, IN), drawn(K, IN, OUT, seed=1), random_masks(K, 1, IN, OUT).double()
    out = masked_linear(x, w, masks, None, Segments(torch.tensor([0, 0, 1, 2, 2, 3, 3]), D, torch.float64))
    torch.testing.assert_close(out, torch.bmm(x, w * masks[:, 0]), rtol=0, atol=1e-12)


def test_a_batch_without_rows_passes() -> None:
    x, w, masks = torch.zeros(K, 0, IN), torch.zeros(K, IN, OUT), torch.ones(K, D, IN, OUT)
    nothing = Segments(torch.zeros(0, dtype=torch.int64), D, torch.float32)
    assert masked_linear(x, w, masks, torch.zeros(K, OUT), nothing).shape == (K, 0, OUT)


def test_a_masked_layers_gradients_equal_central_differences_and_end_at_the_mask() -> None:
    x, w, bias = drawn(K, B, IN), drawn(K, IN, OUT, seed=1), drawn(K, OUT, seed=2)
    masks, units = random_masks(K, D, IN, OUT).double(), torch.tensor([0, 0, 1, 1, 1, 1, 1])
    segments = Segments(units, D, torch.float64)
    leaves = [leaf.requires_grad_() for leaf in (x, w, bias)]
    assert torch.autograd.gradcheck(lambda x, w, b: masked_linear(x, w, masks, b, segments), leaves)
    (gradient,) = torch.autograd.grad(masked_linear(x, w, masks, bias, segments).square().sum(), [w])
    used = masks[:, :2].amax(1) > 0
    assert bool((gradient[~used] == 0).all())
    assert bool((gradient[used] != 0).all())


# what a step may move


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_trap_4_7_2_adam_with_masks_equals_the_reference(decay: float) -> None:
    layout, maskable = Layout(), Layout()
    layout.add("a", (5,), zeros)
    layout.add("w", (IN, OUT), zeros, decayed=True)
    maskable.add("w", (IN, OUT), zeros)
    masks, flat = random_masks(K, D, IN * OUT, seed=3, share=0.4).double(), drawn(K, layout.size)
    rate = 0.1
    optimiser = DenseAdam(
        flat,
        torch.full((K, 1), rate, dtype=torch.float64),
        torch.full((K, 1), decay, dtype=torch.float64),
        layout.decayed().double(),
    )
    views = layout.views(flat)
    expected = [[views["w"][k].numpy().copy(), np.zeros((IN, OUT)), np.zeros((IN, OUT))] for k in range(K)]
    for step, units in enumerate([[0, 1], [2], [0], [1, 1], [2, 0, 1], [0], [0]], start=1):
        present = torch.tensor([unit in units for unit in range(D)])
        gradient = drawn(K, layout.size, seed=step)
        kept = (masks[:, present].amax(1) > 0).view(K, IN, OUT)
        layout.views(gradient)["w"][~kept] = 0.0
        optimiser.step(flat, gradient, step, movable(layout, maskable, masks, present))
        for k in range(K):
            own = [mask.reshape(IN, OUT).numpy() for mask in masks[k]]
            expected[k] = list(
                reference.masked_adam(
                    *expected[k][:1], layout.views(gradient)["w"][k].numpy(), *expected[k][1:], step, rate, own, units,
                    weight_decay=decay,
                )
            )  # fmt: skip
            found = [layout.views(t)["w"][k] for t in (flat, optimiser.first, optimiser.second)]
            for mine, theirs in zip(found, expected[k], strict=True):
                np.testing.assert_allclose(mine.numpy(), theirs, rtol=0, atol=1e-9)
    assert bool((layout.views(flat)["a"] != layout.views(drawn(K, layout.size))["a"]).all())


def test_what_may_move_is_what_some_unit_of_the_batch_keeps() -> None:
    layout, maskable = Layout(), Layout()
    for name, shape in (("x", (2,)), ("w1", (2, 2)), ("y", (1,)), ("w2", (3,))):
        layout.add(name, shape, zeros)
        if name.startswith("w"):
            maskable.add(name, shape, zeros)
    masks = torch.tensor([[[1, 0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1, 0]]])
    both = movable(layout, maskable, masks, None)
    assert both.tolist() == [[True] * 2 + [True, True, False, False] + [True] + [True, True, False]]
    second = movable(layout, maskable, masks, torch.tensor([False, True]))
    assert second.tolist() == [[True] * 2 + [False, True, False, False] + [True] + [False, True, False]]
    neither = movable(layout, maskable, masks, torch.tensor([False, False]))
    assert neither.tolist() == [[True] * 2 + [False] * 4 + [True] + [False] * 3]


# in the network


def pruned_by_hand(cohort: Cohort, unit: Tensor) -> Cohort:
    """The same members with ``unit``'s mask [K, M] multiplied into the weights, and no tickets."""
    plain = random_cohort(cohort_dataset(cohort), [c.replace(keep_rate=1.0) for c in cohort.network.candidates])
    plain.flat.copy_(cohort.flat)
    plain.table.copy_(cohort.table)
    plain.running.copy_(cohort.running)
    views, masks = plain.network.layout.views(plain.flat), cohort.network.maskable.views(unit)
    for name, mask in masks.items():
        views[name].mul_(mask)
    return plain


def cohort_dataset(cohort: Cohort) -> Dataset:
    tasks = cohort.network.statistics.tasks
    return fake_dataset(rows=160, tasks=tasks, unseen=0.15)


EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch norm": {"norm": "batch"},
    "adapters and pruners": {"rank": 2, "sparsity": 0.3, "input_pruner": True},
    "parallel": {"wiring": parallel(2)},
}


@pytest.mark.parametrize("extra", EXTRAS)
def test_trap_4_7_9_a_unit_may_be_a_domain(dataset: Dataset, extra: str) -> None:
    cohort = ticketed(dataset, 2, ticket_unit="domain", **EXTRAS[extra])
    assert cohort.masks is not None
    rows = resident(dataset)
    batch = mixed_batch(rows)
    logits = scored(cohort, batch, masks=cohort.masks)
    assert cohort.network.units == len(dataset.statistics.domains)
    for unit in range(cohort.network.units + 1):
        mask = cohort.masks[:, unit] if unit < cohort.network.units else cohort.masks.amax(1)
        mine = batch.segments.domain == unit
        expected = scored(pruned_by_hand(cohort, mask), batch)
        torch.testing.assert_close(logits[:, mine], expected[:, mine], rtol=0, atol=1e-9)
        assert not torch.allclose(logits[:, ~mine], expected[:, ~mine])


@pytest.mark.parametrize("extra", ["plain", "adapters and pruners"])
def test_a_unit_may_be_a_task(dataset: Dataset, extra: str) -> None:
    cohort = ticketed(dataset, 2, ticket_unit="task", **EXTRAS[extra])
    assert cohort.masks is not None
    batch = mixed_batch(resident(dataset))
    logits = scored(cohort, batch, masks=cohort.masks)
    for task in range(len(TASKS)):
        expected = scored(pruned_by_hand(cohort, cohort.masks[:, task]), batch)
        torch.testing.assert_close(logits[:, :, task], expected[:, :, task], rtol=0, atol=1e-9)
        assert not torch.allclose(logits[:, :, 1 - task], expected[:, :, 1 - task])


def test_a_unit_may_be_the_whole_network(dataset: Dataset) -> None:
    cohort = ticketed(dataset, 2, ticket_unit="network")
    assert cohort.masks is not None
    batch = mixed_batch(resident(dataset))
    expected = scored(pruned_by_hand(cohort, cohort.masks[:, 0]), batch)
    torch.testing.assert_close(scored(cohort, batch, masks=cohort.masks), expected, rtol=0, atol=1e-9)


def test_full_masks_change_nothing(dataset: Dataset) -> None:
    for unit in ("domain", "task", "network"):
        cohort = ticketed(dataset, ticket_unit=unit, rank=2)
        assert cohort.masks is not None
        batch = mixed_batch(resident(dataset))
        everything = scored(cohort, batch, masks=torch.ones_like(cohort.masks))
        torch.testing.assert_close(everything, scored(cohort, batch), rtol=0, atol=1e-12)


def test_tickets_prune_the_deep_components_shared_weights_only(dataset: Dataset) -> None:
    cohort = ticketed(dataset, rank=2, sparsity=0.3, norm="batch", input_pruner=True)
    assert {name: w.shape for name, w in cohort.network.maskable.weights.items()} == {
        "D1.weight": (6, 6),
        "D2.weight": (6, 6),
    }


def test_trap_4_7_6_no_saving_is_claimed_for_weights_that_are_multiplied_all_the_same(dataset: Dataset) -> None:
    dense = Candidate(embedding=4, width=8, wiring=parallel(2))
    counts = {multiply_adds(dense.replace(keep_rate=share), dataset.statistics) for share in (1.0, 0.5, 0.1)}
    assert len(counts) == 1


def test_scoring_in_pieces_uses_the_tickets(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = ticketed(dataset, ticket_unit="domain")
    rows = resident(dataset)
    whole = cohort.logits(rows)
    one = torch.stack(
        [scored(cohort, batch_of(rows, [n]), masks=cohort.masks)[:, 0] for n in range(0, len(rows), 5)], 1
    )
    torch.testing.assert_close(whole[:, ::5], one, rtol=0, atol=1e-12)
    monkeypatch.setattr("autoctr.training.cohort.SCORING_ROWS", 7)
    torch.testing.assert_close(cohort.logits(rows), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("unit", ["domain", "task", "network"])
def test_two_members_with_their_own_tickets_are_two_alone(dataset: Dataset, unit: str) -> None:
    together = ticketed(dataset, 2, ticket_unit=unit, learning_rate=1e-2, weight_decay=0.1)
    alone = [random_cohort(dataset, [member]) for member in together.network.candidates]
    assert together.masks is not None
    for k, cohort in enumerate(alone):
        cohort.flat.copy_(together.flat[k : k + 1])
        cohort.table.copy_(together.table[:, k : k + 1])
        cohort.masks = together.masks[k : k + 1]
    rows = resident(dataset, "train")
    start = together.flat.clone()
    for batch in rows.batches(0, 0, 16):
        for cohort in (together, *alone):
            cohort.step(batch)
    assert float((together.flat - start).abs().max()) > 0.05
    for k, cohort in enumerate(alone):
        torch.testing.assert_close(together.flat[k], cohort.flat[0], rtol=0, atol=1e-9)


def closed_by_hand(dataset: Dataset, tasks: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """The shares that the network tells of D1, and the mean of its passes' shares, both [D]."""
    data = fake_dataset(rows=160, tasks=tasks)
    cohort = ticketed(data, ticket_unit="task", blocks=1, wiring=parallel(1), sparsity=0.5)
    network, rows = cohort.network, resident(data, "train")
    batch = rows.batch(rows.domain.argsort(stable=True))
    inner, seen = type(network)._factors, []  # type: ignore[attr-defined]

    def spy(self: Any, *arguments: Any) -> Tensor:
        factor: Tensor = inner(self, *arguments)
        seen.append((factor[0] == 0).double().mean(1))
        return factor

    monkeypatch.setattr(type(network), "_factors", spy)
    told = network.forward(
        cohort.flat, cohort.table, batch.ids, batch, masks=cohort.masks, progress=cohort.progress, measure=True
    ).closed["D1"][0]
    assert len(seen) == len(tasks)
    one_hot = batch.segments.one_hot
    return told, (torch.stack(seen) @ one_hot / one_hot.sum(0)).mean(0)


@pytest.mark.parametrize("tasks", [("click", "conversion"), ("click", "conversion", "return")], ids=len)
def test_closed_shares_are_the_mean_over_the_tasks(
    dataset: Dataset, tasks: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, counted = closed_by_hand(dataset, tasks, monkeypatch)
    assert float(counted.std()) > 0
    torch.testing.assert_close(told, counted, rtol=0, atol=1e-9)


def test_a_network_without_deep_components_has_nothing_to_prune(dataset: Dataset) -> None:
    cohort = ticketed(dataset, wiring=cross(2))
    assert cohort.network.maskable.size == 0
    batch = mixed_batch(resident(dataset))
    assert torch.equal(scored(cohort, batch, masks=cohort.masks), scored(cohort, batch))
    cohort.step(batch)
