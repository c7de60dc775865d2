"""MLoRA: a shared linear layer plus one low-rank adapter per domain. Paper: arXiv 2408.08913."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def lora_layer(
    x: npt.ArrayLike,
    domain: Sequence[int] | npt.NDArray[np.integer],
    W: npt.ArrayLike,
    b: npt.ArrayLike,
    A: Sequence[npt.ArrayLike],
    B: Sequence[npt.ArrayLike],
    bias: Sequence[npt.ArrayLike],
    ranks: Sequence[int],
) -> Array:
    """Per row i of domain d: ``x_i W + b + x_i A_d[:, :r_d] B_d[:r_d, :] + bias_d``, before any activation.

    ``x`` is ``[n, in]``, ``domain`` ``[n]``. The low-rank term is not scaled. ``r_d = 0`` switches the
    domain's bias off too; domain ``D`` (one past the last) is the unknown domain and gets the shared part
    only. MLoRA, arXiv 2408.08913.
    """
    rows = np.asarray(x, dtype=np.float64)
    shared_w, shared_b = np.asarray(W, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(domain) != len(rows):
        raise ValueError("one domain per row")
    result = np.zeros((len(rows), shared_w.shape[1]))
    for i, d in enumerate(int(v) for v in domain):
        if not 0 <= d <= len(ranks):
            raise ValueError(f"domain {d} is outside 0..{len(ranks)}")
        y = rows[i] @ shared_w + shared_b
        if d < len(ranks) and ranks[d] > 0:
            r = ranks[d]
            a_d = np.asarray(A[d], dtype=np.float64)[:, :r]
            b_d = np.asarray(B[d], dtype=np.float64)[:r, :]
            y = y + (rows[i] @ a_d) @ b_d + np.asarray(bias[d], dtype=np.float64)
        result[i] = y
    return result


def domain_size_score(domain_rows: Sequence[int]) -> list[float]:
    """``s_d = (log n_d - mean log n) / max_d |log n_d - mean log n|``, 0 when all domains are equally large.

    The mean is over domains, unweighted. Equality is decided on the counts themselves: the logarithms' mean
    may be off by one rounding error, which dividing by itself would blow up to 1. autoctr's own.
    """
    counts = [int(n) for n in domain_rows]
    if any(n <= 0 for n in counts):
        raise ValueError("every domain needs at least one row")
    if len(set(counts)) <= 1:
        return [0.0 for _ in counts]
    logs = [math.log(n) for n in counts]
    mean = math.fsum(logs) / len(logs)
    largest = max(abs(v - mean) for v in logs)
    return [(v - mean) / largest for v in logs]


def ranks(level: float, tilt: float, domain_rows: Sequence[int], maximum: int) -> list[int]:
    """``r_d = clip(floor(level * 2^(tilt * s_d) + 0.5), 0, maximum)``; level 0 gives rank 0 everywhere.

    autoctr's own; ``s_d`` as in `domain_size_score`.
    """
    result = []
    for s in domain_size_score(domain_rows):
        r = math.floor(level * 2.0 ** (tilt * s) + 0.5)
        result.append(min(max(r, 0), maximum))
    return result
