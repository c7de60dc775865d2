"""The wiring of a fusion network: which connections are open and which operator each node uses (OptFusion).

Producers are numbered 0 = E (the embedding), 1 = C0, then C1, D1, C2, D2, ...; fusing nodes are C1, D1, ..., CK, DK
and the output O. C_i and D_i may read the first 2i producers, O all 2K + 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

OPERATORS = ("add", "product", "concat", "attention")
ADD, PRODUCT, CONCAT, ATTENTION = range(4)


def producers(blocks: int) -> list[str]:
    """Names of the 2K + 2 producers: E, C0, C1, D1, ..."""
    return ["E", "C0", *(f"{kind}{i}" for i in range(1, blocks + 1) for kind in "CD")]


def consumers(blocks: int) -> list[str]:
    """Names of the 2K + 1 fusing nodes: C1, D1, ..., CK, DK, O."""
    return [*producers(blocks)[2:], "O"]


def inputs(blocks: int) -> list[int]:
    """How many producers each fusing node may read, in the order of :func:`consumers`."""
    return [*(2 * i for i in range(1, blocks + 1) for _ in "CD"), 2 * blocks + 2]


@dataclasses.dataclass(frozen=True)
class Node:
    """One fusing node: an open/closed flag per candidate input, and the weight of each operator."""

    open: tuple[bool, ...]
    operators: tuple[float, float, float, float]

    @property
    def hard(self) -> bool:
        """Whether exactly one operator is used, with weight 1."""
        return sorted(self.operators) == [0.0, 0.0, 0.0, 1.0]


def one_hot(operator: int) -> tuple[float, float, float, float]:
    """Operator weights that select one operator."""
    weights = [0.0] * 4
    weights[operator] = 1.0
    return (weights[0], weights[1], weights[2], weights[3])


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A discrete fusion architecture: one :class:`Node` per fusing node, in the order of :func:`consumers`."""

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        blocks = self.blocks
        if len(self.nodes) != 2 * blocks + 1 or blocks < 1:
            raise ValueError(f"{len(self.nodes)} nodes; an architecture of K blocks has 2K + 1, K at least 1")
        for name, node, count in zip(consumers(blocks), self.nodes, inputs(blocks), strict=True):
            if len(node.open) != count or not any(node.open):
                raise ValueError(f"node {name} needs {count} flags, one of them open, not {node.open}")
            if len(node.operators) != 4 or min(node.operators) < 0 or abs(sum(node.operators) - 1) > 1e-5:
                raise ValueError(f"node {name} needs 4 operator weights that sum to 1, not {node.operators}")

    @property
    def blocks(self) -> int:
        """Number of blocks K."""
        return (len(self.nodes) - 1) // 2

    def live(self) -> set[int]:
        """Producers that reach the output; the others need not be computed."""
        alive: set[int] = set()
        for position in range(len(self.nodes) - 1, -1, -1):
            if position == len(self.nodes) - 1 or position + 2 in alive:
                alive.update(u for u, is_open in enumerate(self.nodes[position].open) if is_open)
        return alive

    def effective(self) -> Architecture:
        """The same function in one form, so that equal networks compare equal.

        Dead nodes add their first input; a product of one input is its sum.
        """
        alive = self.live()
        nodes = []
        for position, node in enumerate(self.nodes):
            if position < len(self.nodes) - 1 and position + 2 not in alive:
                node = Node((True,) + (False,) * (len(node.open) - 1), one_hot(ADD))
            elif sum(node.open) == 1:
                add, product, concat, attention = node.operators
                node = Node(node.open, (add + product, 0.0, concat, attention))
            nodes.append(node)
        return Architecture(tuple(nodes))

    def neighbours(self) -> Iterator[Architecture]:
        """Every hard architecture that differs in one connection or one operator of a live node."""
        alive = self.live()
        for position, node in enumerate(self.nodes):
            if position < len(self.nodes) - 1 and position + 2 not in alive:
                continue
            for u in range(len(node.open)):
                flags = tuple(is_open != (v == u) for v, is_open in enumerate(node.open))
                if any(flags):
                    yield self.with_node(position, Node(flags, node.operators))
            for operator in range(4):
                if node.operators != one_hot(operator):
                    yield self.with_node(position, Node(node.open, one_hot(operator)))

    def with_node(self, position: int, node: Node) -> Architecture:
        """A copy with one node exchanged."""
        return Architecture((*self.nodes[:position], node, *self.nodes[position + 1 :]))

    def describe(self) -> list[str]:
        """One line per live node, such as ``D1 = concat(E, C0)``."""
        names, alive, lines = producers(self.blocks), self.live(), []
        for position, (name, node) in enumerate(zip(consumers(self.blocks), self.nodes, strict=True)):
            if name != "O" and position + 2 not in alive:
                continue
            arguments = ", ".join(names[u] for u, is_open in enumerate(node.open) if is_open)
            if node.hard:
                operator = OPERATORS[node.operators.index(1.0)]
            else:
                operator = " + ".join(f"{w:.2f} {o}" for w, o in zip(node.operators, OPERATORS, strict=True) if w > 0)
            lines.append(f"{name} = {operator}({arguments})")
        return lines

    def to_dict(self) -> list[dict[str, Any]]:
        """JSON-ready form."""
        return [{"open": list(node.open), "operators": list(node.operators)} for node in self.nodes]

    @classmethod
    def from_dict(cls, value: Sequence[dict[str, Any]]) -> Architecture:
        """Inverse of :meth:`to_dict`."""
        return cls(tuple(Node(tuple(map(bool, node["open"])), tuple(node["operators"])) for node in value))


