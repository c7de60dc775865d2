"""Whatever a user gets wrong is one line on standard error and exit code 2, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from small_study import EVENTS, ROWS, write_space

from autoctr.search.run import load_study
from cli.conftest import Shell


def search(shared: Path, *more: object, dataset: bool = True) -> list[object]:
    where = ["--dataset", "taobao-sim", "--rows", ROWS] if dataset else []
    return ["search", *where, "--space", shared / "small.yaml", "--trials", 1, *more]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", 0], "trials is 0; it must be above 0"),
        (["--time-limit", "5x"], "'5x' is not a time; write 90s, 20m or 1h30m"),
        (["--time-limit", "0s"], "time limit is 0; it must be above 0"),
        (["--metric", "recall"], "unknown metric 'recall'; legal are "),
        (["--space", "nowhere"], "unknown search space 'nowhere'; legal are "),
        (["--space", "nowhere.yaml"], "there is no file nowhere.yaml"),
        (["--dataset", "taobao-simm"], "did you mean taobao-sim?"),
        (["--device", "tpu"], "unknown device 'tpu'; legal are auto, cpu, cuda and cuda:N"),
        (["--device", "mps"], "device mps is not supported"),
        (["--device", "cuda:99"], "device cuda:99 was asked for, but this machine has"),
        (["--precision", "fp16"], "unknown precision 'fp16'; legal are auto, fp32, bf16"),
        (["--rows", 10], "10 rows are too few"),
        (["--truth", "lies"], "unknown truth 'lies'"),
        (["--study", "a b"], "study name 'a b' is not usable"),
        (["--recipe", "nothing"], "unknown recipe 'nothing'"),
        (["--bogus"], "No such option"),
        (["--table", "x.csv"], "give one of them"),
    ],
)
def test_bad_search(arguments: list[object], message: str, shell: Shell, shared: Path) -> None:
    assert message in shell.refused(*search(shared), *arguments)
    assert not list(Path("studies").glob("*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(shell: Shell, shared: Path) -> None:
    assert "this machine has 0 CUDA devices; use --device cpu" in shell.refused(*search(shared), "--device", "cuda")


def test_a_study_that_is_not_there_or_is_there_already(shell: Shell, shared: Path, root: Path) -> None:
    for command in (["show", "x"], ["resume", "x"], ["export", "x", "--out", "o"]):
        assert "there is no study x in " in shell.refused(*command, "--root", root)
    assert "study sim exists; continue it with: autoctr resume sim" in shell.refused(
        *search(shared), "--study", "sim", "--root", root
    )
    assert "trials is 0" in shell.refused("resume", "sim", "--root", root, "--trials", 0)
    assert len(load_study("sim", root=root).records()) == 4


def test_taobao_without_files_prints_the_command_that_runs_without(shell: Shell) -> None:
    message = shell.refused("search", "--dataset", "taobao", "--data", "nowhere")
    assert "missing theme_click_log.csv, user_embedding.csv, item_embedding.csv; looked in " in message
    assert "autoctr search --dataset taobao-sim" in message


def own(tmp_path: Path, rows: str, schema: str = EVENTS) -> list[object]:
    (tmp_path / "t.csv").write_text("user,item,market,click,buy\n" + rows)
    (tmp_path / "s.yaml").write_text(schema)
    return ["--table", tmp_path / "t.csv", "--schema", tmp_path / "s.yaml"]


def events(count: int, broken: str = "") -> str:
    good = [f"u{n % 7},i{n % 5},{'de' if n % 3 else 'fr'},{n % 2},{n % 4 // 3}" for n in range(count)]
    return "\n".join([*good, *([broken] if broken else [])]) + "\n"


@pytest.mark.parametrize(
    ("rows", "schema", "message"),
    [
        (events(200), EVENTS.replace("name: item", "name: price"), "price"),
        (events(200), EVENTS.replace("domain: market", "domain: country"), "country"),
        (events(200, "u1,i1,de,2,0"), EVENTS, "click"),
        (events(200, "u1,i1,de,,0"), EVENTS, "click"),
        (events(200, "u1,i1,de,nan,0"), EVENTS, "click"),
        (events(200, "u1,i1,,1,0"), EVENTS, "the domain column market is empty in row 201"),
        ("", EVENTS, ""),
        (events(200), EVENTS.replace("[0.6, 0.2, 0.2]", "[1.0, 0.0, 0.0]"), ""),
        (events(200), "labels: [click\n", ""),
        (events(200), "just words", ""),
    ],
)
def test_bad_table(rows: str, schema: str, message: str, shell: Shell, shared: Path, tmp_path: Path) -> None:
    assert message in shell.refused(*search(shared, dataset=False), *own(tmp_path, rows, schema))
    assert not list(Path("studies").glob("*"))


def test_a_domain_with_one_class_is_left_out_and_counted(shell: Shell, shared: Path, tmp_path: Path) -> None:
    rows = events(600) + "".join(f"u{n % 7},i{n % 5},it,0,0\n" for n in range(200))
    result = shell(*search(shared, dataset=False), *own(tmp_path, rows), "--study", "s")
    assert result.exit_code == 0, result.output
    assert "left out of WAUC, only one class in the test rows: it" in result.stdout
    described = shell("data", "describe", *own(tmp_path, rows)).stdout
    assert "only one class of click in test (no AUC there): it" in described


@pytest.mark.parametrize(("metric", "works"), [("wauc", False), ("auc", False), ("logloss", True)])
def test_validation_rows_of_one_class_are_refused(
    metric: str, works: bool, shell: Shell, shared: Path, tmp_path: Path
) -> None:
    arguments = own(tmp_path, "".join(f"u{n % 7},i{n % 5},{'de' if n % 3 else 'fr'},0,0\n" for n in range(200)))
    if works:
        assert shell(*search(shared, dataset=False), *arguments, "--metric", metric).exit_code == 0
    else:
        message = shell.refused(*search(shared, dataset=False), *arguments, "--metric", metric)
        assert "show only one class of click" in message
        assert not list(Path("studies").glob("*"))


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("vary:\n  widht: {choices: [8]}\n", 2, "unknown field 'widht'"),
        ("vary:\n  rank:\n    choices: [a]\n", 3, "it must be a number"),
        ("vary:\n  rank: {choices: []}\n", 2, "at least one value"),
        ("vary:\n  dropout: {low: 0.5, high: 0.5}\n", 2, "empty range"),
        ("vary:\n  dropout: {low: 0.5, high: 7}\n", 2, "legal is 0 to 0.95"),
        ("vary:\n  dropout: {low: 0, high: 0.5, log: true}\n", 2, "low must be above 0"),
        ("vary:\n  dropout: {low: 0, high: 0.5, log: [1]}\n", 2, "log must be one value"),
        ("vary:\n  rank: 3\n", 2, "rank must be a mapping"),
        ("vary:\n  rank: {choices: [1, 1]}\n", 2, "twice"),
        ("vary:\n  rank: {choices: [1.5]}\n", 2, "whole number"),
        ("vary:\n  norm: {low: 1, high: 2}\n", 2, "list its choices"),
        ("vary:\n  norm: {choices: [layer]}\n", 2, "legal is one of none, batch"),
        ("vary:\n  alternating: {choices: [yes]}\n", 2, "legal is true or false"),
        ("vary:\n  ? [a]\n  : 3\n", 2, "must be one word"),
        ("vary: {}\n", 1, "nothing varies"),
        ("vary:\n  rank: {choices: [1]}\nfix: {rank: 1}\n", 2, "under fix and under vary"),
        ("fixed: {}\n", 1, "unknown section 'fixed'"),
        ("description: [a]\nvary:\n  rank: {choices: [1]}\n", 1, "description must be one value"),
        ("", 1, "the file is empty"),
        ("a: [\n", 2, "not YAML"),
        ("a:\n\t- b\n", 2, "not YAML"),
        ("- a\n", 1, "must be a mapping"),
    ],
)
def test_a_broken_space_is_named_by_file_and_line(
    text: str, line: int, message: str, shell: Shell, tmp_path: Path
) -> None:
    path = write_space(tmp_path, text, "broken")
    said = shell.refused("search", "--dataset", "taobao-sim", "--rows", ROWS, "--space", path)
    assert said.startswith(f"autoctr: {path}:{line}: ")
    assert message in said


def test_a_space_that_is_no_text(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert f"cannot read {path}" in shell.refused("search", "--dataset", "taobao-sim", "--space", path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trials: abc\n", "trials: 'abc' is not a valid integer"),
        ("time-limit: soon\n", "time_limit: 'soon' is not a time"),
        ("time-limit: [3]\n", "time_limit is [3]; it must be one value"),
        ("speed: 3\n", "unknown key 'speed'; legal are "),
        ("root: x\n", "unknown key 'root'"),
        ("- a\n", "must be a mapping"),
        ("a: [\n", "is not YAML"),
    ],
)
def test_a_broken_recipe(text: str, message: str, shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    said = shell.refused("search", "--recipe", path, "--dataset", "taobao-sim")
    assert str(path) in said
    assert message in said


def test_a_damaged_cache_is_made_again_with_a_warning(
    shell: Shell, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOCTR_CACHE", str(tmp_path / "cache"))
    arguments = ["data", "prepare", "--table", shared / "events.csv", "--schema", shared / "schema.yaml"]
    first = shell(*arguments)
    (labels,) = (tmp_path / "cache").glob("*/train/labels.npy")
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-8])
    again = shell(*arguments)
    assert again.exit_code == 0
    assert again.stdout == first.stdout
    assert again.stderr.startswith("autoctr: warning: the cached ")
    assert again.stderr.count("\n") == 1
    assert labels.read_bytes() == whole


def test_a_folder_that_cannot_be_written(
    shell: Shell, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    assert "cannot write" in shell.refused(*search(shared), "--study", "s", "--root", blocked / "studies")
    assert "is a file" in shell.refused(*search(shared), "--study", "s", "--root", blocked)
    monkeypatch.setenv("AUTOCTR_CACHE", str(blocked))
    assert "cannot write the cache" in shell.refused(*search(shared), "--study", "s")


def test_an_export_onto_something_else(shell: Shell, root: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    assert "which no export wrote" in shell.refused("export", "sim", "--root", root, "--out", tmp_path / "full")
    (tmp_path / "file").touch()
    shell.refused("export", "sim", "--root", root, "--out", tmp_path / "file" / "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_no_write_permission(shell: Shell, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "cannot write" in shell.refused(*search(shared), "--study", "s", "--root", tmp_path / "closed" / "x")


def test_a_corrupt_study(shell: Shell, root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "s"
    folder.mkdir(parents=True)
    whole = (root / "sim" / "study.db").read_bytes()
    for content in (b"garbage " * 500, whole[:20_000], whole[: len(whole) // 2]):
        (folder / "study.db").write_bytes(content)
        for command in (["show", "s"], ["resume", "s"]):
            shell.refused(*command)


@pytest.mark.parametrize("storage", ["bogus", "nothing://x", "postgresql://nobody@127.0.0.1:1/x"])
def test_a_database_that_does_not_open(storage: str, shell: Shell, shared: Path) -> None:
    for command in (["show", "s"], ["studies"], [*search(shared), "--study", "s"]):
        assert "cannot open the study's database" in shell.refused(*command, "--storage", storage)
