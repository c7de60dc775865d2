"""Winners as exports, beside the plain network and beside themselves as they were searched.

    python tests/benchmarks/exports.py train DATASET --data DIR --out OUT --winners WINNER.json ...
    python tests/benchmarks/exports.py measure DATASET --data DIR --out OUT

``train`` trains every winner once and exports it in all formats, and once more with embeddings in int8. ``measure``
times them on each domain's own test rows, in turns, and prints two tables; give the machine nothing else to do then.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import seconds

from autoctr.data.dataset import Dataset, Rows
from autoctr.data.presets import load_dataset
from autoctr.errors import UserError
from autoctr.export.card import CARD
from autoctr.export.folder import write_folder
from autoctr.export.formats import FORMATS
from autoctr.export.served import load_format
from autoctr.export.standalone import probabilities
from autoctr.model.candidate import Candidate
from autoctr.model.network import Batch
from autoctr.search.baselines import baseline
from autoctr.search.compare import as_learned, read_winner
from autoctr.search.trial import Laboratory, snapshot_seed
from autoctr.training import checkpoint
from autoctr.training.cohort import SCORING_ROWS, Cohort
from autoctr.training.periods import with_snapshots
from autoctr.training.rows import ResidentRows
from autoctr.training.snapshots import newest

PLAIN, SEARCHED, NETWORK = "dcn-v2", "searched", "network.safetensors"
BATCHES = {1: 60, 4096: 12}  # rows: rounds


def train(dataset: Dataset, out: Path, winners: Sequence[Path], seed: int, epochs: int) -> None:
    """Train what ``out`` does not hold yet, and export all of it."""
    found = {PLAIN: baseline(PLAIN), **{name: as_learned(candidate) for name, candidate in map(read_winner, winners)}}
    for name, candidate in found.items():
        weights = out / name / NETWORK
        if not weights.exists():
            weights.parent.mkdir(parents=True, exist_ok=True)
            laboratory = Laboratory(
                dataset, metric="wauc", seed=seed, device=torch.device("cpu"), folder=weights.parent
            )
            passes = min(candidate.epochs, max(epochs, _ticket_passes(candidate)))
            cohort = laboratory.run(candidate.replace(seed=seed, precision="fp32", epochs=passes)).cohort
            checkpoint.save(weights, cohort.network, cohort.weights())
        cohort, read = _trained(dataset, out / name, seed)
        write_folder(cohort, read, out / name / "model", {}, formats=FORMATS)
        write_folder(cohort, read, out / name / "int8", {}, embeddings="int8")
        print(f"{name}: trained and exported", flush=True)


def _ticket_passes(candidate: Candidate) -> int:
    return math.ceil(candidate.ticket_rounds * candidate.ticket_epochs) if candidate.keep_rate < 1 else 0


def _trained(dataset: Dataset, folder: Path, seed: int) -> tuple[Cohort, Dataset]:
    """A network, and the data set as it reads it."""
    candidate = checkpoint.read_candidate(folder / NETWORK)
    read = with_snapshots(dataset, candidate, seed=snapshot_seed(seed), folder=folder / "snapshots")
    return checkpoint.load(folder / NETWORK, read), read


def measure(dataset: Dataset, out: Path, seed: int) -> None:
    """Print what the exports hold, then how fast they answer."""
    names = sorted(
        (path.parent.parent.name for path in out.glob(f"*/int8/{CARD}")), key=lambda name: (name != PLAIN, name)
    )
    print("| winner of | weights, searched | exported | int8 | AUC by int8 | python | onnx | pt2 |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        card, small = (json.loads((out / name / kind / CARD).read_text()) for kind in ("model", "int8"))
        held, auc = card["footprint"]["bytes"], small["rounding"]["auc"]["difference"]
        apart = " | ".join(f"{card['check'][kind]['largest_difference']:.1e}" for kind in FORMATS)
        sizes = [held["before"], held["after"], small["footprint"]["bytes"]["after"]]
        print(f"| {name} | {' | '.join(f'{size / 1e6:.2f} MB' for size in sizes)} | {auc:+.6f} | {apart} |")
    heads = [f"{kind}, {rows:,}" for rows in BATCHES for kind in (SEARCHED, *FORMATS)]
    print(f"\n| winner of | domain | multiply-adds | {' | '.join(heads)} |")
    print("|" + "---|" * (3 + len(heads)))
    plain = {kind: load_format(out / PLAIN / "model", kind) for kind in FORMATS}
    ratios: dict[tuple[str, int, str], list[float]] = {}
    for name in names:
        card = json.loads((out / name / "model" / CARD).read_text())
        cohort, read = _trained(dataset, out / name, seed)
        served = {kind: load_format(out / name / "model", kind) for kind in FORMATS}
        for number, costs in enumerate(card["footprint"]["domains"][:-1]):
            texts = []
            for rows, rounds in BATCHES.items():
                own = _rows_of(read.test, number, rows)
                own = newest(own, cohort.network.statistics, cohort.network.embedding.tables)
                resident = ResidentRows(own, len(read.statistics.domains), dtype=torch.float32, device="cpu")
                batches = [batch for _, batch in resident.chunks(SCORING_ROWS)]
                steps: dict[str, Callable[[], object]] = {SEARCHED: partial(_searched, cohort, batches)}
                for kind, model in served.items():
                    steps[kind] = partial(probabilities, model, {key: getattr(own, key) for key in model.inputs})
                for kind, model in plain.items():
                    bare = _rows_of(dataset.test, number, rows)
                    inputs = {key: getattr(bare, key) for key in model.inputs}
                    steps[f"plain {kind}"] = partial(probabilities, model, inputs)
                taken = seconds(steps, rounds=rounds)
                for kind in FORMATS:
                    for beside in (SEARCHED, f"plain {kind}"):
                        key = (f"{kind} / {beside.split()[0]}", rows, name)
                        ratios.setdefault(key, []).append(taken[kind] / taken[beside])
                texts += [f"{1000 * taken[kind]:.2f}" for kind in (SEARCHED, *FORMATS)]
            adds = f"{costs['before']['multiply_adds']:,} -> {costs['after']['multiply_adds']:,}"
            print(f"| {name} | {costs['domain']} | {adds} | {' | '.join(texts)} |", flush=True)
    print("\ntimes the seconds of the network as searched, and of the plain network in the same format; domains' mean")
    for (what, rows, name), values in sorted(ratios.items()):
        print(f"{what}, {rows:,} rows, {name}: {np.mean(values):.2f}x ({min(values):.2f} to {max(values):.2f})")


def _searched(cohort: Cohort, batches: Sequence[Batch]) -> None:
    weights = cohort.weights()
    with torch.inference_mode():
        for batch in batches:
            cohort.evaluated(batch, weights)


def _rows_of(rows: Rows, domain: int, count: int) -> Rows:
    """As many rows of a domain, repeated where it has fewer."""
    own = np.flatnonzero(rows.domain == domain)
    return rows.take(np.resize(own, count))


def main() -> None:
    """Train or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "measure"))
    parser.add_argument("dataset")
    parser.add_argument("--winners", nargs="+", type=Path, default=[], metavar="JSON")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100, help="passes over the rows at most")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        dataset = load_dataset(arguments.dataset, data=arguments.data)
    except UserError as error:
        sys.exit(str(error))
    if arguments.what == "train":
        train(dataset, arguments.out, arguments.winners, arguments.seed, arguments.epochs)
    else:
        print(f"{arguments.dataset}, {arguments.threads} threads; milliseconds per batch")
        measure(dataset, arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
