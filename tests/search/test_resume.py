"""A study that is killed and resumed ends as one that never was."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from small_study import (
    ROWS,
    SHORT_SUPERNETS,
    SPACE,
    autoctr,
    command,
    one_thread,
    remembered,
    search_small,
    write_space,
)

from autoctr.errors import UserError
from autoctr.search import clock, proof
from autoctr.search.record import best_of
from autoctr.search.run import load_study, resume
from autoctr.search.study import Study
from autoctr.search.summary import summary
from search.conftest import make_small

TRIALS = 6
#: With this seed trial 3 runs a supernet of its own, and trials 4 and 5 inherit.
SEED = 0

_DYING = """
import os, signal
import autoctr.progress, autoctr.training.cohort, autoctr.training.checkpoint, autoctr.search.proof
from autoctr.search.study import Study
now, steps = [None], [0]
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def after(owner, name, dies):
    inner = getattr(owner, name)
    def outer(*a, **k):
        out = inner(*a, **k)
        if dies(*a): die()
        return out
    setattr(owner, name, outer)
def started(self, number, candidate): now[0] = number
autoctr.progress.Printer.started = started
"""
_STEPPED = """
def stepped(cohort, *_):
    steps[0] += now[0] == 3 and cohort.network.relaxed
    return steps[0] == 5
after(autoctr.training.cohort.Cohort, 'step', stepped)
"""
MOMENTS = {
    "just after the trial was begun": "after(Study, 'begin', lambda study, *_: len(study.records()) == 4)",
    "in the supernet": _STEPPED,
    "between rungs": "after(Study, 'report', lambda study, trial, *_: trial.number == 3)",
    "after the weights were written": "after(autoctr.training.checkpoint, 'save', lambda p, *_: '00003' in p.name)",
    "just after it was told": "after(Study, 'tell', lambda study, trial, *_: trial.number == 3)",
    "before the proof is stored": "autoctr.search.proof._tested = lambda *_: die()",
}


@pytest.fixture(scope="module")
def space_file(shared: Path) -> Path:
    """Every supernet is its own, by a gene that hardly repeats."""
    text = SPACE.replace("parallel, ", "").replace(", architecture_rate: 0.1", "")
    return write_space(shared, text + "  architecture_rate: {low: 0.05, high: 0.2}\n", "searching")


@pytest.fixture(scope="module")
def whole(shared: Path, space_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study that is never killed."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, shared)
        study = search_small(tmp_path_factory.mktemp("whole"), space_file, trials=TRIALS, seed=SEED)
    kinds = [record.candidate.architecture for record in study.records()[3:]]
    assert kinds[0] == "learn"
    assert "inherit" in kinds
    return study


def arguments(root: Path, space: Path, **options: object) -> list[object]:
    chosen = {
        "trials": TRIALS,
        "seed": SEED,
        "rows": ROWS,
        "study": "s",
        "device": "cpu",
        "precision": "fp32",
    } | options
    named = [word for name, value in chosen.items() for word in (f"--{name.replace('_', '-')}", value)]
    return ["search", "--dataset", "taobao-sim", "--space", space, "--root", root, *named]


def told(study: Study) -> dict[str, object]:
    """What ``show --json`` says, without seconds."""
    facts = summary(study)
    trials = [{**trial, "seconds": None} for trial in facts["trials"]]
    return {**facts, "trials": trials, "seconds": None}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_is_as_never_killed(moment: str, whole: Study, space_file: Path, tmp_path: Path) -> None:
    killed = autoctr(*arguments(tmp_path, space_file), before=SHORT_SUPERNETS + _DYING + MOMENTS[moment])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = load_study("s", root=tmp_path)
    assert len(left.records()) == (TRIALS if "proof" in moment else 4)
    assert "proof" not in left.database.user_attrs
    study = resume("s", root=tmp_path)
    assert remembered(study) == remembered(whole)
    assert told(study) == told(whole)
    assert study.kept() == whole.kept()
    assert [trial.number for trial in study.database.trials] == list(range(TRIALS))


def test_resume_in_a_process_of_its_own(whole: Study, space_file: Path, tmp_path: Path) -> None:
    dying = SHORT_SUPERNETS + _DYING + MOMENTS["in the supernet"]
    assert autoctr(*arguments(tmp_path, space_file), before=dying).returncode == -signal.SIGKILL
    resumed = autoctr("resume", "s", "--root", tmp_path, before=SHORT_SUPERNETS)
    assert resumed.returncode == 0, resumed.stderr
    assert "3 of 6 trials done" in resumed.stdout
    assert remembered(load_study("s", root=tmp_path)) == remembered(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_cleanly_and_says_how_to_go_on(
    number: signal.Signals, whole: Study, space_file: Path, tmp_path: Path
) -> None:
    waiting = """
