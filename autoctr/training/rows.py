"""Encoded rows resident on a device, handed out as batches that are index slices."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from autoctr.data.dataset import Rows
from autoctr.model.network import Batch
from autoctr.model.segments import Segments


class ResidentRows:
    """The rows of one split as tensors on ``device``."""

    def __init__(self, rows: Rows, domains: int, *, dtype: torch.dtype, device: torch.device | str) -> None:
        def resident(array: np.ndarray, kind: torch.dtype) -> Tensor:
            return torch.from_numpy(np.array(array)).to(device, kind)

        self.ids = resident(rows.ids, torch.int32)
        self.numbers = resident(rows.numbers, dtype)
        self.vectors = resident(rows.vectors, torch.int32)
        self.labels = resident(rows.labels, dtype)
        self.domain = resident(rows.domain, torch.int64)
        self.user = None if rows.user is None else resident(rows.user, torch.int64)
        self.domains, self.dtype, self.device = domains, dtype, torch.device(device)

    def __len__(self) -> int:
        return len(self.domain)

    def batch(self, rows: Tensor, bounds: list[int] | None = None) -> Batch:
        """The rows with the given numbers; their domains must ascend."""
        segments = Segments(self.domain[rows], self.domains, self.dtype, bounds)
        return Batch(self.ids[rows], self.numbers[rows], self.vectors[rows], self.labels[rows], segments)

    def batches(
        self,
        seed: int,
        epoch: int,
        batch: int,
        chosen: Tensor | None = None,
        *,
        alternating: bool = False,
        visited: int = 0,
    ) -> Iterator[Batch]:
        """One pass over the rows in an order drawn from (seed, epoch): batches of mixed domains, sorted inside.

        Args:
            chosen: bool [N], the rows to visit; None = all.
            alternating: every batch holds rows of one domain only, and the batches come in a random order.
            visited: rows of this pass, in whole batches, that have been visited before and are left out.
        """
        generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63))
        shuffled = torch.randperm(len(self), generator=generator).to(self.device)
        if chosen is not None:
            shuffled = shuffled[chosen[shuffled]]
        pieces = self._alternating(shuffled, batch, generator) if alternating else self._pieces(shuffled, batch)
        for piece, bounds in pieces:
            visited -= len(piece)
            if visited < 0:
                yield self.batch(piece, bounds)

    def _alternating(
        self, shuffled: Tensor, batch: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, list[int]]]:
        domain = self.domain[shuffled]
        sizes = torch.bincount(domain, minlength=self.domains + 1).tolist()
        pieces = [
            (number, piece)
            for number, rows in enumerate(torch.split(shuffled[domain.sort(stable=True).indices], sizes))
            for piece in (torch.split(rows, batch) if len(rows) else ())
        ]
        for place in torch.randperm(len(pieces), generator=generator).tolist():
            number, piece = pieces[place]
            yield piece, [0] * (number + 1) + [len(piece)] * (self.domains - number)

    def _pieces(self, rows: Tensor, batch: int) -> Iterator[tuple[Tensor, list[int]]]:
        order, bounds = self._sorted(rows, batch)
        for number, bound in enumerate(bounds):
            yield order[number * batch : (number + 1) * batch], bound

    def _sorted(self, rows: Tensor, batch: int) -> tuple[Tensor, list[list[int]]]:
        """``rows`` sorted by domain inside each batch, and the D + 1 bounds of the domains of each batch."""
        groups = self.domains + 1
        number = torch.arange(len(rows), device=self.device) // batch
        key = number * groups + self.domain[rows]
        key, permutation = key.sort(stable=True)
        batches = -(-len(rows) // batch)
        counts = torch.bincount(key, minlength=batches * groups).view(batches, groups)
        bounds = torch.nn.functional.pad(counts[:, :-1].cumsum(1), (1, 0))
        return rows[permutation], bounds.tolist()

    def chunks(self, rows: int) -> Iterator[tuple[Tensor, Batch]]:
        """All rows once, in pieces of at most ``rows``, with their row numbers: for scoring."""
        for piece, bounds in self._pieces(torch.arange(len(self), device=self.device), rows):
            yield piece, self.batch(piece, bounds)

    def reading(self, vectors: np.ndarray) -> ResidentRows:
        """The same rows with other rows of side tables, int [N, vector fields], sharing the rest of the memory."""
        part = copy.copy(self)
        part.vectors = torch.from_numpy(np.array(vectors)).to(self.device, torch.int32)
        return part

    def head(self, rows: int) -> ResidentRows:
        """The first rows of the split, sharing memory."""
        part = copy.copy(self)
        for name in ("ids", "numbers", "vectors", "labels", "domain"):
            setattr(part, name, getattr(self, name)[:rows])
        part.user = None if self.user is None else self.user[:rows]
        return part
