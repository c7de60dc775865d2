"""E-CDCTR (arXiv 2408.16238) as a replay of days: three models, each refreshed at a period of its own.

The tiny model learns from the rich source domain and leaves snapshots of its embeddings. The complete model has the
target's network, reads the pooled snapshots and learns from the source domain's recent rows. The target's network
starts from the complete model and is fine-tuned on the poor target domains day by day. Every day is scored before any
model learns from it.

The paper's periods are months, weeks and days; the defaults here are shorter, for logs of two weeks. Where the paper
fine-tunes a new start on the past several days, here it sees all target days so far, in their order and in the batches
that daily fine-tuning has seen them in. The replay covers all three splits, but ids and scales are those of the
encoded data set, fitted on its training split.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autoctr.data.cache import Recipe, prepare
from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.architecture import parallel
from autoctr.model.candidate import Candidate
from autoctr.training.basic_fields import user_field
from autoctr.training.cohort import Cohort, frozen_tables
from autoctr.training.days import DayLog
from autoctr.training.metrics import log_loss, score
from autoctr.training.rows import ResidentRows
from autoctr.training.schedule import Plan, Schedule, plan_of
from autoctr.training.snapshots import SnapshotBank, TinyModel, passes, require_earlier

# the tiny model's draws are not the target's
TINY_SEED = 1 << 40


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to follow the stream: the method, or the method without some of its parts."""

    name: str
    snapshots: bool = False
    pretrained: bool = False
    scratch: bool = False


FULL, BASE = "E-CDCTR", "daily"
VARIANTS = (
    Variant(FULL, snapshots=True, pretrained=True),
    Variant(BASE),
    Variant("scratch", scratch=True),
    Variant("no TPM", pretrained=True),
    Variant("no CPM", snapshots=True),
)


@dataclasses.dataclass(frozen=True)
class DayScore:
    """The target rows of one day, scored before training on them; days count from 1. None: one class only."""

    day: int
    rows: int
    auc: float | None
    wauc: float | None
    logloss: float


@dataclasses.dataclass(frozen=True)
class Curve:
    """One variant with one seed along the days.

    ``forgetting`` is the mean over the days of the loss after the last update minus the lowest loss after any update
    that has seen the day (Chaudhry et al., arXiv 1801.10112, in losses).
    """

    variant: str
    seed: int
    days: tuple[DayScore, ...]
    forgetting: float

    def mean(self, metric: str) -> float | None:
        """``auc``, ``wauc`` or ``logloss`` over the days that have one, weighted by rows; or ``forgetting``."""
        if metric == "forgetting":
            return self.forgetting
        usable = [(day.rows, getattr(day, metric)) for day in self.days if getattr(day, metric) is not None]
        total = sum(rows for rows, _ in usable)
        return sum(rows * value for rows, value in usable) / total if total else None


@dataclasses.dataclass(frozen=True)
class Replay:
    """What a replay found: every variant's curve for every seed, and facts about data and schedule, JSON-ready."""

    facts: dict[str, Any]
    curves: tuple[Curve, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"facts": self.facts, "curves": [dataclasses.asdict(curve) for curve in self.curves]}


def plain_candidate(**changes: Any) -> Candidate:
    """The network of target and complete model: DCN-v2, with batches that suit a day of a poor domain.

    Weights are not averaged, because an average over 100 steps is many days old, and embedding rows step no further
    than dense weights, because a day shows most ids too rarely for more.

    Raises:
        UserError: for a value out of its range.
    """
    try:
        return Candidate(wiring=parallel(2), averaging=0.0, batch=512, embedding_rate=1.0).replace(**changes)
    except ValueError as error:
        raise UserError(str(error).replace("_", " ")) from error


