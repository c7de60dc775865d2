"""How the C library gives memory back."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST, LARGEST_BEFORE_2_35 = (1 << 31) - 1, 1 << 25


def keep_freed_memory() -> None:
    """Let this process keep up to 2 GiB that it frees, for what it allocates next; without effect outside glibc.

    By default glibc returns large blocks at once. A training step on a CPU then gets its activations as new pages step
    after step, and the zeroing of those pages took a sixth of a supernet's time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    # To set one alone would fix the other at its small default, so that every tensor became a mapping of its own.
    if mallopt(MMAP_THRESHOLD, LARGEST) or mallopt(MMAP_THRESHOLD, LARGEST_BEFORE_2_35):
        mallopt(TRIM_THRESHOLD, LARGEST)
