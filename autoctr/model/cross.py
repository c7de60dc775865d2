"""Cross components: explicit feature interactions with the anchor x0 = E."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from autoctr.model.linear import declare_linear, linear
from autoctr.model.parameters import Layout, Views, uniform, zeros


class Cross(Protocol):
    """A component that multiplies its input f with the anchor x0."""

    def declare(self, layout: Layout, name: str, width: int) -> None:
        """Reserve the weights."""

    def forward(self, weights: Views, name: str, x: Tensor, anchor: Tensor) -> Tensor:
        """The crossed input, [K, B, H]."""

    def cost(self, width: int) -> int:
        """Multiply-adds per row."""


class VectorCross:
    """x0 (f · w) + b + f, w and b [h] (DCN, arXiv 1708.05123; OptFusion 1.3)."""

    def declare(self, layout: Layout, name: str, width: int) -> None:
        """w and b."""
        layout.add(f"{name}.weight", (width, 1), uniform(width), decayed=True)
        layout.add(f"{name}.bias", (width,), zeros)

    def forward(self, weights: Views, name: str, x: Tensor, anchor: Tensor) -> Tensor:
        """[K, B, H]."""
        scale = torch.bmm(x, weights[f"{name}.weight"])
        return torch.addcmul(x + weights[f"{name}.bias"][:, None], anchor, scale)

    def cost(self, width: int) -> int:
        """Multiply-adds per row."""
        return 2 * width


class MatrixCross:
    """x0 ⊙ (f W + b) + f, W [h, h] (DCN-v2, arXiv 2008.13535)."""

    def declare(self, layout: Layout, name: str, width: int) -> None:
        """W and b."""
        declare_linear(layout, name, width, width)

    def forward(self, weights: Views, name: str, x: Tensor, anchor: Tensor) -> Tensor:
        """[K, B, H]."""
        return torch.addcmul(x, anchor, linear(weights, name, x))

    def cost(self, width: int) -> int:
        """Multiply-adds per row."""
        return width * width + width


CROSS: dict[str, Cross] = {"vector": VectorCross(), "matrix": MatrixCross()}
