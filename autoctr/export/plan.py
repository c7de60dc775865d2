"""What a generated model consists of up to x0, whatever the family of its network: fields, sizes and inputs."""

from __future__ import annotations

import dataclasses
from typing import Any

from autoctr.data.statistics import Field, Kind, Statistics
from autoctr.export.names import identifiers
from autoctr.model.candidate import Candidate
from autoctr.model.embedding import SnapshotField
from autoctr.model.network import Network


@dataclasses.dataclass(frozen=True)
class Plan:
    """Fields and sizes of the generated model.

    ``tables`` are the rows of every side table of frozen vectors without snapshots, ``widths`` the name and the numbers
    of every field in x0's order, ``width`` the neurons of every layer. ``shapes`` are those of the searched network's
    dense weights. ``reads_domain`` tells whether the network needs the number of a row's domain.
    """

    statistics: Statistics
    candidate: Candidate
    tables: dict[str, int]
    widths: tuple[tuple[str, int], ...]
    width: int
    shapes: dict[str, tuple[int, ...]]
    reads_domain: bool

    @property
    def fields_width(self) -> int:
        """Numbers of all fields side by side."""
        return sum(width for _, width in self.widths)

    @property
    def slots(self) -> dict[str, int]:
        """First column of ``ids`` of every embedded field."""
        start, result = 0, {}
        for field in self.statistics.embedded:
            result[field.name] = start
            start += field.slots
        return result

    @property
    def singles(self) -> list[int]:
        """Columns of ``ids`` that hold one value per row."""
        return [self.slots[field.name] for field in self.statistics.embedded if field.kind is not Kind.MULTI]

    @property
    def lists(self) -> list[Field]:
        """Multi-valued fields."""
        return [field for field in self.statistics.embedded if field.kind is Kind.MULTI]

    @property
    def vector_names(self) -> dict[str, str]:
        """The model's attribute for the side table of every vector field."""
        return identifiers(self.tables, "vectors")

    @property
    def snapshots(self) -> dict[SnapshotField, str]:
        """The model's attribute for the snapshots of every field that has them."""
        fields = [field for field in self.statistics.vectors if isinstance(field, SnapshotField)]
        names = identifiers([field.of for field in fields], "snapshots")
        return {field: names[field.of] for field in fields}

    @property
    def attends(self) -> bool:
        """Whether snapshots are pooled by attention; else their pool is one frozen vector per id."""
        return any(pooled_by_attention(field) for field in self.snapshots)

    @property
    def task_space(self) -> str:
        """What labels after the first count for, see the candidate; ``all`` where there is only one."""
        return self.candidate.task_space if len(self.statistics.tasks) > 1 else "all"

    @property
    def inputs(self) -> list[str]:
        """What the model's forward takes."""
        needed = {"ids": True, "numbers": self.statistics.scaled, "vectors": self.tables, "domain": self.reads_domain}
        return [name for name, value in needed.items() if value]


def pooled_by_attention(field: SnapshotField) -> bool:
    """Whether a generated model must weigh the field's snapshots by the row; a single one has nothing to weigh."""
    return field.pooling == "attention" and field.window > 1


def sizes(network: Network) -> dict[str, Any]:
    """The values of a plan's fields, without ``reads_domain``.

    Raises:
        ValueError: for several members, or snapshots that are not as wide as the embedding.
    """
    if network.members != 1:
        raise ValueError(f"an export needs one member, not {network.members}")
    embedding, vectors = network.embedding, network.statistics.vectors
    if any(pool.mapped for pool in embedding.pools.values()):
        raise ValueError("an export needs snapshots as wide as the embedding")
    return {
        "statistics": network.statistics,
        "candidate": network.candidates[0],
        "tables": {
            field.name: len(table)
            for field, table in zip(vectors, embedding.tables, strict=True)
            if not isinstance(field, SnapshotField)
        },
        "widths": tuple(zip(embedding.names, embedding.widths, strict=True)),
        "width": network.width,
        "shapes": {name: weight.shape for name, weight in network.layout.weights.items()},
    }
