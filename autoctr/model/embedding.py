"""From encoded columns to x0: embedding rows, pooled lists, scaled numbers and frozen vectors, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from autoctr.data.statistics import Kind, Statistics
from autoctr.model.parameters import Layout, Views, named_generator, normal

DEVIATION = 0.01


def initial_table(statistics: Statistics, embedding: int, seeds: Sequence[int]) -> Tensor:
    """Fresh embedding rows N(0, 0.01²), float32 [V, K, E]: one row holds an id's vector for all members."""
    shape = (statistics.vocabulary, embedding)
    draws = [torch.randn(shape, generator=named_generator(seed, "embedding")) * DEVIATION for seed in seeds]
    return torch.stack(draws, 1)


class FeatureEmbedding:
    """Joins the fields of a batch in a fixed order: single-valued, pooled, scaled, vectors.

    A numeric field that is not binned enters as number · w with w [E]; a list as the mean of its known rows; a vector
    as it is (frozen).
    """

    def __init__(self, statistics: Statistics, embedding: int, tables: Mapping[str, Tensor]) -> None:
        self.embedding = embedding
        self.tables = [tables[field.name] for field in statistics.vectors]
        self.scaled = len(statistics.scaled)
        singles: list[int] = []
        self.lists: list[tuple[int, int, int]] = []
        slot, offsets = 0, statistics.offsets
        self.domain_slot = -1
        for field in statistics.embedded:
            if field.kind is Kind.MULTI:
                self.lists.append((slot, field.slots, offsets[field.name]))
            else:
                if field.name == statistics.domain_field:
                    self.domain_slot = slot
                singles.append(slot)
            slot += field.slots
        self.singles = slice(0, slot) if len(singles) == slot else singles
        self.width = (len(singles) + len(self.lists) + self.scaled) * embedding + sum(
            field.width for field in statistics.vectors
        )

    def declare(self, layout: Layout) -> None:
        """One vector [E] per scaled numeric field."""
        if self.scaled:
            layout.add("numbers", (self.scaled, self.embedding), normal(DEVIATION))

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
            scaled = numbers.to(table.dtype)[None, :, :, None] * weights["numbers"][:, None]
            parts.append(scaled.flatten(2))
        for column, frozen in enumerate(self.tables):
            parts.append(functional.embedding(vectors[:, column], frozen).to(table.dtype).expand(members, -1, -1))
        x0 = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
        return x0, looked_up[:, :, self.domain_slot]
