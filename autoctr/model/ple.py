"""PLE with experts and a tower per domain (Tang et al., Progressive Layered Extraction, RecSys 2020)."""

from __future__ import annotations

import torch

from autoctr.data.statistics import Statistics
from autoctr.model.candidate import Candidate
from autoctr.model.domain_linear import declare_domain_linear, domain_linear
from autoctr.model.linear import declare_linear, linear
from autoctr.model.mmoe import declare_tower, mixture, tower, tower_cost
from autoctr.model.network import Inputs, Network, Pass, projection_cost
from autoctr.model.parameters import Views


class PLE(Network):
    """L levels of shared and own experts per domain, each of one layer, then the domain's tower as in MMoE.

    A domain's gate reads the domain's input of the level and mixes its own and the shared experts into the next
    level's input; a shared gate does the same from the shared input, which the shared experts read. The last level has
    no shared gate. The domains take the place of the paper's tasks.

    Deviation: the paper's shared gate mixes the experts of all domains. Here every row belongs to one domain, and
    other domains' experts never see its input, so that the shared gate mixes the shared and the row's own domain's.
    Rows of an unknown domain use the mean of the domains' weights.
    """

    def declare(self) -> None:
        """Experts and gates of every level, and a tower per domain."""
        self.own, self.shared = expert_counts(self.candidates[0].experts)
        domains, width, experts = len(self.statistics.domains), self.width, self.own + self.shared
        for n in range(1, self.blocks + 1):
            declare_domain_linear(self.layout, f"level.{n}.own", domains, width, self.own * width)
            declare_linear(self.layout, f"level.{n}.shared", width, self.shared * width)
            declare_domain_linear(self.layout, f"level.{n}.gate", domains, width, experts)
            if n < self.blocks:
                declare_linear(self.layout, f"level.{n}.shared_gate", width, experts)
        declare_tower(self)

    def body(self, weights: Views, inputs: Inputs) -> Pass:
        """Logits [K, B, tasks]."""
        segments, step = inputs.batch.segments, inputs.step
        own = shared = inputs.x0
        members, rows, width = own.shape
        for n in range(1, self.blocks + 1):
            level = f"level.{n}"
            parts = [domain_linear(weights, f"{level}.own", own, segments), linear(weights, f"{level}.shared", shared)]
            experts = self.dropped(torch.cat(parts, 2).relu(), step, n).view(
                members, rows, self.own + self.shared, width
            )
            gate = domain_linear(weights, f"{level}.gate", own, segments).softmax(-1)
            if n < self.blocks:
                shared = mixture(experts, linear(weights, f"{level}.shared_gate", shared).softmax(-1))
            own = mixture(experts, gate)
        return Pass(tower(self, weights, own, inputs, self.blocks + 1), None)

    @staticmethod
    def multiply_adds(candidate: Candidate, statistics: Statistics) -> int:
        """Multiply-adds per row of one domain, without the embedding look-up."""
        projection, width = projection_cost(candidate, statistics)
        experts, gates = sum(expert_counts(candidate.experts)), 2 * candidate.blocks - 1
        levels = candidate.blocks * experts * width * width + gates * 2 * experts * width
        return projection + levels + tower_cost(width, len(statistics.tasks))


def expert_counts(experts: int) -> tuple[int, int]:
    """Own experts of a domain and shared experts of one level."""
    return max(experts // 2, 1), -(-experts // 2)
