"""The four fusion operators of a node (OptFusion 1.3), each with its derivative.

The derivatives are written by hand because a node holds most of a supernet's arithmetic, and what automatic ones cost
beside the matrix products is memory traffic: here every sum is made in place, and an input that is closed for all
members takes part in nothing but its own gate's gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from autoctr.model.architecture import OPERATORS
from autoctr.model.linear import declare_linear
from autoctr.model.parameters import Layout, uniform, zeros


class Edge:
    """An input of a node: its value x and its gate g, and in the backward pass the gradient of y = g x.

    Args:
        value: x, [K, B, H].
        gate: g, [K, 1, 1]; None = 1 for every member, which costs nothing.
        closed: whether g is known to be 0 for every member. Then nothing but the gradient of g is computed.

    Attributes:
        gated: y, [K, B, H].
        gradient: dL/dy as far as the operators have added to it; None = 0.
        closing: dL/d(1 - g) where an operator reads 1 - g by itself, [K]; None = 0.
        wanted: whether ``gradient`` is. steered: whether the gate's gradient is.
    """

    def __init__(self, value: Tensor, gate: Tensor | None, *, closed: bool = False) -> None:
        self.value, self.gate, self.closed = value, gate, closed
        self.gated = value if gate is None or closed else value * gate
        self.gradient: Tensor | None = None
        self.closing: Tensor | None = None
        self.wanted = self.steered = True
        self._owned = False

    def of_value(self) -> Tensor | None:
        """dL/dx; None = 0."""
        if self.closed or self.gradient is None:
            return None
        return self.gradient if self.gate is None else self.gradient * self.gate

    def of_gate(self) -> Tensor:
        """dL/dg, [K]."""
        if self.gradient is None:
            return self.value.new_zeros(len(self.value))
        result = inner(self.gradient, self.value)
        return result if self.closing is None else result - self.closing

    def add(self, part: Tensor) -> None:
        """gradient += part, [K, B, H]. ``part`` may be shared: nothing is written into it."""
        if self.gradient is None:
            self.gradient = part
        elif self._owned:
            self.gradient.add_(part)
        else:
            self.gradient, self._owned = self.gradient + part, True

    def add_scaled(self, part: Tensor, scale: Tensor) -> None:
        """gradient += part ⊙ scale."""
        if self.gradient is None:
            self.gradient, self._owned = part * scale, True
        elif self._owned:
            self.gradient.addcmul_(part, scale)
        else:
            self.gradient, self._owned = torch.addcmul(self.gradient, part, scale), True

    def add_product(self, part: Tensor, weight: Tensor) -> None:
        """gradient += part · weightᵀ, part [K, B, O], weight [K, H, O]."""
        other = weight.transpose(1, 2)
        if self.gradient is None:
            self.gradient, self._owned = torch.bmm(part, other), True
        elif self._owned:
            self.gradient.baddbmm_(part, other)
        else:
            self.gradient, self._owned = torch.baddbmm(self.gradient, part, other), True


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Σ a b over rows and neurons, [K]."""
    return torch.bmm(a.reshape(len(a), 1, -1), b.reshape(len(b), -1, 1))[:, 0, 0]


Weights = Sequence[Tensor]
Kept = list[Tensor | None]
Gradients = list[Tensor | None]


class Operator(Protocol):
    """Joins the inputs of a node into one vector of the same width."""

    def declare(self, layout: Layout, node: str, sources: Sequence[str], width: int) -> None:
        """Reserve the operator's weights at ``node`` for the given producers."""

    def names(self, node: str, sources: Sequence[str]) -> list[str]:
        """The weights that were declared, in the order in which both passes take them."""

    def forward(self, weights: Weights, edges: Sequence[Edge]) -> tuple[Tensor, Kept]:
        """The joined inputs, [K, B, H], and what ``backward`` needs of the way there."""

    def backward(
        self, weights: Weights, edges: Sequence[Edge], kept: Kept, gradient: Tensor, learns: bool
    ) -> Gradients:
        """Add to the edges' gradients, and return those of the weights (None = 0).

        Args:
            kept: from ``forward``. gradient: of the joined inputs, [K, B, H]; it must not be written into.
            learns: whether the weights' gradients are wanted; if not, any may be None.
        """

    def cost(self, inputs: Sequence[float], width: int) -> float:
        """Multiply-adds per row, given the share of neurons of each input that are not closed."""


class Add:
    """sum_u g_u x_u."""

    def declare(self, layout: Layout, node: str, sources: Sequence[str], width: int) -> None:
        """Without weights."""

    def names(self, node: str, sources: Sequence[str]) -> list[str]:
        """None."""
        return []

    def forward(self, weights: Weights, edges: Sequence[Edge]) -> tuple[Tensor, Kept]:
        """The sum, [K, B, H]."""
        first, *others = [edge.gated for edge in edges if not edge.closed]
        if not others:
            return first, []
        total = first + others[0]
        for other in others[1:]:
            total.add_(other)
        return total, []

    def backward(
        self, weights: Weights, edges: Sequence[Edge], kept: Kept, gradient: Tensor, learns: bool
    ) -> Gradients:
        """dy_u += df."""
        for edge in edges:
            if edge.wanted:
                edge.add(gradient)
        return []

    def cost(self, inputs: Sequence[float], width: int) -> float:
        """One addition per further input and neuron."""
        return (len(inputs) - 1) * width


