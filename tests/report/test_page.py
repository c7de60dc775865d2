"""The page of a study: whole, self-contained, and true to what the study holds."""

from __future__ import annotations

import contextlib
import fcntl
import html.parser
import math
import random
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_study import SEARCH_STEPS, search_small, write_space

from autoctr.errors import UserError
from autoctr.report import pictures
from autoctr.report.contents import Point, Shape, contents, interaction_words, trial_table
from autoctr.report.page import study_page
from autoctr.report.terminal import bar, chart, print_report
from autoctr.search import oneshot
from autoctr.search.confirm import confirm
from autoctr.search.importance import importances, interactions
from autoctr.search.inputs import open_dataset
from autoctr.search.study import Study
from autoctr.search.summary import summary

VOID = {"meta", "path", "use", "br"}


class Reader(html.parser.HTMLParser):
    """Fails on elements that do not close, and keeps what a browser would show or fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.labels: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href") or name.endswith(":href")]
        if tag == "svg":
            self.labels.append(given.get("aria-label") or "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name.endswith("href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] not in ("style", "script"):
            self.texts.append(data)
        if self.rows and any(tag in ("td", "th") for tag in self.stack):
            self.rows[-1][-1] += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.stack == []
    assert all(target.startswith("#") for target in reader.fetched)
    assert "url(http" not in page
    assert "@import" not in page
    shown = " ".join(reader.texts)
    assert not re.search(r"\b(None|nan|True|False)\b", shown)
    return reader


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """A study in which everything that a page can show is there."""
    root, threads = tmp_path_factory.mktemp("pages"), torch.get_num_threads()
    text = """\
fix: {epochs: 2, batch: 512, blocks: 1, search_epochs: 0.1}
vary:
  architecture: {choices: [parallel, learn]}
  rank: {choices: [0, 2]}
  sparsity: {choices: [0, 0.2]}
  learning_rate: {low: 1e-3, high: 1e-2, log: true}
