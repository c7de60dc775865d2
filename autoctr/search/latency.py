"""How long a trained network takes to score rows, on the device where it is."""

from __future__ import annotations

import statistics
import time

import torch

from autoctr.training.cohort import Cohort
from autoctr.training.rows import ResidentRows

ROWS = 1024
WARM_PASSES, TIMED_PASSES = 3, 9


def milliseconds(cohort: Cohort, rows: ResidentRows) -> float:
    """Milliseconds per 1,024 rows, embedding look-up included: the median of 9 passes over as many of ``rows``.

    The network is the one that scores, in float32, which computes what a pruner closes, too. Noisy on a machine that
    does other things as well.
    """
    weights, device, taken = cohort.weights(), cohort.network.device, []
    _, batch = next(rows.head(ROWS).chunks(ROWS))
    with torch.inference_mode():
        for _ in range(WARM_PASSES + TIMED_PASSES):
            _wait(device)
            started = time.perf_counter()
            cohort.evaluated(batch, weights)
            _wait(device)
            taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken[WARM_PASSES:]) * ROWS / len(batch)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
