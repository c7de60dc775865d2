"""The one-shot search of OptFusion (arXiv 2411.15731): weights, gates and operators learned in one supernet."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import ADD, OPERATORS, PRODUCT, Architecture, Node, consumers, inputs, one_hot, parallel
from autoctr.model.candidate import Candidate
from autoctr.model.gates import open_gates
from autoctr.model.network import Batch, Network
from autoctr.training.cohort import Cohort
from autoctr.training.fit import OutOfTime, Splits, score_members
from autoctr.training.keeping import Work
from autoctr.training.metrics import log_loss
from autoctr.training.rows import ResidentRows

HELD_OUT = 0.2
LARGEST_BATCH, SMALLEST_BATCH = 512, 64
LEARNING_RATE = 1e-3
FEWEST_STEPS = 250
DROP_ROWS, PROBE_ROWS = 16_384, 2048
DROP_TOLERANCE = 1e-5
SIGNAL_ROWS = 512
SIGNAL_SHARE = 1e-3

#: Fields the supernet depends on. Training settings are fixed, so that equal genes share one run.
SUPERNET_FIELDS = (
    "embedding", "width", "blocks", "cross", "norm", "architecture_rate", "warmup", "alternating", "search_epochs",
    "sparsity", "sparsity_tilt", "sparsity_form", "sparsity_alpha", "sparsity_epsilon", "sparsity_beta",
    "pruner_input", "input_pruner", "rank", "rank_tilt", "rank_divisor", "learned", "order", "precision",
)  # fmt: skip
#: Those in which supernets that train together must agree, beside their shape.
SCHEDULE_FIELDS = ("warmup", "alternating", "search_epochs")
#: Further fields that it depends on where its rows read snapshots.
SNAPSHOT_FIELDS = ("snapshots", "pooling", "warm_share")


def supernet_candidate(candidate: Candidate, seed: int, train_rows: int) -> Candidate:
    """The supernet that a candidate's architecture is read from: its genes, and defaults for everything else."""
    names = [*SUPERNET_FIELDS, *(SNAPSHOT_FIELDS if candidate.snapshots else ())]
    genes = {name: getattr(candidate, name) for name in names}
    batch = search_batch(candidate, train_rows)
    return Candidate(**genes, architecture="learn", batch=batch, learning_rate=LEARNING_RATE, averaging=0.0, seed=seed)


def search_batch(candidate: Candidate, train_rows: int) -> int:
    """Rows of a supernet's step: 512, and on a small table as few as make 250 steps, though never below 64.

    Gates need some dozens of steps to move at all (51 at a rate of 0.01), however small the table is.
    """
    fitting = math.ceil(candidate.search_epochs * train_rows) // max(FEWEST_STEPS, 1)
    return min(LARGEST_BATCH, max(SMALLEST_BATCH, fitting))


def search_rows(candidate: Candidate, train_rows: int) -> int:
    """Training rows that the supernet visits: ``search_epochs`` passes, and never fewer than 250 steps."""
    return max(math.ceil(candidate.search_epochs * train_rows), FEWEST_STEPS * search_batch(candidate, train_rows))


def train_supernets(
    candidates: Sequence[Candidate],
    splits: Splits,
    dataset: Dataset,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    deadline: float = math.inf,
    work: Work | None = None,
) -> Cohort:
    """Train supernets, which agree in ``SCHEDULE_FIELDS``, together for ``search_epochs`` passes.

    Gates and operators rest for the first ``warmup`` share of the rows. Then they move on the weights' own batch
    (the paper), or, if ``alternating``, on batches of a fifth of the training rows that the weights never see.

    Args:
        work: where this was interrupted, if it was, and where its states are written.

    Raises:
        OutOfTime: if ``deadline`` (``time.monotonic()``) passes.
    """
    train, candidate = splits.train, candidates[0]
    cohort = Cohort.on(dataset, candidates, device=device)
    total = search_rows(candidate, len(train))
    held_out = _held_out(train, seed) if candidate.alternating else None
    weighed = None if held_out is None else ~held_out
    single = candidate.order == "alternating"
    if work is not None:
        work.resume(cohort)
    wiring_batches = None
    if held_out is not None:
        wiring_batches = _passes(train, seed + 1, candidate.batch, held_out, single, cohort.wiring_steps)
    for batch in _passes(train, seed, candidate.batch, weighed, single, cohort.steps):
        if cohort.rows >= total:
            break
        if time.monotonic() > deadline:
            raise OutOfTime
        moving = cohort.rows >= candidate.warmup * total
        cohort.step(batch, wire=moving and wiring_batches is None)
        if moving and wiring_batches is not None:
            cohort.step(next(wiring_batches), wire=True, weigh=False)
        if work is not None:
            work.offer(cohort)
    return cohort


