"""Running a study: propose, train, tell, until the totals are spent; then read the test split once."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoctr.errors import UserError
from autoctr.search.events import Watcher
from autoctr.search.proposal import propose
from autoctr.search.record import Direction, Record
from autoctr.search.space import Space, load_space
from autoctr.search.study import DEFAULT_ROOT, Settings, Study, fingerprint, names
from autoctr.training.fit import Diverged, OutOfTime, Rung, rung_rows

if TYPE_CHECKING:
    import optuna

    from autoctr.data.dataset import Dataset
    from autoctr.search.trial import Laboratory

DEFAULT_TRIALS = 30
FEWEST_TO_COMPARE = 2
TRIAL_SHARE = 0.2
MOST_FAILURES = 3


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
    seed: int = 0,
    metric: str = "wauc",
    data_seed: int | None = None,
    root: Path | str = DEFAULT_ROOT,
    watcher: Watcher | None = None,
    **options: Any,
) -> Study:
    """Search the best candidate for a data set, from a new study to its proof on the test split.

    Args:
        dataset: name of a built-in data set; or ``table`` and ``schema`` for one's own.
        data: folder of the built-in data set's raw files.
        space: name of a shipped search space or path of a YAML file.
        trials: total number of trials; 30 if neither this nor ``time_limit`` is given.
        time_limit: total wall time, in seconds.
        study: its name; by default the data set's and the space's.
        storage: database address; by default SQLite in the study's folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        metric: ``wauc``, ``auc`` or ``logloss`` of the first label.
        data_seed: of the data set's simulation, negatives and split.
        options: of the data set, such as ``rows`` of ``taobao-sim``.

    Raises:
        UserError: for whatever the user can mend.
    """
    from autoctr.data.presets import load_dataset
    from autoctr.training.metrics import METRICS

    watcher = watcher or Watcher()
    if metric not in METRICS:
        raise UserError(f"unknown metric {metric!r}; legal are {', '.join(METRICS)}")
    if trials is None and time_limit is None:
        trials = DEFAULT_TRIALS
    _check_totals(trials, time_limit)
    find_device(device)
    space = str(space)
    loaded = load_space(space)
    where = {"data": data, "table": table, "schema": schema}
    if data_seed is not None:
        options["seed"] = data_seed
    source = {"name": dataset, **{key: str(Path(value).resolve()) for key, value in where.items() if value}, **options}
    root = Path(root)
    name = study or _free_name(f"{dataset or Path(str(table)).resolve().stem}-{loaded.name}", root)
    if study is not None and Study(study, root, storage).exists():
        raise UserError(f"study {study} exists; continue it with: autoctr resume {study}, or choose another --study")
    encoded = load_dataset(**_paths(source))
    _check_scorable(encoded, metric)
    _check_methods(loaded, encoded)
    loaded = _fitting(loaded, encoded, watcher)
    space_file = str(Path(space).resolve()) if space.endswith((".yaml", ".yml")) else space
    settings = Settings(source, space_file, metric, seed, device, trials, time_limit)
    made = Study.create(name, settings, fingerprint(settings, loaded, encoded.key), root=root, storage=storage)
    with made.owned():
        _run(made, loaded, encoded, watcher)
    return made


def resume(
    name: str,
    *,
    trials: int | None = None,
    time_limit: float | None = None,
    root: Path | str = DEFAULT_ROOT,
    storage: str | None = None,
    watcher: Watcher | None = None,
) -> Study:
    """Continue a study: finished trials stay, an interrupted one is run again under its own number.

    Args:
        trials: a new total. time_limit: a new total, in seconds. None keeps what the study has.

    Raises:
        UserError: if data set, space or code no longer are what the study was started with.
    """
    from autoctr.data.presets import load_dataset

    _check_totals(trials, time_limit)
    study = load_study(name, root=root, storage=storage)
    with study.owned():
        settings = study.settings
        space = load_space(settings.space)
        dataset, watcher = load_dataset(**_paths(settings.source)), watcher or Watcher()
        space = _fitting(space, dataset, watcher)
        study.check(fingerprint(settings, space, dataset.key))
        study.set_totals(trials or settings.trials, time_limit or settings.time_limit)
        _run(study, space, dataset, watcher)
    return study


def _check_totals(trials: int | None, time_limit: float | None) -> None:
    for what, total in (("trials", trials), ("time limit", time_limit)):
        if total is not None and total <= 0:
            raise UserError(f"{what} is {total:g}; it must be above 0")


def _check_scorable(dataset: Dataset, metric: str) -> None:
    """Whether the metric is defined on the validation rows."""
    import numpy as np

    if metric == "logloss":
        return
    groups = dataset.valid.domain if metric == "wauc" else np.zeros(len(dataset.valid), np.int64)
    rows, ones = np.bincount(groups), np.bincount(groups, dataset.valid.labels[:, 0])
    if not ((ones > 0) & (ones < rows)).any():
        where = "in every domain" if metric == "wauc" else "everywhere"
        raise UserError(
            f"the validation rows show only one class of {dataset.statistics.tasks[0]} {where}, so their {metric} is "
            "undefined; use --metric logloss, another split or more data"
        )


def _check_methods(space: Space, dataset: Dataset) -> None:
    """Whether the data have what the space's methods need."""
    if len(dataset.statistics.tasks) == 1:
        used = [name for name in ("task_space", "ticket_unit") if space.can_take(name, ("clicked", "esmm", "task"))]
        if used:
            raise UserError(
                f"space {space.name} sets {', '.join(used)} for several labels, but {dataset.name} has one; name "
                "further labels, such as a conversion, in the schema, or leave the field out"
            )
    methods = {"warm_start": 0, "rank": 0, "rank_divisor": 0, "sparsity": 0}
    if len(dataset.statistics.domains) == 1:
        used = [name for name, off in methods.items() if space.switches_on(name, off)]
        if used:
            raise UserError(
                f"space {space.name} varies {', '.join(used)} between domains, but {dataset.name} has one domain; "
                "use --space optfusion or plain, or name a domain column in the schema"
            )


