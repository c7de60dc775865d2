"""Embedding rows and frozen vectors in fewer bits: half precision, or 8-bit whole numbers with a scale per row."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.export.snapshot_tables import served
from autoctr.model.embedding import SnapshotField
from autoctr.training.cohort import Cohort
from autoctr.training.fit import Kept, score_members
from autoctr.training.joining import alone
from autoctr.training.rows import ResidentRows
from autoctr.training.snapshots import newest

Stored = Literal["fp32", "fp16", "int8"]
STORED: tuple[str, ...] = get_args(Stored)
LARGEST = 127
#: The largest number of half precision.
LARGEST_HALF = 65504.0
MEASURED = ("auc", "wauc", "logloss")


def check_stored(kind: str) -> Stored:
    """``kind``, if it is one.

    Raises:
        UserError: if it is none.
    """
    if kind not in STORED:
        raise UserError(f"unknown type {kind!r} of embeddings; legal are {', '.join(STORED)}")
    return kind  # type: ignore[return-value]


def packed(table: Tensor, kind: Stored) -> dict[str, Tensor]:
    """A table as it is stored: ``weight``, and for int8 the rows' ``scale``.

    Args:
        table: float32 [..., rows, width].
    """
    if kind == "fp32":
        return {"weight": table}
    if kind == "fp16":
        return {"weight": table.clamp(-LARGEST_HALF, LARGEST_HALF).half()}
    scale = _scales(table.abs().amax(-1, keepdim=True))
    return {"weight": (table / scale).round().to(torch.int8), "scale": scale}


def unpacked(stored: dict[str, Tensor]) -> Tensor:
    """The table in float32, as a generated model reads it."""
    weight = stored["weight"].float()
    return weight * stored["scale"] if "scale" in stored else weight


def rounded(table: Tensor, kind: Stored) -> Tensor:
    """What is left of a table, float32; to round it again changes nothing."""
    return unpacked(packed(table, kind))


def _scales(largest: Tensor) -> Tensor:
    """largest / 127, rounded up to 16 bits, so that a scale times a whole number is exact in float32; 1 for zeros."""
    scale = (largest / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    bits = (scale.view(torch.int32) + 0xFF) & ~0xFF
    return torch.where(largest > 0, bits.view(torch.float32), 1.0)


def rounded_cohort(cohort: Cohort, dataset: Dataset, kind: Stored) -> tuple[Cohort, Dataset]:
    """The only member of a cohort with rounded embedding rows and frozen vectors, and the data set it then reads."""
    if kind == "fp32":
        return cohort, dataset
    network, weights = cohort.network, cohort.weights()
    tables = dict(dataset.tables)
    for column, field in enumerate(network.statistics.vectors):
        table = network.embedding.tables[column].float().cpu()
        if isinstance(field, SnapshotField):
            table = _rounded_snapshots(field, table, served(field, network.embedding.pools[column], table), kind)
        else:
            table = rounded(table, kind)
        tables[field.name] = table.numpy()
    dataset = dataclasses.replace(dataset, tables=tables)
    weights = dataclasses.replace(weights, table=rounded(weights.table.float(), kind).to(weights.table))
    return alone(Kept(network, 0, weights), dataset), dataset


def _rounded_snapshots(field: SnapshotField, table: Tensor, kept: Tensor, kind: Stored) -> Tensor:
    """Snapshots whose newest ones give the rounded form of what an export serves of them.

    One that is served as a pool becomes the pool of a single known snapshot.
    """
    last = rounded(kept, kind).reshape(-1, field.width)
    older = len(table) - field.window * (len(kept) if kept.dim() == 2 else kept.shape[1])
    unknown = table.new_zeros(len(table) - older - len(last), field.width)
    return torch.cat([table[:older], unknown, last])


def cost(before: Cohort, after: Cohort, dataset: Dataset, read: Dataset) -> dict[str, Any]:
    """Validation metrics of the first label before and after rounding, and their differences; JSON-ready.

    Args:
        dataset: as ``before`` reads it. read: as ``after`` does.
    """
    found = [_scores(cohort, of) for cohort, of in ((before, dataset), (after, read))]
    return {
        metric: {"before": old, "after": new, "difference": None if old is None or new is None else new - old}
        for metric, old, new in zip(MEASURED, *found, strict=True)
    }


def _scores(cohort: Cohort, dataset: Dataset) -> list[float | None]:
    network = cohort.network
    rows = newest(dataset.valid, network.statistics, network.embedding.tables)
    resident = ResidentRows(rows, len(network.statistics.domains), dtype=network.dtype, device=network.device)
    scores = score_members(cohort, resident, dataset)[0]
    return [getattr(scores, metric) for metric in MEASURED]
