"""Batch normalisation of each member's neurons, with running statistics for evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from autoctr.model.parameters import Layout, Views, constant, zeros

MOMENTUM = 0.1
EPSILON = 1e-5


class BatchNorm:
    """(h - mean) / sqrt(variance + 1e-5) · scale + shift, per neuron (arXiv 1502.03167)."""

    def declare(self, layout: Layout, name: str, width: int) -> None:
        """Scale (1) and shift (0)."""
        layout.add(f"{name}.norm.scale", (width,), constant(1.0))
        layout.add(f"{name}.norm.shift", (width,), zeros)

    def forward(
        self,
        weights: Views,
        name: str,
        h: Tensor,
        running: Tensor,
        training: bool,
        shared: tuple[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> Tensor:
        """The normalised neurons.

        Args:
            h: [K, B, H].
            running: means then variances, [K, 2 H]; moved towards the batch's by a tenth while training.
            shared: rows of the whole batch, of which other processes have the rest, and a sum over all of them.

        Returns: [K, B, H].
        """
        width, rows = h.shape[2], h.shape[1] if shared is None else shared[0]
        if training and rows > 1:
            if shared is None:
                variance, mean = (part.to(running.dtype) for part in torch.var_mean(h, dim=1, correction=0))
            else:
                wide = h.to(running.dtype)
                mean = shared[1](wide.sum(1)) / rows
                variance = shared[1]((wide - mean[:, None]).square().sum(1)) / rows
            with torch.no_grad():
                unbiased = variance * (rows / (rows - 1))
                running.lerp_(torch.cat([mean, unbiased], 1), MOMENTUM)
        else:
            mean, variance = running[:, :width], running[:, width:]
        scale = weights[f"{name}.norm.scale"] * torch.rsqrt(variance + EPSILON)
        shift = weights[f"{name}.norm.shift"] - mean * scale
        return torch.addcmul(shift[:, None].to(h.dtype), h, scale[:, None].to(h.dtype))
