"""A bounded sample of a stream of numbers, the same however the stream is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from autoctr.data.hashing import words

SIZE = 1 << 18


class Sample:
    """Keeps up to ``size`` numbers: all of them, or those whose place in the stream hashes lowest."""

    def __init__(self, size: int = SIZE) -> None:
        self._size, self._seen = size, 0
        self._values: list[npt.NDArray[Any]] = []
        self._ranks: list[npt.NDArray[np.uint64]] = []
        self._held, self._limit = 0, np.uint64(2**64 - 1)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Next numbers of the stream."""
        ranks = words(0, "sample", np.arange(self._seen, self._seen + len(values)))
        self._seen += len(values)
        low = ranks <= self._limit
        self._values.append(values[low])
        self._ranks.append(ranks[low])
        self._held += int(low.sum())
        if self._held > 2 * self._size:
            self._shrink()

    def sorted(self) -> npt.NDArray[Any]:
        """The sample in ascending order."""
        self._shrink()
        return np.sort(self._values[0])

    def _shrink(self) -> None:
        values = np.concatenate([np.empty(0), *self._values]) if not self._values else np.concatenate(self._values)
        ranks = np.concatenate([np.empty(0, np.uint64), *self._ranks])
        if len(values) > self._size:
            kept = np.argpartition(ranks, self._size - 1)[: self._size]
            values, ranks = values[kept], ranks[kept]
            self._limit = ranks.max()
        self._values, self._ranks, self._held = [values], [ranks], len(values)
