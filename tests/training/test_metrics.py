from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference import calibration, metrics

from autoctr.training.metrics import calibration_error, grouped_auc, log_loss, score

NAMES = ["a", "b", "c"]


def made_up(seed: int, rows: int, levels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits on few levels, so that many tie; labels, domains (3 = unknown) and users."""
    draw = np.random.default_rng(seed)
    logits = torch.from_numpy(draw.integers(-levels, levels + 1, rows) / levels * 3.0)
    labels = torch.from_numpy((draw.random(rows) < 0.4).astype(float))
    domain = torch.from_numpy(draw.choice(4, rows, p=[0.6, 0.25, 0.05, 0.1]))
    return logits, labels, domain, torch.from_numpy(draw.integers(0, rows // 3, rows))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [2, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_all_metrics_equal_the_reference(seed: int, levels: int, dtype: torch.dtype) -> None:
    logits, labels, domain, user = made_up(seed, 90, levels)
    logits, labels = logits.to(dtype), labels.to(dtype)
    scores = score(logits, labels, domain, NAMES, user)
    y, z, d, u = (value.numpy() for value in (labels, logits, domain, user))
    assert scores.auc == pytest.approx(metrics.auc(y, z), abs=1e-12)
    assert scores.wauc == pytest.approx(metrics.wauc(y, z, d), abs=1e-12)
    assert scores.mean_auc == pytest.approx(metrics.mean_auc(y, z, d), abs=1e-12)
    assert scores.gauc == pytest.approx(metrics.gauc(y, z, u), abs=1e-12)
    assert scores.logloss == pytest.approx(metrics.bce(z, y), abs=1e-12)
    assert scores.logloss == pytest.approx(metrics.logloss(y, 1 / (1 + np.exp(-z.astype(float)))), abs=1e-6)
    assert float(log_loss(logits, labels)) == pytest.approx(metrics.bce(z, y), abs=1e-12)
    for number, (n, area) in metrics.group_aucs(y, z, d).items():
        part = scores.domains[[*NAMES, "unknown"][int(number)]]  # type: ignore[call-overload]
        mine = d == number
        assert (part.rows, part.positives) == (n, int(y[mine].sum()))
        assert part.auc == (None if area is None else pytest.approx(area, abs=1e-12))
        assert part.logloss == pytest.approx(metrics.bce(z[mine], y[mine]), abs=1e-12)


def test_by_hand() -> None:
    logits = torch.tensor([0.0, 1.0, 1.0, 2.0, 5.0, -5.0])
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    domain = torch.tensor([0, 0, 0, 0, 1, 1])
    scores = score(logits, labels, domain, NAMES, None)
    # domain a: pairs (1 > 0), (1 = 1), (2 > 0), (2 > 1) = 3.5 of 4; domain b: 0 of 1
    assert scores.domains["a"].auc == 0.875
    assert scores.domains["b"].auc == 0.0
    assert scores.wauc == pytest.approx(4 / 6 * 0.875)
    assert scores.mean_auc == pytest.approx(0.4375)
    assert scores.gauc is None
    assert set(scores.domains) == {"a", "b"}
    assert scores.value("logloss") == -scores.logloss


def test_a_domain_of_one_class_is_left_out_and_counted() -> None:
    logits, labels, domain, _ = made_up(3, 90, 1000)
    labels[domain == 2] = 1.0
    scores = score(logits, labels, domain, NAMES, None)
    part = scores.domains["c"]
    assert part.auc is None
    assert part.rows == part.positives == int((domain == 2).sum())
    kept = domain != 2
    assert scores.wauc == pytest.approx(metrics.wauc(labels[kept].numpy(), logits[kept].numpy(), domain[kept].numpy()))


def test_constant_scores_give_a_half_and_extreme_ones_a_finite_logloss() -> None:
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0])
    zeros = torch.zeros(4, dtype=torch.int64)
    assert score(torch.full((4,), 0.3), labels, zeros, NAMES, None).auc == 0.5
    extreme = score(torch.tensor([-1e4, 1e4, 1e4, 1e4]), labels, zeros, NAMES, None)
    assert extreme.logloss == pytest.approx(2500)
    assert extreme.auc == 0.75


@pytest.mark.parametrize("shift", [1.0, 7.0])
def test_auc_depends_on_order_only(shift: float) -> None:
    logits, labels, domain, user = made_up(1, 60, 1000)
    moved, still = (grouped_auc(values, labels, user, 20).nan_to_num(-1) for values in (logits * 3 + shift, logits))
    assert torch.equal(moved, still)
    mirrored = float(grouped_auc(-logits, labels, torch.zeros_like(domain), 1))
    assert mirrored == pytest.approx(1 - float(grouped_auc(logits, labels, torch.zeros_like(domain), 1)))
    assert not math.isnan(mirrored)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [7, 15, 90, 101])
@pytest.mark.parametrize("levels", [2, 1000])
def test_calibration_equals_the_reference(seed: int, rows: int, levels: int) -> None:
    logits, labels, domain, user = made_up(seed, rows, levels)
    scores = score(logits, labels, domain, NAMES, user)
    p, y = 1 / (1 + np.exp(-logits.numpy())), labels.numpy()
    assert scores.ece == pytest.approx(calibration.expected_calibration_error(y, p, 15), abs=1e-12)
    assert scores.calibration == pytest.approx(calibration.calibration_ratio(y, p), abs=1e-12)
    for name, part in scores.domains.items():
        mine = domain.numpy() == [*NAMES, "unknown"].index(name)
        expected = calibration.calibration_ratio(y[mine], p[mine])
        assert part.calibration == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_equal_probabilities_keep_their_order_in_the_bins() -> None:
    """Logits beyond 40 are all 1 as probabilities, so that sorting them would change the bins."""
    logits = torch.tensor([60.0, 50.0, 70.0, 40.0])
    labels = torch.tensor([1.0, 0.0, 1.0, 0.0])
    p = logits.double().sigmoid()
    assert len(set(p.tolist())) == 1
    assert float(calibration_error(p, labels, 2)) == 0.5
    assert float(calibration_error(p, labels[[0, 2, 1, 3]], 2)) == 0.5
    assert float(calibration_error(logits.double(), labels, 4)) != float(calibration_error(p, labels, 4))


def test_calibration_by_hand() -> None:
    p = torch.tensor([0.2, 0.9, 0.4, 0.3], dtype=torch.float64)
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0])
    scores = score(torch.logit(p), labels, torch.tensor([0, 0, 1, 1]), NAMES, None)
    assert scores.calibration == pytest.approx(0.9)
    assert scores.domains["a"].calibration == pytest.approx(1.1)
    assert scores.domains["b"].calibration == pytest.approx(0.7)
    assert scores.ece == pytest.approx((0.2 + 0.1 + 0.4 + 0.7) / 4)
    assert float(calibration_error(p, labels, 2)) == pytest.approx(0.5 * abs(0.25 - 0.5) + 0.5 * abs(0.65 - 0.5))
    clickless = score(torch.logit(p), torch.zeros(4), torch.zeros(4, dtype=torch.int64), NAMES, None)
    assert clickless.calibration is clickless.domains["a"].calibration is None
    assert clickless.ece == pytest.approx(0.45)


@pytest.mark.parametrize("seed", range(3))
def test_worst_domain_and_what_is_left_out(seed: int) -> None:
    logits, labels, domain, user = made_up(seed, 90, 1000)
    labels[domain == 1] = 0.0
    scores = score(logits, labels, domain, NAMES, user)
    areas = [area for _, area in metrics.group_aucs(labels.numpy(), logits.numpy(), domain.numpy()).values()]
    by_user = [area for _, area in metrics.group_aucs(labels.numpy(), logits.numpy(), user.numpy()).values()]
    assert scores.worst_auc == pytest.approx(min(area for area in areas if area is not None), abs=1e-12)
    assert scores.skipped_domains == areas.count(None) >= 1
    assert scores.skipped_users == by_user.count(None) > 0
    nothing = score(logits, torch.ones_like(labels), domain, NAMES, None)
    assert nothing.worst_auc is nothing.wauc is nothing.skipped_users is None
    assert nothing.skipped_domains == 4
