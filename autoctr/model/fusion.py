"""The searched network: K blocks of a cross and a deep component, an output node, and one head per task.

The same code runs the relaxed supernet (gates and operators are learned) and the masked discrete network (they are
constants and what no member uses is not computed).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from autoctr.data.statistics import Statistics
from autoctr.model import sparsity
from autoctr.model.architecture import OPERATORS, consumers, inputs, producers
from autoctr.model.candidate import Candidate, ranks, sparsities
from autoctr.model.cross import CROSS
from autoctr.model.embedding import FeatureEmbedding
from autoctr.model.gates import straight_through
from autoctr.model.linear import declare_linear, linear
from autoctr.model.lora import Adapters, declare_lora
from autoctr.model.network import Inputs, Network, Pass
from autoctr.model.norm import BatchNorm
from autoctr.model.operators import FUSION_OPERATORS, Edge
from autoctr.model.parameters import Layout, Views, constant, zeros


class FusionNetwork(Network):
    """OptFusion's network with AdaSparse's pruners and MLoRA's adapters on the deep components.

    A member without ``wiring`` makes it the relaxed supernet, and then all members must be without.
    """

    def declare(self) -> None:
        """Weights of what some member uses."""
        candidates, first = self.candidates, self.candidates[0]
        self.relaxed = first.wiring is None
        if any((candidate.wiring is None) != self.relaxed for candidate in candidates):
            raise ValueError("a cohort is either a supernet or discrete; some members have a wiring, others have none")
        self.cross, self.form = CROSS[first.cross], first.sparsity_form
        domain_rows = self.statistics.domain_rows
        targets = [sparsities(candidate, domain_rows) for candidate in candidates]
        self.targets = self.tensor(targets) if any(map(any, targets)) else None
        self.pruned = self.tensor([[[float(c.sparsity > 0)]] for c in candidates]) if self.targets is not None else None
        all_ranks = [ranks(candidate, domain_rows) for candidate in candidates]
        self.all_pruned = all(c.sparsity > 0 for c in candidates)
        self.adapters = Adapters(all_ranks, self.dtype, self.device) if any(map(any, all_ranks)) else None
        self.norm = BatchNorm() if first.norm == "batch" else None
        self.nodes = [_Node(self, position) for position in range(2 * self.blocks + 1)]
        self.needed = self._needed()
        deep = [position for position in sorted(self.needed) if self._is_deep(position)]
        self.counted = self.tensor(
            [[float(c.wiring is None or position in c.wiring.live()) for c in candidates] for position in deep]
        )
        self._declare_weights(first)
        if self.relaxed:
            for node, count in zip(consumers(self.blocks), inputs(self.blocks), strict=True):
                self.architecture.add(f"{node}.gates", (count,), constant(0.5))
                self.architecture.add(f"{node}.operators", (len(OPERATORS),), zeros)
        for position in deep if self.norm is not None else []:
            name = producers(self.blocks)[position]
            self.normalisation.add(f"{name}.mean", (self.width,), zeros)
            self.normalisation.add(f"{name}.variance", (self.width,), constant(1.0))

    def _needed(self) -> set[int]:
        """Producers that some member's output depends on."""
        if self.relaxed:
            return set(range(2 * self.blocks + 2))
        return set().union(*(c.wiring.live() for c in self.candidates if c.wiring is not None))

    def _declare_weights(self, first: Candidate) -> None:
        layout = self.layout
        for position, name in enumerate(producers(self.blocks)):
            if position not in self.needed or position == 0:
                continue
            if position > 1:
                self.nodes[position - 2].declare(layout)
            if name.startswith("C"):
                self.cross.declare(layout, name, self.width)
                continue
            # A bias before a normalisation is without effect, and Adam would make steps of its rounding errors.
            declare_linear(layout, name, self.width, self.width, bias=self.norm is None)
            if self.norm is not None:
                self.norm.declare(layout, name, self.width)
            if self.adapters is not None:
                domains = len(self.statistics.domains)
                declare_lora(layout, name, self.width, self.width, domains, self.adapters.rank)
            if self.targets is not None:
                reads = first.pruner_input == "both"
                sparsity.declare_pruner(layout, name, self.width, self.embedding.embedding, reads)
        self.nodes[-1].declare(layout)
        for task in self.statistics.tasks:
            declare_linear(layout, f"head.{task}", self.width, 1)

    def _is_deep(self, position: int) -> bool:
        return position > 1 and position % 2 == 1

    def body(self, weights: Views, inputs: Inputs) -> Pass:
        """Block after block, then the output node and the heads."""
        x, training = inputs.x0, inputs.step is not None
        values: dict[int, Tensor] = {0: x}
        shares: list[Tensor] = []
        deep = 0
        for position, name in enumerate(producers(self.blocks)):
            if position not in self.needed or position == 0:
                continue
            f = x if position == 1 else self.nodes[position - 2].forward(weights, values, inputs.learned)
            if not self._is_deep(position):
                values[position] = self.cross.forward(weights, name, f, x)
                continue
            h = linear(weights, name, f)
            if self.adapters is not None:
                h = h + self.adapters.forward(weights, name, f, inputs.batch.segments)
            if self.norm is not None:
                assert inputs.running is not None
                part = inputs.running[:, 2 * self.width * deep : 2 * self.width * (deep + 1)]
                h = self.norm.forward(weights, name, h, part, training)
            h = self.dropped(h.relu(), inputs.step, position)
            if self.targets is not None:
                h = self._prune(weights, name, h, inputs, shares if training else None)
            values[position] = h
            deep += 1
        out = self.nodes[-1].forward(weights, values, inputs.learned)
        logits = torch.cat([linear(weights, f"head.{task}", out) for task in self.statistics.tasks], 2)
        penalty = None
        if shares and self.targets is not None and self.pruned is not None:
            one_hot = inputs.batch.segments.one_hot
            penalty = (
                sparsity.strength(inputs.progress)
                * self.pruned[:, 0, 0]
                * sparsity.band_penalty(shares, self.targets, one_hot, self.counted)
            )
        return Pass(logits, penalty)

    def _prune(self, weights: Views, name: str, h: Tensor, inputs: Inputs, shares: list[Tensor] | None) -> Tensor:
        assert self.pruned is not None
        steepness = sparsity.alpha(inputs.progress)
        v = sparsity.pruner_output(weights, name, h, inputs.domain)
        if shares is not None and self.form != "scaling":
            shares.append(sparsity.closed_share(self.form, v, steepness, inputs.batch.segments.one_hot))
        factor = sparsity.factors(self.form, v, steepness)
        if not self.all_pruned:
            factor = factor * self.pruned + (1 - self.pruned)
        return h * factor


