"""Watching a study in a terminal: one live line while a trial runs, plain lines where output is not a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from autoctr.model.candidate import Candidate
from autoctr.search.events import Watcher
from autoctr.search.record import Record
from autoctr.training.fit import Rung

SILENCE_SECONDS = 10.0


class Printer(Watcher):
    """Prints what happens; ``study`` is the study's name once it runs."""

    def __init__(self, live: Live | None, worker: int | None = None) -> None:
        self.live, self.worker = live, worker
        self.study: str | None = None
        self.metric = ""
        self.left: Callable[[], str] = str
        self.spoke = time.monotonic()

    def of_worker(self, number: int) -> Printer:
        """The printer of one of several workers: plain lines that begin with its number."""
        self.close()
        self.live = None
        return Printer(None, number)

    def opened(self, study: str, metric: str, left: Callable[[], str]) -> None:
        """A study starts or goes on."""
        self.study, self.metric, self.left = study, metric, left
        self.line(f"study {study}: {left()}; scored by validation {metric}")

    def line(self, text: str) -> None:
        """A line that stays."""
        self.spoke = time.monotonic()
        if self.worker is not None:
            text = f"worker {self.worker}: {text}"
        if self.live is not None:
            self.live.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def now(self, message: str) -> None:
        """What is going on, replaced by the next such line; elsewhere than in a terminal a line after some silence."""
        if self.live is not None:
            self.live.update(Text(message, no_wrap=True, overflow="ellipsis"))
        elif time.monotonic() - self.spoke > SILENCE_SECONDS:
            self.line(message)

    def note(self, message: str) -> None:
        """Something a user should know."""
        self.line(message)

    def started(self, number: int, candidate: Candidate) -> None:
        """A trial starts."""
        self.now(f"trial {number} starts")

    def stage(self, number: int, stage: str) -> None:
        """A trial enters a stage."""
        self.now(f"trial {number}  {stage} ...  {self.left()}")

    def rung(self, number: int, rung: Rung, value: float, best: Record | None) -> None:
        """A trial was scored."""
        so_far = "" if best is None or best.value is None else f"  best {best.value:.5f} (trial {best.number})"
        self.now(
            f"trial {number}  {rung.rows:,} rows  {rung.speed:,.0f} rows/s  {self.metric} {value:.5f}{so_far}"
            f"  {self.left()}"
        )

    def paused(self, record: Record) -> None:
        """A trial was weak at a rung."""
        self._ended(record, "paused", "")

    def finished(self, record: Record, best: Record | None) -> None:
        """A trial ended."""
        mark = "  * best so far" if best is not None and best.number == record.number else ""
        self._ended(record, "cut off" if record.reason == "time" else record.state.lower(), mark)
        if record.state == "FAIL":
            self.line(f"           reason: {record.reason}")

    def _ended(self, record: Record, how: str, mark: str) -> None:
        score = "no score" if record.value is None else f"{self.metric} {record.value:.5f}"
        seconds = 0.0 if record.seconds is None else record.seconds
        self.line(
            f"trial {record.number:3}  {how:8}  {score}  {record.rows:>11,} rows  {seconds:6.1f} s"
            f"  {outline(record.candidate)}{mark}"
        )

    def close(self) -> None:
        """Take the live line away."""
        if self.live is not None:
            self.live.update(Text(""))
            self.live.stop()


def outline(candidate: Candidate) -> str:
    """A candidate in a few words."""
    words = [candidate.architecture, f"K={candidate.blocks}", f"h={candidate.width}", f"E={candidate.embedding}"]
    if candidate.cross != "matrix":
        words.append(candidate.cross)
    if candidate.rank_divisor:
        words.append(f"rank 1/{candidate.rank_divisor}")
    elif candidate.rank:
        words.append(f"rank {candidate.rank}")
    if candidate.sparsity:
        words.append(f"sparsity {candidate.sparsity:g}")
    if candidate.keep_rate < 1:
        words.append(f"tickets {candidate.keep_rate:g}")
    if candidate.warm_start:
        words.append(f"warm {candidate.warm_start:g}")
    if candidate.snapshots:
        words.append(f"snapshots {candidate.snapshots}")
    return " ".join([*words, f"lr {candidate.learning_rate:.1e}"])


@contextlib.contextmanager
def printer() -> Iterator[Printer]:
    """A printer for standard output."""
    if not sys.stdout.isatty():
        yield Printer(None)
        return
    with Live(Text(""), console=Console(), refresh_per_second=4, transient=True) as live:
        yield Printer(live)
