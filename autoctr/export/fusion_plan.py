"""What of a candidate's fusion network is left when everything closed, dead or switched off is gone."""

from __future__ import annotations

import dataclasses

from autoctr.export.plan import Plan, sizes
from autoctr.model.architecture import OPERATORS, Node, consumers, producers
from autoctr.model.candidate import ranks
from autoctr.model.components import token_width
from autoctr.model.fusion import FusionNetwork
from autoctr.model.sparsity import alpha
from autoctr.training.cohort import Weights


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
class FusionPlan(Plan):
    """Everything the generated model consists of. Names of nodes are lower case, as in its source.

    ``components`` are in the order of computing, without the output ``o``, which is ``output``. ``ranks`` holds the
    domains that have an adapter. ``tickets`` names the unit that owns a ticket, ``domain`` or ``task``; None without
    tickets and for a single one, which is part of the weights. ``prunes_neurons`` and ``prunes_input`` tell where
    factors apply, ``steepness`` is their α.
    """

    components: tuple[Component, ...]
    output: Component
    ranks: dict[int, int]
    tickets: str | None
    prunes_neurons: bool
    prunes_input: bool
    steepness: float

    @property
    def operators(self) -> set[str]:
        """Fusion operators that some node uses."""
        return {part.operator for component in (*self.components, self.output) for part in component.parts}

    @property
    def token(self) -> int:
        """Neurons of a token, for the cross components that see tokens."""
        return token_width(self.width, self.candidate.embedding)

    @property
    def prunes(self) -> bool:
        """Whether factors apply anywhere."""
        return self.prunes_neurons or self.prunes_input

    @property
    def reads_neurons(self) -> bool:
        """Whether the pruners of neurons read the neurons beside the domain."""
        return self.candidate.pruner_input == "both"

    @property
    def has_steps(self) -> bool:
        """Whether something opens and closes at a threshold, so that rounding alone can move a probability."""
        return self.prunes and self.candidate.sparsity_form in ("fusion", "binarization")

    def has(self, *, deep: bool) -> bool:
        """Whether a deep (or a cross) component is computed."""
        return any(component.deep == deep for component in self.components)


def fusion_plan(network: FusionNetwork, weights: Weights) -> FusionPlan:
    """The plan of the only member of a discrete network.

    Raises:
        ValueError: for a supernet or several members.
    """
    shared = sizes(network)
    candidate = network.candidates[0]
    if candidate.wiring is None:
        raise ValueError("an export needs a discrete wiring")
    wiring, names = candidate.wiring, [name.lower() for name in producers(candidate.blocks)]
    live = wiring.live()
    components = [Component("c0", ())] if 1 in live else []
    for position, (name, node) in enumerate(zip(consumers(candidate.blocks), wiring.nodes, strict=True)):
        if name == "O" or position + 2 in live:
            components.append(Component(name.lower(), _parts(node, names)))
    deep = any(component.deep for component in components)
    adapted = {d: rank for d, rank in enumerate(ranks(candidate, network.statistics.domain_rows)) if rank}
    several = deep and weights.masks is not None and network.units > 1
    tickets = candidate.ticket_unit if several else None
    return FusionPlan(
        **shared,
        reads_domain=tickets == "domain" or (deep and bool(adapted)),
        components=tuple(components[:-1]),
        output=components[-1],
        ranks=adapted if deep else {},
        tickets=tickets,
        prunes_neurons=deep and candidate.sparsity > 0,
        prunes_input=network.prunes_input,
        steepness=alpha(weights.progress, candidate.sparsity_alpha),
    )


def _parts(node: Node, names: list[str]) -> tuple[Part, ...]:
    sources = tuple(names[u] for u, is_open in enumerate(node.open) if is_open)
    weighted = zip(OPERATORS, node.operators, strict=True)
    return tuple(Part(operator, weight, sources) for operator, weight in weighted if weight > 0)
