"""What a generated model consists of up to x0, whatever the family of its network: fields, sizes and inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autoctr.data.statistics import Field, Kind, Statistics
from autoctr.export.names import identifiers
from autoctr.export.rounding import Stored
from autoctr.export.scope import Scope
from autoctr.export.snapshot_tables import pooled_by_attention
from autoctr.model.candidate import Candidate
from autoctr.model.embedding import PIECE, SnapshotField
from autoctr.model.network import Network


@dataclasses.dataclass(frozen=True)
class Plan:
    """Fields and sizes of the generated model.

    ``encoded`` describes the rows that it is given, ``statistics`` what it reads of them: fields that no domain opens
    are left out. ``rows`` are those of the searched embedding table that it holds, ``scope`` its domains.
    ``tables`` are the rows of every side table of frozen vectors without snapshots, ``widths`` the name and the numbers
    of every field in x0's order, ``width`` the neurons of every layer. ``shapes`` are those of the searched network's
    dense weights. ``stored`` is the type of the numbers in embedding rows and frozen vectors. ``reads_domain`` tells
    whether the network needs the number of a row's domain.
    """

    scope: Scope
    encoded: Statistics
    statistics: Statistics
    rows: npt.NDArray[np.int64]
    candidate: Candidate
    tables: dict[str, int]
    widths: tuple[tuple[str, int], ...]
    width: int
    shapes: dict[str, tuple[int, ...]]
    stored: Stored
    reads_domain: bool

    @property
    def fields_width(self) -> int:
        """Numbers of all fields side by side."""
        return sum(width for _, width in self.widths)

    @property
    def slots(self) -> dict[str, int]:
        """First column of ``ids`` of every embedded field that is read, among those that are."""
        return _slots(self.statistics)

    @property
    def read_slots(self) -> dict[int, int]:
        """The columns of ``ids`` that are read, and how many rows of the embedding table before theirs are gone."""
        before, after, first = self.encoded.offsets, self.statistics.offsets, _slots(self.encoded)
        return {
            first[field.name] + slot: before[field.name] - after[field.name]
            for field in self.statistics.embedded
            for slot in range(field.slots)
        }

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
        return list(self.columns)

    @property
    def columns(self) -> dict[str, int | None]:
        """Columns of everything that the model's forward takes; None for the domain, which has one number per row."""
        encoded = self.encoded
        frozen = [field for field in encoded.vectors if not isinstance(field, SnapshotField)]
        columns: dict[str, int | None] = {"ids": sum(field.slots for field in encoded.embedded)}
        columns |= {"numbers": len(encoded.scaled)} if self.statistics.scaled else {}
        columns |= {"vectors": len(frozen)} if self.tables else {}
        return columns | ({"domain": None} if self.reads_domain else {})


def _slots(statistics: Statistics) -> dict[str, int]:
    start, result = 0, {}
    for field in statistics.embedded:
        result[field.name] = start
        start += field.slots
    return result


def part_names(field: Field) -> list[str]:
    """The names of a field in x0: its own, or those of a frozen vector's pieces."""
    if field.kind is not Kind.VECTOR:
        return [field.name]
    starts = range(0, field.width, PIECE)
    return [f"{field.name}[{start}:{min(start + PIECE, field.width)}]" for start in starts]


def sizes(network: Network, scope: Scope, closed: Sequence[Field] = (), stored: Stored = "fp32") -> dict[str, Any]:
    """The values of a plan's fields, without ``reads_domain``.

    Args:
        closed: fields of the exported statistics that are not read.

    Raises:
        ValueError: for several members, or snapshots that are not as wide as the embedding.
    """
    if network.members != 1:
        raise ValueError(f"an export needs one member, not {network.members}")
    embedding, encoded = network.embedding, scope.exported
    if any(pool.mapped for pool in embedding.pools.values()):
        raise ValueError("an export needs snapshots as wide as the embedding")
    gone = {name for field in closed for name in part_names(field)}
    statistics = dataclasses.replace(encoded, fields=tuple(field for field in encoded.fields if field not in closed))
    tables = zip(network.statistics.vectors, embedding.tables, strict=True)
    return {
        "scope": scope,
        "encoded": encoded,
        "statistics": statistics,
        "rows": _rows(scope, closed),
        "candidate": network.candidates[0],
        "tables": {
            field.name: len(table)
            for field, table in tables
            if not isinstance(field, SnapshotField) and field not in closed
        },
        "widths": tuple(
            (name, width) for name, width in zip(embedding.names, embedding.widths, strict=True) if name not in gone
        ),
        "width": network.width,
        "shapes": {name: weight.shape for name, weight in network.layout.weights.items()},
        "stored": stored,
    }


def _rows(scope: Scope, closed: Sequence[Field]) -> npt.NDArray[np.int64]:
    """Rows of the searched embedding table without those of closed fields."""
    encoded, kept = scope.exported, np.ones(scope.exported.vocabulary, bool)
    for field in closed:
        if field.size:
            kept[encoded.offsets[field.name] : encoded.offsets[field.name] + field.size] = False
    rows: npt.NDArray[np.int64] = scope.rows[kept]
    return rows
