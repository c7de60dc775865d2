"""Snapshots as columns of a data set: who reads which, what they have learned from, and how they are kept."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fake_data import MARKETS, fake_dataset

from autoctr.data.dataset import SPLITS, Dataset, Rows
from autoctr.data.statistics import Kind
from autoctr.errors import UserError
from autoctr.model.architecture import parallel
from autoctr.model.candidate import Candidate
from autoctr.model.embedding import SnapshotField
from autoctr.training import checkpoint, snapshot_file
from autoctr.training.cohort import Cohort
from autoctr.training.fit import OutOfTime
from autoctr.training.keeping import Keeper
from autoctr.training.periods import boundaries, obstacle, rich_domains, visited_rows, with_snapshots
from autoctr.training.rows import ResidentRows
from autoctr.training.snapshots import LeakError, TinyModel

EMBEDDING = 4
BASIC = ("user", "item")
#: Times of the rows: all distinct, many at a moment, or nearly all at one.
TIMES = {"distinct": 10**6, "ties": 7, "one moment": 1}


def timed(kind: str = "distinct", rows: int = 240, seed: int = 0) -> Dataset:
    """A data set whose splits overlap in time, in no order."""
    dataset, draw = fake_dataset(rows=rows, unseen=0.1), np.random.default_rng(seed)

    def stamped(rows: Rows, late: int) -> Rows:
        times = draw.integers(0, TIMES[kind], len(rows)) + 1000
        times[: len(rows) // 5] += late
        return dataclasses.replace(rows, time=times)

    splits = {split: stamped(getattr(dataset, split), late) for split, late in zip(SPLITS, (0, 3, 10**7), strict=True)}
    return dataclasses.replace(dataset, **splits)


def genes(**changes: Any) -> Candidate:
    return Candidate(**{"embedding": EMBEDDING, "snapshots": 4, "warm_share": 0.5, **changes})


@pytest.fixture(params=TIMES)
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return timed(request.param)


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[Rows]:
    """The rows of every call that trains a tiny model."""
    inner, seen = TinyModel.train, []

    def train(self: TinyModel, rows: Rows, *rest: Any, **options: Any) -> None:
        seen.append(rows)
        inner(self, rows, *rest, **options)

    monkeypatch.setattr(TinyModel, "train", train)
    return seen


def expected_ends(times: list[int], count: int) -> list[int]:
    """The rule of the periods, row by row."""
    ordered = sorted(times)
    ends = {ordered[math.floor(place * len(ordered) / count)] for place in range(1, count)}
    return sorted({end for end in ends if end > ordered[0]} | {ordered[-1] + 1})


def rich_rows(dataset: Dataset, share: float = 0.5) -> npt.NDArray[np.bool_]:
    order = np.argsort([-rows for rows in dataset.statistics.domain_rows], kind="stable")
    return np.isin(dataset.train.domain, order[: round(share * len(MARKETS))])


# who reads which


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_every_row_reads_the_snapshots_that_ended_by_its_time(dataset: Dataset, count: int) -> None:
    found = with_snapshots(dataset, genes(snapshots=count), seed=0)
    train = dataset.train
    assert train.time is not None
    ends = expected_ends(train.time[rich_rows(dataset)].tolist(), count)
    fields = [field for field in found.statistics.fields if isinstance(field, SnapshotField)]
    assert [field.of for field in fields] == list(BASIC)
    assert [field.window for field in fields] == [len(ends)] * 2
    slots = {"user": 0, "item": dataset.train.ids.shape[1] - 1}
    offsets, sizes = dataset.statistics.offsets, {f.name: f.size for f in dataset.statistics.embedded}
    for split in SPLITS:
        before, rows = getattr(dataset, split), getattr(found, split)
        assert np.array_equal(rows.vectors[:, :1], before.vectors)
        for row in range(len(before)):
            ended = sum(end <= before.time[row] for end in ends)
            for column, name in enumerate(BASIC, 1):
                number = before.ids[row, slots[name]] - offsets[name]
                assert rows.vectors[row, column] == ended * sizes[name] + number
                # the table begins with as many empty snapshots as a row reads
                table = found.tables[f"snapshots of {name}"]
                assert len(table) == 2 * len(ends) * sizes[name]
                assert not table[: len(ends) * sizes[name]].any()


@pytest.mark.parametrize("count", [2, 4, 9])
def test_trap_5_5_1_no_snapshot_learns_from_a_row_as_new_as_its_readers(
    dataset: Dataset, count: int, taught: list[Rows]
) -> None:
    found = with_snapshots(dataset, genes(snapshots=count), seed=0)
    sizes = {field.name: field.size for field in dataset.statistics.embedded}
    newest = np.maximum.accumulate([rows.time.max() for rows in taught if rows.time is not None])
    for split in SPLITS:
        rows = getattr(found, split)
        read = rows.vectors[:, 1] // sizes["user"]
        for version in np.unique(read[read > 0]):
            assert newest[version - 1] < rows.time[read == version].min()


def test_a_snapshot_that_is_too_new_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has learned from a row of the very moment at which it begins to be read."""
    original = TinyModel.snapshot
    monkeypatch.setattr(
        TinyModel, "snapshot", lambda self, rows, end: dataclasses.replace(original(self, rows, end), latest=end)
    )
    with pytest.raises(LeakError, match="has learned from rows up to time"):
        with_snapshots(timed("ties"), genes(), seed=0)


