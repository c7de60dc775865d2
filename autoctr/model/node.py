"""A fusing node: gated inputs, joined by up to four operators, and the operators' mixture (OptFusion 1.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autoctr.model.architecture import OPERATORS, consumers, inputs, producers
from autoctr.model.candidate import Candidate
from autoctr.model.gates import straight_through
from autoctr.model.operators import FUSION_OPERATORS, Edge, Operator, inner
from autoctr.model.parameters import Layout, Views


class Node:
    """Which inputs and operators of a node are computed for a cohort, with which gates and shares.

    Args:
        candidates: the members; all of them are relaxed (without ``wiring``), or none.
        position: of the node among the consumers.
        tensor: makes a constant on the cohort's device.
    """

    def __init__(
        self, candidates: Sequence[Candidate], position: int, width: int, tensor: Callable[[object], Tensor]
    ) -> None:
        blocks = candidates[0].blocks
        self.name, self.width = consumers(blocks)[position], width
        self.sources, self.count = producers(blocks), inputs(blocks)[position]
        self.learned = candidates[0].learned
        self.gates: Tensor | None = None
        self.shares: Tensor | None = None
        nodes = [c.wiring.effective().nodes[position] for c in candidates if c.wiring is not None]
        if not nodes:
            used = OPERATORS[:1] if self.learned == "connections" else OPERATORS
            self.edges = {operator: list(range(self.count)) for operator in used}
            self.kinds = [_OPEN] * self.count
            self.chosen = self._choose(self.edges)
            return
        self.edges = {}
        for index, operator in enumerate(OPERATORS):
            users = [node for node in nodes if node.operators[index] > 0]
            if users:
                self.edges[operator] = [u for u in range(self.count) if any(node.open[u] for node in users)]
        self.chosen = self._choose(self.edges)
        self.gates = tensor([[float(node.open[u]) for u in self.chosen.inputs] for node in nodes])
        self.kinds = _kinds(self.gates)
        if any(share not in (0.0, 1.0) for node in nodes for share in node.operators) or len(self.edges) > 1:
            self.shares = tensor([node.operators for node in nodes])

    def _choose(self, edges: Mapping[str, Sequence[int]]) -> _Chosen:
        """What is computed if each operator joins the inputs ``edges``."""
        used = sorted({u for chosen in edges.values() for u in chosen})
        place = {u: number for number, u in enumerate(used)}
        parts, weights = [], []
        for operator, chosen in edges.items():
            names = FUSION_OPERATORS[operator].names(self.name, [self.sources[u] for u in chosen])
            weights += names
            parts.append(_Part(OPERATORS.index(operator), [place[u] for u in chosen], len(names)))
        return _Chosen(used, parts, weights)

    def declare(self, layout: Layout) -> None:
        """Weights of the used operators for the used inputs."""
        for operator, edges in self.edges.items():
            FUSION_OPERATORS[operator].declare(layout, self.name, [self.sources[u] for u in edges], self.width)

    def forward(self, weights: Views, values: Mapping[int, Tensor], learned: Views | None) -> Tensor:
        """The fused input f [K, B, H].

        Args:
            values: outputs [K, B, H] of the producers by their number.
            learned: the gates' and operators' logits of a supernet.
        """
        gates, shares, kinds, chosen = self.gates, self.shares, self.kinds, self.chosen
        trains = torch.is_grad_enabled()
        if learned is not None and self.learned != "operators":
            gates = straight_through(learned[f"{self.name}.gates"])
            # To ask a GPU costs a wait for it, so that in training all its gates count as mixed.
            kinds = [_MIXED] * self.count if trains and gates.device.type != "cpu" else _kinds(gates)
        if learned is not None and self.learned != "connections":
            shares = learned[f"{self.name}.operators"].softmax(-1)
            if not trains:
                heaviest = dict(zip(OPERATORS, shares.amax(0).tolist(), strict=True))
                chosen = self._choose({operator: us for operator, us in self.edges.items() if heaviest[operator] > 0})
        if shares is None and kinds == [_OPEN] and "add" in self.edges:
            return values[chosen.inputs[0]]
        tensors = [*(values[u] for u in chosen.inputs), *(weights[name] for name in chosen.weights)]
        factors = [None if part is None else part.to(tensors[0].dtype) for part in (gates, shares)]
        fused: Tensor = _Fuse.apply(_Plan(chosen.parts, kinds), *factors, *tensors)  # type: ignore[no-untyped-call]
        return fused


_OPEN, _CLOSED, _MIXED = "open", "closed", "mixed"


def _kinds(gates: Tensor) -> list[str]:
    """Of each input, whether its gate is known to be open or closed for all members, from [K, inputs]."""
    flags = gates.detach().T.tolist()
    return [_OPEN if all(f == 1 for f in row) else _CLOSED if not any(row) else _MIXED for row in flags]


@dataclasses.dataclass(frozen=True)
class _Part:
    """An operator's number, the places of its inputs among the node's, and the number of its weights."""

    operator: int
    edges: list[int]
    weights: int

    @property
    def join(self) -> Operator:
        return FUSION_OPERATORS[OPERATORS[self.operator]]


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """The numbers of the inputs that are computed, the operators, and the names of all their weights."""

    inputs: list[int]
    parts: list[_Part]
    weights: list[str]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What a node computes: of the tensors that come with it, the values lead, and each part's weights follow."""

    parts: list[_Part]
    kinds: list[str]

    def edges(self, tensors: Sequence[Tensor], gates: Tensor | None) -> list[Edge]:
        """The inputs, with the gates [K, n] of those that need one."""
        return [
            Edge(
                tensors[u],
                None if kind == _OPEN or gates is None else gates[:, u, None, None],
                closed=kind == _CLOSED,
            )
            for u, kind in enumerate(self.kinds)
        ]

    def weighted(self, tensors: Sequence[Tensor]) -> Iterator[tuple[_Part, Sequence[Tensor]]]:
        """Every part and its weights."""
        at = len(self.kinds)
        for part in self.parts:
            yield part, tensors[at : at + part.weights]
            at += part.weights