class _Node:
    """A fusing node: which inputs and operators are computed, and with which constant gates and weights."""

    def __init__(self, network: FusionNetwork, position: int) -> None:
        self.position = position
        self.name = consumers(network.blocks)[position]
        self.width = network.width
        self.sources = producers(network.blocks)
        count = inputs(network.blocks)[position]
        self.gates: list[Tensor | None] = [None] * count
        self.weights: list[Tensor | None] = [None] * len(OPERATORS)
        self.edges = {operator: list(range(count)) for operator in OPERATORS}
        if network.relaxed:
            return
        nodes = [c.wiring.effective().nodes[position] for c in network.candidates if c.wiring is not None]
        self.edges = {}
        for index, operator in enumerate(OPERATORS):
            users = [node for node in nodes if node.operators[index] > 0]
            if users:
                self.edges[operator] = [u for u in range(count) if any(node.open[u] for node in users)]
                if any(node.operators[index] != 1.0 for node in nodes):
                    self.weights[index] = network.tensor([[[node.operators[index]]] for node in nodes])
        for u in range(count):
            if not all(node.open[u] for node in nodes):
                self.gates[u] = network.tensor([[[float(node.open[u])]] for node in nodes])

    def declare(self, layout: Layout) -> None:
        """Weights of the used operators for the used inputs."""
        for operator, edges in self.edges.items():
            FUSION_OPERATORS[operator].declare(layout, self.name, [self.sources[u] for u in edges], self.width)

    def forward(self, weights: Views, values: Mapping[int, Tensor], learned: Views | None) -> Tensor:
        """The fused input f [K, B, H]."""
        gates, mixture = self.gates, self.weights
        if learned is not None:
            hard = straight_through(learned[f"{self.name}.gates"])
            gates = [gate[:, None, None] for gate in hard.unbind(1)]
            shares = learned[f"{self.name}.operators"].softmax(-1)
            mixture = [share[:, None, None] for share in shares.unbind(1)]
        computed = {
            u: Edge(self.sources[u], values[u], gates[u])
            for u in sorted({u for edges in self.edges.values() for u in edges})
        }
        total: Tensor | None = None
        for index, operator in enumerate(OPERATORS):
            if operator not in self.edges:
                continue
            out = FUSION_OPERATORS[operator].forward(weights, self.name, [computed[u] for u in self.edges[operator]])
            share = mixture[index]
            if share is not None:
                out = out * share
            total = out if total is None else total + out
        assert total is not None
        return total


def multiply_adds(candidate: Candidate, statistics: Statistics) -> int:
    """Multiply-adds per row of the discrete network, without the embedding look-up, for the dearest domain."""
    assert candidate.wiring is not None
    width_in = FeatureEmbedding(statistics, candidate.embedding, _no_tables(statistics)).width
    width = candidate.width or width_in
    total = width_in * width if candidate.width else 0
    live, names = candidate.wiring.live(), producers(candidate.blocks)
    rank = max(ranks(candidate, statistics.domain_rows))
    for position in range(1, len(names) + 1):
        is_output = position == len(names)
        if not is_output and position not in live:
            continue
        if position > 1:
            node = candidate.wiring.nodes[position - 2]
            for index, operator in enumerate(OPERATORS):
                if node.operators[index] > 0:
                    total += FUSION_OPERATORS[operator].cost(sum(node.open), width)
        if is_output:
            total += width * len(statistics.tasks)
        elif position % 2 == 0 or position == 1:
            total += CROSS[candidate.cross].cost(width)
        else:
            total += width * width + 2 * rank * width
            if candidate.sparsity > 0:
                total += width * (candidate.embedding + width * (candidate.pruner_input == "both"))
    return math.floor(total)


def _no_tables(statistics: Statistics) -> dict[str, Tensor]:
    return {field.name: torch.zeros(0, field.width) for field in statistics.vectors}
