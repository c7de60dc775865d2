"""The outer loop: cohorts in a study, pausing and coming back, and what fails alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_study import SPACE, remembered, search_small, write_space

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.model.network import SHAPE_FIELDS
from autoctr.search import cohort_size, engine
from autoctr.search.events import Watcher
from autoctr.search.record import Record
from autoctr.search.run import load_study, resume
from autoctr.search.rungs import is_weak
from autoctr.search.study import Study
from autoctr.search.trial import Laboratory
from autoctr.training import state
from autoctr.training.cohort import Cohort
from autoctr.training.fit import Fit, Rung

TRIALS = 6
LONGER = SPACE.replace("epochs: 3", "epochs: 5")
FIXED = LONGER.replace("[parallel, inherit, learn]", "[parallel, stacked]")


@pytest.fixture(scope="module")
def space_file(shared: Path) -> Path:
    """Without supernets, so that the second score is at 2 passes."""
    return write_space(shared, FIXED, "fixed")


@pytest.fixture(scope="module")
def learning(shared: Path) -> Path:
    return write_space(shared, LONGER, "longer")


class Diary(Watcher):
    """What happened, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def stage(self, number: int, stage: str) -> None:
        self.events.append((stage, number))

    def rung(self, number: int, rung: Rung, value: float, best: Record | None) -> None:
        self.events.append(("rung", number))

    def paused(self, record: Record) -> None:
        self.events.append(("paused", record.number))

    def finished(self, record: Record, best: Record | None) -> None:
        self.events.append((record.state, record.number))


def once_weak(number: int, until: int) -> Callable[..., bool]:
    """Trial ``number`` is weak at its second score, until ``until`` trials have begun."""

    def weak(rows: int, value: float, others: Sequence[Record], every: int, direction: Any) -> bool:
        mine = number not in [record.number for record in others]
        return mine and rows // every == 2 and len(others) < until

    return weak


def test_a_trial_that_pauses_and_comes_back_ends_as_if_it_had_not(
    space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "is_weak", lambda *_: False)
    whole = search_small(tmp_path / "whole", space_file, trials=3, cohort=1)
    monkeypatch.setattr(engine, "is_weak", once_weak(1, 2))
    diary = Diary()
    study = search_small(tmp_path / "paused", space_file, trials=3, cohort=1, watcher=diary)
    order = [event for event in diary.events if event[0] in ("paused", "goes on", "COMPLETE")]
    assert order[:4] == [("COMPLETE", 0), ("paused", 1), ("COMPLETE", 2), ("goes on", 1)]
    assert order[4] == ("COMPLETE", 1)
    assert remembered(study)[:2] == remembered(whole)[:2]
    assert study.kept() == whole.kept()
    assert list((study.folder / "paused").iterdir()) == []


def test_a_paused_trial_that_stays_weak_is_pruned_in_the_end(
    space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "is_weak", once_weak(1, 99))
    study = search_small(tmp_path, space_file, trials=3, cohort=1)
    records = study.records()
    assert [record.state for record in records] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert records[1].reason == "weak"
    assert records[1].valid is not None
    assert len(records[1].rungs) == 2
    assert records[1].value == records[1].rungs[-1][1]
    assert study.kept() == [0, 2]
    assert list((study.folder / "paused").iterdir()) == []


@pytest.mark.parametrize("moment", ["paused", "goes on", "rung after it goes on"])
def test_a_study_that_stops_while_a_trial_is_paused_ends_as_one_that_did_not(
    moment: str, space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "is_weak", once_weak(1, 2))
    whole = search_small(tmp_path / "whole", space_file, trials=4, cohort=1)

    class Stop(Diary):
        def stage(self, number: int, stage: str) -> None:
            super().stage(number, stage)
            if stage == moment:
                raise KeyboardInterrupt

        def rung(self, *arguments: Any) -> None:
            super().rung(*arguments)
            if moment.startswith("rung") and ("goes on", 1) in self.events:
                raise KeyboardInterrupt

        def paused(self, record: Record) -> None:
            if moment == "paused":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_small(tmp_path / "stopped", space_file, trials=4, cohort=1, watcher=Stop())
    stopped = load_study("s", root=tmp_path / "stopped")
    assert stopped.records()[1].state == "RUNNING"
    assert stopped.state_path(1).exists()
    study = resume("s", root=tmp_path / "stopped")
    assert remembered(study) == remembered(whole)
    assert not study.state_path(1).exists()


def once(inner: Callable[..., Any], when: Callable[..., bool], *, before: bool = False) -> Callable[..., Any]:
    """``inner``, interrupted the first time that ``when`` holds for its arguments."""
    done: list[bool] = []

    def outer(*arguments: Any, **options: Any) -> Any:
        stops = not done and when(*arguments)
        done.extend([True] * stops)
        if stops and before:
            raise KeyboardInterrupt
        result = inner(*arguments, **options)
        if stops:
            raise KeyboardInterrupt
        return result

    return outer


