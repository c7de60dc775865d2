"""Adapters after a fit: cut by singular values, the smallest ranks that keep the loss, and training them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_dataset
from model.networks import TINY, mixed_batch, random_cohort, resident, scored
from reference import truncation
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import cross, full, parallel
from autoctr.model.candidate import Candidate, ranks
from autoctr.training import adapters as adapters_module
from autoctr.training import checkpoint
from autoctr.training.adapters import TOLERANCE, adapted, domain_losses, low_rank, smallest_ranks, truncated
from autoctr.training.cohort import Cohort, frozen_tables

DOMAINS = 4


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=240, tasks=TASKS, unseen=0.15)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def member_of(dataset: Dataset, **settings: Any) -> Cohort:
    """A member with random weights whose adapters end at their domains' ranks, as training leaves them."""
    chosen: dict[str, Any] = TINY | {"width": 8, "blocks": 2, "wiring": full(2), "rank": 4} | settings
    cohort = random_cohort(dataset, [Candidate(**chosen)])
    for name, view in cohort.network.layout.views(cohort.flat).items():
        if name.endswith(".lora.B"):
            for d, rank in enumerate(ranks(cohort.network.candidates[0], dataset.statistics.domain_rows)):
                view[0, d, rank:] = 0.0
    return cohort


def products(cohort: Cohort) -> dict[str, Tensor]:
    """A_d B_d of every deep component, [D, inputs, outputs]."""
    views = cohort.network.layout.views(cohort.flat)
    names = [name.removesuffix(".lora.A") for name in views if name.endswith(".lora.A")]
    return {name: views[f"{name}.lora.A"][0] @ views[f"{name}.lora.B"][0] for name in names}


# the closest product


SIZES = [(6, 3, 5), (5, 3, 6), (4, 7, 5), (3, 9, 2), (4, 4, 4), (4, 9, 4), (1, 2, 3), (5, 1, 4)]


