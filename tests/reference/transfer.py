"""Transfer of knowledge over time: pooling of historical embeddings, and forgetting.

Paper: E-CDCTR, arXiv 2408.16238. The poolings take one row: M snapshots ``[M, d]``, oldest first, and which of
them are known ``[M]``; with nothing known they return zeros ``[d]``.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .fusion import softmax

Array = npt.NDArray[np.float64]


def _known(snapshots: npt.ArrayLike, known: Sequence[bool]) -> tuple[list[Array], int]:
    """The known snapshots in order, and the width d."""
    s = np.asarray(snapshots, dtype=np.float64)
    return [row for row, flag in zip(s, known, strict=True) if flag], s.shape[1]


def attention_pool(snapshots: npt.ArrayLike, known: Sequence[bool], query: npt.ArrayLike) -> Array:
    """``sum_m a_m s_m``, ``a = softmax((q . s_m) / sqrt(d))`` over the known m; query ``[d]``.

    E-CDCTR, arXiv 2408.16238.
    """
    rows, d = _known(snapshots, known)
    q = np.asarray(query, dtype=np.float64)
    result = np.zeros(d)
    if rows:
        for weight, row in zip(softmax([float(q @ row) / np.sqrt(d) for row in rows]), rows, strict=True):
            result = result + weight * row
    return result


def mean_pool(snapshots: npt.ArrayLike, known: Sequence[bool]) -> Array:
    """Mean of the known snapshots. E-CDCTR, arXiv 2408.16238."""
    rows, d = _known(snapshots, known)
    result = np.zeros(d)
    for row in rows:
        result = result + row / len(rows)
    return result


def last_pool(snapshots: npt.ArrayLike, known: Sequence[bool]) -> Array:
    """The known snapshot with the largest m, the latest. E-CDCTR, arXiv 2408.16238."""
    rows, d = _known(snapshots, known)
    return rows[-1] if rows else np.zeros(d)


def forgetting(losses: npt.ArrayLike) -> float:
    """``F = mean_s (loss[last, s] - min_{u >= s} loss[u, s])`` over the days s; losses ``[updates, days]``.

    Update s is the first to have seen day s: entries with u < s play no role. Chaudhry et al., arXiv 1801.10112,
    in losses instead of accuracies.
    """
    values = np.asarray(losses, dtype=np.float64)
    updates, days = values.shape
    if not 0 < days <= updates:
        raise ValueError("every day needs an update that has seen it")
    gaps: list[float] = []
    for s in range(days):
        gaps.append(float(values[-1, s]) - min(float(values[u, s]) for u in range(s, updates)))
    return sum(gaps) / len(gaps)
