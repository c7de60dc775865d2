"""Who holds a slot of a study, and what becomes of it when a worker dies, stands still, or is on another machine."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_study import search_small

from autoctr.report import study_text
from autoctr.search import lease
from autoctr.search.lease import Holder, Lease, LeaseLost, began, this_machine
from autoctr.search.run import load_study
from autoctr.search.study import Study


@pytest.fixture
def study(tmp_path: Path, space_file: Path) -> Study:
    """A study of one trial, in a database that workers of other machines could reach."""
    return search_small(tmp_path, space_file, trials=1, storage=f"sqlite:///{tmp_path / 'shared.db'}")


def another(study: Study) -> Study:
    """The study as another worker opens it."""
    return load_study(study.name, root=study.folder.parent, storage=study.storage)


def as_if(study: Study, slot: int, **changed: object) -> Holder:
    """Change what is told of a slot's holder."""
    holder = dataclasses.replace(study.holders()[slot], **changed)  # type: ignore[arg-type]
    study.set_holder(slot, holder)
    return holder


def test_each_worker_gets_the_lowest_free_slot_and_gives_it_back(study: Study) -> None:
    with Lease(study) as first, Lease(another(study)) as second:
        assert (first.slot, second.slot) == (0, 1)
        assert len(study.others_alive()) == 2
        assert f"at work: 2 workers on {os.uname().nodename}" in study_text(study)
    assert study.holders() == {}
    assert "at work" not in study_text(study)
    with another(study).at_work() as again:
        assert again.slot == 0


def test_a_dead_process_of_this_machine_is_known_at_once(study: Study) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with Lease(study):
        as_if(study, 0, process=process.pid, began=began(process.pid), until=0.0)
        (holder,) = study.others_alive()
        assert holder.process == process.pid
        process.kill()
        deadline = time.monotonic() + 5
        while study.others_alive() and time.monotonic() < deadline:  # a zombie is dead as well
            time.sleep(0.01)
        assert study.others_alive() == []
        with Lease(another(study)) as heir:
            assert heir.slot == 0
    process.wait()


def test_a_number_that_another_process_has_now_is_no_sign_of_life(study: Study) -> None:
    with Lease(study):
        as_if(study, 0, began=1.5)
        assert began(os.getpid()) != 1.5
        assert study.others_alive() == []


@pytest.mark.parametrize(("left", "slot"), [(30.0, 1), (-0.1, 0)])
def test_elsewhere_the_lease_decides(left: float, slot: int, study: Study) -> None:
    with Lease(study):
        as_if(study, 0, machine="another", until=study.now() + left)
        with Lease(another(study)) as second:
            assert second.slot == slot


def test_in_a_folder_of_its_own_a_study_is_on_one_machine(tmp_path: Path, space_file: Path) -> None:
    """So that whoever held it elsewhere, or before the machine was started again, is of the past."""
    study = search_small(tmp_path, space_file, trials=1)
    with Lease(study):
        as_if(study, 0, machine="before", until=study.now() + 30)
        assert study.others_alive() == []
        with Lease(another(study)) as heir:
            assert heir.slot == 0


def test_a_lease_is_renewed_while_its_worker_lives(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.3)
    with Lease(study) as mine:
        ends = study.holders()[0].until
        time.sleep(0.5)
        assert study.holders()[0].until > ends
        mine.check()


def test_a_worker_that_stood_still_goes_on_if_nobody_took_its_slot(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease(study) as mine:
        monkeypatch.setattr(mine, "_renewed", mine._renewed - 1000)
        ends = study.holders()[0].until
        mine.check()
        assert study.holders()[0].until >= ends


def test_a_worker_that_lost_its_lease_writes_nothing_more(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = another(study)
    with slow.at_work() as mine:
        trial = slow.database.ask()
        study._tables.set_trial_user_attr(trial._trial_id, "owner", mine.slot)
        monkeypatch.setattr(mine, "_renewed", mine._renewed - 1000)
        as_if(study, 0, machine="another", until=0.0)
        with another(study).at_work() as heir:
            assert heir.slot == 0
            for write in writes(slow, trial.number):
                with pytest.raises(LeaseLost, match="others have taken up its trials; join them again with"):
                    write()
    assert study.database.trials[trial.number].state.name == "RUNNING"


def writes(study: Study, number: int) -> list[Callable[[], object]]:
    from autoctr.search.study import OpenTrial

    trial = OpenTrial(study.database.trials[number]._trial_id, number, {})
    return [
        lambda: study.report(trial, 1, 0.5),
        lambda: study.keep(trial, reason="none"),
        lambda: study.tell(trial, "COMPLETE", 0.5),
        lambda: study.put_back(trial),
        lambda: study.set_infeasible(trial),
        lambda: study.take_up(0),
    ]


def test_machines_are_told_apart_by_more_than_their_names() -> None:
    assert this_machine().split()[0] == os.uname().nodename
    assert len(this_machine().split()) == 3