def _fitting(space: Space, dataset: Dataset, watcher: Watcher) -> Space:
    """The space as the data set can be searched: without snapshots where it can have none.

    Raises:
        UserError: if the space leaves no candidate, or nothing that varies, without them.
    """
    from autoctr.training.periods import obstacle

    problem = obstacle(dataset)
    if problem is None or not space.switches_on("snapshots", 0):
        return space
    without = space.without("snapshots", "pooling")
    if not space.can_take("snapshots", (0,)) or not without.vary:
        raise UserError(
            f"space {space.name} needs snapshots, but {dataset.name} {problem}; name the column of times in the schema "
            "with timestamp: COLUMN, or set snapshots to 0"
        )
    watcher.note(f"snapshots stay off: {dataset.name} {problem}")
    return without


def load_study(name: str, *, root: Path | str = DEFAULT_ROOT, storage: str | None = None) -> Study:
    """Open a study to look at it.

    Raises:
        UserError: if there is none of that name.
    """
    return Study.load(name, root=Path(root), storage=storage)


def open_dataset(study: Study) -> Dataset:
    """The study's encoded data set.

    Raises:
        UserError: if it is no longer the one that the study was started with.
    """
    from autoctr.data.presets import load_dataset

    dataset = load_dataset(**_paths(study.settings.source))
    stored = study.database.user_attrs["fingerprint"]["dataset"]
    if dataset.key != stored:
        raise UserError(f"the data of study {study.name} has changed since it was searched; put it back")
    return dataset


def find_device(name: str) -> str:
    """The torch device of a user's word.

    Raises:
        UserError: for an unknown word, or CUDA where there is none.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; legal are auto, cpu, cuda and cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name} is not supported; legal are auto, cpu, cuda and cuda:N")
    present = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= present:
        raise UserError(f"device {name} was asked for, but this machine has {present} CUDA devices; use --device cpu")
    return name


def _paths(source: dict[str, Any]) -> dict[str, Any]:
    return {key: Path(value) if key in ("data", "table", "schema") else value for key, value in source.items()}


def _free_name(wanted: str, root: Path) -> str:
    wanted = re.sub(r"[^A-Za-z0-9._]+", "-", wanted).lstrip("._-")
    taken, name, number = set(names(root)), wanted, 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    return name


@dataclasses.dataclass
class _Clock:
    """Wall time spent over all runs of a study, in seconds, and the moment at which trials must stop."""

    before: float
    limit: float | None
    started: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        return self.before + time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds for trials: a twentieth of the limit, 15 s at most, is set aside for the end."""
        if self.limit is None:
            return float("inf")
        return self.limit - min(0.05 * self.limit, 15.0) - self.spent

    @property
    def deadline(self) -> float:
        """The moment, of ``time.monotonic()``, at which every trial must stop."""
        return time.monotonic() + self.left

    @property
    def share(self) -> float:
        """Seconds after which a trial other than 0 makes room for others, once it has a score."""
        return float("inf") if self.limit is None else TRIAL_SHARE * self.limit


