from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fake_data import MARKETS, fake_dataset
from reference import transfer
from torch import Tensor

from autoctr.data.cache import Recipe
from autoctr.data.dataset import SPLITS, Dataset, Rows
from autoctr.data.schema import Column, Schema
from autoctr.data.splits import RandomSplit
from autoctr.errors import UserError
from autoctr.model.architecture import parallel
from autoctr.model.candidate import Candidate
from autoctr.report.curve import replay_text
from autoctr.training import snapshots as snapshots_module
from autoctr.training import stream as stream_module
from autoctr.training.cohort import Cohort, frozen_tables
from autoctr.training.days import DayLog, day_numbers
from autoctr.training.rows import ResidentRows
from autoctr.training.schedule import Schedule
from autoctr.training.snapshots import LeakError
from autoctr.training.stream import (
    BASE,
    FULL,
    VARIANTS,
    Replay,
    forgetting,
    initialised,
    plain_candidate,
    replay,
    stream,
)

DAYS, WARM, LENGTH = 10, 4, 1000
FAST: dict[str, Any] = {
    "embedding": 4, "width": 8, "blocks": 1, "wiring": parallel(1), "batch": 32, "averaging": 0.0,
    "learning_rate": 0.02,
}  # fmt: skip
NAMES = [variant.name for variant in VARIANTS]


def timed(dataset: Dataset) -> Dataset:
    """Training rows on the days 0 to 6, validation on 7, test on 8 and 9, at random times of the day."""
    draw = np.random.default_rng(4)
    splits = {}
    for split, (first, last) in {"train": (0, 7), "valid": (7, 8), "test": (8, 10)}.items():
        rows: Rows = getattr(dataset, split)
        times = draw.integers(first * LENGTH, last * LENGTH, len(rows))
        times[-1] = last * LENGTH - 1
        splits[split] = dataclasses.replace(rows, time=times)
    return dataclasses.replace(dataset, **splits)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return timed(fake_dataset(rows=500, unseen=0.05))


def tampered(dataset: Dataset, change: Callable[[Rows, npt.NDArray[np.bool_]], Rows], first_day: int) -> Dataset:
    """``dataset`` with rows from a day on changed."""
    splits = {split: getattr(dataset, split) for split in SPLITS}
    return dataclasses.replace(
        dataset, **{split: change(rows, rows.time >= first_day * LENGTH) for split, rows in splits.items()}
    )


def run(dataset: Dataset, candidate: dict[str, Any] | None = None, **schedule: Any) -> Replay:
    chosen = Schedule(**{"day_length": LENGTH, "warm_up": WARM / DAYS, "window": 2, "epochs": 1} | schedule)
    return replay(dataset, chosen, Candidate(**FAST | (candidate or {})), user="user")


@pytest.fixture(scope="module")
def found(dataset: Dataset) -> Replay:
    return run(dataset)


def losses(found: Replay) -> dict[str, list[float]]:
    return {curve.variant: [day.logloss for day in curve.days] for curve in found.curves}


# no look ahead