class Product:
    """prod_u (g_u x_u + 1 - g_u): a closed input counts as 1. Counted as 0, one closed gate would zero the node."""

    def declare(self, layout: Layout, node: str, sources: Sequence[str], width: int) -> None:
        """Without weights."""

    def names(self, node: str, sources: Sequence[str]) -> list[str]:
        """None."""
        return []

    @staticmethod
    def _factor(edge: Edge) -> Tensor:
        return edge.gated if edge.gate is None else edge.gated + (1 - edge.gate)

    def forward(self, weights: Weights, edges: Sequence[Edge]) -> tuple[Tensor, Kept]:
        """The elementwise product, [K, B, H], and for each input the product of those before it (None = 1)."""
        total: Tensor | None = None
        before: list[Tensor | None] = []
        for edge in edges:
            before.append(total)
            if not edge.closed:
                factor = self._factor(edge)
                total = factor if total is None else total * factor
        assert total is not None
        return total, before

    def backward(
        self, weights: Weights, edges: Sequence[Edge], kept: Kept, gradient: Tensor, learns: bool
    ) -> Gradients:
        """dy_u += df · the other inputs' factors, and as much of 1 - g_u."""
        after = gradient
        for edge, before in zip(reversed(edges), reversed(kept), strict=True):
            if edge.wanted:
                part = after if before is None else after * before
                edge.add(part)
                if edge.steered:
                    edge.closing = part.sum((1, 2))
            if edge is not edges[0] and not edge.closed:
                after = after * self._factor(edge)
        return []

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
        *blocks, bias = self.names(node, sources)
        for name in blocks:
            layout.add(name, (width, width), start, decayed=True)
        layout.add(bias, (width,), start)

    def names(self, node: str, sources: Sequence[str]) -> list[str]:
        """The blocks, then the bias."""
        return [*(f"{node}.concat.{source}.weight" for source in sources), f"{node}.concat.bias"]

    def forward(self, weights: Weights, edges: Sequence[Edge]) -> tuple[Tensor, Kept]:
        """The mapped concatenation, [K, B, H]."""
        *blocks, bias = weights
        (edge, block), *others = [pair for pair in zip(edges, blocks, strict=True) if not pair[0].closed]
        total = torch.baddbmm(bias[:, None], edge.gated, block)
        for edge, block in others:
            total.baddbmm_(edge.gated, block)
        return total, []

    def backward(
        self, weights: Weights, edges: Sequence[Edge], kept: Kept, gradient: Tensor, learns: bool
    ) -> Gradients:
        """dy_u += df W_uᵀ; dW_u = y_uᵀ df; db = the sum of df over the rows."""
        *blocks, _ = weights
        gradients: Gradients = []
        for edge, block in zip(edges, blocks, strict=True):
            if edge.wanted:
                edge.add_product(gradient, block)
            learnt = learns and not edge.closed
            gradients.append(torch.bmm(edge.gated.transpose(1, 2), gradient) if learnt else None)
        return [*gradients, gradient.sum(1) if learns else None]

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

    def names(self, node: str, sources: Sequence[str]) -> list[str]:
        """W1, b1, W2, b2 of each input."""
        parts = ("hidden.weight", "hidden.bias", "score.weight", "score.bias")
        return [f"{node}.attention.{source}.{part}" for source in sources for part in parts]

    @staticmethod
    def _shares(edge: Edge, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> tuple[Tensor, Tensor]:
        """The hidden neurons and the softmax; of a closed input both are the same in all rows, [K, 1, H]."""
        hidden = b1[:, None].relu() if edge.closed else torch.baddbmm(b1[:, None], edge.gated, w1).relu_()
        return hidden, torch.baddbmm(b2[:, None], hidden, w2).softmax(-1)

    def forward(self, weights: Weights, edges: Sequence[Edge]) -> tuple[Tensor, Kept]:
        """The weighted sum, [K, B, H], and for each input its hidden neurons and its softmax."""
        total: Tensor | None = None
        kept: Kept = []
        for number, edge in enumerate(edges):
            hidden, share = self._shares(edge, *weights[4 * number : 4 * number + 4])
            kept += [hidden, share]
            if edge.closed:
                continue
            total = share * edge.gated if total is None else total.addcmul_(share, edge.gated)
        assert total is not None
        return total.mul_(total.shape[-1]), kept

    def backward(
        self,
        weights: Weights,
        edges: Sequence[Edge],
        kept: Kept,
        gradient: Tensor,
        learns: bool,
    ) -> Gradients:
        """Through the weighting, the softmax, both maps; a closed input has a part in the first alone."""
        gradients: Gradients = []
        gradient = gradient * gradient.shape[-1]
        buffer = torch.empty_like(gradient)
        for number, edge in enumerate(edges):
            w1, _, w2, _ = weights[4 * number : 4 * number + 4]
            hidden, share = kept[2 * number : 2 * number + 2]
            assert hidden is not None
            assert share is not None
            if edge.wanted:
                edge.add_scaled(gradient, share)
            if edge.closed or not (learns or edge.wanted):
                gradients += [None] * 4
                continue
            torch.mul(gradient, edge.gated, out=buffer)
            score = torch.ops.aten._softmax_backward_data(buffer, share, -1, share.dtype)
            torch.bmm(score, w2.transpose(1, 2), out=buffer)
            before = torch.ops.aten.threshold_backward(buffer, hidden, 0)
            if edge.wanted:
                edge.add_product(before, w1)
            if learns:
                gradients += [torch.bmm(edge.gated.transpose(1, 2), before), before.sum(1)]
                gradients += [torch.bmm(hidden.transpose(1, 2), score), score.sum(1)]
            else:
                gradients += [None] * 4
        return gradients

    def cost(self, inputs: Sequence[float], width: int) -> float:
        """Two [h, h] products, the first with the input's open neurons, and one weighting per input."""
        return sum((share + 1) * width * width + width for share in inputs)


FUSION_OPERATORS: dict[str, Operator] = dict(zip(OPERATORS, (Add(), Product(), Concat(), Attention()), strict=True))
