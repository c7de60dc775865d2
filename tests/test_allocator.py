"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from autoctr.allocator import keep_freed_memory
if {keeps}:
    keep_freed_memory()
counts = []
for number in range(40):
    torch.ones(1 << 24)
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(counts[-1] - counts[-10])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_what_is_freed_is_used_again() -> None:
    def faults(keeps: bool) -> int:
        program = PROGRAM.format(keeps=keeps)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults(True) * 20 < faults(False)
