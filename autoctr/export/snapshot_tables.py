"""The frozen snapshots of an id's embedding as an export serves them: the newest ones, or the vector they pool to."""

from __future__ import annotations

import torch
from torch import Tensor

from autoctr.model.embedding import SnapshotField, SnapshotPool


def pooled_by_attention(field: SnapshotField) -> bool:
    """Whether a generated model must weigh the field's snapshots by the row; a single one has nothing to weigh."""
    return field.pooling == "attention" and field.window > 1


def served(field: SnapshotField, pool: SnapshotPool, table: Tensor) -> Tensor:
    """The newest snapshots of every id, [M, V, d], or the one vector they are pooled to, [V, d]."""
    ids = torch.arange(pool.size, device=table.device)
    newest = table[-field.window * pool.size :]
    if pooled_by_attention(field):
        return newest.reshape(field.window, pool.size, field.width)
    return pool.pooled(ids, newest)