def _held_out(train: ResidentRows, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=generator)
    held_out = torch.zeros(len(train), dtype=torch.bool)
    held_out[order[: max(1, round(HELD_OUT * len(train)))]] = True
    return held_out.to(train.device)


def _passes(
    train: ResidentRows, seed: int, batch: int, chosen: Tensor | None, alternating: bool, skipped: int
) -> Iterator[Batch]:
    """Pass after pass, without the first ``skipped`` batches."""
    batches = (
        piece
        for epoch in itertools.count()
        for piece in train.batches(seed, epoch, batch, chosen, alternating=alternating)
    )
    return itertools.islice(batches, skipped, None)


def read_out(supernet: Cohort, candidate: Candidate, splits: Splits, dataset: Dataset) -> Architecture:
    """The discrete architecture of a trained supernet of one member.

    ``hard`` takes the open gates and each node's heaviest operator, ``soft`` keeps the operators' mixture, and
    ``drop`` keeps at each node the operator, and then only the connections, whose loss costs validation.
    """
    views = supernet.network.architecture.views(supernet.architecture)
    soft = []
    for name, count in zip(consumers(candidate.blocks), inputs(candidate.blocks), strict=True):
        gates, operators = views.get(f"{name}.gates"), views.get(f"{name}.operators")
        flags = (True,) * count if gates is None else tuple(map(bool, open_gates(gates[0]).tolist()))
        shares = one_hot(ADD) if operators is None else tuple(operators[0].double().softmax(-1).tolist())
        soft.append(Node(flags, (shares[0], shares[1], shares[2], shares[3])))
    mixture = Architecture(tuple(soft))
    if candidate.readout == "soft":
        return mixture
    if candidate.readout == "hard":
        chosen = Architecture(tuple(Node(n.open, one_hot(n.operators.index(max(n.operators)))) for n in mixture.nodes))
    else:
        chosen = _drop(supernet, mixture, splits.valid.head(DROP_ROWS), candidate.learned)
    return chosen if candidate.retrain == "supernet" else trainable(chosen, mixture, candidate, splits.valid, dataset)


def trainable(
    chosen: Architecture, mixture: Architecture, candidate: Candidate, valid: ResidentRows, dataset: Dataset
) -> Architecture:
    """``chosen``, with products replaced until a network that starts from scratch passes its input on.

    Products of inputs near 0 multiply to nothing: below a thousandth of the ``parallel`` wiring's signal, gradients
    vanish in Adam's ε and the network never leaves chance. The product whose share in ``mixture`` leads the least
    gives way to its node's next operator.
    """
    rows = valid.head(SIGNAL_ROWS)

    def signal(architecture: Architecture) -> float:
        member = candidate.replace(wiring=architecture)
        cohort = Cohort.on(dataset, [member], dtype=valid.labels.dtype, device=valid.device)
        return float(cohort.logits(rows).std(1, correction=0).max())

    least = SIGNAL_SHARE * signal(parallel(candidate.blocks))
    while signal(chosen) < least:
        alive, leads = chosen.live(), {}
        for position, (node, shares) in enumerate(zip(chosen.nodes, mixture.nodes, strict=True)):
            is_read = position == len(chosen.nodes) - 1 or position + 2 in alive
            if is_read and node.operators == one_hot(PRODUCT) and sum(node.open) > 1:
                others = [-1.0 if o == PRODUCT else share for o, share in enumerate(shares.operators)]
                leads[position] = (shares.operators[PRODUCT] - max(others), others.index(max(others)))
        if not leads:
            break
        position = min(leads, key=lambda place: leads[place])
        chosen = chosen.with_node(position, Node(chosen.nodes[position].open, one_hot(leads[position][1])))
    return chosen


