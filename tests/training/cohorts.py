"""Cohorts whose members differ in every gene that may differ, and how two of them are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from model.networks import member_ranks, random_wiring
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import Architecture, full, parallel, stacked
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort, frozen_tables
from autoctr.training.rows import ResidentRows

SHAPE: dict[str, Any] = {"embedding": 4, "width": 8, "batch": 24}
SETTINGS: list[dict[str, Any]] = [
    {"learning_rate": 1e-3, "weight_decay": 0.0, "embedding_l2": 0.0, "dropout": 0.0, "averaging": 0.0},
    {"learning_rate": 4e-3, "weight_decay": 1e-1, "rank": 3, "sparsity": 0.3, "averaging": 0.9},
    {"embedding_rate": 3.0, "embedding_l2": 1e-2, "dropout": 0.5, "rank": 1, "rank_tilt": 2.0},
    {"embedding_dropout": 0.3, "sparsity": 0.2, "sparsity_tilt": 1.0, "architecture_rate": 0.1},
    {"learning_rate": 3e-3, "dropout": 0.1, "rank": 2, "rank_tilt": -3.0, "averaging": 0.99},
    {"weight_decay": 1e-2, "sparsity": 0.6, "sparsity_tilt": -1.0, "rank": 5},
    {"embedding_l2": 1e-3, "dropout": 0.7, "embedding_dropout": 0.1, "architecture_rate": 0.3},
    {"learning_rate": 2e-3, "weight_decay": 1e-3, "embedding_l2": 1e-4, "dropout": 0.3, "rank": 4, "sparsity": 0.1},
]


def discrete_members(shape: dict[str, Any]) -> list[Candidate]:
    wirings: list[Architecture] = [parallel(2), stacked(2), full(2)]
    wirings += [random_wiring(2, seed, seed % 2 == 1) for seed in range(len(SETTINGS) - 3)]
    return [
        Candidate(**SHAPE | {"blocks": 2} | shape | settings, wiring=wiring, seed=11 * n)
        for n, (settings, wiring) in enumerate(zip(SETTINGS, wirings, strict=True))
    ]


def relaxed_members(shape: dict[str, Any]) -> list[Candidate]:
    return [
        Candidate(**SHAPE | {"blocks": 1, "architecture": "learn"} | shape | settings, seed=11 * n)
        for n, settings in enumerate(SETTINGS)
    ]


def cohort_of(dataset: Dataset, members: Sequence[Candidate], dtype: torch.dtype, device: str = "cpu") -> Cohort:
    return Cohort(dataset.statistics, members, frozen_tables(dataset), ramp=1000, dtype=dtype, device=device)


def train(cohort: Cohort, rows: ResidentRows, steps: int, wire: bool) -> Tensor:
    """Train from where the cohort is until ``steps`` are done; the members' losses [steps, K]."""
    losses = []
    while cohort.steps < steps:
        epoch, visited = divmod(cohort.rows, len(rows))
        for batch in rows.batches(5, epoch, cohort.network.candidates[0].batch, visited=visited):
            losses.append(cohort.step(batch, wire=wire and cohort.steps >= 5))
            if cohort.steps >= steps:
                break
    return torch.stack(losses)


def named(cohort: Cohort, member: int, flat: Tensor) -> dict[str, Tensor]:
    return {name: view[member] for name, view in cohort.network.layout.views(flat).items()}


def assert_same(together: Cohort, alone: Cohort, member: int, pair: tuple[Tensor, Tensor], tolerance: float) -> None:
    """Equal dense numbers by name; LoRA's padding is cut to the ranks in use."""
    many, one = named(together, member, pair[0]), named(alone, 0, pair[1])
    assert set(one) <= set(many)
    for name, mine in one.items():
        theirs = many[name]
        if ".lora." in name:
            for d, rank in enumerate(member_ranks(alone)):
                cut = {"A": mine[d, :, :rank] if mine.dim() > 2 else mine, "B": mine[d, :rank], "bias": mine[d]}
                other = {"A": theirs[d, :, :rank] if theirs.dim() > 2 else theirs, "B": theirs[d, :rank]}
                part = name.rsplit(".", 1)[1]
                compare(name, other.get(part, theirs[d]), cut[part], tolerance)
            continue
        assert theirs.shape == mine.shape
        compare(name, theirs, mine, tolerance)


def compare(name: str, theirs: Tensor, mine: Tensor, tolerance: float) -> None:
    difference = float((theirs.cpu() - mine.cpu()).abs().max()) if mine.numel() else 0.0
    assert difference <= tolerance, name
