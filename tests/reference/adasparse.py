"""AdaSparse: per-domain pruning factors for neurons, their schedule and regulariser.

Paper: arXiv 2206.13108.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .lora import domain_size_score

Array = npt.NDArray[np.float64]


def sigmoid(values: npt.ArrayLike) -> Array:
    """``1 / (1 + exp(-v))``, without overflow for large |v|."""
    v = np.asarray(values, dtype=np.float64)
    e = np.exp(-np.abs(v))
    return np.asarray(np.where(v >= 0, 1.0 / (1.0 + e), e / (1.0 + e)))


def pruner_input(
    neurons: npt.ArrayLike, domain_embedding: npt.ArrayLike, W: npt.ArrayLike, b: npt.ArrayLike = 0.0
) -> Array:
    """``v_in = [h; e_d] W_p + b``. AdaSparse, arXiv 2206.13108; the bias is optional."""
    h, e = np.asarray(neurons, dtype=np.float64), np.asarray(domain_embedding, dtype=np.float64)
    return np.asarray(np.concatenate([h, e], axis=-1) @ np.asarray(W, dtype=np.float64) + np.asarray(b))


def hard_threshold(v_out: npt.ArrayLike, eps: float) -> Array:
    """``v if v > eps else 0``: below or at the threshold zeroed, never negated.

    AdaSparse, arXiv 2206.13108.
    """
    v = np.asarray(v_out, dtype=np.float64)
    return np.asarray(np.where(v > eps, v, 0.0))


def binarization(v_in: npt.ArrayLike, alpha: float, eps: float) -> Array:
    """``pi = 1 if sigmoid(alpha v_in) > eps else 0``. AdaSparse, arXiv 2206.13108."""
    return np.asarray(np.where(sigmoid(alpha * np.asarray(v_in, dtype=np.float64)) > eps, 1.0, 0.0))


def scaling(v_in: npt.ArrayLike, beta: float) -> Array:
    """``pi = beta sigmoid(v_in)``; neither alpha nor eps plays a role. AdaSparse, arXiv 2206.13108."""
    return np.asarray(beta * sigmoid(v_in))


def fusion(v_in: npt.ArrayLike, alpha: float, beta: float, eps: float) -> Array:
    """``v_out = beta sigmoid(alpha v_in)``; ``pi = v_out if v_out > eps else 0``.

    AdaSparse, arXiv 2206.13108.
    """
    return hard_threshold(beta * sigmoid(alpha * np.asarray(v_in, dtype=np.float64)), eps)


def alpha_schedule(step: float, total: float, start: float = 0.1, end: float = 5.0) -> float:
    """``start + (end - start) * step / total``, the fraction kept within 0..1.

    So ``end`` is met at step = total. AdaSparse, arXiv 2206.13108, gives the ends 0.1 and 5; the
    straight line is autoctr's.
    """
    fraction = min(max(step / total, 0.0), 1.0) if total > 0 else 1.0
    return start + (end - start) * fraction


def sparsity_ratio(pi: npt.ArrayLike) -> float:
    """``r``: the share of entries of pi that are exactly 0.

    AdaSparse, arXiv 2206.13108 (definition inferred).
    """
    values = np.asarray(pi, dtype=np.float64).reshape(-1)
    if len(values) == 0:
        raise ValueError("no pruning factors")
    return sum(1 for v in values if v == 0.0) / len(values)


def targets(level: float, tilt: float, domain_rows: Sequence[int]) -> list[float]:
    """``t_d = clip(level * 2^(tilt * s_d), 0, 0.9)``; ``s_d`` as in `lora.domain_size_score`.

    autoctr's own.
    """
    return [min(max(level * 2.0 ** (tilt * s), 0.0), 0.9) for s in domain_size_score(domain_rows)]


def regulariser(
    ratios: npt.ArrayLike,
    targets: Sequence[float],
    half_band: float = 0.05,
    *,
    strength: float,
    present: Sequence[bool],
) -> float:
    """``R_s = (1/L) sum_l mean_{d present} strength * (r_ld - t_d)^2 * 1[|r_ld - t_d| > half_band]``.

    ``ratios`` is ``[L, D]``; ``present[d]`` says whether the batch has rows of domain d; with none present
    R_s = 0. AdaSparse, arXiv 2206.13108, per domain instead of once for all.
    """
    r = np.asarray(ratios, dtype=np.float64)
    if r.shape[1] != len(targets) or len(present) != len(targets):
        raise ValueError("ratios, targets and present disagree about the number of domains")
    shown = [d for d in range(len(targets)) if present[d]]
    if not shown:
        return 0.0
    total = 0.0
    for layer in range(len(r)):
        penalties = []
        for d in shown:
            gap = float(r[layer, d]) - targets[d]
            penalties.append(strength * gap * gap if abs(gap) > half_band else 0.0)
        total += sum(penalties) / len(penalties)
    return total / len(r)
