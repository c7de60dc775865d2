"""MMoE with a gate and a tower per domain (Ma et al., Modeling Task Relationships in Multi-task Learning, KDD 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from autoctr.data.statistics import Statistics
from autoctr.model.candidate import Candidate
from autoctr.model.domain_linear import declare_domain_linear, domain_linear
from autoctr.model.linear import declare_linear, linear
from autoctr.model.network import Inputs, Network, Pass, projection_cost
from autoctr.model.parameters import Views, uniform


class MMoE(Network):
    """Experts for all domains, mixed by softmax(x G_d + g_d) of the row's domain d, then the domain's tower.

    An expert is an MLP of L layers on x0, a tower one hidden layer and a linear logit per task. The domains take the
    place of the paper's tasks. Rows of an unknown domain use the mean of the domains' gates and towers.
    """

    def declare(self) -> None:
        """Experts, and gate and tower per domain."""
        self.experts, width = self.candidates[0].experts, self.width
        declare_linear(self.layout, "experts.1", width, self.experts * width)
        for n in range(2, self.blocks + 1):
            start = uniform(width)
            self.layout.add(f"experts.{n}.weight", (self.experts, width, width), start, decayed=True)
            self.layout.add(f"experts.{n}.bias", (self.experts, width), start)
        declare_domain_linear(self.layout, "gate", len(self.statistics.domains), width, self.experts)
        declare_tower(self)

    def body(self, weights: Views, inputs: Inputs) -> Pass:
        """Logits [K, B, tasks]."""
        gate = domain_linear(weights, "gate", inputs.x0, inputs.batch.segments).softmax(-1)
        return Pass(tower(self, weights, mixture(self._experts(weights, inputs), gate), inputs, self.blocks + 1), None)

    def _experts(self, weights: Views, inputs: Inputs) -> Tensor:
        """[K, B, experts, H]: the first layer as one wide product, the others as one batched product each."""
        members, rows, width = inputs.x0.shape
        h = self.dropped(linear(weights, "experts.1", inputs.x0).relu(), inputs.step, 1)
        h = h.view(members, rows, self.experts, width)
        for n in range(2, self.blocks + 1):
            x = h.transpose(1, 2).reshape(members * self.experts, rows, width)
            weight = weights[f"experts.{n}.weight"].reshape(-1, width, width)
            h = torch.baddbmm(weights[f"experts.{n}.bias"].reshape(-1, 1, width), x, weight).relu()
            h = self.dropped(h.view(members, self.experts * rows, width), inputs.step, n)
            h = h.view(members, self.experts, rows, width).transpose(1, 2)
        return h

    @staticmethod
    def multiply_adds(candidate: Candidate, statistics: Statistics) -> int:
        """Multiply-adds per row, without the embedding look-up."""
        projection, width = projection_cost(candidate, statistics)
        experts = candidate.experts * (candidate.blocks * width * width + 2 * width)
        return projection + experts + tower_cost(width, len(statistics.tasks))


def mixture(experts: Tensor, gate: Tensor) -> Tensor:
    """Σ_e gate_e · expert_e, [K, B, H], of experts [K, B, n, H] and their shares [K, B, n]."""
    return torch.matmul(gate[:, :, None], experts)[:, :, 0]


def declare_tower(network: Network) -> None:
    """One hidden layer per domain, then a linear logit per task and domain."""
    domains, width = len(network.statistics.domains), network.width
    declare_domain_linear(network.layout, "tower", domains, width, width)
    declare_domain_linear(network.layout, "head", domains, width, len(network.statistics.tasks))


def tower(network: Network, weights: Views, x: Tensor, inputs: Inputs, place: int) -> Tensor:
    """Logits [K, B, tasks] of x [K, B, H]; ``place`` numbers the dropout."""
    segments = inputs.batch.segments
    h = network.dropped(domain_linear(weights, "tower", x, segments).relu(), inputs.step, place)
    return domain_linear(weights, "head", h, segments)


def tower_cost(width: int, tasks: int) -> int:
    """Multiply-adds of a tower per row."""
    return width * width + width * tasks