def _run(study: Study, space: Space, dataset: Dataset, watcher: Watcher) -> None:
    import torch

    from autoctr.search.lead import Judge
    from autoctr.search.trial import Laboratory

    settings = study.settings
    clock = _Clock(study.database.user_attrs["spent"], settings.time_limit)
    laboratory = Laboratory(
        dataset,
        metric=settings.metric,
        seed=settings.seed,
        device=torch.device(find_device(settings.device)),
        folder=study.folder,
    )
    judge = Judge(study, laboratory)
    watcher.opened(study.name, settings.metric, lambda: _remaining(study, clock))
    failures = 0
    try:
        while failures < MOST_FAILURES:
            records = [record for record in study.records() if record.state not in ("RUNNING", "WAITING")]
            if not _may_start(settings, records, clock, len(dataset.train)):
                break
            trial = study.unfinished()
            if trial is None:
                number = len(records)
                proposal = propose(
                    space,
                    records,
                    number=number,
                    seed=settings.seed,
                    direction=settings.direction,
                    expected=_expected(settings, records, clock),
                )
                trial = study.begin(proposal)
            try:
                ended = _train(study, study.settle(trial, space), trial, records, laboratory, clock, watcher)
                judge.settle()
                watcher.finished(ended, study.best())
            except OutOfTime:
                study.put_back(trial)
                break
            failures = failures + 1 if ended.state == "FAIL" else 0
            study.database.set_user_attr("spent", clock.spent)
        if failures == MOST_FAILURES:
            watcher.note(f"stopped after {failures} failed trials in a row; see: autoctr show {study.name}")
        judge.settle()
        prove(study, dataset)
    finally:
        study.database.set_user_attr("spent", clock.spent)


def _remaining(study: Study, clock: _Clock) -> str:
    settings, parts = study.settings, []
    if settings.trials is not None:
        done = sum(record.state not in ("RUNNING", "WAITING") for record in study.records())
        parts.append(f"{done} of {settings.trials} trials done")
    if settings.time_limit is not None:
        parts.append(f"{max(clock.left, 0) / 60:.1f} min left")
    return ", ".join(parts)


def _may_start(settings: Settings, records: Sequence[Record], clock: _Clock, train_rows: int) -> bool:
    """Whether another trial fits into the totals; under a time limit it must at least reach its first score."""
    if settings.trials is not None and len(records) >= settings.trials:
        return False
    speeds = [record.speed for record in records if record.speed]
    needed = rung_rows(train_rows) / max(speeds) if speeds else 0.0
    return clock.left > needed


def _expected(settings: Settings, records: Sequence[Record], clock: _Clock) -> int:
    """How many trials the study will have in the end."""
    bounds = [] if settings.trials is None else [settings.trials]
    if settings.time_limit is not None:
        seconds = [record.seconds for record in records if record.seconds]
        typical = sum(seconds) / len(seconds) if seconds else settings.time_limit
        bounds.append(len(records) + int(clock.left / max(typical, 1e-3)))
    return min(bounds)


def _train(
    study: Study,
    record: Record,
    trial: optuna.trial.Trial,
    others: Sequence[Record],
    laboratory: Laboratory,
    clock: _Clock,
    watcher: Watcher,
) -> Record:
    from autoctr.training import checkpoint

    direction, metric = study.settings.direction, study.settings.metric
    best_before = study.best()
    every = rung_rows(len(laboratory.dataset.train))
    known: list[float] = []
    started = time.monotonic()
    had_its_share = False

    def on_rung(rung: Rung) -> bool:
        nonlocal had_its_share
        value = getattr(rung.scores, metric)
        known.append(value)
        so_far = max(known) if direction == "maximize" else min(known)
        study.report(trial, rung.rows, so_far)
        watcher.rung(record.number, rung, so_far, best_before)
        # rows of earlier stages count, but one score of the network itself is no curve yet
        if record.number > 0 and len(known) > 1 and is_weak(rung.rows, so_far, others, every, direction):
            return False
        # trial 0 is what the winner is measured against, and must not lose for want of time
        had_its_share = record.number > 0 and time.monotonic() - started > clock.share
        return not had_its_share

    watcher.started(record.number, record.candidate)
    kept: dict[str, Any] = {}
    try:
        outcome = laboratory.run(
            record.candidate,
            deadline=clock.deadline,
            on_rung=on_rung,
            on_stage=lambda stage: watcher.stage(record.number, stage),
        )
    except (Diverged, MemoryError, RuntimeError, ValueError) as error:
        message = str(error).partition("\n")[0][:400] or type(error).__name__
        kept["reason"] = "diverged" if isinstance(error, Diverged) else message
        kept["seconds"] = time.monotonic() - started
        ended = study.finish(trial, "FAIL", None, **kept)
    else:
        fitted = outcome.fitted
        if had_its_share:
            fitted.reason = "time"
        checkpoint.save(study.weights_path(record.number), outcome.cohort.network, fitted.weights)
        kept = {
            "candidate": outcome.candidate.canonical(),
            "valid": dataclasses.asdict(fitted.best),
            "gap": None if outcome.gap is None else dataclasses.asdict(outcome.gap),
            "closed": outcome.closed,
            "multiply_adds": outcome.multiply_adds,
            "kept": outcome.kept,
            "overlap": outcome.overlap,
            "reason": fitted.reason,
            "seconds": time.monotonic() - started,
            "speed": sum(rung.speed for rung in fitted.rungs) / len(fitted.rungs),
        }
        state = "PRUNED" if fitted.reason == "weak" else "COMPLETE"
        ended = study.finish(trial, state, getattr(fitted.best, metric), **kept)
        study.discard_weights()
    return ended


