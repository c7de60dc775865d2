"""One dense map per member and domain.

Rows come sorted by domain: one product per domain that the batch holds.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from autoctr.model.parameters import Layout, Views, uniform
from autoctr.model.segments import Segments


def declare_domain_linear(layout: Layout, name: str, domains: int, inputs: int, outputs: int) -> None:
    """Weight [D, inputs, outputs] and bias [D, outputs] of every member."""
    layout.add(f"{name}.weight", (domains, inputs, outputs), uniform(inputs), decayed=True)
    layout.add(f"{name}.bias", (domains, outputs), uniform(inputs))


def domain_linear(weights: Views, name: str, x: Tensor, segments: Segments) -> Tensor:
    """x W_d + b_d with each row's own domain d; rows of an unknown domain use the mean of all domains' weights.

    Args:
        x: [K, B, inputs], rows sorted by domain.

    Returns: [K, B, outputs].
    """
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return domain_products(x, weight, bias, segments, lambda: (weight.mean(1), bias.mean(1)))


def domain_products(
    x: Tensor, weight: Tensor, bias: Tensor, segments: Segments, unknown: Callable[[], tuple[Tensor, Tensor]]
) -> Tensor:
    """One product per domain that the batch holds.

    Args:
        x: [K, B, inputs], rows sorted by domain. weight: [K, D, inputs, outputs]. bias: [K, D, outputs].
        unknown: weight [K, inputs, outputs] and bias [K, outputs] for rows of an unknown domain.

    Returns: [K, B, outputs].
    """
    bounds = [*segments.bounds, x.shape[1]]
    # A split and an unbind are one kernel backward; slices would fill the whole gradient once per domain.
    *known, last = torch.split(x, [end - start for start, end in pairwise(bounds)], 1)
    maps = zip(known, weight.unbind(1), bias.unbind(1), strict=True)
    products = [torch.baddbmm(b[:, None], rows, w) for rows, w, b in maps if rows.shape[1]]
    if last.shape[1] or not products:
        w, b = unknown()
        products.append(torch.baddbmm(b[:, None], last, w))
    return torch.cat(products, 1) if len(products) > 1 else products[0]
