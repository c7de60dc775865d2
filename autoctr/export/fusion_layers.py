"""The maps of a fusion network's projection, deep components and concatenations, as each domain needs them.

A deep component is π_d ⊙ relu(norm(f (m_d ⊙ W) + b + f A_d B_d + b_d)). Normalisation by fixed statistics and a factor
π_d > 0 that depends on the domain alone are linear, and become part of the weights. So does the map of a concatenation
that nothing but another linear map reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autoctr.export.product import Layer, Product, adapted, compact, is_worthwhile
from autoctr.export.scope import Scope
from autoctr.export.state import Named, dense_weights
from autoctr.export.wiring import Component
from autoctr.export.zeros import known_zeros
from autoctr.model import sparsity
from autoctr.model.candidate import ranks
from autoctr.model.fusion import FusionNetwork
from autoctr.model.norm import EPSILON
from autoctr.training.cohort import Weights


@dataclasses.dataclass(frozen=True)
class FusionLayers:
    """Everything that may differ between domains.

    ``layers`` holds ``projection``, ``d1``, ``o_concat``, ... once, or once per task where tasks have tickets.
    ``field_factors`` [domains + 1, numbers of all fields] multiply the fields; None = 1.
    """

    layers: dict[str, tuple[Layer, ...]]
    field_factors: Tensor | None

    def groups(self) -> tuple[int, ...]:
        """A number for every domain, then for unknown ones; equal where nothing differs."""
        every = [layer for layers in self.layers.values() for layer in layers]
        if self.field_factors is not None:
            every.append(Layer((), (0,) * len(self.field_factors), self.field_factors))
        numbers: dict[Any, int] = {}
        kinds = [tuple(layer.kind(domain) for layer in every) for domain in range(len(every[0].of))] if every else [()]
        return tuple(numbers.setdefault(kind, len(numbers)) for kind in kinds)


def field_factors(network: FusionNetwork, weights: Weights, scope: Scope) -> Tensor | None:
    """π of every field for the exported domains, then unknown ones: [domains + 1, fields]; None without pruner."""
    return _Maker(network, weights, scope).factors("x0") if network.prunes_input else None


def fusion_layers(
    network: FusionNetwork,
    weights: Weights,
    scope: Scope,
    components: Sequence[Component],
    columns: Tensor,
    folded: Collection[str] = (),
) -> FusionLayers:
    """The maps, in float64.

    Args:
        components: all nodes, the output last.
        folded: names of those whose concatenation has no map of its own.
        columns: bool [numbers of all fields], those that some domain reads.
    """
    maker = _Maker(network, weights, scope, folded)
    layers: dict[str, tuple[Layer, ...]] = {}
    projection, factors, zeros = maker.inputs(columns)
    if projection is not None:
        layers["projection"] = (projection,)
    found = [maker.body(components, zeros, unit) for unit in range(maker.passes)]
    for name in found[0]:
        several = tuple(layers[name] for layers in found)
        same = len({(layer.of, tuple(product.key for product in layer.products)) for layer in several}) == 1
        layers[name] = several[:1] if same else several
    return FusionLayers(layers, factors)


class _Maker:
    """Makes the maps of one network's only member."""

    def __init__(self, network: FusionNetwork, weights: Weights, scope: Scope, folded: Collection[str] = ()) -> None:
        self.network, self.weights, self.scope, self.folded = network, weights, scope, folded
        self.candidate, self.width = network.candidates[0], network.width
        self.dense = {name: view.detach().cpu() for name, view in dense_weights(network, weights).items()}
        self.domains = len(scope.numbers) + 1
        known = ranks(self.candidate, network.statistics.domain_rows)
        self.ranks = [*(known[number] for number in scope.numbers), 0]
        tickets = {} if weights.masks is None else network.maskable.views(weights.masks[0].cpu() > 0)
        self.tickets: Mapping[str, Tensor] = tickets
        per_task = bool(tickets) and self.candidate.ticket_unit == "task" and network.units > 1
        self.passes = network.units if per_task else 1
        self.per_domain = bool(tickets) and self.candidate.ticket_unit == "domain" and network.units > 1
        self.static = self.candidate.sparsity > 0 and self.candidate.pruner_input == "domain"

    def double(self, name: str) -> Tensor:
        """A dense weight of the searched network."""
        return self.dense[name].double()

    def factors(self, name: str) -> Tensor:
        """π of a pruner that reads the domain alone: [domains + 1, neurons or fields].

        Which are 0 is decided in float32, as the searched network does.
        """
        pruners, candidate, progress = self.network.pruners, self.candidate, self.weights.progress
        assert pruners is not None
        form, ids = candidate.sparsity_form, torch.tensor(self.scope.domain_ids)
        embedded = self.weights.table[ids.to(self.weights.table.device), 0].cpu()
        weight, bias = self.dense[f"{name}.pruner.domain"], self.dense[f"{name}.pruner.bias"]
        is_open = pruners.factors(torch.addmm(bias, embedded, weight)[None].to(pruners.beta), progress)[0].cpu() > 0
        v = torch.addmm(bias.double(), embedded.double(), weight.double())
        if form == "scaling":
            return candidate.sparsity_beta * v.sigmoid()
        if form == "binarization":
            return is_open.double()
        steepness: float = sparsity.alpha(progress, candidate.sparsity_alpha)
        return candidate.sparsity_beta * (steepness * v).sigmoid() * is_open

    def inputs(self, columns: Tensor) -> tuple[Layer | None, Tensor | None, list[Tensor]]:
        """The projection, the factors of the fields before it, and which neurons of x0 are 0 in each domain."""
        network, factors = self.network, None
        if network.prunes_input:
            factors = self.factors("x0")[:, network.field_of.cpu()][:, columns]
        if not network.projected:
            nothing = torch.zeros(self.width, dtype=torch.bool)
            zeros = [nothing] * self.domains if factors is None else [row == 0 for row in factors]
            return None, None if factors is None or bool((factors == 1).all()) else factors, zeros
        weight, bias = self.double("projection.weight").T[:, columns], self.double("projection.bias")
        whole = compact(weight, bias, torch.zeros(weight.shape[1], dtype=torch.bool))
        zeros = [torch.zeros(self.width, dtype=torch.bool)] * self.domains
        if factors is None:
            return Layer.joining([whole] * self.domains), None, zeros
        products, closing = [], torch.ones_like(factors)
        for domain, factor in enumerate(factors.clone()):
            own = is_worthwhile(factor == 0)
            products.append(compact(weight * factor, bias, factor == 0) if own else whole)
            if own:
                closing[domain], factors[domain] = factor, 1.0
        layer = Layer.joining(products, None, whole, closing)
        return layer, None if bool((factors == 1).all()) else factors, zeros

    def body(self, components: Sequence[Component], first: Sequence[Tensor], unit: int) -> dict[str, Layer]:
        """The layers of all components for one task, or for all."""
        deeps = [component for component in components if component.deep]
        concat = [part for part in components if part.concat is not None and part.name not in self.folded]
        maps: dict[str, _Deep | _Concat] = {part.name: _Deep(self, part, n, unit) for n, part in enumerate(deeps)}
        maps |= {f"{component.name}_concat": _Concat(self, component) for component in concat}
        for domain in range(self.domains):

            def deep(name: str, given: Tensor, domain: int = domain) -> Tensor:
                return maps[name].add(domain, given)

            zeros = known_zeros(components[:-1], first[domain], deep)
            for component in concat:
                assert component.concat is not None
                given = torch.cat([zeros[source] for source in component.concat.sources])
                maps[f"{component.name}_concat"].add(domain, given)
        return {name: made.layer() for name, made in maps.items()}


