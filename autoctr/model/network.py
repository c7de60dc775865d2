"""The fusion network of a cohort: embedding, K blocks of a cross and a deep component, output node, one head per task.

The same code runs the relaxed supernet (gates and operators are learned) and the masked discrete network (they are
constants and what no member uses is not computed).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from autoctr.data.statistics import Statistics
from autoctr.model import sparsity
from autoctr.model.architecture import OPERATORS, consumers, inputs, producers
from autoctr.model.candidate import Candidate, ranks, sparsities
from autoctr.model.cross import CROSS
from autoctr.model.dropout import dropout
from autoctr.model.embedding import FeatureEmbedding
from autoctr.model.gates import straight_through
from autoctr.model.linear import declare_linear, linear
from autoctr.model.lora import Adapters, declare_lora
from autoctr.model.norm import BatchNorm
from autoctr.model.operators import FUSION_OPERATORS, Edge
from autoctr.model.parameters import Layout, Views, constant, zeros
from autoctr.model.segments import Segments

SHAPE_FIELDS = ("embedding", "width", "blocks", "cross", "norm", "sparsity_form", "pruner_input", "batch")


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows sorted by domain, on one device.

    ids int [B, slots], numbers float [B, scaled fields], vectors int [B, vector fields], labels float [B, tasks].
    """

    ids: Tensor
    numbers: Tensor
    vectors: Tensor
    labels: Tensor
    segments: Segments

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass
class Pass:
    """What one forward pass returns: logits [K, B, tasks] and the band penalty [K] (None without pruners)."""

    logits: Tensor
    penalty: Tensor | None


