"""A study on disk: its folder, its Optuna study in a database, its fingerprint, and the trials as records."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.search.certificate import Certificate
from autoctr.search.database import (
    clock_time,
    close_storage,
    is_sqlite,
    make_sqlite,
    one_at_a_time,
    open_storage,
    sqlite_file,
    without_password,
)
from autoctr.search.front import MOST_MEMBERS, chosen, front, spread
from autoctr.search.lease import Holder, Lease
from autoctr.search.protect import allowed
from autoctr.search.record import Direction, Record, ranked, winner_of
from autoctr.search.space import Space

if TYPE_CHECKING:
    import optuna

    from autoctr.search.proposal import Proposal

SCHEMA_VERSION = 1
KEPT_WEIGHTS = 5
LEAD, HOLDER = "lead ", "worker "
DEFAULT_ROOT = Path("studies")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a study was asked to do; stored with it.

    ``source`` are the arguments of :func:`autoctr.data.presets.load_dataset`, ``space`` is a name or a file.
    ``trials`` and ``time_limit`` (seconds) are totals over all runs, None = no bound. ``cohort`` is how many candidates
    train together, None = as many as the device is best at. ``precision`` holds for every candidate; None = the space's
    word. ``checkpoint_every`` is in seconds; None = by what a state takes to write. ``confirm`` is the number of seeds
    of the confirmation in the end, 0 = none. ``objectives`` are the metric and a cost of
    :data:`autoctr.search.front.COSTS`, None = the metric alone. ``protect`` names domains in which no winner may be
    worse than trial 0, see :mod:`autoctr.search.protect`.
    """

    source: dict[str, Any]
    space: str
    metric: str
    seed: int
    device: str
    trials: int | None
    time_limit: float | None
    cohort: int | None = 1
    precision: str | None = None
    checkpoint_every: float | None = None
    confirm: int = 0
    objectives: tuple[str, str] | None = None
    protect: tuple[str, ...] = ()

    @property
    def cost(self) -> str | None:
        """The second objective."""
        return None if self.objectives is None else self.objectives[1]

    @property
    def direction(self) -> Direction:
        """Optuna's word for the metric's good end."""
        return "minimize" if self.metric == "logloss" else "maximize"


class StudyExists(UserError):
    """The name of a new study is taken."""


@dataclasses.dataclass(frozen=True)
class OpenTrial:
    """A trial that has not ended: its key in the database, its number, and the varied fields that the sampler sees."""

    key: int
    number: int
    values: dict[str, Any]


def fingerprint(settings: Settings, space: Space, dataset_key: str) -> dict[str, Any]:
    """What must not change while a study goes on."""
    import optuna

    wanted = {"objectives": settings.objectives, "protect": settings.protect}
    return {
        "code schema version": SCHEMA_VERSION,
        "optuna": optuna.__version__.split(".")[0],
        "dataset": dataset_key,
        "metric": settings.metric,
        "seed": settings.seed,
        **{name: list(words) for name, words in wanted.items() if words},
        **{f"space: fix {name}": value for name, value in space.fix.items()},
        **{f"space: vary {name}": part.to_dict() for name, part in space.vary.items()},
    }


def differences(stored: dict[str, Any], present: dict[str, Any]) -> list[str]:
    """Each field in which two fingerprints differ, in words."""
    lines = []
    for name in sorted(stored.keys() | present.keys()):
        before, now = stored.get(name), present.get(name)
        if before != now and name == "dataset":
            keys = [str(key)[:8] for key in (before, now)]
            lines.append(
                f"the data set has other rows, another schema or split (its key was {keys[0]} and is now {keys[1]})"
            )
        elif before != now:
            words = ["absent" if value is None else json.dumps(value) for value in (before, now)]
            lines.append(f"{name} was {words[0]} and is now {words[1]}")
    return lines


