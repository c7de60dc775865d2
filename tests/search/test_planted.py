"""Whether what was planted in taobao-sim is found: five draws of truth, rows and weights per claim, paired."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from autoctr.data.dataset import Dataset
from autoctr.data.presets import load_dataset
from autoctr.data.simulation import PIECES, RANKS, TRUTH_FILE, WIDTH, Truth, piece_of_factors
from autoctr.model import sparsity
from autoctr.model.architecture import ADD, ATTENTION, FIXED, PRODUCT, Architecture, Node, one_hot, producers
from autoctr.model.candidate import Candidate
from autoctr.model.fusion import FusionNetwork
from autoctr.search.trial import Laboratory, Outcome
from autoctr.training.fit import score_members
from autoctr.training.metrics import Scores
from autoctr.training.rows import ResidentRows

pytestmark = pytest.mark.slow

SEEDS = range(5)
LEARN = Candidate(
    architecture="learn", blocks=1, width=64, embedding=4, readout="drop", search_epochs=2, batch=512, epochs=12,
    learning_rate=3e-3,
)  # fmt: skip
ADAPTED = Candidate(
    architecture="deep", wiring=FIXED["deep"](1), blocks=1, width=0, embedding=4, batch=512, epochs=8,
    learning_rate=2e-3,
)  # fmt: skip
PRUNED = Candidate(
    architecture="parallel", wiring=FIXED["parallel"](1), blocks=1, width=64, sparsity=0.4, input_pruner=True,
    pruner_input="domain", batch=512, epochs=8, learning_rate=1e-2,
)  # fmt: skip


def laboratory(folder: Path, rows: int, seed: int, truth: str = "full") -> Laboratory:
    dataset = load_dataset("taobao-sim", rows=rows, seed=seed, truth=truth)
    own = folder / f"{truth}-{seed}"
    return Laboratory(dataset, metric="wauc", seed=seed, device=torch.device("cpu"), folder=own)


def on_test_rows(outcome: Outcome, dataset: Dataset) -> Scores:
    rows = ResidentRows(dataset.test, len(dataset.statistics.domains), dtype=torch.float32, device="cpu")
    return score_members(outcome.cohort, rows, dataset)[0]


def planted(dataset: Dataset) -> tuple[Truth, list[int]]:
    """The truth, and every domain's position in it."""
    truth = Truth.load(Path(dataset.info["source"]) / TRUTH_FILE)
    themes = truth.theme_ids.tolist()
    return truth, [themes.index(int(name)) for name in dataset.statistics.domains]


def paired(differences: list[float]) -> tuple[float, float]:
    """Mean and standard error."""
    return float(np.mean(differences)), float(np.std(differences, ddof=1) / len(differences) ** 0.5)


def without_products(wiring: Architecture) -> Architecture:
    """PRODUCT and ATTENTION, which weighs an input by itself, become ADD; nothing reads a cross component.

    A node that reads nothing else reads E.
    """
    is_cross = [name.startswith("C") for name in producers(wiring.blocks)]
    nodes = []
    for node in wiring.nodes:
        kept = [is_open and not is_cross[u] for u, is_open in enumerate(node.open)]
        kept[0] |= not any(kept)
        operator = node.operators.index(1.0)
        nodes.append(Node(tuple(kept), one_hot(ADD if operator in (PRODUCT, ATTENTION) else operator)))
    return Architecture(tuple(nodes))


def worth_of_products(folder: Path, truth: str) -> tuple[float, float]:
    """Test AUC of the architecture that the supernet finds, less that of the same without products."""
    differences = []
    for seed in SEEDS:
        lab = laboratory(folder, 100_000, seed, truth)
        found = lab.run(LEARN.replace(seed=seed))
        assert found.candidate.wiring is not None
        wiring = without_products(found.candidate.wiring)
        plain = lab.run(found.candidate.replace(architecture="inherit", wiring=wiring))
        scores = [on_test_rows(outcome, lab.dataset).auc or 0.0 for outcome in (found, plain)]
        differences.append(scores[0] - scores[1])
    return paired(differences)


def test_the_supernet_finds_planted_products(tmp_path: Path) -> None:
    mean, error = worth_of_products(tmp_path, "full")
    assert mean > max(2 * error, 0.003)


def test_where_no_products_are_planted_none_are_missed(tmp_path: Path) -> None:
    mean, error = worth_of_products(tmp_path, "additive")
    assert mean < max(2 * error, 0.002)


def test_planted_ranks_beat_smaller_ones(tmp_path: Path) -> None:
    scores = []
    for seed in SEEDS:
        lab = laboratory(tmp_path, 60_000, seed)
        whole = [RANKS[theme] for theme in planted(lab.dataset)[1]]
        outcomes = [
            lab.run(ADAPTED.replace(seed=seed, domain_ranks=tuple(rank // part for rank in whole)))
            for part in (1, 2, 4)
        ]
        scores.append([on_test_rows(outcome, lab.dataset).wauc or 0.0 for outcome in outcomes])
    for smaller in (1, 2):
        mean, error = paired([row[0] - row[smaller] for row in scores])
        assert mean > 2 * error


def closed_fields(outcome: Outcome, rows: ResidentRows) -> npt.NDArray[np.bool_]:
    """Which fields the input pruner closes for each domain, [D, fields]."""
    network, weights = outcome.cohort.network, outcome.cohort.weights()
    assert isinstance(network, FusionNetwork)
    assert network.pruners is not None
    first = [int((rows.domain == domain).nonzero()[0]) for domain in range(rows.domains)]
    embedding = weights.table[rows.ids[first, network.embedding.domain_slot]].transpose(0, 1)
    v = sparsity.pruner_output(network.layout.views(weights.flat), "x0", embedding, embedding)
    closed: npt.NDArray[np.bool_] = (network.pruners.factors(v, weights.progress)[0] == 0).numpy()
    return closed


def excess(closed: npt.NDArray[np.bool_], heard: npt.NDArray[np.bool_]) -> float:
    """Share of noise that is closed, less the share of what is heard; mean over the rows that hold both."""
    pairs = [(row, known) for row, known in zip(closed, heard, strict=True) if known.any() and not known.all()]
    return float(np.mean([row[~known].mean() - row[known].mean() for row, known in pairs]))


def test_pieces_are_closed_where_they_are_noise(tmp_path: Path) -> None:
    """Against the same pieces in themes that hear them, and against the heard pieces of the same themes.

    The users' first piece says in every theme how active a user is, and is left out.
    """
    per_piece, per_theme = [], []
    for seed in SEEDS:
        lab = laboratory(tmp_path, 60_000, seed)
        outcome = lab.run(PRUNED.replace(seed=seed))
        truth, themes = planted(lab.dataset)
        names, width = outcome.cohort.network.embedding.names, WIDTH // PIECES
        closed = closed_fields(outcome, lab.splits.train)
        pieces = [(side, piece) for side in (0, 1) for piece in range(PIECES) if (side, piece) != (0, 0)]
        columns = [names.index(f"{('user', 'item')[s]}_vector[{p * width}:{p * width + width}]") for s, p in pieces]
        closed = closed[:, columns]
        alive = truth.alive[themes].reshape(len(themes), 2, -1)
        heard = np.stack([alive[:, side, piece_of_factors() == piece].all(1) for side, piece in pieces], 1)
        per_piece.append(excess(closed.T, heard.T))
        per_theme.append(excess(closed, heard))
    for differences in (per_piece, per_theme):
        mean, error = paired(differences)
        assert mean > 2 * error
