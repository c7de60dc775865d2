"""Timing two things in turns, so that what else the machine does meets both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def seconds(steps: Mapping[str, Callable[[], object]], *, rounds: int = 30, warm: int = 5) -> dict[str, float]:
    """Median seconds of each step; every round runs all of them once, in their order."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(warm + rounds):
        for name, step in steps.items():
            wait()
            started = time.perf_counter()
            step()
            wait()
            if number >= warm:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


def wait() -> None:
    """Until the device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
