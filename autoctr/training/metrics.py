"""Exact metrics of a cohort's scores, on the device where the scores are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

METRICS = ("wauc", "auc", "logloss")
CALIBRATION_BINS = 15


def grouped_auc(scores: Tensor, labels: Tensor, groups: Tensor, count: int) -> Tensor:
    """Area under the ROC curve of every group, ties counted half.

    Args:
        scores: [N]. labels: [N] of 0 and 1. groups: int [N] in 0..count-1.

    Returns: float64 [count]; NaN where a group lacks one of the classes.
    """
    order = scores.argsort()
    order = order[groups[order].argsort(stable=True)]
    s, y, g = scores[order], labels[order].double(), groups[order]
    if not len(s):
        return torch.full((count,), math.nan, dtype=torch.float64, device=scores.device)
    changes = (s[1:] != s[:-1]) | (g[1:] != g[:-1])
    run = torch.nn.functional.pad(changes.long().cumsum(0), (1, 0))
    lengths = torch.bincount(run).double()
    middle = lengths.cumsum(0) - (lengths - 1) / 2
    rows = torch.bincount(g, minlength=count).double()
    before = rows.cumsum(0) - rows
    rank = middle[run] - before[g]
    zeros = torch.zeros(count, dtype=torch.float64, device=scores.device)
    positives = zeros.index_add(0, g, y)
    above = zeros.index_add(0, g, y * rank) - positives * (positives + 1) / 2
    return above / (positives * (rows - positives))


def log_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross entropy of logits, float64 scalar."""
    return torch.nn.functional.binary_cross_entropy_with_logits(scores.double(), labels.double())


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> Tensor:
    """Expected calibration error over bins of equal mass: Σ_k n_k / n |mean p - mean y|.

    Bin k holds the rows ⌊kn/bins⌋ to ⌊(k+1)n/bins⌋ in the order of their probabilities; equal ones keep their order
    (Naeini et al., AAAI 2015; bins of equal mass as in arXiv 2012.08668).

    Args:
        probabilities: [N]. labels: [N] of 0 and 1.

    Returns: float64 scalar; NaN without rows.
    """
    promised, observed, _ = _bin_sums(probabilities, labels, bins)
    return (promised - observed).abs().sum() / len(probabilities)


def reliability(probabilities: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> list[tuple[float, float, int]]:
    """Mean probability, rate of clicks and rows of each bin of :func:`calibration_error`, from the least probable on.

    Args:
        probabilities: [N]. labels: [N] of 0 and 1.

    Returns: at most ``bins``: those that have rows.
    """
    sums = zip(*(values.tolist() for values in _bin_sums(probabilities, labels, bins)), strict=True)
    return [(promised / rows, observed / rows, int(rows)) for promised, observed, rows in sums if rows]


def _bin_sums(probabilities: Tensor, labels: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the probabilities and of the labels, and the number of rows, of bins of equal mass, each [bins]."""
    order = probabilities.argsort(stable=True)
    bounds = torch.arange(bins + 1, device=probabilities.device) * len(probabilities) // bins
    sums = [
        torch.nn.functional.pad(v.double()[order].cumsum(0), (1, 0))[bounds].diff() for v in (probabilities, labels)
    ]
    return sums[0], sums[1], bounds.diff()


@dataclasses.dataclass(frozen=True)
class DomainScore:
    """One domain's rows, clicks and metrics.

    ``auc`` is None where a class is missing. ``calibration`` is the sum of the probabilities over the number of
    clicks: above 1 the model promises too much; None without clicks.
    """

    rows: int
    positives: int
    auc: float | None
    logloss: float
    calibration: float | None


@dataclasses.dataclass(frozen=True)
class Scores:
    """Metrics of one member on one split for one task.

    ``wauc`` is Σ n_d AUC_d / Σ n_d over the domains with both classes; ``mean_auc`` weighs those domains alike, and
    ``worst_auc`` is the lowest of them; ``gauc`` is the same as ``wauc`` over users (None without a user role). A
    metric is None where no group has both classes. ``skipped_domains`` and ``skipped_users`` count the groups that
    have rows but not both classes. ``calibration`` is as in :class:`DomainScore`, ``ece`` as in
    :func:`calibration_error`.
    """

    auc: float | None
    wauc: float | None
    logloss: float
    mean_auc: float | None
    worst_auc: float | None
    gauc: float | None
    calibration: float | None
    ece: float
    skipped_domains: int
    skipped_users: int | None
    domains: dict[str, DomainScore]

    def value(self, metric: str) -> float:
        """The metric to maximise: logloss with its sign turned, -inf where it is undefined."""
        value = getattr(self, metric)
        if value is None or math.isnan(value):
            return -math.inf
        return -float(value) if metric == "logloss" else float(value)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Scores:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**{**value, "domains": {name: DomainScore(**own) for name, own in value["domains"].items()}})


def score(scores: Tensor, labels: Tensor, domain: Tensor, names: Sequence[str], user: Tensor | None) -> Scores:
    """All metrics of one member.

    Args:
        scores: logits [N]. labels: [N]. domain: int [N], D for unknown. names: the D domains. user: int [N] or None.
    """
    count = len(names) + 1
    areas = grouped_auc(scores, labels, domain, count)
    rows = torch.bincount(domain, minlength=count)
    zeros = torch.zeros(count, dtype=torch.float64, device=scores.device)
    positives = zeros.index_add(0, domain, labels.double())
    losses = torch.nn.functional.binary_cross_entropy_with_logits(scores.double(), labels.double(), reduction="none")
    loss = zeros.index_add(0, domain, losses) / rows.clamp(min=1)
    probabilities = scores.double().sigmoid()
    ratios = zeros.index_add(0, domain, probabilities) / positives
    columns = (rows, positives, areas, loss, ratios)
    domains = {
        name: DomainScore(int(n), round(p), None if math.isnan(a) else a, entropy, ratio if p else None)
        for name, n, p, a, entropy, ratio in zip(
            [*names, "unknown"], *(column.tolist() for column in columns), strict=True
        )
        if n
    }
    pooled = float(grouped_auc(scores, labels, torch.zeros_like(domain), 1))
    usable = areas[~areas.isnan()]
    gauc: float | None = None
    skipped_users: int | None = None
    if user is not None and len(user):
        users = int(user.max()) + 1
        user_areas, user_rows = grouped_auc(scores, labels, user, users), torch.bincount(user, minlength=users)
        gauc = _weighted(user_areas, user_rows.double())
        skipped_users = int(((user_rows > 0) & user_areas.isnan()).sum())
    return Scores(
        auc=None if math.isnan(pooled) else pooled,
        wauc=_weighted(areas, rows.double()),
        logloss=float(losses.mean()) if len(losses) else math.nan,
        mean_auc=_weighted(areas, torch.ones_like(areas)),
        worst_auc=float(usable.min()) if len(usable) else None,
        gauc=gauc,
        calibration=float(probabilities.sum() / positives.sum()) if float(positives.sum()) else None,
        ece=float(calibration_error(probabilities, labels)),
        skipped_domains=int(((rows > 0) & areas.isnan()).sum()),
        skipped_users=skipped_users,
        domains=domains,
    )


def _weighted(values: Tensor, weights: Tensor) -> float | None:
    usable = ~values.isnan()
    total = weights[usable].sum()
    return float((values[usable] * weights[usable]).sum() / total) if float(total) > 0 else None
