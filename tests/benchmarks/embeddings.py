"""Adam on the embedding rows of the batch beside Adam on the whole table, on KuaiRand."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from autoctr.data.presets import load_dataset
from autoctr.search.baselines import baseline
from autoctr.search.trial import Laboratory
from autoctr.training.bootstrap import mean_interval
from autoctr.training.cohort import Cohort
from autoctr.training.fit import score_members
from autoctr.training.rows import ResidentRows

SEEDS, RATES = 5, (1.0, 4.0)


def every_row(cohort: Cohort, ids: Tensor) -> tuple[Tensor, Tensor]:
    """In place of ``Cohort.distinct``: the whole table moves at each step, its moments included."""
    return torch.arange(len(cohort.table), device=ids.device), ids


def embeddings(arguments: argparse.Namespace) -> None:
    """Test AUC of whole fits, early stopping included, paired over seeds; and their seconds."""
    if arguments.kuairand is None:
        sys.exit("embeddings needs --kuairand")
    dataset = load_dataset("kuairand", data=arguments.kuairand)
    domains = len(dataset.statistics.domains)
    test = ResidentRows(dataset.test, domains, dtype=torch.float32, device="cpu")
    rules = {"rows of the batch": Cohort.distinct, "whole table": every_row}
    for rate in RATES:
        found: dict[str, list[float]] = {rule: [] for rule in rules}
        taken = dict.fromkeys(rules, 0.0)
        for seed in range(SEEDS):
            for rule, distinct in rules.items():
                with tempfile.TemporaryDirectory() as folder:
                    Cohort.distinct = distinct  # type: ignore[method-assign]
                    laboratory = Laboratory(
                        dataset, metric="auc", seed=seed, device=torch.device("cpu"), folder=Path(folder)
                    )
                    started = time.perf_counter()
                    outcome = laboratory.run(baseline("dcn-v2").replace(seed=seed, embedding_rate=rate))
                    taken[rule] += time.perf_counter() - started
                auc = score_members(outcome.cohort, test, dataset)[0].auc
                assert auc is not None
                found[rule].append(auc)
        Cohort.distinct = rules["rows of the batch"]  # type: ignore[method-assign]
        lazy, dense = found.values()
        gap = mean_interval([mine - other for mine, other in zip(lazy, dense, strict=True)])
        print(
            f"embedding_rate {rate:g}: test AUC {mean_interval(lazy).mean:.5f} with Adam on the rows of the batch, "
            f"{mean_interval(dense).mean:.5f} on the whole table, difference {gap.mean:+.5f} ± {gap.half:.5f} over "
            f"{SEEDS} seeds; {taken['rows of the batch']:.0f} and {taken['whole table']:.0f} s"
        )