@pytest.mark.parametrize("moment", ["before its state is written", "after it was given up", "after the last was told"])
def test_a_study_that_stops_between_two_writes_ends_as_one_that_did_not(
    moment: str, space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "is_weak", once_weak(1, 2 if moment.startswith("before") else 99))
    whole = search_small(tmp_path / "whole", space_file, trials=4, cohort=1)
    with monkeypatch.context() as patch:
        if moment.startswith("before"):
            patch.setattr(state, "save", once(state.save, lambda *_: True, before=True))
        else:
            number = 1 if "given up" in moment else 3
            patch.setattr(Study, "tell", once(Study.tell, lambda study, trial, *_: trial.number == number))
        with pytest.raises(KeyboardInterrupt):
            search_small(tmp_path / "stopped", space_file, trials=4, cohort=1)
    study = resume("s", root=tmp_path / "stopped")
    assert remembered(study) == remembered(whole)
    assert study.kept() == whole.kept()
    assert list((study.folder / "paused").iterdir()) == []


def test_a_damaged_state_makes_its_trial_start_again(
    space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "is_weak", once_weak(1, 2))
    whole = search_small(tmp_path / "whole", space_file, trials=3, cohort=1)

    class Damage(Diary):
        def finished(self, record: Record, best: Record | None) -> None:
            super().finished(record, best)
            if record.number == 2:
                path = tmp_path / "damaged" / "s" / "paused" / "00001.safetensors"
                path.write_bytes(path.read_bytes()[:-100])

    # not weak a second time
    monkeypatch.setattr(engine, "is_weak", lambda *a: once_weak(1, 2)(*a) and len(a[2]) < 2)
    diary = Damage()
    study = search_small(tmp_path / "damaged", space_file, trials=3, cohort=1, watcher=diary)
    assert any("trial 1 starts again" in note for note in diary.notes)
    assert remembered(study)[1] == remembered(whole)[1]


