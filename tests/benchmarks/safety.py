"""What it costs that a study cannot be lost: leases, states on disk, and readers while it runs."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from autoctr.report import study_text
from autoctr.search import study as study_module
from autoctr.search.lease import Lease
from autoctr.search.run import load_study, search
from autoctr.training.keeping import Keeper

ROUNDS, TRIALS, ROWS, READERS = 3, 12, 60_000, 16


def safety(arguments: argparse.Namespace) -> None:
    """Seconds of the same search with and without leases, locks and states, in turns."""
    taken: dict[str, list[float]] = {"with": [], "without": []}
    _searched(arguments)  # the data set is encoded
    for _ in range(ROUNDS):
        taken["with"].append(_searched(arguments))
        with _unsafe():
            taken["without"].append(_searched(arguments))
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    print(
        f"search of {TRIALS} trials: {seconds['with']:.1f} s with leases and states, {seconds['without']:.1f} s "
        f"without: {100 * (seconds['with'] / seconds['without'] - 1):+.1f} %  (rounds: {taken})"
    )


def readers(arguments: argparse.Namespace) -> None:
    """Seconds of the same search with and without 16 processes that show it again and again, on another core."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("readers needs two cores")
    os.sched_setaffinity(0, cores[:1])
    torch.set_num_threads(1)
    taken: dict[str, list[float]] = {"alone": [], "read": []}
    _searched(arguments)
    shown = failed = 0
    for _ in range(ROUNDS):
        taken["alone"].append(_searched(arguments))
        with tempfile.TemporaryDirectory() as folder, _reading(Path(folder), cores[-1]) as told:
            taken["read"].append(_searched(arguments, Path(folder)))
        shown, failed = shown + told[0], failed + told[1]
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    print(
        f"search of {TRIALS} trials on one core: {seconds['alone']:.1f} s alone, {seconds['read']:.1f} s while "
        f"{READERS} processes on another core showed it {shown} times ({failed} failed): "
        f"{100 * (seconds['read'] / seconds['alone'] - 1):+.1f} %  (rounds: {taken})"
    )


def _searched(arguments: argparse.Namespace, root: Path | None = None) -> float:
    """Seconds of a search with checkpoints as often as they come by default."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        where = Path(folder) if root is None else root
        search("taobao-sim", rows=ROWS, trials=TRIALS, study="s", root=where, device=arguments.device, precision="fp32")
        return time.perf_counter() - started


@contextlib.contextmanager
def _unsafe() -> Iterator[None]:
    """Without lease, lock and states."""

    def begin(lease: Lease) -> Lease:
        lease.slot = 0
        return lease

    with (
        mock.patch.object(Lease, "__enter__", begin),
        mock.patch.object(Lease, "__exit__", return_value=None),
        mock.patch.object(Lease, "check", return_value=None),
        mock.patch.object(study_module, "one_at_a_time", return_value=contextlib.nullcontext()),
        mock.patch.object(Keeper, "due", False),
    ):
        yield


@contextlib.contextmanager
def _reading(root: Path, core: int) -> Iterator[list[int]]:
    """Processes that show the study while this goes on; then how often they did, and how often that failed."""
    context = multiprocessing.get_context("spawn")
    over, answers, told = context.Event(), context.Queue(), [0, 0]
    ready = context.Barrier(READERS + 1)
    workers = [context.Process(target=_show, args=(root, core, ready, over, answers)) for _ in range(READERS)]
    for worker in workers:
        worker.start()
    ready.wait()
    try:
        yield told
    finally:
        over.set()
        for _ in workers:
            shown, failed = answers.get()
            told[0], told[1] = told[0] + shown, told[1] + failed
        for worker in workers:
            worker.join()


def _show(root: Path, core: int, ready: Any, over: Any, answers: Any) -> None:
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    shown = failed = 0
    ready.wait()
    while not over.is_set():
        with contextlib.suppress(Exception):
            if not (root / "s" / "study.db").exists():
                time.sleep(0.05)
                continue
            failed += 1
            study_text(load_study("s", root=root))
            shown, failed = shown + 1, failed - 1
        time.sleep(0.1)
    answers.put((shown, failed))
