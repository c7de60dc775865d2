"""The outer loop of a study: propose, train together, pause the weak and bring them back, tell."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.model.network import SHAPE_FIELDS
from autoctr.search.clock import Clock
from autoctr.search.cohort_size import measured_size
from autoctr.search.events import Watcher
from autoctr.search.latency import milliseconds
from autoctr.search.lead import Judge
from autoctr.search.proposal import propose
from autoctr.search.record import FINALISTS, Record, confirmation_seconds
from autoctr.search.rungs import is_ahead, is_weak, rivals, weakest
from autoctr.search.space import Space
from autoctr.search.study import OpenTrial, Study
from autoctr.search.trial import Laboratory, Outcome, Preparation
from autoctr.training import checkpoint, state
from autoctr.training.cohort import Member
from autoctr.training.fit import Diverged, Fit, OutOfTime, Standing, rung_rows
from autoctr.training.joining import joined, place

MOST_FAILURES = 3
MOST_PAUSED = 16
#: Name of the state of the fit that is under way.
FIT = "fit"
TRAINING_ERRORS = (MemoryError, RuntimeError, ValueError)


@dataclasses.dataclass
class Entrant:
    """A trial under way.

    Attributes:
        trial: None where the study knows how it went: such a trial was under way with others when the last run was
            killed, and goes with them again from where they stood, so that they train as they would have.
        ready: what its stages have found, once they are done.
        told: scores that the study knows. seconds: its share of the time of the cohorts that it was in.
        paused: where it stood when it was paused, if it was.
    """

    trial: OpenTrial | None
    number: int
    candidate: Candidate
    ready: Preparation | None = None
    told: int = 0
    seconds: float = 0.0
    paused: Paused | None = None

    @property
    def open(self) -> OpenTrial:
        """The trial, of one that is still to be told."""
        assert self.trial is not None
        return self.trial


@dataclasses.dataclass(frozen=True)
class Paused:
    """A trial that was weak at a rung: where it stands, and the file that it goes on from."""

    trial: OpenTrial
    number: int
    path: Path
    place: str
    rows: int
    value: float


class Engine:
    """Runs a study until its totals are spent.

    Several may run one study at once, each a worker with trials of its own; what a dead one leaves, another takes up.

    Trials of one shape train as a cohort. At a rung its weak members pause and its other members go on, closed up; a
    paused trial that is no longer weak beside those that came after it is brought back.
    """

    def __init__(self, study: Study, space: Space, laboratory: Laboratory, clock: Clock, watcher: Watcher) -> None:
        self.study, self.space, self.laboratory, self.clock, self.watcher = study, space, laboratory, clock, watcher
        self.settings = study.settings
        self.direction, self.metric = self.settings.direction, self.settings.metric
        self.sign, self.cost = 1 if self.direction == "maximize" else -1, self.settings.cost
        self.every = rung_rows(len(laboratory.dataset.train))
        self.judge, self.keeper = Judge(study, laboratory), laboratory.keeper
        self.size = self._cohort_size()
        self.unprepared: list[list[Entrant]] = []
        self.prepared: list[list[Entrant]] = []
        self.running: list[Entrant] = []
        self.fit: Fit | None = None
        self.ending: list[tuple[Entrant, Standing]] = []
        self.paused: dict[int, Paused] = {}
        self.begun: list[OpenTrial] = []
        self.failures, self.out_of_time = 0, False

    def _cohort_size(self) -> int:
        """What fitted into memory before; else what the user wants; else what is measured, and kept with the study."""
        size = self.study.database.user_attrs.get("cohort", self.settings.cohort)
        if size is None:
            size = measured_size(self.laboratory, self.space.base())
            self.study.database.set_user_attr("cohort", size)
        return int(size)

    def run(self) -> None:
        """Train until the totals are spent, or too many trials in a row have failed."""
        self.study.discard_weights()
        self.judge.settle()
        self.study.discard_states()
        self._take_up(self.study.slot)
        self._set_aside()
        self.watcher.opened(self.study.name, self.metric, self._remaining)
        for entrant in self.running:
            if entrant.trial is not None:
                self.watcher.stage(entrant.number, "goes on")
        while True:
            while self._has_work():
                self._advance()
                self._store_time()
            if self.failures >= MOST_FAILURES or self.out_of_time or not self._is_left_by_others():
                break
        if self.failures >= MOST_FAILURES:
            failed = f"{self.failures} failed trials in a row"
            self.watcher.note(f"stopped after {failed}; see: autoctr show {self.study.name}")
            return
        for number in sorted(self.paused):
            self._give_up(self.paused.pop(number))
        self.study.free_slots()

    def _store_time(self) -> None:
        self.study.set_spent(self.clock.spent)

    def _remaining(self) -> str:
        """What is left of the totals, in words."""
        parts = []
        if self.settings.trials is not None:
            done = sum(record.state not in ("RUNNING", "WAITING") for record in self._records())
            parts.append(f"{done} of {self.settings.trials} trials done")
        if self.settings.time_limit is not None:
            parts.append(f"{max(self.clock.left, 0) / 60:.1f} min left")
        return ", ".join(parts)

    def _records(self) -> list[Record]:
        """All trials; the paused ones as pruned, which they are unless they come back, with what they then had."""
        found, slot = [], self.study.slot
        for record in self.study.records():
            paused = self.paused.get(record.number)
            if record.paused and record.owner != slot:
                record = dataclasses.replace(record, state="PRUNED")
            elif paused is not None:
                rungs = tuple(rung for rung in record.rungs if rung[0] <= paused.rows)
                record = dataclasses.replace(record, state="PRUNED", rungs=rungs, value=paused.value)
            found.append(record)
        return found

    def _take_up(self, slot: int) -> None:
        """What was left at a slot: paused trials, and others that go on, or start again, under their own numbers."""
        again = {}
        with self.study.alone():
            if slot != self.study.slot:
                self.keeper.move_from(self.study.running_folder(slot))
            left = self.study.take_up(slot)
        fitting = self._fitting(left)
        for number, trial in left.items():
            if number in fitting:
                continue
            path = self.study.state_path(trial.number)
            with contextlib.suppress(UserError):  # without a whole state it starts again
                facts = state.read_facts(path)
                self.paused[trial.number] = Paused(
                    trial, trial.number, path, facts["place"], facts["rows"], facts["value"]
                )
                continue
            path.unlink(missing_ok=True)
            self.study.keep(trial, paused=False)
            again[number] = trial
        self._trim()
        whole, begun = self.study.groups(list(again))
        self.begun += [again[number] for number in begun]
        for group in whole:
            entrants = [self._again(number, again.get(number)) for number in group]
            parts = [entrants[start : start + self.size] for start in range(0, len(entrants), self.size)]
            self.unprepared += filter(_any_open, parts)

    def _take_up_of_the_dead(self) -> bool:
        """Whether another worker that died has left trials, which are then this one's; nothing must be under way."""
        dead = sorted(self.study.left().keys() - {self.study.slot})
        if dead:
            self.watcher.note("takes up the trials of a worker that is no more")
            self._take_up(dead[0])
        return bool(dead)

    def _is_left_by_others(self) -> bool:
        """Whether, before this worker goes, some other turns out to have died; all others have shown that they live.

        On this machine that is known at once; elsewhere a lease must be renewed or run out.
        """
        seen = {holder.token: holder.until for holder in self.study.others_alive()}
        while True:
            others = self.study.others_alive()
            if self.study.left().keys() - {self.study.slot}:
                return True
            silent = [h for h in others if not h.is_here and h.until == seen.get(h.token)]
            if not silent or self.clock.left <= 0:
                return False
            time.sleep(1.0)

    def _fitting(self, left: dict[int, OpenTrial]) -> set[int]:
        """Take up the fit that was under way, from its last state; the numbers of its trials that are not ended."""
        found = self.keeper.find(FIT)
        if found is None:
            return set()
        tensors, facts = found
        ahead = {number for number in left if _paused_at(self.study.state_path(number)) > tuple(facts["at"])}
        going = {number for number in facts["numbers"] if number in left and number not in ahead}
        if not going:
            return going
        group: list[Entrant] = []
        for number, ready, told, seconds in zip(
            *(facts[k] for k in ("numbers", "ready", "told", "seconds")), strict=True
        ):
            entrant = self._again(number, left[number] if number in going else None)
            entrant.ready, entrant.told, entrant.seconds = Preparation.of(ready), told, seconds
            group.append(entrant)
        try:
            dataset = self.laboratory.reader(_prepared(group[0]).candidate).dataset
            cohort, standings = state.fit_of((tensors, facts["fit"]), dataset, self.laboratory.device)
            self.fit = self.laboratory.go_on(cohort, standings)
        except (MemoryError, *checkpoint.DAMAGES) as error:
            if out_of_memory(error):
                self._split(group, error)
                return going
            self.watcher.note(f"trial {min(going)} starts again: the state of its fit is not whole ({error})")
            return set()
        self.running = group
        return going

    def _keep(self) -> None:
        """Write the state of the fit if it is due; what led to it is then of no more use, unless others wait."""
        self.study.check_lease()
        self.keeper.offer(FIT, self._fit_state, instead=not self.prepared)

    def _fit_state(self) -> state.State:
        """The fit that is under way, as :meth:`_fitting` takes it up."""
        fit, group = self.fit, self.running
        assert fit is not None
        tensors, own = state.of_fit(fit.cohort, fit.standings, fit.dataset)
        facts = {
            "fit": own,
            "at": _at(place(fit.cohort)),
            "numbers": [entrant.number for entrant in group],
            "ready": [_prepared(entrant).facts() for entrant in group],
            "told": [entrant.told for entrant in group],
            "seconds": [entrant.seconds for entrant in group],
        }
        return tensors, facts

    def _entrant(self, trial: OpenTrial) -> Entrant:
        return Entrant(trial, trial.number, self.study.proposed(trial.number))

    def _again(self, number: int, trial: OpenTrial | None) -> Entrant:
        """A trial of the last run, to be gone on with; without ``trial`` one that the study knows the end of."""
        return self._entrant(trial) if trial is not None else Entrant(None, number, self.study.proposed(number))

    def _has_work(self) -> bool:
        """Whether a cohort is training, after one has begun where none was."""
        while not self.running and self.failures < MOST_FAILURES and not self.out_of_time:
            if self.ending:
                self._end()
            elif self.prepared:
                self._begin(self.prepared.pop(0))
            elif self.unprepared:
                self._prepare(self.unprepared.pop(0))
            else:
                self.keeper.forget()  # nothing is under way
                if self._take_up_of_the_dead():
                    continue
                if self._has_time() and (back := self._no_longer_weak()):
                    self._bring_back(back)
                elif proposed := self._propose():
                    self.unprepared.append(proposed)
                else:
                    return False
        return bool(self.running)

    def _has_time(self) -> bool:
        """Whether there is time for a score."""
        if self.clock.limit is None:
            return True
        speeds = [record.speed for record in self.study.records() if record.speed]
        return self.clock.left > (self.every / max(speeds) if speeds else 0.0)

    def _propose(self) -> list[Entrant]:
        """New trials for a cohort, as far as the totals allow; from the third of a study on, they share a shape.

        A cohort that was being proposed when the last run was killed is proposed to its end. One worker proposes at a
        time, and so each knows what all others have.
        """
        with self.study.alone():
            return self._proposed()

    def _proposed(self) -> list[Entrant]:
        found = [self._entrant(trial) for trial in self.begun[: self.size]]
        self.begun, shape = self.begun[self.size :], self._shape(found)
        while len(found) < self.size and self._has_time():
            records = self._records()
            if self.settings.trials is not None and len(records) >= self.settings.trials:
                break
            proposal = propose(
                self.space,
                records,
                number=len(records),
                seed=self.settings.seed,
                direction=self.direction,
                expected=self._expected(records),
                share=self._share(records),
                shape=shape,
                cost=self.cost,
                protect=self.settings.protect,
            )
            if proposal is None:  # of this shape everything near has been tried
                break
            found.append(self._entrant(self.study.begin(proposal, self.space)))
            shape = self._shape(found)
        for entrant in found:
            self.study.keep(entrant.open, group=[other.number for other in found])
        return found

    def _shape(self, proposed: Sequence[Entrant]) -> dict[str, Any] | None:
        """Values that whatever is proposed with these must have: those of the first that is not trial 0 or 1."""
        first = next((entrant for entrant in proposed if entrant.number >= 2), None)
        return None if first is None else {n: value for n, value in first.open.values.items() if n in SHAPE_FIELDS}

    def _expected(self, records: Sequence[Record]) -> int:
        """How many trials the study will have in the end."""
        bounds = [] if self.settings.trials is None else [self.settings.trials]
        if self.settings.time_limit is not None:
            seconds = [record.seconds for record in records if record.seconds]
            typical = sum(seconds) / len(seconds) if seconds else self.settings.time_limit
            bounds.append(len(records) + int(self.clock.left / max(typical, 1e-3)))
        return min(bounds)

    def _share(self, records: Sequence[Record]) -> float:
        """How much of the totals is spent, 0 to 1."""
        shares = [] if self.settings.trials is None else [len(records) / self.settings.trials]
        if self.settings.time_limit is not None:
            shares.append(self.clock.spent / self.settings.time_limit)
        return max(shares)

    @contextlib.contextmanager
    def _timed(self, entrants: Sequence[Entrant]) -> Iterator[None]:
        """Each entrant's share of the time inside."""
        started = time.monotonic()
        try:
            yield
        finally:
            for entrant in entrants:
                entrant.seconds += (time.monotonic() - started) / len(entrants)

    def _prepare(self, group: list[Entrant]) -> None:
        """All stages before the final fit, and cohorts of what has the same shape after them."""
        fresh = [entrant for entrant in group if entrant.trial is not None]
        for entrant in fresh:
            self.watcher.started(entrant.number, entrant.candidate)
        first = fresh[0].number
        try:
            with self._timed(group):
                found = self.laboratory.prepare(
                    [entrant.candidate for entrant in group],
                    deadline=self.clock.deadline,
                    on_stage=lambda stage: self.watcher.stage(first, stage),
                )
        except OutOfTime:
            self._put_back(group)
            return
        finally:
            self._store_time()
        shapes: dict[tuple[object, ...], list[Entrant]] = {}
        for entrant, ready in zip(group, found, strict=True):
            if ready.error is not None:
                self._fail(entrant, ready.error)
                continue
            entrant.ready = ready
            shapes.setdefault(ready.shape, []).append(entrant)
        self.prepared += filter(_any_open, shapes.values())

    def _put_back(self, group: Sequence[Entrant]) -> None:
        """Time is over: these trials have no score, and the next run takes them up; so it does all that waits."""
        waiting = [*group, *(entrant for other in [*self.prepared, *self.unprepared] for entrant in other)]
        self.prepared, self.unprepared, self.out_of_time = [], [], True
        for entrant in waiting:
            if entrant.trial is not None:
                self.study.put_back(entrant.trial)

    def _begin(self, group: list[Entrant]) -> None:
        for entrant in group:
            if entrant.trial is not None:
                self.watcher.stage(entrant.number, "fit")
        ready = [_prepared(entrant) for entrant in group]
        for entrant in group:
            entrant.told = len(_prepared(entrant).rungs)
        try:
            with self._timed(group):
                self.fit = self.laboratory.begin(ready)
        except TRAINING_ERRORS as error:
            self._split(group, error)
            return
        self.running = group
        for entrant, own in zip(group, ready, strict=True):
            entrant.ready = dataclasses.replace(own, start=None)  # the cohort has its weights now
            if self.cost is not None and entrant.trial is not None:
                self.study.keep(entrant.trial, cost=self.laboratory.cost(own.candidate, self.cost))

    def _split(self, group: list[Entrant], error: Exception) -> None:
        """A cohort has failed, for want of memory say: each half starts again; a trial that fails alone has failed.

        What waits with its prepared weights in memory makes room first, and what was paused before waits again.
        """
        error.__traceback__ = None  # it holds the cohort's tensors
        no_memory = out_of_memory(error)
        if len(group) == 1 and not (no_memory and self.prepared):
            self._fail(group[0], error)
            return
        if no_memory:
            self.unprepared[:0], self.prepared = self.prepared, []
        if no_memory and 1 < len(group) < 2 * self.size:
            self.size = len(group) // 2
            self.study.database.set_user_attr("cohort", self.size)
            self.watcher.note(f"{len(group)} trials do not fit into memory together; cohorts are now of {self.size}")
        again = []
        for entrant in group:
            entrant.ready = None
            if no_memory and len(group) > 1 and entrant.paused is not None:
                self.paused[entrant.number] = entrant.paused
            else:
                again.append(entrant)
        half = (len(again) + 1) // 2
        self.unprepared[:0] = [part for part in (again[:half], again[half:]) if _any_open(part)]

    def _advance(self) -> None:
        """Train to the next score, and let go who has ended or is weak."""
        fit, group = self.fit, self.running
        assert fit is not None
        try:
            with self._timed(group):
                in_time = fit.advance(self.clock.deadline, self._keep)
        except TRAINING_ERRORS as error:
            self._dissolve()
            self._split(group, error)
            return
        pairs, best = list(zip(group, fit.standings, strict=True)), self.study.best()
        scored = [entrant.number for entrant, standing in pairs if self._report(entrant, standing, best)]
        records = self._records()
        for entrant, standing in pairs:
            if not in_time and not standing.ended:
                standing.reason = "time"
            elif entrant.number in scored and not standing.ended and entrant.number > 0:
                standing.reason = self._verdict(entrant, standing, records)
        members = [(Member(fit.cohort, index), *pair) for index, pair in enumerate(pairs)]
        try:
            for member, entrant, standing in members:
                if standing.reason == "weak" and entrant.trial is not None:
                    self._pause(entrant, standing, member)
        except TRAINING_ERRORS as error:
            left = [pair for pair in pairs if pair[0].number not in self.paused]
            self._dissolve()
            self._split(
                [entrant for entrant, standing in left if not standing.ended or standing.reason == "weak"], error
            )
        else:
            self._close_up([found for found in members if not found[2].ended])
        del fit, members  # the cohort that was
        self.ending += [pair for pair in pairs if pair[1].ended and pair[1].reason != "weak" and pair[0].trial]
        self._end()

    def _dissolve(self) -> None:
        self.running, self.fit = [], None

    def _end(self) -> None:
        """Store the trials that have ended, or lead them to the fit that follows."""
        following: dict[tuple[object, ...], list[Entrant]] = {}
        waiting, self.ending = self.ending, []
        for entrant, standing in waiting:
            try:
                found = self.laboratory.following(_prepared(entrant), standing)
                if found is None:
                    self._finish(entrant, standing)
                else:
                    entrant.ready = found
                    following.setdefault(found.shape, []).append(entrant)
            except OutOfTime:
                self._put_back([entrant])
            except (Diverged, *TRAINING_ERRORS) as error:
                error.__traceback__ = None
                if out_of_memory(error) and self.running:  # again, when nothing else is in memory
                    self.ending.append((entrant, standing))
                else:
                    self._fail(entrant, error)
        self.prepared[:0] = following.values()

    def _report(self, entrant: Entrant, standing: Standing, best: Record | None) -> bool:
        """Tell the study the scores that it does not know; whether there were any."""
        fresh = range(entrant.told, len(standing.rungs))
        for index in fresh:
            value = self._best(standing, index + 1)
            if entrant.trial is None:
                continue
            self.study.report(entrant.trial, standing.rungs[index].rows, value)
            self.watcher.rung(entrant.number, standing.rungs[index], value, best)
        entrant.told = len(standing.rungs)
        return bool(fresh)

    def _best(self, standing: Standing, count: int) -> float:
        """The best of the first ``count`` scores."""
        values = [getattr(rung.scores, self.metric) for rung in standing.rungs[:count]]
        return float(max(values) if self.direction == "maximize" else min(values))

    def _verdict(self, entrant: Entrant, standing: Standing, records: Sequence[Record]) -> str:
        """Why a member that could go on does not: ``weak``, ``time`` or nothing.

        Rows of earlier stages count, but one score of the network itself is no curve yet. Past its share of the time a
        trial goes on while it is ahead. Trial 0 is never asked: it is what the winner is measured against, and must not
        lose for want of time.
        """
        others = rivals(entrant.number, records, by_cost=self.cost is not None)
        rows, value = standing.rungs[-1].rows, self._best(standing, len(standing.rungs))
        if len(standing.rungs) > 1 and is_weak(rows, value, others, self.every, self.direction):
            return "weak"
        late = entrant.seconds > self.clock.share
        return "time" if late and not is_ahead(rows, value, others, self.direction) else ""

    def _close_up(self, staying: list[tuple[Member, Entrant, Standing]]) -> None:
        """Go on with those who stay and with paused trials that are no longer weak and stand at the same place."""
        fit = self.fit
        assert fit is not None
        if not _any_open([entrant for _, entrant, _ in staying]):
            self._dissolve()
            return
        here = json.dumps(place(fit.cohort))
        free = self.size - len(staying)
        back = self._no_longer_weak(here)[:free] if free > 0 and self._has_time() else []
        if len(staying) < len(self.running) or back:
            self._go_on([*staying, *filter(None, map(self._load, back))])

    def _go_on(self, members: Sequence[tuple[Member, Entrant, Standing]]) -> None:
        group = [entrant for _, entrant, _ in members]
        try:
            dataset = self.laboratory.reader(members[0][0].candidate).dataset
            cohort = joined([member for member, _, _ in members], dataset)
            self.fit = self.laboratory.go_on(cohort, [standing for _, _, standing in members])
            self.running = group
        except TRAINING_ERRORS as error:
            self._dissolve()
            self._split(group, error)

    def _pause(self, entrant: Entrant, standing: Standing, member: Member) -> None:
        """Put a member's whole state aside; beyond a number of paused trials the weakest is given up."""
        ready, rows = _prepared(entrant), standing.rungs[-1].rows
        value = self._best(standing, len(standing.rungs))
        self.study.keep(
            entrant.open,
            found=ready.candidate.canonical(),
            valid=None if standing.best is None else dataclasses.asdict(standing.best),
            **{name: fact for name, fact in ready.facts().items() if name in ("gap", "kept", "overlap")},
            reason="weak",
            paused=True,
            seconds=entrant.seconds,
            speed=_speed(standing),
        )
        dataset = self.laboratory.reader(ready.candidate).dataset
        where = json.dumps(place(member.cohort))
        facts = {"place": where, "rows": rows, "value": value, "seconds": entrant.seconds, "ready": ready.facts()}
        path = self.study.state_path(entrant.number)
        alone = dataclasses.replace(standing, reason="")
        state.save(path, joined([member], dataset), alone, dataset, facts)
        self.paused[entrant.number] = Paused(entrant.open, entrant.number, path, where, rows, value)
        self.failures = 0
        self.watcher.paused(next(record for record in self._records() if record.number == entrant.number))
        self._trim()

    def _trim(self) -> None:
        """Give up the weakest of too many paused trials."""
        while len(self.paused) > MOST_PAUSED:
            records = [record for record in self._records() if record.number in self.paused]
            worst = weakest(records, self.direction, by_cost=self.cost is not None)
            self._give_up(self.paused.pop(worst.number))

    def _no_longer_weak(self, where: str | None = None) -> list[Paused]:
        """Paused trials of one place that have become better than the median, the best first; a cohort of them.

        Args:
            where: the place; None = that of the best.
        """
        records = self._records() if self.paused else []
        found = []
        for paused in sorted(self.paused.values(), key=lambda paused: (-self.sign * paused.value, paused.number)):
            others = rivals(paused.number, records, by_cost=self.cost is not None)
            if not is_weak(paused.rows, paused.value, others, self.every, self.direction):
                found.append(paused)
        where = found[0].place if found and where is None else where
        return [paused for paused in found if paused.place == where][: self.size]

    def _load(self, paused: Paused) -> tuple[Member, Entrant, Standing] | None:
        """A paused trial, to go on; None if its state is damaged, and then it starts again, or does not fit."""
        del self.paused[paused.number]
        entrant = self._entrant(paused.trial)
        entrant.paused = paused
        try:
            dataset = self.laboratory.reader(entrant.candidate).dataset
            cohort, standing, facts = state.load(paused.path, dataset, self.laboratory.device)
        except TRAINING_ERRORS as error:
            if self.running:
                self.paused[paused.number] = paused
            else:
                self._split([entrant], error)
            return None
        except UserError as error:
            self.watcher.note(f"trial {paused.number} starts again: {error}")
            paused.path.unlink(missing_ok=True)
            self.study.keep(entrant.open, paused=False)
            self.unprepared.append([entrant])
            return None
        entrant.ready, entrant.seconds = Preparation.of(facts["ready"]), facts["seconds"]
        entrant.told = len(standing.rungs)
        self.study.keep(entrant.open, paused=False)
        self.watcher.stage(paused.number, "goes on")
        return Member(cohort, 0), entrant, standing

    def _bring_back(self, group: Sequence[Paused]) -> None:
        members = [found for found in map(self._load, group) if found is not None]
        if members:
            self._go_on(members)

    def _give_up(self, paused: Paused) -> None:
        """End a paused trial."""
        self.study.tell(paused.trial, "PRUNED", None)
        paused.path.unlink(missing_ok=True)

    def _finish(self, entrant: Entrant, standing: Standing) -> None:
        """Store what a trial that has ended leaves."""
        with self._timed([entrant]):
            outcome = self.laboratory.finish(
                _prepared(entrant), standing, on_stage=lambda stage: self.watcher.stage(entrant.number, stage)
            )
        checkpoint.save(self.study.weights_path(entrant.number), outcome.cohort.network, outcome.fitted.weights)
        self.study.keep(
            entrant.open, host=platform.node(), **_facts(outcome), seconds=entrant.seconds, speed=_speed(standing)
        )
        if self.cost == "latency":
            rows = self.laboratory.reader(outcome.candidate).splits.valid
            self.study.keep(entrant.open, latency=milliseconds(outcome.cohort, rows))
        ended = self.study.tell(entrant.open, "COMPLETE", getattr(outcome.fitted.best, self.metric))
        self.study.state_path(entrant.number).unlink(missing_ok=True)
        self.study.discard_weights()
        self.failures = 0
        self.judge.settle()
        self._set_aside()
        self.watcher.finished(ended, self.study.best())

    def _set_aside(self) -> None:
        """Time for the confirmation."""
        seeds = self.settings.confirm
        self.clock.reserve = confirmation_seconds(self.study.records(), self.direction, FINALISTS, seeds)

    def _fail(self, entrant: Entrant, error: Exception) -> None:
        """Store why a trial failed; of one that does not fit into memory, the sampler learns it."""
        if entrant.trial is None:
            return
        message = str(error).partition("\n")[0][:400] or type(error).__name__
        reason = "diverged" if isinstance(error, Diverged) else message
        if out_of_memory(error):
            self.study.set_infeasible(entrant.trial)
            reason = f"out of memory: {reason}"
        if not out_of_memory(error) or self.study.best() is None:
            self.failures += 1
        self.study.keep(entrant.trial, reason=reason, seconds=entrant.seconds)
        ended = self.study.tell(entrant.trial, "FAIL", None)
        self.study.state_path(entrant.number).unlink(missing_ok=True)
        self.watcher.finished(ended, self.study.best())


