"""Loss and evaluation metrics. A metric that is undefined on its data is None."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt


def _numbers(values: npt.ArrayLike) -> list[float]:
    numbers = [float(v) for v in np.asarray(values, dtype=np.float64).reshape(-1)]
    if any(math.isnan(v) for v in numbers):
        raise ValueError("not a number")
    return numbers


def bce(logit: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Mean over rows of ``-y log sigmoid(z) - (1 - y) log(1 - sigmoid(z))``.

    Computed as ``max(z, 0) - z y + log(1 + exp(-|z|))``. The loss of OptFusion, arXiv 2411.15731.
    """
    zs, ys = _numbers(logit), _numbers(y)
    losses = [max(z, 0.0) - z * t + math.log1p(math.exp(-abs(z))) for z, t in zip(zs, ys, strict=True)]
    return math.fsum(losses) / len(losses)


def average_ranks(values: npt.ArrayLike) -> list[float]:
    """Ranks from 1, ascending; equal values share the mean of the ranks they take up."""
    numbers = _numbers(values)
    order = sorted(range(len(numbers)), key=lambda i: numbers[i])
    ranks = [0.0] * len(numbers)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and numbers[order[stop]] == numbers[order[start]]:
            stop += 1
        for position in range(start, stop):
            ranks[order[position]] = (start + 1 + stop) / 2.0
        start = stop
    return ranks


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """``(sum of the positives' ranks - P (P + 1) / 2) / (P N)`` with average ranks.

    None if a class is missing. Mann and Whitney (1947): the chance that a positive scores above a negative,
    ties counting one half.
    """
    ys = _numbers(labels)
    ranks = average_ranks(scores)
    positives = [r for y, r in zip(ys, ranks, strict=True) if y == 1.0]
    p, n = len(positives), len(ys) - len(positives)
    if p == 0 or n == 0:
        return None
    return (math.fsum(positives) - p * (p + 1) / 2.0) / (p * n)


def logloss(labels: npt.ArrayLike, probabilities: npt.ArrayLike, clip: float = 1e-7) -> float:
    """Mean of ``-y log p - (1 - y) log(1 - p)``, p clipped to ``[clip, 1 - clip]``."""
    losses = []
    for y, p in zip(_numbers(labels), _numbers(probabilities), strict=True):
        q = min(max(p, clip), 1.0 - clip)
        losses.append(-y * math.log(q) - (1.0 - y) * math.log(1.0 - q))
    return math.fsum(losses) / len(losses)


def group_aucs(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Sequence[Hashable] | npt.NDArray[np.generic]
) -> dict[Hashable, tuple[int, float | None]]:
    """For each group its number of rows and its AUC (None where a class is missing)."""
    ys, zs = _numbers(labels), _numbers(scores)
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    if sum(len(rows) for rows in members.values()) != len(ys):
        raise ValueError("one group per row")
    return {group: (len(rows), auc([ys[i] for i in rows], [zs[i] for i in rows])) for group, rows in members.items()}


def _row_weighted_auc(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Sequence[Hashable] | npt.NDArray[np.generic]
) -> float | None:
    usable = [(n, a) for n, a in group_aucs(labels, scores, groups).values() if a is not None]
    if not usable:
        return None
    return math.fsum(n * a for n, a in usable) / sum(n for n, _ in usable)


def wauc(
    labels: npt.ArrayLike, scores: npt.ArrayLike, domains: Sequence[Hashable] | npt.NDArray[np.generic]
) -> float | None:
    """``sum_d n_d AUC_d / sum_d n_d`` over the domains with both classes, ``n_d`` rows.

    MLoRA, arXiv 2408.08913.
    """
    return _row_weighted_auc(labels, scores, domains)


def mean_auc(
    labels: npt.ArrayLike, scores: npt.ArrayLike, domains: Sequence[Hashable] | npt.NDArray[np.generic]
) -> float | None:
    """Unweighted mean of ``AUC_d`` over the domains with both classes. MAMDR, arXiv 2202.12524."""
    usable = [a for _, a in group_aucs(labels, scores, domains).values() if a is not None]
    return math.fsum(usable) / len(usable) if usable else None


def gauc(
    labels: npt.ArrayLike, scores: npt.ArrayLike, users: Sequence[Hashable] | npt.NDArray[np.generic]
) -> float | None:
    """``sum_u n_u AUC_u / sum_u n_u`` over the users with both classes, ``n_u`` rows.

    DIN, arXiv 1706.06978.
    """
    return _row_weighted_auc(labels, scores, users)


def calibration_ratio(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float | None:
    """``sum p / sum y``: 1 is calibrated, above 1 over-predicts; None without positives."""
    positives = math.fsum(_numbers(labels))
    return math.fsum(_numbers(probabilities)) / positives if positives > 0 else None
