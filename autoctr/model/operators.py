"""The four fusion operators of a node (OptFusion 1.3).

Every operator reads the open inputs x_u with their gates g_u. A gate of None means 1 for every member, and costs
nothing; a closed input is left out, except where other members of the cohort keep it: then its gate is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from autoctr.model.architecture import OPERATORS
from autoctr.model.linear import declare_linear, linear
from autoctr.model.parameters import Layout, Views, uniform, zeros


class Edge:
    """An input of a node: its producer's number, value x [K, B, H] and gate [K, 1, 1] (None = open for all)."""

    def __init__(self, source: str, value: Tensor, gate: Tensor | None) -> None:
        self.source = source
        self.value = value
        self.gate = gate
        self.gated = value if gate is None else value * gate


class Operator(Protocol):
    """Joins the inputs of a node into one vector of the same width."""

    def declare(self, layout: Layout, node: str, sources: Sequence[str], width: int) -> None:
        """Reserve the operator's weights at ``node`` for the given producers."""

    def forward(self, weights: Views, node: str, edges: Sequence[Edge]) -> Tensor:
        """The joined inputs, [K, B, H]."""

    def cost(self, inputs: Sequence[float], width: int) -> float:
        """Multiply-adds per row, given the share of neurons of each input that are not closed."""


class Add:
    """sum_u g_u x_u."""

    def declare(self, layout: Layout, node: str, sources: Sequence[str], width: int) -> None:
        """Without weights."""

    def forward(self, weights: Views, node: str, edges: Sequence[Edge]) -> Tensor:
        """The sum, [K, B, H]."""
        total = edges[0].gated
        for edge in edges[1:]:
            total = total + edge.gated
        return total

    def cost(self, inputs: Sequence[float], width: int) -> float:
        """One addition per further input and neuron."""
        return (len(inputs) - 1) * width


class Product:
    """prod_u (g_u x_u + 1 - g_u): a closed input counts as 1. Counted as 0, one closed gate would zero the node."""

    def declare(self, layout: Layout, node: str, sources: Sequence[str], width: int) -> None:
        """Without weights."""

    def forward(self, weights: Views, node: str, edges: Sequence[Edge]) -> Tensor:
        """The elementwise product, [K, B, H]."""
        total: Tensor | None = None
        for edge in edges:
            factor = edge.value if edge.gate is None else edge.gated + (1 - edge.gate)
            total = factor if total is None else total * factor
        assert total is not None
        return total

    def cost(self, inputs: Sequence[float], width: int) -> float:
        """One multiplication per further input and neuron."""
        return (len(inputs) - 1) * width


class Concat:
    """W [g_1 x_1; ...; g_n x_n] + b, W [n h, h], computed as a running sum of one product per input."""

    def declare(self, layout: Layout, node: str, sources: Sequence[str], width: int) -> None:
        """One [h, h] block per input, one bias.

        A block starts the same whichever other inputs are open: a member must not depend on its cohort's union.
        """
        start = uniform(width)
        for source in sources:
            layout.add(f"{node}.concat.{source}.weight", (width, width), start, decayed=True)
        layout.add(f"{node}.concat.bias", (width,), start)

    def forward(self, weights: Views, node: str, edges: Sequence[Edge]) -> Tensor:
        """The mapped concatenation, [K, B, H]."""
        total = weights[f"{node}.concat.bias"][:, None]
        for edge in edges:
            total = torch.baddbmm(total, edge.gated, weights[f"{node}.concat.{edge.source}.weight"])
        return total

    def cost(self, inputs: Sequence[float], width: int) -> float:
        """One product of an input's open neurons with [h, h] per input."""
        return sum(inputs) * width * width


class Attention:
    """h · sum_u softmax_h(W2_u relu(W1_u x_u + b1_u) + b2_u) · g_u x_u, the softmax over the h neurons of one input.

    The factor h is ours: a softmax over h neurons has mean 1/h, so that without it the operator starts h times
    smaller than ADD and is discarded for its scale, not for its worth.
    """

    def declare(self, layout: Layout, node: str, sources: Sequence[str], width: int) -> None:
        """A two-layer network per input."""
        for source in sources:
            declare_linear(layout, f"{node}.attention.{source}.hidden", width, width)
            name = f"{node}.attention.{source}.score"
            layout.add(f"{name}.weight", (width, width), uniform(width), decayed=True)
            layout.add(f"{name}.bias", (width,), zeros)

    def forward(self, weights: Views, node: str, edges: Sequence[Edge]) -> Tensor:
        """The weighted sum, [K, B, H]."""
        total: Tensor | None = None
        for edge in edges:
            hidden = linear(weights, f"{node}.attention.{edge.source}.hidden", edge.gated).relu()
            share = linear(weights, f"{node}.attention.{edge.source}.score", hidden).softmax(-1)
            part = share * edge.gated
            total = part if total is None else total + part
        assert total is not None
        return total * total.shape[-1]

    def cost(self, inputs: Sequence[float], width: int) -> float:
        """Two [h, h] products, the first with the input's open neurons, and one weighting per input."""
        return sum((share + 1) * width * width + width for share in inputs)


FUSION_OPERATORS: dict[str, Operator] = dict(zip(OPERATORS, (Add(), Product(), Concat(), Attention()), strict=True))
