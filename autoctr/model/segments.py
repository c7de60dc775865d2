"""Where each domain's rows lie in a batch whose rows are sorted by domain."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor


class Segments:
    """Domains of a batch's rows, in ascending order; rows of an unknown domain (number D) come last.

    Args:
        domain: int [B], ascending.
        domains: D.
        bounds: D + 1 row numbers on the host, rows of domain d lie in [bounds[d], bounds[d + 1]); computed if absent.
    """

    def __init__(self, domain: Tensor, domains: int, dtype: torch.dtype, bounds: Sequence[int] | None = None) -> None:
        self.domain, self.domains, self._dtype, self._bounds = domain, domains, dtype, bounds

    @cached_property
    def one_hot(self) -> Tensor:
        """[B, D]; a row of an unknown domain is all 0."""
        known = torch.arange(self.domains, device=self.domain.device, dtype=self.domain.dtype)
        return (self.domain[:, None] == known).to(self._dtype)

    @cached_property
    def bounds(self) -> Sequence[int]:
        """D + 1 row numbers on the host."""
        if self._bounds is not None:
            return self._bounds
        counts = torch.bincount(self.domain, minlength=self.domains + 1)[: self.domains]
        return [0, *counts.cumsum(0).tolist()]
