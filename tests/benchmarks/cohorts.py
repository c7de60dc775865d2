"""K candidates in one program beside the same candidates one after another, with the error of parity beside each K."""

from __future__ import annotations

import argparse

import torch
from rows import batch, statistics
from timing import seconds

from autoctr.model.architecture import parallel
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort

ROWS, IDS, STEPS = 4096, 20_000, 20
PLAIN = Candidate(embedding=16, width=128, blocks=2, wiring=parallel(2), cross="matrix", batch=ROWS)


def cohorts(arguments: argparse.Namespace) -> None:
    """One line per K: the ratio of members' rows per second, and the largest difference of a weight after 20 steps."""
    known = statistics(IDS)
    rows = batch(known, ROWS, 0, arguments.device)
    for size in (1, 2, 4, 8) if arguments.device == "cpu" else (1, 2, 4, 8, 16, 32, 64):
        members = [
            PLAIN.replace(seed=k, learning_rate=1e-3 * (1 + k / size), precision=arguments.precision)
            for k in range(size)
        ]
        together = Cohort(known, members, {}, ramp=1, device=arguments.device)
        alone = [Cohort(known, [member], {}, ramp=1, device=arguments.device) for member in members]
        taken = seconds(
            {"together": lambda c=together: c.step(rows), "alone": lambda c=alone: [own.step(rows) for own in c]},
            rounds=STEPS - 5,
        )
        error = max(float((together.flat[k] - own.flat[0]).abs().max()) for k, own in enumerate(alone))
        print(
            f"cohort of {size}: {size * ROWS / taken['together']:,.0f} members' rows/s, one after another "
            f"{size * ROWS / taken['alone']:,.0f}: {taken['alone'] / taken['together']:.2f}x; largest difference of a "
            f"weight after {STEPS} steps {error:.1e}"
        )
        if arguments.device != "cpu":
            print(f"  memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")
