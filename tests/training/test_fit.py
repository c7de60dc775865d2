from __future__ import annotations

import itertools
import math
import time
from typing import Any

import pytest
import torch
from fake_data import fake_dataset
from model.networks import resident

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import full, parallel
from autoctr.model.candidate import Candidate
from autoctr.search.oneshot import search_batch, search_rows, supernet_candidate, train_supernets
from autoctr.training import fit as fit_module
from autoctr.training.cohort import Cohort, frozen_tables, ramp_rows
from autoctr.training.fit import Diverged, Fitted, OutOfTime, Rung, Splits, fit, score_members

FAST: dict[str, Any] = {
    "embedding": 4, "width": 8, "batch": 64, "wiring": parallel(2), "learning_rate": 0.02, "dropout": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=600)


@pytest.fixture(scope="module")
def splits(dataset: Dataset) -> Splits:
    return Splits(resident(dataset, "train", torch.float32), resident(dataset, "valid", torch.float32))


def member(dataset: Dataset, **settings: Any) -> Cohort:
    ramp = ramp_rows(len(dataset.train))
    return Cohort(dataset.statistics, [Candidate(**FAST | settings)], frozen_tables(dataset), ramp=ramp)


def fitted(dataset: Dataset, splits: Splits, cohort: Cohort, **settings: Any) -> Fitted:
    return fit(cohort, splits, dataset, **{"metric": "wauc", "seed": 1, "epochs": 6} | settings)


