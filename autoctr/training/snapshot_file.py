"""Snapshots on disk: a safetensors file whose sum is checked before it is used. No pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from autoctr.training import checkpoint
from autoctr.training.snapshots import Snapshot


def key(*parts: object) -> str:
    """A file's name: equal for snapshots that are made from the same."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def save(path: Path, snapshots: Sequence[Snapshot]) -> None:
    """Write all snapshots to ``path``, whole or not at all."""
    tensors = {
        f"table.{name}": torch.stack([snapshot.tables[name] for snapshot in snapshots]).cpu()
        for name in snapshots[0].tables
    }
    tensors["ends"] = torch.tensor([snapshot.end for snapshot in snapshots])
    tensors["latest"] = torch.tensor([snapshot.latest for snapshot in snapshots])
    checkpoint.write(path, tensors, {})


def load(path: Path, ends: Sequence[int], shapes: Mapping[str, tuple[int, int]]) -> list[Snapshot] | None:
    """The snapshots that ``path`` holds; None if there is none, or it is not whole or of something else.

    Args:
        ends: of their periods. shapes: of a snapshot's table, by field.
    """
    try:
        _, tensors = checkpoint.read(path, "cpu")
    except checkpoint.DAMAGES:
        return None
    tables = {name: tensors.get(f"table.{name}") for name in shapes}
    found = {name: tuple(table.shape) for name, table in tables.items() if table is not None}
    wanted = {name: (len(ends), *shape) for name, shape in shapes.items()}
    if found != wanted or tensors["ends"].tolist() != list(ends):
        return None
    return [
        Snapshot({name: tensors[f"table.{name}"][number] for name in shapes}, end, latest)
        for number, (end, latest) in enumerate(zip(ends, tensors["latest"].tolist(), strict=True))
    ]
