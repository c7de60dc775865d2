"""States of work under way, written every so often, so that a crash costs minutes: what is found again is gone on with.

A piece of work has a name that says all that decides it. Its two latest states are kept, each with a checksum, so that
a file that was damaged costs one interval more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoctr.training import checkpoint, state
from autoctr.training.cohort import Cohort
from autoctr.training.state import State

LEAST_SECONDS, WRITING_SHARE = 60.0, 33.0


class Keeper:
    """Writes states when they are due and finds them again.

    Names that differ only behind a ``#`` are of work that is done one after the other, and take the same place on disk.

    Args:
        folder: where they lie; None keeps nothing.
        every: seconds of work between two writings; None = the larger of 60 and 33 times what one takes.
        on_message: told of a state that is damaged, and how often states are written.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        every: float | None = None,
        device: torch.device | str = "cpu",
        on_message: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.folder, self.device, self.on_message = folder, device, on_message
        self._every, self._longest, self._written = every, 0.0, time.monotonic()
        self._waiting: dict[str, Callable[[], State]] = {}

    @property
    def every(self) -> float:
        """Seconds of work between two writings, by what they have taken so far."""
        return max(LEAST_SECONDS, WRITING_SHARE * self._longest) if self._every is None else self._every

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return self.folder is not None and time.monotonic() - self._written >= self.every

    def offer(self, name: str, give: Callable[[], State], *, instead: bool = False) -> None:
        """Write the state of the work ``name`` if it is due, after all results that wait to be written, or instead."""
        if self.due:
            started = time.monotonic()
            if instead:
                self._waiting.clear()
            for waiting, result in [*self._waiting.items(), (name, give)]:
                self.write(waiting, *result())
            self._waiting.clear()
            self._written = time.monotonic()
            first, self._longest = self._longest == 0, max(self._longest, self._written - started)
            if first:
                self.on_message(
                    f"what is under way is on disk ({self._longest:.1f} s); again every {self.every:.0f} s of training"
                )

    def later(self, name: str, give: Callable[[], State]) -> None:
        """A result that takes little work to lose, but not beside all that builds on it: written with what is next."""
        if self.folder is not None:
            self._waiting[name] = give

    def write(self, name: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """A state, in the place of the older of the two that there are."""
        assert self.folder is not None
        numbers = dict.fromkeys(self._paths(name), -2) | dict(self._numbers(name))
        path, number = min(numbers, key=numbers.__getitem__), max(*numbers.values(), -1) + 1
        checkpoint.write(path, tensors, {"facts": json.dumps(facts), "number": str(number), "name": name})

    def find(self, name: str) -> State | None:
        """The latest whole state of the work ``name``; None if there is none."""
        if self.folder is None:
            return None
        for path, _ in sorted(self._numbers(name), key=lambda found: (found[1] >= 0, -found[1])):
            try:
                header, tensors = checkpoint.read(path, self.device)
                if header["name"] != name:
                    continue
                return tensors, json.loads(header["facts"])
            except torch.OutOfMemoryError:
                raise
            except checkpoint.DAMAGES as error:
                self.on_message(f"{path} is damaged ({error}); going on from an older state")
                path.unlink(missing_ok=True)
        return None

    def forget(self) -> None:
        """Remove all states: what they led to is stored elsewhere."""
        self._waiting.clear()
        if self.folder is not None:
            for path in self.folder.glob("*.safetensors"):
                path.unlink(missing_ok=True)

    def move_from(self, folder: Path) -> None:
        """Take over the states of a worker that is no more; this one has none."""
        if self.folder is not None:
            for path in folder.glob("*.safetensors"):
                self.folder.mkdir(parents=True, exist_ok=True)
                path.replace(self.folder / path.name)

    def _paths(self, name: str) -> list[Path]:
        assert self.folder is not None
        key = hashlib.blake2b(name.partition("#")[0].encode(), digest_size=12).hexdigest()
        return [self.folder / f"{key}-{number}.safetensors" for number in (0, 1)]

    def _numbers(self, name: str) -> list[tuple[Path, int]]:
        """The states there are, and which writing they are of."""
        found = []
        for path in self._paths(name):
            if path.exists():
                number = -1  # of a damaged file, which is the first to be told of and to be replaced
                with contextlib.suppress(*checkpoint.DAMAGES):
                    number = int(checkpoint.read_header(path)["number"])
                found.append((path, number))
        return found


@dataclasses.dataclass(frozen=True)
class Work:
    """One piece of work whose states are kept; its ``name`` says all that decides what comes out of it."""

    keeper: Keeper
    name: str

    def part(self, name: object) -> Work:
        """A piece of this work."""
        return Work(self.keeper, f"{self.name}/{name}")

    def resume(self, cohort: Cohort) -> None:
        """Put a cohort where this work was when its latest state was written; it stays at its start without one."""
        found = self.keeper.find(self.name)
        if found is not None:
            state.fill(cohort, *found)

    def find(self) -> State | None:
        """What :meth:`keep` was given last and has been written."""
        return self.keeper.find(self.name)

    def keep(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """A result, to be written with the next state of what builds on it."""
        self.keeper.later(self.name, lambda: (tensors, facts))

    def offer(self, cohort: Cohort) -> None:
        """Write the cohort's state if it is due."""
        self.keeper.offer(self.name, lambda: state.of_cohort(cohort))

    def later(self, cohort: Cohort) -> None:
        """The work is done: its last state is written with the next one of what builds on it."""
        self.keeper.later(self.name, lambda: state.of_cohort(cohort))
