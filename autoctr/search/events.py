"""What a running study tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable

from autoctr.model.candidate import Candidate
from autoctr.search.record import Record
from autoctr.training.fit import Rung


class Watcher:
    """Receives the events of a study; every method may be overridden and none has to be."""

    def of_worker(self, number: int) -> Watcher:
        """The watcher of one of several workers, in a process of its own."""
        return Watcher()

    def opened(self, study: str, metric: str, left: Callable[[], str]) -> None:
        """A study starts or goes on; ``left`` says in words what remains of its totals."""

    def note(self, message: str) -> None:
        """Something a user should know, in one line."""

    def now(self, message: str) -> None:
        """What is going on, until the next such line."""

    def started(self, number: int, candidate: Candidate) -> None:
        """A trial starts."""

    def stage(self, number: int, stage: str) -> None:
        """A trial enters a stage, such as snapshots, supernet or fit."""

    def rung(self, number: int, rung: Rung, value: float, best: Record | None) -> None:
        """A trial was scored; ``value`` is its best so far, ``best`` the study's best finished trial."""

    def paused(self, record: Record) -> None:
        """A trial was weak at a rung; it goes on if those after it are weaker."""

    def finished(self, record: Record, best: Record | None) -> None:
        """A trial ended."""
