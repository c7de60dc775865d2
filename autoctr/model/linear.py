"""One dense map per member."""

from __future__ import annotations

import torch
from torch import Tensor

from autoctr.model.parameters import Layout, Views, uniform


def declare_linear(layout: Layout, name: str, inputs: int, outputs: int, *, bias: bool = True) -> None:
    """Weight [inputs, outputs] and bias [outputs] of every member."""
    layout.add(f"{name}.weight", (inputs, outputs), uniform(inputs), decayed=True)
    if bias:
        layout.add(f"{name}.bias", (outputs,), uniform(inputs))


def linear(weights: Views, name: str, x: Tensor) -> Tensor:
    """x W + b, without b where none was declared.

    Args:
        x: [K, B, inputs].

    Returns: [K, B, outputs].
    """
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias[:, None], x, weight)
