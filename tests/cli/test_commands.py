"""The commands as a user types them, and what they print."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_study import ROWS, one_thread

from autoctr.data.dataset import Dataset
from autoctr.data.presets import load_dataset, recipe_for
from autoctr.data.raw_rows import raw_rows
from autoctr.search.run import load_study
from autoctr.training.metrics import score
from cli.conftest import Shell

METRICS = {"auc", "wauc", "logloss", "domains"}


def shown(shell: Shell, *arguments: object) -> Any:
    result = shell("show", *arguments, "--json")
    assert result.exit_code == 0, result.output

    def refuse(word: str) -> None:
        raise ValueError(word)

    return json.loads(result.stdout, parse_constant=refuse)


def test_search_prints_plain_lines_where_there_is_no_terminal(root: Path) -> None:
    text = (root / "sim.txt").read_text()
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "study sim: 0 of 4 trials done; scored by validation wauc"
    assert [line.split()[:2] for line in lines[1:5]] == [["trial", str(number)] for number in range(4)]
    assert "below the best possible ranking" in text


def test_show_json_has_the_promised_structure(shell: Shell, root: Path) -> None:
    facts = shown(shell, "sim", "--root", root)
    wanted = {
        "study",
        "dataset",
        "metric",
        "trials",
        "methods",
        "best_plain",
        "best",
        "certificate",
        "seconds",
        "front",
        "protect",
    }
    assert facts.keys() == wanted
    assert facts["protect"] is None
    member = {"number", "value", "cost", "difference", "share", "lead", "marks", "kept"}
    assert all(row.keys() == member for row in facts["front"]["trials"])
    assert (facts["study"], facts["dataset"], facts["metric"]) == ("sim", "taobao-sim", "wauc")
    assert [trial["number"] for trial in facts["trials"]] == [0, 1, 2, 3]
    for trial in facts["trials"]:
        assert trial.keys() == {"number", "state", "value", "seconds"}
        assert trial["state"] in ("COMPLETE", "PRUNED", "FAIL")
        assert trial["seconds"] > 0
    best = facts["best"]
    assert best.keys() >= {"number", "candidate", "valid", "test", "plain", "ceiling"}
    for part in ("valid", "test", "plain"):
        assert best[part].keys() >= METRICS
        assert len(best[part]["domains"]) == 10
        assert all(domain.keys() >= {"rows", "auc", "logloss"} for domain in best[part]["domains"].values())
    assert best["valid"]["wauc"] == best["value"] == max(trial["value"] for trial in facts["trials"])
    assert best["ceiling"]["wauc"] > 0.6
    assert "tasks" not in best["test"]


def test_show_json_of_several_tasks(shell: Shell, root: Path) -> None:
    best = shown(shell, "own", "--root", root)["best"]
    assert best["tasks"].keys() == {"click", "buy"}
    for part in ("test", "plain"):
        for task in best["tasks"].values():
            assert task[part].keys() >= METRICS
        assert best[part] == best["tasks"]["click"][part]
    assert "ceiling" not in best


def test_show_one_trial(shell: Shell, root: Path) -> None:
    facts = shown(shell, "sim", "--root", root, "--trial", 3)
    assert facts["candidate"]["architecture"] == "learn"
    assert facts["gap"].keys() == {"relaxed", "discrete"}
    text = shell("show", "sim", "--root", root, "--trial", 3).stdout
    assert text.startswith(f"trial 3: {facts['state'].lower()}, validation wauc")
    assert "supernet " in text
    assert "network:" in text
    assert "has no trial 77; it has 0 to 3" in shell.refused("show", "sim", "--root", root, "--trial", 77)


def test_show_text_agrees_with_json(shell: Shell, root: Path) -> None:
    best = shown(shell, "sim", "--root", root)["best"]
    text = shell("show", "sim", "--root", root).stdout
    assert f"winner: trial {best['number']}, validation wauc {best['value']:.5f}" in text
    row = next(line for line in text.splitlines() if line.startswith("wauc")).split()[1:4]
    assert [float(value) for value in row] == pytest.approx(
        [best["test"]["wauc"], best["plain"]["wauc"], best["ceiling"]["wauc"]], abs=1e-5
    )


def test_studies_lists_every_study_even_beside_damaged_ones(shell: Shell, root: Path, tmp_path: Path) -> None:
    lines = shell("studies", "--root", root).stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [["own", "4", "trials"], ["sim", "4", "trials"]]
    for name, content in (("bad", b"garbage " * 99), ("begun", b"")):
        (tmp_path / "studies" / name).mkdir(parents=True)
        (tmp_path / "studies" / name / "study.db").write_bytes(content)
    lines = shell("studies").stdout.splitlines()
    assert "cannot open the study's database" in lines[0]
    assert "was never begun" in lines[1]


def test_no_studies_yet(shell: Shell) -> None:
    result = shell("studies")
    assert result.stdout == "no studies in studies; start one with: autoctr search --dataset taobao-sim\n"


def test_spaces(shell: Shell) -> None:
    lines = shell("spaces").stdout.splitlines()
    assert {"joint", "plain"} <= {line.split()[0] for line in lines}
    assert all("fields vary" in line for line in lines)


def test_data_commands(shell: Shell, shared: Path, tmp_path: Path) -> None:
    names = [line.split()[0] for line in shell("data", "list").stdout.splitlines()]
    assert {"taobao-sim", "taobao", "movielens", "kuairand"} <= set(names)
    described = shell("data", "describe", "taobao-sim", "--rows", ROWS)
    assert "WAUC" in described.stdout
    facts = json.loads(shell("data", "describe", "taobao-sim", "--rows", ROWS, "--json").stdout)
    assert len(facts["domains"]) == 10
    own = ["--table", shared / "events.csv", "--schema", shared / "schema.yaml"]
    assert shell("data", "prepare", *own).stdout.startswith("events: 1500 rows encoded in ")
    printed = shell("data", "schema", shared / "events.csv")
    assert "domain: market" in printed.stdout
    out = tmp_path / "guessed.yaml"
    assert shell("data", "schema", shared / "events.csv", "--out", out).exit_code == 0
    assert out.read_text().strip() == printed.stdout.strip()
    assert shell("data", "prepare", "--table", shared / "events.csv", "--schema", out).exit_code == 0
    assert "exists; choose another --out" in shell.refused("data", "schema", shared / "events.csv", "--out", out)


@pytest.mark.parametrize("arguments", [[], ["data"], ["--help"], ["search", "-h"]])
def test_help(arguments: list[str], shell: Shell) -> None:
    result = shell(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Usage: ")
    assert result.stdout.count("\n") > 5


def predicted(folder: Path, raw: Path, out: Path) -> list[dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-I", str(folder / "predict.py"), str(raw), str(out)],
        capture_output=True,
        text=True,
        env=one_thread(),
    )
    assert done.returncode == 0, done.stderr
    with open(out, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["sim", "own"])
def test_the_exported_model_scores_what_show_says(
    name: str, shell: Shell, root: Path, shared: Path, tmp_path: Path
) -> None:
    result = shell("export", name, "--root", root, "--out", tmp_path / "model")
    assert result.exit_code == 0, result.output
    if name == "sim":
        where: dict[str, Any] = {"name": "taobao-sim", "rows": ROWS}
    else:
        where = {"table": shared / "events.csv", "schema": shared / "schema.yaml"}
    dataset: Dataset = load_dataset(**where)
    raw_rows(recipe_for(**where), "test").write_csv(tmp_path / "raw.csv")
    rows = predicted(tmp_path / "model", tmp_path / "raw.csv", tmp_path / "out.csv")
    assert len(rows) == len(dataset.test)
    best = shown(shell, name, "--root", root)["best"]
    for task, label in enumerate(dataset.statistics.tasks):
        column = next(key for key in rows[0] if label in key)
        p = torch.tensor([float(row[column]) for row in rows], dtype=torch.float64)
        labels = torch.from_numpy(np.array(dataset.test.labels[:, task]))
        domain = torch.from_numpy(np.array(dataset.test.domain, dtype=np.int64))
        found = score(torch.logit(p), labels, domain, dataset.statistics.domains, None)
        said = best["tasks"][label]["test"] if "tasks" in best else best["test"]
        # the table of one's own is so small that rounding one pair of near ties the other way shows
        tolerance = 1e-6 if name == "sim" else 1e-4
        assert found.auc == pytest.approx(said["auc"], abs=tolerance)
        assert found.wauc == pytest.approx(said["wauc"], abs=tolerance)
        assert found.logloss == pytest.approx(said["logloss"], abs=1e-6)


def test_export_of_other_trials(shell: Shell, root: Path, tmp_path: Path) -> None:
    assert shell("export", "sim", "--root", root, "--out", tmp_path / "plain", "--trial", 0).exit_code == 0
    card = json.loads((tmp_path / "plain" / "card.json").read_text())
    assert card["trial"] == 0
    assert card["test"]["clicked" if "clicked" in card["test"] else next(iter(card["test"]))]["wauc"] is not None
    assert "has no trial 9; it has 0 to 3" in shell.refused(
        "export", "sim", "--root", root, "--out", tmp_path / "x", "--trial", 9
    )
    study = load_study("sim", root=root)
    path = study.weights_path(3)
    if path.exists():
        hidden = path.rename(path.with_suffix(".hidden"))
        message = shell.refused("export", "sim", "--root", root, "--out", tmp_path / "x", "--trial", 3)
        hidden.rename(path)
        assert "there are no weights of trial 3; trials that can be exported: 0" in message
    assert not (tmp_path / "x").exists()


def test_export_of_some_domains_in_fewer_bits(shell: Shell, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    options = ("--domains", "105,139", "--domains", "181", "--embeddings", "int8")
    result = shell("export", "sim", "--root", root, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert "holds 105, 139, 181; rows of the 7 other domains are scored as of an unknown domain" in result.stdout
    assert "multiply-adds" in result.stdout
    assert "embeddings in int8: " in result.stdout
    card = json.loads((out / "card.json").read_text())
    assert card["domains"]["exported"] == ["105", "139", "181"]
    assert card["check"]["python"]["largest_difference"] < 1e-5
    where = ("--root", root, "--out", tmp_path / "x")
    message = shell.refused("export", "sim", *where, "--domains", "105,99")
    assert "there is no domain '99'; legal are 105, 121, 139" in message
    message = shell.refused("export", "sim", *where, "--embeddings", "int4")
    assert "unknown type 'int4' of embeddings; legal are fp32, fp16, int8" in message
    assert not (tmp_path / "x").exists()


def test_recipe(shell: Shell, shared: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"dataset: taobao-sim\nrows: {ROWS}\nspace: {shared / 'small.yaml'}\ntime-limit: 2m\ntrials: 5\n")
    result = shell("search", "--recipe", recipe, "--trials", 1, "--study", "r")
    assert result.exit_code == 0, result.output
    settings = load_study("r").settings
    assert (settings.trials, settings.time_limit, settings.source["rows"]) == (1, 120.0, ROWS)