@pytest.mark.parametrize("split", SPLITS)
def test_labels_of_rows_reach_only_what_is_later(split: str) -> None:
    """Other labels from a moment on change no column, and no snapshot that any earlier row reads."""
    dataset = timed("ties")
    rows = getattr(dataset, split)
    assert rows.time is not None
    late = rows.time >= 1004
    labels = np.where(late[:, None], 1 - rows.labels, rows.labels)
    changed = dataclasses.replace(dataset, **{split: dataclasses.replace(rows, labels=labels)})
    first, second = (with_snapshots(data, genes(snapshots=7), seed=0) for data in (dataset, changed))
    size = {field.name: field.size for field in dataset.statistics.embedded}["user"]
    tables = [data.tables["snapshots of user"].reshape(-1, size, EMBEDDING) for data in (first, second)]
    window = len(tables[0]) // 2
    for part in SPLITS:
        mine, other = getattr(first, part), getattr(second, part)
        assert np.array_equal(mine.vectors, other.vectors)
        early = mine.time <= 1004
        version = int(mine.vectors[early, 1].max()) // size
        assert np.array_equal(tables[0][: window + version], tables[1][: window + version])
    assert np.array_equal(tables[0], tables[1]) == (split != "train")


# periods


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64])
@pytest.mark.parametrize(
    "times", [[5], [5, 5, 5, 5], [1, 2, 3, 4, 5, 6, 7, 8], [1, 1, 1, 1, 1, 1, 9], [9, 1, 9, 9, 9, 9], list(range(100))]
)
def test_periods_hold_rows_and_end_after_the_newest(times: list[int], count: int) -> None:
    ends = boundaries(np.array(times), count)
    assert ends.tolist() == expected_ends(times, count)
    assert 1 <= len(ends) <= count
    counts = np.diff([0, *np.searchsorted(np.sort(times), ends)])
    assert (counts > 0).all()
    assert counts.sum() == len(times)


def test_the_tiny_model_goes_once_over_the_rich_domains_training_rows(dataset: Dataset, taught: list[Rows]) -> None:
    with_snapshots(dataset, genes(), seed=0)
    chosen = dataset.train.take(np.flatnonzero(rich_rows(dataset)))
    assert chosen.time is not None
    rows = [np.concatenate([getattr(part, name) for part in taught]) for name in ("time", "domain")]
    assert sorted(zip(*map(np.ndarray.tolist, rows), strict=True)) == sorted(
        zip(chosen.time.tolist(), chosen.domain.tolist(), strict=True)
    )
    assert sum(map(len, taught)) == visited_rows(dataset, genes())


