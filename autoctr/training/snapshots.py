"""The tiny pre-training model of E-CDCTR (arXiv 2408.16238), and the frozen snapshots of its embeddings over time."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autoctr.data.dataset import Rows
from autoctr.data.statistics import Field, Kind, Statistics
from autoctr.model.architecture import deep
from autoctr.model.candidate import Candidate
from autoctr.model.embedding import SnapshotField
from autoctr.training.cohort import Cohort
from autoctr.training.fit import OutOfTime
from autoctr.training.rows import ResidentRows

POOLINGS = ("attention", "mean", "last")
TINY_WIDTH = 32


class LeakError(RuntimeError):
    """Something would read what it cannot know yet: a mistake of the program, never of the user."""


def require_earlier(what: str, latest: int, earliest: int) -> None:
    """Check that the newest row behind ``what`` is older than every row that reads it.

    Args:
        latest: time of the newest row that ``what`` has learned from.
        earliest: time of the oldest row that reads it, in the same unit.

    Raises:
        LeakError: if it is not.
    """
    if latest >= earliest:
        raise LeakError(f"{what} has learned from rows up to time {latest}, but rows from time {earliest} on read it")


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Embeddings as they were at the end of a period.

    ``tables`` holds one of [V, d] per field, with zeros for ids that the period did not show and for row 0, which many
    ids share. ``end`` is the first day, or the first moment, after the period; ``latest`` is the time of the newest row
    that the embeddings have ever learned from.
    """

    tables: dict[str, Tensor]
    end: int
    latest: int