def parallel(blocks: int) -> Architecture:
    """The DCN-v2 wiring: a cross stack beside a deep stack, joined by CONCAT at the output."""
    nodes = []
    for i in range(1, blocks + 1):
        nodes.append(_reading(2 * i, [2 * i - 2 if i > 1 else 1], ADD))
        nodes.append(_reading(2 * i, [2 * i - 1 if i > 1 else 0], ADD))
    nodes.append(_reading(2 * blocks + 2, [2 * blocks, 2 * blocks + 1], CONCAT))
    return Architecture(tuple(nodes))


def stacked(blocks: int) -> Architecture:
    """The stacked DCN-v2 wiring: cross layers C0..CS first, then deep layers D(S+1)..DK, with S = K // 2."""
    split = blocks // 2
    nodes = []
    for i in range(1, blocks + 1):
        nodes.append(_reading(2 * i, [2 * i - 2 if i > 1 else 1], ADD))
        source = max(2 * split, 1) if i == split + 1 else 2 * i - 1 if i > 1 else 0
        nodes.append(_reading(2 * i, [source], ADD))
    nodes.append(_reading(2 * blocks + 2, [2 * blocks + 1], ADD))
    return Architecture(tuple(nodes))


def deep(blocks: int) -> Architecture:
    """A deep stack alone: a shared-bottom DNN."""
    nodes = list(parallel(blocks).nodes)
    return Architecture((*nodes[:-1], _reading(2 * blocks + 2, [2 * blocks + 1], ADD)))


def cross(blocks: int) -> Architecture:
    """A cross stack alone, C0..CK: with the ``attention`` component this is AutoInt."""
    nodes = list(parallel(blocks).nodes)
    return Architecture((*nodes[:-1], _reading(2 * blocks + 2, [2 * blocks], ADD)))


def shallow(blocks: int) -> Architecture:
    """E and one cross component C0 beside a deep stack, joined by CONCAT: with the ``fm`` component this is DeepFM."""
    nodes = list(parallel(blocks).nodes)
    return Architecture((*nodes[:-1], _reading(2 * blocks + 2, [0, 1, 2 * blocks + 1], CONCAT)))


def full(blocks: int) -> Architecture:
    """Every connection open, every node adds."""
    return Architecture(tuple(_reading(count, range(count), ADD) for count in inputs(blocks)))


def _reading(count: int, chosen: Sequence[int], operator: int) -> Node:
    return Node(tuple(u in chosen for u in range(count)), one_hot(operator))


FIXED = {
    "parallel": parallel,
    "stacked": stacked,
    "full": full,
    "deep": deep,
    "cross": cross,
    "shallow": shallow,
}
