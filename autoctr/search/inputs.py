"""What a study is given: data set, space and device, each checked against the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoctr.errors import UserError
from autoctr.search.events import Watcher
from autoctr.search.space import Space, load_space
from autoctr.search.study import Settings, Study

if TYPE_CHECKING:
    from autoctr.data.dataset import Dataset


def load_inputs(settings: Settings, watcher: Watcher) -> tuple[Space, Dataset]:
    """The space and the encoded data set that a study searches, as they are now.

    Raises:
        UserError: if something is missing, or the data have not what the space needs.
    """
    dataset = load_source(settings.source)
    return fitting_space(at_precision(load_space(settings.space), settings.precision), dataset, watcher), dataset


def load_source(source: dict[str, Any]) -> Dataset:
    """The encoded data set of a study's settings."""
    from autoctr.data.presets import load_dataset

    paths: dict[str, Any] = {
        key: Path(value) if key in ("data", "table", "schema") else value for key, value in source.items()
    }
    return load_dataset(**paths)


def at_precision(space: Space, precision: str | None) -> Space:
    """The space with every candidate in one precision; None leaves it to the space."""
    return space if precision is None else space.with_fixed(precision=precision)


def check_scorable(dataset: Dataset, metric: str) -> None:
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


def check_methods(space: Space, dataset: Dataset) -> None:
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


def fitting_space(space: Space, dataset: Dataset, watcher: Watcher) -> Space:
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


def open_dataset(study: Study) -> Dataset:
    """The study's encoded data set.

    Raises:
        UserError: if it is no longer the one that the study was started with.
    """
    dataset = load_source(study.settings.source)
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
