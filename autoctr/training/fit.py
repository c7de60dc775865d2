"""Training a cohort to its end: passes over the rows, scores at rungs, early stopping, the best weights kept."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

from autoctr.data.dataset import Dataset
from autoctr.model.tasks import counted_rows
from autoctr.training.cohort import Cohort, Weights
from autoctr.training.metrics import Scores, score
from autoctr.training.rows import ResidentRows


class OutOfTime(Exception):
    """The deadline passed before the first score."""


class Diverged(Exception):
    """A member's scores are no longer finite numbers."""


@dataclasses.dataclass(frozen=True)
class Rung:
    """A scoring of one member: rows visited so far (over all stages), its scores, and training speed in rows/s."""

    rows: int
    scores: Scores
    speed: float


@dataclasses.dataclass
class Fitted:
    """One member after its fit: the weights of its best rung and every rung's scores."""

    weights: Weights
    best: Scores
    rungs: list[Rung]
    reason: str


@dataclasses.dataclass(frozen=True)
class Splits:
    """Training and validation rows on the device."""

    train: ResidentRows
    valid: ResidentRows


def rung_rows(train_rows: int) -> int:
    """Training rows between two scores: a pass over the data, or 4 million rows where a pass is longer."""
    return min(train_rows, 4_000_000)


def score_members(
    cohort: Cohort, rows: ResidentRows, dataset: Dataset, task: int = 0, weights: Weights | None = None
) -> list[Scores]:
    """Metrics of every member on ``rows`` for one task, by the cohort's present weights unless others are given.

    A task that is learned on clicked rows alone is scored on them alone.
    """
    logits, labels, domain, user = (
        cohort.logits(rows, weights)[:, :, task],
        rows.labels[:, task],
        rows.domain,
        rows.user,
    )
    counted = counted_rows(cohort.network.candidates[0].task_space, rows.labels)
    if counted is not None:
        chosen = counted[:, task] > 0
        logits, labels, domain = logits[:, chosen], labels[chosen], domain[chosen]
        user = None if user is None else user[chosen]
    return [score(member, labels, domain, dataset.statistics.domains, user) for member in logits]


def fit(
    cohort: Cohort,
    splits: Splits,
    dataset: Dataset,
    *,
    metric: str,
    seed: int,
    epochs: float,
    patience: int = 2,
    visited: int = 0,
    deadline: float = math.inf,
    on_rung: Callable[[Rung], bool] = lambda rung: True,
    score_start: bool = False,
) -> Fitted:
    """Train one member's discrete network until it stops improving.

    Args:
        metric: chooses the best rung.
        seed: of the batch order.
        epochs: most passes over the training rows.
        patience: scores without a new best after which training stops.
        visited: rows that earlier stages have visited.
        deadline: ``time.monotonic()`` at which training stops, in seconds.
        on_rung: told each score; False stops the fit.
        score_start: the weights before the first step count as well.

    Raises:
        OutOfTime: if the deadline passes before the first score.
        Diverged: if the first scores are not finite.
    """
    batch = cohort.network.candidates[0].batch
    alternating = cohort.network.candidates[0].order == "alternating"
    every, limit = rung_rows(len(splits.train)), math.ceil(epochs * len(splits.train))
    best: Fitted | None = None
    rungs: list[Rung] = []
    due, since, epoch, started = every, 0, 0, time.monotonic()
    reason = "epochs"
    if score_start:
        weights = cohort.weights()
        scores = score_members(cohort, splits.valid, dataset, weights=weights)[0]
        best = Fitted(weights.copy(), scores, rungs, reason)
    while cohort.rows < limit:
        for rows in splits.train.batches(seed, epoch, batch, alternating=alternating):
            cohort.step(rows)
            if time.monotonic() > deadline:
                if best is None:
                    raise OutOfTime
                best.reason = "time"
                return best
            if cohort.rows < min(due, limit):
                continue
            due += every
            speed = every / (time.monotonic() - started)
            weights = cohort.weights()
            scores = score_members(cohort, splits.valid, dataset, weights=weights)[0]
            if not math.isfinite(scores.logloss):
                if best is None:
                    raise Diverged
                best.reason = "diverged"
                return best
            rungs.append(Rung(visited + cohort.rows, scores, speed))
            if best is None or scores.value(metric) > best.best.value(metric):
                best = Fitted(weights.copy(), scores, rungs, reason)
                since = 0
            else:
                since += 1
            if not on_rung(rungs[-1]):
                best.reason = "weak"
                return best
            if since >= patience:
                best.reason = "patience"
                return best
            started = time.monotonic()
            if cohort.rows >= limit:
                break
        epoch += 1
    assert best is not None
    best.reason = reason
    return best
