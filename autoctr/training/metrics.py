"""Exact metrics of a cohort's scores, on the device where the scores are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

METRICS = ("wauc", "auc", "logloss")


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


@dataclasses.dataclass(frozen=True)
class DomainScore:
    """One domain's rows, clicks and metrics; ``auc`` is None where a class is missing."""

    rows: int
    positives: int
    auc: float | None
    logloss: float


@dataclasses.dataclass(frozen=True)
class Scores:
    """Metrics of one member on one split for one task.

    ``wauc`` is Σ n_d AUC_d / Σ n_d over the domains with both classes; ``mean_auc`` weighs those domains alike;
    ``gauc`` is the same over users, weighted by their rows (None without a user role). A metric is None where no
    group has both classes.
    """

    auc: float | None
    wauc: float | None
    logloss: float
    mean_auc: float | None
    gauc: float | None
    domains: dict[str, DomainScore]

    def value(self, metric: str) -> float:
        """The metric to maximise: logloss with its sign turned, -inf where it is undefined."""
        value = getattr(self, metric)
        if value is None or math.isnan(value):
            return -math.inf
        return -float(value) if metric == "logloss" else float(value)


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
    domains = {
        name: DomainScore(int(n), round(p), None if math.isnan(a) else a, float(entropy))
        for name, n, p, a, entropy in zip(
            [*names, "unknown"], rows.tolist(), positives.tolist(), areas.tolist(), loss.tolist(), strict=True
        )
        if n
    }
    pooled = float(grouped_auc(scores, labels, torch.zeros_like(domain), 1))
    gauc = None
    if user is not None and len(user):
        users = int(user.max()) + 1
        gauc = _weighted(grouped_auc(scores, labels, user, users), torch.bincount(user, minlength=users).double())
    return Scores(
        auc=None if math.isnan(pooled) else pooled,
        wauc=_weighted(areas, rows.double()),
        logloss=float(losses.mean()) if len(losses) else math.nan,
        mean_auc=_weighted(areas, torch.ones_like(areas)),
        gauc=gauc,
        domains=domains,
    )


def _weighted(values: Tensor, weights: Tensor) -> float | None:
    usable = ~values.isnan()
    total = weights[usable].sum()
    return float((values[usable] * weights[usable]).sum() / total) if float(total) > 0 else None