@pytest.fixture
def logits(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The logits of every scoring, in order: all variants of the first scored day, then the next."""
    seen: list[Tensor] = []
    original = stream_module.score

    def spy(scores: Tensor, *rest: Any) -> Any:
        seen.append(scores.clone())
        return original(scores, *rest)

    monkeypatch.setattr(stream_module, "score", spy)
    return seen


def other_labels(rows: Rows, late: npt.NDArray[np.bool_]) -> Rows:
    return dataclasses.replace(rows, labels=np.where(late[:, None], 1 - rows.labels, rows.labels))


def other_ids(rows: Rows, late: npt.NDArray[np.bool_]) -> Rows:
    return dataclasses.replace(rows, ids=np.where(late[:, None], rows.ids[::-1], rows.ids))


@pytest.mark.parametrize("day", [5, 8])
def test_labels_change_nothing_that_was_scored_on_their_day_or_before(
    dataset: Dataset, logits: list[Tensor], day: int
) -> None:
    run(dataset)
    before = list(logits)
    logits.clear()
    run(tampered(dataset, other_labels, day))
    assert len(before) == len(logits) == len(NAMES) * (DAYS - WARM)
    for number, (old, new) in enumerate(zip(before, logits, strict=True)):
        assert torch.equal(old, new) == (WARM + number // len(NAMES) <= day)


def test_trap_5_5_1_rows_change_nothing_before_their_day(dataset: Dataset, found: Replay) -> None:
    changed = losses(run(tampered(dataset, other_ids, 7)))
    for name, values in losses(found).items():
        assert changed[name][: 7 - WARM] == values[: 7 - WARM]
        assert changed[name][7 - WARM] != values[7 - WARM]


def test_a_model_that_has_seen_the_day_does_not_score_it(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    original = DayLog.numbers

    def one_day_ahead(self: DayLog, domains: Any, first: int, last: int) -> Any:
        return original(self, domains, first, last + (last > first))

    monkeypatch.setattr(DayLog, "numbers", one_day_ahead)
    with pytest.raises(LeakError, match=r"rows up to time \d+, but rows from time \d+ on read it"):
        run(dataset)


def test_trap_5_5_1_a_snapshot_too_new_stops_the_replay(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    original = stream_module.TinyModel.snapshot
    monkeypatch.setattr(stream_module.TinyModel, "snapshot", lambda self, rows, end: original(self, rows, end - 1))
    with pytest.raises(LeakError, match="the snapshot before 1 has learned from rows up to time 1"):
        run(dataset)


# who learns when


class Training:
    """Every call of ``passes``: which level, its batch orders and its rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, tuple[int, ...], int]] = []

        def spy(cohort: Cohort, rows: ResidentRows, seed: int, orders: list[int], *_: float, **__: Any) -> None:
            tiny = cohort.network.candidates[0].architecture == "deep"
            domains = set(rows.domain.tolist())
            level = "tiny" if tiny else "complete" if domains == {0} else "target"
            assert (0 in domains) == (level != "target")
            self.calls.append((level, tuple(orders), len(rows)))

        monkeypatch.setattr(stream_module, "passes", spy)
        monkeypatch.setattr(snapshots_module, "passes", spy)

    def of(self, level: str) -> list[tuple[tuple[int, ...], int]]:
        return [(orders, rows) for kind, orders, rows in self.calls if kind == level]


