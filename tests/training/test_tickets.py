"""Finding tickets, training with them, keeping them, and how stable their common start is."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_dataset
from model.networks import TINY, random_cohort, resident
from reference import tickets as reference
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.architecture import cross, full, parallel
from autoctr.model.candidate import Candidate
from autoctr.model.network import Batch
from autoctr.model.tickets import round_rate
from autoctr.training import checkpoint
from autoctr.training import tickets as tickets_module
from autoctr.training.cohort import Cohort, Weights, ramp_rows
from autoctr.training.fit import OutOfTime, Splits
from autoctr.training.tickets import (
    SMALLEST_BATCH,
    STEPS_PER_PASS,
    Tickets,
    error_barrier,
    find_tickets,
    train_rows,
)

ROWS = 600
SEED = 3
MEMBER = Candidate(
    embedding=4, width=8, blocks=2, wiring=parallel(2), keep_rate=0.4, ticket_rounds=2, ticket_epochs=0.5, batch=32,
    learning_rate=0.01, dropout=0.1, seed=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=ROWS, tasks=TASKS)


@pytest.fixture(scope="module")
def splits(dataset: Dataset) -> Splits:
    return Splits(resident(dataset, "train", torch.float32), resident(dataset, "valid", torch.float32))


def found(dataset: Dataset, splits: Splits, **changes: Any) -> Tickets:
    return find_tickets([MEMBER.replace(**changes)], splits, dataset, seed=SEED)[0]


@dataclasses.dataclass
class Training:
    """One cohort's training as it was seen from outside: weights and moments before it, and every step."""

    candidate: Candidate
    flat: Tensor
    table: Tensor
    running: Tensor
    moments: float
    masks: Tensor | None
    batches: list[Batch]
    tasks: list[int | None]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """Every cohort that takes a step, in the order of their first steps."""
    seen: dict[int, Training] = {}
    alive: list[Cohort] = []
    inner = Cohort.step

    def step(cohort: Cohort, batch: Batch, **options: Any) -> Tensor:
        if id(cohort) not in seen:
            alive.append(cohort)  # so that no other cohort gets its id
            moments = (cohort.dense.first, cohort.dense.second, cohort.sparse.first, cohort.sparse.second)
            seen[id(cohort)] = Training(
                cohort.network.candidates[0],
                cohort.flat.clone(),
                cohort.table.clone(),
                cohort.running.clone(),
                max(float(moment.abs().max()) for moment in moments),
                None if cohort.masks is None else cohort.masks.clone(),
                [],
                [],
            )
            ordered.append(seen[id(cohort)])
        seen[id(cohort)].batches.append(batch)
        seen[id(cohort)].tasks.append(options.get("task"))
        return inner(cohort, batch, **options)

    ordered: list[Training] = []
    monkeypatch.setattr(Cohort, "step", step)
    return ordered


def unit_count(unit: str) -> int:
    return {"domain": 4, "task": 2, "network": 1}[unit]


# the masks


