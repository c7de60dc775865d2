"""The searched network: K blocks of a cross and a deep component, an output node, and one head per task.

The same code runs the relaxed supernet (gates and operators are learned) and the masked discrete network (they are
constants and what no member uses is not computed).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from autoctr.data.statistics import Statistics
from autoctr.model import sparsity
from autoctr.model.architecture import OPERATORS, consumers, inputs, producers
from autoctr.model.candidate import Candidate, ranks
from autoctr.model.components import CROSS, token_width
from autoctr.model.linear import declare_linear, linear
from autoctr.model.lora import Adapters, declare_lora
from autoctr.model.network import Inputs, Network, Pass, field_widths
from autoctr.model.node import Node
from autoctr.model.norm import BatchNorm
from autoctr.model.operators import FUSION_OPERATORS
from autoctr.model.parameters import Views, constant, zeros
from autoctr.model.tickets import masked_linear


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
        self.cross, self.token = CROSS[first.cross], token_width(self.width, first.embedding)
        domain_rows = self.statistics.domain_rows
        pruned = any(candidate.sparsity > 0 for candidate in candidates)
        if pruned:
            self.pruners = sparsity.Pruners(candidates, domain_rows, self.dtype, self.device)
        self.prunes_input = pruned and first.input_pruner
        all_ranks = [ranks(candidate, domain_rows) for candidate in candidates]
        self.adapters = Adapters(all_ranks, self.dtype, self.device) if any(map(any, all_ranks)) else None
        self.norm = BatchNorm() if first.norm == "batch" else None
        count = 2 * self.blocks + 1
        self.nodes = [Node(candidates, position, self.width, self.tensor) for position in range(count)]
        self.needed = self._needed()
        deep = [position for position in sorted(self.needed) if self._is_deep(position)]
        uses = [[float(c.wiring is None or position in c.wiring.live()) for c in candidates] for position in deep]
        self.counted = self.tensor([[1.0] * self.members] * self.prunes_input + uses)
        self._declare_weights(first)
        if self.relaxed:
            for node, count in zip(consumers(self.blocks), inputs(self.blocks), strict=True):
                if first.learned != "operators":
                    self.architecture.add(f"{node}.gates", (count,), constant(0.5))
                if first.learned != "connections":
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
        form, domain_width = first.sparsity_form, self.embedding.embedding
        if self.prunes_input:
            fields = len(self.embedding.widths)
            sparsity.declare_pruner(layout, "x0", fields, domain_width, form=form, reads_neurons=False)
            widths = torch.tensor(self.embedding.widths, device=self.device)
            self.field_of = torch.arange(fields, device=self.device).repeat_interleave(widths)
        for position, name in enumerate(producers(self.blocks)):
            if position not in self.needed or position == 0:
                continue
            if position > 1:
                self.nodes[position - 2].declare(layout)
            if name.startswith("C"):
                self.cross.declare(layout, name, self.width, self.token)
                continue
            # A bias before a normalisation is without effect, and Adam would make steps of its rounding errors.
            declare_linear(layout, name, self.width, self.width, bias=self.norm is None)
            self.maskable.add(f"{name}.weight", (self.width, self.width), constant(1.0))
            if self.norm is not None:
                self.norm.declare(layout, name, self.width)
            if self.adapters is not None:
                domains = len(self.statistics.domains)
                declare_lora(layout, name, self.width, self.width, domains, self.adapters.rank)
            if self.pruners is not None:
                reads = self.pruners.reads_neurons
                sparsity.declare_pruner(layout, name, self.width, domain_width, form=form, reads_neurons=reads)
        self.nodes[-1].declare(layout)
        for task in self.statistics.tasks:
            declare_linear(layout, f"head.{task}", self.width, 1)

    def _is_deep(self, position: int) -> bool:
        return position > 1 and position % 2 == 1

    def select(self, weights: Views, fields: Tensor, inputs: Inputs) -> Tensor:
        """The fields, each times its domain's factor where the input is pruned, [K, B, F]."""
        if not self.prunes_input:
            return fields
        factor = self._factors(weights, "x0", fields, inputs)
        return fields * factor[:, :, self.field_of]

    def body(self, weights: Views, inputs: Inputs) -> Pass:
        """Block after block, then the output node and the heads; with tickets per task, once per task."""
        masks: Mapping[str, Tensor] = {}
        tasks = self.statistics.tasks
        if inputs.masks is not None:
            members, units = inputs.masks.shape[:2]
            flat = self.maskable.views(inputs.masks.flatten(0, 1).to(inputs.x0.dtype))
            masks = {name: view.view(members, units, *view.shape[1:]) for name, view in flat.items()}
        if masks and self.candidates[0].ticket_unit == "task":
            outputs = []
            for task in range(len(tasks)):
                own = {name: mask[:, task : task + 1] for name, mask in masks.items()}
                outputs.append(self._blocks(weights, inputs, own, {}))
            for name in inputs.closed or ():
                if inputs.closed is not None and name != "x0":
                    inputs.closed[name] = inputs.closed[name] / len(tasks)
        else:
            outputs = [self._blocks(weights, inputs, masks, inputs.values)] * len(tasks)
        heads = zip(tasks, outputs, strict=True)
        logits = torch.cat([linear(weights, f"head.{task}", out) for task, out in heads], 2)
        closed, penalty = inputs.closed or {}, None
        if inputs.step is not None and closed and self.pruners is not None:
            counts = inputs.batch.total(inputs.batch.segments.one_hot.sum(0))
            penalty = self.pruners.penalty(list(closed.values()), inputs.progress, counts, self.counted)
        return Pass(logits, penalty, closed)

    def _blocks(self, weights: Views, inputs: Inputs, masks: Mapping[str, Tensor], values: dict[int, Tensor]) -> Tensor:
        """The output node's neurons, [K, B, H]; those of every producer go into ``values``."""
        x = values[0] = inputs.x0
        deep = 0
        for position, name in enumerate(producers(self.blocks)):
            if position not in self.needed or position == 0:
                continue
            if position in values:
                deep += self._is_deep(position)
                continue
            f = x if position == 1 else self.nodes[position - 2].forward(weights, values, inputs.learned)
            if not self._is_deep(position):
                values[position] = self.cross.forward(weights, name, f, x, self.token)
                continue
            mask, segments = masks.get(f"{name}.weight"), inputs.batch.segments
            if mask is None:
                h = linear(weights, name, f)
            else:
                h = masked_linear(f, weights[f"{name}.weight"], mask, weights.get(f"{name}.bias"), segments)
            if self.adapters is not None:
                h = h + self.adapters.forward(weights, name, f, segments)
            if self.norm is not None:
                assert inputs.running is not None
                part = inputs.running[:, 2 * self.width * deep : 2 * self.width * (deep + 1)]
                training, share = inputs.step is not None and not inputs.rests, inputs.batch.share
                shared = None if share is None else (share.rows, share.total)
                h = self.norm.forward(weights, name, h, part, training, shared)
            h = self.dropped(h.relu(), inputs.step, position, inputs.batch.first)
            if self.pruners is not None:
                h = h * self._factors(weights, name, h, inputs)
            values[position] = h
            deep += 1
        return self.nodes[-1].forward(weights, values, inputs.learned)

    @staticmethod
    def multiply_adds(candidate: Candidate, statistics: Statistics) -> int:
        """Multiply-adds per row of the discrete network, without the embedding look-up, for the dearest domain."""
        return _multiply_adds(candidate, statistics, max(ranks(candidate, statistics.domain_rows)), {})

    def _factors(self, weights: Views, name: str, h: Tensor, inputs: Inputs) -> Tensor:
        """π of the layer ``name``; its share of closed neurons goes into ``inputs.closed``."""
        assert self.pruners is not None
        v = sparsity.pruner_output(weights, name, h, inputs.domain)
        if inputs.closed is not None:
            share = self.pruners.closed(v, inputs.progress, inputs.batch.segments.one_hot, inputs.batch.total)
            if share is not None:
                before = inputs.closed.get(name)
                inputs.closed[name] = share if before is None else before + share
        return self.pruners.factors(v, inputs.progress).to(h.dtype)


