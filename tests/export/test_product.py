"""Compact maps against the whole ones, and which form is chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from autoctr.export.product import WORTHWHILE, Layer, Product, adapted, compact

INPUTS, OUTPUTS = 8, 12
NOTHING = torch.zeros(INPUTS, dtype=torch.bool)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def applied(product: Product, x: Tensor) -> Tensor:
    """What a generated model computes."""
    read = x if product.reads is None else x[:, product.reads]
    h = functional.linear(read, product.weight, product.bias)
    if product.constants is not None:
        h = torch.cat([h, product.constants.expand(len(x), -1)], 1)
    if product.places is not None:
        h = h[:, product.places]
    if product.down is None:
        return h
    assert product.up is not None
    return h + x @ product.down.T @ product.up.T


@pytest.mark.parametrize("closed_inputs", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("closed_outputs", [0, 2, 3, 11, 12])
def test_the_same_numbers_from_less(closed_inputs: int, closed_outputs: int) -> None:
    weight, bias, x = draw(OUTPUTS, INPUTS), draw(OUTPUTS, seed=1), draw(5, INPUTS, seed=2)
    zeros = NOTHING.clone()
    zeros[torch.randperm(INPUTS, generator=torch.Generator().manual_seed(3))[:closed_inputs]] = True
    x[:, zeros] = 0
    weight[:closed_outputs] = 0
    if closed_outputs == OUTPUTS:
        closed_inputs = INPUTS  # nothing is worth reading
    product = compact(weight, bias, zeros)
    torch.testing.assert_close(applied(product, x), x @ weight.T + bias, rtol=0, atol=1e-12)
    assert (product.reads is not None) == (closed_inputs >= WORTHWHILE * INPUTS)
    assert (product.places is not None) == (closed_outputs >= WORTHWHILE * OUTPUTS or closed_inputs == INPUTS)
    read = INPUTS if product.reads is None else max(INPUTS - closed_inputs, 1)
    computed = OUTPUTS if product.places is None else max(OUTPUTS - closed_outputs, 1)
    computed += product.places is not None and product.constants is None
    if closed_inputs < INPUTS:
        assert product.multiply_adds == read * computed


def test_empty_rows_of_a_ticket_are_not_read() -> None:
    weight = draw(OUTPUTS, INPUTS)
    weight[:, [1, 4, 6]] = 0
    product = compact(weight, draw(OUTPUTS), NOTHING)
    assert product.reads is not None
    assert product.reads.tolist() == [0, 2, 3, 5, 7]
    assert product.multiply_adds == OUTPUTS * 5


def test_equal_constants_are_kept_once() -> None:
    weight, bias = draw(OUTPUTS, INPUTS), draw(OUTPUTS)
    weight[2:8], bias[2:7], bias[7] = 0, 0.5, -1
    product = compact(weight, bias, NOTHING)
    assert product.constants is not None
    assert product.constants.tolist() == [-1, 0.5]


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("kept", [2, 4, 8])
def test_an_adapter_is_merged_or_kept_by_its_cost(rank: int, kept: int) -> None:
    weight, bias, down, up = draw(OUTPUTS, INPUTS), draw(OUTPUTS), draw(rank, INPUTS, seed=1), draw(OUTPUTS, rank)
    weight[:, kept:] = 0
    product = adapted(weight, bias, NOTHING, down, up)
    merged, beside = OUTPUTS * INPUTS, OUTPUTS * kept + rank * (OUTPUTS + INPUTS)
    assert product.multiply_adds == min(merged, beside)
    assert (product.down is None) == (merged <= beside)
    x = draw(5, INPUTS, seed=2)
    torch.testing.assert_close(applied(product, x), x @ (weight + up @ down).T + bias, rtol=0, atol=1e-12)


def test_equal_maps_are_kept_once() -> None:
    one, other = (compact(draw(3, 3, seed=seed), draw(3), NOTHING[:3]) for seed in (1, 2))
    layer = Layer.joining([one, other, one, other], torch.ones(4, 3))
    assert (len(layer.products), layer.of, layer.factors) == (2, (0, 1, 0, 1), None)
    assert layer.product(3) is layer.products[1]
    factors = torch.ones(4, 3)
    factors[2, 0] = 0.5
    layer = Layer.joining([one] * 4, factors)
    assert layer.is_shared
    assert len({layer.kind(domain) for domain in range(4)}) == 2
