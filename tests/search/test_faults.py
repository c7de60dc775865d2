"""A study that is killed at random moments ends as one that never was: ``pytest -m slow --kills N``."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest
from small_study import ROWS, SHORT_SUPERNETS, SPACE, command, one_thread, remembered, search_small, write_space

from autoctr.search.run import load_study
from autoctr.search.study import Study
from search.test_resume import told

pytestmark = pytest.mark.slow

TRIALS, SEED = 10, 2
TICKETS = "  keep_rate: {choices: [1, 0.5]}\n  warm_start: {choices: [0, 0.5]}\n"


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """With tickets and warm starts, so that every stage is killed."""
    fixed = SPACE.replace("fix: {", "fix: {ticket_rounds: 2, ticket_epochs: 0.5, ")
    return write_space(tmp_path, fixed + TICKETS, "faults")


@pytest.mark.parametrize("cohort", [1, 3])
def test_random_kills_lose_nothing(
    cohort: int, space: Path, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    whole = search_small(tmp_path / "whole", space, trials=TRIALS, seed=SEED, cohort=cohort)
    needed, kills, draw = time.monotonic() - began, 0, random.Random(cohort)
    spent, studies = 0.0, 0
    while kills < request.config.getoption("--kills") // 2:
        root, studies = tmp_path / str(studies), studies + 1
        while True:
            if Study("s", root, None).exists():
                words: list[object] = ["resume", "s", "--root", root]
            else:
                words = ["search", "--dataset", "taobao-sim", "--rows", ROWS, "--space", space, "--root", root]
                words += ["--study", "s", "--trials", TRIALS, "--seed", SEED, "--cohort", cohort, "--device", "cpu"]
                words += ["--precision", "fp32"]
                words += ["--checkpoint-every", 0.2]
            started = time.monotonic()
            process = subprocess.Popen(
                command(*words, before=SHORT_SUPERNETS),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=one_thread(),
            )
            try:
                output, _ = process.communicate(timeout=draw.uniform(1.0, 1.5 * needed + 4))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                spent += time.monotonic() - started
                continue
            spent += time.monotonic() - started
            assert process.returncode == 0, output
            break
        study = load_study("s", root=root)
        assert remembered(study) == remembered(whole)
        assert told(study) == told(whole)
        assert study.kept() == whole.kept()
        assert [trial.number for trial in study.database.trials] == list(range(TRIALS))
        assert {trial.state.name for trial in study.database.trials} <= {"COMPLETE", "PRUNED", "FAIL"}
    runs = kills + studies
    with capsys.disabled():
        print(
            f"\ncohorts of {cohort}: {kills} kills in {studies} studies of {needed:.1f} s; {spent / runs:.1f} s a run "
            f"with its start, {(spent - studies * needed) / runs:.1f} s a run beyond the work itself"
        )
