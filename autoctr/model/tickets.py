"""Lottery tickets: which shared weights a unit (a domain, a task or the whole network) uses (LT4REC, arXiv 2008.09872).

Iterative magnitude pruning removes the smallest survivors round after round; :mod:`autoctr.training.tickets` trains
between the rounds and rewinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from autoctr.model.parameters import Layout
from autoctr.model.segments import Segments


def round_rate(keep: float, rounds: int) -> float:
    """Share of the survivors that each of ``rounds`` prunings removes so that ``keep`` is left in the end."""
    return 1.0 - float(keep ** (1 / rounds))


def prune(weights: Tensor, mask: Tensor, rate: float, layers: Sequence[int] | None = None) -> Tensor:
    """Remove the smallest surviving weights.

    Args:
        weights: [M]. mask: bool [M], the survivors.
        rate: share p of the n survivors to remove: the round(p n) of smallest magnitude, earlier positions first where
            they tie.
        layers: sizes that sum to M, to rank within each; None ranks over all.

    Returns: the new mask, bool [M].
    """
    if layers is not None:
        pieces = zip(torch.split(weights, list(layers)), torch.split(mask, list(layers)), strict=True)
        return torch.cat([prune(w, m, rate) for w, m in pieces])
    removed = round(rate * int(mask.sum()))
    magnitudes = torch.where(mask, weights.abs(), torch.inf)
    left = mask.clone()
    left[magnitudes.sort(stable=True).indices[:removed]] = False
    return left


def overlap(masks: Tensor) -> Tensor:
    """Jaccard index of every two units' masks, |a ∧ b| / |a ∨ b|; 1 where both are empty.

    Args:
        masks: bool [U, M].

    Returns: [U, U].
    """
    kept = masks.double()
    both = kept @ kept.T
    sizes = kept.sum(1)
    union = sizes[:, None] + sizes - both
    return torch.where(union > 0, both / union.clamp(min=1), 1.0)


def spread_masks(masks: Tensor, names: Sequence[str], maskable: Layout) -> Tensor:
    """A member's masks among the weights that some member of its cohort uses; 1 where the member uses none.

    Args:
        masks: [U, m] over the weights ``names``, in this order.

    Returns: [U, M] over ``maskable``.
    """
    result = masks.new_ones(len(masks), maskable.size)
    own = torch.split(masks, [maskable.weights[name].size for name in names], 1)
    views = maskable.views(result)
    for name, piece in zip(names, own, strict=True):
        views[name].copy_(piece.view_as(views[name]))
    return result


def masked_linear(x: Tensor, weight: Tensor, masks: Tensor, bias: Tensor | None, segments: Segments) -> Tensor:
    """x (m_u ⊙ W) + b with each row's own unit u; rows of an unknown domain use what any unit keeps.

    Args:
        x: [K, B, inputs], rows sorted by domain. weight: [K, inputs, outputs]. bias: [K, outputs] or None.
        masks: [K, U, inputs, outputs]; U is 1 (for all rows) or the number of domains.

    Returns: [K, B, outputs].
    """
    if masks.shape[1] == 1:
        out = torch.bmm(x, weight * masks[:, 0])
    else:
        bounds, pieces = [*segments.bounds, x.shape[1]], []
        for unit, (start, end) in enumerate(pairwise(bounds)):
            if end > start:
                mask = masks[:, unit] if unit < masks.shape[1] else masks.amax(1)
                pieces.append(torch.bmm(x[:, start:end], weight * mask))
        out = torch.cat(pieces, 1) if pieces else x.new_zeros(len(x), 0, weight.shape[2])
    return out if bias is None else out + bias[:, None]


def movable(layout: Layout, maskable: Layout, masks: Tensor, present: Tensor | None) -> Tensor:
    """Which weights a step may move: all but those that no unit in the batch keeps.

    A weight that is pruned for every row of a batch has no gradient there, and an optimiser's momentum or decay must
    not move it either.

    Args:
        masks: [K, U, M]. present: bool [U], the units in the batch; None = all.

    Returns: bool [K, P] over ``layout``.
    """
    members = len(masks)
    used = masks if present is None else masks[:, present]
    kept = used.amax(1) > 0 if used.shape[1] else torch.zeros_like(masks[:, 0], dtype=torch.bool)
    result = torch.ones(members, layout.size, dtype=torch.bool, device=masks.device)
    views, pieces = layout.views(result), maskable.views(kept)
    for name in maskable.weights:
        views[name].copy_(pieces[name])
    return result