def test_only_so_many_trials_stay_paused(space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_PAUSED", 1)
    monkeypatch.setattr(engine, "is_weak", lambda rows, value, others, every, direction: rows // every == 2)

    class Stop(Diary):
        def started(self, number: int, candidate: Candidate) -> None:
            if number == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_small(tmp_path, space_file, trials=9, cohort=1, watcher=Stop())
    study = load_study("s", root=tmp_path)
    records = study.records()
    assert [record.state for record in records[1:4]].count("PRUNED") == 2
    (paused,) = [record for record in records[1:4] if record.state == "RUNNING"]
    assert paused.value == max(record.value for record in records[1:4] if record.value is not None)
    assert [path.stem for path in (study.folder / "paused").iterdir()] == [f"{paused.number:05d}"]


@pytest.fixture(scope="module")
def together(shared: Path, learning: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[int]]:
    """A study of cohorts, and how many members trained from score to score."""
    from search.conftest import make_small

    sizes: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, shared)
        inner = Fit.advance
        patch.setattr(Fit, "advance", lambda fit, *a: sizes.append(fit.cohort.network.members) or inner(fit, *a))
        study = search_small(tmp_path_factory.mktemp("together"), learning, trials=10, cohort=4)
    return study, sizes


def test_trials_of_a_cohort_score_as_they_do_alone(
    together: tuple[Any, list[int]], dataset: Dataset, tmp_path: Path
) -> None:
    study, sizes = together
    assert max(sizes) >= 3
    records = study.records()
    assert [record.number for record in records] == list(range(10))
    laboratory = Laboratory(dataset, metric="wauc", seed=0, device=torch.device("cpu"), folder=tmp_path)
    compared = 0
    for record in records:
        if record.state != "COMPLETE" or record.number in (0, 1):
            continue
        proposed = study.database.trials[record.number].user_attrs["candidate"]
        alone = laboratory.run(Candidate.from_dict(json.loads(proposed)))
        assert record.value == pytest.approx(alone.fitted.best.wauc, abs=2e-3)
        assert record.candidate.wiring == alone.candidate.wiring
        compared += 1
    assert compared >= 2


def test_trials_of_a_cohort_share_their_shape_and_members_leave_it(together: tuple[Any, list[int]]) -> None:
    study, sizes = together
    records = study.records()
    for group in (records[4:8], records[8:]):
        shapes = {tuple(getattr(record.candidate, name) for name in SHAPE_FIELDS) for record in group}
        assert len(shapes) == 1
    assert len({record.candidate.learning_rate for record in records[4:8]}) > 2
    assert {record.state for record in records} <= {"COMPLETE", "PRUNED"}
    first = sizes.index(max(sizes))
    assert 1 <= sizes[first + 1] <= sizes[first]
    assert any(0 < later < sooner for sooner, later in itertools.pairwise(sizes[first : first + 6]))


def test_a_cohort_that_does_not_fit_into_memory_is_halved(
    space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Cohort.step

    def step(cohort: Cohort, *arguments: Any, **options: Any) -> Any:
        if cohort.network.members > 2 and not cohort.network.relaxed:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(cohort, *arguments, **options)

    monkeypatch.setattr(Cohort, "step", step)
    diary = Diary()
    study = search_small(tmp_path, space_file, trials=9, cohort=5, watcher=diary)
    assert {record.state for record in study.records()} <= {"COMPLETE", "PRUNED"}
    assert any("do not fit into memory together; cohorts are now of" in note for note in diary.notes)


def test_a_candidate_that_does_not_fit_alone_is_infeasible_and_the_sampler_learns_it(
    space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Laboratory.begin

    def begin(laboratory: Laboratory, group: Any) -> Fit:
        if any(ready.candidate.width == 16 for ready in group):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(laboratory, group)

    monkeypatch.setattr(Laboratory, "begin", begin)
    study = search_small(tmp_path, space_file, trials=12, cohort=1)
    records = study.records()
    failed = [record for record in records if record.state == "FAIL"]
    assert failed
    assert len(records) == 12
    assert {record.candidate.width for record in failed} == {16}
    assert all(not record.feasible and record.reason == "out of memory: CUDA out of memory" for record in failed)
    assert all(record.feasible for record in records if record.state != "FAIL")


def test_want_of_memory_while_closing_up_is_no_fault_of_the_members(
    space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = iter([True, True])
    inner = engine.joined

    def joined(members: Any, dataset: Dataset) -> Cohort:
        if next(failing, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(members, dataset)

    monkeypatch.setattr(engine, "joined", joined)
    study = search_small(tmp_path, space_file, trials=10, cohort=4)
    assert next(failing, None) is None  # it did fail
    assert {record.state for record in study.records()} <= {"COMPLETE", "PRUNED"}


def test_a_cohort_ends_where_its_shape_has_nothing_new(shared: Path, tmp_path: Path) -> None:
    text = (
        "fix: {epochs: 1, batch: 512, embedding: 4}\nvary: {width: {choices: [8, 16, 24]}, blocks: {choices: [1, 2]}}"
    )
    study = search_small(tmp_path, write_space(shared, text, "shapes"), trials=6, cohort=4)
    shapes = [(record.candidate.width, record.candidate.blocks) for record in study.records()[1:]]
    assert len(set(shapes)) == len(shapes) == 5


def test_a_member_that_diverges_ends_alone(space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Laboratory.begin

    def begin(laboratory: Laboratory, group: Any) -> Fit:
        fit = inner(laboratory, group)
        if len(group) > 1:
            fit.cohort.flat[0] = torch.nan
        return fit

    monkeypatch.setattr(Laboratory, "begin", begin)
    study = search_small(tmp_path, space_file, trials=6, cohort=4)
    reasons = [record.reason for record in study.records() if record.state == "FAIL"]
    assert reasons
    assert set(reasons) == {"diverged"}
    assert sum(record.state == "COMPLETE" for record in study.records()) >= 3


def test_the_size_doubles_as_long_as_it_pays() -> None:
    assert cohort_size.largest_worthwhile(lambda size: float(min(size, 8))) == 8
    assert cohort_size.largest_worthwhile(lambda size: 0.0 if size > 4 else float(size)) == 4
    assert cohort_size.largest_worthwhile(float) == cohort_size.LARGEST
    assert cohort_size.largest_worthwhile(lambda size: 1.0) == 1
    assert cohort_size.largest_worthwhile(lambda size: 0.0) == 1


def test_auto_is_one_on_a_cpu_and_kept_with_the_study(space_file: Path, tmp_path: Path) -> None:
    study = search_small(tmp_path, space_file, trials=1)
    assert study.settings.cohort is None
    assert study.database.user_attrs["cohort"] == 1


@pytest.mark.parametrize("size", [0, -2, 5000])
def test_a_size_that_is_none_is_refused(size: int, space_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cohort is {size}; legal are auto and 1 to 1024"):
        search_small(tmp_path, space_file, cohort=size)


def test_a_weak_trial_may_become_average(space_file: Path) -> None:
    def scored(*values: float) -> list[Any]:
        return [_Scored(value) for value in values]

    assert is_weak(2000, 0.6, scored(0.7, 0.71), 1000, "maximize")
    assert not is_weak(2000, 0.6, scored(0.7, 0.71, 0.5, 0.55, 0.4), 1000, "maximize")


class _Scored:
    def __init__(self, value: float) -> None:
        self.value, self.rows, self.state = value, 2000, "PRUNED"

    def best_until(self, rows: int, direction: str) -> float:
        return self.value