EVERYTHING: dict[str, Any] = {
    "wiring": full(2), "norm": "batch", "rank": 2, "sparsity": 0.3, "embedding_dropout": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("metric", ["wauc", "auc", "logloss"])
@pytest.mark.parametrize("settings", [{}, {"averaging": 0.0}, EVERYTHING], ids=["averaged", "last", "everything"])
def test_trap_3_8_9_the_weights_that_are_kept_are_those_of_the_best_score_in_the_metric_itself(
    dataset: Dataset, splits: Splits, metric: str, settings: dict[str, Any]
) -> None:
    cohort = member(dataset, **settings)
    result = fitted(dataset, splits, cohort, metric=metric, patience=3)
    values = [rung.scores.value(metric) for rung in result.rungs]
    assert result.best.value(metric) == max(values)
    assert len(set(values)) > 1
    cohort.restore(result.weights)
    again = score_members(cohort, splits.valid, dataset)[0]
    assert again == result.best
    assert cohort.progress == result.weights.progress


def test_a_fit_learns(dataset: Dataset, splits: Splits) -> None:
    cohort = member(dataset, averaging=0.9)
    before = score_members(cohort, splits.train, dataset)[0]
    result = fitted(dataset, splits, cohort, epochs=8, patience=9)
    after = score_members(cohort, splits.train, dataset)[0]
    assert after.value("auc") > 0.72 > before.value("auc") + 0.1
    assert result.best.value("auc") > 0.55


def test_rungs_count_rows_visited_over_all_stages(dataset: Dataset, splits: Splits) -> None:
    result = fitted(dataset, splits, member(dataset), epochs=3, patience=9, visited=1000)
    assert [rung.rows for rung in result.rungs] == [1600, 2200, 2800]
    assert result.reason == "epochs"
    assert all(rung.speed > 0 for rung in result.rungs)


def test_a_fraction_of_an_epoch_is_scored_at_its_end(dataset: Dataset, splits: Splits) -> None:
    result = fitted(dataset, splits, member(dataset), epochs=1.5, patience=9)
    assert [rung.rows for rung in result.rungs] == [600, 600 + 5 * 64]


def test_rungs_come_more_often_than_epochs_where_an_epoch_is_long(
    dataset: Dataset, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "rung_rows", lambda rows: 256)
    result = fitted(dataset, splits, member(dataset), epochs=2, patience=99)
    assert [rung.rows for rung in result.rungs] == [256, 512, 600 + 192, 600 + 448, 1200]


@pytest.mark.parametrize("patience", [2, 3])
def test_a_fit_stops_after_scores_without_a_new_best(
    dataset: Dataset, splits: Splits, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    true, worth = score_members(member(dataset), splits.valid, dataset)[0], iter([0.6, 0.5, 0.7, 0.5, 0.7, 0.5, 0.9])
    monkeypatch.setattr(
        fit_module, "score_members", lambda *a, **k: [type(true)(**{**vars(true), "wauc": next(worth)})]
    )
    result = fitted(dataset, splits, member(dataset), epochs=20, patience=patience)
    assert result.reason == "patience"
    assert len(result.rungs) == 3 + patience
    assert result.best.wauc == 0.7
    assert result.rungs[2].scores == result.best


def test_a_rung_may_stop_a_fit(dataset: Dataset, splits: Splits) -> None:
    seen: list[Rung] = []
    result = fitted(dataset, splits, member(dataset), on_rung=lambda rung: seen.append(rung) or len(seen) < 2)
    assert result.reason == "weak"
    assert result.rungs == seen
    assert len(seen) == 2


@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["plain", "everything"])
def test_two_fits_of_one_member_are_equal_bit_for_bit(
    dataset: Dataset, splits: Splits, settings: dict[str, Any]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second = (fitted(dataset, splits, member(dataset, **settings), epochs=3) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    for part in ("flat", "table", "running"):
        assert torch.equal(getattr(first.weights, part), getattr(second.weights, part))
    assert [rung.scores for rung in first.rungs] == [rung.scores for rung in second.rungs]
    other = fitted(dataset, splits, member(dataset, **settings), epochs=3, seed=2)
    assert not torch.equal(other.weights.flat, first.weights.flat)


def test_a_deadline_before_the_first_score_is_out_of_time(dataset: Dataset, splits: Splits) -> None:
    with pytest.raises(OutOfTime):
        fitted(dataset, splits, member(dataset), deadline=time.monotonic() - 1)
    candidate = supernet_candidate(Candidate(**FAST | {"wiring": None}), 0, len(splits.train))
    with pytest.raises(OutOfTime):
        train_supernets([candidate], splits, dataset, seed=0, deadline=time.monotonic() - 1)


def test_a_deadline_after_a_score_keeps_the_best_so_far(
    dataset: Dataset, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1e-3
        return now[0]

    monkeypatch.setattr(fit_module.time, "monotonic", clock)

    def late(rung: Rung) -> bool:
        now[0] = 10.0
        return True

    result = fitted(dataset, splits, member(dataset), deadline=5.0, on_rung=late)
    assert result.reason == "time"
    assert len(result.rungs) == 1
    assert result.best == result.rungs[0].scores


def test_a_member_without_finite_scores_has_diverged(dataset: Dataset, splits: Splits) -> None:
    cohort = member(dataset, averaging=0.0)
    cohort.flat.fill_(math.nan)
    with pytest.raises(Diverged):
        fitted(dataset, splits, cohort)


def test_the_kept_weights_do_not_follow_later_training(dataset: Dataset, splits: Splits) -> None:
    cohort = member(dataset, averaging=0.0)
    result = fitted(dataset, splits, cohort, epochs=1)
    kept = result.weights.copy()
    for batch in splits.train.batches(9, 0, 64):
        cohort.step(batch)
    assert torch.equal(result.weights.flat, kept.flat)
    assert torch.equal(result.weights.table, kept.table)


# the supernet's training


def supernet(dataset: Dataset, splits: Splits, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[Any]:
    """The (wire, weigh) flags, sizes and architectures of every step of a short supernet."""
    monkeypatch.setattr("autoctr.search.oneshot.FEWEST_STEPS", 0)
    log: list[Any] = []
    original = Cohort.step

    def spy(self: Cohort, batch: Any, *, wire: bool = False, weigh: bool = True) -> Any:
        result = original(self, batch, wire=wire, weigh=weigh)
        log.append(
            (wire, weigh, {tuple(row) for row in batch.ids.tolist()}, self.architecture.clone(), self.flat.clone())
        )
        return result

    monkeypatch.setattr(Cohort, "step", spy)
    candidate = Candidate(**FAST | {"wiring": None, "blocks": 1, "search_epochs": 2.0, "batch": 50} | settings)
    train_supernets([candidate], splits, dataset, seed=3)
    return log


def test_gates_and_operators_rest_during_the_warm_up(
    dataset: Dataset, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = supernet(dataset, splits, monkeypatch, warmup=0.25)
    assert len(log) == 24
    assert [wire for wire, *_ in log] == [False] * 6 + [True] * 18
    assert all(torch.equal(entry[3], log[0][3]) for entry in log[:6])
    assert not torch.equal(log[6][3], log[0][3])


def test_alternating_moves_gates_on_rows_that_the_weights_never_see(
    dataset: Dataset, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = supernet(dataset, splits, monkeypatch, warmup=0.0, alternating=True)
    weighed = set().union(*(entry[2] for entry in log if entry[1]))
    wired = set().union(*(entry[2] for entry in log if entry[0]))
    assert not any(entry[0] and entry[1] for entry in log)
    assert weighed
    assert wired
    twins = len(splits.train.ids) - len({tuple(row) for row in splits.train.ids.tolist()})
    assert len(weighed & wired) <= twins
    for previous, entry in itertools.pairwise(log):
        assert torch.equal(entry[3], previous[3]) != entry[0]
        assert torch.equal(entry[4], previous[4]) != entry[1]


def test_a_supernet_makes_its_fewest_steps_on_a_small_table() -> None:
    for epochs, rows, batch, visited in (
        (1.0, 100, 64, 250 * 64),
        (1.0, 25_000, 100, 25_000),
        (0.5, 25_100, 64, 250 * 64),
        (2.5, 1_000_000, 512, 2_500_000),
    ):
        candidate = Candidate(search_epochs=epochs)
        assert search_batch(candidate, rows) == supernet_candidate(candidate, 0, rows).batch == batch
        assert search_rows(candidate, rows) == visited


def test_equal_genes_share_a_supernet_whatever_the_training_settings() -> None:
    first, second = Candidate(rank=2, learning_rate=0.1, dropout=0.4), Candidate(rank=2, batch=64, averaging=0.5)
    assert supernet_candidate(first, 5, 1000) == supernet_candidate(second, 5, 1000)
    assert supernet_candidate(first, 5, 1000) != supernet_candidate(first.replace(rank=3), 5, 1000)
