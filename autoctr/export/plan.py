"""What of a candidate's network is left when everything closed, dead or switched off is gone."""

from __future__ import annotations

import dataclasses

from autoctr.data.statistics import Field, Kind, Statistics
from autoctr.export.names import identifiers
from autoctr.model.architecture import OPERATORS, Node, consumers, producers
from autoctr.model.candidate import Candidate, ranks
from autoctr.model.fusion import FusionNetwork
from autoctr.model.sparsity import alpha


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


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything the generated model consists of. Names of nodes are lower case, as in its source.

    ``components`` are in the order of computing, without the output ``o``, which is ``output``. ``ranks`` holds the
    domains that have an adapter. ``form`` is None without pruners; ``steepness`` is their α.
    """

    statistics: Statistics
    tables: dict[str, int]
    candidate: Candidate
    components: tuple[Component, ...]
    output: Component
    ranks: dict[int, int]
    form: str | None
    steepness: float

    @classmethod
    def of(cls, network: FusionNetwork, progress: float) -> Plan:
        """The plan of the only member of a discrete network, ``progress`` of the sparsity ramp being done.

        Raises:
            ValueError: for a supernet or several members.
        """
        candidate, statistics = network.candidates[0], network.statistics
        if network.members != 1 or candidate.wiring is None:
            raise ValueError("an export needs one member with a discrete wiring")
        wiring, names = candidate.wiring, [name.lower() for name in producers(candidate.blocks)]
        live = wiring.live()
        components = [Component("c0", ())] if 1 in live else []
        for position, (name, node) in enumerate(zip(consumers(candidate.blocks), wiring.nodes, strict=True)):
            if name == "O" or position + 2 in live:
                components.append(Component(name.lower(), _parts(node, names)))
        deep = any(component.deep for component in components)
        adapted = {d: rank for d, rank in enumerate(ranks(candidate, statistics.domain_rows)) if rank}
        rows = [len(table) for table in network.embedding.tables]
        return cls(
            statistics=statistics,
            tables={field.name: count for field, count in zip(statistics.vectors, rows, strict=True)},
            candidate=candidate,
            components=tuple(components[:-1]),
            output=components[-1],
            ranks=adapted if deep else {},
            form=candidate.sparsity_form if deep and candidate.sparsity > 0 else None,
            steepness=alpha(progress),
        )

    @property
    def width(self) -> int:
        """Neurons of every node."""
        return self.candidate.width or self.fields_width

    @property
    def fields_width(self) -> int:
        """Numbers of all fields side by side."""
        pooled = sum(field.kind is Kind.MULTI for field in self.statistics.embedded)
        embedded = len(self.singles) + pooled + len(self.statistics.scaled)
        return embedded * self.candidate.embedding + sum(field.width for field in self.statistics.vectors)

    @property
    def slots(self) -> dict[str, int]:
        """First column of ``ids`` of every embedded field."""
        start, result = 0, {}
        for field in self.statistics.embedded:
            result[field.name] = start
            start += field.slots
        return result

    @property
    def singles(self) -> list[int]:
        """Columns of ``ids`` that hold one value per row."""
        return [self.slots[field.name] for field in self.statistics.embedded if field.kind is not Kind.MULTI]

    @property
    def lists(self) -> list[Field]:
        """Multi-valued fields."""
        return [field for field in self.statistics.embedded if field.kind is Kind.MULTI]

    @property
    def vector_names(self) -> dict[str, str]:
        """The model's attribute for the side table of every vector field."""
        return identifiers(self.tables, "vectors")

    @property
    def inputs(self) -> list[str]:
        """What the model's forward takes."""
        needed = {"ids": True, "numbers": self.statistics.scaled, "vectors": self.tables, "domain": self.ranks}
        return [name for name, value in needed.items() if value]

    @property
    def operators(self) -> set[str]:
        """Fusion operators that some node uses."""
        return {part.operator for component in (*self.components, self.output) for part in component.parts}

    @property
    def reads_neurons(self) -> bool:
        """Whether the pruners read the neurons beside the domain."""
        return self.candidate.pruner_input == "both"

    @property
    def has_steps(self) -> bool:
        """Whether a neuron opens and closes at a threshold, so that rounding alone can move a probability."""
        return self.form in ("fusion", "binarization")


def _parts(node: Node, names: list[str]) -> tuple[Part, ...]:
    sources = tuple(names[u] for u, is_open in enumerate(node.open) if is_open)
    weighted = zip(OPERATORS, node.operators, strict=True)
    return tuple(Part(operator, weight, sources) for operator, weight in weighted if weight > 0)
