"""A study that version 5fa759a (22 November 2026) left still shows, goes on, forks and exports.

Its database is kept as SQL, with SPACE where the path of the space stood; its rows are simulated anew.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from small_study import write_space

from autoctr.report import study_text
from autoctr.search.deliver import export
from autoctr.search.run import load_study, resume
from autoctr.search.summary import summary

OLD = Path(__file__).parent / "old_study"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the study ``old``."""
    folder = tmp_path / "studies" / "old"
    folder.mkdir(parents=True)
    space = write_space(tmp_path)
    connection = sqlite3.connect(folder / "study.db")
    connection.executescript((OLD / "study.sql").read_text(encoding="utf-8").replace("SPACE", str(space)))
    connection.close()
    shutil.copytree(OLD / "trials", folder / "trials")
    return tmp_path / "studies"


def test_it_shows(root: Path) -> None:
    study = load_study("old", root=root)
    assert (study.settings.objectives, study.settings.protect) == (None, ())
    assert [record.state for record in study.records()] == ["COMPLETE"] * 4
    assert study.certificate is None
    text = study_text(study)
    assert "study old: taobao-sim" in text
    assert "trials: 4 complete" in text
    assert summary(study)["best"]["test"]["wauc"] > 0.5


def test_it_goes_on_and_is_forked(root: Path) -> None:
    before = load_study("old", root=root).records()
    longer = resume("old", root=root, trials=6)
    assert longer.records()[:4] == before
    assert len(longer.records()) == 6
    forked = resume("old", fork="new", root=root, trials=6)
    assert [record.value for record in forked.records()] == [record.value for record in longer.records()]


def test_it_is_exported(root: Path, tmp_path: Path) -> None:
    folder, difference = export("old", tmp_path / "model", trial=0, root=root)
    assert (folder / "model.py").exists()
    assert difference < 1e-5
