"""Candidates of one shape that go through their stages together end as they do alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fake_data import fake_dataset

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import FIXED
from autoctr.model.candidate import Candidate
from autoctr.search import oneshot
from autoctr.search import trial as trial_module
from autoctr.search.trial import Laboratory, Outcome, Preparation, in_groups
from autoctr.training.cohort import Cohort
from autoctr.training.fit import OutOfTime
from search.candidates import LEARN, MEMBER, TICKETS

MEMBERS = [
    MEMBER,
    MEMBER.replace(wiring=FIXED["stacked"](2), rank=3, learning_rate=0.01, epochs=2),
    MEMBER.replace(rank=2, rank_tilt=1.0, lora_schedule="frozen", averaging=0.0),
    MEMBER.replace(**LEARN, dropout=0.3),
    MEMBER.replace(**LEARN, rank=2, sparsity=0.3, retrain="supernet"),
    MEMBER.replace(**TICKETS),
    MEMBER.replace(**TICKETS | {"keep_rate": 0.7, "ticket_ranking": "layer"}, wiring=FIXED["full"](2), rank=4),
    MEMBER.replace(**TICKETS, wiring=FIXED["stacked"](2), warm_start=0.5, truncate=True, rank=2),
    MEMBER.replace(warm_start=0.5, sparsity=0.4, pruner_input="domain"),
    MEMBER.replace(warm_start=0.5, weight_decay=0.1),
]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=500)


def together(laboratory: Laboratory, candidates: list[Candidate]) -> tuple[list[Outcome], list[int]]:
    """Every candidate's outcome, and the sizes of the cohorts of the final fits."""
    found: dict[int, Outcome] = {}
    sizes: list[int] = []
    waiting = dict(enumerate(laboratory.prepare(candidates)))
    while waiting:
        first = next(iter(waiting.values()))
        group = [number for number, ready in waiting.items() if ready.shape == first.shape]
        ready = [waiting.pop(number) for number in group]
        sizes.append(len(group))
        run = laboratory.begin(ready)
        while not all(standing.ended for standing in run.standings):
            assert run.advance()
        for number, before, standing in zip(group, ready, run.standings, strict=True):
            following = laboratory.following(before, standing)
            if following is None:
                found[number] = laboratory.finish(before, standing)
            else:
                waiting[number] = following
    return [found[number] for number in range(len(candidates))], sizes


def test_every_stage_together_is_every_stage_alone(
    new: Callable[[], Laboratory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oneshot, "FEWEST_STEPS", 30)
    counts: list[tuple[str, int]] = []

    def counted(name: str) -> None:
        inner = getattr(trial_module, name)

        def call(first: Any, *arguments: Any, **options: Any) -> Any:
            counts.append((name, first.network.members if isinstance(first, Cohort) else len(first)))
            return inner(first, *arguments, **options)

        monkeypatch.setattr(trial_module, name, call)

    for name in ("train_supernets", "find_tickets", "train_rows"):
        counted(name)
    outcomes, sizes = together(new(), MEMBERS)
    assert max(sizes) >= 4
    assert sum(sizes) == len(MEMBERS) + 1  # the frozen schedule has two fits
    assert ("train_supernets", 2) in counts
    assert ("find_tickets", 2) in counts
    assert ("train_rows", 2) in counts
    for candidate, outcome in zip(MEMBERS, outcomes, strict=True):
        alone = new().run(candidate)
        assert outcome.candidate.wiring == alone.candidate.wiring
        assert [rung.rows for rung in outcome.fitted.rungs] == [rung.rows for rung in alone.fitted.rungs]
        assert outcome.fitted.reason == alone.fitted.reason
        for ours, theirs in zip(outcome.fitted.rungs, alone.fitted.rungs, strict=True):
            assert ours.scores.value("wauc") == pytest.approx(theirs.scores.value("wauc"), abs=2e-3)
            assert ours.scores.value("logloss") == pytest.approx(theirs.scores.value("logloss"), abs=2e-3)
        assert outcome.kept == alone.kept
        assert outcome.multiply_adds["dense"] == alone.multiply_adds["dense"]
        names = outcome.cohort.network.layout.weights
        assert list(names) == list(alone.cohort.network.layout.weights)


def test_a_group_that_fails_is_halved_until_the_culprit_is_alone() -> None:
    items = [Preparation(MEMBER.replace(seed=number)) for number in range(6)]
    other = Preparation(MEMBER.replace(width=4))
    tried: list[list[int]] = []

    def work(group: list[Preparation]) -> None:
        tried.append([ready.candidate.seed for ready in group])
        if len(group) > 2:
            raise torch.OutOfMemoryError("out of memory")
        if any(ready.candidate.seed == 4 for ready in group):
            raise ValueError("four")
        for ready in group:
            ready.visited += 1

    in_groups([*items, other], (), work)
    assert tried[:3] == [[0, 1, 2, 3, 4, 5], [0, 1, 2], [0]]
    assert [ready.visited for ready in items] == [1, 1, 1, 1, 0, 1]
    assert [type(ready.error) for ready in items] == [type(None)] * 4 + [ValueError, type(None)]
    assert tried[-1] == [other.candidate.seed]
    assert other.visited == 1


def test_the_deadline_ends_all_stages(new: Callable[[], Laboratory]) -> None:
    for candidate in (MEMBERS[3], MEMBERS[5], MEMBERS[9]):
        with pytest.raises(OutOfTime):
            new().prepare([MEMBER, candidate], deadline=0.0)
