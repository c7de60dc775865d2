"""AdaSparse's pruner (arXiv 2206.13108): a factor per neuron and row that closes neurons per domain.

Thresholds are hard forward and straight-through backward: the sign function of other ports negates neurons below the
threshold and gives the pruner no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from autoctr.model.candidate import Candidate, sparsities
from autoctr.model.parameters import Layout, Views, uniform, within, zeros

ALPHA_START, ALPHA_END = 0.1, 5.0
BETA = 2.0
EPSILON = 0.25
HALF_BAND = 0.05
STRENGTH_START, STRENGTH_END = 0.01, 10.0
SPREAD = 0.25
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


Number = float | Tensor


def alpha(progress: float, end: Any = ALPHA_END) -> Any:
    """Steepness of the sigmoid after a share ``progress`` of the ramp: 0.1 to ``end``, linear, then constant."""
    return ALPHA_START + (end - ALPHA_START) * min(max(progress, 0.0), 1.0)


def strength(progress: float) -> float:
    """Weight of the band regulariser after a share ``progress`` of the ramp: 0.01 to 10, linear, then constant."""
    return STRENGTH_START + (STRENGTH_END - STRENGTH_START) * min(max(progress, 0.0), 1.0)


def threshold(form: str, steepness: Number, epsilon: Number = EPSILON, beta: Number = BETA) -> Number:
    """The pruner output v below which a neuron is closed; -inf for ``scaling``, which closes nothing."""
    if form == "scaling":
        return -math.inf
    share = epsilon / beta if form == "fusion" else epsilon
    odds = share / (1 - share)
    return (odds.log() if isinstance(odds, Tensor) else math.log(odds)) / steepness


def factors(form: str, v: Tensor, steepness: Number, epsilon: Number = EPSILON, beta: Number = BETA) -> Tensor:
    """The factor π of every neuron.

    fusion: βσ(αv) where that exceeds ε, else 0. binarization: 1 where σ(αv) > ε, else 0. scaling: βσ(v).

    Args:
        v: pruner outputs, [K, B, H].
        steepness: α. epsilon: ε. beta: β. Each one number or [K, 1, 1].

    Returns: [K, B, H].
    """
    if form == "scaling":
        return beta * v.sigmoid()
    soft = (steepness * v).sigmoid()
    if form == "binarization":
        return _replace(soft, soft > epsilon)
    soft = beta * soft
    return _replace(soft, torch.where(soft > epsilon, soft, 0.0))


def declare_pruner(layout: Layout, name: str, width: int, domain_width: int, *, form: str, reads_neurons: bool) -> None:
    """v = [h; e_d] W + b, the rows of W that read h only if ``reads_neurons``.

    Starts with every neuron open, as α starts at 0.1. Where neurons can close, the biases are spread: neurons that all
    start at v = 0 get equal steps from the regulariser and cross the threshold together, so that the share of closed
    ones swings between 0 and 1.
    """
    inputs = domain_width + width * reads_neurons
    if reads_neurons:
        layout.add(f"{name}.pruner.neurons", (width, width), uniform(inputs), decayed=True)
    layout.add(f"{name}.pruner.domain", (domain_width, width), uniform(inputs), decayed=True)
    layout.add(f"{name}.pruner.bias", (width,), zeros if form == "scaling" else within(SPREAD))


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


def closed_share(
    form: str,
    v: Tensor,
    steepness: Number,
    one_hot: Tensor,
    epsilon: Number = EPSILON,
    beta: Number = BETA,
    total: Callable[[Tensor], Tensor] = lambda values: values,
) -> Tensor:
    """Share of closed neurons per domain, hard forward and with the gradient of a sigmoid around the threshold.

    Args:
        v: pruner outputs, [K, B, H].
        one_hot: the rows' domains, [B, D].
        total: sums over the processes that share the batch.

    Returns: [K, D]; 0 for a domain without rows.
    """
    edge = threshold(form, steepness, epsilon, beta)
    closed = _replace(((edge - v) * steepness).sigmoid(), v < edge)
    rows = total(one_hot.sum(0)).clamp(min=1)
    return total(torch.matmul(closed.mean(-1), one_hot)) / rows


def band_penalty(shares: Sequence[Tensor], targets: Tensor, rows: Tensor, counted: Tensor | None = None) -> Tensor:
    """(1/L) Σ_l mean over present domains of (r - target)² where |r - target| > 0.05, else 0.

    The paper's λ·|r - target| times the norm of the same gap: quadratic outside the band, exactly 0 inside. One band
    per domain instead of one for all.

    Args:
        shares: per layer, [K, D].
        targets: [K, D].
        rows: of the batch in every domain, [D].
        counted: [L, K], 1 where a member has the layer, 0 where only others of its cohort have it; None = all 1.

    Returns: [K].
    """
    present = (rows > 0).to(targets.dtype)
    total = torch.zeros_like(targets)
    if counted is None:
        counted = targets.new_ones(len(shares), len(targets))
    for share, counts in zip(shares, counted, strict=True):
        gap = share - targets
        total = total + torch.where(gap.abs() > HALF_BAND, gap**2, 0.0) * counts[:, None]
    return (total * present).sum(-1) / present.sum().clamp(min=1) / counted.sum(0).clamp(min=1)


class Pruners:
    """The pruners of a cohort: each member's bands, forms and constants.

    Args:
        candidates: the members; those with sparsity 0 keep every neuron.
        domain_rows: training rows of every domain.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        domain_rows: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)[:, None, None]

        self.form, self.reads_neurons = candidates[0].sparsity_form, candidates[0].pruner_input == "both"
        targets = [sparsities(candidate, domain_rows) for candidate in candidates]
        self.targets = torch.tensor(targets, dtype=dtype, device=device)
        self.used = column([float(candidate.sparsity > 0) for candidate in candidates])
        self.all_used = all(candidate.sparsity > 0 for candidate in candidates)
        self.alpha_end = column([candidate.sparsity_alpha for candidate in candidates])
        self.epsilon = column([candidate.sparsity_epsilon for candidate in candidates])
        self.beta = column([candidate.sparsity_beta for candidate in candidates])

    def pace(self, steps: float) -> Tensor:
        """The step size with which v comes from 0 to its last threshold along a ramp of ``steps`` steps, [K].

        Adam moves a weight by about its step size, so at a small learning rate a short training would end before the
        band is reached, whatever the regulariser's strength. 0 where the form closes nothing.
        """
        edge = threshold(self.form, self.alpha_end, self.epsilon, self.beta)
        distance = edge.abs()[:, 0, 0] if isinstance(edge, Tensor) else torch.zeros_like(self.used[:, 0, 0])
        return distance / max(steps, 1.0)

    def factors(self, v: Tensor, progress: float) -> Tensor:
        """π of every member, row and neuron, [K, B, H]; 1 for members without pruners."""
        steepness = alpha(progress, self.alpha_end)
        factor = factors(self.form, v, steepness, self.epsilon, self.beta)
        return factor if self.all_used else factor * self.used + (1 - self.used)

    def closed(self, v: Tensor, progress: float, one_hot: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Share of closed neurons, [K, D]; None where the form closes none."""
        if self.form == "scaling":
            return None
        steepness = alpha(progress, self.alpha_end)
        return closed_share(self.form, v, steepness, one_hot, self.epsilon, self.beta, total)

    def penalty(self, shares: Sequence[Tensor], progress: float, rows: Tensor, counted: Tensor) -> Tensor:
        """λ times the band penalty, [K]; 0 for members without pruners."""
        return strength(progress) * self.used[:, 0, 0] * band_penalty(shares, self.targets, rows, counted)
