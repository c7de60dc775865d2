"""States of work under way: when they are written, and what is found after a crash."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fake_data import fake_dataset
from model.networks import resident

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import parallel
from autoctr.model.candidate import Candidate
from autoctr.training import keeping
from autoctr.training.cohort import Cohort
from autoctr.training.keeping import Keeper, Work
from autoctr.training.state import State


def of(number: int) -> State:
    return {"x": torch.tensor([number])}, {"number": number}


def number_of(keeper: Keeper, name: str = "a") -> int | None:
    found = keeper.find(name)
    if found is None:
        return None
    assert found[0]["x"].item() == found[1]["number"]
    return int(found[1]["number"])


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path / "running", every=0)


def test_the_latest_of_two_states_is_found(keeper: Keeper, tmp_path: Path) -> None:
    assert number_of(keeper) is None
    for number in range(5):
        keeper.offer("a", lambda number=number: of(number))
        assert number_of(keeper) == number
        assert len(list((tmp_path / "running").iterdir())) == min(number + 1, 2)
    assert number_of(keeper, "b") is None
    assert number_of(Keeper(tmp_path / "running")) == 4


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "gone"])
def test_behind_a_damaged_state_the_one_before_is_found(damage: str, tmp_path: Path) -> None:
    told: list[str] = []
    keeper = Keeper(tmp_path, every=0, on_message=told.append)
    for number in range(3):
        keeper.offer("a", lambda number=number: of(number))
    del told[:]
    newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    content = newest.read_bytes()
    if damage == "gone":
        newest.unlink()
    else:
        cut = {"cut": content[:-3], "flipped": content[:-8] + b"\x09" + content[-7:], "emptied": b""}
        newest.write_bytes(cut[damage])
    assert number_of(keeper) == 1
    assert len(told) == (damage != "gone")
    assert all("is damaged" in message and "going on from an older state" in message for message in told)
    keeper.offer("a", lambda: of(7))
    assert number_of(keeper) == 7


def test_states_are_written_when_they_are_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(keeping.time, "monotonic", lambda: now[0])
    told: list[str] = []
    keeper = Keeper(tmp_path, on_message=told.append)

    def slow() -> State:
        now[0] += 4.0
        return of(int(now[0]))

    keeper.offer("a", slow)
    assert number_of(keeper) is None
    now[0] = 160.0
    keeper.offer("a", slow)
    assert number_of(keeper) == 164
    assert keeper.every == 33 * 4.0
    assert told == ["what is under way is on disk (4.0 s); again every 132 s of training"]
    now[0] = 164.0 + 131.0
    keeper.offer("a", slow)
    assert number_of(keeper) == 164
    now[0] += 1.0
    keeper.offer("a", slow)
    assert number_of(keeper) == 300
    assert len(told) == 1


def test_results_are_written_with_what_builds_on_them(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, every=0)
    keeper.later("first", lambda: of(1))
    assert number_of(keeper, "first") is None
    keeper.offer("second", lambda: of(2))
    assert (number_of(keeper, "first"), number_of(keeper, "second")) == (1, 2)
    keeper.later("third", lambda: of(3))
    keeper.offer("fourth", lambda: of(4), instead=True)
    assert (number_of(keeper, "third"), number_of(keeper, "fourth")) == (None, 4)
    keeper.forget()
    assert not list(tmp_path.iterdir())


def test_without_a_folder_nothing_is_kept() -> None:
    keeper = Keeper(None, every=0)
    keeper.later("a", lambda: pytest.fail("written"))
    keeper.offer("a", lambda: pytest.fail("written"))
    assert keeper.find("a") is None
    keeper.forget()


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=400)


MEMBERS = [
    Candidate(embedding=4, width=8, batch=64, averaging=0.9, seed=seed, wiring=parallel(2), dropout=0.3)
    for seed in (1, 2)
]


def test_a_cohort_goes_on_bit_for_bit(dataset: Dataset, tmp_path: Path) -> None:
    work, rows = Work(Keeper(tmp_path, every=0), "w").part(3), resident(dataset, "train", torch.float32)
    whole = Cohort.on(dataset, MEMBERS)
    for number, batch in enumerate(rows.batches(0, 0, 64)):
        whole.step(batch)
        if number == 2:
            work.offer(whole)
    again = Cohort.on(dataset, MEMBERS)
    work.resume(again)
    assert (again.steps, again.rows) == (3, 192)
    for batch in rows.batches(0, 0, 64, visited=again.rows):
        again.step(batch)
    for mine, theirs in (
        (again.flat, whole.flat),
        (again.table, whole.table),
        (again.weights().flat, whole.weights().flat),
        (again.weights().table, whole.weights().table),
    ):
        assert torch.equal(mine, theirs)


def test_work_without_a_state_begins_at_its_start(dataset: Dataset, tmp_path: Path) -> None:
    cohort = Cohort.on(dataset, MEMBERS)
    Work(Keeper(tmp_path, every=0), "w").resume(cohort)
    assert cohort.steps == 0


def test_rounds_of_one_work_take_one_place(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, every=0)
    for number in range(4):
        assert number_of(keeper, f"round#{number}") is None
        for value in (1, 2):
            keeper.offer(f"round#{number}", lambda value=value: of(value))
        assert number_of(keeper, f"round#{number}") == 2
    assert number_of(keeper, "round#2") is None
    assert len(list(tmp_path.iterdir())) == 2