@pytest.mark.parametrize(("share", "domains"), [(0.0, [0]), (0.25, [0]), (0.5, [0, 1]), (0.9, [0, 1, 2, 3])])
def test_rich_domains_are_those_with_most_rows(share: float, domains: list[int]) -> None:
    assert rich_domains(timed().statistics, share) == domains


# what depends on what


def tables(dataset: Dataset) -> npt.NDArray[np.float32]:
    return np.concatenate([dataset.tables[f"snapshots of {name}"] for name in BASIC])


def test_snapshots_depend_on_their_genes_alone() -> None:
    dataset = timed()
    first = tables(with_snapshots(dataset, genes(), seed=0))
    same = genes(learning_rate=0.1, dropout=0.5, batch=64, warm_start=1.0, pooling="mean", width=8, seed=5)
    assert np.array_equal(first, tables(with_snapshots(dataset, same, seed=0)))
    for changed, seed in ((genes(), 1), (genes(warm_share=0.25), 0), (genes(embedding=3), 0), (genes(snapshots=3), 0)):
        other = tables(with_snapshots(dataset, changed, seed=seed))
        assert first.shape != other.shape or not np.array_equal(first, other)
    assert first.any()


def test_without_the_gene_the_data_set_stays_as_it_is() -> None:
    dataset = timed()
    assert with_snapshots(dataset, genes(snapshots=0), seed=0) is dataset


def test_a_data_set_without_times_or_basic_fields_has_no_snapshots() -> None:
    dataset = timed()
    assert obstacle(dataset) is None
    timeless = dataclasses.replace(dataset, valid=dataclasses.replace(dataset.valid, time=None))
    assert obstacle(timeless) == "has no time stamps"
    fields = tuple(f for f in dataset.statistics.fields if f.kind is not Kind.CATEGORICAL or f.name == "market")
    bare = dataclasses.replace(dataset, statistics=dataclasses.replace(dataset.statistics, fields=fields))
    assert obstacle(bare) == "has no categorical field beside the domain"
    for data in (timeless, bare):
        with pytest.raises(UserError, match=r"snapshots is 4, but fake has no .*; legal is 0"):
            with_snapshots(data, genes(), seed=0)


def test_the_deadline_counts_for_the_tiny_model() -> None:
    with pytest.raises(OutOfTime):
        with_snapshots(timed(), genes(), seed=0, deadline=time.monotonic() - 1)


# kept on disk


def test_what_is_kept_is_used_and_equal_to_the_bit(tmp_path: Path, taught: list[Rows]) -> None:
    dataset = timed()
    first = with_snapshots(dataset, genes(), seed=0, folder=tmp_path)
    assert len(taught) == 4
    again = with_snapshots(dataset, genes(pooling="last"), seed=0, folder=tmp_path)
    assert len(taught) == 4
    assert np.array_equal(tables(first), tables(again))
    for split in SPLITS:
        assert np.array_equal(getattr(first, split).vectors, getattr(again, split).vectors)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("others", [{"snapshots": 3}, {"warm_share": 1.0}, {"embedding": 3}, {"seed": 1}, {"key": "k"}])
def test_what_is_kept_of_something_else_is_not_used(others: dict[str, Any], tmp_path: Path, taught: list[Rows]) -> None:
    dataset = timed()
    with_snapshots(dataset, genes(), seed=0, folder=tmp_path)
    seed, key = others.pop("seed", 0), others.pop("key", dataset.key)
    before = len(taught)
    with_snapshots(dataclasses.replace(dataset, key=key), genes(**others), seed=seed, folder=tmp_path)
    assert len(taught) > before
    assert len(list(tmp_path.iterdir())) == 2