class _Probe:
    """Losses of architectures with a trained supernet's weights.

    Nodes change from the output backwards, so that what lies before the one in question is still as in the supernet:
    it is computed once.
    """

    def __init__(self, supernet: Cohort, mixture: Architecture, rows: ResidentRows) -> None:
        self.supernet, self.weights, self.labels = supernet, supernet.weights(), rows.labels
        self.chunks: list[tuple[Tensor, Batch, dict[int, Tensor]]] = [
            (numbers, batch, {}) for numbers, batch in rows.chunks(PROBE_ROWS)
        ]
        for _, batch, values in self.chunks:
            self._logits(batch, mixture, values)

    def _logits(self, batch: Batch, architecture: Architecture, values: dict[int, Tensor]) -> Tensor:
        wanted = as_logits(architecture, self.supernet.network)
        with torch.inference_mode():
            return self.supernet.evaluated(batch, self.weights, architecture=wanted, values=values).logits[0]

    def loss(self, architecture: Architecture, position: int) -> float:
        """Log-loss on the rows of a network whose nodes before ``position`` are those of the mixture."""
        logits = torch.empty_like(self.labels)
        for numbers, batch, values in self.chunks:
            known = {number: value for number, value in values.items() if number < position + 2}
            logits[numbers] = self._logits(batch, architecture, known)
        return float(log_loss(logits, self.labels))


def as_logits(architecture: Architecture, network: Network) -> Tensor:
    """Gate and operator logits with which a supernet computes ``architecture``, [1, A]."""
    logits = torch.zeros(1, network.architecture.size, dtype=network.dtype)
    views = network.architecture.views(logits)
    for name, node in zip(consumers(network.blocks), architecture.nodes, strict=True):
        if f"{name}.gates" in views:
            views[f"{name}.gates"].copy_(torch.tensor([1.0 if is_open else -1.0 for is_open in node.open]))
        if f"{name}.operators" in views:
            views[f"{name}.operators"].copy_(torch.tensor(node.operators, dtype=torch.float64).log())
    return logits.to(network.device)


def _drop(supernet: Cohort, mixture: Architecture, valid: ResidentRows, learned: str) -> Architecture:
    """Greedy removal by measured validation loss, node by node from the output backwards.

    An operator's worth is the loss when it alone stays at its node. Then connections close one after another,
    as long as the loss does not rise by more than 1e-5. What was not ``learned`` stays as it is.
    """

    probe, current = _Probe(supernet, mixture, valid), mixture
    for position in range(len(mixture.nodes) - 1, -1, -1):
        if position < len(mixture.nodes) - 1 and position + 2 not in current.live():
            continue
        node = current.nodes[position]
        operators = [ADD] if learned == "connections" else range(len(OPERATORS))
        options = [current.with_node(position, Node(node.open, one_hot(o))) for o in operators]
        losses = [probe.loss(option, position) for option in options]
        lowest = min(losses)
        current = options[losses.index(lowest)]
        for u in range(len(node.open)) if learned != "operators" else ():
            node = current.nodes[position]
            flags = tuple(is_open and v != u for v, is_open in enumerate(node.open))
            if not node.open[u] or not any(flags):
                continue
            option = current.with_node(position, Node(flags, node.operators))
            after = probe.loss(option, position)
            if after <= lowest + DROP_TOLERANCE:
                current, lowest = option, min(after, lowest)
    return Architecture(tuple(n if n.hard else Node(n.open, one_hot(0)) for n in current.nodes))


def discretise(
    supernet: Cohort, architecture: Architecture, dataset: Dataset, candidate: Candidate | None = None
) -> Cohort:
    """The discrete network with the supernet's weights, as a cohort that has not been trained further.

    Args:
        candidate: whose settings the discrete network takes; the supernet's own by default.
    """
    member = (candidate or supernet.network.candidates[0]).replace(wiring=architecture, blocks=architecture.blocks)
    network = supernet.network
    return Cohort.on(dataset, [member], device=network.device, dtype=network.dtype, start=supernet)


@dataclasses.dataclass(frozen=True)
class Gap:
    """Validation metrics of the relaxed supernet and of its discrete form with the same weights."""

    relaxed: float
    discrete: float


def discretisation_gap(supernet: Cohort, discrete: Cohort, splits: Splits, dataset: Dataset, metric: str) -> Gap:
    """How much the read-out costs before any retraining."""
    scores = [score_members(cohort, splits.valid, dataset)[0] for cohort in (supernet, discrete)]
    return Gap(*(getattr(score, metric) for score in scores))
