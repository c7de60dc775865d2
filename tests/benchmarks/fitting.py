"""A fit with validation beside FuxiCTR's, on the same rows of MovieLens-1M."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from ratings import write_ratings

from autoctr.data.presets import load_dataset
from autoctr.model.architecture import parallel
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort
from autoctr.training.fit import Splits, fit, score_members
from autoctr.training.rows import ResidentRows

EPOCHS, ROUNDS = 2, 3
#: 3 crosses and 3 deep layers of 128 over eight embeddings of 16, side by side, as the peer's 3 crosses and its tower.
PLAIN = Candidate(
    embedding=16, width=0, blocks=3, wiring=parallel(3), cross="matrix", batch=4096, learning_rate=1e-3, dropout=0.1,
    epochs=EPOCHS, averaging=0.0,
)  # fmt: skip


def fitting(arguments: argparse.Namespace) -> None:
    """Training rows per second, validation included, and test AUC, in turns."""
    if arguments.data is None or arguments.peer is None:
        sys.exit("fit needs --data and --peer")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = EPOCHS * write_ratings(arguments.data, folder)
        ratios = []
        for number in range(ROUNDS):
            seconds, auc = _ours(folder, number, arguments.precision)
            peer = run_peer(arguments, folder, EPOCHS)
            ratios.append(peer["fit"] / seconds)
            print(
                f"fit of {EPOCHS} passes: autoctr {rows / seconds:,.0f} rows/s, AUC {auc:.5f}; FuxiCTR "
                f"{rows / peer['fit']:,.0f} rows/s, AUC {peer['auc']:.5f}: {ratios[-1]:.2f}x"
            )


def _ours(folder: Path, seed: int, precision: str) -> tuple[float, float]:
    dataset = load_dataset(table=folder / "all.csv", schema=folder / "schema.yaml", cache=folder / "cache")
    train, valid, test = (
        ResidentRows(rows, len(dataset.statistics.domains), dtype=torch.float32, device="cpu")
        for rows in (dataset.train, dataset.valid, dataset.test)
    )
    started = time.perf_counter()
    cohort = Cohort.on(dataset, [PLAIN.replace(seed=seed, precision=precision)])
    fitted = fit(cohort, Splits(train, valid), dataset, metric="auc", seed=seed, epochs=EPOCHS)
    seconds = time.perf_counter() - started
    auc = score_members(cohort, test, dataset, weights=fitted.weights)[0].auc
    assert auc is not None
    return seconds, auc


def run_peer(arguments: argparse.Namespace, folder: Path, epochs: int, *table: str) -> dict[str, Any]:
    """What the peer's process reports."""
    script = Path(__file__).with_name("peer_fuxictr.py")
    done = subprocess.run(
        [str(arguments.peer), str(script), str(folder), str(epochs), *table],
        env={**os.environ, "OMP_NUM_THREADS": str(arguments.threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"the peer failed: {done.stderr.strip().splitlines()[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