class SnapshotBank:
    """All snapshots so far. A row reads the last ``window`` of those that ended by its day, or by its moment.

    Every snapshot stays in memory, because older rows are read again when a model starts anew.

    Args:
        statistics: of the dataset. names: the fields with snapshots. width: d. window: M, snapshots pooled per row.
    """

    def __init__(
        self,
        statistics: Statistics,
        names: Sequence[str],
        width: int,
        window: int,
        pooling: Literal["attention", "mean", "last"],
        device: torch.device | str = "cpu",
    ) -> None:
        sizes = {field.name: field.size for field in statistics.embedded}
        self.fields = tuple(
            SnapshotField(f"snapshots of {name}", Kind.VECTOR, width=width, of=name, window=window, pooling=pooling)
            for name in names
        )
        slots, offsets = _slots(statistics), statistics.offsets
        self._columns = [(sizes[name], slots[name].start, offsets[name]) for name in names]
        self.snapshots: list[Snapshot] = []
        # a full window of empty snapshots, which the earliest rows read
        self.tables = {field.name: torch.zeros(window * sizes[field.of], width, device=device) for field in self.fields}

    def widened(self, statistics: Statistics) -> Statistics:
        """``statistics`` of a network that reads the pooled snapshots as well."""
        return dataclasses.replace(statistics, fields=(*statistics.fields, *self.fields))

    def add(self, snapshot: Snapshot) -> None:
        """Append a snapshot to the tables; networks built before keep reading the tables they have."""
        self.snapshots.append(snapshot)
        for field in self.fields:
            before = self.tables[field.name]
            self.tables[field.name] = torch.cat([before, snapshot.tables[field.of].to(before)])

    def attach(self, cohort: Cohort) -> None:
        """Let a network of :meth:`widened` statistics read the tables as they are now."""
        fields = cohort.network.statistics.vectors
        for column, field in enumerate(fields):
            if field.name in self.tables:
                cohort.network.embedding.tables[column] = self.tables[field.name]

    def versions(self, moments: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many snapshots ended by each row's moment, [N]."""
        return np.searchsorted([snapshot.end for snapshot in self.snapshots], moments, side="right")

    def columns(self, rows: Rows, moments: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Which snapshots every row reads: its table row in the oldest of them, int32 [N, fields].

        Args:
            moments: when each row happened, in the unit of the snapshots' ends, [N].

        Raises:
            LeakError: if one of them has learned from a row that is not older than its reader.
        """
        assert rows.time is not None
        versions = self.versions(moments)
        for version in np.unique(versions[versions > 0]):
            snapshot = self.snapshots[version - 1]
            earliest = int(rows.time[versions == version].min())
            require_earlier(f"the snapshot before {snapshot.end}", snapshot.latest, earliest)
        columns = [
            versions * size + rows.ids[:, slot].astype(np.int64) - offset for size, slot, offset in self._columns
        ]
        return np.stack(columns, 1).astype(np.int32)


class TinyModel:
    """A shallow network on a few categorical fields of the source domain, whose embeddings become snapshots.

    It trains on from period to period, so that all snapshots lie in one space.

    Args:
        statistics: of the dataset. names: its fields beside the domain, all with snapshots.
        candidate: the target's network, of which the tiny one takes the training settings.
        embedding: numbers per embedding row.
        seed: of the weights.
    """

    def __init__(
        self,
        statistics: Statistics,
        names: Sequence[str],
        candidate: Candidate,
        *,
        embedding: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        wanted = {*names, statistics.domain_field}
        self.names, self.seed, self.device = tuple(names), seed, torch.device(device)
        self.fields = tuple(field for field in statistics.fields if field.name in wanted)
        self.given, self.statistics = statistics, dataclasses.replace(statistics, fields=self.fields)
        tiny = Candidate(
            embedding=embedding,
            width=TINY_WIDTH,
            blocks=1,
            architecture="deep",
            wiring=deep(1),
            learning_rate=candidate.learning_rate,
            dropout=candidate.dropout,
            averaging=0.0,
            batch=candidate.batch,
            seed=seed,
        )
        self.cohort = Cohort(self.statistics, [tiny], {}, ramp=1, device=device)
        self.latest: int | None = None

    def train(
        self,
        rows: Rows,
        orders: Sequence[int],
        deadline: float = math.inf,
        *,
        visited: int = 0,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        """Train on a period's rows, one pass for each number of a batch order.

        Args:
            visited: rows of the first pass that are left out, as it was interrupted behind them.
            on_step: called before every step.

        Raises:
            OutOfTime: if ``deadline`` (``time.monotonic()``) passes.
        """
        assert rows.time is not None
        ours = narrowed(rows, self.given, self.fields)
        resident = ResidentRows(ours, len(self.statistics.domains), dtype=torch.float32, device=self.device)
        passes(self.cohort, resident, self.seed, orders, deadline, visited=visited, on_step=on_step)
        newest = int(rows.time.max())
        self.latest = newest if self.latest is None else max(self.latest, newest)

    def snapshot(self, rows: Rows, end: int) -> Snapshot:
        """The embeddings as they are now, of the ids in the period's ``rows``."""
        assert self.latest is not None
        weights = self.cohort.weights().table[:, 0]
        tables, offsets, slots = {}, self.statistics.offsets, _slots(self.given)
        for field in self.fields:
            if field.name not in self.names:
                continue
            seen = np.zeros(field.size, np.bool_)
            seen[rows.ids[:, slots[field.name]] - self.given.offsets[field.name]] = True
            seen[0] = False
            whole = weights[offsets[field.name] : offsets[field.name] + field.size]
            tables[field.name] = whole * torch.from_numpy(seen).to(whole)[:, None]
        return Snapshot(tables, end, self.latest)


def passes(
    cohort: Cohort,
    rows: ResidentRows,
    seed: int,
    orders: Sequence[int],
    deadline: float = math.inf,
    *,
    visited: int = 0,
    on_step: Callable[[], None] = lambda: None,
) -> None:
    """One pass over ``rows`` in each of the batch orders, which are drawn from (seed, order).

    Args:
        visited: rows of the first pass that are left out. on_step: called before every step.

    Raises:
        OutOfTime: if ``deadline`` (``time.monotonic()``) passes.
    """
    candidate = cohort.network.candidates[0]
    single = candidate.order == "alternating"
    for number, order in enumerate(orders):
        left_out = 0 if number else visited
        for batch in rows.batches(seed, order, candidate.batch, alternating=single, visited=left_out):
            if time.monotonic() > deadline:
                raise OutOfTime
            on_step()
            cohort.step(batch)


def newest(rows: Rows, statistics: Statistics, tables: Sequence[Tensor]) -> Rows:
    """``rows`` that read the newest snapshots there are, as they would be at serving time.

    Args:
        tables: of every vector field of ``statistics``, in its order.
    """
    vectors, slots, offsets = rows.vectors.copy(), _slots(statistics), statistics.offsets
    sizes = {field.name: field.size for field in statistics.embedded}
    for column, (field, table) in enumerate(zip(statistics.vectors, tables, strict=True)):
        if isinstance(field, SnapshotField):
            first = len(table) - field.window * sizes[field.of] - offsets[field.of]
            vectors[:, column] = rows.ids[:, slots[field.of].start] + first
    return dataclasses.replace(rows, vectors=vectors)


def narrowed(rows: Rows, statistics: Statistics, fields: Sequence[Field]) -> Rows:
    """``rows`` with the ids of some fields only, as rows of an embedding table that holds no others.

    Args:
        statistics: of ``rows``. fields: embedded fields, in the order they have there.
    """
    slots, before = _slots(statistics), statistics.offsets
    after = dataclasses.replace(statistics, fields=tuple(fields)).offsets
    parts = [rows.ids[:, slots[field.name]] + np.int32(after[field.name] - before[field.name]) for field in fields]
    nothing = np.zeros((len(rows), 0))
    return dataclasses.replace(
        rows,
        ids=np.concatenate(parts, 1),
        numbers=nothing.astype(np.float32),
        vectors=nothing.astype(np.int32),
    )


def _slots(statistics: Statistics) -> dict[str, slice]:
    """The columns of ``Rows.ids`` that every embedded field fills."""
    start, result = 0, {}
    for field in statistics.embedded:
        result[field.name] = slice(start, start + field.slots)
        start += field.slots
    return result
