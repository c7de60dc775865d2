"""How sure a metric is: what it becomes on resamples of the users of a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from autoctr.training.intervals import LEVEL, Difference, mean_interval

RESAMPLES = 200
CHUNK = 1 << 20


def bootstrap(
    scores: Tensor,
    labels: Tensor,
    domain: Tensor,
    domains: int,
    units: Tensor | None,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    each_domain: bool = False,
) -> dict[str, Tensor]:
    """Metrics of one model on resamples of the units, drawn with replacement; each row counts as often as its unit.

    The draws depend on the units and the seed alone, so that the differences of two models on the same rows are
    paired (Efron and Tibshirani, 1993).

    Args:
        scores: logits [N]. labels: [N] of 0 and 1. domain: int [N] in 0..domains - 1.
        units: int [N], what is drawn together, the user of each row; None draws rows.
        each_domain: whether the area of every domain is told as well.

    Returns: ``auc``, ``wauc`` and ``logloss``, each float64 [resamples]; NaN where a resample leaves it undefined. And
        where it is asked for, ``domains``, [domains, resamples].
    """
    if units is None:
        unit, count = torch.arange(len(scores), device=scores.device), len(scores)
    else:
        distinct, unit = torch.unique(units, return_inverse=True)
        count = len(distinct)
    pooled = _Ranking(scores, labels, torch.zeros_like(domain), 1, unit)
    grouped = _Ranking(scores, labels, domain, domains, unit)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(scores.double(), labels.double(), reduction="none")
    zeros = torch.zeros(count, dtype=torch.float64, device=scores.device)
    unit_loss, unit_rows = zeros.index_add(0, unit, losses), torch.bincount(unit, minlength=count).double()
    names = ["auc", "wauc", "logloss", *(["domains"] if each_domain else [])]
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    chunk = max(1, CHUNK // max(len(scores), 1))
    for drawn in draws(count, seed, resamples, chunk):
        counts = drawn.to(scores.device)
        parts["auc"].append(pooled.areas(counts)[0][0])
        areas, rows = grouped.areas(counts)
        usable = ~areas.isnan()
        if each_domain:
            parts["domains"].append(areas)
        parts["wauc"].append((areas.nan_to_num() * rows).sum(0) / (rows * usable).sum(0))
        parts["logloss"].append((unit_loss @ counts) / (unit_rows @ counts))
    return {name: torch.cat(values, -1) for name, values in parts.items()}


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


def percentile_interval(replicates: Tensor, level: float = LEVEL) -> tuple[float, float] | None:
    """The middle share ``level`` of a metric's resamples; None if it is defined on none of them."""
    defined = replicates[~replicates.isnan()]
    if not len(defined):
        return None
    tail = (1 - level) / 2
    low, high = defined.quantile(torch.tensor([tail, 1 - tail], dtype=defined.dtype, device=defined.device)).tolist()
    return low, high


def difference(values: Sequence[float], resampled: Sequence[Tensor] | None, level: float = LEVEL) -> Difference:
    """The difference of two models from that of every seed.

    Args:
        values: of the metric, seed by seed. resampled: the same on the resamples, [resamples] each.
    """
    users = None if resampled is None else percentile_interval(torch.stack(list(resampled)).mean(0), level)
    return Difference(mean_interval(values, level), users)