def _flip(content: bytes) -> bytes:
    place = len(content) - 5
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"no file of tensors", _flip],
    ids=["cut short", "empty", "something else", "a flipped bit"],
)  # fmt: skip
def test_a_damaged_file_is_made_again(damage: Any, tmp_path: Path) -> None:
    dataset = timed()
    first = tables(with_snapshots(dataset, genes(), seed=0, folder=tmp_path))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert np.array_equal(tables(with_snapshots(dataset, genes(), seed=0, folder=tmp_path)), first)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_other_periods_is_not_believed(tmp_path: Path) -> None:
    dataset = timed()
    with_snapshots(dataset, genes(), seed=0, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    sizes = {field.name: field.size for field in dataset.statistics.embedded}
    shapes = {name: (sizes[name], EMBEDDING) for name in BASIC}
    assert dataset.train.time is not None
    ends = expected_ends(dataset.train.time[rich_rows(dataset)].tolist(), 4)
    kept = snapshot_file.load(path, ends, shapes)
    assert kept is not None
    assert [snapshot.end for snapshot in kept] == ends
    assert all(snapshot.latest < snapshot.end for snapshot in kept)
    assert snapshot_file.load(path, [*ends[:-1], ends[-1] + 1], shapes) is None
    assert snapshot_file.load(path, ends[:-1], shapes) is None
    assert snapshot_file.load(path, ends, {**shapes, "user": (sizes["user"], 3)}) is None
    assert snapshot_file.load(path, ends, {"market": (5, EMBEDDING)}) is None
    assert snapshot_file.load(tmp_path / "none.safetensors", ends, shapes) is None


# downstream


@pytest.mark.parametrize("pooling", ["attention", "mean", "last"])
def test_a_network_on_the_derived_data_survives_its_checkpoint(pooling: str, tmp_path: Path) -> None:
    plain = timed()
    candidate = genes(pooling=pooling, width=8, blocks=1, wiring=parallel(1))
    dataset = with_snapshots(plain, candidate, seed=0)
    cohort = Cohort.on(dataset, [candidate])
    rows = ResidentRows(dataset.train, len(MARKETS), dtype=torch.float32, device="cpu")
    for batch in rows.batches(0, 0, 64):
        cohort.step(batch)
    path = tmp_path / "member.safetensors"
    checkpoint.save(path, cohort.network, cohort.weights())
    again = checkpoint.load(path, with_snapshots(plain, candidate, seed=0))
    assert torch.equal(again.logits(rows), cohort.logits(rows))
    with pytest.raises(UserError, match="snapshots is 4, but the rows read none"):
        checkpoint.load(path, plain)


def test_rows_share_what_the_snapshots_do_not_change() -> None:
    dataset = timed()
    derived = with_snapshots(dataset, genes(), seed=0)
    rows = ResidentRows(dataset.train, len(MARKETS), dtype=torch.float32, device="cpu")
    reading = rows.reading(derived.train.vectors)
    assert reading.ids.data_ptr() == rows.ids.data_ptr()
    assert reading.vectors.shape == (len(rows), 3)
    assert rows.vectors.shape == (len(rows), 1)


@pytest.mark.parametrize("last", [1, 5, 6, 9, 13])
def test_interrupted_training_goes_on_from_its_last_state(
    last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, candidate = timed(rows=900), genes(warm_share=1.0)
    whole = with_snapshots(dataset, candidate, seed=3)
    steps, inner = [0], Cohort.step

    class Killed(BaseException):
        pass

    def step(*args: Any, **options: Any) -> Any:
        if steps[0] == last:
            steps[0] += 1
            raise Killed
        steps[0] += 1
        return inner(*args, **options)

    monkeypatch.setattr(Cohort, "step", step)
    keeper = Keeper(tmp_path / "running", every=0)
    with pytest.raises(Killed):
        with_snapshots(dataset, candidate, seed=3, folder=tmp_path, keeper=keeper)
    again = with_snapshots(dataset, candidate, seed=3, folder=tmp_path, keeper=Keeper(tmp_path / "running"))
    for name, table in whole.tables.items():
        np.testing.assert_array_equal(again.tables[name], table)
    total = sum(math.ceil(len(part) / 64) for part in np.array_split(np.arange(900), 4))
    assert last < steps[0] - 1 == total
