"""How sure a metric is: resamples of the users of a split, and intervals over training seeds."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

RESAMPLES = 200
CHUNK = 1 << 20
LEVEL = 0.95


def bootstrap(
    scores: Tensor,
    labels: Tensor,
    domain: Tensor,
    domains: int,
    units: Tensor | None,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Tensor]:
    """Metrics of one model on resamples of the units, drawn with replacement; each row counts as often as its unit.

    The draws depend on the units and the seed alone, so that the differences of two models on the same rows are
    paired (Efron and Tibshirani, 1993).

    Args:
        scores: logits [N]. labels: [N] of 0 and 1. domain: int [N] in 0..domains - 1.
        units: int [N], what is drawn together, the user of each row; None draws rows.

    Returns: ``auc``, ``wauc`` and ``logloss``, each float64 [resamples]; NaN where a resample leaves it undefined.
    """
    if units is None:
        unit, count = torch.arange(len(scores), device=scores.device), len(scores)
    else:
        names, unit = torch.unique(units, return_inverse=True)
        count = len(names)
    pooled = _Ranking(scores, labels, torch.zeros_like(domain), 1, unit)
    grouped = _Ranking(scores, labels, domain, domains, unit)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(scores.double(), labels.double(), reduction="none")
    zeros = torch.zeros(count, dtype=torch.float64, device=scores.device)
    unit_loss, unit_rows = zeros.index_add(0, unit, losses), torch.bincount(unit, minlength=count).double()
    parts: dict[str, list[Tensor]] = {"auc": [], "wauc": [], "logloss": []}
    chunk = max(1, CHUNK // max(len(scores), 1))
    for drawn in draws(count, seed, resamples, chunk):
        counts = drawn.to(scores.device)
        parts["auc"].append(pooled.areas(counts)[0][0])
        areas, rows = grouped.areas(counts)
        usable = ~areas.isnan()
        parts["wauc"].append((areas.nan_to_num() * rows).sum(0) / (rows * usable).sum(0))
        parts["logloss"].append((unit_loss @ counts) / (unit_rows @ counts))
    return {name: torch.cat(values) for name, values in parts.items()}


def draws(units: int, seed: int, resamples: int, chunk: int) -> Iterator[Tensor]:
    """How often each unit is drawn, float64 [units, up to ``chunk``], ``resamples`` columns in all."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, resamples, chunk):
        width = min(chunk, resamples - start)
        drawn = torch.randint(units, (width, units), generator=generator)
        cells = drawn * width + torch.arange(width)[:, None]
        yield torch.bincount(cells.reshape(-1), minlength=units * width).view(units, width).double()


class _Ranking:
    """One model's rows sorted by group and score: what of the area under the curve no weight changes.

    Args:
        scores: [N]. labels: [N]. groups: int [N] in 0..count - 1. unit: int [N], whose weight a row has.
    """

    def __init__(self, scores: Tensor, labels: Tensor, groups: Tensor, count: int, unit: Tensor) -> None:
        order = scores.argsort()
        order = order[groups[order].argsort(stable=True)]
        s, g = scores[order], groups[order]
        self.unit = unit[order]
        self.positive = labels[order] > 0.5
        changes = torch.ones(len(s) + 1, dtype=torch.bool, device=s.device)
        changes[1:-1] = (s[1:] != s[:-1]) | (g[1:] != g[:-1])
        starts = changes.nonzero()[:, 0]
        run = changes[:-1].long().cumsum(0)[self.positive] - 1
        self.first, self.last = starts[run], starts[run + 1]
        edges = torch.arange(count + 1, device=s.device)
        self.bounds = torch.searchsorted(g, edges)
        self.positive_bounds = torch.searchsorted(g[self.positive], edges)

    def areas(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The area under the ROC curve of every group, ties counted half, and the weight of its rows.

        Whole weights below 2^26 in all keep every sum exact.

        Args:
            counts: weights of the units, [units, B].

        Returns: two of [groups, B]; an area is NaN where the weights leave out one of the classes.
        """
        weights = counts[self.unit]
        clicks = weights[self.positive]
        below = _running(weights * ~self.positive[:, None])
        wins = _running(clicks * (below[self.first] + below[self.last]))[self.positive_bounds].diff(dim=0) / 2
        ones = _running(clicks)[self.positive_bounds].diff(dim=0)
        before = below[self.bounds]
        zeros = before.diff(dim=0)
        return (wins - ones * before[:-1]) / (ones * zeros), ones + zeros


def _running(values: Tensor) -> Tensor:
    """Sums of the first 0, 1, ... N rows of [N, B], as [N + 1, B]."""
    return torch.nn.functional.pad(values.cumsum(0), (0, 0, 1, 0))


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and the half-width of its 95 % interval; None from a single value."""

    mean: float
    half: float | None


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean and Student's interval of independent values, such as one metric over seeds."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Interval(mean, student_quantile(len(values) - 1) * math.sqrt(variance / len(values)))


def percentile_interval(replicates: Tensor) -> tuple[float, float] | None:
    """The middle 95 % of a metric's resamples; None if it is defined on none of them."""
    defined = replicates[~replicates.isnan()]
    if not len(defined):
        return None
    tail = (1 - LEVEL) / 2
    low, high = defined.quantile(torch.tensor([tail, 1 - tail], dtype=defined.dtype, device=defined.device)).tolist()
    return low, high


@functools.cache
def student_quantile(freedom: int) -> float:
    """t with P(|T| <= t) = 95 % for Student's distribution with ``freedom`` degrees, by bisection."""
    low, high = 0.0, 20.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_within(middle, freedom) < LEVEL else (low, middle)
    return high


def _student_within(t: float, freedom: int) -> float:
    """P(|T| <= t), the finite sum for whole degrees (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term, total = math.cos(angle) if odd else 1.0, 0.0
    for j in range(odd, freedom - 1, 2):
        total += term
        term *= (j + 1) / (j + 2) * math.cos(angle) ** 2
    within = math.sin(angle) * total
    return 2 / math.pi * (angle + within) if odd else within
