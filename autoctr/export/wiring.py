"""The nodes of a searched network that are computed: what its wiring leaves when everything closed or dead is gone."""

from __future__ import annotations

import dataclasses

from autoctr.model.architecture import OPERATORS, Architecture, Node, consumers, producers


@dataclasses.dataclass(frozen=True)
class Part:
    """One fusion operator of a node: its weight in the mixture (1 = alone) and the open producers it joins."""

    operator: str
    weight: float
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Component:
    """A node that is computed: ``c0``, ``d1``, ... or ``o``. C0 reads E itself and fuses nothing."""

    name: str
    parts: tuple[Part, ...]

    @property
    def deep(self) -> bool:
        """Whether it is a deep component."""
        return self.name.startswith("d")

    @property
    def concat(self) -> Part | None:
        """The part that is mapped by a matrix of its own, if any."""
        return next((part for part in self.parts if part.operator == "concat"), None)

    @property
    def only_concat(self) -> bool:
        """Whether a concatenation is all that it fuses."""
        return len(self.parts) == 1 and self.concat is not None and self.concat.weight == 1.0


def computed(wiring: Architecture) -> tuple[Component, ...]:
    """All nodes that the output depends on, in the order of computing; the output ``o`` is the last."""
    names, live = [name.lower() for name in producers(wiring.blocks)], wiring.live()
    components = [Component("c0", ())] if 1 in live else []
    for position, (name, node) in enumerate(zip(consumers(wiring.blocks), wiring.nodes, strict=True)):
        if name == "O" or position + 2 in live:
            components.append(Component(name.lower(), _parts(node, names)))
    return tuple(components)


def _parts(node: Node, names: list[str]) -> tuple[Part, ...]:
    sources = tuple(names[u] for u, is_open in enumerate(node.open) if is_open)
    weighted = zip(OPERATORS, node.operators, strict=True)
    return tuple(Part(operator, weight, sources) for operator, weight in weighted if weight > 0)
