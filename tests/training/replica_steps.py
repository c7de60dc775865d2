"""Trains candidates for some steps in float64 and writes what they have become: alone, or as a process of torchrun.

``python replica_steps.py OUT``
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from autoctr.data.dataset import Dataset, Rows
from autoctr.data.presets import load_dataset
from autoctr.model.architecture import FIXED
from autoctr.model.candidate import Candidate
from autoctr.training import replicas
from autoctr.training.cohort import Cohort
from autoctr.training.rows import ResidentRows

STEPS, BATCH = 12, 101
PLAIN = Candidate(
    blocks=2, width=8, embedding=4, batch=BATCH, wiring=FIXED["parallel"](2), dropout=0.2, embedding_dropout=0.1,
    weight_decay=1e-3, embedding_l2=1e-4, averaging=0.9,
)  # fmt: skip
CANDIDATES = {
    "plain": PLAIN,
    "norm": PLAIN.replace(norm="batch"),
    "adapters": PLAIN.replace(rank=3),
    "sparse": PLAIN.replace(sparsity=0.4, pruner_input="both"),
    "sparse by domain, input pruned": PLAIN.replace(sparsity=0.3, pruner_input="domain", input_pruner=True),
    "clicked": PLAIN.replace(task_space="clicked"),
    "full": PLAIN.replace(wiring=FIXED["full"](2), cross="attention"),
}


def two_labels(dataset: Dataset) -> Dataset:
    """The data set with a second label, a part of the first."""

    def more(rows: Rows) -> Rows:
        second = rows.labels[:, :1] * (np.arange(len(rows)) % 3 == 0)[:, None]
        return dataclasses.replace(
            rows, labels=np.concatenate([rows.labels[:, :1], second.astype(rows.labels.dtype)], 1)
        )

    statistics = dataclasses.replace(dataset.statistics, tasks=("click", "buy"))
    return dataclasses.replace(dataset, statistics=statistics, train=more(dataset.train))


def trained(candidate: Candidate, dataset: Dataset) -> dict[str, torch.Tensor]:
    """Weights, embedding rows, running statistics and the losses of every step."""
    if candidate.task_space == "clicked":
        dataset = two_labels(dataset)
    cohort = Cohort.on(dataset, [candidate, candidate.replace(seed=1, learning_rate=3e-3)], dtype=torch.float64)
    rows = ResidentRows(dataset.train, len(dataset.statistics.domains), dtype=torch.float64, device="cpu")
    losses = [cohort.step(batch) for batch, _ in zip(rows.batches(3, 0, candidate.batch), range(STEPS), strict=False)]
    assert len(losses) == STEPS
    return {"flat": cohort.flat, "table": cohort.table, "running": cohort.running, "losses": torch.stack(losses)}


def main(out: Path) -> None:
    """Train all."""
    torch.set_num_threads(1)
    with replicas.together("cpu"):
        dataset = load_dataset("taobao-sim", rows=3000)
        for name, candidate in CANDIDATES.items():
            found = trained(candidate, dataset)
            if replicas.is_first():
                save_file(
                    {part: tensor.detach().clone() for part, tensor in found.items()}, out / f"{name}.safetensors"
                )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
