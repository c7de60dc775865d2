"""Rows and positives per split and domain, counted while encoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from autoctr.data.dataset import SPLITS

UNKNOWN = "(unknown)"


class Counts:
    """``rows`` [splits, D + 1] and ``positives`` [splits, D + 1, tasks]; index D is the unknown domain."""

    def __init__(self, domains: int, tasks: int) -> None:
        self.rows = np.zeros((len(SPLITS), domains + 1), np.int64)
        self.positives = np.zeros((len(SPLITS), domains + 1, tasks), np.int64)
        self.dropped = 0

    def add(self, code: int, domain: npt.NDArray[np.int32], labels: npt.NDArray[np.float32]) -> None:
        """Count rows of split number ``code``."""
        size = self.rows.shape[1]
        self.rows[code] += np.bincount(domain, minlength=size)
        for task in range(labels.shape[1]):
            ones = np.bincount(domain, labels[:, task], minlength=size)
            self.positives[code, :, task] += ones.astype(np.int64)

    def rates(self) -> tuple[float, ...]:
        """Share of ones per task in the training split."""
        return tuple((self.positives[0].sum(axis=0) / max(int(self.rows[0].sum()), 1)).tolist())

    def info(self, domains: tuple[str, ...], tasks: tuple[str, ...]) -> dict[str, Any]:
        """JSON-ready: counts, rows that the split left out, and where a domain shows only one class."""
        single: dict[str, dict[str, list[str]]] = {task: {} for task in tasks}
        for place, task in enumerate(tasks):
            for code, split in enumerate(SPLITS):
                ones, rows = self.positives[code, :, place], self.rows[code]
                found = np.flatnonzero((rows > 0) & ((ones == 0) | (ones == rows)))
                if len(found):
                    single[task][split] = [[*domains, UNKNOWN][domain] for domain in found]
        counts = {
            split: {
                "rows": self.rows[code].tolist(),
                "positives": {task: self.positives[code, :, place].tolist() for place, task in enumerate(tasks)},
            }
            for code, split in enumerate(SPLITS)
        }
        return {"dropped_rows": self.dropped, "counts": counts, "single_class": single}