import time, autoctr.training.cohort as cohort, autoctr.progress as progress
now = [None]
def started(self, number, candidate): now[0] = number
progress.Printer.started = started
inner = cohort.Cohort.step
def step(*a, **k):
    if now[0] == 2:
        print('in trial 2', flush=True); time.sleep(30)
    return inner(*a, **k)
cohort.Cohort.step = step
"""
    process = subprocess.Popen(
        command(*arguments(tmp_path, space_file), before=SHORT_SUPERNETS + waiting),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=one_thread(),
    )
    assert process.stdout is not None
    while "in trial 2" not in process.stdout.readline():
        assert process.poll() is None
    with pytest.raises(UserError, match=f"is being run by process {process.pid}"):
        resume("s", root=tmp_path, trials=99)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == (f"stopped; everything finished is stored; continue with: autoctr resume s --root {tmp_path}\n")
    assert load_study("s", root=tmp_path).settings.trials == TRIALS
    if number == signal.SIGTERM:
        assert remembered(resume("s", root=tmp_path)) == remembered(whole)


def test_totals_count_what_is_done(space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = search_small(tmp_path, space_file, trials=2, seed=SEED)
    assert len(short.records()) == 2
    for trials in (1, 2):
        assert len(resume("s", root=tmp_path, trials=trials).records()) == 2
    longer = resume("s", root=tmp_path, trials=3)
    assert longer.settings.trials == 3
    assert [record.number for record in longer.records()] == [0, 1, 2]
    before = (remembered(longer), longer.database.user_attrs["proof"])
    monkeypatch.setattr(proof, "_tested", lambda *_: pytest.fail("the test rows were read again"))
    again = resume("s", root=tmp_path)
    assert (remembered(again), again.database.user_attrs["proof"]) == before
    with pytest.raises(UserError, match="trials is 0; it must be above 0"):
        resume("s", root=tmp_path, trials=0)


def test_time_limit_is_kept_and_leaves_room_for_the_proof(space_file: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    study = search_small(tmp_path, space_file, trials=None, time_limit=4.0)
    assert time.monotonic() - began < 10
    assert study.database.user_attrs["spent"] > 3
    assert study.database.user_attrs["proof"]["best"]
    *others, last = [record.state for record in study.records()]
    assert set(others) <= {"COMPLETE", "PRUNED", "FAIL"}
    assert last in ("COMPLETE", "PRUNED", "WAITING")  # one that found no time for a score waits for the next run
    count = len(study.records())
    assert count > 2
    assert len(resume("s", root=tmp_path).records()) == count


def test_a_trial_but_0_that_had_its_share_of_the_time_goes_on_only_while_it_is_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "TRIAL_SHARE", 0.0)
    text = "fix: {epochs: 5}\nvary: {batch: {choices: [32, 128, 512]}}"
    study = search_small(tmp_path, write_space(tmp_path, text), trials=5, time_limit=100.0)
    plain, *others = study.records()
    assert plain.reason in ("epochs", "patience")
    for place, record in enumerate(others, 1):
        best = best_of(study.records()[:place], "maximize")
        assert best is not None
        for rows, value in record.rungs[:-1]:
            assert value > (best.best_until(rows, "maximize") or 0.0)
        if record.reason == "time":
            assert record.state == "COMPLETE"
            assert (record.value or 0.0) <= (best.best_until(record.rows, "maximize") or 1.0)
    reasons = [record.reason for record in others]
    assert "time" in reasons
    assert max(len(record.rungs) for record in others) > 1


def test_a_study_without_time_for_a_score_goes_on_with_more(space_file: Path, tmp_path: Path) -> None:
    study = search_small(tmp_path, space_file, trials=None, time_limit=0.05)
    assert {record.state for record in study.records()} <= {"WAITING"}
    assert "proof" not in study.database.user_attrs
    longer = resume("s", root=tmp_path, trials=3, time_limit=60.0)
    assert [record.number for record in longer.records()] == [0, 1, 2]
    assert longer.records()[0].state == "COMPLETE"
    assert longer.database.user_attrs["proof"]["best"]
