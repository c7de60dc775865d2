"""AdaSparse's pruner (arXiv 2206.13108): a factor per neuron and row that closes neurons per domain.

Thresholds are hard forward and straight-through backward: the sign function of other ports negates neurons below the
threshold and gives the pruner no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoctr.model.parameters import Layout, Views, uniform, zeros

ALPHA_START, ALPHA_END = 0.1, 5.0
BETA = 2.0
EPSILON = 0.25
HALF_BAND = 0.05
STRENGTH_START, STRENGTH_END = 0.01, 10.0
FORMS = ("fusion", "binarization", "scaling")


class _Replace(torch.autograd.Function):
    """``hard`` forward; the gradient goes to ``soft``."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        return hard

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _replace(soft: Tensor, hard: Tensor) -> Tensor:
    result: Tensor = _Replace.apply(soft, hard.to(soft.dtype))  # type: ignore[no-untyped-call]
    return result


def alpha(progress: float) -> float:
    """Steepness of the sigmoid after a share ``progress`` of the ramp: 0.1 to 5, linear, then constant."""
    return ALPHA_START + (ALPHA_END - ALPHA_START) * min(max(progress, 0.0), 1.0)


def strength(progress: float) -> float:
    """Weight of the band regulariser after a share ``progress`` of the ramp: 0.01 to 10, linear, then constant."""
    return STRENGTH_START + (STRENGTH_END - STRENGTH_START) * min(max(progress, 0.0), 1.0)


def threshold(form: str, steepness: float) -> float:
    """The pruner output v below which a neuron is closed; -inf for ``scaling``, which closes nothing."""
    if form == "scaling":
        return -math.inf
    share = EPSILON / BETA if form == "fusion" else EPSILON
    return math.log(share / (1 - share)) / steepness


def factors(form: str, v: Tensor, steepness: float) -> Tensor:
    """The factor π of every neuron.

    fusion: βσ(αv) where that exceeds ε, else 0. binarization: 1 where σ(αv) > ε, else 0. scaling: βσ(v).

    Args:
        v: pruner outputs, [K, B, H].
        steepness: α.

    Returns: [K, B, H].
    """
    if form == "scaling":
        return BETA * v.sigmoid()
    soft = (steepness * v).sigmoid()
    if form == "binarization":
        return _replace(soft, soft > EPSILON)
    soft = BETA * soft
    return _replace(soft, torch.where(soft > EPSILON, soft, 0.0))


def declare_pruner(layout: Layout, name: str, width: int, domain_width: int, reads_neurons: bool) -> None:
    """v = [h; e_d] W + b, the rows of W that read h only if ``reads_neurons``. Starts at v = 0: every neuron open."""
    inputs = domain_width + width * reads_neurons
    if reads_neurons:
        layout.add(f"{name}.pruner.neurons", (width, width), uniform(inputs), decayed=True)
    layout.add(f"{name}.pruner.domain", (domain_width, width), uniform(inputs), decayed=True)
    layout.add(f"{name}.pruner.bias", (width,), zeros)


def pruner_output(weights: Views, name: str, h: Tensor, domain_embedding: Tensor) -> Tensor:
    """v of every neuron.

    Args:
        h: the layer's neurons, [K, B, H].
        domain_embedding: e_d, [K, B, E].

    Returns: [K, B, H].
    """
    v = torch.baddbmm(weights[f"{name}.pruner.bias"][:, None], domain_embedding, weights[f"{name}.pruner.domain"])
    neurons = weights.get(f"{name}.pruner.neurons")
    return v if neurons is None else torch.baddbmm(v, h, neurons)


def closed_share(form: str, v: Tensor, steepness: float, one_hot: Tensor) -> Tensor:
    """Share of closed neurons per domain, hard forward and with the gradient of a sigmoid around the threshold.

    Args:
        v: pruner outputs, [K, B, H].
        one_hot: the rows' domains, [B, D].

    Returns: [K, D]; 0 for a domain without rows.
    """
    edge = threshold(form, steepness)
    closed = _replace(((edge - v) * steepness).sigmoid(), v < edge)
    rows = one_hot.sum(0).clamp(min=1)
    return torch.matmul(closed.mean(-1), one_hot) / rows


def band_penalty(shares: Sequence[Tensor], targets: Tensor, one_hot: Tensor, counted: Tensor | None = None) -> Tensor:
    """(1/L) Σ_l mean over present domains of (r - target)² where |r - target| > 0.05, else 0.

    The paper's λ·|r - target| times the norm of the same gap: quadratic outside the band, exactly 0 inside. One band
    per domain instead of one for all.

    Args:
        shares: per layer, [K, D].
        targets: [K, D].
        one_hot: [B, D].
        counted: [L, K], 1 where a member has the layer, 0 where only others of its cohort have it; None = all 1.

    Returns: [K].
    """
    present = (one_hot.sum(0) > 0).to(targets.dtype)
    total = torch.zeros_like(targets)
    if counted is None:
        counted = targets.new_ones(len(shares), len(targets))
    for share, counts in zip(shares, counted, strict=True):
        gap = share - targets
        total = total + torch.where(gap.abs() > HALF_BAND, gap**2, 0.0) * counts[:, None]
    return (total * present).sum(-1) / present.sum().clamp(min=1) / counted.sum(0).clamp(min=1)
