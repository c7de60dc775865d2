"""Resampled metrics against repeated rows, and intervals against tables."""

from __future__ import annotations

import math
import time

import numpy as np
import numpy.typing as npt
import pytest
import torch
from reference import calibration, metrics

from autoctr.training import bootstrap as module
from autoctr.training.bootstrap import bootstrap, difference, draws, percentile_interval
from autoctr.training.intervals import Difference, Interval, mean_interval, student_quantile

RESAMPLES = 7


def made_up(seed: int, rows: int = 50, levels: int = 4) -> tuple[torch.Tensor, ...]:
    """Logits on few levels, labels, domains 0 to 2 (2 is small), and users under scattered numbers."""
    draw = np.random.default_rng(seed)
    logits = torch.from_numpy(draw.integers(-levels, levels + 1, rows) / levels * 3.0)
    labels = torch.from_numpy((draw.random(rows) < 0.4).astype(np.float32))
    domain = torch.from_numpy(draw.choice(3, rows, p=[0.6, 0.35, 0.05]))
    return logits, labels, domain, torch.from_numpy(draw.choice([3, 5, 8, 21, 22, 40, 41], rows))


def drawn(units: int, seed: int) -> npt.NDArray[np.int64]:
    return torch.cat(list(draws(units, seed, RESAMPLES, RESAMPLES)), 1).numpy().astype(np.int64)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [2, 1000])
@pytest.mark.parametrize("users", [True, False])
def test_a_resample_counts_rows_as_often_as_their_user(seed: int, levels: int, users: bool) -> None:
    logits, labels, domain, user = made_up(seed, levels=levels)
    names, unit = np.unique(user.numpy(), return_inverse=True) if users else (np.arange(50), np.arange(50))
    found = bootstrap(logits, labels, domain, 4, user if users else None, seed=seed, resamples=RESAMPLES)
    counts = drawn(len(names), seed)
    assert (counts.sum(0) == len(names)).all()
    assert len(set(map(tuple, counts.T))) == RESAMPLES
    y, z, d = labels.numpy(), logits.numpy(), domain.numpy()
    for number in range(RESAMPLES):
        repeated = np.repeat(np.arange(50), counts[unit, number])
        again = y[repeated], z[repeated]
        assert float(found["auc"][number]) == pytest.approx(metrics.auc(*again), abs=1e-12)
        assert float(found["wauc"][number]) == pytest.approx(metrics.wauc(*again, d[repeated]), abs=1e-12)
        assert float(found["logloss"][number]) == pytest.approx(metrics.bce(z[repeated], y[repeated]), abs=1e-12)
        rows_of = [list(np.flatnonzero(unit == u)) for u in range(len(names))]
        expected = calibration.user_bootstrap_auc(z, y, rows_of, list(counts[:, number]))
        assert float(found["auc"][number]) == pytest.approx(expected, abs=1e-12)


def test_pieces_of_any_size_give_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels, domain, user = made_up(0)
    whole = bootstrap(logits, labels, domain, 3, user, seed=1, resamples=9)
    monkeypatch.setattr(module, "CHUNK", 100)
    pieces = bootstrap(logits, labels, domain, 3, user, seed=1, resamples=9)
    other = bootstrap(logits, labels, domain, 3, user, seed=2, resamples=9)
    for name, values in whole.items():
        assert torch.equal(values, pieces[name])
        assert not torch.equal(values, other[name])


def test_a_metric_without_both_classes_is_not_a_number() -> None:
    logits, labels = torch.tensor([0.1, 0.2]), torch.tensor([1.0, 0.0])
    zeros = torch.zeros(2, dtype=torch.int64)
    found = bootstrap(logits, labels, zeros, 2, None, seed=0, resamples=40)
    counts = torch.cat(list(draws(2, 0, 40, 40)), 1)
    both = (counts > 0).all(0)
    assert 0 < int(both.sum()) < 40
    for name in ("auc", "wauc"):
        assert torch.equal(found[name].isnan(), ~both)
        assert (found[name][both] == 0).all()
    assert not found["logloss"].isnan().any()