def out_of_memory(error: Exception) -> bool:
    """Whether an error of training is for want of memory, on a GPU or on the host."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _any_open(group: Sequence[Entrant]) -> bool:
    return any(entrant.trial is not None for entrant in group)


def _at(where: dict[str, Any]) -> list[int]:
    """How far a cohort at a :func:`~autoctr.training.joining.place` has come: a number that grows, stage by stage."""
    return [int(where["adapters_only"]), where["rows"]]


def _paused_at(path: Path) -> tuple[int, ...]:
    """How far a paused trial had come; nowhere without a whole state of it."""
    try:
        return tuple(_at(json.loads(state.read_facts(path)["place"])))
    except UserError:
        return ()


def _prepared(entrant: Entrant) -> Preparation:
    assert entrant.ready is not None
    return entrant.ready


def _speed(standing: Standing) -> float | None:
    """Mean training rows per second."""
    return sum(rung.speed for rung in standing.rungs) / len(standing.rungs) if standing.rungs else None


def _facts(outcome: Outcome) -> dict[str, Any]:
    """What a study remembers of a trained candidate."""
    return {
        "found": outcome.candidate.canonical(),
        "valid": dataclasses.asdict(outcome.fitted.best),
        "gap": None if outcome.gap is None else dataclasses.asdict(outcome.gap),
        "closed": outcome.closed,
        "multiply_adds": outcome.multiply_adds,
        "parameters": outcome.parameters,
        "kept": outcome.kept,
        "overlap": outcome.overlap,
        "reason": outcome.fitted.reason,
    }