@pytest.mark.parametrize("unit", ["domain", "task", "network"])
@pytest.mark.parametrize("ranking", ["global", "layer"])
@pytest.mark.parametrize(("keep", "rounds"), [(0.4, 2), (0.07, 3), (0.9, 1)])
def test_trap_4_7_5_every_unit_keeps_its_share(
    dataset: Dataset, splits: Splits, unit: str, ranking: str, keep: float, rounds: int
) -> None:
    result = found(
        dataset, splits, ticket_unit=unit, ticket_ranking=ranking, keep_rate=keep, ticket_rounds=rounds,
        ticket_epochs=0.1,
    )  # fmt: skip
    groups = [64, 64] if ranking == "layer" else [128]
    left = 0
    for group in groups:
        for _ in range(rounds):
            group -= round(round_rate(keep, rounds) * group)
        left += group
    assert result.masks.shape == (unit_count(unit), 128)
    assert result.masks.sum(1).tolist() == [left] * unit_count(unit)
    assert result.kept == pytest.approx([left / 128] * unit_count(unit))
    assert left / 128 == pytest.approx(keep, abs=0.5 * rounds * len(groups) / 128)
    if ranking == "layer":
        assert result.masks[:, :64].sum(1).tolist() == [left // 2] * unit_count(unit)


def test_domains_keep_different_weights_and_the_overlap_tells(dataset: Dataset, splits: Splits) -> None:
    result = found(dataset, splits, keep_rate=0.3)
    masks = result.masks.numpy()
    pairs = [reference.overlap(masks[a], masks[b]) for a, b in itertools.combinations(range(4), 2)]
    assert max(pairs) < 1
    assert result.overlap == pytest.approx(sum(pairs) / len(pairs), abs=1e-9)
    assert found(dataset, splits, ticket_unit="network").overlap is None


def test_the_pruned_weights_are_the_smallest_after_training_on_the_unit(
    dataset: Dataset, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round by the reference, from the weights that the trained cohort really had."""
    ends: list[list[Any]] = []
    inner = tickets_module.train_rows

    def train(cohort: Cohort, *arguments: Any, **options: Any) -> None:
        inner(cohort, *arguments, **options)
        views = cohort.network.layout.views(cohort.flat)
        ends.append([views[name][0].double().numpy() for name in cohort.network.maskable.weights])

    monkeypatch.setattr(tickets_module, "train_rows", train)
    result = found(dataset, splits, ticket_ranking="layer")
    assert len(ends) == 1 + 4 * 2
    rate = reference.round_rate(0.4, 2)
    for unit in range(4):
        masks: list[Any] = [np.ones((8, 8)), np.ones((8, 8))]
        for turn in range(2):
            masks = reference.prune(ends[1 + 2 * unit + turn], masks, rate, "layer")
        assert np.concatenate([mask.reshape(-1) for mask in masks]).tolist() == result.masks[unit].tolist()


def test_finding_tickets_twice_finds_the_same(dataset: Dataset, splits: Splits) -> None:
    one, two = found(dataset, splits, rewind=0.2), found(dataset, splits, rewind=0.2)
    assert torch.equal(one.masks, two.masks)
    assert torch.equal(one.start.cohort.flat, two.start.cohort.flat)
    (other,) = find_tickets([MEMBER.replace(rewind=0.2)], splits, dataset, seed=SEED + 1)
    assert not torch.equal(other.masks, one.masks)


def test_a_wiring_without_deep_components_has_empty_tickets(dataset: Dataset, splits: Splits) -> None:
    result = found(dataset, splits, wiring=cross(2))
    assert result.masks.shape == (4, 0)


# θ_k, and who is trained on what


@pytest.mark.parametrize(("rewind", "steps"), [(0.0, 0), (0.1, 2), (0.5, 10), (1.2, 23)])
def test_theta_k_is_the_network_after_k_steps(dataset: Dataset, splits: Splits, rewind: float, steps: int) -> None:
    """60, 300 and 720 rows in batches of 32 are 2, 10 and 19 + 4 steps."""
    result = found(dataset, splits, rewind=rewind, ticket_epochs=0.0)
    assert result.start.cohort.steps == steps
    by_hand = Cohort.on(dataset, [MEMBER.replace(averaging=0.0, rewind=rewind)])
    for epoch in range(2):
        for batch in splits.train.batches(SEED, epoch, 32):
            if by_hand.steps < steps:
                by_hand.step(batch)
    assert by_hand.steps == steps
    assert torch.equal(result.start.cohort.flat, by_hand.flat)
    assert torch.equal(result.start.cohort.table, by_hand.table)
    assert result.rows == by_hand.rows


@pytest.mark.parametrize("unit", ["domain", "task", "network"])
def test_trap_4_7_1_one_theta_k_and_one_seed_for_all_units(
    dataset: Dataset, splits: Splits, unit: str, trainings: list[Training]
) -> None:
    result = found(dataset, splits, ticket_unit=unit, rewind=0.1, averaging=0.99)
    first, *rounds = trainings
    assert len(first.batches) == 2
    assert len(rounds) == 2 * unit_count(unit)
    for training in rounds:
        assert training.candidate.seed == MEMBER.seed
        assert torch.equal(training.flat, result.start.cohort.flat)
        assert torch.equal(training.table, result.start.cohort.table)
    assert not torch.equal(first.flat, result.start.cohort.flat)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_trap_4_7_3_a_rewind_restores_weights_and_starts_the_moments_anew(
    dataset: Dataset, splits: Splits, norm: str, trainings: list[Training]
) -> None:
    result = found(dataset, splits, rewind=0.2, norm=norm, ticket_rounds=3)
    for training in trainings[1:]:
        assert training.moments == 0
        assert torch.equal(training.flat, result.start.cohort.flat)
        assert torch.equal(training.table, result.start.cohort.table)
        assert torch.equal(training.running, result.start.cohort.running)
    assert float(result.start.cohort.dense.first.abs().max()) > 0
    if norm == "batch":
        assert not torch.equal(result.start.cohort.running, result.start.cohort.network.initial_running())
    # the masks of a round are those of the rounds before it
    counts = [training.masks[0, 0].sum().item() for training in trainings[1:4] if training.masks is not None]
    assert counts[0] == 128 > counts[1] > counts[2]


def test_a_given_start_is_where_theta_begins(dataset: Dataset, splits: Splits) -> None:
    start = Cohort.on(dataset, [MEMBER.replace(seed=77)])
    train_rows(start, splits.train, 200, seed=1, batch=32)
    (result,) = find_tickets([MEMBER], splits, dataset, seed=SEED, start=start.members)
    given = start.weights()
    assert torch.equal(result.start.cohort.flat, given.flat)
    assert torch.equal(result.start.cohort.table, given.table)


def test_each_domain_is_trained_on_its_own_rows_only(
    dataset: Dataset, splits: Splits, trainings: list[Training]
) -> None:
    found(dataset, splits, ticket_epochs=1.5)
    sizes = torch.bincount(splits.train.domain, minlength=4).tolist()
    for number, training in enumerate(trainings):
        unit = number // 2
        batch = min(32, max(SMALLEST_BATCH, sizes[unit] // STEPS_PER_PASS))
        domains = torch.cat([b.segments.domain for b in training.batches])
        assert domains.unique().tolist() == [unit]
        assert training.tasks == [None] * len(training.batches)
        # whole passes, then as many batches as it takes
        rows = sum(map(len, training.batches))
        assert 1.5 * sizes[unit] <= rows < 1.5 * sizes[unit] + batch
    assert len(trainings) == 8


def test_a_domain_with_few_rows_takes_smaller_batches(
    dataset: Dataset, splits: Splits, trainings: list[Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets_module, "SMALLEST_BATCH", 2)
    found(dataset, splits, ticket_epochs=1.0, ticket_rounds=1, batch=4096)
    sizes = torch.bincount(splits.train.domain, minlength=4).tolist()
    for size, training in zip(sizes, trainings, strict=True):
        assert max(map(len, training.batches)) == max(2, size // STEPS_PER_PASS)


def test_trap_4_7_4_each_task_learns_its_own_label_only(
    dataset: Dataset, splits: Splits, trainings: list[Training]
) -> None:
    found(dataset, splits, ticket_unit="task")
    assert [set(training.tasks) for training in trainings] == [{0}, {0}, {1}, {1}]
    # a step for one task does not see the other's labels
    ends = []
    batch = next(splits.train.batches(0, 0, 32))
    for labels in (batch.labels, torch.stack([batch.labels[:, 0], 1 - batch.labels[:, 1]], 1)):
        cohort = Cohort.on(dataset, [MEMBER])
        cohort.step(dataclasses.replace(batch, labels=labels), task=0)
        ends.append(cohort.flat)
    assert torch.equal(*ends)


@pytest.mark.parametrize("unit", ["domain", "task", "network"])
def test_visited_rows_are_those_of_all_steps(
    dataset: Dataset, splits: Splits, unit: str, trainings: list[Training]
) -> None:
    result = found(dataset, splits, ticket_unit=unit, rewind=0.3)
    assert result.rows == sum(len(batch) for training in trainings for batch in training.batches)


def test_trap_4_7_4_every_task_sees_all_rows(dataset: Dataset, splits: Splits, trainings: list[Training]) -> None:
    found(dataset, splits, ticket_unit="task", ticket_epochs=1.0, ticket_rounds=1)
    every = sorted(map(tuple, splits.train.ids.tolist()))
    for training in trainings:
        assert sorted(tuple(row) for batch in training.batches for row in batch.ids.tolist()) == every
    # and so does the network that they share: a step moves the heads of both
    cohort = Cohort.on(dataset, [MEMBER])
    before = {name: view.clone() for name, view in cohort.network.layout.views(cohort.flat).items()}
    cohort.step(next(splits.train.batches(0, 0, 32)))
    heads = [name for name in before if name.startswith("head.") and name.endswith("weight")]
    after = cohort.network.layout.views(cohort.flat)
    assert len(heads) == len(TASKS)
    assert not any(torch.equal(before[name], after[name]) for name in heads)


@pytest.mark.parametrize("rounds", [1, 3])
def test_trap_4_7_7_every_round_prunes_what_it_has_trained(
    dataset: Dataset, splits: Splits, trainings: list[Training], rounds: int
) -> None:
    result = found(dataset, splits, ticket_unit="network", ticket_rounds=rounds, ticket_epochs=0.1)
    assert len(trainings) == rounds
    seen = [1.0 if training.masks is None else float(training.masks.float().mean()) for training in trainings]
    shares = [*seen, float(result.masks.float().mean())]
    assert all(later < earlier for earlier, later in itertools.pairwise(shares))


def test_alternating_batches_are_kept_to(dataset: Dataset, splits: Splits, trainings: list[Training]) -> None:
    found(dataset, splits, ticket_unit="network", order="alternating", rewind=0.5)
    for training in trainings:
        assert all(len(batch.segments.domain.unique()) == 1 for batch in training.batches)


def test_out_of_time_is_told_wherever_it_happens(
    dataset: Dataset, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutOfTime):
        find_tickets([MEMBER], splits, dataset, seed=SEED, deadline=0.0)
    with pytest.raises(OutOfTime):
        find_tickets([MEMBER.replace(rewind=0.5)], splits, dataset, seed=SEED, deadline=0.0)
    clock = itertools.count()
    monkeypatch.setattr(tickets_module.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(OutOfTime):
        find_tickets([MEMBER], splits, dataset, seed=SEED, deadline=10.0)  # in the midst of the rounds
    assert next(clock) == 12


@pytest.mark.parametrize("count", [0, 1, 32, 33, 600, 700])
def test_train_rows_stops_at_the_batch_that_reaches_the_count(dataset: Dataset, splits: Splits, count: int) -> None:
    cohort = Cohort.on(dataset, [MEMBER])
    train_rows(cohort, splits.train, count, seed=0, batch=32)
    assert count <= cohort.rows < count + 32
    train_rows(cohort, splits.train, 10, seed=0, batch=32)  # further rows, not rows in all
    assert count + 10 <= cohort.rows < count + 10 + 64


def test_train_rows_ends_where_there_is_no_row(dataset: Dataset, splits: Splits) -> None:
    cohort = Cohort.on(dataset, [MEMBER])
    train_rows(cohort, splits.train, 100, seed=0, batch=32, chosen=torch.zeros(ROWS, dtype=torch.bool))
    assert cohort.steps == 0


# training with masks


def present_units(batch: Batch) -> list[int]:
    present = [d for d in range(4) if bool((batch.segments.domain == d).any())]
    return list(range(4)) if bool((batch.segments.domain == 4).any()) else present


@pytest.mark.parametrize("averaging", [0.0, 0.9])
@pytest.mark.parametrize("unit", ["domain", "network"])
def test_trap_4_7_2_pruned_weights_never_move(dataset: Dataset, unit: str, averaging: float) -> None:
    data = fake_dataset(rows=300, unseen=0.1)
    member = Candidate(
        **TINY | {"width": 8, "averaging": averaging},
        blocks=2, wiring=full(2), keep_rate=0.3, ticket_unit=unit, weight_decay=0.5, learning_rate=0.02, rank=2,
    )  # fmt: skip
    cohort = random_cohort(data, [member])
    maskable = cohort.network.maskable
    units = cohort.network.units
    cohort.masks = (torch.rand(1, units, maskable.size, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    rows = resident(data, "valid")  # has rows of unknown domains
    draw = torch.Generator().manual_seed(0)
    lacking = frozen = 0

    def parts(flat: Tensor) -> Tensor:
        views = cohort.network.layout.views(flat)
        return torch.cat([views[name][0].flatten() for name in maskable.weights])

    for step in range(24):
        allowed = (torch.rand(5, generator=draw) < 0.5).nonzero()[:, 0] if step % 4 else torch.arange(5)
        numbers = torch.isin(rows.domain, allowed).nonzero()[:, 0]
        numbers = numbers[torch.randperm(len(numbers), generator=draw)[:12]]
        if not len(numbers):
            continue
        batch = rows.batch(numbers[rows.domain[numbers].argsort(stable=True)])
        units_here = present_units(batch) if unit == "domain" else [0]
        lacking += len(units_here) < 4
        kept = cohort.masks[0, units_here].amax(0) > 0
        before = [parts(t).clone() for t in (cohort.flat, cohort.dense.first, cohort.dense.second)]
        cohort.step(batch)
        after = [parts(t) for t in (cohort.flat, cohort.dense.first, cohort.dense.second)]
        for old, new in zip(before, after, strict=True):
            assert torch.equal(old[~kept], new[~kept])
            assert bool((old[kept] != new[kept]).any())
        # a frozen weight that has momentum would move by it
        frozen += int((before[1][~kept] != 0).sum())
    assert cohort.steps >= 20
    assert lacking >= 8
    if unit == "domain":
        assert frozen > 100
        never = cohort.masks[0].amax(0) == 0
        assert bool(never.any())
        assert float(parts(cohort.dense.second)[never].abs().max()) == 0


def test_more_patterns_of_domains_than_are_kept_change_nothing(
    dataset: Dataset, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for most in (64, 1):
        monkeypatch.setattr("autoctr.training.cohort.MOST_PATTERNS", most)
        masks = found(dataset, splits).masks[None]
        cohort = Cohort.on(dataset, [MEMBER], masks=masks)
        train_rows(cohort, splits.train, 600, seed=0, batch=8)
        ends.append(cohort.flat)
        assert len(cohort._movable) <= most
    assert torch.equal(*ends)


def test_a_ticketed_fit_learns(dataset: Dataset, splits: Splits) -> None:
    result = found(dataset, splits, rewind=0.5)
    cohort = Cohort.on(dataset, [MEMBER], start=[result.start], masks=result.masks[None])
    before = float(cohort.step(next(splits.train.batches(0, 0, 600)))[0])
    train_rows(cohort, splits.train, 2400, seed=0, batch=32)
    assert float(cohort.step(next(splits.train.batches(0, 0, 600)))[0]) < before - 0.02


# on disk


@pytest.mark.parametrize("unit", ["domain", "task", "network"])
def test_a_checkpoint_brings_the_tickets_back(dataset: Dataset, splits: Splits, tmp_path: Path, unit: str) -> None:
    result = found(dataset, splits, ticket_unit=unit, ticket_epochs=0.1)
    cohort = Cohort.on(dataset, [MEMBER.replace(ticket_unit=unit)], start=[result.start], masks=result.masks[None])
    train_rows(cohort, splits.train, 200, seed=0, batch=32)
    path = tmp_path / "member.safetensors"
    checkpoint.save(path, cohort.network, cohort.weights())
    again = checkpoint.load(path, dataset)
    assert again.masks is not None
    assert cohort.masks is not None
    assert torch.equal(again.masks, cohort.masks)
    assert torch.equal(again.logits(splits.valid), cohort.logits(splits.valid))
    unmasked = dataclasses.replace(cohort.weights(), masks=None)
    assert not torch.allclose(cohort.logits(splits.valid, unmasked), cohort.logits(splits.valid))


def test_masks_of_another_network_are_refused(dataset: Dataset, splits: Splits, tmp_path: Path) -> None:
    cohort = Cohort.on(dataset, [MEMBER], masks=found(dataset, splits, ticket_unit="network").masks[None])
    path = tmp_path / "member.safetensors"
    checkpoint.save(path, cohort.network, cohort.weights())
    with pytest.raises(UserError, match="masks has the shape"):
        checkpoint.load(path, dataset)


def test_a_ticketed_member_without_masks_is_refused(dataset: Dataset, splits: Splits, tmp_path: Path) -> None:
    cohort = Cohort.on(dataset, [MEMBER], masks=found(dataset, splits, ticket_epochs=0.1).masks[None])
    path = tmp_path / "member.safetensors"
    checkpoint.save(path, cohort.network, dataclasses.replace(cohort.weights(), masks=None))
    with pytest.raises(UserError, match="masks"):
        checkpoint.load(path, dataset)


# stability


def test_two_trainings_with_the_same_order_have_no_barrier(dataset: Dataset, splits: Splits) -> None:
    start = Cohort.on(dataset, [MEMBER])
    assert error_barrier(start.members[0], splits, dataset, seeds=(4, 4), epochs=1.5) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("norm", "rate", "epochs"), [("none", 0.05, 8), ("batch", 0.02, 4)])
def test_the_barrier_equals_the_reference(
    dataset: Dataset, splits: Splits, masked: bool, norm: str, rate: float, epochs: float
) -> None:
    member = MEMBER.replace(norm=norm, learning_rate=rate, embedding_rate=1.0, dropout=0.0)
    start = Cohort.on(dataset, [member])
    masks = found(dataset, splits, ticket_epochs=0.1).masks[None] if masked else None
    told = error_barrier(start.members[0], splits, dataset, seeds=(1, 2), epochs=epochs, masks=masks, points=5)
    ends = []
    for seed in (1, 2):
        cohort = Cohort.on(dataset, [member.replace(averaging=0.0)], start=start, masks=masks)
        train_rows(cohort, splits.train, math.ceil(epochs * ROWS), seed=seed, batch=32)
        ends.append(cohort)
    losses = {}
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        a, b = (cohort.weights() for cohort in ends)
        mixed = [(1 - t) * x + t * y for x, y in ((a.flat, b.flat), (a.table, b.table), (a.running, b.running))]
        logits = ends[0].logits(splits.valid, Weights(*mixed, a.architecture, a.progress, a.masks))[0]
        losses[t] = float(
            torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), splits.valid.labels.double())
        )
    expected = reference.error_barrier(losses, (losses[0.0], losses[1.0]))
    assert told == pytest.approx(expected, abs=1e-6)
    assert told >= 0
    assert masked or told > 1e-3


def test_a_barrier_leaves_its_start_alone(dataset: Dataset, splits: Splits) -> None:
    start = Cohort.on(dataset, [MEMBER])
    before = start.weights().copy()
    error_barrier(start.members[0], splits, dataset, seeds=(1, 2), epochs=0.5)
    assert torch.equal(start.flat, before.flat)
    assert torch.equal(start.table, before.table)


def test_the_ramp_of_sparsity_goes_on_from_theta_k(dataset: Dataset, splits: Splits) -> None:
    result = found(dataset, splits, rewind=0.5, sparsity=0.3, ticket_epochs=0.1)
    assert result.start.cohort.progress == pytest.approx(0.5, abs=0.05)
    stage_2 = Cohort.on(dataset, [MEMBER.replace(sparsity=0.3)], start=[result.start], masks=result.masks[None])
    assert stage_2.progress == result.start.cohort.progress
    assert ramp_rows(ROWS) == ROWS
