"""Training a cohort to its end: passes over the rows, scores at rungs, early stopping, the best weights kept."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model.network import Batch, Network
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


@dataclasses.dataclass(frozen=True)
class Kept:
    """One member's weights, as they lie in the network of the cohort that it trained in."""

    network: Network
    index: int
    weights: Weights


@dataclasses.dataclass
class Standing:
    """How far a member has come in its fit.

    Attributes:
        limit: rows of the fit after which it ends. visited: rows of earlier stages.
        rungs: all its scores. best: the best of them. kept: the weights that had it. since: scores after the best.
        reason: why it ended (``epochs``, ``patience``, ``diverged``, or what the caller says); empty while it goes on.
    """

    limit: int
    visited: int = 0
    rungs: list[Rung] = dataclasses.field(default_factory=list)
    best: Scores | None = None
    kept: Kept | None = None
    since: int = 0
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether there is a reason to stop."""
        return bool(self.reason)


@dataclasses.dataclass
class Fitted:
    """The only member of a cohort after its fit: the weights of its best rung and every rung's scores."""

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
    return score_logits(cohort, cohort.logits(rows, weights), rows, dataset, task)


def score_logits(cohort: Cohort, found: Tensor, rows: ResidentRows, dataset: Dataset, task: int = 0) -> list[Scores]:
    """The same from the logits of ``rows``, [K, N, tasks]."""
    logits, labels, domain, user = found[:, :, task], rows.labels[:, task], rows.domain, rows.user
    counted = counted_rows(cohort.network.candidates[0].task_space, rows.labels)
    if counted is not None:
        chosen = counted[:, task] > 0
        logits, labels, domain = logits[:, chosen], labels[chosen], domain[chosen]
        user = None if user is None else user[chosen]
    return [score(member, labels, domain, dataset.statistics.domains, user) for member in logits]


class Fit:
    """The members of a cohort on their way from score to score, until all have ended.

    What a member meets depends on its own standing alone: batches, the rows at which it is scored, and its end, after
    which its standing stays as it is.

    Args:
        standings: of the members, in their order.
        metric: chooses the best rung.
        seed: of the batch order.
        patience: scores without a new best after which a member ends.
    """

    def __init__(
        self,
        cohort: Cohort,
        standings: Sequence[Standing],
        splits: Splits,
        dataset: Dataset,
        *,
        metric: str,
        seed: int,
        patience: int = 2,
    ) -> None:
        self.cohort, self.standings = cohort, list(standings)
        self.splits, self.dataset, self.metric, self.seed, self.patience = splits, dataset, metric, seed, patience
        self._batches = self._all_batches()

    def _all_batches(self) -> Iterator[Batch]:
        """From where the cohort is, pass after pass."""
        first, train = self.cohort.network.candidates[0], self.splits.train
        epoch, visited = divmod(self.cohort.rows, len(train))
        while True:
            single = first.order == "alternating"
            yield from train.batches(self.seed, epoch, first.batch, alternating=single, visited=visited)
            epoch, visited = epoch + 1, 0

    def advance(self, deadline: float = math.inf, on_step: Callable[[], None] = lambda: None) -> bool:
        """Train to the next score of some member that has not ended, and take it.

        Args:
            deadline: ``time.monotonic()`` at which training stops, in seconds.
            on_step: called before every step, when all scores that are due have been taken.

        Returns: False if the deadline passed before the score.
        """
        cohort, every = self.cohort, rung_rows(len(self.splits.train))
        before, started = cohort.rows, time.monotonic()
        due = every * (before // every + 1)
        stop = min(due, *(standing.limit for standing in self.standings if not standing.ended))
        while cohort.rows < stop:
            on_step()
            cohort.step(next(self._batches))
            if time.monotonic() > deadline:
                return False
        self._score((cohort.rows - before) / (time.monotonic() - started), cohort.rows >= due)
        return True

    def score_start(self) -> None:
        """Let the weights before the first step count as well."""
        weights = self.cohort.weights()
        scores = score_members(self.cohort, self.splits.valid, self.dataset, weights=weights)
        for index, (standing, scored) in enumerate(zip(self.standings, scores, strict=True)):
            standing.best, standing.kept = scored, self._kept(index, weights)

    def _kept(self, index: int, weights: Weights) -> Kept:
        return Kept(self.cohort.network, index, weights.copy(index))

    def _score(self, speed: float, all_due: bool) -> None:
        weights, rows = self.cohort.weights(), self.cohort.rows
        scores = score_members(self.cohort, self.splits.valid, self.dataset, weights=weights)
        for index, (standing, scored) in enumerate(zip(self.standings, scores, strict=True)):
            if standing.ended or (not all_due and rows < standing.limit):
                continue
            if not math.isfinite(scored.logloss):
                standing.reason = "diverged"
                continue
            standing.rungs.append(Rung(standing.visited + rows, scored, speed))
            if standing.best is None or scored.value(self.metric) > standing.best.value(self.metric):
                standing.best, standing.kept, standing.since = scored, self._kept(index, weights), 0
            else:
                standing.since += 1
            if standing.since >= self.patience:
                standing.reason = "patience"
            elif rows >= standing.limit:
                standing.reason = "epochs"


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
    """Train the only member of a cohort until it stops improving.

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
    standing = Standing(math.ceil(epochs * len(splits.train)), visited)
    run = Fit(cohort, [standing], splits, dataset, metric=metric, seed=seed, patience=patience)
    if score_start:
        run.score_start()
    while not standing.ended:
        if not run.advance(deadline):
            standing.reason = "time"
        elif standing.reason != "diverged" and not on_rung(standing.rungs[-1]):
            standing.reason = "weak"
    if standing.best is None or standing.kept is None:
        raise Diverged if standing.reason == "diverged" else OutOfTime
    return Fitted(standing.kept.weights, standing.best, standing.rungs, standing.reason)
