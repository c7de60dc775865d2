"""Members that leave a cohort and join another go on as if they had always been alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_data import fake_dataset
from model.networks import resident

from autoctr.data.dataset import Dataset
from autoctr.data.statistics import Kind
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort, Member, frozen_tables
from autoctr.training.joining import joined
from training.cohorts import assert_same, cohort_of, compare, discrete_members, relaxed_members, train

BEFORE, AFTER, END = 21, 43, 60  # none of them at the end of a pass, which has 8 steps


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=240, kinds=(Kind.MULTI, Kind.NUMERIC), unseen=0.1)


def masked(dataset: Dataset, members: list[Candidate], numbers: list[int]) -> Cohort:
    """A cohort of some of the members, each with tickets of its own."""
    cohort = cohort_of(dataset, [members[number] for number in numbers], torch.float64)
    network = cohort.network
    cohort.masks = torch.ones(len(numbers), network.units, network.maskable.size, dtype=torch.float64)
    for k, number in enumerate(numbers):
        for name, view in network.maskable.views(cohort.masks[k]).items():
            generator = torch.Generator().manual_seed(100 * number + len(name) + ord(name[1]))
            view.copy_((torch.rand(view.shape, generator=generator) < 0.6).double())
    return cohort


def assert_alike(many: Cohort, member: int, alone: Cohort) -> None:
    """All that a member takes along is what the member alone has."""
    for mine, theirs in (
        (many.flat, alone.flat),
        (many.dense.first, alone.dense.first),
        (many.dense.second, alone.dense.second),
    ):
        assert_same(many, alone, member, (mine, theirs), 1e-9)
    for mine, theirs in (
        (many.table, alone.table),
        (many.sparse.first, alone.sparse.first),
        (many.sparse.second, alone.sparse.second),
        (many.weights().table, alone.weights().table),
    ):
        compare("rows", mine[:, member], theirs[:, 0], 1e-9)
    for mine, theirs in (
        (many.architecture, alone.architecture),
        (many.wiring.first, alone.wiring.first),
        (many.wiring.second, alone.wiring.second),
    ):
        compare("gates", mine[member], theirs[0], 1e-9)
    assert_same(many, alone, member, (many.weights().flat, alone.weights().flat), 1e-9)
    assert (many.steps, many.rows, many.wiring_steps, many.progress) == (
        alone.steps,
        alone.rows,
        alone.wiring_steps,
        alone.progress,
    )


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("discrete", {}),
        ("discrete", {"norm": "batch", "cross": "lowrank", "pruner_input": "domain", "input_pruner": True}),
        ("tickets", {}),
        ("supernet", {}),
        ("supernet", {"norm": "batch", "cross": "vector"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "plain",
)
def test_members_of_two_cohorts_go_on_together_as_alone(dataset: Dataset, kind: str, shape: dict[str, Any]) -> None:
    wire = kind == "supernet"
    members = relaxed_members(shape) if wire else discrete_members(shape)
    rows, valid = resident(dataset, "train"), resident(dataset)

    def cohort(numbers: list[int]) -> Cohort:
        if kind == "tickets":
            return masked(dataset, members, numbers)
        return cohort_of(dataset, [members[number] for number in numbers], torch.float64)

    first, second = cohort([0, 1, 2, 4]), cohort([3, 5, 6, 7])
    for part in (first, second):
        train(part, rows, BEFORE, wire)
    chosen = [(1, Member(first, 1)), (7, Member(second, 3)), (0, Member(first, 0)), (5, Member(second, 1))]
    together = joined([member for _, member in chosen], dataset)
    assert together.network.candidates == tuple(members[number] for number, _ in chosen)
    train(together, rows, AFTER, wire)
    logits = together.logits(valid)
    left = joined([together.members[1]], dataset)
    train(left, rows, END, wire)
    for place, (number, _) in enumerate(chosen):
        alone = cohort([number])
        train(alone, rows, AFTER, wire)
        assert_alike(together, place, alone)
        compare("logits", logits[place], alone.logits(valid)[0], 1e-9)
        if place == 1:
            train(alone, rows, END, wire)
            assert_alike(left, 0, alone)
            if left.running.shape == alone.running.shape:
                compare("running", left.running, alone.running, 1e-9)


def test_a_member_takes_its_average_to_members_without_one_and_back(dataset: Dataset) -> None:
    members = discrete_members({})
    rows = resident(dataset, "train")
    plain, averaged = (cohort_of(dataset, [members[number]], torch.float64) for number in (0, 4))
    assert plain.average is None
    for cohort in (plain, averaged):
        train(cohort, rows, BEFORE, False)
    together = joined([plain.members[0], averaged.members[0]], dataset)
    for cohort in (plain, averaged, together):
        train(cohort, rows, AFTER, False)
    assert_alike(together, 0, plain)
    assert_alike(together, 1, averaged)
    assert joined([together.members[0]], dataset).average is None


def test_adapters_alone_go_on_alone(dataset: Dataset) -> None:
    members = [member for member in discrete_members({}) if member.rank]
    rows = resident(dataset, "train")

    def cohort(candidates: list[Candidate]) -> Cohort:
        tables = frozen_tables(dataset)
        return Cohort(dataset.statistics, candidates, tables, ramp=1000, dtype=torch.float64, adapters_only=True)

    together, alone = cohort(members), cohort([members[2]])
    for part in (together, alone):
        train(part, rows, BEFORE, False)
    left = joined([together.members[2]], dataset)
    for part in (left, alone):
        train(part, rows, AFTER, False)
    assert_alike(left, 0, alone)


def test_only_members_of_one_shape_and_step_join(dataset: Dataset) -> None:
    members = discrete_members({})
    rows = resident(dataset, "train")
    first, second = (cohort_of(dataset, [member], torch.float64) for member in members[:2])
    train(first, rows, 3, False)
    with pytest.raises(ValueError, match=r"agree in steps, not \[0, 3\]"):
        joined([first.members[0], second.members[0]], dataset)
    train(second, rows, 3, False)
    tickets = masked(dataset, members, [1])
    train(tickets, rows, 3, False)
    with pytest.raises(ValueError, match="agree in tickets"):
        joined([first.members[0], tickets.members[0]], dataset)
    wider = cohort_of(dataset, [members[1].replace(width=4)], torch.float64)
    train(wider, rows, 3, False)
    with pytest.raises(ValueError, match="agree in width"):
        joined([first.members[0], wider.members[0]], dataset)
    ready = cohort_of(dataset, [members[1]], torch.float64)
    train(ready, rows, 3, False)
    ready.ramped = 500
    with pytest.raises(ValueError, match="agree in ramped"):
        joined([first.members[0], ready.members[0]], dataset)
