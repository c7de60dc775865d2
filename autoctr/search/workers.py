"""Several workers on one study: processes of this machine, or of a Dask cluster."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from autoctr.allocator import keep_freed_memory
from autoctr.errors import UserError
from autoctr.search.events import Watcher
from autoctr.search.inputs import find_device, load_inputs
from autoctr.search.lease import LeaseLost, RunOver
from autoctr.search.study import Study, fingerprint
from autoctr.search.worker import work

BACKENDS = ("loky", "dask")
MOST_DEATHS = 3
MOST_WORKERS = 1024


@dataclasses.dataclass(frozen=True)
class Crew:
    """Workers on one study.

    Attributes:
        devices: of each worker; None = the study's. Empty = one for every worker of the cluster.
        backend: ``loky``, processes of this machine, which joblib starts, or ``dask``.
        scheduler: address of the cluster's.
    """

    devices: tuple[str | None, ...]
    backend: str = "loky"
    scheduler: str | None = None

    @property
    def is_alone(self) -> bool:
        """Whether one process of this machine is all it has."""
        return self.backend == "loky" and len(self.devices) == 1

    def __str__(self) -> str:
        if self.backend == "dask":
            return f"workers of the cluster at {self.scheduler}"
        return f"{len(self.devices)} workers on this machine"


def crew(
    workers: int | None,
    gpus: Sequence[int] | None,
    backend: str | None,
    scheduler: str | None,
    storage: str | None,
) -> Crew | None:
    """The workers that were asked for; None for one in this process.

    Raises:
        UserError: for what does not go together, or is not there.
    """
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise UserError(f"workers is {workers}; legal are 1 to {MOST_WORKERS}")
    if backend not in (None, *BACKENDS):
        raise UserError(f"unknown backend {backend!r}; legal are {', '.join(BACKENDS)}")
    if (backend == "dask") != (scheduler is not None):
        raise UserError("--backend dask and --scheduler tcp://HOST:PORT go together; give both or neither")
    if backend == "dask":
        assert scheduler is not None
        if gpus is not None:
            raise UserError("--gpus are those of this machine; in a cluster each worker has its own, so leave them out")
        if storage is None and urlsplit(scheduler).hostname not in ("localhost", "127.0.0.1"):
            raise UserError("the workers of a cluster cannot open a file of this machine; add --storage postgresql://…")
        return Crew((None,) * (workers or 0), backend, scheduler)
    if gpus is None:
        return None if workers in (None, 1) else Crew((None,) * (workers or 1))
    for number in gpus:
        find_device(f"cuda:{number}")
    devices = itertools.cycle(f"cuda:{number}" for number in gpus)
    return Crew(tuple(itertools.islice(devices, max(workers or 0, len(gpus)))))


def work_together(study: Study, members: Crew, watcher: Watcher) -> None:
    """Let a crew work on a study until its totals are spent; who dies is replaced, and its trials go on.

    Raises:
        UserError: if joblib or Dask is not installed, or the workers die again and again.
    """
    watcher.opened(study.name, study.settings.metric, members.__str__)
    run = uuid.uuid4().hex
    (_on_dask if members.backend == "dask" else _on_this_machine)(study, members, watcher, run)


def _on_this_machine(study: Study, members: Crew, watcher: Watcher, run: str) -> None:
    try:
        import joblib
        from joblib.externals.loky import get_reusable_executor
    except ImportError as error:
        raise UserError("several workers need joblib; install it with: pip install 'autoctr[workers]'") from error
    threads = max(1, (os.cpu_count() or 1) // len(members.devices))
    calls = [
        joblib.delayed(work_in_process)(
            *_whereabouts(study), device, run, watcher.of_worker(number), threads=threads, parent=os.getpid()
        )
        for number, device in enumerate(members.devices)
    ]
    deaths = 0
    try:
        while True:
            ended = study.ended
            try:
                joblib.Parallel(n_jobs=len(calls), backend="loky")(calls)
                return
            except BrokenProcessPool as error:
                deaths = deaths + 1 if study.ended == ended else 1
                if deaths == MOST_DEATHS:
                    raise UserError(
                        f"workers died {deaths} times before a trial ended, perhaps for want of memory; fewer "
                        f"--workers need less; continue with: autoctr resume {study.name}"
                    ) from error
                watcher.note("a worker died; all go on from what they last wrote")
    finally:
        get_reusable_executor().shutdown(kill_workers=True)  # they would keep their memory for minutes


def _on_dask(study: Study, members: Crew, watcher: Watcher, run: str) -> None:
    """As tasks of the cluster, which starts those of a lost worker again on another."""
    try:
        import distributed
    except ImportError as error:
        raise UserError("a cluster needs Dask; install it with: pip install 'autoctr[cluster]'") from error
    connect: Any = distributed.Client
    try:
        client = connect(members.scheduler, timeout=10)
    except (OSError, TimeoutError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"no Dask scheduler answers at {members.scheduler} ({reason})") from error
    with client:
        present = len(client.ncores())
        if not present:
            raise UserError(f"the cluster at {members.scheduler} has no workers; start some with: dask worker ADDRESS")
        devices = members.devices or (None,) * present
        tasks = [
            client.submit(
                work_in_process, *_whereabouts(study), device, run, watcher.of_worker(number), key=f"{run}-{number}"
            )
            for number, device in enumerate(devices)
        ]
        try:
            client.gather(tasks)
        except distributed.KilledWorker as error:
            raise UserError(
                f"the cluster has lost the worker of one task too often; continue with: autoctr resume {study.name}"
            ) from error
        except BaseException:
            study.end_run(run)  # tasks that are under way cannot be cancelled
            raise


def _whereabouts(study: Study) -> tuple[str, Path, str | None]:
    return study.name, study.folder.parent.resolve(), study.storage


def work_in_process(
    name: str,
    root: Path,
    storage: str | None,
    device: str | None,
    run: str,
    watcher: Watcher,
    *,
    threads: int | None = None,
    parent: int | None = None,
) -> None:
    """What a process of a crew does.

    Args:
        run: of the crew; when it is over, so is this.
        threads: for arithmetic. parent: the process without which this one is to end. None = as it comes.
    """
    import torch

    keep_freed_memory()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends all
    if threads is not None:
        torch.set_num_threads(threads)
    study = Study.load(name, root=root, storage=storage)
    space, dataset = load_inputs(study.settings, Watcher())  # which has been told already
    study.check(fingerprint(study.settings, space, dataset.key))
    while not study.is_over(run):
        try:
            work(study, space, dataset, watcher, device, run)
            return
        except LeaseLost:
            watcher.note("stood still for so long that others took up its trials; joins again")
        except RunOver:
            return


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)  # as if killed, from which everything recovers
