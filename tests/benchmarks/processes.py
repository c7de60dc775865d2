"""K candidates in one program beside K processes of one candidate each, which share the same cores or the same GPU."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from typing import Any

import torch
from cohorts import IDS, PLAIN, ROWS
from rows import batch, statistics
from timing import wait

from autoctr.allocator import keep_freed_memory
from autoctr.training.cohort import Cohort

SECONDS, WARM_STEPS, CORES = 8.0, 5, 2


def processes(arguments: argparse.Namespace) -> None:
    """One line per K: members' rows per second of both, one after the other."""
    sizes = (CORES, 4 * CORES) if arguments.device == "cpu" else (1, 2, 4, 8, 16)
    for size in sizes:
        together = _speed(size, arguments.device, arguments.threads)
        apart = _speeds_apart(size, arguments.device, max(arguments.threads // size, 1))
        print(
            f"cohort of {size}: {together:,.0f} members' rows/s, {size} processes {apart:,.0f}: {together / apart:.2f}x"
        )


def _speed(size: int, device: str, threads: int, barrier: Any = None) -> float:
    """Members' rows per second of a cohort that trains for some seconds."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    known = statistics(IDS)
    rows = batch(known, ROWS, 0, device)
    cohort = Cohort(known, [PLAIN.replace(seed=seed) for seed in range(size)], {}, ramp=1, device=device)
    for _ in range(WARM_STEPS):
        cohort.step(rows)
    wait()
    if barrier is not None:
        barrier.wait()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        for _ in range(5):
            cohort.step(rows)
        wait()
        done += 5
    return done * ROWS * size / (time.perf_counter() - started)


def _speeds_apart(size: int, device: str, threads: int) -> float:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(size), context.Queue()
    workers = [context.Process(target=_report, args=(device, threads, barrier, answers)) for _ in range(size)]
    for worker in workers:
        worker.start()
    total = sum(answers.get() for _ in workers)
    for worker in workers:
        worker.join()
    return float(total)


def _report(device: str, threads: int, barrier: Any, answers: Any) -> None:
    answers.put(_speed(1, device, threads, barrier))
