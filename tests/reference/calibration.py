"""Calibration, and the AUC of rows with weights for the bootstrap over users.

Predicted over observed, ``sum p / sum y``, is `metrics.calibration_ratio`.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .metrics import calibration_ratio as calibration_ratio


def expected_calibration_error(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int) -> float | None:
    """``sum_k (n_k / n) |mean p - mean y|`` over equal-mass bins; labels and probabilities ``[n]``, None if n = 0.

    Rows are sorted by p, equal p in the given order; bin k holds the sorted rows ``floor(k n / bins)`` up to, not
    including, ``floor((k + 1) n / bins)``. Guo et al., arXiv 1706.04599, whose bins have equal width.
    """
    y = [float(v) for v in np.asarray(labels, dtype=np.float64)]
    p = [float(v) for v in np.asarray(probabilities, dtype=np.float64)]
    if len(y) != len(p):
        raise ValueError("one label per probability")
    n = len(p)
    if n == 0:
        return None
    order = sorted(range(n), key=lambda i: p[i])  # stable
    error = 0.0
    for k in range(bins):
        rows = order[k * n // bins : (k + 1) * n // bins]
        if rows:
            gap = math.fsum(p[i] for i in rows) / len(rows) - math.fsum(y[i] for i in rows) / len(rows)
            error += abs(gap) * len(rows) / n
    return error


def weighted_auc(scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike) -> float | None:
    """``sum_{i pos, j neg} w_i w_j (1[s_i > s_j] + 1[s_i = s_j] / 2) / sum_{i pos, j neg} w_i w_j``; all ``[n]``.

    None if a class has no weight. Mann and Whitney (1947), each row counting ``w_i`` times.
    """
    s, y, w = ([float(v) for v in np.asarray(a, dtype=np.float64)] for a in (scores, labels, weights))
    if not len(s) == len(y) == len(w):
        raise ValueError("one score, label and weight per row")
    right = pairs = 0.0
    for i in range(len(s)):
        for j in range(len(s)):
            if y[i] == 1.0 and y[j] == 0.0:
                pairs += w[i] * w[j]
                right += w[i] * w[j] * (1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0)
    return right / pairs if pairs > 0 else None


def user_bootstrap_auc(
    scores: npt.ArrayLike, labels: npt.ArrayLike, rows_of_user: Sequence[Sequence[int]], counts: Sequence[int]
) -> float | None:
    """`weighted_auc` of one draw: each row counts ``counts[u]`` times, how often its user u was drawn.

    ``rows_of_user``: U lists of row numbers that together hold every row once; counts ``[U]``. Bootstrap over
    clusters, Field and Welsh (2007).
    """
    n = len(np.asarray(scores))
    if sorted(row for rows in rows_of_user for row in rows) != list(range(n)):
        raise ValueError("every row belongs to one user")
    weights = [0.0] * n
    for rows, count in zip(rows_of_user, counts, strict=True):
        for row in rows:
            weights[row] = float(count)
    return weighted_auc(scores, labels, weights)
