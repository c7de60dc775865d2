"""Which neurons of a fusion network are known to be 0 before any row is seen: what pruners closed, passed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from autoctr.export.wiring import Component, Part

DeepZeros = Callable[[str, Tensor], Tensor]


def known_zeros(components: Sequence[Component], first: Tensor, deep: DeepZeros) -> dict[str, Tensor]:
    """The neurons of every node that are 0 in every row, bool [neurons] by the nodes' names.

    A cross adds its input to a product with E or to a bias, and counts as open.

    Args:
        components: in the order of computing.
        first: of E.
        deep: those of a deep component, from its name and those of its fused input.
    """
    zeros = {"e": first}
    for component in components:
        fused = fused_zeros(component, zeros)
        zeros[component.name] = deep(component.name, fused) if component.deep else torch.zeros_like(first)
    return zeros


def fused_zeros(component: Component, zeros: Mapping[str, Tensor]) -> Tensor:
    """The neurons of a node's fused input that are 0 in every row: those of every operator in its mixture."""
    if not component.parts:
        return zeros["e"]
    return torch.stack([_part(part, zeros) for part in component.parts]).all(0)


def _part(part: Part, zeros: Mapping[str, Tensor]) -> Tensor:
    """A product is 0 where any input is, a sum (weighted by attention or not) where all are, a linear map nowhere."""
    given = torch.stack([zeros[source] for source in part.sources])
    if part.operator == "product":
        return given.any(0)
    if part.operator == "concat":
        return torch.zeros_like(given[0])
    return given.all(0)
