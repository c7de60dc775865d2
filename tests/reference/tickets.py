"""Lottery tickets: magnitude pruning in rounds, masks per unit, and what to measure on them.

A unit is whatever owns a mask (a domain or a task). Papers: LT4REC, arXiv 2008.09872; lottery tickets,
arXiv 1803.03635; rewinding, arXiv 1903.01611.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .optim import adamw_step

Array = npt.NDArray[np.float64]


def round_rate(keep: float, rounds: int) -> float:
    """``p = 1 - keep^(1 / rounds)``: the share to prune per round so that ``keep`` of the weights survive them all.

    Lottery tickets, arXiv 1803.03635.
    """
    return float(1.0 - keep ** (1.0 / rounds))


def prune(weights: Sequence[npt.ArrayLike], masks: Sequence[npt.ArrayLike], rate: float, ranking: str) -> list[Array]:
    """New masks (0 or 1, one per layer): the ``round(rate * n)`` smallest ``|w|`` of the n survivors are removed.

    ``ranking``: "global" ranks the survivors of all layers together, "layer" those of each layer alone. Halves
    round to even. Ties go in order of position: layer, then row-major index. LT4REC, arXiv 2008.09872.
    """
    if ranking not in ("global", "layer"):
        raise ValueError(f"ranking is 'global' or 'layer', not {ranking!r}")
    if len(weights) != len(masks):
        raise ValueError("one mask per layer")
    result = [np.array(mask, dtype=np.float64) for mask in masks]
    layers = range(len(result))
    groups = [list(layers)] if ranking == "global" else [[layer] for layer in layers]
    for group in groups:
        survivors = []
        for layer in group:
            w = np.asarray(weights[layer], dtype=np.float64)
            if w.shape != result[layer].shape:
                raise ValueError("a mask has the shape of its layer's weights")
            for index in np.ndindex(w.shape):  # row-major
                if result[layer][index] != 0.0:
                    survivors.append((abs(float(w[index])), layer, index))
        for _, layer, index in sorted(survivors)[: round(rate * len(survivors))]:
            result[layer][index] = 0.0
    return result


def overlap(a: Sequence[npt.ArrayLike] | Array, b: Sequence[npt.ArrayLike] | Array) -> float:
    """Jaccard index ``|a and b| / |a or b|`` of two masks, each an array or a list of layers' arrays.

    1 if both are empty. Jaccard (1912).
    """
    both = either = 0
    for one, other in zip(a, b, strict=True):
        for x, y in zip(np.ravel(one), np.ravel(other), strict=True):
            both += int(x != 0 and y != 0)
            either += int(x != 0 or y != 0)
    return both / either if either else 1.0


def unit_mask(masks: Sequence[npt.ArrayLike], unit: int) -> Array:
    """Mask of a unit 0..U-1, each of the U masks ``[i, o]``; unit U, the unknown one, gets the union of all.

    LT4REC, arXiv 2008.09872; the unknown unit is autoctr's.
    """
    if not 0 <= unit <= len(masks):
        raise ValueError(f"unit {unit} is outside 0..{len(masks)}")
    if unit < len(masks):
        return np.array(masks[unit], dtype=np.float64)
    union = np.zeros(np.shape(masks[0]))
    for mask in masks:
        union = np.maximum(union, np.asarray(mask, dtype=np.float64))
    return union


def masked_linear(
    x: npt.ArrayLike,
    W: npt.ArrayLike,
    masks: Sequence[npt.ArrayLike],
    unit: Sequence[int] | npt.NDArray[np.integer],
    b: npt.ArrayLike,
) -> Array:
    """Per row n of unit u: ``x_n (m_u * W) + b``; x ``[B, i]``, W ``[i, o]``, U masks ``[i, o]``, unit ``[B]``.

    Unit U is unknown and gets the union of the masks, see `unit_mask`. LT4REC, arXiv 2008.09872.
    """
    rows, w = np.asarray(x, dtype=np.float64), np.asarray(W, dtype=np.float64)
    if len(unit) != len(rows):
        raise ValueError("one unit per row")
    result = np.zeros((len(rows), w.shape[1]))
    for n, u in enumerate(int(v) for v in unit):
        result[n] = rows[n] @ (unit_mask(masks, u) * w) + np.asarray(b, dtype=np.float64)
    return result


def masked_adam(
    p: npt.ArrayLike,
    g: npt.ArrayLike,
    m: npt.ArrayLike,
    v: npt.ArrayLike,
    step: int,
    lr: float,
    masks: Sequence[npt.ArrayLike],
    unit: Sequence[int] | npt.NDArray[np.integer],
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> tuple[Array, Array, Array]:
    """`optim.adamw_step` where at least one unit of the batch keeps the entry; elsewhere p, m and v stay.

    p, g, m, v and the U masks are ``[i, o]``, ``unit`` ``[B]`` holds the batch's units (U: unknown, the union).
    Frozen entries are not decayed either; the bias correction uses the global ``step``. Adam: arXiv 1412.6980;
    freezing is autoctr's.
    """
    old = [np.array(a, dtype=np.float64) for a in (p, m, v)]
    new = adamw_step(p, g, m, v, step, lr, weight_decay, betas, eps)
    for index in np.ndindex(old[0].shape):
        if any(unit_mask(masks, int(u))[index] != 0.0 for u in unit):
            for kept, moved in zip(old, new, strict=True):
                kept[index] = moved[index]
    return old[0], old[1], old[2]


def error_barrier(losses: Mapping[float, float], ends: tuple[float, float]) -> float:
    """``max(0, max_t loss(t) - ((1 - t) loss(0) + t loss(1)))`` on the straight line between two weight vectors.

    ``losses``: t in 0..1 to loss(t); ``ends`` = (loss(0), loss(1)). arXiv 1912.05671, 2110.06296; the floor is
    autoctr's.
    """
    highest = 0.0
    for t, loss in losses.items():
        highest = max(highest, loss - ((1.0 - t) * ends[0] + t * ends[1]))
    return highest
