"""Running a study: propose, train, tell, until the totals are spent; then read the test split once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autoctr.errors import UserError
from autoctr.search.clock import Clock
from autoctr.search.events import Watcher
from autoctr.search.space import Space, load_space
from autoctr.search.study import DEFAULT_ROOT, Settings, Study, fingerprint, names

if TYPE_CHECKING:
    from torch import Tensor

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
        precision: ``fp32``, ``bf16``, or ``auto`` for the second where the device is made for it; None = what the space
            says, and ``auto`` where it says nothing, like all shipped ones.
        cohort: how many candidates train together at most; ``auto`` = as many as the device is best at.
        checkpoint_every: seconds of training between two states on disk; None = the larger of 60 and 33 times what
            writing one takes.
        metric: ``wauc``, ``auc`` or ``logloss`` of the first label.
        data_seed: of the data set's simulation, negatives and split.
        options: of the data set, such as ``rows`` of ``taobao-sim``.

    Raises:
        UserError: for whatever the user can mend.
    """
    import torch

    from autoctr.data.presets import load_dataset
    from autoctr.training.metrics import METRICS
    from autoctr.training.precision import find_precision

    watcher = watcher or Watcher()
    if metric not in METRICS:
        raise UserError(f"unknown metric {metric!r}; legal are {', '.join(METRICS)}")
    if trials is None and time_limit is None:
        trials = DEFAULT_TRIALS
    _check_totals(trials, time_limit)
    size = None if cohort == "auto" else cohort
    if size is not None and not 1 <= size <= LARGEST_COHORT:
        raise UserError(f"cohort is {size}; legal are auto and 1 to {LARGEST_COHORT}")
    place = torch.device(find_device(device))
    loaded = load_space(str(space))
    chosen = None
    if precision is not None or not loaded.sets("precision"):
        chosen = find_precision(precision or "auto", place)
    loaded = _at_precision(loaded, chosen)
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
    settings = Settings(
        source, _space_name(space), metric, seed, device, trials, time_limit, size, chosen, checkpoint_every
    )
    made = Study.create(name, settings, fingerprint(settings, loaded, encoded.key), root=root, storage=storage)
    with made.owned():
        _run(made, loaded, encoded, watcher)
    return made


def resume(
    name: str,
    *,
    fork: str | None = None,
    space: Path | str | None = None,
    trials: int | None = None,
    time_limit: float | None = None,
    root: Path | str = DEFAULT_ROOT,
    storage: str | None = None,
    watcher: Watcher | None = None,
) -> Study:
    """Continue a study: finished trials stay, paused ones stand where they stood, others start again.

    Args:
        fork: name of a new study that goes on instead, with data, space and code as they are now; it takes over the
            ended trials that still hold. The old one stays as it is.
        space: of the new study, where it is to have another.
        trials: a new total. time_limit: a new total, in seconds. None keeps what the study has.

    Raises:
        UserError: if data set, space or code no longer are what the study was started with.
    """
    from autoctr.data.presets import load_dataset

    _check_totals(trials, time_limit)
    if space is not None and fork is None:
        raise UserError("another space needs a new study; name it with --fork NEW")
    study, watcher = load_study(name, root=root, storage=storage), watcher or Watcher()
    settings = study.settings
    settings = dataclasses.replace(
        settings,
        space=settings.space if space is None else _space_name(space),
        trials=trials or settings.trials,
        time_limit=time_limit or settings.time_limit,
    )
    loaded = _at_precision(load_space(settings.space), settings.precision)
    dataset = load_dataset(**_paths(settings.source))
    loaded = _fitting(loaded, dataset, watcher)
    stamp = fingerprint(settings, loaded, dataset.key)
    if fork is not None:
        study = _forked(study, fork, settings, loaded, stamp, watcher)
    with study.owned():
        study.check(stamp)
        study.set_totals(settings.trials, settings.time_limit)
        _run(study, loaded, dataset, watcher)
    return study


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
        fill=lambda made: taken.append(take_over(study, made, space)),
    )
    watcher.note(f"study {name} takes over {taken[0]} of {len(study.records())} trials of {study.name}")
    return made


def _space_name(space: Path | str) -> str:
    """The name of a shipped space, or the whole path of a file."""
    name = str(space)
    return str(Path(name).resolve()) if name.endswith((".yaml", ".yml")) else name


def _at_precision(space: Space, precision: str | None) -> Space:
    return space if precision is None else space.with_fixed(precision=precision)


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


def _run(study: Study, space: Space, dataset: Dataset, watcher: Watcher) -> None:
    import torch

    from autoctr.search.engine import Engine
    from autoctr.search.trial import Laboratory
    from autoctr.training.keeping import Keeper

    settings = study.settings
    _tell_new_optuna(study, watcher)
    clock = Clock(study.database.user_attrs["spent"], settings.time_limit)
    device = torch.device(find_device(settings.device))
    keeper = Keeper(study.folder / "running", every=settings.checkpoint_every, device=device, on_message=watcher.note)
    laboratory = Laboratory(
        dataset, metric=settings.metric, seed=settings.seed, device=device, folder=study.folder, keeper=keeper
    )
    try:
        Engine(study, space, laboratory, clock, watcher).run()
        prove(study, dataset)
    finally:
        study.database.set_user_attr("spent", clock.spent)