def only(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(stream_module, "VARIANTS", [variant for variant in VARIANTS if variant.name == name])


def rows_of(dataset: Dataset, domains: list[int], first: int, last: int) -> int:
    return len(DayLog(dataset, LENGTH).numbers(domains, first, last))


def test_each_level_is_refreshed_at_its_own_period(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, FULL)
    training = Training(monkeypatch)
    run(dataset, target_days=1, cpm_days=3, tpm_days=2, epochs=2)
    assert [rows for _, rows in training.of("tiny")] == [rows_of(dataset, [0], d, d + 1) for d in range(0, 10, 2)]
    assert [rows for _, rows in training.of("complete")] == [rows_of(dataset, [0], d, d + 2) for d in (0, 3, 6)]
    days = [rows_of(dataset, [1, 2, 3], d, d) for d in range(10)]
    again = [*days[:3], *days[3:5], *days[:6], *days[6:8], *days[:9], days[9]]
    assert [rows for _, rows in training.of("target")] == again
    orders = {orders for _, orders, _ in training.calls}
    assert len(orders) == 5 + 3 + 10
    assert len({number for several in orders for number in several}) == 2 * len(orders)


def test_all_variants_see_the_same_batches(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    for name in (BASE, "no CPM", FULL, "no TPM"):
        with monkeypatch.context() as patch:
            only(patch, name)
            training = Training(patch)
            run(dataset, target_days=2)
            seen[name] = training
    assert len(seen[BASE].of("target")) == 5
    assert not seen[BASE].of("complete")
    assert not seen["no CPM"].of("complete")
    assert seen["no CPM"].of("target") == seen[BASE].of("target")
    for level in ("complete", "target"):
        assert seen["no TPM"].of(level) == seen[FULL].of(level)
    assert set(seen[BASE].of("target")) == set(seen[FULL].of("target"))
    assert len(seen[FULL].of("target")) > 5


def test_training_anew_takes_all_target_rows_so_far(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "scratch")
    training = Training(monkeypatch)
    run(dataset)
    assert [rows for _, rows in training.of("target")] == [rows_of(dataset, [1, 2, 3], 0, d) for d in range(3, 10)]
    monkeypatch.undo()
    only(monkeypatch, "scratch")
    training = Training(monkeypatch)
    run(dataset, target_days=3)
    assert [rows for _, rows in training.of("target")] == [rows_of(dataset, [1, 2, 3], 0, d) for d in (2, 5, 8)]


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_trap_5_5_5_the_target_starts_as_the_complete_model_but_for_its_normalisation(
    dataset: Dataset, norm: str
) -> None:
    tables = frozen_tables(dataset)
    candidate = Candidate(**FAST | {"norm": norm, "dropout": 0.3})
    complete = Cohort(dataset.statistics, [candidate], tables, ramp=100)
    source = ResidentRows(dataset.train, len(MARKETS), dtype=torch.float32, device="cpu")
    fresh = complete.network.layout.views(complete.flat.clone())
    for batch in source.batches(0, 0, 32):
        complete.step(batch)
    target = initialised(complete, tables, 100)
    assert torch.equal(target.table, complete.table)
    assert target.table.data_ptr() != complete.table.data_ptr()
    theirs = complete.network.layout.views(complete.flat)
    normalised = 0
    for name, view in target.network.layout.views(target.flat).items():
        if ".norm." in name:
            normalised += 1
            assert torch.equal(view, fresh[name])
            assert not torch.equal(view, theirs[name])
        else:
            assert torch.equal(view, theirs[name])
            assert not torch.equal(view, fresh[name])
    assert normalised == (2 if norm == "batch" else 0)
    assert torch.equal(target.running, target.network.initial_running())
    assert target.steps == 0
    assert not target.dense.first.any()


# what the variants read


def test_trap_5_5_6_every_ablation_is_another_one(dataset: Dataset, found: Replay) -> None:
    values = [tuple(days) for days in losses(found).values()]
    assert len(values) == len(set(values)) == len(NAMES)
    assert all(len(days) == DAYS - WARM for days in values)


def test_only_transfer_reads_the_source(dataset: Dataset, found: Replay) -> None:
    def flip(rows: Rows, late: npt.NDArray[np.bool_]) -> Rows:
        return other_labels(rows, rows.domain == 0)

    changed, before = losses(run(tampered(dataset, flip, 0))), losses(found)
    same = {name for name in NAMES if changed[name] == before[name]}
    assert same == {BASE, "scratch"}


def test_pooling_and_window_matter_to_those_who_read_snapshots(dataset: Dataset, found: Replay) -> None:
    seen = [losses(found)]
    for changes in ({"pooling": "mean"}, {"pooling": "last"}, {"window": 3}, {"tpm_embedding": 3}):
        seen.append(losses(run(dataset, **changes)))
    for name in NAMES:
        distinct = len({tuple(values[name]) for values in seen})
        assert distinct == (5 if name in (FULL, "no CPM") else 1)


def test_transfer_helps_where_domains_agree(dataset: Dataset) -> None:
    offset = dataset.statistics.offsets["item"]
    slot = next(n for n in range(dataset.train.ids.shape[1]) if (dataset.train.ids[:, n] >= offset).all())

    def liked_items(rows: Rows, late: npt.NDArray[np.bool_]) -> Rows:
        return dataclasses.replace(rows, labels=((rows.ids[:, slot] - offset) % 2).astype(np.float32)[:, None])

    # slow embeddings, as otherwise one day teaches them what there is to know
    found = run(tampered(dataset, liked_items, 0), {"embedding_rate": 1.0})
    mean = {curve.variant: curve.mean("auc") or 0.0 for curve in found.curves}
    assert mean["no TPM"] > mean[BASE] + 0.02
    assert mean["no CPM"] > mean[BASE] + 0.01
    assert mean[FULL] > mean[BASE] + 0.02


def test_a_replay_repeats_bit_for_bit_and_depends_on_its_seed(dataset: Dataset, found: Replay) -> None:
    assert run(dataset).curves == found.curves
    both = run(dataset, seeds=2)
    assert [curve.seed for curve in both.curves] == [0] * len(NAMES) + [1] * len(NAMES)
    assert both.curves[: len(NAMES)] == found.curves
    for first, second in zip(both.curves[: len(NAMES)], both.curves[len(NAMES) :], strict=True):
        assert first.days != second.days


def test_batch_normalisation_and_averages_replay(dataset: Dataset) -> None:
    values = losses(run(dataset, {"norm": "batch", "averaging": 0.9, "order": "alternating"}))
    assert all(np.isfinite(days).all() for days in values.values())


# measures


def test_forgetting_is_the_references() -> None:
    draw = np.random.default_rng(0)
    table = draw.random((6, 4))
    histories = [table[day:, day].tolist() for day in range(4)]
    assert forgetting(histories) == pytest.approx(transfer.forgetting(table))
    assert forgetting([[]]) == 0.0


def test_trap_5_5_2_forgetting_follows_the_losses_after_each_update(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, BASE)
    draw = np.random.default_rng(1)
    table, calls = draw.random((DAYS - WARM, DAYS - WARM)), iter(range(100))
    order = [(update, day) for update in range(DAYS - WARM) for day in range(update + 1)]
    monkeypatch.setattr(stream_module, "log_loss", lambda *a: torch.tensor(table[order[next(calls)]]))
    (curve,) = run(dataset).curves
    assert curve.forgetting == pytest.approx(transfer.forgetting(table))
    assert next(calls) == len(order)


def test_means_are_weighted_by_rows(found: Replay) -> None:
    curve = found.curves[0]
    rows, values = [day.rows for day in curve.days], [day.logloss for day in curve.days]
    assert len(set(rows)) > 1
    assert curve.mean("logloss") == pytest.approx(np.average(values, weights=rows))
    single = dataclasses.replace(curve.days[0], auc=None)
    assert dataclasses.replace(curve, days=(single, curve.days[1])).mean("auc") == curve.days[1].auc
    assert dataclasses.replace(curve, days=(single,)).mean("auc") is None


def test_the_text_says_what_the_curves_hold(dataset: Dataset, found: Replay) -> None:
    text = replay_text(found)
    counts = [rows_of(dataset, [number], 0, DAYS) for number in range(len(MARKETS))]
    assert f"source de ({counts[0]:,} rows), targets fr ({counts[1]:,} rows), jp ({counts[2]:,} rows)" in text
    assert "fitted on the training split, which reaches to day 7" in text
    for curve in found.curves:
        for metric in ("auc", "wauc", "logloss", "forgetting"):
            assert f"{curve.mean(metric):.5f}" in text
        for day in curve.days:
            assert f"{day.auc:.5f}" in text
    gap = found.curves[0].mean("auc") - found.curves[1].mean("auc")  # type: ignore[operator]
    assert f"{gap:+.5f}" in text
    assert "±" not in text
    assert "±" in replay_text(run(dataset, seeds=2))


def test_a_day_of_one_class_has_no_auc_and_one_without_rows_no_score(dataset: Dataset) -> None:
    def clicks_only(rows: Rows, late: npt.NDArray[np.bool_]) -> Rows:
        return dataclasses.replace(rows, labels=np.where(late[:, None], 1.0, rows.labels).astype(np.float32))

    found = run(tampered(dataset, clicks_only, 9))
    assert found.curves[0].days[-1].auc is None
    assert replay_text(found)

    def to_source(rows: Rows, late: npt.NDArray[np.bool_]) -> Rows:
        assert rows.time is not None
        return dataclasses.replace(rows, domain=np.where(rows.time // LENGTH == 7, 0, rows.domain))

    days = [day.day for day in run(tampered(dataset, to_source, 0)).curves[0].days]
    assert days == [5, 6, 7, 9, 10]


def test_a_period_without_source_rows_keeps_what_there_is(dataset: Dataset) -> None:
    def to_target(rows: Rows, late: npt.NDArray[np.bool_]) -> Rows:
        return dataclasses.replace(rows, domain=np.where(late, np.maximum(rows.domain, 1), rows.domain))

    assert len(run(tampered(dataset, to_target, 4)).curves[0].days) == DAYS - WARM


# days and fields


def test_days_are_counted_back_from_the_newest_time() -> None:
    hour = 3_600_000
    start = 1_650_812_741_436
    times = start + np.asarray([0, hour, 2 * hour, 24 * hour, 25 * hour, 49 * hour])
    assert day_numbers(times).tolist() == [0, 0, 1, 1, 1, 2]
    assert day_numbers(times).tolist() == day_numbers(times // 1000).tolist() == day_numbers(times * 1000).tolist()
    assert day_numbers(times * 1_000_000).tolist() == day_numbers(times).tolist()
    assert day_numbers(np.asarray([5, 6, 6, 9])).tolist() == [0, 1, 1, 4]
    assert day_numbers(np.asarray([0, 23, 24, 71]), 24).tolist() == [0, 0, 1, 2]
    dates = np.asarray([20240228, 20240229, 20240301, 20240301, 20231231])
    assert day_numbers(dates).tolist() == [59, 60, 61, 61, 0]


def test_the_log_joins_the_splits_in_the_order_of_time(dataset: Dataset) -> None:
    log = DayLog(dataset, LENGTH)
    assert log.rows.time is not None
    assert (np.diff(log.rows.time) >= 0).all()
    assert len(log.rows) == sum(len(getattr(dataset, split)) for split in SPLITS)
    assert (log.day == log.rows.time // LENGTH).all()
    assert (log.days, log.encoded_to) == (DAYS, 6)
    numbers = log.numbers([1, 3], 2, 4)
    assert set(log.rows.domain[numbers].tolist()) == {1, 3}
    assert len(numbers) == int((np.isin(log.rows.domain, [1, 3]) & (log.day >= 2) & (log.day <= 4)).sum())


# what a user gets wrong


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"source": "mars"}, "there is no domain 'mars'; legal are de, fr, jp, us"),
        ({"targets": ("mars",)}, "there is no domain 'mars'; legal are de, fr, jp, us"),
        ({"source": "fr", "targets": ("de", "fr")}, "domain fr is both the source and a target"),
        ({"warm_up": 0.99}, "has 10 days and the warm-up takes 10, which leaves no day to score"),
        ({"cpm_days": 5}, "the warm-up has 4 of 10 days, fewer than the 5 between two refreshes"),
        ({"day_length": 1}, "at most 1000 are replayed; give the length of a day"),
        ({"fields": ("market",)}, "TPM field 'market' is not a categorical field; legal are user, item"),
    ],
)
def test_a_schedule_that_the_data_do_not_allow(dataset: Dataset, schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(dataset, **schedule)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"warm_up": 0.0}, "warm-up is 0 of the days"),
        ({"warm_up": 1.0}, "warm-up is 1 of the days"),
        ({"cpm_days": 0}, "cpm days is 0; it must be 1 or more"),
        ({"seeds": 0}, "seeds is 0; it must be 1 or more"),
        ({"day_length": -1}, "day length is -1; it must be 0 or more"),
        ({"pooling": "max"}, "unknown pooling 'max'; legal are attention, mean, last"),
    ],
)
def test_a_schedule_that_is_none(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Schedule(**schedule)


def test_data_without_times_or_with_one_domain(dataset: Dataset) -> None:
    timeless = dataclasses.replace(
        dataset, **{split: dataclasses.replace(getattr(dataset, split), time=None) for split in SPLITS}
    )
    with pytest.raises(UserError, match=r"fake has no time stamps.*timestamp: COLUMN"):
        run(timeless)
    single = dataclasses.replace(dataset.statistics, domains=("de",), domain_rows=(len(dataset.train),))
    with pytest.raises(UserError, match=r"one domain only \(de\)"):
        run(dataclasses.replace(dataset, statistics=single))


def test_levels_without_rows(dataset: Dataset) -> None:
    def move(domain: int) -> Callable[[Rows, npt.NDArray[np.bool_]], Rows]:
        return lambda rows, late: dataclasses.replace(rows, domain=np.where(late, rows.domain, domain))

    with pytest.raises(UserError, match="no rows of the source de in the first 3 days"):
        run(tampered(dataset, move(1), WARM))
    with pytest.raises(UserError, match="no rows of the targets fr, jp, us in the first 4 days"):
        run(tampered(dataset, move(0), WARM))

    def end(rows: Rows, late: npt.NDArray[np.bool_]) -> Rows:
        return dataclasses.replace(rows, domain=np.where(late, 0, rows.domain))

    with pytest.raises(UserError, match="no rows of the targets fr, jp, us after the warm-up of 4 days"):
        run(tampered(dataset, end, WARM))


def test_scores_that_are_no_numbers(dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"are no longer numbers on day \d+; lower the learning rate"):
        run(dataset, {"learning_rate": 10.0, "cross": "matrix", "blocks": 6, "wiring": parallel(6)})


def test_a_recipe_without_times_is_refused_before_it_is_read(tmp_path: Path) -> None:
    def read() -> Any:
        raise AssertionError

    recipe = Recipe("r", Schema((Column("a"),), ("click",), "m"), RandomSplit(), {}, read)
    with pytest.raises(UserError, match="r has no time stamps"):
        stream(recipe, Schedule(), plain_candidate(), cache=tmp_path)
    with pytest.raises(UserError, match=r"learning rate is -1\.0; legal is 0 to 10"):
        plain_candidate(learning_rate=-1.0)
