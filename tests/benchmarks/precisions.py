"""Fits in bfloat16 beside fits in float32, on KuaiRand: their AUC, paired over seeds, and their seconds."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from autoctr.data.presets import load_dataset
from autoctr.model.candidate import Candidate
from autoctr.search.baselines import baseline
from autoctr.search.trial import Laboratory
from autoctr.training.fit import score_members
from autoctr.training.intervals import mean_interval
from autoctr.training.rows import ResidentRows

SEEDS = 5
MODELS: dict[str, Candidate] = {
    "dcn-v2": baseline("dcn-v2"),
    "dcn-v2 with LoRA and sparsity": baseline("dcn-v2").replace(rank=4, sparsity=0.2),
}


def precisions(arguments: argparse.Namespace) -> None:
    """Test AUC of whole fits, early stopping included; all are scored in float32."""
    if arguments.kuairand is None:
        sys.exit("precision needs --kuairand")
    dataset, device = load_dataset("kuairand", data=arguments.kuairand), torch.device(arguments.device)
    test = ResidentRows(dataset.test, len(dataset.statistics.domains), dtype=torch.float32, device=device)
    for name, model in MODELS.items():
        found: dict[str, list[float]] = {"fp32": [], "bf16": []}
        taken = dict.fromkeys(found, 0.0)
        for seed in range(SEEDS):
            for word, aucs in found.items():
                with tempfile.TemporaryDirectory() as folder:
                    laboratory = Laboratory(dataset, metric="auc", seed=seed, device=device, folder=Path(folder))
                    started = time.perf_counter()
                    outcome = laboratory.run(model.replace(seed=seed, precision=word))
                    taken[word] += time.perf_counter() - started
                auc = score_members(outcome.cohort, test, dataset)[0].auc
                assert auc is not None
                aucs.append(auc)
        single, half = found.values()
        gap = mean_interval([mine - other for mine, other in zip(half, single, strict=True)])
        print(
            f"{name}: test AUC {mean_interval(single).mean:.5f} in fp32, {mean_interval(half).mean:.5f} "
            f"in bf16, difference {gap.mean:+.5f} ± {gap.half:.5f} over {SEEDS} seeds; {taken['fp32']:.0f} and "
            f"{taken['bf16']:.0f} s"
        )
