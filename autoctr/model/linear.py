"""One dense map per member."""

from __future__ import annotations

import torch
from torch import Tensor

from autoctr.model.parameters import Layout, Views, uniform


def declare_linear(layout: Layout, name: str, inputs: int, outputs: int) -> None:
    """Weight [inputs, outputs] and bias [outputs] of every member."""
    layout.add(f"{name}.weight", (inputs, outputs), uniform(inputs), decayed=True)
    layout.add(f"{name}.bias", (outputs,), uniform(inputs))


def linear(weights: Views, name: str, x: Tensor) -> Tensor:
    """x W + b.

    Args:
        x: [K, B, inputs].

    Returns: [K, B, outputs].
    """
    return torch.baddbmm(weights[f"{name}.bias"][:, None], x, weights[f"{name}.weight"])