def open_multiply_adds(
    candidate: Candidate, statistics: Statistics, closed: Mapping[str, Sequence[float]]
) -> list[int]:
    """Multiply-adds per row and domain that have no closed neuron as a factor or a result.

    A neuron that a pruner closes by the domain alone need not be computed, and its pruner is a constant of the domain;
    one that it closes by the neurons as well must be, but need not be read.

    Args:
        closed: share of closed neurons of each pruned layer, per domain; NaN = unknown, counted as none.
    """
    adapted = ranks(candidate, statistics.domain_rows)
    return [
        _multiply_adds(candidate, statistics, rank, {name: _known(shares[domain]) for name, shares in closed.items()})
        for domain, rank in enumerate(adapted)
    ]


def _known(share: float) -> float:
    return 0.0 if math.isnan(share) else share


def _multiply_adds(candidate: Candidate, statistics: Statistics, rank: int, closed: Mapping[str, float]) -> int:
    assert candidate.wiring is not None
    by_domain = candidate.pruner_input == "domain"
    fields = field_widths(candidate, statistics)
    width = candidate.width or sum(fields)
    total = 0.0
    if candidate.sparsity > 0 and candidate.input_pruner:
        total += sum(fields)
        if not closed:
            total += candidate.embedding * len(fields)
    if candidate.width:
        total += sum(fields) * (1 - closed.get("x0", 0.0)) * width
    live, names = candidate.wiring.live(), producers(candidate.blocks)
    for position in range(1, len(names) + 1):
        is_output = position == len(names)
        if not is_output and position not in live:
            continue
        reads = 1.0
        if position > 1:
            node = candidate.wiring.nodes[position - 2]
            shares = [1 - closed.get(names[u], 0.0) for u, is_open in enumerate(node.open) if is_open]
            used = [operator for operator, share in zip(OPERATORS, node.operators, strict=True) if share > 0]
            total += sum(FUSION_OPERATORS[operator].cost(shares, width) for operator in used)
            if used == ["product"] or (used == ["add"] and len(shares) == 1):
                reads = min(shares)
        if is_output:
            total += reads * width * len(statistics.tasks)
        elif position % 2 == 0 or position == 1:
            total += CROSS[candidate.cross].cost(width, token_width(width, candidate.embedding))
        else:
            computed = 1 - closed.get(names[position], 0.0) if by_domain else 1.0
            total += (reads * width + 2 * rank) * computed * width
            if candidate.sparsity > 0 and not (closed and by_domain):
                total += width * (candidate.embedding + width * (not by_domain))
    return round(total)