def stream(
    recipe: Recipe,
    schedule: Schedule,
    candidate: Candidate,
    *,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Replay:
    """Replay a data set's days for every variant.

    Args:
        candidate: the network of target and complete model; its seed is replaced.
        note: told what is going on.

    Raises:
        UserError: if the data or the schedule do not allow it, in one line.
    """
    _need_times(recipe.schema.timestamp is not None, recipe.name)
    dataset = prepare(recipe, cache)
    return replay(dataset, schedule, candidate, user=user_field(dataset), device=device, note=note)


def replay(
    dataset: Dataset,
    schedule: Schedule,
    candidate: Candidate,
    *,
    user: str | None = None,
    device: torch.device | str = "cpu",
    note: Callable[[str], None] = lambda text: None,
) -> Replay:
    """As :func:`stream`, with the data set in hand; ``user`` is the field that carries the user."""
    _need_times(dataset.train.time is not None, dataset.name)
    statistics, log = dataset.statistics, DayLog(dataset, schedule.day_length)
    plan = plan_of(schedule, statistics, log, candidate, user)
    curves: list[Curve] = []
    for seed in range(schedule.seed, schedule.seed + schedule.seeds):
        run = _Run(dataset, log, plan, seed, torch.device(device))
        curves += run.curves(note)
    counted = {name: int((log.rows.domain == number).sum()) for number, name in enumerate(statistics.domains)}
    facts = {
        "dataset": dataset.name,
        "task": statistics.tasks[0],
        "source": statistics.domains[plan.source],
        "targets": [statistics.domains[target] for target in plan.targets],
        "rows": counted,
        "days": log.days,
        "warm_days": plan.warm,
        "encoded_to_day": log.encoded_to + 1,
        "tpm_fields": list(plan.fields),
        "schedule": dataclasses.asdict(schedule),
    }
    return Replay(facts, tuple(curves))


def initialised(pretrained: Cohort, tables: dict[str, Tensor], ramp: int) -> Cohort:
    """A target network with the weights and embeddings of ``pretrained``; only normalisation starts anew."""
    network = pretrained.network
    return Cohort(
        network.statistics,
        network.candidates,
        tables,
        ramp=ramp,
        dtype=network.dtype,
        device=network.device,
        start=pretrained,
        fresh_norm=True,
    )


def _due(day: int, period: int) -> bool:
    return (day + 1) % period == 0


class _Run:
    """The replay with one seed: rows, snapshots and one learner per variant, all on the device."""

    def __init__(self, dataset: Dataset, log: DayLog, plan: Plan, seed: int, device: torch.device) -> None:
        self.log, self.plan, self.seed, self.device = log, plan, seed, device
        self.statistics, schedule = dataset.statistics, plan.schedule
        self.frozen = {name: table.to(device) for name, table in frozen_tables(dataset).items()}
        width = schedule.tpm_embedding or plan.candidate.embedding
        self.bank = SnapshotBank(self.statistics, plan.fields, width, schedule.window, schedule.pooling, device)
        self.tiny = TinyModel(
            self.statistics, plan.fields, plan.candidate, embedding=width, seed=TINY_SEED + seed, device=device
        )
        self.ramp = len(log.numbers(plan.targets, 0, plan.warm - 1))
        self.learners = [_Learner(self, variant) for variant in VARIANTS]
        self._scored: dict[tuple[int, bool], ResidentRows] = {}

    def curves(self, note: Callable[[str], None]) -> list[Curve]:
        """Replay every day: score, then let everything that is due learn."""
        scores: list[list[DayScore]] = [[] for _ in self.learners]
        losses: list[dict[int, list[float]]] = [{} for _ in self.learners]
        for day in range(self.log.days):
            rows = len(self.log.numbers(self.plan.targets, day, day)) if day >= self.plan.warm else 0
            for learner, scored, history in zip(self.learners, scores, losses, strict=True):
                if rows:
                    scored.append(learner.score(day))
                    history[day] = []
            note(f"seed {self.seed}  day {day + 1} of {self.log.days}  {rows:,} rows scored")
            if _due(day, self.plan.schedule.tpm_days):
                self._refresh_tiny(day)
            for learner, history in zip(self.learners, losses, strict=True):
                if learner.update(day):
                    for earlier, values in history.items():
                        values.append(learner.loss(earlier))
        return [
            Curve(learner.variant.name, self.seed, tuple(scored), forgetting(list(history.values())))
            for learner, scored, history in zip(self.learners, scores, losses, strict=True)
        ]

    def _refresh_tiny(self, day: int) -> None:
        numbers = self.log.numbers([self.plan.source], day - self.plan.schedule.tpm_days + 1, day)
        if len(numbers):
            rows = self.log.rows.take(numbers)
            self.tiny.train(rows, self.orders("tiny", day))
            self.bank.add(self.tiny.snapshot(rows, day + 1))

    def orders(self, level: Literal["tiny", "complete", "target", "scratch"], day: int) -> list[int]:
        """Numbers of the batch orders of a refresh, one per pass; no two refreshes share one."""
        first = 4 * day + ("tiny", "complete", "target", "scratch").index(level)
        return [first * self.plan.schedule.epochs + number for number in range(self.plan.schedule.epochs)]

    def resident(self, numbers: npt.NDArray[np.int64], snapshots: bool) -> ResidentRows:
        """Rows of the log on the device, with the snapshots that each of them may read."""
        rows = self.log.rows.take(numbers)
        if snapshots:
            columns = self.bank.columns(rows, self.log.day[numbers])
            rows = dataclasses.replace(rows, vectors=np.concatenate([rows.vectors, columns], 1))
        return ResidentRows(rows, len(self.statistics.domains), dtype=torch.float32, device=self.device)

    def scored(self, day: int, snapshots: bool) -> ResidentRows:
        """The target rows of a day, kept for later measurements of what is forgotten."""
        if (day, snapshots) not in self._scored:
            self._scored[day, snapshots] = self.resident(self.log.numbers(self.plan.targets, day, day), snapshots)
        return self._scored[day, snapshots]

    def newest(self, numbers: npt.NDArray[np.int64]) -> int:
        """Time of the newest of some rows, which are in the order of time."""
        assert self.log.rows.time is not None
        return int(self.log.rows.time[numbers[-1]])


class _Learner:
    """One variant along the days: its complete model if it has one, and its target network."""

    def __init__(self, run: _Run, variant: Variant) -> None:
        self.run, self.variant = run, variant
        self.complete: Cohort | None = None
        self.target: Cohort | None = None
        self.learned = 0
        self.latest = np.iinfo(np.int64).min

    def update(self, day: int) -> bool:
        """After ``day``: refresh what is due. Returns whether the target network changed."""
        plan, schedule = self.run.plan, self.run.plan.schedule
        restarted = self.variant.pretrained and _due(day, schedule.cpm_days) and self._restart(day)
        if not restarted and not _due(day, schedule.target_days):
            return False
        if self.variant.scratch:
            if day + schedule.target_days < plan.warm:
                return False  # it will be made anew before the first scored day
            self.target = self._fresh()
            self._fine_tune(0, day, self.run.orders("scratch", day))
            return True
        if self.target is None:
            if self.variant.pretrained:
                return False
            self.target = self._fresh()
        while self.learned + schedule.target_days <= day + 1:
            first, self.learned = self.learned, self.learned + schedule.target_days
            self._fine_tune(first, self.learned - 1, self.run.orders("target", self.learned - 1))
        return True

    def _tables(self) -> dict[str, Tensor]:
        return {**self.run.frozen, **(self.run.bank.tables if self.variant.snapshots else {})}

    def _fresh(self) -> Cohort:
        run = self.run
        statistics = run.bank.widened(run.statistics) if self.variant.snapshots else run.statistics
        candidate = run.plan.candidate.replace(seed=run.seed)
        return Cohort(statistics, [candidate], self._tables(), ramp=run.ramp, device=run.device)

    def _restart(self, day: int) -> bool:
        """Train the complete model on the source's recent days, and start the target's network from it."""
        run = self.run
        numbers = run.log.numbers([run.plan.source], day - run.plan.schedule.cpm_days + 1, day)
        if not len(numbers):
            return False
        self.complete = self.complete or self._fresh()
        self._learn(self.complete, numbers, run.orders("complete", day))
        self.target = initialised(self.complete, self._tables(), run.ramp)
        self.learned = 0
        return True

    def _fine_tune(self, first: int, last: int, orders: list[int]) -> None:
        assert self.target is not None
        numbers = self.run.log.numbers(self.run.plan.targets, first, last)
        if len(numbers):
            self._learn(self.target, numbers, orders)

    def _learn(self, cohort: Cohort, numbers: npt.NDArray[np.int64], orders: list[int]) -> None:
        rows = self.run.resident(numbers, self.variant.snapshots)
        self.run.bank.attach(cohort)
        passes(cohort, rows, self.run.seed, orders)
        self.latest = max(self.latest, self.run.newest(numbers))

    def _logits(self, rows: ResidentRows) -> Tensor:
        assert self.target is not None
        self.run.bank.attach(self.target)
        return self.target.logits(rows)[0, :, 0]

    def score(self, day: int) -> DayScore:
        """Metrics of a day's target rows, none of which anything has learned from."""
        rows, log = self.run.scored(day, self.variant.snapshots), self.run.log
        assert log.rows.time is not None
        oldest = int(log.rows.time[log.numbers(self.run.plan.targets, day, day)[0]])
        require_earlier(f"the target network of {self.variant.name}", self.latest, oldest)
        scores = score(self._logits(rows), rows.labels[:, 0], rows.domain, self.run.statistics.domains, None)
        if not math.isfinite(scores.logloss):
            raise UserError(
                f"the scores of {self.variant.name} are no longer numbers on day {day + 1}; lower the learning rate"
            )
        return DayScore(day + 1, len(rows), scores.auc, scores.wauc, scores.logloss)

    def loss(self, day: int) -> float:
        """Log-loss of a past day's target rows now."""
        rows = self.run.scored(day, self.variant.snapshots)
        return float(log_loss(self._logits(rows), rows.labels[:, 0]))


def forgetting(losses: Sequence[Sequence[float]]) -> float:
    """Per day its losses after each update that has seen it: the mean of last minus lowest."""
    gaps = [values[-1] - min(values) for values in losses if values]
    return sum(gaps) / len(gaps) if gaps else 0.0


def _need_times(present: bool, name: str) -> None:
    if not present:
        raise UserError(
            f"{name} has no time stamps, and a stream is replayed by them; name the column of times in the schema "
            "with timestamp: COLUMN"
        )