class Study:
    """One study.

    Args:
        name: of the study.
        root: folder of all studies.
        storage: database address; None = ``study.db`` in the study's folder.
    """

    def __init__(self, name: str, root: Path, storage: str | None) -> None:
        self.name, self.folder, self.storage = name, root / name, storage
        self.url = storage or f"sqlite:///{(self.folder / 'study.db').resolve()}"
        self._study: optuna.Study | None = None
        self._lease: Lease | None = None
        self._turn, self._inside = threading.RLock(), 0

    @classmethod
    def create(
        cls,
        name: str,
        settings: Settings,
        stamp: dict[str, Any],
        *,
        root: Path,
        storage: str | None = None,
        fill: Callable[[Study], None] = lambda made: None,
    ) -> Study:
        """A new study.

        Args:
            stamp: its fingerprint.
            fill: puts into it what it has from the start; a process that dies meanwhile leaves no study.

        Raises:
            StudyExists: if the name is taken.
            UserError: if it is not usable, or the folder cannot be written.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise UserError(f"study name {name!r} is not usable; use letters, digits, '.', '_' and '-'")
        study = cls(name, root, storage)
        try:
            study.folder.mkdir(parents=True, exist_ok=True)
            if storage is None:
                with one_at_a_time(study.url, "tables"):
                    make_sqlite(study.folder / "study.db")
        except (OSError, sqlite3.OperationalError) as error:
            raise UserError(f"cannot write {study.folder} ({error}); choose a folder you may write") from error
        import optuna

        opened = open_storage(study.url)
        with study.alone():
            if study.exists():
                raise StudyExists(
                    f"study {name} exists; continue it with: autoctr resume {name}, or choose another --study"
                )
            if name in optuna.get_all_study_names(opened):  # left by a process that died right here
                optuna.delete_study(study_name=name, storage=opened)
            made = optuna.create_study(storage=opened, study_name=name, direction=settings.direction)
            made.set_user_attr("fingerprint", stamp)
            made.set_user_attr("spent", 0.0)
            made.set_user_attr("optuna", optuna.__version__)
            study._study = made
            fill(study)
            made.set_user_attr("settings", dataclasses.asdict(settings))
        return study

    @classmethod
    def load(cls, name: str, *, root: Path, storage: str | None = None) -> Study:
        """An existing study.

        Raises:
            UserError: if there is none of that name, or its database cannot be read.
        """
        import optuna

        study = cls(name, root, storage)
        if not study.exists():
            have = names(root, storage)
            if name in have:
                held = [] if storage is not None else optuna.get_all_study_names(open_storage(study.url))
                if held and name not in held:
                    raise UserError(
                        f"the folder {study.folder} holds the study {held[0]}; rename it to {root / held[0]}, or move "
                        "it so to another --root"
                    )
                raise UserError(f"study {name} was never begun; start it with: autoctr search --study {name}")
            where = root if storage is None else without_password(storage)
            raise UserError(f"there is no study {name} in {where}; there are: {', '.join(have) or 'none'}")
        return study

    def exists(self) -> bool:
        """Whether the study is there, whole."""
        if is_sqlite(self.url) and not sqlite_file(self.url).exists():
            return False
        import optuna

        storage = open_storage(self.url)
        try:
            found = optuna.load_study(study_name=self.name, storage=storage)
            if "settings" in found.user_attrs:
                self._study = found
                return True
        except KeyError:
            pass
        close_storage(storage)
        return False

    @property
    def database(self) -> optuna.Study:
        """The Optuna study in the database."""
        if self._study is None:
            import optuna

            self._study = optuna.load_study(study_name=self.name, storage=open_storage(self.url))
        return self._study

    @property
    def _tables(self) -> optuna.storages.BaseStorage:
        return self.database._storage

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other worker is inside, in this process or elsewhere, and keep them out."""
        with self._turn, contextlib.ExitStack() as stack:
            if not self._inside:
                stack.enter_context(one_at_a_time(self.url, f"study {self.name}"))
            self._inside += 1
            try:
                yield
            finally:
                self._inside -= 1

    def now(self) -> float:
        """Seconds by the clock that all workers share."""
        return clock_time(self.url)

    @property
    def settings(self) -> Settings:
        """What the study was asked to do."""
        stored = self.database.user_attrs["settings"]
        pair, protected = stored.get("objectives"), stored.get("protect", ())
        return Settings(**{**stored, "objectives": pair and tuple(pair), "protect": tuple(protected)})

    @property
    def domain_rows(self) -> dict[str, int] | None:
        """Training rows by domain; None in a study that has not run since 2026-11-28."""
        stored: dict[str, int] | None = self.database.user_attrs.get("domain rows")
        return stored

    def set_domain_rows(self, rows: dict[str, int]) -> None:
        """Store the training rows of every domain, for those who look at the study without its data."""
        if self.domain_rows != rows:
            self.database.set_user_attr("domain rows", rows)

    def set_totals(self, trials: int | None, time_limit: float | None) -> None:
        """New totals; the fingerprint does not cover them."""
        changed = dataclasses.replace(self.settings, trials=trials, time_limit=time_limit)
        self.database.set_user_attr("settings", dataclasses.asdict(changed))

    def check(self, present: dict[str, Any]) -> None:
        """Compare with the stored fingerprint.

        Raises:
            UserError: naming every field that differs.
        """
        found = differences(self.database.user_attrs["fingerprint"], present)
        if found:
            raise UserError(
                f"study {self.name} cannot go on, because what it searches has changed: {'; '.join(found)}. "
                f"Put it back, or let a new study take over what still holds: autoctr resume {self.name} --fork NEW"
            )

    def records(self) -> list[Record]:
        """All trials, in the order of their numbers."""
        trials, leads = self.database.get_trials(deepcopy=False), self.leads()
        return [Record.of(trial, leads.get(trial.number)) for trial in trials if "candidate" in trial.user_attrs]

    def leads(self) -> dict[int, list[float]]:
        """The interval of the lead over trial 0 of every trial where it was measured."""
        told = self.database.user_attrs
        own = {int(name[len(LEAD) :]): lead for name, lead in told.items() if name.startswith(LEAD) and lead}
        before = told.get("leads", {})  # where all lay until 2026-11-27
        return {int(number): lead for number, lead in before.items()} | own

    def set_lead(self, number: int, lead: Sequence[float]) -> None:
        """Store the interval of a finished trial's lead over trial 0."""
        self.database.set_user_attr(f"{LEAD}{number}", list(lead))

    def best(self) -> Record | None:
        """The winner: of the confirmation if no trial has ended since, else the best that leads trial 0 clearly."""
        records, certificate = self.records(), self.certificate
        if certificate is not None and certificate.trials == len(_ended_numbers(records)):
            return next(record for record in records if record.number == certificate.winner)
        return winner_of(self.allowed(records), self.settings.direction)

    def allowed(self, records: Sequence[Record]) -> list[Record]:
        """The trials that may win: none that is worse than trial 0 in a protected domain."""
        return allowed(records, self.settings.protect)

    def front(self, records: Sequence[Record]) -> list[Record]:
        """The trials that may win of which no other is both cheaper and better; the cheapest first."""
        return front(self.allowed(records), self.settings.direction, self.settings.cost or "madds")

    def choices(self, records: Sequence[Record]) -> dict[str, Record]:
        """The named members of the front: ``fastest``, ``knee`` and ``best``."""
        return chosen(records, self.front(records), self.settings.direction, self.settings.cost or "madds")

    @property
    def ended(self) -> int:
        """How many trials have ended."""
        return len(_ended_numbers(self.records()))

    def minutes(self) -> dict[int, float]:
        """When each ended trial had ended, in minutes of wall time since the first began."""
        trials = [trial for trial in self.database.get_trials(deepcopy=False) if trial.datetime_start is not None]
        if not trials:
            return {}
        began = min(trial.datetime_start for trial in trials if trial.datetime_start is not None)
        ends = {trial.number: trial.datetime_complete for trial in trials}
        return {number: (end - began).total_seconds() / 60 for number, end in ends.items() if end is not None}

    @property
    def test_seen(self) -> bool:
        """Whether test scores of an earlier winner were there to steer the search, here or where it forked from."""
        told = self.database.user_attrs
        return "certificate" in told or told.get("seen", False) or (told.get("proof") or {}).get("seen", False)

    @property
    def certificate(self) -> Certificate | None:
        """What the last confirmation found."""
        stored = self.database.user_attrs.get("certificate")
        return None if stored is None else Certificate.from_dict(stored)

    def set_certificate(self, certificate: Certificate) -> None:
        """Store what a confirmation has found; its winner is the study's until another trial ends."""
        self.database.set_user_attr("certificate", certificate.to_dict())

    @contextlib.contextmanager
    def at_work(self, run: str | None = None) -> Iterator[Lease]:
        """Work on the study: hold a slot of it, without which no trial can be begun, written or ended.

        Args:
            run: of the crew that this worker belongs to.
        """
        with Lease(self, run) as lease:
            self._lease = lease
            try:
                yield lease
            finally:
                self._lease = None

    @property
    def slot(self) -> int:
        """The slot that this worker holds."""
        assert self._lease is not None
        return self._lease.slot

    def check_lease(self) -> None:
        """Whether what this worker does still counts.

        Raises:
            LeaseLost: if others have taken up what it did.
        """
        assert self._lease is not None
        self._lease.check()

    def holders(self) -> dict[int, Holder]:
        """Who holds which slot, or held it and died."""
        told = {name: held for name, held in self.database.user_attrs.items() if name.startswith(HOLDER)}
        return {int(name[len(HOLDER) :]): Holder(**held) for name, held in told.items() if held is not None}

    def set_holder(self, slot: int, holder: Holder | None) -> None:
        """Give a slot to a worker, or free it."""
        self.database.set_user_attr(f"{HOLDER}{slot}", None if holder is None else dataclasses.asdict(holder))

    def alive(self) -> dict[int, Holder]:
        """The workers that are there, by their slots.

        A study in its own folder is worked on by one machine at a time, so that a holder elsewhere is of the past.
        """
        now, held = self.now(), self.holders()
        return {
            slot: holder
            for slot, holder in held.items()
            if holder.is_alive(now) and (self.storage is not None or holder.is_here)
        }

    def others_alive(self) -> list[Holder]:
        """The other workers that are there."""
        slot = None if self._lease is None else self._lease.slot
        return [holder for other, holder in self.alive().items() if other != slot]

    def free_slots(self) -> None:
        """Take the slots from those who died and have left nothing."""
        with self.alone():
            for slot in self.holders().keys() - self.alive().keys() - self.left().keys():
                self.set_holder(slot, None)

    def end_run(self, run: str) -> None:
        """Tell the workers of a crew that its run is over."""
        self.database.set_user_attr("over", run)

    def is_over(self, run: str) -> bool:
        """Whether a crew's run is over before it has come to its end."""
        return bool(self.database.user_attrs.get("over") == run)

    @property
    def spent(self) -> float:
        """Seconds of wall time that the study has been searched for, over all runs."""
        return float(self.database.user_attrs["spent"])

    def set_spent(self, seconds: float) -> None:
        """Store the wall time of the study so far; workers that run at once spend the same."""
        self.database.set_user_attr("spent", max(seconds, self.spent))

    def begin(self, proposal: Proposal, space: Space) -> OpenTrial:
        """Store a proposal as the next running trial, whole or not at all."""
        import optuna

        self.check_lease()
        template = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=proposal.values,
            distributions={name: space.vary[name].distribution() for name in proposal.values},
            user_attrs={"candidate": proposal.candidate.canonical(), "owner": self.slot},
        )
        key = self._tables.create_new_trial(self.database._study_id, template)
        return OpenTrial(key, self._tables.get_trial_number_from_id(key), proposal.values)

    def left(self) -> dict[int, list[int]]:
        """The trials that have not ended and nobody alive works at, by the slot that they were begun or taken up at.

        Those of this worker's own slot are among them, whoever holds it.
        """
        alive = self.alive().keys() - {self.slot}
        found: dict[int, list[int]] = {}
        for trial in self.database.get_trials(deepcopy=False):
            owner = trial.user_attrs.get("owner", 0)
            if not trial.state.is_finished() and owner not in alive:
                found.setdefault(owner, []).append(trial.number)
        return found

    def take_up(self, slot: int) -> dict[int, OpenTrial]:
        """The trials that are left at a slot, now this worker's, under their own numbers; none if it is held again."""
        import optuna

        found, own = {}, self.slot
        with self.alone():
            self.check_lease()
            for number in self.left().get(slot, []):
                trial = self.database.get_trials(deepcopy=False)[number]
                if trial.state == optuna.trial.TrialState.WAITING:
                    self._tables.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.RUNNING)
                if slot != own:
                    self._tables.set_trial_user_attr(trial._trial_id, "owner", own)
                values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}  # the first: until 2026-11-27
                found[number] = OpenTrial(trial._trial_id, number, values)
            if found and slot != own:
                self.set_holder(slot, None)
        return found

    def proposed(self, number: int) -> Candidate:
        """The candidate of a trial, as it was proposed."""
        return Candidate.from_dict(json.loads(self.database.get_trials(deepcopy=False)[number].user_attrs["candidate"]))

    def host(self, number: int) -> str:
        """Name of the machine that trained a trial."""
        return str(self.database.get_trials(deepcopy=False)[number].user_attrs.get("host", "another machine"))

    def groups(self, numbers: Sequence[int]) -> tuple[list[list[int]], list[int]]:
        """The groups in which trials were proposed, each whole, and the trials whose group was not yet complete."""
        trials = self.database.get_trials(deepcopy=False)
        found = {number: trials[number].user_attrs.get("group") for number in numbers}
        groups = {group[0]: group for group in found.values() if group}
        whole = {number for group in groups.values() for number in group}
        return [groups[first] for first in sorted(groups)], [number for number in numbers if number not in whole]

    def put_back(self, trial: OpenTrial) -> None:
        """Queue a running trial that found no time for its first score; the next run takes it up."""
        import optuna

        self._write().set_trial_state_values(trial.key, optuna.trial.TrialState.WAITING)

    def report(self, trial: OpenTrial, rows: int, value: float) -> None:
        """Store a rung of a running trial; a trial that is run again overwrites its own."""
        self._write().set_trial_intermediate_value(trial.key, rows, value)

    def keep(self, trial: OpenTrial, **facts: Any) -> None:
        """Store what is to be remembered of a running trial."""
        tables = self._write()
        for name, fact in facts.items():
            tables.set_trial_user_attr(trial.key, name, fact)

    def set_infeasible(self, trial: OpenTrial) -> None:
        """Store that a running trial does not fit into memory, so that the sampler learns it."""
        self._write().set_trial_system_attr(trial.key, "constraints:memory", 1.0)

    def tell(self, trial: OpenTrial, state: str, value: float | None) -> Record:
        """End a trial in one of Optuna's states."""
        import optuna

        values = None if value is None else [value]
        self._write().set_trial_state_values(trial.key, optuna.trial.TrialState[state], values)
        return Record.of(self.database.get_trials(deepcopy=False)[trial.number])

    def _write(self) -> optuna.storages.BaseStorage:
        """The tables, for a worker whose lease holds."""
        self.check_lease()
        return self._tables

    def running_folder(self, slot: int) -> Path:
        """Where the states of what is under way at a slot lie."""
        return self.folder / "running" / str(slot)

    def state_path(self, number: int) -> Path:
        """Where the state of a paused trial lies."""
        return self.folder / "paused" / f"{number:05d}.safetensors"

    def weights_path(self, number: int) -> Path:
        """Where a trial's weights lie, if they were kept."""
        return self.folder / "trials" / f"{number:05d}.safetensors"

    def discard_weights(self) -> None:
        """Keep the weights of trial 0, of the best trials and of those that have not ended only.

        With protected domains, the best of those that may win as well; with two objectives, the front.
        """
        records, present, best = self.records(), set(self.kept()), self.best()
        kept = {0} | ({best.number} if best else set())
        for among in (records, self.allowed(records)):
            kept |= {record.number for record in ranked(among, self.settings.direction)[:KEPT_WEIGHTS]}
        if self.settings.cost is not None:
            marked = {record.number for record in self.choices(records).values()}
            there = [record for record in self.front(records) if record.number in present]
            kept |= marked | {record.number for record in spread(there, MOST_MEMBERS, self.settings.cost, marked)}
        for number in (_ended_numbers(records) & present) - kept:
            self.weights_path(number).unlink(missing_ok=True)

    def discard_states(self) -> None:
        """Keep the states of paused trials that have not ended only."""
        ended = _ended_numbers(self.records())
        for path in (self.folder / "paused").glob("*.safetensors"):
            if int(path.stem) in ended:
                path.unlink(missing_ok=True)

    def kept(self) -> list[int]:
        """Numbers of the trials whose weights are there."""
        return sorted(int(path.stem) for path in (self.folder / "trials").glob("*.safetensors"))

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Keep other commands from running the study, where it lies in its folder.

        One in a database of the user's own is there to be worked on from anywhere.

        Raises:
            UserError: if another live process runs it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(self.folder / "lock", "a+", encoding="utf-8")  # noqa: SIM115 closed below
        except OSError as error:
            raise UserError(f"cannot write {self.folder} ({error}); choose a folder you may write") from error
        with file:
            if self.storage is not None:
                yield
                return
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise UserError(f"study {self.name} is being run by {owner}; stop it first, or wait") from error
            file.truncate(0)
            file.write(f"process {os.getpid()}")
            file.flush()
            for leftover in self.folder.glob("**/.*.tmp"):  # of a process that was killed while it wrote
                leftover.unlink(missing_ok=True)
            try:
                yield
            finally:
                file.truncate(0)


def _ended_numbers(records: Sequence[Record]) -> set[int]:
    return {record.number for record in records if record.state not in ("RUNNING", "WAITING")}


def names(root: Path, storage: str | None = None) -> list[str]:
    """Names of the studies in a folder, or in a database of the user's own."""
    if storage is None:
        return sorted(path.parent.name for path in root.glob("*/study.db"))
    if is_sqlite(storage) and not sqlite_file(storage).exists():
        return []
    import optuna

    tables = open_storage(storage)
    try:
        return sorted(optuna.get_all_study_names(tables))
    finally:
        close_storage(tables)
