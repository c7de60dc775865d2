"""Snapshots of the rich domains' history as columns of a data set (the first level of E-CDCTR, arXiv 2408.16238).

The time of the rich domains' training rows is divided into periods of as many rows each. A tiny model learns from one
period after the other and leaves its embeddings at the end of each. Every row of the data set then reads the snapshots
of the periods that ended by its own time, so that no snapshot has learned from a row as new as its reader.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autoctr.data.dataset import SPLITS, Dataset, Rows
from autoctr.data.statistics import Statistics
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.training import snapshot_file
from autoctr.training.basic_fields import basic_fields, categorical, user_field
from autoctr.training.keeping import Keeper, Work
from autoctr.training.snapshots import Snapshot, SnapshotBank, TinyModel
from autoctr.training.state import State, fill, of_cohort

#: The tiny model's training is fixed, so that equal genes share snapshots. A small period takes smaller batches.
BATCH, SMALLEST_BATCH, STEPS_PER_PERIOD = 512, 64, 50
#: One pass at a tenth of it leaves most embeddings near their random start.
LEARNING_RATE = 1e-2
#: Raise it whenever the same data and genes would give other snapshots.
VERSION = 1


def rich_domains(statistics: Statistics, share: float) -> list[int]:
    """Numbers of the domains with most training rows, ``share`` of all domains and at least one."""
    rows = statistics.domain_rows
    richest = sorted(range(len(rows)), key=lambda domain: (-rows[domain], domain))
    return richest[: min(max(round(share * len(rows)), 1), len(rows))]


def obstacle(dataset: Dataset) -> str | None:
    """Why a data set can have no snapshots, as the rest of a sentence about it; None if it can."""
    if any(getattr(dataset, split).time is None for split in SPLITS):
        return "has no time stamps"
    return None if categorical(dataset.statistics) else "has no categorical field beside the domain"


def boundaries(times: npt.NDArray[np.int64], periods: int) -> npt.NDArray[np.int64]:
    """The moments at which periods of as many rows end, ascending; a period has the rows before its end.

    Rows of one moment are never torn apart. A period that would have no rows of its own is left out, so that there may
    be fewer; the last one ends just after the newest row.

    Args:
        times: of the rows, not empty.
    """
    times = np.sort(times)
    places = np.arange(1, periods) * len(times) // periods
    ends = np.unique(np.append(times[places], times[-1] + 1))
    after: npt.NDArray[np.int64] = ends[ends > times[0]]
    return after


def visited_rows(dataset: Dataset, candidate: Candidate) -> int:
    """Training rows that the snapshots of a candidate have visited."""
    rows = dataset.statistics.domain_rows
    return sum(rows[domain] for domain in rich_domains(dataset.statistics, candidate.warm_share))


def with_snapshots(
    dataset: Dataset,
    candidate: Candidate,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    deadline: float = math.inf,
    keeper: Keeper | None = None,
) -> Dataset:
    """``dataset`` as the candidate's network reads it: itself, or with a field of pooled snapshots per basic field.

    Args:
        candidate: its ``snapshots``, ``pooling``, ``warm_share`` and ``embedding`` count, and nothing else.
        seed: of the tiny model.
        folder: where the snapshots are kept; None trains them anew.
        keeper: where their training is found again if it was interrupted, and its states are written.

    Raises:
        UserError: if the data set can have none.
        OutOfTime: if ``deadline`` (``time.monotonic()``) passes.
    """
    if not candidate.snapshots:
        return dataset
    problem = obstacle(dataset)
    if problem is not None:
        raise UserError(f"snapshots is {candidate.snapshots}, but {dataset.name} {problem}; legal is 0")
    statistics = dataset.statistics
    names = basic_fields(statistics, user_field(dataset))
    rows = _history(dataset, candidate.warm_share)
    assert rows.time is not None
    ends = boundaries(rows.time, candidate.snapshots)
    key = snapshot_file.key(
        VERSION, dataset.key, seed, candidate.snapshots, candidate.warm_share, candidate.embedding, names
    )
    path = None if folder is None else folder / f"{key}.safetensors"
    shapes = {f.name: (f.size, candidate.embedding) for f in statistics.embedded if f.name in names}
    snapshots = None if path is None else snapshot_file.load(path, ends.tolist(), shapes)
    if snapshots is None:
        work = Work(keeper or Keeper(None), f"snapshots {key}")
        snapshots = _trained(statistics, names, rows, ends, candidate.embedding, seed, device, deadline, work)
        if path is not None:
            snapshot_file.save(path, snapshots)
    bank = SnapshotBank(statistics, names, candidate.embedding, len(snapshots), candidate.pooling)
    for snapshot in snapshots:
        bank.add(snapshot)
    tables = {name: table.numpy() for name, table in bank.tables.items()}
    return dataclasses.replace(
        dataset,
        statistics=bank.widened(statistics),
        tables={**dataset.tables, **tables},
        train=_reading(dataset.train, bank),
        valid=_reading(dataset.valid, bank),
        test=_reading(dataset.test, bank),
    )


def _history(dataset: Dataset, share: float) -> Rows:
    """The training rows of the rich domains, in the order of time."""
    train = dataset.train
    assert train.time is not None
    chosen = np.flatnonzero(np.isin(train.domain, rich_domains(dataset.statistics, share)))
    return train.take(chosen[np.argsort(train.time[chosen], kind="stable")])


def _trained(
    statistics: Statistics,
    names: Sequence[str],
    rows: Rows,
    ends: npt.NDArray[np.int64],
    embedding: int,
    seed: int,
    device: torch.device | str,
    deadline: float,
    work: Work,
) -> list[Snapshot]:
    """One pass of the tiny model over each period, and the snapshot at its end."""
    assert rows.time is not None
    stops = np.searchsorted(rows.time, ends)
    batch = min(BATCH, max(SMALLEST_BATCH, len(rows) // (len(ends) * STEPS_PER_PERIOD)))
    settings = Candidate(batch=batch, learning_rate=LEARNING_RATE)
    tiny = TinyModel(statistics, names, settings, embedding=embedding, seed=seed, device=device)
    snapshots: list[Snapshot] = []
    found = work.find()
    if found is not None:
        snapshots = _resumed(tiny, *found)
    start = 0

    def keep() -> None:
        work.keeper.offer(work.name, lambda: _state(tiny, snapshots))

    for period, (stop, end) in enumerate(zip(stops.tolist(), ends.tolist(), strict=True)):
        if period >= len(snapshots):
            part = rows.take(slice(start, stop))
            tiny.train(part, [period], deadline, visited=tiny.cohort.rows - start, on_step=keep)
            snapshots.append(tiny.snapshot(part, end))
        start = stop
    return snapshots


def _state(tiny: TinyModel, snapshots: Sequence[Snapshot]) -> State:
    """The tiny model on its way, and the snapshots that it has left so far."""
    tensors, progress = of_cohort(tiny.cohort)
    tables = {f"{n}.{name}": table for n, snapshot in enumerate(snapshots) for name, table in snapshot.tables.items()}
    told = [[snapshot.end, snapshot.latest] for snapshot in snapshots]
    return {**tensors, **tables}, {"progress": progress, "snapshots": told}


def _resumed(tiny: TinyModel, tensors: dict[str, Tensor], facts: dict[str, Any]) -> list[Snapshot]:
    """The inverse of :func:`_state`."""
    fill(tiny.cohort, tensors, facts["progress"])
    snapshots = []
    for number, (end, latest) in enumerate(facts["snapshots"]):
        tables = {name: tensors[f"{number}.{name}"] for name in tiny.names}
        snapshots.append(Snapshot(tables, end, latest))
        tiny.latest = latest
    return snapshots


def _reading(rows: Rows, bank: SnapshotBank) -> Rows:
    assert rows.time is not None
    return dataclasses.replace(rows, vectors=np.concatenate([rows.vectors, bank.columns(rows, rows.time)], 1))
