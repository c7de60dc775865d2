"""From encoded columns to x0: embedding rows, pooled lists, scaled numbers and frozen vectors, side by side."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from autoctr.data.statistics import Field, Kind, Statistics
from autoctr.model.parameters import Layout, Views, named_generator, normal, uniform

DEVIATION = 0.01
PIECE = 32


def initial_table(statistics: Statistics, embedding: int, seeds: Sequence[int]) -> Tensor:
    """Fresh embedding rows N(0, 0.01²), float32 [V, K, E]: one row holds an id's vector for all members."""
    shape = (statistics.vocabulary, embedding)
    draws = [torch.randn(shape, generator=named_generator(seed, "embedding")) * DEVIATION for seed in seeds]
    return torch.stack(draws, 1)


@dataclasses.dataclass(frozen=True)
class SnapshotField(Field):
    """A vector field that reads the last snapshots of an id's embedding, pooled to one vector.

    Its table stacks snapshots of all V ids of the field ``of``, oldest first, [snapshots · V, width]; zeros where an id
    was not seen. ``Rows.vectors`` holds the row of the id in the oldest of the ``window`` snapshots that are read.
    """

    of: str = ""
    window: int = 1
    pooling: Literal["attention", "mean", "last"] = "attention"


class SnapshotPool:
    """Pools the M snapshots s_m of a row's id, frozen, over those in which it was seen (E-CDCTR, arXiv 2408.16238).

    ``attention``: Σ a_m s_m with a = softmax(q · s_m / √d), where q is the id's trainable embedding e, or e W if its
    width is not d. ``mean``: all alike. ``last``: the latest. An id that no snapshot has seen gives zeros.

    Args:
        slot: of the ids in a batch. size: V, ids of a snapshot. embedding: E, the width of e.
    """

    def __init__(self, field: SnapshotField, slot: int, size: int, embedding: int) -> None:
        self.field, self.slot, self.size, self.embedding = field, slot, size, embedding
        self.mapped = field.pooling == "attention" and field.width != embedding

    def declare(self, layout: Layout) -> None:
        """W [E, d], where it is needed."""
        if self.mapped:
            shape = (self.embedding, self.field.width)
            layout.add(f"{self.field.name}.query", shape, uniform(self.embedding), decayed=True)

    def forward(self, weights: Views, looked_up: Tensor, first: Tensor, frozen: Tensor) -> Tensor:
        """The pooled snapshots, [K, B, d].

        Args:
            looked_up: embedding of every slot, [K, B, slots, E].
            first: int [B], row of ``frozen`` [snapshots · V, d] of the oldest snapshot.
        """
        if self.field.pooling != "attention":
            return self.pooled(first, frozen).expand(len(looked_up), -1, -1)
        snapshots, known = self._read(first, frozen)
        query = looked_up[:, :, self.slot]
        if self.mapped:
            query = torch.bmm(query, weights[f"{self.field.name}.query"].to(query.dtype))
        scores = torch.einsum("kbd,bmd->kbm", query, snapshots) / math.sqrt(self.field.width)
        # without any known snapshot the weights are alike and the snapshots zeros
        shares = scores.masked_fill(~known, torch.finfo(scores.dtype).min).softmax(2)
        return torch.einsum("kbm,bmd->kbd", shares, snapshots)

    def pooled(self, first: Tensor, frozen: Tensor) -> Tensor:
        """The pool where no member has a say in it, [B, d]: ``mean``, ``last``, or the only snapshot."""
        snapshots, known = self._read(first, frozen)
        if self.field.pooling == "mean":
            return snapshots.sum(1) / known.sum(1).clamp(min=1)[:, None]
        latest = (known * torch.arange(1, self.field.window + 1, device=first.device)).argmax(1)
        return snapshots[torch.arange(len(first), device=first.device), latest]

    def _read(self, first: Tensor, frozen: Tensor) -> tuple[Tensor, Tensor]:
        """Every row's snapshots, [B, M, d], and in which of them its id was seen, bool [B, M]."""
        steps = torch.arange(self.field.window, device=first.device)
        snapshots = functional.embedding(first[:, None] + steps * self.size, frozen)
        return snapshots, snapshots.ne(0).any(2)


