"""How many candidates a device trains best together."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from autoctr.model.architecture import FIXED
from autoctr.model.candidate import Candidate
from autoctr.search.trial import Laboratory
from autoctr.training.cohort import Cohort

LARGEST = 64
LEAST_GAIN = 1.15
MEMORY_SHARE = 0.4
WARM_STEPS, TIMED_STEPS = 5, 20


def measured_size(laboratory: Laboratory, candidate: Candidate) -> int:
    """The size of a cohort from which twice as many members no longer train at least 1.15 times faster together.

    Measured on an accelerator with copies of ``candidate``'s plain network, the one that trains longest. A cohort may
    take two fifths of the memory, which leaves room for best weights and for closing up. On a CPU the answer is 1:
    there a cohort does no less work per member than a candidate alone (8 of them trained 1.2 times as fast together on
    two cores), and all of its members end together when time does.
    """
    if laboratory.device.type == "cpu":
        return 1
    plain = candidate.replace(architecture="parallel", wiring=FIXED["parallel"](candidate.blocks), snapshots=0)
    return largest_worthwhile(lambda size: _rate(laboratory, plain, size))


def largest_worthwhile(rate: Callable[[int], float]) -> int:
    """Double the size as long as ``rate(size)``, in members' rows per second, grows; 0 stands for out of memory."""
    size, before = 1, rate(1)
    while size < LARGEST:
        now = rate(2 * size)
        if now <= LEAST_GAIN * before:
            break
        size, before = 2 * size, now
    return size


def _rate(laboratory: Laboratory, candidate: Candidate, size: int) -> float:
    device = laboratory.device
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.reset_peak_memory_stats(device)
    try:
        members = [candidate.replace(seed=seed) for seed in range(size)]
        cohort = Cohort.on(laboratory.dataset, members, device=device)
        batches = laboratory.splits.train.batches(0, 0, candidate.batch)
        started = rows = 0.0
        for number, batch in enumerate(batches):
            if number == WARM_STEPS:
                torch.cuda.synchronize(device)
                started, rows = time.monotonic(), 0.0
            cohort.step(batch)
            rows += len(batch)
            if number >= WARM_STEPS + TIMED_STEPS:
                break
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        return 0.0
    if torch.cuda.max_memory_allocated(device) > MEMORY_SHARE * total:
        return 0.0
    return size * rows / max(time.monotonic() - started, 1e-9) if started else float(size)
