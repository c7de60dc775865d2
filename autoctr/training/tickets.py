"""Finding lottery tickets: train, prune the smallest weights, rewind to θ_k, round after round.

LT4REC (arXiv 2008.09872) prunes per task, here also per domain; rewinding to an early step k instead of the fresh
weights is arXiv 1903.01611. All units and the joint training that follows start from one and the same θ_k. A rewind
restores weights, embeddings and normalisation, and starts the optimiser's moments anew.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import producers
from autoctr.model.candidate import Candidate
from autoctr.model.network import Network
from autoctr.model.tickets import overlap, prune, round_rate, spread_masks
from autoctr.training.cohort import Cohort, Member, Weights
from autoctr.training.fit import OutOfTime, Splits
from autoctr.training.keeping import Work
from autoctr.training.metrics import log_loss
from autoctr.training.rows import ResidentRows

#: Fields in which candidates must agree to find their tickets in one cohort.
TICKET_FIELDS = ("rewind", "ticket_unit", "ticket_rounds", "ticket_epochs", "batch", "order")
STEPS_PER_PASS = 50
SMALLEST_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Tickets:
    """Masks of one candidate.

    ``start`` is θ_k. ``masks`` [U, M] over the candidate's own maskable weights. ``kept`` is each unit's share of
    survivors, ``overlap`` the mean Jaccard index of two units (None for a single unit), ``rows`` what was visited.
    """

    start: Member
    masks: Tensor
    kept: tuple[float, ...]
    overlap: float | None
    rows: int


def train_rows(
    cohort: Cohort,
    rows: ResidentRows,
    count: int,
    *,
    seed: int,
    batch: int,
    chosen: Tensor | None = None,
    task: int | None = None,
    deadline: float = math.inf,
    work: Work | None = None,
) -> None:
    """Train on at least ``count`` of the ``chosen`` rows, pass after pass.

    Args:
        work: where this was interrupted, if it was, and where its states are written.

    Raises:
        OutOfTime: if ``deadline`` (``time.monotonic()``) passes.
    """
    alternating = cohort.network.candidates[0].order == "alternating"
    size = len(rows) if chosen is None else int(chosen.sum())
    first = cohort.rows
    if work is not None:
        work.resume(cohort)
    while size and cohort.rows < first + count:
        epoch, visited = divmod(cohort.rows - first, size)
        for piece in rows.batches(seed, epoch, batch, chosen, alternating=alternating, visited=visited):
            if cohort.rows >= first + count:
                return
            if time.monotonic() > deadline:
                raise OutOfTime
            cohort.step(piece, task=task)
            if work is not None:
                work.offer(cohort)


def find_tickets(
    candidates: Sequence[Candidate],
    splits: Splits,
    dataset: Dataset,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    start: Sequence[Member | None] | None = None,
    deadline: float = math.inf,
    work: Work | None = None,
) -> list[Tickets]:
    """Train to θ_k, then prune each unit in rounds on its own rows (a domain's rows, or a task's label).

    A unit with few rows takes smaller batches, so that a pass over them has about 50 steps.

    Args:
        candidates: members of one cohort that agree in ``TICKET_FIELDS``.
        start: whose weights are θ_0; None = fresh ones.
        work: where this was interrupted, if it was, and where its states are written.

    Raises:
        OutOfTime: if ``deadline`` (``time.monotonic()``) passes.
    """
    train, first = splits.train, candidates[0]
    plain = [candidate.replace(averaging=0.0) for candidate in candidates]
    theta = Cohort.on(dataset, plain, device=device, start=start)
    before = None if work is None else work.part("theta")
    count = round(first.rewind * len(train))
    train_rows(theta, train, count, seed=seed, batch=first.batch, deadline=deadline, work=before)
    visited = theta.rows
    if before is not None:
        before.later(theta)
    network = theta.network
    maskable, units = network.maskable, network.units
    names = [maskable_names(network, index) for index in range(network.members)]
    sizes = [[maskable.weights[name].size for name in own] for own in names]
    masks = [torch.ones(units, sum(own), dtype=torch.bool, device=network.device) for own in sizes]
    done = 0
    rounds = None if work is None else work.part("masks")
    if rounds is not None and (found := rounds.find()) is not None:
        masks = [found[0][str(index)] for index in range(network.members)]
        done, visited = found[1]["done"], found[1]["visited"]
    for unit in range(units) if maskable.weights else ():
        chosen = train.domain == unit if first.ticket_unit == "domain" else None
        task = unit if first.ticket_unit == "task" else None
        own_rows = len(train) if chosen is None else int(chosen.sum())
        if not own_rows:
            continue
        batch = min(first.batch, max(SMALLEST_BATCH, own_rows // STEPS_PER_PASS))
        for number in range(unit * first.ticket_rounds, (unit + 1) * first.ticket_rounds):
            if number < done:
                continue
            cohort = Cohort.on(dataset, plain, device=device, start=theta)
            give_masks(cohort, masks)
            count = math.ceil(first.ticket_epochs * own_rows)
            part = None if work is None else work.part(f"round#{number}")
            train_rows(
                cohort, train, count, seed=seed, batch=batch, chosen=chosen, task=task, deadline=deadline, work=part
            )
            visited += cohort.rows
            views = cohort.network.layout.views(cohort.flat)
            for index, candidate in enumerate(candidates):
                weights = [views[name][index].flatten() for name in names[index]]
                layers = sizes[index] if candidate.ticket_ranking == "layer" else None
                rate = round_rate(candidate.keep_rate, candidate.ticket_rounds)
                if weights:
                    masks[index][unit] = prune(torch.cat(weights), masks[index][unit], rate, layers)
            if rounds is not None:
                given = {str(index): mask.clone() for index, mask in enumerate(masks)}
                rounds.keep(given, {"done": number + 1, "visited": visited})
    return [_tickets(member, mask, visited) for member, mask in zip(theta.members, masks, strict=True)]


def _tickets(member: Member, masks: Tensor, visited: int) -> Tickets:
    units, size = masks.shape
    kept = tuple((masks.sum(1) / size).tolist()) if size else (1.0,) * units
    shared = None
    if units > 1:
        pairs = overlap(masks)
        shared = float((pairs.sum() - pairs.diagonal().sum()) / (units * (units - 1)))
    return Tickets(member, masks, kept, shared, visited)


def maskable_names(network: Network, index: int) -> list[str]:
    """Names of the weights that tickets may prune and that a member uses."""
    wiring = network.candidates[index].wiring
    names = list(network.maskable.weights)
    if wiring is None or network.relaxed:
        return names
    live = {f"{producers(wiring.blocks)[position]}.weight" for position in wiring.live()}
    return [name for name in names if name in live]


def give_masks(cohort: Cohort, masks: Sequence[Tensor]) -> None:
    """Let every member train with its tickets: masks [U, m] over its own maskable weights."""
    network = cohort.network
    own = [maskable_names(network, index) for index in range(network.members)]
    spread = [spread_masks(*pair, network.maskable) for pair in zip(masks, own, strict=True)]
    cohort.masks = torch.stack(spread).to(network.device, network.dtype)


def error_barrier(
    start: Member,
    splits: Splits,
    dataset: Dataset,
    *,
    seeds: tuple[int, int],
    epochs: float,
    masks: Tensor | None = None,
    points: int = 11,
) -> float:
    """How far θ_k is from being stable: two trainings that differ in their data order only, and the line between them.

    max over t of loss((1 - t) w_1 + t w_2) - ((1 - t) loss(w_1) + t loss(w_2)), at least 0, of validation log-loss.
    Near 0 the two runs end in one basin, and a ticket found in one fits the other (arXiv 1912.05671).

    Args:
        start: θ_k. seeds: of the two data orders. epochs: passes of each training. points: values of t.
    """
    network = start.cohort.network
    candidate = start.candidate.replace(averaging=0.0)
    ends = []
    for seed in seeds:
        cohort = Cohort.on(dataset, [candidate], device=network.device, start=[start], masks=masks)
        count = math.ceil(epochs * len(splits.train))
        train_rows(cohort, splits.train, count, seed=seed, batch=candidate.batch)
        ends.append(cohort)
    first, second = (cohort.weights() for cohort in ends)

    def loss(t: float) -> float:
        between = Weights(
            torch.lerp(first.flat, second.flat, t),
            torch.lerp(first.table, second.table, t),
            torch.lerp(first.running, second.running, t),
            first.architecture,
            first.progress,
            first.masks,
        )
        return float(log_loss(ends[0].logits(splits.valid, between)[0], splits.valid.labels))

    steps = [point / (points - 1) for point in range(points)]
    losses = [loss(t) for t in steps]
    return max(0.0, *(value - (1 - t) * losses[0] - t * losses[-1] for t, value in zip(steps, losses, strict=True)))
