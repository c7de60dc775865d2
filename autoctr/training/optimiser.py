"""Adam for a cohort: one learning rate per member, and for embeddings only the rows of the batch.

Update rule of the embedding rows: first and second moments, weights and L2 of rows outside the batch stay frozen,
while the bias correction counts the steps of the whole training (the rule known as lazy Adam). A step then costs the
same whatever the size of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autoctr.training.touched import Touched

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def _move(first: Tensor, second: Tensor, gradient: Tensor, rate: Tensor, step: int) -> Tensor:
    """Update both moments in place and return the step to subtract."""
    first.lerp_(gradient, 1 - BETA1)
    second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    scale = (second / (1 - BETA2**step)).sqrt_().add_(EPSILON)
    return torch.div(first, scale, out=scale).mul_(rate / (1 - BETA1**step))


class DenseAdam:
    """Adam with decoupled weight decay (arXiv 1711.05101) on ``flat`` [K, P], in place.

    Args:
        rates: [K, 1] or [K, P]. decays: [K, 1]. decayed: [P], 1 where decay applies.
    """

    def __init__(self, flat: Tensor, rates: Tensor, decays: Tensor, decayed: Tensor) -> None:
        self.first, self.second = torch.zeros_like(flat), torch.zeros_like(flat)
        self.rates = rates
        self.shrink = rates * decays * decayed if bool((decays > 0).any()) else None

    def step(self, flat: Tensor, gradient: Tensor, step: int, movable: Tensor | None = None) -> None:
        """One update; ``step`` counts from 1. Weights and moments stay where ``movable`` [K, P] is False."""
        if movable is None:
            if self.shrink is not None:
                flat.addcmul_(flat, self.shrink, value=-1)
            flat.sub_(_move(self.first, self.second, gradient, self.rates, step))
            return
        first, second = self.first.clone(), self.second.clone()
        moved = flat if self.shrink is None else flat - flat * self.shrink
        moved = moved - _move(first, second, gradient, self.rates, step)
        for mine, new in ((flat, moved), (self.first, first), (self.second, second)):
            mine.copy_(torch.where(movable, new, mine))


class RowAdam:
    """Adam on the embedding rows that a batch touches, in place, with L2 added to their gradient.

    Args:
        table: [V, K, E]. rates: [K]. l2: [K].
    """

    def __init__(self, table: Tensor, rates: Tensor, l2: Tensor) -> None:
        self.first, self.second = torch.zeros_like(table), torch.zeros_like(table)
        self.rates = rates[:, None]
        self.l2 = l2[:, None] if bool((l2 > 0).any()) else None

    def step(self, table: Tensor, touched: Touched, values: Tensor, gradient: Tensor, step: int) -> Tensor:
        """One update.

        Args:
            values: the rows' weights [U, K, E]. gradient: [U, K, E]. step: counts from 1.

        Returns: the rows' new weights, [U, K, E].
        """
        rows, place = touched.rows, touched.place
        if self.l2 is not None:
            gradient = gradient + self.l2 * values
        first, second = self.first[rows], self.second[rows]
        moved = values - _move(first, second, gradient, self.rates, step)
        if place is not None:
            moved, first, second = moved[place], first[place], second[place]
        table.index_copy_(0, rows, moved)
        self.first.index_copy_(0, rows, first)
        self.second.index_copy_(0, rows, second)
        return moved
