"""Connection gates: hard 0/1 forward, identity backward (OptFusion 1.3), and never a node without an input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        return open_gates(logits).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def open_gates(logits: Tensor) -> Tensor:
    """Which gates are open: a > 0, and where none is, the largest a.

    Args:
        logits: [..., inputs].

    Returns: bool [..., inputs].
    """
    is_open = logits > 0
    largest = torch.zeros_like(is_open).scatter_(-1, logits.argmax(-1, keepdim=True), True)
    return torch.where(is_open.any(-1, keepdim=True), is_open, largest)


def straight_through(logits: Tensor) -> Tensor:
    """Gates exactly 0.0 or 1.0, with dL/da := dL/dg.

    Args:
        logits: [..., inputs].

    Returns: [..., inputs], of the same dtype.
    """
    result: Tensor = _StraightThrough.apply(logits)  # type: ignore[no-untyped-call]
    return result
