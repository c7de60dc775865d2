"""Exponential averages of the weights along training, exact also for embedding rows that a batch does not touch.

The average after t steps is (1 - d) Σ_s d^(t-s) w_s / (1 - d^t): without the start's bias, so that early averages are
plain means. A row outside the batch keeps its weights, so its average is caught up in closed form when it is next
needed, and a step touches only the rows of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Average:
    """Averages of dense [K, P] and table [V, K, E] with one decay per member; decay 0 is the last weights.

    Args:
        decays: [K], in [0, 1).
    """

    def __init__(self, flat: Tensor, table: Tensor, decays: Tensor) -> None:
        self.decays = decays
        self.flat, self.table = torch.zeros_like(flat), torch.zeros_like(table)
        self.seen = torch.zeros(len(table), dtype=torch.int64, device=table.device)
        self.steps = 0

    def step(self, flat: Tensor, rows: Tensor, before: Tensor, after: Tensor) -> None:
        """Take in one training step.

        Args:
            flat: dense weights after the step. rows: int [U], the touched rows, with their weights [U, K, E]
                ``before`` and ``after`` it.
        """
        self.steps += 1
        self.flat.lerp_(flat, (1 - self.decays)[:, None])
        average = self._caught_up(self.table[rows], before, self.steps - 1 - self.seen[rows])
        self.table.index_copy_(0, rows, average.lerp_(after, (1 - self.decays)[:, None]))
        self.seen[rows] = self.steps

    def _caught_up(self, average: Tensor, weights: Tensor, gap: Tensor) -> Tensor:
        faded = self.decays ** gap[:, None].to(self.decays.dtype)
        return torch.lerp(weights, average, faded[:, :, None])

    def read(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """The averages now: dense [K, P] and table [V, K, E], given the present ``table``."""
        unbiased = 1 / (1 - self.decays**self.steps)
        average = self._caught_up(self.table, table, self.steps - self.seen)
        return self.flat * unbiased[:, None], average * unbiased[:, None]
