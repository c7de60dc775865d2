"""Which embedding rows a batch touches, each once, found without sorting."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Touched:
    """The embedding rows of a batch.

    Attributes:
        rows: their numbers, int64 [U].
        positions: where each id of the batch lies among them, of the ids' shape.
        place: where ``rows`` are filled up with repetitions of the last one, the place [U] at which each of them
            stands first: what is computed there holds for its repetitions. None = every row stands once.
    """

    rows: Tensor
    positions: Tensor
    place: Tensor | None = None


class RowFinder:
    """Finds the distinct rows of batch after batch.

    Every id leaves its number in the batch as a mark on its row, and the id whose mark is still there stands for all
    its equals: a few passes over the ids, whatever the size of the vocabulary.

    Args:
        vocabulary: V, rows of the table.
        padded: fill the rows up to as many as there are ids. How many are distinct is then never asked for, and to
            ask a GPU costs a wait for all that it has still to do.
    """

    def __init__(self, vocabulary: int, device: torch.device, *, padded: bool) -> None:
        self.padded = padded
        self._marks = torch.zeros(vocabulary, dtype=torch.int32, device=device)

    def find(self, ids: Tensor) -> Touched:
        """The rows of ``ids``, which are of any shape."""
        flat = ids.reshape(-1)
        numbers = torch.arange(len(flat), dtype=torch.int32, device=flat.device)
        self._marks[flat] = numbers
        last = self._marks[flat]
        leads = last == numbers
        place = leads.cumsum(0, dtype=torch.int32) - 1
        positions = place[last].view(ids.shape)
        if not self.padded or not len(flat):
            return Touched(flat[leads].long(), positions)
        beyond = torch.where(leads, place, len(flat)).long()  # one more place takes the ids that do not lead
        rows = torch.zeros(len(flat) + 1, dtype=torch.int64, device=flat.device).scatter_(0, beyond, flat.long())
        first = torch.minimum(numbers, place[-1]).long()
        return Touched(rows[first], positions, first)
