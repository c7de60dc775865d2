"""Cutting adapters down to a lower rank, and choosing that rank."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def truncate(A: npt.ArrayLike, B: npt.ArrayLike, r: int) -> tuple[Array, Array]:
    """``A' = U_r sqrt(S_r)`` ``[i, r]``, ``B' = sqrt(S_r) V_r^T`` ``[r, o]`` from ``A B = U S V^T``, A has R columns.

    ``A' B'`` is the closest matrix of rank r (Eckart and Young 1936). The factors' signs are arbitrary, their
    product is not. Past ``min(i, o)`` there are no singular values left: zeros.
    """
    a, b = np.asarray(A, dtype=np.float64), np.asarray(B, dtype=np.float64)
    if not 0 <= r <= a.shape[1]:
        raise ValueError(f"rank {r} is outside 0..{a.shape[1]}")
    u, s, vt = np.linalg.svd(a @ b, full_matrices=False)
    new_a, new_b = np.zeros((a.shape[0], r)), np.zeros((r, b.shape[1]))
    for k in range(min(r, len(s))):
        new_a[:, k] = u[:, k] * np.sqrt(s[k])
        new_b[k, :] = np.sqrt(s[k]) * vt[k, :]
    return new_a, new_b


def rank_rule(width: int, divisor: int) -> int:
    """``max(floor(width / divisor), 1)``. MLoRA, arXiv 2408.08913, whose temperature is the divisor."""
    return max(width // divisor, 1)


def smallest_rank(losses: Sequence[float], tolerance: float) -> int:
    """Smallest r with ``losses[r] <= losses[R] + tolerance``; ``losses`` of the ranks 0..R. autoctr's own."""
    for r, loss in enumerate(losses):
        if loss <= losses[-1] + tolerance:
            return r
    raise ValueError("no losses, a loss that is not a number, or a negative tolerance")
