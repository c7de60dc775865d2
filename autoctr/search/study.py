"""A study on disk: its folder, its Optuna study in a database, its fingerprint, and the trials as records."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.search.certificate import Certificate
from autoctr.search.record import Direction, Record, winner_of
from autoctr.search.space import Space

if TYPE_CHECKING:
    import optuna

    from autoctr.search.proposal import Proposal

SCHEMA_VERSION = 1
BUSY_TIMEOUT_SECONDS = 60
KEPT_WEIGHTS = 5
DEFAULT_ROOT = Path("studies")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a study was asked to do; stored with it.

    ``source`` are the arguments of :func:`autoctr.data.presets.load_dataset`, ``space`` is a name or a file.
    ``trials`` and ``time_limit`` (seconds) are totals over all runs, None = no bound. ``cohort`` is how many candidates
    train together, None = as many as the device is best at. ``precision`` holds for every candidate; None = the space's
    word. ``checkpoint_every`` is in seconds; None = by what a state takes to write.
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

    @property
    def direction(self) -> Direction:
        """Optuna's word for the metric's good end."""
        return "minimize" if self.metric == "logloss" else "maximize"


def fingerprint(settings: Settings, space: Space, dataset_key: str) -> dict[str, Any]:
    """What must not change while a study goes on."""
    import optuna

    return {
        "code schema version": SCHEMA_VERSION,
        "optuna": optuna.__version__.split(".")[0],
        "dataset": dataset_key,
        "metric": settings.metric,
        "seed": settings.seed,
        **{f"space: fix {name}": value for name, value in space.fix.items()},
        **{f"space: vary {name}": part.to_dict() for name, part in space.vary.items()},
    }


def differences(stored: dict[str, Any], present: dict[str, Any]) -> list[str]:
    """Each field in which two fingerprints differ, in words."""
    lines = []
    for name in sorted(stored.keys() | present.keys()):
        before, now = stored.get(name), present.get(name)
        if before != now:
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
            UserError: if the name is taken or not usable, or the folder cannot be written.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise UserError(f"study name {name!r} is not usable; use letters, digits, '.', '_' and '-'")
        study = cls(name, root, storage)
        if study.exists():
            raise UserError(f"study {name} exists; continue it with: autoctr resume {name}, or choose another --study")
        try:
            study.folder.mkdir(parents=True, exist_ok=True)
            if storage is None:
                _prepare_sqlite(study.folder / "study.db")
        except (OSError, sqlite3.OperationalError) as error:
            raise UserError(f"cannot write {study.folder} ({error}); choose a folder you may write") from error
        import optuna

        opened = study._open_storage()
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
        study = cls(name, root, storage)
        if not study.exists():
            have = names(root, storage)
            if name in have:
                raise UserError(f"study {name} was never begun; start it with: autoctr search --study {name}")
            where = root if storage is None else without_password(storage)
            raise UserError(f"there is no study {name} in {where}; there are: {', '.join(have) or 'none'}")
        return study

    def exists(self) -> bool:
        """Whether the study is there, whole."""
        if self.url.startswith("sqlite:///") and not Path(self.url.removeprefix("sqlite:///")).exists():
            return False
        import optuna

        try:
            return "settings" in optuna.load_study(study_name=self.name, storage=self._open_storage()).user_attrs
        except KeyError:
            return False

    def _open_storage(self) -> optuna.storages.RDBStorage:
        import optuna
        import sqlalchemy

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        arguments = {"timeout": BUSY_TIMEOUT_SECONDS} if self.url.startswith("sqlite") else {}
        try:
            return optuna.storages.RDBStorage(self.url, engine_kwargs={"connect_args": arguments})
        except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError) as error:
            reason = str(error).splitlines()[0].replace(self.url, without_password(self.url))
            raise UserError(f"cannot open the study's database {without_password(self.url)} ({reason})") from error

    @property
    def database(self) -> optuna.Study:
        """The Optuna study in the database."""
        if self._study is None:
            import optuna

            self._study = optuna.load_study(study_name=self.name, storage=self._open_storage())
        return self._study

    @property
    def settings(self) -> Settings:
        """What the study was asked to do."""
        return Settings(**self.database.user_attrs["settings"])

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
        trials, leads = self.database.get_trials(deepcopy=False), self.database.user_attrs.get("leads", {})
        return [Record.of(trial, leads.get(str(trial.number))) for trial in trials if "candidate" in trial.user_attrs]

    def set_lead(self, number: int, lead: tuple[float, float]) -> None:
        """Store the interval of a finished trial's lead over trial 0."""
        leads = self.database.user_attrs.get("leads", {})
        self.database.set_user_attr("leads", {**leads, str(number): list(lead)})

    def best(self) -> Record | None:
        """The winner: of the confirmation if no trial has ended since, else the best that leads trial 0 clearly."""
        records, certificate = self.records(), self.certificate
        if certificate is not None and certificate.trials == _ended(records):
            return next(record for record in records if record.number == certificate.winner)
        return winner_of(records, self.settings.direction)

    @property
    def ended(self) -> int:
        """How many trials have ended."""
        return _ended(self.records())

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

    def begin(self, proposal: Proposal) -> optuna.trial.Trial:
        """Store a proposal as the next running trial."""
        candidate = proposal.candidate.canonical()
        self.database.enqueue_trial(proposal.values, user_attrs={"candidate": candidate})
        return self._start()

    def unfinished(self) -> list[optuna.trial.Trial]:
        """The trials that were running or waiting when the last run ended, under their own numbers."""
        import optuna

        found = []
        for trial in self.database.get_trials(deepcopy=False):
            if trial.state == optuna.trial.TrialState.RUNNING:
                found.append(optuna.trial.Trial(self.database, trial._trial_id))
            elif trial.state == optuna.trial.TrialState.WAITING:
                found.append(self._start())
        return found

    def proposed(self, number: int) -> Candidate:
        """The candidate of a trial, as it was proposed."""
        return Candidate.from_dict(json.loads(self.database.get_trials(deepcopy=False)[number].user_attrs["candidate"]))

    def groups(self, numbers: Sequence[int]) -> tuple[list[list[int]], list[int]]:
        """The groups in which trials were proposed, each whole, and the trials whose group was not yet complete."""
        trials = self.database.get_trials(deepcopy=False)
        found = {number: trials[number].user_attrs.get("group") for number in numbers}
        groups = {group[0]: group for group in found.values() if group}
        return [groups[first] for first in sorted(groups)], [number for number in numbers if not found[number]]

    def put_back(self, trial: optuna.trial.Trial) -> None:
        """Queue a running trial that found no time for its first score; the next run takes it up."""
        import optuna

        self.database._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.WAITING)

    def _start(self) -> optuna.trial.Trial:
        return self.database.ask()

    def settle(self, trial: optuna.trial.Trial, space: Space) -> Candidate:
        """Write the trial's values of the varied fields, which the queue holds, and return what was proposed."""
        queued = self.database.get_trials(deepcopy=False)[trial.number]
        for name in queued.system_attrs["fixed_params"]:
            trial._suggest(name, space.vary[name].distribution())
        return Candidate.from_dict(json.loads(queued.user_attrs["candidate"]))

    def report(self, trial: optuna.trial.Trial, rows: int, value: float) -> None:
        """Store a rung of a running trial; a trial that is run again overwrites its own."""
        self.database._storage.set_trial_intermediate_value(trial._trial_id, rows, value)

    def keep(self, trial: optuna.trial.Trial, **facts: Any) -> None:
        """Store what is to be remembered of a running trial."""
        for name, fact in facts.items():
            trial.set_user_attr(name, fact)

    def tell(self, trial: optuna.trial.Trial, state: str, value: float | None) -> Record:
        """End a trial in one of Optuna's states."""
        import optuna

        self.database.tell(trial, value, state=optuna.trial.TrialState[state])
        return Record.of(self.database.get_trials(deepcopy=False)[trial.number])

    def state_path(self, number: int) -> Path:
        """Where the state of a paused trial lies."""
        return self.folder / "paused" / f"{number:05d}.safetensors"

    def weights_path(self, number: int) -> Path:
        """Where a trial's weights lie, if they were kept."""
        return self.folder / "trials" / f"{number:05d}.safetensors"

    def discard_weights(self) -> None:
        """Keep the weights of trial 0 and of the best trials only."""
        sign = 1 if self.settings.direction == "maximize" else -1
        finished = [record for record in self.records() if record.value is not None and record.state == "COMPLETE"]
        finished.sort(key=lambda record: (-sign * (record.value or 0.0), record.number))
        best = self.best()
        kept = {0, *(record.number for record in finished[:KEPT_WEIGHTS])} | ({best.number} if best else set())
        for path in (self.folder / "trials").glob("*.safetensors"):
            if int(path.stem) not in kept:
                path.unlink(missing_ok=True)

    def discard_states(self, unfinished: Sequence[int]) -> None:
        """Keep the states of paused trials that are not finished only."""
        for path in (self.folder / "paused").glob("*.safetensors"):
            if int(path.stem) not in unfinished:
                path.unlink(missing_ok=True)

    def kept(self) -> list[int]:
        """Numbers of the trials whose weights are there."""
        return sorted(int(path.stem) for path in (self.folder / "trials").glob("*.safetensors"))

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the study for this process.

        Raises:
            UserError: if another live process holds it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(self.folder / "lock", "a+", encoding="utf-8")  # noqa: SIM115 closed below
        except OSError as error:
            raise UserError(f"cannot write {self.folder} ({error}); choose a folder you may write") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise UserError(f"study {self.name} is being run by {owner}; stop it first, or wait") from error
            file.truncate(0)
            file.write(f"process {os.getpid()}")
            file.flush()
            for leftover in self.folder.glob("*/.*.tmp"):  # of a process that was killed while it wrote
                leftover.unlink(missing_ok=True)
            try:
                yield
            finally:
                file.truncate(0)


def _ended(records: Sequence[Record]) -> int:
    return sum(record.state not in ("RUNNING", "WAITING") for record in records)


def names(root: Path, storage: str | None = None) -> list[str]:
    """Names of the studies in a folder, or in a database of the user's own."""
    if storage is None:
        return sorted(path.parent.name for path in root.glob("*/study.db"))
    import optuna

    return sorted(optuna.get_all_study_names(Study("", root, storage)._open_storage()))


def without_password(url: str) -> str:
    """A database address that may be shown."""
    return re.sub(r"(://[^/@:]*):[^/]*@", r"\1:***@", url)


def _prepare_sqlite(path: Path) -> None:
    """Create the database in write-ahead mode, which stays with the file."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
