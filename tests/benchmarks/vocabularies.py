"""Seconds of a step at 2 million ids against 20 thousand: an embedding update that touches the batch's rows only."""

from __future__ import annotations

import argparse

from rows import batch, statistics
from timing import seconds

from autoctr.model.architecture import parallel
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort

ROWS = 4096
PLAIN = Candidate(embedding=16, width=128, blocks=2, wiring=parallel(2), cross="matrix", batch=ROWS)


def vocabularies(arguments: argparse.Namespace) -> None:
    """Fresh batches in every step, so that the rows are not in the caches."""
    steps = {}
    for name, ids in (("few", 20_000), ("many", 2_000_000)):
        known = statistics(ids)
        cohort = Cohort(known, [PLAIN], {}, ramp=1, device=arguments.device)
        batches = iter([batch(known, ROWS, seed, arguments.device) for seed in range(60)])
        steps[name] = lambda cohort=cohort, batches=batches: cohort.step(next(batches))
    taken = seconds(steps)
    few, many = 1000 * taken["few"], 1000 * taken["many"]
    print(f"one step of {ROWS} rows: {many:.1f} ms at 2,000,000 ids, {few:.1f} ms at 20,000: {many / few:.2f}x")
