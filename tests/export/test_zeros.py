"""Which neurons are known to be 0, worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from autoctr.export.wiring import Component, Part
from autoctr.export.zeros import fused_zeros, known_zeros


def flags(text: str) -> Tensor:
    return torch.tensor([mark == "0" for mark in text])


ZEROS = {"e": flags("...."), "d1": flags("00.."), "d2": flags("0.0.")}


def fused(*parts: Part) -> str:
    found = fused_zeros(Component("d3", parts), ZEROS)
    return "".join("0" if zero else "." for zero in found.tolist())


def test_operators() -> None:
    both = ("d1", "d2")
    assert fused(Part("add", 1.0, both)) == "0..."
    assert fused(Part("attention", 1.0, both)) == "0..."
    assert fused(Part("product", 1.0, both)) == "000."
    assert fused(Part("concat", 1.0, both)) == "...."
    for operator in ("add", "product", "attention"):
        assert fused(Part(operator, 1.0, ("d1",))) == "00.."
        assert fused(Part(operator, 1.0, ("e",))) == "...."


def test_a_mixture_is_0_where_every_part_is() -> None:
    assert fused(Part("product", 0.5, ("d1", "d2")), Part("add", 0.5, ("d1",))) == "00.."
    assert fused(Part("product", 0.5, ("d1", "d2")), Part("concat", 0.5, ("d1",))) == "...."


def test_zeros_travel_through_deep_components_and_stop_at_crosses() -> None:
    components = [
        Component("c0", ()),
        Component("d1", (Part("add", 1.0, ("e",)),)),
        Component("c1", (Part("add", 1.0, ("d1",)),)),
        Component("d2", (Part("product", 1.0, ("d1", "c1")),)),
    ]
    given: dict[str, str] = {}

    def deep(name: str, zeros: Tensor) -> Tensor:
        given[name] = "".join("0" if zero else "." for zero in zeros.tolist())
        return flags("0..") if name == "d1" else flags("..0")

    found = known_zeros(components, flags(".0."), deep)
    assert given == {"d1": ".0.", "d2": "0.."}
    marks = {name: "".join("0" if zero else "." for zero in zeros.tolist()) for name, zeros in found.items()}
    assert marks == {"e": ".0.", "c0": "...", "d1": "0..", "c1": "...", "d2": "..0"}
