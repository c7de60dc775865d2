"""A study that dies at any step goes on from its last state, and ends as one that never died."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from small_study import SPACE, remembered, search_small, write_space

from autoctr.search.run import resume
from autoctr.search.study import Study
from autoctr.training.cohort import Cohort
from autoctr.training.keeping import Keeper
from search.conftest import make_small

TRIALS, SEED, GAP, PLACES = 9, 2, 7, 4
#: Every stage: supernets that share batches and that do not, warm starts, tickets, adapters after the shared network.
RICH = (
    SPACE.replace("epochs: 3", "epochs: 4, ticket_epochs: 0.5, ticket_rounds: 2").replace("parallel, ", "")
    + "  keep_rate: {choices: [1, 0.5]}\n  warm_start: {choices: [0, 0.5]}\n  averaging: {choices: [0, 0.9]}\n"
    + "  lora_schedule: {choices: [joint, frozen]}\n"
)


class Killed(BaseException):
    """The process is no more."""


@dataclasses.dataclass
class Steps:
    """How many training steps were made, and after which one the process dies."""

    done: int = 0
    last: int = -1


@pytest.fixture(scope="module")
def space_file(shared: Path) -> Path:
    return write_space(shared, RICH, "rich")


def counting(patch: pytest.MonkeyPatch) -> Steps:
    """Count steps, and write a state after every few of them."""
    steps, inner = Steps(), Cohort.step

    def step(*args: Any, **options: Any) -> Any:
        result = inner(*args, **options)
        steps.done += 1
        if steps.done == steps.last:
            raise Killed
        return result

    patch.setattr(Cohort, "step", step)
    patch.setattr(Keeper, "due", property(lambda keeper: keeper.folder is not None and steps.done % GAP == 0))
    return steps


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return counting(monkeypatch)


@pytest.fixture(scope="module", params=[1, 3])
def whole(
    request: pytest.FixtureRequest, shared: Path, space_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Study, int]:
    """The study that never dies, alone and in cohorts, and how many steps it made."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, shared)
        counted = counting(patch)
        study = begun(tmp_path_factory.mktemp("whole"), space_file, request.param)
    candidates = [record.candidate for record in study.records()]
    for name, off in (("keep_rate", 1.0), ("warm_start", 0.0), ("rank", 0), ("architecture", "parallel")):
        assert {getattr(candidate, name) for candidate in candidates} > {off}
    return study, counted.done


def begun(root: Path, space: Path, cohort: int | None) -> Study:
    return search_small(root, space, trials=TRIALS, seed=SEED, cohort=cohort)


@pytest.mark.parametrize("place", range(PLACES))
def test_a_study_that_dies_at_any_step_goes_on_from_there(
    place: int, whole: tuple[Study, int], space_file: Path, tmp_path: Path, steps: Steps
) -> None:
    study, total = whole
    steps.last = 5 + place * (total - 10) // (PLACES - 1)
    with pytest.raises(Killed):
        begun(tmp_path, space_file, study.settings.cohort)
    steps.last = -1
    again = resume("s", root=tmp_path)
    assert remembered(again) == remembered(study)
    assert 0 <= steps.done - total <= GAP
    assert not list((tmp_path / "s" / "running").rglob("*.*"))


def test_dying_again_and_again(whole: tuple[Study, int], space_file: Path, tmp_path: Path, steps: Steps) -> None:
    study, total = whole
    steps.last, deaths = 40, 1
    with pytest.raises(Killed):
        begun(tmp_path, space_file, study.settings.cohort)
    for gap in (1, 2, 30, 13, 55, 90, 20, 41, 1000):
        steps.last = steps.done + gap
        try:
            again = resume("s", root=tmp_path)
        except Killed:
            deaths += 1
            continue
        assert remembered(again) == remembered(study)
        assert steps.done - total <= GAP * deaths
        return
    pytest.fail("never ended")


def test_a_damaged_state_costs_one_interval_more(
    whole: tuple[Study, int], space_file: Path, tmp_path: Path, steps: Steps
) -> None:
    study, total = whole
    steps.last = 40
    with pytest.raises(Killed):
        begun(tmp_path, space_file, study.settings.cohort)
    newest = max((tmp_path / "s" / "running" / "0").glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-9])
    steps.last = -1
    assert remembered(resume("s", root=tmp_path)) == remembered(study)
    assert steps.done - total <= 2 * GAP
