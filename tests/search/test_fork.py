"""A new study goes on with what still holds of an old one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from small_study import SPACE, remembered, write_space

from autoctr.errors import UserError
from autoctr.report import study_text
from autoctr.search import fork as fork_module
from autoctr.search import study as study_module
from autoctr.search.deliver import export
from autoctr.search.events import Watcher
from autoctr.search.fork import is_of, is_plain
from autoctr.search.run import load_study, resume
from autoctr.search.study import Study
from autoctr.search.summary import summary
from search.test_study import space_of


class Notes(Watcher):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, message: str) -> None:
        self.heard.append(message)


@pytest.fixture
def old(finished: Study, tmp_path: Path) -> Study:
    """A copy of the finished study, of 8 trials, in a folder of the test's own."""
    shutil.copytree(finished.folder, tmp_path / "s")
    return load_study("s", root=tmp_path)


def forked(tmp_path: Path, **options: Any) -> tuple[Study, str]:
    notes = Notes()
    study = resume("s", fork="t", root=tmp_path, watcher=notes, **options)
    return study, notes.heard[0]


def test_every_trial_of_a_study_is_of_its_own_space(finished: Study) -> None:
    space, records = space_of(finished), finished.records()
    assert is_plain(records[0].candidate, space)
    assert all(is_of(record.candidate.replace(domain_ranks=None), space) for record in records[1:])
    assert not any(is_plain(record.candidate, space) for record in records[1:])


def test_a_fork_with_the_same_space_goes_on_as_the_study_itself(old: Study, tmp_path: Path) -> None:
    before = remembered(old)
    found, note = forked(tmp_path, trials=10)
    assert note == "study t takes over 8 of 8 trials of s"
    assert remembered(found)[:8] == before == remembered(load_study("s", root=tmp_path))
    assert len(found.records()) == 10
    assert remembered(resume("s", root=tmp_path, trials=10)) == remembered(found)


def test_only_candidates_of_the_new_space_are_taken_under_new_numbers(old: Study, tmp_path: Path) -> None:
    widths = [record.candidate.width for record in old.records()]
    assert {8, 16} <= set(widths[1:])
    narrower = write_space(tmp_path, SPACE.replace("width: {choices: [8, 16]}", "width: {choices: [16, 32]}"), "wide")
    found, note = forked(tmp_path, space=narrower, trials=8)
    kept = [record for record in old.records() if record.number == 0 or record.candidate.width == 16]
    assert note == f"study t takes over {len(kept)} of 8 trials of s"
    records = found.records()
    assert [r.number for r in records] == list(range(8))
    assert [(r.candidate, r.value, r.rungs) for r in records[: len(kept)]] == [
        (r.candidate, r.value, r.rungs) for r in kept
    ]
    assert all(record.candidate.width in (16, 32) for record in records[1:])
    assert found.settings.space == str(narrower)
    number = next(r.number for r in records[: len(kept)] if r.number in found.kept())
    _, difference = export("t", tmp_path / "model", trial=number, root=tmp_path)
    assert difference < 1e-5


def test_leads_and_weights_move_with_their_trials(old: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old.set_lead(5, (0.25, 0.5))
    monkeypatch.setattr(fork_module, "is_of", lambda candidate, space: candidate == old.records()[5].candidate)
    monkeypatch.setattr(study_module, "KEPT_WEIGHTS", 99)
    old.weights_path(5).write_bytes(old.weights_path(0).read_bytes())
    found, note = forked(tmp_path, trials=2)
    assert note.startswith("study t takes over 2 of 8")
    assert found.records()[1].lead == (0.25, 0.5)
    assert found.kept() == [0, 1]


def test_what_is_scored_otherwise_now_is_not_taken(old: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "SCHEMA_VERSION", 99)
    with pytest.raises(UserError, match=r"code schema version was 1 and is now 99.*autoctr resume s --fork NEW"):
        resume("s", root=tmp_path)
    found, note = forked(tmp_path, trials=1)
    assert note == "study t takes over 0 of 8 trials of s"
    assert len(found.records()) == 1


def test_without_its_trial_0_nothing_is_taken(old: Study, tmp_path: Path) -> None:
    shorter = write_space(tmp_path, SPACE.replace("epochs: 3", "epochs: 2"), "shorter")
    _, note = forked(tmp_path, space=shorter, trials=1)
    assert note == "study t takes over 0 of 8 trials of s"


def test_a_fork_that_dies_while_it_takes_over_leaves_no_study(
    old: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = shutil.copyfile

    def dies(*arguments: Any, **options: Any) -> None:
        inner(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", dies)
        with pytest.raises(KeyboardInterrupt):
            forked(tmp_path, trials=8)
    with pytest.raises(UserError, match="study t was never begun"):
        load_study("t", root=tmp_path)
    found, note = forked(tmp_path, trials=8)
    assert note == "study t takes over 8 of 8 trials of s"
    assert len(found.records()) == 8


def test_a_study_tells_that_its_test_rows_had_been_seen_before(old: Study, tmp_path: Path) -> None:
    words = "test already seen: it had been read for an earlier winner before this one was chosen"
    assert summary(old)["best"]["seen"] is False
    assert words not in study_text(old)
    found, _ = forked(tmp_path, trials=8)
    assert summary(found)["best"]["seen"] is True
    assert words in study_text(found)
    first = {**old.database.user_attrs["proof"], "number": 99}  # as if another trial had won before
    old.database.set_user_attr("proof", first)
    assert summary(resume("s", root=tmp_path))["best"]["seen"] is True


def test_a_fork_needs_a_name_of_its_own_and_a_space_needs_a_fork(old: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="study s exists"):
        resume("s", fork="s", root=tmp_path)
    with pytest.raises(UserError, match="another space needs a new study; name it with --fork NEW"):
        resume("s", space="plain", root=tmp_path)
