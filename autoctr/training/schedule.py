"""When the three levels of E-CDCTR (arXiv 2408.16238) learn along a log of days, and from which domains."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from autoctr.data.statistics import Statistics
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.training.basic_fields import basic_fields
from autoctr.training.days import DayLog
from autoctr.training.snapshots import POOLINGS


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Who learns from whom, and when.

    Args:
        source: the rich domain; None is the one with most training rows.
        targets: the poor domains; none given are all others.
        fields: categorical fields that the tiny model reads beside the domain; none given are the user and, of the
            others, the one with the largest vocabulary.
        warm_up: share of the days that is replayed before the first is scored.
        target_days, cpm_days, tpm_days: days between two refreshes, and the days that a refresh of the two
            pre-training models learns from.
        window: snapshots that are pooled.
        tpm_embedding: numbers per embedding row of the tiny model; 0 is as many as the target's.
        epochs: passes over the rows of each refresh.
        day_length: of a day, in the unit of the time stamps; 0 reads it off their size.
        seeds: how many times everything is replayed. seed: the first of them; a seed gives weights and batch orders,
            and all variants share it.
    """

    source: str | None = None
    targets: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    warm_up: float = 0.4
    target_days: int = 1
    cpm_days: int = 3
    tpm_days: int = 2
    window: int = 4
    pooling: Literal["attention", "mean", "last"] = "attention"
    tpm_embedding: int = 0
    epochs: int = 2
    day_length: int = 0
    seeds: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.warm_up < 1:
            raise UserError(f"the warm-up is {self.warm_up:g} of the days; it must be above 0 and below 1")
        for name in ("target_days", "cpm_days", "tpm_days", "window", "epochs", "seeds"):
            if getattr(self, name) < 1:
                raise UserError(f"{name.replace('_', ' ')} is {getattr(self, name)}; it must be 1 or more")
        for name in ("tpm_embedding", "day_length", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name.replace('_', ' ')} is {getattr(self, name)}; it must be 0 or more")
        if self.pooling not in POOLINGS:
            raise UserError(f"unknown pooling {self.pooling!r}; legal are {', '.join(POOLINGS)}")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A schedule resolved against the data; ``warm`` is the number of days before the first scored one."""

    schedule: Schedule
    candidate: Candidate
    source: int
    targets: tuple[int, ...]
    fields: tuple[str, ...]
    warm: int


def plan_of(schedule: Schedule, statistics: Statistics, log: DayLog, candidate: Candidate, user: str | None) -> Plan:
    """The schedule for a data set's days.

    Args:
        user: the field that carries the user.

    Raises:
        UserError: if the data do not allow it, in one line.
    """
    source, targets = _domains(statistics, schedule)
    fields = basic_fields(statistics, user, schedule.fields)
    plan = Plan(schedule, candidate, source, targets, fields, _warm_days(log, schedule))
    _check_rows(log, plan, statistics)
    return plan


def _domains(statistics: Statistics, schedule: Schedule) -> tuple[int, tuple[int, ...]]:
    """Numbers of the source domain and of the target domains."""
    names, rows = statistics.domains, statistics.domain_rows
    legal = ", ".join(names)
    if len(names) < 2:
        raise UserError(f"the data set has one domain only ({legal}); a stream needs a source and a target domain")
    for name in (schedule.source, *schedule.targets):
        if name is not None and name not in names:
            raise UserError(f"there is no domain {name!r}; legal are {legal}")
    source = rows.index(max(rows)) if schedule.source is None else names.index(schedule.source)
    if names[source] in schedule.targets:
        raise UserError(f"domain {names[source]} is both the source and a target; choose other targets of {legal}")
    targets = schedule.targets or tuple(name for name in names if name != names[source])
    return source, tuple(dict.fromkeys(names.index(name) for name in targets))


def _warm_days(log: DayLog, schedule: Schedule) -> int:
    warm = math.ceil(schedule.warm_up * log.days - 1e-9)
    if warm >= log.days:
        raise UserError(
            f"the log has {log.days} days and the warm-up takes {warm}, which leaves no day to score; lower --warm-up"
        )
    longest = max(schedule.target_days, schedule.cpm_days, schedule.tpm_days)
    if warm < longest:
        raise UserError(
            f"the warm-up has {warm} of {log.days} days, fewer than the {longest} between two refreshes; raise "
            "--warm-up or shorten --target-days, --cpm-days and --tpm-days"
        )
    return warm


def _check_rows(log: DayLog, plan: Plan, statistics: Statistics) -> None:
    """Every model must have learned from something by the end of the warm-up, and some day must have rows to score."""
    schedule = plan.schedule
    targets = ", ".join(statistics.domains[target] for target in plan.targets)
    for who, domains, period in (
        (f"source {statistics.domains[plan.source]}", (plan.source,), schedule.cpm_days),
        (f"source {statistics.domains[plan.source]}", (plan.source,), schedule.tpm_days),
        (f"targets {targets}", plan.targets, schedule.target_days),
    ):
        last = plan.warm // period * period
        if not len(log.numbers(domains, 0, last - 1)):
            raise UserError(f"no rows of the {who} in the first {last} days; choose other domains or raise --warm-up")
    if not len(log.numbers(plan.targets, plan.warm, log.days - 1)):
        raise UserError(f"no rows of the targets {targets} after the warm-up of {plan.warm} days; lower --warm-up")
