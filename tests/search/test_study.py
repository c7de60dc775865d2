"""The study on disk: its fingerprint, its lock, its database and which weights it keeps."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sqlite3
from pathlib import Path

import optuna
import pytest
import torch
from small_study import SPACE, search_small, write_space

from autoctr.errors import UserError
from autoctr.progress import Printer
from autoctr.report import study_text
from autoctr.search import clock, engine
from autoctr.search.database import without_password
from autoctr.search.events import Watcher
from autoctr.search.run import load_study, resume
from autoctr.search.space import Space, load_space
from autoctr.search.study import KEPT_WEIGHTS, Study, fingerprint
from autoctr.search.summary import summary
from autoctr.training.precision import find_precision


def space_of(study: Study) -> Space:
    """The space as the study searched it, in the precision that was chosen for it."""
    return load_space(study.settings.space).with_fixed(precision=study.settings.precision or "fp32")


def test_a_changed_space_is_refused_with_its_fields(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    search_small(tmp_path, space, trials=1)
    changed = SPACE.replace("epochs: 3", "epochs: 4").replace("[8, 16]", "[8, 12]")
    changed = changed.replace("  rank: {choices: [0, 2, 4]}\n", "")
    write_space(tmp_path, changed)
    with pytest.raises(UserError) as caught:
        resume("s", root=tmp_path, trials=2)
    message = str(caught.value)
    assert "space: fix epochs was 3 and is now 4" in message
    assert 'space: vary width was {"choices": [8, 16]} and is now {"choices": [8, 12]}' in message
    assert "space: vary rank was" in message
    assert "learning_rate" not in message
    assert "\n" not in message
    assert load_study("s", root=tmp_path).settings.trials == 1
    write_space(tmp_path)
    assert len(resume("s", root=tmp_path, trials=2).records()) == 2


def test_every_other_part_of_the_fingerprint_is_compared(finished: Study) -> None:
    space, settings = space_of(finished), finished.settings
    key = finished.database.user_attrs["fingerprint"]["dataset"]
    finished.check(fingerprint(settings, space, key))
    for changes, name in (({"metric": "auc"}, "metric"), ({"seed": 9}, "seed")):
        with pytest.raises(UserError, match=f"changed: {name} was"):
            finished.check(fingerprint(dataclasses.replace(settings, **changes), space, key))
    with pytest.raises(UserError, match="the data set has other rows"):
        finished.check(fingerprint(settings, space, "another"))
    finished.check(fingerprint(dataclasses.replace(settings, trials=99, device="cuda"), space, key))


def test_a_study_tells_what_each_method_did_alone(tmp_path: Path) -> None:
    text = "fix: {epochs: 1, batch: 512}\nvary: {rank: {choices: [0, 2, 4]}, sparsity: {choices: [0, 0.2]}}"
    study = search_small(tmp_path, write_space(tmp_path, text), trials=4)
    values = [record.value for record in study.records()]
    assert None not in values
    told = summary(study)["methods"]
    assert {name: (found["number"], found["value"]) for name, found in told.items()} == {
        "mlora": (1, values[1]),
        "adasparse": (3, values[3]),
    }
    assert told["mlora"]["difference"] == (values[1] or 0) - (values[0] or 0)
    plain = [r for r in study.records() if not r.candidate.rank and not r.candidate.sparsity]
    best = max(plain, key=lambda record: (record.value or 0, -record.number))
    assert summary(study)["best_plain"] == {"number": best.number, "value": best.value}
    line = f"each method alone beside trial 0, validation wauc: mlora {told['mlora']['difference']:+.5f} (trial 1), ada"
    assert line in study_text(study)


def test_a_method_that_was_stopped_is_measured_at_as_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "is_ahead", lambda *_: False)
    monkeypatch.setattr(clock, "TRIAL_SHARE", 0.0)
    text = "fix: {epochs: 3, batch: 512}\nvary: {rank: {choices: [0, 2, 4]}, sparsity: {choices: [0, 0.2]}}"
    study = search_small(tmp_path, write_space(tmp_path, text), trials=4, time_limit=100.0)
    records, told = study.records(), summary(study)["methods"]
    assert set(told) == {"mlora", "adasparse"}
    for found in told.values():
        record = records[found["number"]]
        assert record.reason == "time"
        assert found["rows"] == record.rows == records[0].rungs[0][0]
        assert found["difference"] == (record.value or 0) - records[0].rungs[0][1]
    assert f"(trial 1, both after {records[1].rows:,} rows)" in study_text(study)
    printer = Printer(None)
    printer.opened("s", "wauc", lambda: "1.0 min left")
    for record in records[:2]:
        printer.finished(record, records[0])
    ended = [line.split("wauc")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert ended == ["trial   0  complete  ", "trial   1  cut off   "]


def test_the_precision_of_a_search_holds_for_all_its_trials(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    study = search_small(tmp_path, space, trials=2, precision="bf16")
    resume("s", root=tmp_path, trials=3)
    assert [record.candidate.precision for record in study.records()] == ["bf16"] * 3
    text = SPACE.replace("fix: {", "fix: {precision: bf16, ")
    study = search_small(tmp_path, write_space(tmp_path, text, "half"), trials=1, study="t", precision=None)
    assert study.records()[0].candidate.precision == "bf16"
    # where neither says anything, the machine decides
    study = search_small(tmp_path, space, trials=1, study="u", precision=None)
    assert study.records()[0].candidate.precision == find_precision("auto", torch.device("cpu"))
    assert study.settings.precision == study.records()[0].candidate.precision


def test_another_optuna_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Notes(Watcher):
        def note(self, message: str) -> None:
            heard.append(message)

    heard: list[str] = []
    search_small(tmp_path, write_space(tmp_path), trials=1, watcher=Notes())
    assert not any("Optuna" in message for message in heard)
    before = optuna.__version__
    monkeypatch.setattr(optuna, "__version__", "5.99.1")
    for _ in range(2):
        resume("s", root=tmp_path, watcher=Notes())
    told = [message for message in heard if "Optuna" in message]
    assert told == [f"Optuna was {before} and is now 5.99.1: proposals may differ from those of an uninterrupted run"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql+psycopg2://me:se:cr@et@host/db", "postgresql+psycopg2://me:***@host/db"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("sqlite:////tmp/a:b@c.db", "sqlite:////tmp/a:b@c.db"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize("url", ["nonsense://me:secret@host/db", "postgresql://me:secret@127.0.0.1:1/db"])
def test_a_database_that_cannot_be_opened_keeps_the_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot open the study's database") as caught:
        load_study("s", root=tmp_path, storage=url)
    assert "secret" not in str(caught.value)


def test_a_changed_data_file_is_refused(tmp_path: Path, events_table: tuple[Path, Path]) -> None:
    from autoctr.search.inputs import open_dataset
    from autoctr.search.run import search

    table, schema = events_table
    search(table=table, schema=schema, space=str(write_space(tmp_path)), trials=1, study="s", root=tmp_path)
    text = table.read_text().splitlines()
    table.write_text("\n".join(text[:-1]) + "\n")
    with pytest.raises(UserError, match="cannot go on, because what it searches has changed: the data set has"):
        resume("s", root=tmp_path, trials=2)
    with pytest.raises(UserError, match="the data of study s has changed"):
        open_dataset(load_study("s", root=tmp_path))


def test_a_name_is_taken_once(finished: Study, space_file: Path) -> None:
    root = finished.folder.parent
    with pytest.raises(UserError, match="study s exists; continue it with: autoctr resume s"):
        search_small(root, space_file)
    with pytest.raises(UserError, match=r"there is no study nobody in .*; there are: s"):
        load_study("nobody", root=root)
    for name in ("a b", "../x", "-x", ""):
        with pytest.raises(UserError, match="is not usable"):
            Study.create(name, finished.settings, {}, root=root)


def test_a_study_killed_while_it_was_made_can_be_made_again(space_file: Path, tmp_path: Path) -> None:
    import optuna

    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "study.db").touch()
    with pytest.raises(UserError, match="study s was never begun"):
        load_study("s", root=tmp_path)
    optuna.create_study(storage=f"sqlite:///{folder / 'study.db'}", study_name="s", direction="minimize")
    study = search_small(tmp_path, space_file, trials=1)
    assert study.database.direction.name == "MAXIMIZE"
    assert len(study.records()) == 1


def test_only_one_process_runs_a_study(finished: Study) -> None:
    second = load_study("s", root=finished.folder.parent)
    with finished.owned(), pytest.raises(UserError, match="study s is being run by process"), second.owned():
        pass
    with second.owned():
        pass


def test_the_database_is_in_write_ahead_mode(finished: Study) -> None:
    with sqlite3.connect(finished.folder / "study.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_damaged_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "study.db").write_bytes(b"no database at all, " * 100)
    with pytest.raises(UserError, match="cannot open the study's database"):
        load_study("s", root=tmp_path)


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlalchemy

    def full(*_: object, **__: object) -> None:
        raise sqlalchemy.exc.OperationalError("", {}, sqlite3.OperationalError("disk I/O error"))

    monkeypatch.setattr(sqlalchemy.Engine, "connect", full)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "study.db").write_bytes(b" ")
    with pytest.raises(UserError, match=r"disk I/O error\); if the disk is full, make room on it"):
        load_study("s", root=tmp_path)


def test_a_study_on_a_disk_that_is_only_read(finished: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "copied"
    shutil.copytree(finished.folder, root / finished.name)
    before = (root / finished.name / "study.db").read_bytes()
    real = os.access

    def access(path: Path, mode: int) -> bool:
        return real(path, mode) and not Path(path).is_relative_to(root)

    monkeypatch.setattr("os.access", access)
    study = load_study(finished.name, root=root)
    assert [record.value for record in study.records()] == [record.value for record in finished.records()]
    with pytest.raises(optuna.exceptions.StorageInternalError):
        study.database.set_user_attr("written", 1)
    assert (root / finished.name / "study.db").read_bytes() == before


def test_a_renamed_folder_is_told(finished: Study, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "other")
    with pytest.raises(UserError, match=f"holds the study {finished.name}; rename it to"):
        load_study("other", root=tmp_path)


def test_a_database_elsewhere(space_file: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'all.db'}"
    study = search_small(tmp_path / "studies", space_file, trials=1, storage=storage)
    (study.folder / "lock").unlink()
    again = resume("s", root=tmp_path / "studies", storage=storage, trials=2)
    assert len(again.records()) == 2
    with pytest.raises(UserError, match=r"there is no study t in .*; there are: s"):
        load_study("t", root=tmp_path / "studies", storage=storage)


def test_weights_of_the_best_and_of_trial_0_are_kept(finished: Study) -> None:
    complete = sorted((r for r in finished.records() if r.state == "COMPLETE"), key=lambda r: (-r.value, r.number))  # type: ignore[operator]
    assert set(finished.kept()) == {0, *(record.number for record in complete[:KEPT_WEIGHTS])}


def test_the_summary_is_json(finished: Study) -> None:
    facts = json.loads(json.dumps(summary(finished), allow_nan=False))
    best = finished.best()
    assert best is not None
    assert facts["seconds"]["training"] == sum(record.seconds for record in finished.records())
    assert facts["seconds"]["wall"] > 0
    assert "searched for" in study_text(finished)
    assert facts["best"]["number"] == best.number
