"""What of a candidate's fusion network is left when everything closed, dead or switched off is gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from autoctr.data.statistics import Field
from autoctr.export.fusion_layers import field_factors, fusion_layers
from autoctr.export.plan import Plan, part_names, sizes
from autoctr.export.product import Layer
from autoctr.export.rounding import Stored
from autoctr.export.scope import Scope
from autoctr.export.wiring import Component, computed
from autoctr.model.components import token_width
from autoctr.model.embedding import SnapshotField
from autoctr.model.fusion import FusionNetwork
from autoctr.model.sparsity import alpha
from autoctr.training.cohort import Weights

#: Multiply-adds in a whole layer that a domain's rows must be worth before they are computed on their own: measured on
#: a CPU, where to pick them, to compute them in parts and to put them back takes as long as what closed neurons save.
SPLIT = 2**21


@dataclasses.dataclass(frozen=True)
class FusionPlan(Plan):
    """Everything the generated model consists of. Names of nodes are lower case, as in its source.

    ``components`` are in the order of computing, without the output ``o``, which is ``output``. ``folded`` names those
    whose concatenation is part of the map behind it: the deep component's own, or the head. ``layers`` holds the
    maps that may differ between domains, see :class:`autoctr.export.fusion_layers.FusionLayers`, and ``groups`` a
    number for each domain, then for unknown ones, equal for domains that share all of them. ``prunes_neurons`` tells
    whether pruners read the neurons of every row, with α ``steepness``; one that reads the domain alone is part of the
    layers. ``per_task``: every task has a ticket.
    """

    components: tuple[Component, ...]
    output: Component
    folded: frozenset[str]
    layers: dict[str, tuple[Layer, ...]]
    groups: tuple[int, ...]
    field_factors: Tensor | None
    prunes_neurons: bool
    per_task: bool
    steepness: float

    @property
    def operators(self) -> set[str]:
        """Fusion operators that some node uses."""
        return {part.operator for component in (*self.components, self.output) for part in component.parts}

    @property
    def head_width(self) -> int:
        """Numbers that the head reads: those of the output node, or of all that it joins."""
        return self.width * (len(self.output.parts[0].sources) if "o" in self.folded else 1)

    @property
    def token(self) -> int:
        """Neurons of a token, for the cross components that see tokens."""
        return token_width(self.width, self.candidate.embedding)

    @property
    def has_steps(self) -> bool:
        """Whether pruners close neurons row by row at a threshold, where rounding alone can move a probability."""
        return self.prunes_neurons and self.candidate.sparsity_form in ("fusion", "binarization")

    @property
    def domain_of_group(self) -> list[int]:
        """The first domain of every group; the number of domains for unknown ones."""
        return [self.groups.index(group) for group in range(max(self.groups) + 1)]

    @property
    def has_groups(self) -> bool:
        """Whether some domains share all layers, so that they are told apart by their group alone."""
        return len(set(self.groups)) < len(self.groups)

    def is_shared(self, name: str) -> bool:
        """Whether all domains have one map of this name (per task)."""
        return all(layer.is_shared for layer in self.layers[name])

    def has_whole(self, name: str) -> bool:
        """Whether batches that are not worth splitting use one map for all domains."""
        return any(layer.has_whole for layer in self.layers[name])

    def has_closing(self, name: str) -> bool:
        """Whether such batches need factors beside it."""
        return any(layer.closing is not None for layer in self.layers[name])

    def closing(self, name: str) -> list[Tensor]:
        """These factors for every task, or once: [domains + 1, outputs], for the projection [domains + 1, inputs]."""
        first = self.layers[name][0].products[0]
        size = len(self.groups), first.inputs if name == "projection" else first.outputs
        ones = torch.ones(size, dtype=torch.float64)
        return [ones if layer.closing is None else layer.closing for layer in self.layers[name]]

    @property
    def split_rows(self) -> int:
        """Rows per domain below which a batch of several domains is not worth splitting."""
        return max(SPLIT // self.width**2, 1)

    def has(self, *, deep: bool) -> bool:
        """Whether a deep (or a cross) component is computed."""
        return any(component.deep == deep for component in self.components)


def fusion_plan(network: FusionNetwork, weights: Weights, scope: Scope, stored: Stored = "fp32") -> FusionPlan:
    """The plan of the only member of a discrete network.

    Raises:
        ValueError: for a supernet or several members.
    """
    candidate = network.candidates[0]
    if candidate.wiring is None:
        raise ValueError("an export needs a discrete wiring")
    components = computed(candidate.wiring)
    deep = any(component.deep for component in components)
    prunes_neurons = deep and candidate.sparsity > 0 and candidate.pruner_input == "both"
    shared = sizes(network, scope, _closed(network, weights, scope, prunes_neurons), stored)
    kept = {name for name, _ in shared["widths"]}
    widths = torch.tensor(network.embedding.widths)
    columns = torch.tensor([name in kept for name in network.embedding.names]).repeat_interleave(widths)
    folded = _folded(network, weights, components)
    found = fusion_layers(network, weights, scope, components, columns, folded)
    groups = found.groups()
    tasked = candidate.ticket_unit == "task" and weights.masks is not None and network.units > 1
    return FusionPlan(
        **shared,
        reads_domain=max(groups) > 0,
        components=components[:-1],
        output=components[-1],
        folded=folded,
        layers=found.layers,
        groups=groups,
        field_factors=found.field_factors,
        prunes_neurons=prunes_neurons,
        per_task=deep and tasked,
        steepness=alpha(weights.progress, candidate.sparsity_alpha),
    )


def _folded(network: FusionNetwork, weights: Weights, components: Sequence[Component]) -> frozenset[str]:
    """The nodes that only join, and behind which a linear map follows that is the same for all domains."""
    candidate = network.candidates[0]
    adapted = candidate.rank or candidate.rank_divisor or any(candidate.domain_ranks or ())
    own = adapted or weights.masks is not None or candidate.sparsity > 0
    output = components[-1]
    return frozenset(
        component.name
        for component in components
        if component.only_concat and (component is output or (component.deep and not own))
    )


def _closed(network: FusionNetwork, weights: Weights, scope: Scope, prunes_neurons: bool) -> list[Field]:
    """Fields that the input's pruner closes for every exported domain and that nothing else reads.

    Without a projection every field has its place in x0, and stays.
    """
    factors = field_factors(network, weights, scope)
    if factors is None or not network.projected:
        return []
    pairs = zip(network.embedding.names, (factors == 0).all(0).tolist(), strict=True)
    read = {name for name, is_closed in pairs if not is_closed}
    fields = scope.exported.fields
    closed = [field for field in fields if not read.intersection(part_names(field))]
    needed = {field.of for field in fields if isinstance(field, SnapshotField) and field not in closed}
    if prunes_neurons:
        needed.add(scope.exported.domain_field)
    closed = [field for field in closed if field.name not in needed]
    return closed if _embeds(fields, closed) else []


def _embeds(fields: Sequence[Field], closed: Sequence[Field]) -> bool:
    """Whether some embedded field is left."""
    return any(field.size and field not in closed for field in fields)