def _tell_new_optuna(study: Study, watcher: Watcher) -> None:
    """Say once that the sampler is of another version than the one that the study's proposals came from so far."""
    import optuna

    before = study.database.user_attrs.get("optuna", optuna.__version__)
    if before != optuna.__version__:
        watcher.note(
            f"Optuna was {before} and is now {optuna.__version__}: proposals may differ from those of an "
            "uninterrupted run"
        )
        study.database.set_user_attr("optuna", optuna.__version__)


def prove(study: Study, dataset: Dataset) -> None:
    """Read the test split, once for each pair of winner and plain network, and store what it says.

    ``seen`` tells whether it had been read before this winner was chosen: in an earlier run of this study, or in that
    which it forked from.
    """
    best = study.best()
    if best is None:
        return
    stored, certificate = study.database.user_attrs.get("proof"), study.certificate
    if certificate is not None and certificate.trials == study.ended:
        return  # a confirmed winner has been tested
    if stored is not None and stored["number"] == best.number:
        return
    scores, resamples = _tested(study, best.number, dataset)
    proof: dict[str, Any] = {"number": best.number, "best": scores, "plain": None}
    proof["seen"] = stored is not None or study.test_seen
    if best.number == 0:
        proof["plain"] = scores
    elif 0 in study.kept():
        proof["plain"], others = _tested(study, 0, dataset)
        proof["difference"] = _difference(resamples, others, dataset.statistics.domains)
    study.database.set_user_attr("ceiling", dataset.info.get("ceiling", {}).get("test"))
    study.database.set_user_attr("proof", proof)


def _difference(mine: dict[str, Tensor], theirs: dict[str, Tensor], domains: Sequence[str]) -> dict[str, Any]:
    """By how much two networks' test metrics differ on the middle 95 % of resamples of the users, both on the same."""
    from autoctr.training.bootstrap import percentile_interval

    found = {name: percentile_interval(mine[name] - theirs[name]) for name in mine if name != "domains"}
    areas = (mine["domains"] - theirs["domains"]).unbind(0)
    by_domain = {name: percentile_interval(area) for name, area in zip([*domains, "unknown"], areas, strict=True)}
    return {**found, "domains": by_domain}


def _tested(study: Study, number: int, dataset: Dataset) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Test metrics of every task, and those of the first on resamples of the users."""
    import torch

    from autoctr.search.seeds import derive
    from autoctr.search.stored import stored_network
    from autoctr.training.bootstrap import bootstrap
    from autoctr.training.fit import score_members
    from autoctr.training.rows import ResidentRows

    cohort, dataset = stored_network(study, number, dataset, find_device(study.settings.device))
    domains = len(dataset.statistics.domains)
    rows = ResidentRows(dataset.test, domains, dtype=torch.float32, device=cohort.network.device)
    tasks = dataset.statistics.tasks
    scores = {
        name: dataclasses.asdict(score_members(cohort, rows, dataset, task)[0]) for task, name in enumerate(tasks)
    }
    logits, labels = cohort.logits(rows)[0, :, 0], rows.labels[:, 0]
    seed = derive(study.settings.seed, 0, "test users")
    resamples = bootstrap(logits, labels, rows.domain, domains + 1, rows.user, seed=seed, each_domain=True)
    return scores, resamples


def _methods_alone(study: Study) -> dict[str, dict[str, Any]]:
    """What each method did alone, all else as in trial 0: its first such trial, and how far from it that scored."""
    from autoctr.search.proposal import method_alone

    records = study.records()
    found: dict[str, dict[str, Any]] = {}
    for record in records[1:]:
        if records[0].value is None or record.value is None or record.state not in ("COMPLETE", "PRUNED"):
            continue
        name = method_alone(record.candidate, records[0].candidate)
        if name is not None and name not in found:
            distance = record.value - records[0].value
            found[name] = {"number": record.number, "value": record.value, "difference": distance}
    return found


def _best_plain(study: Study) -> dict[str, Any] | None:
    """The best finished trial with every method off."""
    from autoctr.search.baselines import without_methods
    from autoctr.search.record import best_of

    plain = [r for r in study.records() if r.candidate.effective() == without_methods(r.candidate)]
    best = best_of(plain, study.settings.direction)
    return None if best is None else {"number": best.number, "value": best.value}


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
        "methods": _methods_alone(study),
        "best_plain": _best_plain(study),
        "best": None,
        "certificate": None if study.certificate is None else study.certificate.to_dict(),
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
        result["best"] |= {**next(iter(by_task.values())), "seen": proof.get("seen", False)}
        result["best"]["difference"] = proof.get("difference")
        if len(by_task) > 1:
            result["best"]["tasks"] = by_task
        ceiling = study.database.user_attrs.get("ceiling")
        if ceiling is not None:
            result["best"]["ceiling"] = ceiling
    return result
