"""Means and differences over training seeds, with how sure they are."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and the half-width of its interval; None from a single value."""

    mean: float
    half: float | None


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean and Student's interval of independent values, such as one metric over seeds."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Interval(mean, student_quantile(len(values) - 1, level) * math.sqrt(variance / len(values)))


@dataclasses.dataclass(frozen=True)
class Difference:
    """A metric of one model minus that of another.

    ``seeds`` is over training seeds, paired. ``users`` is the middle share of the level over resamples of the test
    users, of the mean over the seeds: the networks stay, the users change. None where no resamples are at hand.
    """

    seeds: Interval
    users: tuple[float, float] | None

    @property
    def sign(self) -> int:
        """1 if all that is known lies above 0, -1 if below it, else 0."""
        mean, half = self.seeds.mean, self.seeds.half or 0.0
        low, high = self.users or (mean, mean)
        return int(min(mean - half, low) > 0) - int(max(mean + half, high) < 0)


@functools.cache
def student_quantile(freedom: int, level: float = LEVEL) -> float:
    """t with P(|T| <= t) = ``level`` for Student's distribution with ``freedom`` degrees, by bisection."""
    low, high = 0.0, 20.0
    while _student_within(high, freedom) < level:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_within(middle, freedom) < level else (low, middle)
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
