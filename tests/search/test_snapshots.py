"""Studies whose candidates read snapshots: search, proof, resume, compare and export; and data without time stamps."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_study import autoctr, remembered, write_events, write_space

from autoctr.errors import UserError
from autoctr.model.architecture import parallel
from autoctr.model.candidate import Candidate
from autoctr.search import trial as trial_module
from autoctr.search.compare import compare
from autoctr.search.deliver import export
from autoctr.search.events import Watcher
from autoctr.search.inputs import open_dataset
from autoctr.search.rewinding import rewinding
from autoctr.search.run import load_study, resume, search
from autoctr.search.stored import stored_network
from autoctr.search.study import Study
from autoctr.training.fit import score_members
from autoctr.training.rows import ResidentRows
from search.conftest import make_small

SPACE = """\
fix: {epochs: 2, batch: 256, embedding: 4, blocks: 1, width: 8, snapshots: 3}
vary:
  pooling: {choices: [attention, mean, last]}
  warm_start: {choices: [0, 0.5]}
  learning_rate: {low: 1e-3, high: 1e-2, log: true}
"""
MIXED = """\
fix: {epochs: 1, batch: 256, embedding: 4, blocks: 1, width: 8}
vary:
  snapshots: {choices: [0, 2, 4]}
  pooling: {choices: [attention, mean, last]}
  dropout: {low: 0, high: 0.5}
"""


class Notes(Watcher):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def write_timed(folder: Path, rows: int = 1200) -> dict[str, Any]:
    """A table with time stamps, several rows to a moment, as arguments of a search."""
    table, schema = write_events(folder, rows)
    head, *lines = table.read_text().splitlines()
    lines = [f"{line},{1000 + number // 3}" for number, line in enumerate(lines)]
    table.write_text("\n".join([f"{head},when", *lines]) + "\n")
    schema.write_text(schema.read_text().replace("user: user\n", "user: user\ntimestamp: when\n"))
    return {"table": table, "schema": schema}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("snapshots")


@pytest.fixture(scope="module")
def data(folder: Path) -> dict[str, Any]:
    return write_timed(folder)


@pytest.fixture(scope="module")
def space(folder: Path) -> Path:
    return write_space(folder, SPACE, "reading")


@pytest.fixture(scope="module")
def study(shared: Path, folder: Path, data: dict[str, Any], space: Path) -> Study:
    """A finished study; look at it, but do not run it."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, shared)
        return search(**data, space=space, trials=4, study="s", device="cpu", root=folder / "studies")


def reading(study: Study) -> int:
    """The best kept trial that reads snapshots."""
    records = [r for r in study.records() if r.candidate.snapshots and r.number in study.kept()]
    return max(records, key=lambda record: record.value or 0.0).number


def test_the_study_trains_with_snapshots_and_keeps_them(study: Study) -> None:
    records = study.records()
    assert {record.state for record in records} <= {"COMPLETE", "PRUNED"}
    assert [record.candidate.snapshots for record in records] == [0, 3, 3, 3]
    assert len(list((study.folder / "snapshots").glob("*.safetensors"))) == 1
    assert study.database.user_attrs["proof"]["number"] == study.best().number  # type: ignore[union-attr]


def test_what_was_kept_scores_as_it_did(study: Study) -> None:
    number = reading(study)
    record = study.records()[number]
    cohort, dataset = stored_network(study, number, open_dataset(study), "cpu")
    valid = ResidentRows(dataset.valid, len(dataset.statistics.domains), dtype=torch.float32, device="cpu")
    assert record.valid is not None
    assert score_members(cohort, valid, dataset)[0].wauc == record.valid["wauc"]


def test_lost_or_damaged_snapshots_are_made_again_the_same(study: Study, folder: Path) -> None:
    copied = folder / "lost" / "s"
    shutil.copytree(study.folder, copied)
    again = load_study("s", root=folder / "lost")
    number, dataset = reading(study), open_dataset(study)
    before, read = stored_network(study, number, dataset, "cpu")
    rows = ResidentRows(read.test, len(read.statistics.domains), dtype=torch.float32, device="cpu")
    (path,) = (copied / "snapshots").iterdir()
    for damage in (lambda: path.unlink(), lambda: path.write_bytes(path.read_bytes()[:-9])):
        damage()
        after, _ = stored_network(again, number, dataset, "cpu")
        assert torch.equal(after.logits(rows), before.logits(rows))


@pytest.mark.parametrize("moment", ["snapshot", "train"])
def test_killed_in_the_tiny_model_and_resumed_is_as_never_killed(
    moment: str, study: Study, data: dict[str, Any], space: Path, tmp_path: Path
) -> None:
    dying = f"""
import os, signal
from autoctr.training.snapshots import TinyModel
inner, calls = TinyModel.{moment}, []
def outer(*a, **k):
    out = inner(*a, **k)
    calls.append(1)
    if len(calls) == 2: os.kill(os.getpid(), signal.SIGKILL)
    return out
TinyModel.{moment} = outer
"""
    options = ["--table", data["table"], "--schema", data["schema"], "--space", space, "--trials", 4, "--study", "s"]
    killed = autoctr("search", *options, "--device", "cpu", "--root", tmp_path, before=dying)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = resume("s", root=tmp_path)
    assert remembered(resumed) == remembered(study)
    assert resumed.database.user_attrs["proof"] == study.database.user_attrs["proof"]


def test_a_folder_is_exported_and_show_tells_the_genes(study: Study, tmp_path: Path) -> None:
    number = reading(study)
    out, difference = export("s", tmp_path / "out", trial=number, root=study.folder.parent)
    assert difference <= 1e-5
    card = json.loads((out / "card.json").read_text())
    assert card["snapshots"]["fields"] == ["user", "item"]
    shown = autoctr("show", "s", "--trial", number, "--root", study.folder.parent)
    assert "snapshots 3" in shown.stdout