def concat_map(dense: Named, component: Component) -> tuple[Tensor, Tensor]:
    """The map of a node's concatenation, in float64: [neurons, inputs] and [neurons]."""
    node, part = component.name.upper(), component.concat
    assert part is not None
    blocks = [dense[f"{node}.concat.{source.upper()}.weight"].detach().cpu().double() for source in part.sources]
    return torch.cat(blocks).T, dense[f"{node}.concat.bias"].detach().cpu().double()


class _Concat:
    """The linear map of a concatenation."""

    def __init__(self, maker: _Maker, component: Component) -> None:
        self.weight, self.bias = concat_map(maker.dense, component)
        self.whole = compact(self.weight, self.bias, torch.zeros(self.weight.shape[1], dtype=torch.bool))
        self.products: list[Product] = []

    def add(self, domain: int, zeros: Tensor) -> Tensor:
        """Make the next domain's product, of which some inputs are 0; none of its outputs is."""
        self.products.append(compact(self.weight, self.bias, zeros))
        return torch.zeros(len(self.bias), dtype=torch.bool)

    def layer(self) -> Layer:
        """That of all domains."""
        return Layer.joining(self.products, None, self.whole)


class _Deep:
    """One deep component, the ``place``-th of them."""

    def __init__(self, maker: _Maker, component: Component, place: int, unit: int) -> None:
        self.maker, self.node, width = maker, component.name.upper(), maker.width
        self.scale, self.shift = torch.ones(width).double(), torch.zeros(width).double()
        if maker.network.norm is not None:
            running = maker.weights.running[0, 2 * width * place : 2 * width * (place + 1)].cpu().double()
            mean, variance = running.chunk(2)
            self.scale = maker.double(f"{self.node}.norm.scale") * torch.rsqrt(variance + EPSILON)
            self.shift = maker.double(f"{self.node}.norm.shift") - mean * self.scale
        shared = maker.double(f"{self.node}.weight")
        tickets = maker.tickets.get(f"{self.node}.weight")
        if tickets is not None and not maker.per_domain:
            shared = shared * tickets[unit]
        self.weight, self.masks = shared, tickets if maker.per_domain else None
        biased = maker.network.norm is None
        self.bias = maker.double(f"{self.node}.bias") if biased else torch.zeros(width).double()
        ones = torch.ones(maker.domains, width).double()
        self.pi = maker.factors(self.node) if maker.static else ones
        self.factors, self.closing = ones.clone(), ones.clone()
        self.is_folded = component.name in maker.folded
        if self.is_folded:
            joined, shift = concat_map(maker.dense, component)
            self.weight, self.bias = joined.T @ self.weight, self.bias + shift @ self.weight
        self.products: list[Product] = []
        weight, bias = self.weight.T * self.scale[:, None], self.bias * self.scale + self.shift
        self.whole = compact(weight, bias, torch.zeros(len(self.weight), dtype=torch.bool))

    def add(self, domain: int, zeros: Tensor) -> Tensor:
        """Make the next domain's product.

        Args:
            zeros: bool [inputs], those of the fused input that are always 0.

        Returns: bool [outputs], those that are always 0 behind the relu.
        """
        maker, factor = self.maker, self.pi[domain]
        weight, bias, rank = self.weight, self.bias, maker.ranks[domain]
        if self.is_folded:  # none of the joined inputs is always 0
            zeros = torch.zeros(len(weight), dtype=torch.bool)
        if self.masks is not None:
            last = domain == maker.domains - 1
            weight = weight * (self.masks.any(0) if last else self.masks[maker.scope.numbers[domain]])
        adapter = None
        if rank:
            number = maker.scope.numbers[domain]
            a, b, shift = (maker.double(f"{self.node}.lora.{part}")[number] for part in ("A", "B", "bias"))
            adapter, bias = (a[:, :rank].T, b[:rank].T * self.scale[:, None]), bias + shift
        weight, bias = weight.T * self.scale[:, None], bias * self.scale + self.shift
        closed = factor == 0
        own = self.masks is not None or adapter is not None or is_worthwhile(closed) or is_worthwhile(zeros)
        constant = (weight[:, ~zeros] == 0).all(1)
        if adapter is not None:
            constant &= (adapter[1] == 0).all(1)
        always = closed | (constant & (bias <= 0))
        if not own:
            self.products.append(self.whole)
            self.factors[domain] = factor
            return always
        self.closing[domain] = factor
        # a factor above 0 may stand before the relu, and constants may be as the relu makes them
        weight, bias = weight * factor[:, None], bias * factor
        bias = torch.where(constant | closed, bias.clamp(min=0), bias)
        if adapter is None:
            self.products.append(compact(weight, bias, zeros))
        else:
            self.products.append(adapted(weight, bias, zeros, adapter[0], adapter[1] * factor[:, None]))
        return always

    def layer(self) -> Layer:
        """That of all domains."""
        alike = self.masks is None and not any(self.maker.ranks)
        return Layer.joining(self.products, self.factors, self.whole if alike else None, self.closing)
