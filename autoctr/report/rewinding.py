"""The rewinding study as a table, for terminals."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoctr.search.rewinding import Rewinding
    from autoctr.training.intervals import Interval


def rewinding_text(result: Rewinding) -> str:
    """A table: one line per k, and the finding for the best k."""
    dense = statistics.fmean(result.dense)
    head = f"{'k (passes)':>10} {'ticket':>9} {'fresh':>9} {'difference':>20} {'barrier':>9} {'overlap':>8}"
    lines = [f"test {result.metric}; the dense network has {dense:.5f}", head]
    for passes in result.rewinds:
        runs = result.at(passes)
        gain = result.gain(passes)
        barriers = [run.barrier for run in runs if run.barrier is not None]
        overlaps = [run.overlap for run in runs if run.overlap is not None]
        lines.append(
            f"{passes:10g} {statistics.fmean(run.ticket_test for run in runs):9.5f} "
            f"{statistics.fmean(run.fresh_test for run in runs):9.5f} {_signed(gain):>20} "
            f"{format(statistics.fmean(barriers), '.5f') if barriers else '-':>9} "
            f"{format(statistics.fmean(overlaps), '.3f') if overlaps else '-':>8}"
        )
    best = result.best
    kept = statistics.fmean(run.kept for run in result.runs)
    lines.append(
        f"best k by validation: {best:g} passes; at keep rate {kept:.2f} its tickets differ from the same masks on "
        f"fresh weights by {_signed(result.gain(best))} over {len(result.at(best))} seeds"
    )
    return "\n".join(lines)


def _signed(interval: Interval) -> str:
    if interval.half is None:
        return f"{interval.mean:+.5f}"
    return f"{interval.mean:+.5f} ± {interval.half:.5f}"