def test_a_winner_that_reads_snapshots_is_compared(
    study: Study, data: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = reading(study)
    monkeypatch.setattr(Study, "best", lambda self: self.records()[number])
    options: dict[str, Any] = {"studies": ["s"], "seeds": 2, "device": "cpu", "root": folder / "studies", "epochs": 1}
    found = compare(**data, models=["dnn"], out=folder / "c.csv", **options)
    assert not found.failures
    assert len(found.of("s")) == 2
    values = [run.wauc for run in found.of("s").values()]
    again = compare(**data, models=["dnn"], out=folder / "again.csv", **options)
    assert [run.wauc for run in again.of("s").values()] == values


def test_tickets_are_rewound_on_data_with_snapshots(study: Study) -> None:
    dataset = open_dataset(study)
    candidate = Candidate(
        embedding=4, width=8, blocks=1, wiring=parallel(1), epochs=1, keep_rate=0.5, ticket_rounds=1, snapshots=2
    )
    assert len(rewinding(dataset, candidate, [0.0], seeds=1).runs) == 1


def test_a_trial_without_time_for_its_snapshots_waits(
    data: dict[str, Any], space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoctr.training.fit import OutOfTime

    def late(*_: Any, **__: Any) -> Any:
        raise OutOfTime

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "with_snapshots", late)
        short = search(**data, space=space, trials=3, study="s", device="cpu", root=tmp_path)
    assert [record.state for record in short.records()] == ["COMPLETE", "WAITING"]
    assert all(record.rungs for record in resume("s", root=tmp_path).records())


# data without time stamps


@pytest.fixture
def timeless(events_table: tuple[Path, Path], tmp_path: Path) -> dict[str, Any]:
    table, schema = events_table
    return {"table": table, "schema": schema, "device": "cpu", "root": tmp_path / "studies"}


NOTE = "snapshots stay off: events has no time stamps"


def test_where_snapshots_may_stay_off_they_do_and_one_note_says_so(timeless: dict[str, Any], tmp_path: Path) -> None:
    notes = Notes()
    space = str(write_space(tmp_path, MIXED, "mixed"))
    found = search(**timeless, space=space, trials=4, study="s", watcher=notes)
    assert notes.said == [NOTE]
    assert all(record.candidate.snapshots == 0 for record in found.records())
    assert not any("snapshots" in record.values or "pooling" in record.values for record in found.records())
    again = Notes()
    longer = resume("s", root=timeless["root"], trials=6, watcher=again)
    assert again.said == [NOTE]
    # as a space that never spoke of them: a study of an earlier version goes on
    text = MIXED.replace("  snapshots: {choices: [0, 2, 4]}\n  pooling: {choices: [attention, mean, last]}\n", "")
    silent = Notes()
    plain = search(**timeless, space=str(write_space(tmp_path, text, "never")), trials=6, study="t", watcher=silent)
    assert not silent.said
    assert remembered(longer) == remembered(plain)
    assert longer.database.user_attrs["fingerprint"] == plain.database.user_attrs["fingerprint"]


@pytest.mark.parametrize(("name", "number"), [("joint", 5), ("ecdctr", 1)])
def test_shipped_spaces_run_without_time_stamps(
    name: str, number: int, timeless: dict[str, Any], tmp_path: Path
) -> None:
    quick = write_space(tmp_path, f"extends: {name}\nfix: {{epochs: 4, width: 16, blocks: 1}}\n", "quick")
    notes = Notes()
    found = search(**timeless, space=str(quick), trials=number + 1, study="s", watcher=notes)
    assert notes.said == [NOTE]
    assert all(record.value is not None for record in found.records())
    assert found.records()[number].candidate.warm_start > 0


@pytest.mark.parametrize(
    "vary",
    ["fix: {snapshots: 2}\nvary: {dropout: {low: 0, high: 0.5}}\n",
     "vary: {snapshots: {choices: [2, 4]}, dropout: {low: 0, high: 0.5}}\n",
     "vary: {snapshots: {low: 1, high: 4}, dropout: {low: 0, high: 0.5}}\n",
     "vary: {snapshots: {choices: [0, 4]}, pooling: {choices: [mean, last]}}\n"],
    ids=["fixed", "choices", "an interval", "nothing else"],
)  # fmt: skip
def test_a_space_that_needs_snapshots_is_a_users_error(vary: str, timeless: dict[str, Any], tmp_path: Path) -> None:
    space = write_space(tmp_path, vary, "needing")
    with pytest.raises(UserError) as caught:
        search(**timeless, space=str(space), trials=1, study="s")
    assert str(caught.value) == (
        "space needing needs snapshots, but events has no time stamps; name the column of times in the schema with "
        "timestamp: COLUMN, or set snapshots to 0"
    )
    assert not (timeless["root"] / "s").exists()


def test_a_model_that_reads_snapshots_is_not_compared_without_time_stamps(
    timeless: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="model reader reads snapshots, but events has no time stamps"):
        compare(**timeless, models={"reader": Candidate(snapshots=2)}, seeds=1, out=tmp_path / "c.csv")


def test_on_one_domain_snapshots_follow_its_own_history(tmp_path: Path) -> None:
    data = write_timed(tmp_path, rows=600)
    text = data["table"].read_text().replace(",fr,", ",de,").replace(",it,", ",de,")
    data["table"].write_text(text)
    space = write_space(tmp_path, SPACE.replace("  warm_start: {choices: [0, 0.5]}\n", ""), "one")
    found = search(**data, space=str(space), trials=2, study="s", device="cpu", root=tmp_path)
    assert [record.candidate.snapshots for record in found.records()] == [0, 3]