def is_weak(rows: int, value: float, others: Sequence[Record], every: int, direction: Direction) -> bool:
    """Whether a trial stops at a rung: worse than the median of the others' best scores at as many rows.

    Asked at 2, 4, 8, ... passes only, and not before 2 others have got as far: a strong regulariser starts slowly, and
    beside trial 0 alone it would stop too soon. Of an even number of others the weaker middle one counts.
    """
    passes = rows // every
    if passes < 2 or passes & (passes - 1):
        return False
    reached = [
        record.best_until(rows, direction) for record in others if record.rows >= rows or record.state == "COMPLETE"
    ]
    scores = sorted(score for score in reached if score is not None)
    if len(scores) < FEWEST_TO_COMPARE:
        return False
    middle = scores[(len(scores) - 1) // 2] if direction == "maximize" else scores[len(scores) // 2]
    return value < middle if direction == "maximize" else value > middle


def prove(study: Study, dataset: Dataset) -> None:
    """Read the test split, once for each pair of winner and plain network, and store what it says."""
    best = study.best()
    if best is None:
        return
    stored = study.database.user_attrs.get("proof")
    if stored is not None and stored["number"] == best.number:
        return
    proof = {"number": best.number, "best": _tested(study, best.number, dataset)}
    proof["plain"] = proof["best"] if best.number == 0 else _tested(study, 0, dataset) if 0 in study.kept() else None
    study.database.set_user_attr("ceiling", dataset.info.get("ceiling", {}).get("test"))
    study.database.set_user_attr("proof", proof)


def _tested(study: Study, number: int, dataset: Dataset) -> dict[str, Any]:
    """Test metrics of every task."""
    import torch

    from autoctr.search.stored import stored_network
    from autoctr.training.fit import score_members
    from autoctr.training.rows import ResidentRows

    cohort, dataset = stored_network(study, number, dataset, find_device(study.settings.device))
    domains = len(dataset.statistics.domains)
    rows = ResidentRows(dataset.test, domains, dtype=torch.float32, device=cohort.network.device)
    tasks = dataset.statistics.tasks
    return {name: dataclasses.asdict(score_members(cohort, rows, dataset, task)[0]) for task, name in enumerate(tasks)}


def summary(study: Study) -> dict[str, Any]:
    """What ``autoctr show --json`` prints."""
    best, proof = study.best(), study.database.user_attrs.get("proof")
    result: dict[str, Any] = {
        "study": study.name,
        "dataset": study.settings.source["name"] or study.settings.source["table"],
        "metric": study.settings.metric,
        "trials": [
            {"number": r.number, "state": r.state, "value": r.value, "seconds": r.seconds} for r in study.records()
        ],
        "best": None,
    }
    if best is None:
        return result
    result["best"] = {
        "number": best.number,
        "value": best.value,
        "candidate": best.candidate.to_dict(),
        "valid": best.valid,
        "lead": best.lead,
        "gap": best.gap,
        "test": None,
        "plain": None,
    }
    if proof is not None and proof["number"] == best.number:
        sides = {"test": proof["best"], "plain": proof["plain"]}
        by_task = {task: {side: tested and tested[task] for side, tested in sides.items()} for task in sides["test"]}
        result["best"] |= next(iter(by_task.values()))
        if len(by_task) > 1:
            result["best"]["tasks"] = by_task
        ceiling = study.database.user_attrs.get("ceiling")
        if ceiling is not None:
            result["best"]["ceiling"] = ceiling
    return result
