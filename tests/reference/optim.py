"""Optimiser steps as functions of arrays: AdamW for dense parameters, row-wise Adam for embedding tables."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def adamw_step(
    p: npt.ArrayLike,
    g: npt.ArrayLike,
    m: npt.ArrayLike,
    v: npt.ArrayLike,
    step: int,
    lr: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> tuple[Array, Array, Array]:
    """One AdamW step with decoupled decay (arXiv 1711.05101); returns new ``(p, m, v)``.

    ``step`` t counts from 1.
    ``p <- p - lr wd p``; ``m <- b1 m + (1 - b1) g``; ``v <- b2 v + (1 - b2) g^2``;
    ``p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)``.
    """
    if step < 1:
        raise ValueError("steps count from 1")
    b1, b2 = betas
    p_, g_, m_, v_ = (np.array(a, dtype=np.float64) for a in (p, g, m, v))
    p_ = p_ - lr * weight_decay * p_
    m_ = b1 * m_ + (1.0 - b1) * g_
    v_ = b2 * v_ + (1.0 - b2) * g_ * g_
    m_hat = m_ / (1.0 - b1**step)
    v_hat = v_ / (1.0 - b2**step)
    return p_ - lr * m_hat / (np.sqrt(v_hat) + eps), m_, v_


def row_adam_step(
    table: npt.ArrayLike,
    ids: Sequence[int] | npt.NDArray[np.integer],
    gradients: npt.ArrayLike,
    m: npt.ArrayLike,
    v: npt.ArrayLike,
    step: int,
    lr: float,
    l2: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> tuple[Array, Array, Array]:
    """One Adam step (arXiv 1412.6980) on the table rows named in ``ids``; returns new ``(table, m, v)``.

    ``gradients[i]`` belongs to occurrence i, so an id that occurs twice gets the sum. For each distinct row
    w: ``g <- sum_i gradients[i] + l2 w`` (once per row), then Adam with elementwise moments. Rows that are
    not in the batch keep weights and moments as they are; the bias correction uses the global ``step`` (from
    1) for all rows. A row in the batch whose gradient is zero does step.
    """
    if step < 1:
        raise ValueError("steps count from 1")
    b1, b2 = betas
    grads = np.asarray(gradients, dtype=np.float64)
    table_, m_, v_ = (np.array(a, dtype=np.float64) for a in (table, m, v))
    occurrences = [int(i) for i in ids]
    if len(occurrences) != len(grads):
        raise ValueError("one gradient per id")
    for row in sorted(set(occurrences)):
        g = np.zeros(table_.shape[1])
        for i, occurrence in enumerate(occurrences):
            if occurrence == row:
                g = g + grads[i]
        g = g + l2 * table_[row]
        m_[row] = b1 * m_[row] + (1.0 - b1) * g
        v_[row] = b2 * v_[row] + (1.0 - b2) * g * g
        m_hat = m_[row] / (1.0 - b1**step)
        v_hat = v_[row] / (1.0 - b2**step)
        table_[row] = table_[row] - lr * m_hat / (np.sqrt(v_hat) + eps)
    return table_, m_, v_


def numerical_gradient(function: Callable[[Array], float], x: npt.ArrayLike, width: float = 1e-6) -> Array:
    """Central differences ``(f(x + w e_j) - f(x - w e_j)) / 2w`` for every entry j of x."""
    point = np.array(x, dtype=np.float64)
    result = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        up, down = point.copy(), point.copy()
        up[index] += width
        down[index] -= width
        result[index] = (float(function(up)) - float(function(down))) / (2.0 * width)
    return result
