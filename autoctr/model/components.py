"""Cross components: what a block computes explicitly from its input f and the anchor x0 = E.

``vector``, ``matrix`` and ``lowrank`` multiply f with x0 neuron by neuron. ``attention``, ``fm`` and ``bilinear`` see
the h neurons as h / e tokens of e neurons: the fields themselves without a projection, learned mixtures of them behind
one.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from autoctr.model.linear import declare_linear, linear
from autoctr.model.parameters import Layout, Views, uniform, zeros


class Cross(Protocol):
    """A component with an input f, the anchor x0 and an output, each of h neurons."""

    def declare(self, layout: Layout, name: str, width: int, token: int) -> None:
        """Reserve the weights; ``token`` is e, a divisor of ``width`` h."""

    def forward(self, weights: Views, name: str, x: Tensor, anchor: Tensor, token: int) -> Tensor:
        """The crossed input, [K, B, H]."""

    def cost(self, width: int, token: int) -> int:
        """Multiply-adds per row."""


def token_width(width: int, embedding: int) -> int:
    """Neurons e of a token: the embedding's, or its largest divisor in common with the width."""
    return math.gcd(width, embedding)


class VectorCross:
    """x0 (f · w) + b + f, w and b [h] (DCN, arXiv 1708.05123; OptFusion 1.3)."""

    def declare(self, layout: Layout, name: str, width: int, token: int) -> None:
        """w and b."""
        layout.add(f"{name}.weight", (width, 1), uniform(width), decayed=True)
        layout.add(f"{name}.bias", (width,), zeros)

    def forward(self, weights: Views, name: str, x: Tensor, anchor: Tensor, token: int) -> Tensor:
        """[K, B, H]."""
        scale = torch.bmm(x, weights[f"{name}.weight"])
        return torch.addcmul(x + weights[f"{name}.bias"][:, None], anchor, scale)

    def cost(self, width: int, token: int) -> int:
        """Multiply-adds per row."""
        return 2 * width


class MatrixCross:
    """x0 ⊙ (f W + b) + f, W [h, h] (DCN-v2, arXiv 2008.13535)."""

    def declare(self, layout: Layout, name: str, width: int, token: int) -> None:
        """W and b."""
        declare_linear(layout, name, width, width)

    def forward(self, weights: Views, name: str, x: Tensor, anchor: Tensor, token: int) -> Tensor:
        """[K, B, H]."""
        return torch.addcmul(x, anchor, linear(weights, name, x))

    def cost(self, width: int, token: int) -> int:
        """Multiply-adds per row."""
        return width * width + width


class LowRankCross:
    """x0 ⊙ (f U V + b) + f, U [h, h/4] and V [h/4, h] (DCN-v2's low-rank form, arXiv 2008.13535)."""

    def declare(self, layout: Layout, name: str, width: int, token: int) -> None:
        """U, V and b."""
        rank = _low_rank(width)
        layout.add(f"{name}.down", (width, rank), uniform(width), decayed=True)
        layout.add(f"{name}.weight", (rank, width), uniform(rank), decayed=True)
        layout.add(f"{name}.bias", (width,), uniform(rank))

    def forward(self, weights: Views, name: str, x: Tensor, anchor: Tensor, token: int) -> Tensor:
        """[K, B, H]."""
        return torch.addcmul(x, anchor, linear(weights, name, torch.bmm(x, weights[f"{name}.down"])))

    def cost(self, width: int, token: int) -> int:
        """Multiply-adds per row."""
        return 2 * width * _low_rank(width) + width


def _low_rank(width: int) -> int:
    return max(width // 4, 1)


class SelfAttention:
    """relu(concat of heads softmax(q_i k_j / √d) v_j + f_i W) at every token i (AutoInt, arXiv 1810.11921).

    Two heads of d = e/2 neurons (one where e is odd). The scaling by √d is the transformer's; AutoInt has none.
    """

    def declare(self, layout: Layout, name: str, width: int, token: int) -> None:
        """Maps of a token to its query, key, value and residual, side by side: [e, 4 e]."""
        layout.add(f"{name}.weight", (token, 4 * token), uniform(token), decayed=True)

    def forward(self, weights: Views, name: str, x: Tensor, anchor: Tensor, token: int) -> Tensor:
        """[K, B, H]."""
        members, rows, width = x.shape
        count, heads = width // token, _heads(token)
        maps = torch.bmm(x.reshape(members, rows * count, token), weights[f"{name}.weight"])
        *parts, residual = maps.view(members * rows, count, 4 * token).chunk(4, -1)
        q, k, v = (part.reshape(len(part), count, heads, token // heads).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(residual.shape)
        return (mixed + residual).relu().reshape(members, rows, width)

    def cost(self, width: int, token: int) -> int:
        """Multiply-adds per row."""
        return 4 * width * token + 2 * width * (width // token)


def _heads(token: int) -> int:
    return 2 if token % 2 == 0 else 1


class FactorizationMachine:
    """x0_i ⊙ Σ_{j≠i} f_j + f_i at every token i: all pairwise products (FM, ICDM 2010), kept per neuron."""

    def declare(self, layout: Layout, name: str, width: int, token: int) -> None:
        """Without weights."""

    def forward(self, weights: Views, name: str, x: Tensor, anchor: Tensor, token: int) -> Tensor:
        """[K, B, H]."""
        return torch.addcmul(x, anchor, _others(x, token).reshape(x.shape))

    def cost(self, width: int, token: int) -> int:
        """Multiply-adds per row."""
        return 3 * width


class Bilinear:
    """x0_i ⊙ (Σ_{j≠i} f_j W) + f_i at every token i, one W [e, e] for all fields (FiBiNET, arXiv 1905.09433)."""

    def declare(self, layout: Layout, name: str, width: int, token: int) -> None:
        """W."""
        layout.add(f"{name}.weight", (token, token), uniform(token), decayed=True)

    def forward(self, weights: Views, name: str, x: Tensor, anchor: Tensor, token: int) -> Tensor:
        """[K, B, H]."""
        others = _others(x, token).flatten(1, 2)
        return torch.addcmul(x, anchor, torch.bmm(others, weights[f"{name}.weight"]).view(x.shape))

    def cost(self, width: int, token: int) -> int:
        """Multiply-adds per row."""
        return width * token + 3 * width


def _others(x: Tensor, token: int) -> Tensor:
    """Σ_{j≠i} f_j of every token i, [K, B, T, e]."""
    tokens = x.view(*x.shape[:2], x.shape[2] // token, token)
    return tokens.sum(2, keepdim=True) - tokens


CROSS: dict[str, Cross] = {
    "vector": VectorCross(),
    "matrix": MatrixCross(),
    "lowrank": LowRankCross(),
    "attention": SelfAttention(),
    "fm": FactorizationMachine(),
    "bilinear": Bilinear(),
}
