"""Running a study, from its beginning or onwards, to the proof of its winner on the test split."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autoctr.errors import UserError
from autoctr.search.events import Watcher
from autoctr.search.front import read_objectives
from autoctr.search.guessed import guessed_schema
from autoctr.search.inputs import (
    at_precision,
    check_methods,
    check_scorable,
    find_device,
    fitting_space,
    load_inputs,
    load_source,
)
from autoctr.search.protect import FEWEST_OF_A_CLASS, MOST_NAMES, noisy, read_protected
from autoctr.search.space import Space, load_space
from autoctr.search.study import DEFAULT_ROOT, Settings, Study, StudyExists, fingerprint, names
from autoctr.search.worker import conclude, work
from autoctr.search.workers import Crew, crew, work_together

if TYPE_CHECKING:
    from autoctr.data.dataset import Dataset

DEFAULT_TRIALS = 30
LARGEST_COHORT = 1024


def search(
    dataset: str | None = None,
    *,
    data: Path | str | None = None,
    table: Path | str | None = None,
    schema: Path | str | None = None,
    space: Path | str = "joint",
    trials: int | None = None,
    time_limit: float | None = None,
    study: str | None = None,
    storage: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    cohort: int | Literal["auto"] = "auto",
    checkpoint_every: float | None = None,
    confirm: int = 0,
    seed: int = 0,
    metric: str | None = None,
    objectives: str | Sequence[str] | None = None,
    protect: str | Sequence[str] = (),
    data_seed: int | None = None,
    workers: int | None = None,
    gpus: Sequence[int] | None = None,
    backend: str | None = None,
    scheduler: str | None = None,
    root: Path | str = DEFAULT_ROOT,
    watcher: Watcher | None = None,
    **options: Any,
) -> Study:
    """Search the best candidate for a data set, from a new study to its proof on the test split.

    Args:
        dataset: name of a built-in data set; or ``table`` and ``schema`` for one's own. Without a schema one is guessed
            and lies in the study's folder.
        data: folder of the built-in data set's raw files.
        space: name of a shipped search space or path of a YAML file.
        trials: total number of trials; 30 if neither this nor ``time_limit`` is given.
        time_limit: total wall time, in seconds.
        study: its name; by default the data set's and the space's.
        storage: address of a PostgreSQL database, in which the same call on any machine joins the study; by default
            SQLite in the study's folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``fp32``, ``bf16``, or ``auto`` for the second where the device is made for it; None = what the space
            says, and ``auto`` where it says nothing, like all shipped ones.
        cohort: how many candidates train together at most; ``auto`` = as many as the device is best at.
        checkpoint_every: seconds of training between two states on disk; None = the larger of 60 and 33 times what
            writing one takes.
        confirm: seeds with which the best trials and the plain networks are trained again in the end, within the time
            limit; 0 = none, and one training decides.
        metric: ``wauc``, ``auc`` or ``logloss`` of the first label; ``wauc`` by default.
        objectives: the metric and a cost, ``madds`` (multiply-adds per row), ``parameters`` or ``latency`` (measured
            milliseconds per 1,024 rows), such as ``("wauc", "madds")``: what is both good and cheap is searched.
        protect: ``domain:NAME>=plain``, one or several, or ``all``: domains in which no winner may be worse than trial
            0 on validation.
        data_seed: of the data set's simulation, negatives and split.
        workers: processes that work on the study at once. gpus: of this machine, a worker or more for each.
        backend: ``loky`` for processes of this machine, or ``dask`` for those of the cluster of ``scheduler``
            (``tcp://HOST:PORT``).
        options: of the data set, such as ``rows`` of ``taobao-sim``.

    Raises:
        UserError: for whatever the user can mend.
    """
    import torch

    from autoctr.search.confirm import check_seeds
    from autoctr.training.metrics import METRICS
    from autoctr.training.precision import find_precision

    watcher = watcher or Watcher()
    metric, pair = read_objectives(objectives, metric, METRICS)
    if metric not in METRICS:
        raise UserError(f"unknown metric {metric!r}; legal are {', '.join(METRICS)}")
    if trials is None and time_limit is None:
        trials = DEFAULT_TRIALS
    _check_totals(trials, time_limit)
    if confirm:
        check_seeds(confirm)
    members = crew(workers, gpus, backend, scheduler, storage)
    size = None if cohort == "auto" else cohort
    if size is not None and not 1 <= size <= LARGEST_COHORT:
        raise UserError(f"cohort is {size}; legal are auto and 1 to {LARGEST_COHORT}")
    place = torch.device(find_device(device))
    loaded = load_space(str(space))
    chosen = None
    if precision is not None or not loaded.sets("precision"):
        chosen = find_precision(precision or "auto", place)
    if data_seed is not None:
        options["seed"] = data_seed
    root = Path(root)
    name = study or _free_name(f"{dataset or Path(str(table)).resolve().stem}-{loaded.name}", root, storage)
    if study is not None and storage is None and Study(study, root, storage).exists():
        raise UserError(f"study {study} exists; continue it with: autoctr resume {study}, or choose another --study")
    with contextlib.ExitStack() as stack:
        if table is not None and schema is None and dataset is None:
            schema = stack.enter_context(guessed_schema(Path(table), root / name, watcher))
        where = {"data": data, "table": table, "schema": schema}
        source = {
            "name": dataset,
            **{key: str(Path(value).resolve()) for key, value in where.items() if value},
            **options,
        }
        encoded = load_source(source)
        protected = read_protected(protect, encoded.statistics.domains)
        check_scorable(encoded, metric)
        check_methods(loaded, encoded)
        loaded = fitting_space(at_precision(loaded, chosen), encoded, watcher)
        if few := noisy(protected, encoded):
            watcher.note(
                f"protected with fewer than {FEWEST_OF_A_CLASS} validation rows of a class, so that noise decides: "
                f"{', '.join(few[:MOST_NAMES])}"
            )
        settings = Settings(
            source,
            _space_name(space),
            metric,
            seed,
            device,
            trials,
            time_limit,
            size,
            chosen,
            checkpoint_every,
            confirm,
            pair,
            protected,
        )
        stamp = fingerprint(settings, loaded, encoded.key)
        try:
            made = Study.create(name, settings, stamp, root=root, storage=storage)
        except StudyExists:
            if storage is None:
                raise
            made = load_study(name, root=root, storage=storage)
            made.check(stamp)
            watcher.note(f"joins study {name}, which is there already; its totals and settings stay")
    with made.owned():
        _run(made, loaded, encoded, members, watcher)
    return made


def resume(
    name: str,
    *,
    fork: str | None = None,
    space: Path | str | None = None,
    objectives: str | Sequence[str] | None = None,
    protect: str | Sequence[str] = (),
    trials: int | None = None,
    time_limit: float | None = None,
    workers: int | None = None,
    gpus: Sequence[int] | None = None,
    backend: str | None = None,
    scheduler: str | None = None,
    root: Path | str = DEFAULT_ROOT,
    storage: str | None = None,
    watcher: Watcher | None = None,
) -> Study:
    """Continue a study: finished trials stay, paused ones stand where they stood, others start again.

    Args:
        workers, gpus, backend, scheduler: as for :func:`search`.
        fork: name of a new study that goes on instead, with data, space and code as they are now; it takes over the
            ended trials that still hold. The old one stays as it is.
        space, objectives, protect: of the new study, where it is to have others, as for :func:`search`.
        trials: a new total. time_limit: a new total, in seconds. None keeps what the study has.

    Raises:
        UserError: if data set, space or code no longer are what the study was started with.
    """
    from autoctr.training.metrics import METRICS

    _check_totals(trials, time_limit)
    members = crew(workers, gpus, backend, scheduler, storage)
    if space is not None and fork is None:
        raise UserError("another space needs a new study; name it with --fork NEW")
    if (objectives or protect) and fork is None:
        raise UserError("other objectives or protected domains need a new study; name it with --fork NEW")
    study, watcher = load_study(name, root=root, storage=storage), watcher or Watcher()
    settings = study.settings
    settings = dataclasses.replace(
        settings,
        space=settings.space if space is None else _space_name(space),
        trials=trials or settings.trials,
        time_limit=time_limit or settings.time_limit,
    )
    loaded, dataset = load_inputs(settings, watcher)
    if objectives:
        settings = dataclasses.replace(settings, objectives=read_objectives(objectives, settings.metric, METRICS)[1])
    if protect:
        settings = dataclasses.replace(settings, protect=read_protected(protect, dataset.statistics.domains))
    stamp = fingerprint(settings, loaded, dataset.key)
    if fork is not None:
        study = _forked(study, fork, settings, loaded, stamp, watcher)
    with study.owned():
        study.check(stamp)
        if (trials, time_limit) != (None, None):
            study.set_totals(settings.trials, settings.time_limit)
        _run(study, loaded, dataset, members, watcher)
    return study


def _run(study: Study, space: Space, dataset: Dataset, members: Crew | None, watcher: Watcher) -> None:
    statistics = dataset.statistics
    study.set_domain_rows(dict(zip(statistics.domains, statistics.domain_rows, strict=True)))
    if members is None or members.is_alone:
        work(study, space, dataset, watcher, None if members is None else members.devices[0])
    else:
        work_together(study, members, watcher)
    conclude(study, dataset, watcher)


def _forked(
    study: Study, name: str, settings: Settings, space: Space, stamp: dict[str, Any], watcher: Watcher
) -> Study:
    """A new study with what still holds of ``study``."""
    from autoctr.search.fork import take_over

    taken: list[int] = []
    made = Study.create(
        name,
        settings,
        stamp,
        root=study.folder.parent,
        storage=study.storage,
        fill=lambda made: taken.append(take_over(study, made, space, settings.cost)),
    )
    watcher.note(f"study {name} takes over {taken[0]} of {len(study.records())} trials of {study.name}")
    return made


def _check_totals(trials: int | None, time_limit: float | None) -> None:
    for what, total in (("trials", trials), ("time limit", time_limit)):
        if total is not None and total <= 0:
            raise UserError(f"{what} is {total:g}; it must be above 0")


def load_study(name: str, *, root: Path | str = DEFAULT_ROOT, storage: str | None = None) -> Study:
    """Open a study to look at it.

    Raises:
        UserError: if there is none of that name.
    """
    return Study.load(name, root=Path(root), storage=storage)


def _free_name(wanted: str, root: Path, storage: str | None) -> str:
    """A name that no study in the folder has; in a database of the user's own the same command joins the study."""
    wanted = re.sub(r"[^A-Za-z0-9._]+", "-", wanted).lstrip("._-")
    taken, name, number = set(names(root)) if storage is None else set(), wanted, 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    return name


def _space_name(space: Path | str) -> str:
    """The name of a shipped space, or the whole path of a file."""
    name = str(space)
    return str(Path(name).resolve()) if name.endswith((".yaml", ".yml")) else name
