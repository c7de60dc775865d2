"""AdaSparse's pruning forms on the input: one factor per field, read from the domain embedding alone.

The forms are those of arXiv 2206.13108; a factor per field and the sole input e_d are autoctr's.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from . import adasparse

Array = npt.NDArray[np.float64]


def field_factors(
    domain_embedding: npt.ArrayLike,
    W: npt.ArrayLike,
    b: npt.ArrayLike,
    form: str,
    *,
    alpha: float,
    beta: float,
    eps: float,
) -> Array:
    """``pi = form(e_d W + b)``: e_d ``[E]`` or ``[B, E]``, W ``[E, F]``, b ``[F]``, pi ``[F]`` or ``[B, F]``.

    fusion: ``beta sigmoid(alpha v)`` if above eps, else 0; binarization: 1 if ``sigmoid(alpha v)`` is above eps,
    else 0; scaling: ``beta sigmoid(v)``. AdaSparse, arXiv 2206.13108.
    """
    v = np.asarray(domain_embedding, dtype=np.float64) @ np.asarray(W, dtype=np.float64) + np.asarray(b)
    if form == "fusion":
        return adasparse.fusion(v, alpha, beta, eps)
    if form == "binarization":
        return adasparse.binarization(v, alpha, eps)
    if form == "scaling":
        return adasparse.scaling(v, beta)
    raise ValueError(f"form is 'fusion', 'binarization' or 'scaling', not {form!r}")


def prune_fields(x: npt.ArrayLike, factors: npt.ArrayLike, widths: Sequence[int]) -> Array:
    """Field j's ``widths[j]`` numbers times its factor; x ``[sum]`` or ``[B, sum]``, factors ``[F]`` or ``[B, F]``.

    Fields lie side by side in x, in order; sum is that of the widths. AdaSparse, arXiv 2206.13108, on fields.
    """
    rows, pi = np.asarray(x, dtype=np.float64), np.asarray(factors, dtype=np.float64)
    if rows.shape[-1] != sum(widths) or pi.shape[-1] != len(widths):
        raise ValueError("input, factors and widths disagree about the fields")
    parts, start = [], 0
    for j, width in enumerate(widths):
        parts.append(rows[..., start : start + width] * pi[..., j : j + 1])
        start += width
    return np.concatenate(parts, axis=-1)
