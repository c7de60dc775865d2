"""One worker of a study: it trains trials, alone or beside others, until the totals are spent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from autoctr.errors import UserError
from autoctr.search.clock import Clock
from autoctr.search.events import Watcher
from autoctr.search.inputs import find_device
from autoctr.search.proof import prove
from autoctr.search.record import FINALISTS
from autoctr.search.space import Space
from autoctr.search.study import Study

if TYPE_CHECKING:
    from autoctr.data.dataset import Dataset


def work(
    study: Study,
    space: Space,
    dataset: Dataset,
    watcher: Watcher,
    device: str | None = None,
    run: str | None = None,
) -> None:
    """Work on a study until its totals are spent.

    Args:
        device: None = the study's. run: of the crew that this worker belongs to.

    Raises:
        LeaseLost: if this process stood still for so long that others have taken up its trials.
    """
    import torch

    from autoctr.search.engine import Engine
    from autoctr.search.trial import Laboratory
    from autoctr.training.keeping import Keeper

    settings = study.settings
    _tell_new_optuna(study, watcher)
    clock = Clock(study.spent, settings.time_limit)
    chosen = torch.device(find_device(device or settings.device))
    with study.at_work(run) as lease:
        folder, every = study.running_folder(lease.slot), settings.checkpoint_every
        keeper = Keeper(folder, every=every, device=chosen, on_message=watcher.note)
        if lease.slot == 0:
            keeper.move_from(folder.parent)  # where they lay until 2026-11-27
        laboratory = Laboratory(
            dataset, metric=settings.metric, seed=settings.seed, device=chosen, folder=study.folder, keeper=keeper
        )
        try:
            Engine(study, space, laboratory, clock, watcher).run()
        finally:
            study.set_spent(clock.spent)


def conclude(study: Study, dataset: Dataset, watcher: Watcher) -> None:
    """Confirm the winner, if that was asked for and there is time, or read the test split once.

    But not while other workers go on, and not without the winner's weights, which may be on another machine.
    """
    others, best = study.others_alive(), study.best()
    if others:
        watcher.note(f"other workers go on ({len(others)}); the last one reads the test split")
    elif study.storage is not None and best is not None and best.number not in study.kept():
        watcher.note(
            f"the weights of trial {best.number}, the winner, are with the worker that trained it, on "
            f"{study.host(best.number)}; there, autoctr resume {study.name} reads the test split"
        )
    elif not _confirmed(study, dataset, watcher):
        prove(study, dataset)


def _confirmed(study: Study, dataset: Dataset, watcher: Watcher) -> bool:
    """Whether the winner is confirmed, within the study's time."""
    from autoctr.search.confirm import certify
    from autoctr.training.fit import OutOfTime

    settings, certificate = study.settings, study.certificate
    if not settings.confirm:
        return False
    if sum(record.state == "COMPLETE" for record in study.records()) < 2:
        watcher.note("the winner is not confirmed: no second trial has come to its end")
        return False
    if certificate is not None and certificate.trials == study.ended:
        return True
    clock = Clock(study.spent, settings.time_limit)
    deadline = float("inf") if clock.limit is None else time.monotonic() + clock.limit - clock.spent
    try:
        certify(study, dataset, FINALISTS, settings.confirm, [], watcher.note, watcher.now, deadline)
        return True
    except OutOfTime:
        watcher.note(f"no time is left to confirm the winner; go on with: autoctr confirm {study.name}")
        return False
    except UserError as error:
        watcher.note(f"the winner is not confirmed: {error}")
        return False
    finally:
        study.set_spent(clock.spent)


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
