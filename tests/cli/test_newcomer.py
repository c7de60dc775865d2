"""A table of one's own without a schema: from its rows to predictions."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from small_study import one_thread

from autoctr.search.run import load_study
from cli.conftest import Shell


def test_two_commands_from_a_csv_to_predictions(shell: Shell, shared: Path, tmp_path: Path) -> None:
    table = shared / "events.csv"
    small = ["--space", shared / "small.yaml", "--trials", 2, "--device", "cpu"]
    result = shell("search", "--table", table, *small, "--export", "model")
    assert result.exit_code == 0, result.output
    roles = "label click and buy; domain market; user user; inputs user, item, market"
    assert f"guessed from events.csv: {roles}" in result.stdout
    assert "wrote model; its probabilities differ" in result.stdout
    with open(table, newline="") as file:
        rows = [{name: row[name] for name in ("user", "item", "market")} for row in csv.DictReader(file)][:50]
    with open("new.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["user", "item", "market"])
        writer.writeheader()
        writer.writerows(rows)
    words = [sys.executable, "-I", "model/predict.py", "new.csv", "out.csv"]
    done = subprocess.run(words, capture_output=True, text=True, env=one_thread(), check=False)
    assert done.returncode == 0, done.stderr
    with open("out.csv", newline="") as file:
        assert all(0 < float(row["p_click"]) < 1 for row in csv.DictReader(file))
    schema = tmp_path / "studies" / "events-small" / "schema.yaml"
    assert load_study("events-small").settings.source["schema"] == str(schema)
    assert shell("resume", "events-small", "--trials", 3).exit_code == 0


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("click,market,shop", "{0},m{1},s{2}", None),
        ("seen,liked,market", "{0},{1},m{2}", "cannot tell which of seen, liked is the label in t.csv; write a schema"),
        ("click,shop,page", "{0},s{1},p{2}", "cannot tell which of shop, page is the domain in t.csv; write a schema"),
        ("price,market", "{2}.5,m{1}", "holds only 0 and 1; a schema needs a label"),
        ("click,price", "{0},{3}.5", "looks like a domain (2 to 50 values)"),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(
    header: str, row: str, message: str | None, shell: Shell, shared: Path
) -> None:
    lines = [row.format(n % 2, n // 2 % 2, n // 4 % 3, n) for n in range(200)]
    Path("t.csv").write_text("\n".join([header, *lines]))
    arguments = ["search", "--table", "t.csv", "--space", shared / "small.yaml", "--trials", 1, "--device", "cpu"]
    if message is None:
        assert shell(*arguments).exit_code == 0
        return
    assert message in shell.refused(*arguments)
    assert not Path("studies/t-small").exists()


def test_a_guess_that_fails_leaves_nothing(shell: Shell, shared: Path) -> None:
    Path("t.csv").write_text("click,market\n" + "0,de\n0,fr\n" * 60 + "1,de\n")
    refused = shell.refused("search", "--table", "t.csv", "--space", shared / "small.yaml", "--trials", 1)
    assert "only one class" in refused
    assert not Path("studies/t-small").exists()


def test_a_folder_that_cannot_be_exported_to_is_told_before_the_search(shell: Shell, shared: Path) -> None:
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    refused = shell.refused("search", "--table", shared / "events.csv", "--trials", 1, "--export", "full")
    assert "already holds notes.txt" in refused
    assert not Path("studies").exists()
