"""``autoctr refit``: a found network trained anew and exported, by one process or by several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_study import ROWS, autoctr, one_thread, write_events, write_space

from autoctr.search.run import load_study

SPACE = """\
fix: {epochs: 3, batch: 256, embedding: 4, blocks: 1, width: 8}
vary: {rank: {choices: [0, 2]}, learning_rate: {low: 4e-3, high: 1e-2, log: true}}
"""


@pytest.fixture(scope="module")
def winner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``show --json`` says of a trial with adapters."""
    root = tmp_path_factory.mktemp("fit")
    space = write_space(root, SPACE, "adapted")
    words = ["--space", space, "--root", root, "--study", "s", "--trials", 2, "--device", "cpu"]
    done = autoctr("search", "--dataset", "taobao-sim", "--rows", ROWS, *words)
    assert done.returncode == 0, done.stderr
    assert load_study("s", root=root).records()[1].candidate.rank == 2
    shown = autoctr("show", "s", "--trial", 1, "--json", "--root", root)
    (root / "adapted.json").write_text(shown.stdout, encoding="utf-8")
    return root / "adapted.json"


def words(winner: Path, out: Path, **options: object) -> list[object]:
    given = {"dataset": "taobao-sim", "rows": ROWS, "device": "cpu", "winner": winner, "out": out, **options}
    return ["refit", *(word for key, value in given.items() for word in (f"--{key}", value))]


def test_a_winner_is_trained_anew_and_runs_alone(winner: Path, tmp_path: Path) -> None:
    done = autoctr(*words(winner, tmp_path / "model"))
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[-2:]
    assert first.startswith("validation wauc 0.")
    assert ", test wauc 0." in first
    assert (
        second == f"wrote {tmp_path / 'model'}; try it: python {tmp_path / 'model' / 'predict.py'} INPUT.csv OUTPUT.csv"
    )
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert card["refit"] == "adapted"
    assert card["candidate"]["rank"] == 2
    again = autoctr(*words(tmp_path / "model" / "card.json", tmp_path / "again"))
    assert again.stdout.splitlines()[-2].partition(";")[0] == first.partition(";")[0]
    other = autoctr(*words(winner, tmp_path / "other", seed=5))
    assert other.stdout.splitlines()[-2].partition(";")[0] != first.partition(";")[0]


def test_on_ones_own_new_rows(winner: Path, tmp_path: Path) -> None:
    table, schema = write_events(tmp_path)
    done = autoctr(
        "refit", "--winner", winner, "--table", table, "--schema", schema, "--out", tmp_path / "m", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    predicted = subprocess.run(
        [sys.executable, tmp_path / "m" / "predict.py", table, tmp_path / "scores.csv"], capture_output=True, text=True
    )
    assert predicted.returncode == 0, predicted.stderr
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == len(table.read_text().splitlines())


def test_two_processes_train_one_network(winner: Path, tmp_path: Path) -> None:
    alone = autoctr(*words(winner, tmp_path / "alone", precision="fp32"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "autoctr"]
    shared = subprocess.run(
        [*command, *map(str, words(winner, tmp_path / "shared", precision="fp32"))],
        capture_output=True,
        text=True,
        env={**one_thread(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        timeout=300,
    )
    assert shared.returncode == 0, shared.stderr
    told = [line for line in shared.stdout.splitlines() if line.startswith("validation")]
    assert len(told) == 1
    values = [float(text.split()[2].rstrip(",")) for text in (told[0], alone.stdout.splitlines()[-2])]
    assert values[0] == pytest.approx(values[1], abs=2e-3)
    assert (tmp_path / "shared" / "model.py").exists()


def test_bad_input(winner: Path, tmp_path: Path) -> None:
    none = autoctr(*words(tmp_path / "none.json", tmp_path / "m"))
    assert (none.returncode, none.stderr) == (2, f"autoctr: there is no file {tmp_path / 'none.json'}\n")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine.txt").write_text("mine")
    held = autoctr(*words(winner, tmp_path / "m"))
    assert held.returncode == 2
    assert "already holds mine.txt" in held.stderr
    assert autoctr(*words(winner, tmp_path / "n", metric="f1")).stderr == (
        "autoctr: unknown metric 'f1'; legal are wauc, auc, logloss\n"
    )
