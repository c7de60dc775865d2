"""PEPNet: gates that personalise the embedding and every layer's neurons (arXiv 2302.01115)."""

from __future__ import annotations

import torch
from torch import Tensor

from autoctr.data.statistics import Statistics
from autoctr.model.candidate import Candidate
from autoctr.model.linear import declare_linear, linear
from autoctr.model.network import Inputs, Network, Pass, projection_cost
from autoctr.model.parameters import Layout, Views


class PEPNet(Network):
    """EPNet scales x0 by a gate of the domain; PPNet's L layers are scaled by one gate each; one linear logit per task.

    A gate is 2σ(relu([e_d; x] U + u) V + v), without a gradient to x: x0 in EPNet, the scaled x0 in PPNet. Users and
    items are not among a schema's roles, so that PPNet's gates read the domain and x, as EPNet's does.
    """

    def declare(self) -> None:
        """Gates, layers and head."""
        layout, width = self.layout, self.width
        _declare_gate(layout, "embedding.gate", self.embedding.embedding, width)
        for n in range(1, self.blocks + 1):
            declare_linear(layout, f"layer.{n}", width, width)
            _declare_gate(layout, f"layer.{n}.gate", self.embedding.embedding, width)
        declare_linear(layout, "head", width, len(self.statistics.tasks))

    def body(self, weights: Views, inputs: Inputs) -> Pass:
        """Logits [K, B, tasks]."""
        domain, x = inputs.domain, inputs.x0
        h = x * _gate(weights, "embedding.gate", torch.cat([domain, x.detach()], 2))
        source = torch.cat([domain, h.detach()], 2)
        for n in range(1, self.blocks + 1):
            neurons = self.dropped(linear(weights, f"layer.{n}", h).relu(), inputs.step, n)
            h = neurons * _gate(weights, f"layer.{n}.gate", source)
        return Pass(linear(weights, "head", h), None)

    @staticmethod
    def multiply_adds(candidate: Candidate, statistics: Statistics) -> int:
        """Multiply-adds per row, without the embedding look-up."""
        projection, width = projection_cost(candidate, statistics)
        gate = _hidden_width(width) * (candidate.embedding + 2 * width) + width
        layers = candidate.blocks * width * width + width * len(statistics.tasks)
        return projection + (candidate.blocks + 1) * gate + layers


def _hidden_width(width: int) -> int:
    return max(width // 4, 8)


def _declare_gate(layout: Layout, name: str, embedding: int, width: int) -> None:
    declare_linear(layout, f"{name}.hidden", embedding + width, _hidden_width(width))
    declare_linear(layout, f"{name}.scale", _hidden_width(width), width)


def _gate(weights: Views, name: str, source: Tensor) -> Tensor:
    """2σ(relu(source U + u) V + v), [K, B, H], in (0, 2)."""
    return 2 * linear(weights, f"{name}.scale", linear(weights, f"{name}.hidden", source).relu()).sigmoid()