"""
    with pytest.MonkeyPatch.context() as patch:
        torch.set_num_threads(1)
        patch.setenv("AUTOCTR_CACHE", str(root / "cache"))
        patch.setattr(oneshot, "FEWEST_STEPS", SEARCH_STEPS)
        yield search_small(root, write_space(root, text), trials=14, study="s")
    torch.set_num_threads(threads)


def test_a_page_shows_every_trial_and_the_winner(study: Study) -> None:
    reader = read(study_page(study))
    trials = [row for row in reader.rows if len(row) == 7][1:]
    records = study.records()
    assert [row[0] for row in trials] == [str(record.number) for record in records]
    assert [row[2] for row in trials] == ["" if r.value is None else f"{r.value:.5f}" for r in records]
    facts = summary(study)["best"]
    text = " ".join(reader.texts)
    assert f"Trial {facts['number']} wins with a validation wauc of {facts['value']:.5f}." in text
    assert {"Best score over time", "Score against cost", "The winner's network", "What mattered"} <= set(reader.labels)
    assert {"Discretisation gap", "Calibration"} <= set(reader.labels)
    domains = [row for row in reader.rows if len(row) in (6, 9, 10)][1:]
    assert [row[0] for row in domains] == list(facts["test"]["domains"])
    assert domains[0][3] == f"{next(iter(facts['test']['domains'].values()))['auc']:.4f}"
    assert "autoctr search --dataset taobao-sim --rows 3000" in text
    assert "autoctr confirm s" in text


def test_text_says_what_the_page_says(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(study)
    text, found = capsys.readouterr().out, contents(study)
    assert all(sentence in text for sentence in found.verdict)
    assert found.scores is not None
    assert found.domains is not None
    for row in [*found.scores.rows, *found.domains.rows, *trial_table(found).rows]:
        assert " ".join(" ".join(row).split()) in " ".join(text.split())
    for bins in found.reliability.values():
        assert all(f"{promised:8.4f} {rate:8.4f}" in text for promised, rate, _ in bins)
    for command in found.commands:
        assert f"  {command}\n" in text
    shown = text.partition("What mattered\n")[2].splitlines()
    assert [line.split()[0] for line in shown[: len(found.importances)]] == list(found.importances)
    assert not re.search(r"\b(None|nan|True|False)\b", text)


def test_a_report_only_reads(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    def files() -> dict[str, bytes]:
        found = (path for path in study.folder.rglob("*") if path.is_file() and not path.name.startswith("study.db-"))
        return {str(path): path.read_bytes() for path in found}

    before = files()
    with (
        contextlib.closing(sqlite3.connect(study.folder / "study.db")) as connection,
        open(study.folder / "turn", "a") as turn,
        open(study.folder / "lock", "a") as lock,
    ):
        connection.execute("BEGIN IMMEDIATE")  # a search that is writing, and holds all its locks
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX)
        again = Study.load("s", root=study.folder.parent)
        read(study_page(again))
        print_report(again)
        connection.rollback()
    assert files() == before


def test_the_shape_of_the_domains_stands_beside_their_rows(study: Study) -> None:
    rows = study.domain_rows
    assert rows is not None
    statistics = open_dataset(study).statistics
    assert rows == dict(zip(statistics.domains, statistics.domain_rows, strict=True))
    shape = Shape(rows, "Training rows", {"rank": [2.0] * len(rows), "D1 %": [*[7.0] * (len(rows) - 1), math.nan]})
    picture = pictures.heat(shape, "t")
    assert all(f"{count:,}" in picture for count in rows.values())
    assert picture.count(">7<") == len(rows) - 1
    assert "nan" not in picture


def test_the_chart_follows_the_best_score() -> None:
    course = [Point(1.0, 0.6, 0.6), Point(2.0, 0.5, 0.6), Point(4.0, 0.7, 0.7)]
    assert chart(course, 16, 3) == [
        "  0.70000┤               ━",
        "         ┤",
        "  0.60000┤    ━━━━━━━━━━━",
        "         └────────────────",
        "          0    4.0 minutes",
    ]
    assert chart([Point(0.0, 0.6, 0.6)], 4, 2)[1] == "  0.60000┤━━━━"


@pytest.mark.parametrize(("share", "shown"), [(0, ""), (0.5, "██"), (1, "████"), (0.28, "█▏"), (2, "████")])
def test_a_bar_is_as_long_as_its_share(share: float, shown: str) -> None:
    assert bar(share, 4) == shown


def test_a_confirmed_page_says_so(study: Study) -> None:
    confirm("s", finalists=1, seeds=2, root=study.folder.parent)
    again = Study.load("s", root=study.folder.parent)
    reader = read(study_page(again))
    assert "certificate, 2 seeds each" in " ".join(reader.texts)
    if again.certificate is not None and again.certificate.plain:
        assert "Winner beside plain, domain by domain" in reader.labels


def test_a_study_without_an_ended_trial_has_a_page(tmp_path: Path, study: Study) -> None:
    text = "fix: {epochs: 1, batch: 512}\nvary: {rank: {choices: [0, 2]}}\n"
    empty = search_small(tmp_path, write_space(tmp_path, text), trials=None, time_limit=0.01)
    reader = read(study_page(empty))
    assert "No trial has ended yet." in " ".join(reader.texts)


def test_without_matplotlib_the_error_says_what_to_install(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'autoctr\[report\]'"):
        study_page(study)


def planted(seed: int, together: float, trials: int = 60) -> Any:
    """Trials in which x counts, and y and z only together."""
    import optuna

    draw, made = random.Random(seed), optuna.create_study(direction="maximize")
    kinds: dict[str, Any] = {
        "x": optuna.distributions.FloatDistribution(0, 1),
        "y": optuna.distributions.IntDistribution(0, 3),
        "z": optuna.distributions.CategoricalDistribution(("a", "b", "c")),
    }
    for _ in range(trials):
        x, y, z = draw.random(), draw.randrange(4), draw.choice("aabc")
        value = x + together * ((y > 1) == (z == "a")) + draw.gauss(0, 0.2)
        made.add_trial(optuna.trial.create_trial(value=value, params={"x": x, "y": y, "z": z}, distributions=kinds))
    return made


def look_at(monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    monkeypatch.setattr(Study, "database", made)
    monkeypatch.setattr(Study, "settings", type("S", (), {"direction": "maximize"})())


def test_interactions_find_the_pair_that_acts_together(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    look_at(monkeypatch, planted(0, 0.7))
    found = interactions(study, ["x", "y", "z"])
    assert found is not None
    assert found.clear == [("y", "z")]
    assert found.shares["y", "z"] > 0.4
    assert "y > 1" in found.halves
    assert "z not a" in found.halves
    assert pictures.pairs(found).count("<svg") == 1
    assert "beyond it: y with z" in interaction_words(found)
    look_at(monkeypatch, planted(0, 0.7, trials=23))
    assert interactions(study, ["x", "y", "z"]) is None


def test_interactions_take_chance_for_chance(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    told = 0
    for seed in range(20):
        look_at(monkeypatch, planted(seed, 0.0))
        found = interactions(study, ["x", "y", "z"])
        told += found is not None and bool(found.clear)
    assert told <= 4  # 5 % of 20 is 1; five or more would come once in 400 times


def test_importance_finds_the_field_that_matters(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    made = optuna.create_study(direction="maximize")
    for number in range(40):
        x, y = number % 8 / 8, (number * 3) % 5
        kinds: dict[str, Any] = {
            "x": optuna.distributions.FloatDistribution(0, 1), "y": optuna.distributions.IntDistribution(0, 4)
        }  # fmt: skip
        made.add_trial(optuna.trial.create_trial(value=x, params={"x": x, "y": y}, distributions=kinds))
    look_at(monkeypatch, made)
    found = importances(study)
    assert next(iter(found)) == "x"
    assert found["x"] > 5 * found.get("y", 0.0)
    monkeypatch.setattr(made, "get_trials", lambda **_: [])
    assert importances(study) == {}
