"""``autoctr compare`` as a user types it."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_study import ROWS

from autoctr.search.results import Results
from autoctr.search.run import load_study
from autoctr.search.study import Study
from cli.conftest import Shell

SIM = ("compare", "--dataset", "taobao-sim", "--rows", ROWS, "--device", "cpu", "--epochs", 1)
NEW = ("worst_auc", "calibration", "ece", "skipped_domains", "skipped_users")


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_comparison_with_a_winner_stops_and_goes_on(
    shell: Shell, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "deep" / "c.csv"
    command = (*SIM, "--models", "dnn,dcn-v2", "--study", "sim", "--root", root, "--seeds", 2, "--out", out)
    inner = Results.append

    def dying(self: Results, run: Any) -> None:
        inner(self, run)
        if len(self.runs()) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Results, "append", dying)
        stopped = shell(*command)
    assert stopped.exit_code == 130
    assert stopped.stderr.endswith("stopped; finished runs are stored; continue with the same command\n")
    assert [(row["model"], row["seed"]) for row in rows(out)] == [("dnn", "0"), ("dcn-v2", "0")]
    result = shell(*command)
    assert result.exit_code == 0, result.output
    assert [(row["model"], row["seed"]) for row in rows(out)] == [
        (model, seed) for seed in "01" for model in ("dnn", "dcn-v2", "sim")
    ]
    lines = result.stdout.splitlines()
    assert lines[0] == f"taobao-sim: 6 runs, 2 of them in {out}; the best pass is chosen by validation wauc"
    assert [line.split()[:3] for line in lines[1:5]] == [
        ["sim", "seed", "0"],
        *([model, "seed", "1"] for model in ("dnn", "dcn-v2", "sim")),
    ]
    assert "Δ WAUC" in result.stdout
    assert "Δ is the difference to dnn" in result.stdout
    assert "\x1b" not in result.stdout
    table = shell(*command, "--markdown")
    assert table.stdout.lstrip().startswith("taobao-sim: ")
    assert "| dcn-v2 | 2 | " in table.stdout
    assert "6 runs, 6 of them" in table.stderr
    assert "6 runs" not in table.stdout


def test_default_file_and_a_table_of_ones_own(shell: Shell, shared: Path, tmp_path: Path) -> None:
    table = ["--table", shared / "events.csv", "--schema", shared / "schema.yaml", "--epochs", 1, "--device", "cpu"]
    result = shell("compare", *table, "--models", "dnn", "--seeds", 1, "--metric", "logloss")
    assert result.exit_code == 0, result.output
    (row,) = rows(tmp_path / "studies" / "results" / "compare-events.csv")
    assert (row["dataset"], row["model"], row["metric"]) == ("events", "dnn", "logloss")
    assert float(row["gauc"]) > 0
    assert "chosen by validation log-loss" in result.stdout
    assert shell("studies").stdout.startswith("no studies in studies")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "dnn,xdeepfm"], "unknown model 'xdeepfm'; legal are dnn, dcn-v2, deepfm, autoint, mmoe, ple, "),
        (["--models", "dnn,dnn"], "dnn is named twice"),
        (["--models", ","], "no model is named; legal are dnn, "),
        (["--study", "nothing"], "there is no study nothing in "),
        (["--study", "own"], "as it was encoded then, not of this taobao-sim"),
        (["--study", "sim", "--data-seed", 1], "study sim is of taobao-sim as it was encoded then, not of this"),
        (["--metric", "recall"], "unknown metric 'recall'; legal are wauc, auc, logloss"),
        (["--seeds", 0], "seeds is 0; it must be 1 or more"),
        (["--epochs", 0], "epochs is 0; legal is 1 to 10000"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--dataset", "nowhere"], "unknown data set 'nowhere'"),
        (["--out", "table"], "--out is table; it must end in .csv"),
        (["--out", "folder.csv"], "--out folder.csv is a folder; name a file"),
        (["--out", "notes.txt/c.csv"], "cannot write notes.txt/c.csv (Not a directory); choose another --out"),
        (["--out", "other.csv"], "other.csv holds no comparison of this version (other columns); choose another --out"),
    ],
)
def test_mistakes(arguments: list[object], message: str, shell: Shell, root: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert message in shell.refused(*SIM, "--root", root, *arguments)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_damaged_file_is_refused_and_left_alone(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "c.csv"
    command = (*SIM, "--models", "dnn", "--seeds", 1, "--out", out)
    assert shell(*command).exit_code == 0
    whole = out.read_text()
    for damage in (whole.replace(",dnn,0,", ",dnn,zero,"), whole[: len(whole) // 2], whole + "a,b\n"):
        out.write_text(damage)
        assert f"{out} holds no comparison of this version" in shell.refused(*command)
        assert out.read_text() == damage


def test_a_study_without_the_newer_metrics_is_shown(shell: Shell, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "sim", tmp_path / "studies" / "sim")
    study: Study = load_study("sim", root=tmp_path / "studies")
    before = shell("show", "sim").stdout
    proof = study.database.user_attrs["proof"]
    for side in ("best", "plain"):
        for task in proof[side].values():
            for name in NEW:
                assert name in task
                del task[name]
            for domain in task["domains"].values():
                del domain["calibration"]
    study.database.set_user_attr("proof", proof)
    assert shell("show", "sim").stdout == before
    assert shell("show", "sim", "--json").exit_code == 0