def test_two_models_are_resampled_alike() -> None:
    logits, labels, domain, user = made_up(2, rows=400, levels=1000)
    nearly = logits + 0.01 * torch.randn(400, generator=torch.Generator().manual_seed(0))
    a, b = (bootstrap(scores, labels, domain, 3, user, seed=3)["wauc"] for scores in (logits, nearly))
    assert float((a - b).std()) < 0.1 * float(a.std())
    shifted = bootstrap(logits + 1, labels, domain, 3, user, seed=3)
    assert torch.equal(shifted["wauc"], a)
    assert not torch.equal(shifted["logloss"], a)


def test_many_rows_take_seconds() -> None:
    draw = torch.Generator().manual_seed(0)
    rows = 28_000
    logits, labels = torch.randn(rows, generator=draw), (torch.rand(rows, generator=draw) < 0.3).float()
    domain, user = (torch.randint(high, (rows,), generator=draw) for high in (10, 5000))
    started = time.process_time()
    found = bootstrap(logits, labels, domain, 11, user, seed=0)
    assert time.process_time() - started < 5
    # about the standard deviation of the area under the curve of this many clicks and others
    clicks = float(labels.sum())
    expected = math.sqrt((rows + 1) / (12 * clicks * (rows - clicks)))
    assert float(found["auc"].std()) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (9, 2.26216), (30, 2.04227)]
)
def test_quantiles_of_student(freedom: int, t: float) -> None:
    assert student_quantile(freedom) == pytest.approx(t, abs=6e-6 * t)


def test_quantiles_at_another_level() -> None:
    assert student_quantile(4, 0.99) == pytest.approx(4.604095, rel=1e-6)
    assert student_quantile(1, 0.99) == pytest.approx(63.656741, rel=1e-6)


@pytest.mark.parametrize(
    ("seeds", "users", "sign"),
    [
        ((0.3, 0.2), (0.1, 0.5), 1),
        ((0.3, 0.4), (0.1, 0.5), 0),
        ((0.3, 0.2), (-0.1, 0.5), 0),
        ((-0.3, 0.2), (-0.5, -0.1), -1),
        ((-0.3, 0.2), (-0.5, 0.0), 0),
        ((0.3, None), None, 1),
        ((0.0, None), None, 0),
    ],
)
def test_a_difference_is_clear_if_seeds_and_users_say_so(
    seeds: tuple[float, float | None], users: tuple[float, float] | None, sign: int
) -> None:
    assert Difference(Interval(*seeds), users).sign == sign


def test_a_difference_joins_seeds_and_resamples() -> None:
    resampled = [torch.linspace(0, 1, 101).double(), torch.linspace(1, 2, 101).double()]
    found = difference([1.0, 3.0], resampled, level=0.9)
    assert found.seeds == mean_interval([1.0, 3.0], 0.9)
    assert found.seeds.half == pytest.approx(6.313752, rel=1e-6)
    assert found.users == pytest.approx((0.55, 1.45))
    assert difference([1.0, 3.0], None).users is None


def test_every_domains_area_on_resamples_is_that_of_the_repeated_rows() -> None:
    logits, labels, domain, users = made_up(0, rows=80)
    found = bootstrap(logits, labels, domain, 3, users, seed=5, resamples=RESAMPLES, each_domain=True)["domains"]
    assert found.shape == (3, RESAMPLES)
    names, unit = torch.unique(users, return_inverse=True)
    (counts,) = draws(len(names), 5, RESAMPLES, RESAMPLES)
    for number in range(RESAMPLES):
        rows = torch.repeat_interleave(torch.arange(len(logits)), counts[unit, number].long())
        for place in range(3):
            inside = rows[domain[rows] == place]
            expected = metrics.auc(labels[inside].numpy(), logits[inside].numpy())
            if expected is None:
                assert math.isnan(float(found[place, number]))
            else:
                assert float(found[place, number]) == pytest.approx(expected, abs=1e-12)


def test_interval_of_a_mean() -> None:
    assert mean_interval([2.0]) == Interval(2.0, None)
    found = mean_interval([1.0, 2.0, 3.0, 6.0])
    assert found.mean == 3.0
    assert found.half == pytest.approx(3.18245 * np.std([1, 2, 3, 6], ddof=1) / 2, rel=1e-5)


def test_the_middle_of_resamples() -> None:
    values = torch.arange(201, dtype=torch.float64)[torch.randperm(201)]
    assert percentile_interval(values) == pytest.approx((5.0, 195.0))
    assert percentile_interval(torch.cat([values, torch.tensor([math.nan])])) == pytest.approx((5.0, 195.0))
    assert percentile_interval(torch.tensor([math.nan])) is None