class Network:
    """The computation of K members that share a shape; weights come in as arguments.

    Args:
        statistics: of the dataset.
        candidates: the members; they agree in ``SHAPE_FIELDS``. A member without ``wiring`` makes the network the
            relaxed supernet, and then all members must be without.
        tables: frozen vectors of each vector field, float [rows, width].

    Attributes:
        layout: the dense weights of one member.
        architecture: the gates and operator logits of one member of a supernet (empty for a discrete network).
        normalisation: running means and variances of one member (empty without batch normalisation).
    """

    def __init__(
        self,
        statistics: Statistics,
        candidates: Sequence[Candidate],
        tables: Mapping[str, Tensor],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        first = candidates[0]
        for name in SHAPE_FIELDS:
            values = {getattr(candidate, name) for candidate in candidates}
            if len(values) > 1:
                raise ValueError(f"members of a cohort must agree in {name}, not {sorted(values)}")
        self.relaxed = first.wiring is None
        if any((candidate.wiring is None) != self.relaxed for candidate in candidates):
            raise ValueError("a cohort is either a supernet or discrete; some members have a wiring, others have none")
        self.statistics, self.candidates = statistics, tuple(candidates)
        self.dtype, self.device = dtype, torch.device(device)
        self.members, self.blocks = len(candidates), first.blocks
        self.cross, self.form = CROSS[first.cross], first.sparsity_form
        frozen = {name: table.to(self.device, dtype) for name, table in tables.items()}
        self.embedding = FeatureEmbedding(statistics, first.embedding, frozen)
        self.width = first.width or self.embedding.width
        self.projected = first.width > 0
        domain_rows = statistics.domain_rows
        targets = [sparsities(candidate, domain_rows) for candidate in candidates]
        self.targets = self._tensor(targets) if any(map(any, targets)) else None
        self.pruned = (
            self._tensor([[[float(c.sparsity > 0)]] for c in candidates]) if self.targets is not None else None
        )
        all_ranks = [ranks(candidate, domain_rows) for candidate in candidates]
        self.all_pruned = all(c.sparsity > 0 for c in candidates)
        self.adapters = Adapters(all_ranks, dtype, self.device) if any(map(any, all_ranks)) else None
        self.norm = BatchNorm() if first.norm == "batch" else None
        self.rates = self._tensor([c.dropout for c in candidates])
        self.embedding_rates = self._tensor([c.embedding_dropout for c in candidates])
        self.drops = any(c.dropout > 0 for c in candidates)
        self.drops_embedding = any(c.embedding_dropout > 0 for c in candidates)
        self.seeds = torch.tensor([c.seed % (1 << 31) for c in candidates], dtype=torch.int32, device=self.device)
        self.nodes = [_Node(self, position) for position in range(2 * self.blocks + 1)]
        self.needed = self._needed()
        deep = [position for position in sorted(self.needed) if self._is_deep(position)]
        self.counted = self._tensor(
            [[float(c.wiring is None or position in c.wiring.live()) for c in candidates] for position in deep]
        )
        self.layout = self._declare(first)
        self.architecture = self._declare_architecture()
        self.normalisation = self._declare_normalisation()

    def _tensor(self, values: object) -> Tensor:
        return torch.tensor(values, dtype=self.dtype, device=self.device)

    def _needed(self) -> set[int]:
        """Producers that some member's output depends on."""
        if self.relaxed:
            return set(range(2 * self.blocks + 2))
        return set().union(*(c.wiring.live() for c in self.candidates if c.wiring is not None))

    def _declare(self, first: Candidate) -> Layout:
        layout, names = Layout(), producers(self.blocks)
        self.embedding.declare(layout)
        if self.projected:
            declare_linear(layout, "projection", self.embedding.width, self.width)
        for position, name in enumerate(names):
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
        return layout

    def _declare_architecture(self) -> Layout:
        layout = Layout()
        if self.relaxed:
            for node, count in zip(consumers(self.blocks), inputs(self.blocks), strict=True):
                layout.add(f"{node}.gates", (count,), constant(0.5))
                layout.add(f"{node}.operators", (len(OPERATORS),), zeros)
        return layout

    def _declare_normalisation(self) -> Layout:
        """Running means and variances, which no gradient trains, of one member's deep components."""
        layout = Layout()
        for position, name in enumerate(producers(self.blocks)):
            if self.norm is not None and position in self.needed and self._is_deep(position):
                layout.add(f"{name}.mean", (self.width,), zeros)
                layout.add(f"{name}.variance", (self.width,), constant(1.0))
        return layout

    def initial_running(self) -> Tensor:
        """Fresh running means (0) and variances (1), [K, S]."""
        return self.normalisation.initial([0] * self.members).to(self.device, self.dtype)

    def _is_deep(self, position: int) -> bool:
        return position > 1 and position % 2 == 1

    def forward(
        self,
        flat: Tensor,
        table: Tensor,
        positions: Tensor,
        batch: Batch,
        *,
        architecture: Tensor | None = None,
        running: Tensor | None = None,
        step: int | None = None,
        progress: float = 1.0,
    ) -> Pass:
        """Logits of every member for every row.

        Args:
            flat: dense weights [K, P]. table: embedding rows [U, K, E]. positions: int [B, slots], rows of ``table``.
            architecture: gate and operator logits [K, A] of a supernet.
            running: normalisation statistics [K, S], updated in place while training.
            step: training step; None means evaluation (no dropout, running statistics).
            progress: share of the sparsity ramp that is done.

        Returns: logits [K, B, tasks], penalty [K].
        """
        weights = self.layout.views(flat)
        x, domain = self.embedding.forward(weights, table, positions, batch.ids, batch.numbers, batch.vectors)
        training = step is not None
        if training and self.drops_embedding:
            x = dropout(x, self.embedding_rates, self.seeds, step or 0, 0)
        if self.projected:
            x = linear(weights, "projection", x)
        learned = None if architecture is None else self.architecture.views(architecture)
        values: dict[int, Tensor] = {0: x}
        shares: list[Tensor] = []
        deep = 0
        for position, name in enumerate(producers(self.blocks)):
            if position not in self.needed or position == 0:
                continue
            f = x if position == 1 else self.nodes[position - 2].forward(weights, values, learned)
            if not self._is_deep(position):
                values[position] = self.cross.forward(weights, name, f, x)
                continue
            h = linear(weights, name, f)
            if self.adapters is not None:
                h = h + self.adapters.forward(weights, name, f, batch.segments)
            if self.norm is not None:
                assert running is not None
                part = running[:, 2 * self.width * deep : 2 * self.width * (deep + 1)]
                h = self.norm.forward(weights, name, h, part, training)
            h = h.relu()
            if training and self.drops:
                h = dropout(h, self.rates, self.seeds, step or 0, position)
            if self.targets is not None:
                h = self._prune(weights, name, h, domain, batch, progress, shares if training else None)
            values[position] = h
            deep += 1
        out = self.nodes[-1].forward(weights, values, learned)
        logits = torch.cat([linear(weights, f"head.{task}", out) for task in self.statistics.tasks], 2)
        penalty = None
        if shares and self.targets is not None and self.pruned is not None:
            penalty = (
                sparsity.strength(progress)
                * self.pruned[:, 0, 0]
                * sparsity.band_penalty(shares, self.targets, batch.segments.one_hot, self.counted)
            )
        return Pass(logits, penalty)

    def _prune(
        self,
        weights: Views,
        name: str,
        h: Tensor,
        domain: Tensor,
        batch: Batch,
        progress: float,
        shares: list[Tensor] | None,
    ) -> Tensor:
        assert self.pruned is not None
        steepness = sparsity.alpha(progress)
        v = sparsity.pruner_output(weights, name, h, domain)
        if shares is not None and self.form != "scaling":
            shares.append(sparsity.closed_share(self.form, v, steepness, batch.segments.one_hot))
        factor = sparsity.factors(self.form, v, steepness)
        if not self.all_pruned:
            factor = factor * self.pruned + (1 - self.pruned)
        return h * factor


class _Node:
    """A fusing node: which inputs and operators are computed, and with which constant gates and weights."""

    def __init__(self, network: Network, position: int) -> None:
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
                    self.weights[index] = network._tensor([[[node.operators[index]]] for node in nodes])
        for u in range(count):
            if not all(node.open[u] for node in nodes):
                self.gates[u] = network._tensor([[[float(node.open[u])]] for node in nodes])

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
