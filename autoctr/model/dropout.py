"""Dropout whose mask is a function of (member's seed, step, place, row, neuron): no member sees another's draws.

A counter-based hash replaces a generator per member, so that a cohort needs no loop over members and a resumed fit
continues with the same masks.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MULTIPLIERS = (0x7FEB352D, 0x2C1B3C6D, 0x297A2D39)


def _wrapped(value: int) -> int:
    """The int32 with the same low 32 bits."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def _mix(x: Tensor) -> Tensor:
    """A bijective hash of int32 numbers (xor-shift, multiply), wrapping on overflow."""
    x = x ^ (x >> 16)
    x = x * _MULTIPLIERS[0]
    x = x ^ (x >> 15)
    x = x * _MULTIPLIERS[1]
    return x ^ (x >> 16)


def dropout(x: Tensor, rates: Tensor, seeds: Tensor, step: int, place: int, first: int = 0) -> Tensor:
    """Zero a share ``rates`` of the numbers of every member and scale the others by 1 / (1 - rate).

    Args:
        x: [K, B, H].
        rates: [K], in [0, 1).
        seeds: int32 [K].
        step: of the member's training.
        place: which dropout of the network this is.
        first: number of the first row in the whole batch, of which other processes may have the rest.

    Returns: [K, B, H].
    """
    rows, width = x.shape[1:]
    device = x.device
    key = _mix(_mix(seeds + _wrapped(step * 0x9E3779B1)) + _wrapped(place * 0x85EBCA77))
    row = _mix(torch.arange(first, first + rows, dtype=torch.int32, device=device) + key[:, None])
    column = _mix(torch.arange(width, dtype=torch.int32, device=device) * _wrapped(0xC2B2AE3D) + _mix(key + 1)[:, None])
    draws = row[:, :, None] ^ column[:, None, :]
    draws.mul_(_MULTIPLIERS[2])
    draws.bitwise_xor_(draws >> 15).mul_(_MULTIPLIERS[0])
    threshold = (rates.double() * 2.0**32 - 2.0**31).clamp(-(2.0**31), 2.0**31 - 1).to(torch.int32)
    scale = (1 / (1 - rates))[:, None, None].to(x.dtype)
    # one factor per number, so that either pass of the training multiplies once
    return x * torch.where(draws >= threshold[:, None, None], scale, torch.zeros_like(scale))
