"""Interaction components that read a node's vector f and the anchor x0, some of them as tokens.

A vector of h numbers is seen as ``T = h / e`` tokens of e numbers each, token i being ``f[i e : (i + 1) e]``.
"""

import math

import numpy as np
import numpy.typing as npt

from .fusion import relu, softmax

Array = npt.NDArray[np.float64]


def token_width(h: int, embedding: int) -> int:
    """``e = gcd(h, embedding width)``, so that whole tokens fill the vector. autoctr's own."""
    return math.gcd(h, embedding)


def tokens(f: npt.ArrayLike, e: int) -> Array:
    """``[B, h]`` as ``[B, T, e]`` (``[h]`` as ``[T, e]``), tokens in the order of the features."""
    values = np.asarray(f, dtype=np.float64)
    h = values.shape[-1]
    if h % e != 0:
        raise ValueError(f"{h} features are not a whole number of tokens of width {e}")
    return values.reshape(*values.shape[:-1], h // e, e)


def lowrank_cross(f: npt.ArrayLike, x0: npt.ArrayLike, U: npt.ArrayLike, V: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """``x0 * ((f U) V + b) + f``, elementwise product; f and x0 ``[B, h]``, U ``[h, r]``, V ``[r, h]``, b ``[h]``.

    DCN-v2, arXiv 2008.13535.
    """
    f_, x0_, u_, v_, b_ = (np.asarray(a, dtype=np.float64) for a in (f, x0, U, V, b))
    return np.asarray(x0_ * ((f_ @ u_) @ v_ + b_) + f_)


def field_attention(
    f: npt.ArrayLike,
    Q: npt.ArrayLike,
    K: npt.ArrayLike,
    V: npt.ArrayLike,
    W_res: npt.ArrayLike,
    heads: int,
    scale: bool = True,
) -> Array:
    """``relu([o_1; ...; o_H] + f_i W_res)`` for every token i, ``o_m = sum_j softmax_j(q_i . k_j) v_j``.

    All matrices are ``[e, e]``; head m has the columns ``m e/H .. (m + 1) e/H`` of Q, K and V. ``scale`` divides
    ``q_i . k_j`` by ``sqrt(e / H)``, which the paper does not. ``[B, h]`` to ``[B, h]``. AutoInt, arXiv 1810.11921.
    """
    q_all, k_all, v_all, res = (np.asarray(a, dtype=np.float64) for a in (Q, K, V, W_res))
    e = len(q_all)
    if e % heads != 0:
        raise ValueError(f"tokens of width {e} do not divide into {heads} heads")
    width = e // heads
    rows = np.asarray(f, dtype=np.float64)
    result = np.zeros_like(rows)
    for index in np.ndindex(rows.shape[:-1]):
        row = tokens(rows[index], e)
        new = []
        for token in row:
            parts = []
            for m in range(heads):
                columns = slice(m * width, (m + 1) * width)
                q = token @ q_all[:, columns]
                scores = [float(q @ (other @ k_all[:, columns])) for other in row]
                if scale:
                    scores = [score / math.sqrt(width) for score in scores]
                output = np.zeros(width)
                for weight, other in zip(softmax(scores), row, strict=True):
                    output = output + weight * (other @ v_all[:, columns])
                parts.append(output)
            new.append(relu(np.concatenate(parts) + token @ res))
        result[index] = np.concatenate(new)
    return result


def _other_tokens(f: Array) -> Array:
    """``sum_{j != i} f_j`` for every token i; f and the result are ``[..., T, e]``."""
    result = np.zeros_like(f)
    for i in range(f.shape[-2]):
        for j in range(f.shape[-2]):
            if j != i:
                result[..., i, :] = result[..., i, :] + f[..., j, :]
    return result


def fm(f: npt.ArrayLike, x0: npt.ArrayLike, e: int) -> Array:
    """Token i: ``x0_i * sum_{j != i} f_j + f_i``, elementwise product; ``[B, h]`` to ``[B, h]``.

    The pairwise products of factorisation machines (Rendle 2010) kept as vectors; the residual is autoctr's.
    """
    f_, x0_ = tokens(f, e), tokens(x0, e)
    return np.asarray((x0_ * _other_tokens(f_) + f_).reshape(np.shape(f)))


def bilinear(f: npt.ArrayLike, x0: npt.ArrayLike, W: npt.ArrayLike) -> Array:
    """Token i: ``x0_i * ((sum_{j != i} f_j) W) + f_i``, one W ``[e, e]`` for all tokens; ``[B, h]`` to ``[B, h]``.

    FiBiNET's bilinear interaction with a shared matrix, arXiv 1905.09433; sum and residual are autoctr's.
    """
    w = np.asarray(W, dtype=np.float64)
    f_, x0_ = tokens(f, len(w)), tokens(x0, len(w))
    return np.asarray((x0_ * (_other_tokens(f_) @ w) + f_).reshape(np.shape(f)))