class FeatureEmbedding:
    """Joins the fields of a batch in a fixed order: single-valued, pooled, scaled, vectors.

    A numeric field that is not binned enters as number · w with w [E]; a list as the mean of its known rows; a vector
    as it is (frozen), or as the pool of its snapshots.

    Attributes:
        widths: numbers of each field in x0, in its order. names: of the fields, in the same order. A frozen vector
            counts as pieces of 32 numbers, each a field of its own to whoever prunes the input.
        domain_rows: rows of the embedding table that hold the domains.
    """

    def __init__(self, statistics: Statistics, embedding: int, tables: Mapping[str, Tensor]) -> None:
        self.embedding = embedding
        self.tables = [tables[field.name] for field in statistics.vectors]
        self.pools: dict[int, SnapshotPool] = {}
        self.scaled = len(statistics.scaled)
        singles: list[int] = []
        single_names: list[str] = []
        self.lists: list[tuple[int, int, int]] = []
        slot, offsets = 0, statistics.offsets
        self.domain_slot, self.domain_rows = -1, slice(0)
        slots: dict[str, tuple[int, int]] = {}
        for field in statistics.embedded:
            slots[field.name] = slot, field.size
            if field.kind is Kind.MULTI:
                self.lists.append((slot, field.slots, offsets[field.name]))
            else:
                if field.name == statistics.domain_field:
                    self.domain_slot = slot
                    self.domain_rows = slice(offsets[field.name], offsets[field.name] + field.size)
                singles.append(slot)
                single_names.append(field.name)
            slot += field.slots
        self.singles = slice(0, slot) if len(singles) == slot else singles
        for column, field in enumerate(statistics.vectors):
            if isinstance(field, SnapshotField):
                self.pools[column] = SnapshotPool(field, *slots[field.of], embedding)
        self.widths = [embedding] * (len(singles) + len(self.lists) + self.scaled)
        pieces = [
            (f"{field.name}[{start}:{min(start + PIECE, field.width)}]", min(PIECE, field.width - start))
            for field in statistics.vectors
            for start in range(0, field.width, PIECE)
        ]
        self.widths += [width for _, width in pieces]
        self.width = sum(self.widths)
        pooled = [field.name for field in statistics.embedded if field.kind is Kind.MULTI]
        scaled = [field.name for field in statistics.scaled]
        self.names = [*single_names, *pooled, *scaled, *(name for name, _ in pieces)]

    def declare(self, layout: Layout) -> None:
        """One vector [E] per scaled numeric field, and what pools need."""
        if self.scaled:
            layout.add("numbers", (self.scaled, self.embedding), normal(DEVIATION))
        for pool in self.pools.values():
            pool.declare(layout)

    def forward(
        self, weights: Views, table: Tensor, positions: Tensor, ids: Tensor, numbers: Tensor, vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x0 [K, B, width] and the domain's embedding e_d [K, B, E].

        Args:
            table: rows of the embedding, [U, K, E].
            positions: int [B, slots], row of ``table`` for every slot.
            ids: int [B, slots], row of the whole embedding table for every slot.
            numbers: [B, scaled fields]. vectors: int [B, vector fields].
        """
        rows, members = len(positions), table.shape[1]
        looked_up = functional.embedding(positions, table.reshape(len(table), -1))
        looked_up = looked_up.view(rows, positions.shape[1], members, self.embedding).permute(2, 0, 1, 3)
        parts = [looked_up[:, :, self.singles].flatten(2)]
        for start, slots, padding in self.lists:
            known = (ids[:, start : start + slots] != padding).to(table.dtype)
            pooled = (looked_up[:, :, start : start + slots] * known[:, :, None]).sum(2)
            parts.append(pooled / known.sum(1).clamp(min=1)[:, None])
        if self.scaled:
            scaled = numbers.to(table.dtype)[None, :, :, None] * weights["numbers"][:, None].to(table.dtype)
            parts.append(scaled.flatten(2))
        for column, frozen in enumerate(self.tables):
            if column in self.pools:
                parts.append(self.pools[column].forward(weights, looked_up, vectors[:, column], frozen))
                continue
            parts.append(functional.embedding(vectors[:, column], frozen).to(table.dtype).expand(members, -1, -1))
        x0 = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
        return x0, looked_up[:, :, self.domain_slot]
