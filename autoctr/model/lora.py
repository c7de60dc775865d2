"""One low-rank adapter per domain on a dense map (MLoRA, arXiv 2408.08913): x A_d B_d + b_d.

Rows come sorted by domain. Two forms give the same numbers: one product per domain's segment, and one wide product
over all domains with the others masked out. The wide form does more arithmetic but launches four kernels in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from autoctr.model.candidate import MAXIMUM_RANK
from autoctr.model.parameters import Layout, Views, normal, zeros
from autoctr.model.segments import Segments


def declare_lora(layout: Layout, name: str, inputs: int, outputs: int, domains: int, rank: int) -> None:
    """A [D, inputs, R] at random, B [D, R, outputs] and b [D, outputs] at zero, so that the start is the shared layer.

    A is drawn at the largest legal rank and cut to R: members of different rank share their start, and padding a
    member of rank r to R is exact.
    """
    start = normal(inputs**-0.5)
    layout.add(f"{name}.lora.A", (domains, inputs, rank), start, drawn=(domains, inputs, MAXIMUM_RANK))
    layout.add(f"{name}.lora.B", (domains, rank, outputs), zeros)
    layout.add(f"{name}.lora.bias", (domains, outputs), zeros)


class Adapters:
    """Which ranks the members give the domains: int [K, D], padded to their largest."""

    def __init__(self, ranks: Sequence[Sequence[int]], dtype: torch.dtype, device: torch.device) -> None:
        self.rank = max(max(row) for row in ranks)
        counts = torch.tensor(ranks, device=device)
        self.used = (counts > 0).to(dtype)[:, :, None]
        columns = torch.arange(self.rank, device=device)
        self.mask = (columns < counts[:, :, None]).to(dtype)[:, :, None, :]
        self.padded = not bool((counts == self.rank).all())

    def forward(self, weights: Views, name: str, x: Tensor, segments: Segments) -> Tensor:
        """x A_d B_d + b_d with each row's own domain d; 0 for rows of an unknown domain.

        Args:
            x: [K, B, inputs], rows sorted by domain.

        Returns: [K, B, outputs].
        """
        a, b, bias = (weights[f"{name}.lora.{part}"] for part in ("A", "B", "bias"))
        if self.padded:
            a, bias = a * self.mask.to(a.dtype), bias * self.used.to(a.dtype)
        if x.device.type != "cpu" or a.shape[1] * self.rank <= 2 * x.shape[2]:
            return wide_form(x, a, b, bias, segments)
        return segment_form(x, a, b, bias, segments)


def segment_form(x: Tensor, a: Tensor, b: Tensor, bias: Tensor, segments: Segments) -> Tensor:
    """One product per domain that the batch holds. Cheapest on a CPU when D · R is large."""
    pieces = []
    bounds = segments.bounds
    for d, (start, end) in enumerate(pairwise(bounds)):
        if end > start:
            low = torch.bmm(x[:, start:end], a[:, d])
            pieces.append(torch.baddbmm(bias[:, d, None], low, b[:, d]))
    if x.shape[1] > bounds[-1]:
        pieces.append(x.new_zeros(len(x), x.shape[1] - bounds[-1], b.shape[3]))
    return torch.cat(pieces, 1) if pieces else x.new_zeros(len(x), 0, b.shape[3])


def wide_form(x: Tensor, a: Tensor, b: Tensor, bias: Tensor, segments: Segments) -> Tensor:
    """All domains' A in one product, masked to each row's own domain, then all domains' B in another."""
    members, domains, inputs, rank = a.shape
    rows, outputs, one_hot = x.shape[1], b.shape[3], segments.one_hot.to(x.dtype)
    low = torch.bmm(x, a.permute(0, 2, 1, 3).reshape(members, inputs, domains * rank))
    low = low.view(members, rows, domains, rank) * one_hot[:, :, None]
    low = low.reshape(members, rows, domains * rank)
    shift = torch.matmul(one_hot, bias)
    return torch.baddbmm(shift, low, b.reshape(members, domains * rank, outputs))