@pytest.mark.parametrize(("inputs", "rank", "outputs"), SIZES, ids=str)
def test_a_low_rank_product_equals_the_reference(inputs: int, rank: int, outputs: int) -> None:
    """Also where R is larger than the inputs, the outputs, or both."""
    a, b = drawn(inputs, rank), drawn(rank, outputs, seed=1)
    for r in range(min(inputs, rank, outputs) + 1):
        left, right = low_rank(a, b, r)
        expected_a, expected_b = truncation.truncate(a.numpy(), b.numpy(), r)
        assert (left.shape, right.shape) == ((inputs, r), (r, outputs))
        np.testing.assert_allclose((left @ right).numpy(), expected_a @ expected_b, rtol=0, atol=1e-9)
        # balanced: both factors are alike in size
        np.testing.assert_allclose((left.mT @ left).numpy(), (right @ right.mT).numpy(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("inputs", "rank", "outputs"), [(3, 9, 2), (2, 9, 3), (4, 9, 4)], ids=str)
def test_factors_past_the_last_singular_value_are_zeros_of_the_asked_shape(
    inputs: int, rank: int, outputs: int
) -> None:
    a, b = drawn(inputs, rank), drawn(rank, outputs, seed=1)
    left, right = low_rank(a, b, 6)
    assert (left.shape, right.shape) == ((inputs, 6), (6, outputs))
    torch.testing.assert_close(left @ right, a @ b, rtol=0, atol=1e-9)


def test_low_rank_takes_many_products_at_once() -> None:
    a, b = drawn(3, 2, 6, 4), drawn(3, 2, 4, 5, seed=1)
    left, right = low_rank(a, b, 2)
    for i in range(3):
        for j in range(2):
            one = low_rank(a[i, j], b[i, j], 2)
            torch.testing.assert_close((left @ right)[i, j], one[0] @ one[1], rtol=0, atol=1e-9)


def test_a_product_of_nothing_is_nothing() -> None:
    left, right = low_rank(drawn(6, 4), torch.zeros(4, 5, dtype=torch.float64), 2)
    assert bool((left @ right == 0).all())


# a truncated network


SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one rank": {"rank_tilt": 0.0},
    "ranks per domain": {"rank": 6, "rank_tilt": 1.5},
    "wider than the layer": {"rank": 20},
    "everything": {"norm": "batch", "sparsity": 0.3, "input_pruner": True, "rank_tilt": -1.0},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("wanted", [[2, 1, 3, 4], [0, 2, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], ids=str)
def test_a_truncated_network_holds_the_truncated_products(dataset: Dataset, shape: str, wanted: list[int]) -> None:
    cohort = member_of(dataset, **SHAPES[shape])
    own = ranks(cohort.network.candidates[0], dataset.statistics.domain_rows)
    wanted = [min(a, b) for a, b in zip(wanted, own, strict=True)]
    cut = truncated(cohort, wanted, dataset)
    assert cut.network.candidates[0].domain_ranks == tuple(wanted)
    assert ranks(cut.network.candidates[0], dataset.statistics.domain_rows) == wanted
    assert adapted(cut) == any(wanted)
    views, sources = (c.network.layout.views(c.flat) for c in (cut, cohort))
    for name, view in views.items():
        if ".lora." not in name or name.endswith("bias"):
            assert torch.equal(view, sources[name])
    # by hand: the same network whose products are replaced
    by_hand = member_of(dataset, **SHAPES[shape])
    hand = by_hand.network.layout.views(by_hand.flat)
    for name, product in products(cohort).items():
        for d, rank in enumerate(wanted):
            a, b = sources[f"{name}.lora.A"][0, d].numpy(), sources[f"{name}.lora.B"][0, d].numpy()
            new_a, new_b = truncation.truncate(a, b, rank)
            hand[f"{name}.lora.A"][0, d].zero_()
            hand[f"{name}.lora.B"][0, d].zero_()
            hand[f"{name}.lora.A"][0, d, :, :rank] = torch.from_numpy(new_a)
            hand[f"{name}.lora.B"][0, d, :rank] = torch.from_numpy(new_b)
            if rank == 0:
                hand[f"{name}.lora.bias"][0, d].zero_()
            if any(wanted):
                found = products(cut)[name][d].numpy()
                np.testing.assert_allclose(found, new_a @ new_b, rtol=0, atol=1e-9)
        assert float(product.abs().max()) > 0
    batch = mixed_batch(resident(dataset), 5)
    torch.testing.assert_close(scored(cut, batch), scored(by_hand, batch), rtol=0, atol=1e-9)
    assert not torch.allclose(scored(cut, batch), scored(cohort, batch))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_full_rank_changes_nothing(dataset: Dataset, shape: str) -> None:
    cohort = member_of(dataset, **SHAPES[shape])
    own = ranks(cohort.network.candidates[0], dataset.statistics.domain_rows)
    cut = truncated(cohort, own, dataset)
    rows = resident(dataset)
    torch.testing.assert_close(cut.logits(rows), cohort.logits(rows), rtol=0, atol=1e-9)
    assert cut.progress == cohort.progress


def test_a_domain_of_rank_0_loses_its_bias_too(dataset: Dataset) -> None:
    cohort = member_of(dataset)
    cut = truncated(cohort, [4, 0, 4, 4], dataset)
    plain = random_cohort(dataset, [cohort.network.candidates[0].replace(rank=0)])
    views, sources = plain.network.layout.views(plain.flat), cohort.network.layout.views(cohort.flat)
    for name, view in views.items():
        view.copy_(sources[name])
    plain.table.copy_(cohort.table)
    batch = mixed_batch(resident(dataset), 5)
    alone = batch.segments.domain == 1
    torch.testing.assert_close(scored(cut, batch)[:, alone], scored(plain, batch)[:, alone], rtol=0, atol=1e-12)
    others = ~alone & (batch.segments.domain < DOMAINS)
    torch.testing.assert_close(scored(cut, batch)[:, others], scored(cohort, batch)[:, others], rtol=0, atol=1e-9)
    bias = sources["D1.lora.bias"][0, 1]
    assert float(bias.abs().max()) > 0


def test_tickets_survive_truncation(dataset: Dataset) -> None:
    cohort = member_of(dataset, keep_rate=0.5, ticket_rounds=1, wiring=parallel(2))
    size = cohort.network.maskable.size
    cohort.masks = (torch.rand(1, DOMAINS, size, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    cut = truncated(cohort, [4] * DOMAINS, dataset)
    rows = resident(dataset)
    torch.testing.assert_close(cut.logits(rows), cohort.logits(rows), rtol=0, atol=1e-9)


def test_a_truncated_network_survives_the_disk(dataset: Dataset, tmp_path: Path) -> None:
    settings: dict[str, Any] = TINY | {"blocks": 1, "wiring": full(1), "rank": 4}
    cohort = random_cohort(dataset, [Candidate(**settings)], dtype=torch.float32)
    cut = truncated(cohort, [1, 0, 3, 2], dataset)
    path = tmp_path / "member.safetensors"
    checkpoint.save(path, cut.network, cut.weights())
    again = checkpoint.load(path, dataset)
    assert again.network.candidates == cut.network.candidates
    rows = resident(dataset, dtype=torch.float32)
    assert torch.equal(again.logits(rows), cut.logits(rows))


def test_truncation_leaves_the_cohort_alone(dataset: Dataset) -> None:
    cohort = member_of(dataset)
    before = cohort.weights().copy()
    truncated(cohort, [1, 2, 0, 3], dataset)
    smallest_ranks(cohort, resident(dataset), dataset)
    assert torch.equal(cohort.flat, before.flat)
    assert torch.equal(cohort.table, before.table)


# how much rank is needed


def test_only_networks_with_adapters_are_adapted(dataset: Dataset) -> None:
    assert adapted(member_of(dataset))
    assert not adapted(member_of(dataset, rank=0))
    assert not adapted(random_cohort(dataset, [Candidate(**TINY, backbone="mmoe")]))
    assert smallest_ranks(member_of(dataset, wiring=cross(2)), resident(dataset), dataset) == [0] * DOMAINS


def test_the_loss_of_a_domain_is_that_of_its_rows(dataset: Dataset) -> None:
    cohort, rows = member_of(dataset), resident(dataset)
    losses = domain_losses(cohort, rows)
    logits = cohort.logits(rows)[0]
    for d in range(DOMAINS):
        mine = rows.domain == d
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[mine], rows.labels[mine])
        assert float(losses[d]) == pytest.approx(float(expected), abs=1e-12)
    assert losses.shape == (DOMAINS,)
    few = rows.head(4)
    missing = [not bool((few.domain == d).any()) for d in range(DOMAINS)]
    assert domain_losses(cohort, few).isnan().tolist() == missing


@pytest.mark.parametrize("shape", ["plain", "ranks per domain", "everything"])
def test_the_smallest_rank_that_keeps_the_loss_equals_the_reference(
    dataset: Dataset, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort, rows = member_of(dataset, **SHAPES[shape] | {"rank": 8}), resident(dataset)
    rows.labels = cohort.logits(rows)[0].sigmoid().round()  # so that whatever is cut costs something
    own = ranks(cohort.network.candidates[0], dataset.statistics.domain_rows)
    options = [0, 1, 2, 4, 8, 16, 32, 64]
    by_rank = {r: domain_losses(truncated(cohort, [min(r, o) for o in own], dataset), rows) for r in options}
    answers = set()
    for tolerance in (TOLERANCE, 0.01, 0.05, 0.5, 10.0):
        monkeypatch.setattr(adapters_module, "TOLERANCE", tolerance)
        found = smallest_ranks(cohort, rows, dataset)
        for d, rank in enumerate(own):
            steps = [option for option in options if option < rank] + [rank]
            losses = [float(by_rank.get(step, by_rank[64])[d]) for step in steps]
            assert found[d] == steps[truncation.smallest_rank(losses, tolerance)]
        answers |= set(found)
    assert len(answers) > 2
    assert found == [0] * DOMAINS


def test_a_domain_without_held_out_rows_needs_no_rank(dataset: Dataset) -> None:
    cohort, rows = member_of(dataset), resident(dataset).head(4)
    found = smallest_ranks(cohort, rows, dataset)
    for d in range(DOMAINS):
        if not bool((rows.domain == d).any()):
            assert found[d] == 0


def test_a_planted_rank_is_recovered(dataset: Dataset) -> None:
    """Adapters of rank 2, 0, 1 and 4 in the room of 8: labels that the network itself would give need no more."""
    cohort = member_of(dataset, rank=8, wiring=parallel(2))
    planted = [2, 0, 1, 4]
    for name, view in cohort.network.layout.views(cohort.flat).items():
        for d, rank in enumerate(planted):
            if name.endswith(".lora.B"):
                view[0, d] *= 3.0
                view[0, d, rank:] = 0.0
                mix = drawn(8, 8, seed=d)  # any other factors of the same product
                view[0, d] = mix @ view[0, d]
            elif name.endswith(".lora.A"):
                view[0, d] = view[0, d] @ drawn(8, 8, seed=d).inverse()
            elif name.endswith(".lora.bias") and rank == 0:
                view[0, d] = 0.0
    rows = resident(dataset, "train")
    rows.labels = cohort.logits(rows)[0].sigmoid().round()
    assert [int(torch.linalg.matrix_rank(products(cohort)["D1"][d], rtol=1e-8)) for d in range(4)] == planted
    assert smallest_ranks(cohort, rows, dataset) == planted
    cut = truncated(cohort, planted, dataset)
    torch.testing.assert_close(cut.logits(rows), cohort.logits(rows), rtol=0, atol=1e-7)


# adapters alone


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("averaging", [0.0, 0.9])
@pytest.mark.parametrize("extra", [{}, {"sparsity": 0.3, "input_pruner": True}], ids=["", "pruned"])
def test_trap_3_8_1_only_adapters_move_when_they_train_alone(
    dataset: Dataset, norm: str, averaging: float, extra: dict[str, Any]
) -> None:
    settings: dict[str, Any] = TINY | {"blocks": 2, "wiring": full(2), "norm": norm, "averaging": averaging, **extra}
    shared = random_cohort(dataset, [Candidate(**settings | {"averaging": 0.0}, seed=1)], dtype=torch.float32)
    member = Candidate(
        **settings, rank=3, rank_tilt=1.0, weight_decay=0.5, embedding_l2=0.1, learning_rate=0.02, seed=1
    )
    cohort = Cohort(dataset.statistics, [member], frozen_tables(dataset), ramp=1000, start=shared, adapters_only=True)
    rows = resident(dataset, "train", torch.float32)
    assert torch.equal(cohort.logits(rows), shared.logits(rows))  # B = 0
    start = cohort.weights().copy()
    views = cohort.network.layout.views(start.flat)
    assert all(bool((views[f"D{n}.lora.A"] != 0).all()) for n in (1, 2))
    assert all(bool((views[f"D{n}.lora.{part}"] == 0).all()) for n in (1, 2) for part in ("B", "bias"))
    for batch in rows.batches(0, 0, 24):
        cohort.step(batch)
    assert cohort.steps == 10
    assert torch.equal(cohort.table, start.table)
    after, moved = cohort.network.layout.views(cohort.flat), set()
    for name, view in after.items():
        if ".lora." in name:
            moved.add(name.rsplit(".", 1)[1])
            assert not torch.equal(view, views[name])
        else:
            assert torch.equal(view, views[name]), name
    assert moved == {"A", "B", "bias"}
    for moments in (cohort.sparse.first, cohort.sparse.second):
        assert float(moments.abs().max()) == 0


def test_trap_3_8_1_the_averaged_shared_weights_rest_bitwise_too(dataset: Dataset) -> None:
    shared = random_cohort(dataset, [Candidate(**TINY, wiring=full(2))], dtype=torch.float32)
    member = Candidate(**TINY | {"averaging": 0.9}, wiring=full(2), rank=2)
    cohort = Cohort(dataset.statistics, [member], frozen_tables(dataset), ramp=1000, start=shared, adapters_only=True)
    for batch in resident(dataset, "train", torch.float32).batches(0, 0, 24):
        cohort.step(batch)
    kept = cohort.weights()
    views, sources = cohort.network.layout.views(kept.flat), shared.network.layout.views(shared.flat)
    torch.testing.assert_close(kept.table, shared.table, rtol=1e-5, atol=1e-6)
    assert torch.equal(kept.table, shared.table)
    assert all(torch.equal(views[name], source) for name, source in sources.items())


def test_running_statistics_rest_while_adapters_train_alone(dataset: Dataset) -> None:
    settings: dict[str, Any] = TINY | {"blocks": 2, "wiring": full(2), "norm": "batch"}
    shared = random_cohort(dataset, [Candidate(**settings)], dtype=torch.float32)
    cohort = Cohort(
        dataset.statistics, [Candidate(**settings, rank=2)], frozen_tables(dataset), ramp=1000, start=shared,
        adapters_only=True,
    )  # fmt: skip
    for batch in resident(dataset, "train", torch.float32).batches(0, 0, 24):
        cohort.step(batch)
    assert torch.equal(cohort.running, shared.running)


# the rule of ranks


@pytest.mark.parametrize("width", [1, 8, 24, 128, 1024])
@pytest.mark.parametrize("divisor", [1, 3, 16, 64, 200])
def test_the_rank_rule_equals_the_reference(width: int, divisor: int) -> None:
    member = Candidate(width=width, rank=7, rank_divisor=divisor)
    expected = min(64, truncation.rank_rule(width, divisor))
    assert ranks(member, [10, 100, 1000]) == [expected] * 3
    assert ranks(member.replace(domain_ranks=(1, 0, 5)), [10, 100, 1000]) == [1, 0, 5]


def test_the_rank_rule_reaches_the_network(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY | {"width": 12}, wiring=full(2), rank_divisor=4)])
    assert cohort.network.layout.weights["D1.lora.A"].shape == (DOMAINS, 12, 3)
    batch = mixed_batch(resident(dataset))
    before = scored(cohort, batch)
    cohort.network.layout.views(cohort.flat)["D1.lora.B"].zero_()
    assert not torch.allclose(scored(cohort, batch), before)
