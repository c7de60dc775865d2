"""Whole fits of eight members together beside each of them alone, and alone again from weights one rounding away."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from autoctr.data.presets import load_dataset
from autoctr.model.architecture import FIXED
from autoctr.model.candidate import Candidate
from autoctr.search.baselines import baseline
from autoctr.search.trial import Laboratory

PLAIN = baseline("dcn-v2")
MEMBERS: list[Candidate] = [
    PLAIN,
    PLAIN.replace(learning_rate=1e-3, weight_decay=1e-3),
    PLAIN.replace(dropout=0.5, embedding_dropout=0.1),
    PLAIN.replace(rank=8, rank_tilt=1.0),
    PLAIN.replace(rank=2, sparsity=0.2),
    PLAIN.replace(sparsity=0.4, sparsity_tilt=1.0, averaging=0.0),
    PLAIN.replace(wiring=FIXED["full"](2), embedding_l2=1e-5),
    PLAIN.replace(wiring=FIXED["stacked"](2), embedding_rate=1.0),
]


def parities(arguments: argparse.Namespace) -> None:
    """Differences in the validation AUC of the best pass, beside what a rounding of the first weights makes of it."""
    if arguments.kuairand is None:
        sys.exit("parity needs --kuairand")
    dataset, device = load_dataset("kuairand", data=arguments.kuairand), torch.device(arguments.device)
    members = [member.replace(seed=seed, precision=arguments.precision) for seed, member in enumerate(MEMBERS)]
    with tempfile.TemporaryDirectory() as folder:
        laboratory = Laboratory(dataset, metric="auc", seed=0, device=device, folder=Path(folder))
        together = _aucs(laboratory, members)
        alone = [_aucs(laboratory, [member])[0] for member in members]
        nudged = [_aucs(laboratory, [member], 1 + torch.finfo(torch.float32).eps)[0] for member in members]
    print(
        f"{arguments.precision}: validation AUC {min(alone):.5f} to {max(alone):.5f}; of {len(members)} members "
        f"together and alone {_differences(together, alone)}; alone and nudged {_differences(nudged, alone)}"
    )


def _aucs(laboratory: Laboratory, members: list[Candidate], factor: float = 1.0) -> list[float]:
    """The best validation AUC of each, all in one cohort that starts from weights times ``factor``."""
    fit = laboratory.begin(laboratory.prepare(members))
    fit.cohort.flat *= factor
    while not all(standing.ended for standing in fit.standings):
        fit.advance()
    return [standing.best.auc or 0.0 for standing in fit.standings if standing.best is not None]


def _differences(some: list[float], others: list[float]) -> str:
    found = [abs(mine - theirs) for mine, theirs in zip(some, others, strict=True)]
    return f"mean {sum(found) / len(found):.1e}, largest {max(found):.1e}"
