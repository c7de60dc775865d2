"""Adam on the embedding rows of the batch beside Adam on the whole table, on KuaiRand."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from autoctr.data.presets import load_dataset
from autoctr.search.baselines import baseline
from autoctr.search.trial import Laboratory
from autoctr.training import cohort
from autoctr.training.fit import score_members
from autoctr.training.intervals import mean_interval
from autoctr.training.rows import ResidentRows
from autoctr.training.touched import RowFinder, Touched

SEEDS, RATES = 5, (1.0, 4.0)


class EveryRow(RowFinder):
    """The whole table moves at each step, its moments included."""

    def find(self, ids: Tensor) -> Touched:
        """All rows of the table."""
        return Touched(torch.arange(len(self._marks), device=ids.device), ids)


def embeddings(arguments: argparse.Namespace) -> None:
    """Test AUC of whole fits, early stopping included, paired over seeds; and their seconds."""
    if arguments.kuairand is None:
        sys.exit("embeddings needs --kuairand")
    dataset = load_dataset("kuairand", data=arguments.kuairand)
    domains = len(dataset.statistics.domains)
    test = ResidentRows(dataset.test, domains, dtype=torch.float32, device="cpu")
    rules = {"rows of the batch": RowFinder, "whole table": EveryRow}
    for rate in RATES:
        found: dict[str, list[float]] = {rule: [] for rule in rules}
        taken = dict.fromkeys(rules, 0.0)
        for seed in range(SEEDS):
            for rule, finder in rules.items():
                with tempfile.TemporaryDirectory() as folder, mock.patch.object(cohort, "RowFinder", finder):
                    laboratory = Laboratory(
                        dataset, metric="auc", seed=seed, device=torch.device("cpu"), folder=Path(folder)
                    )
                    started = time.perf_counter()
                    outcome = laboratory.run(baseline("dcn-v2").replace(seed=seed, embedding_rate=rate))
                    taken[rule] += time.perf_counter() - started
                auc = score_members(outcome.cohort, test, dataset)[0].auc
                assert auc is not None
                found[rule].append(auc)
        lazy, dense = found.values()
        gap = mean_interval([mine - other for mine, other in zip(lazy, dense, strict=True)])
        print(
            f"embedding_rate {rate:g}: test AUC {mean_interval(lazy).mean:.5f} with Adam on the rows of the batch, "
            f"{mean_interval(dense).mean:.5f} on the whole table, difference {gap.mean:+.5f} ± {gap.half:.5f} over "
            f"{SEEDS} seeds; {taken['rows of the batch']:.0f} and {taken['whole table']:.0f} s"
        )