class _Fuse(torch.autograd.Function):
    """Σ_i s_i operator_i(g_1 x_1, ...) of the gates [K, n], the shares s [K, 4], the values and the weights.

    Gates or shares that are None count as 1.
    """

    @staticmethod
    def forward(ctx: Any, plan: _Plan, gates: Tensor | None, shares: Tensor | None, *tensors: Tensor) -> Tensor:
        edges = plan.edges(tensors, gates)
        total: Tensor | None = None
        outs: list[Tensor] = []
        keeps: list[Tensor | None] = []
        sizes = []
        for part, weights in plan.weighted(tensors):
            out, kept = part.join.forward(weights, [edges[u] for u in part.edges])
            sizes.append(len(kept))
            keeps += kept
            if shares is None:
                total = out if total is None else total + out
                continue
            if ctx.needs_input_grad[2]:
                outs.append(out)
            share = shares[:, part.operator, None, None]
            total = out * share if total is None else total.addcmul_(out, share)
        ctx.plan, ctx.sizes = plan, sizes
        ctx.save_for_backward(gates, shares, *tensors, *outs, *keeps)
        assert total is not None
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,), plan, needs = gradients, ctx.plan, ctx.needs_input_grad
        gates, shares, *saved = ctx.saved_tensors
        tensors, saved = saved[: len(needs) - 3], saved[len(needs) - 3 :]
        edges, first = plan.edges(tensors, gates), 3 + len(plan.kinds)
        for edge, needed in zip(edges, needs[3:first], strict=True):
            edge.steered = needs[1]
            edge.wanted = edge.steered or (needed and not edge.closed)
        of_shares = torch.zeros_like(shares) if needs[2] else None
        outs, saved = (saved[: len(plan.parts)], saved[len(plan.parts) :]) if needs[2] else ([], saved)
        of_weights: list[Tensor | None] = []
        for number, (part, weights) in enumerate(plan.weighted(tensors)):
            kept, saved = saved[: ctx.sizes[number]], saved[ctx.sizes[number] :]
            arriving = gradient if shares is None else gradient * shares[:, part.operator, None, None]
            if of_shares is not None:
                of_shares[:, part.operator] = inner(gradient, outs[number])
            learns = any(needs[first + len(of_weights) :][: part.weights])
            of_weights += part.join.backward(weights, [edges[u] for u in part.edges], kept, arriving, learns)
        of_gates = torch.stack([edge.of_gate() for edge in edges], 1) if needs[1] else None
        of_values = [edge.of_value() if needed else None for edge, needed in zip(edges, needs[3:first], strict=True)]
        return (None, of_gates, of_shares, *of_values, *of_weights)
