"""Who works on a study: each worker holds a slot by a lease, and what the dead leave is taken up by the living."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import platform
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from autoctr.errors import UserError

if TYPE_CHECKING:
    from autoctr.search.study import Study

LEASE_SECONDS = 60.0
RENEWALS = 3
#: Share of it after which its holder no longer trusts it, so that nobody else trusts it longer.
TRUSTED = 0.9


class LeaseLost(UserError):
    """Others have taken up the trials of this worker, for it had shown no sign of life."""


class RunOver(UserError):
    """Whoever has started this worker has stopped."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """A worker that holds a slot.

    Attributes:
        token: of this holding alone. host: its name. machine: what tells it from all others, and from containers that
            have its name. process: its number there. began: when that process began, in the machine's own count.
        until: when the lease ends if it is not renewed, in seconds of the database's clock.
    """

    token: str
    host: str
    machine: str
    process: int
    began: float
    until: float

    def is_alive(self, now: float) -> bool:
        """Whether the worker is there: on this machine its process decides, elsewhere the lease."""
        return began(self.process) == self.began if self.is_here else now <= self.until

    @property
    def is_here(self) -> bool:
        """Whether it works, or has worked, on this machine."""
        return self.machine == this_machine()


@functools.cache
def this_machine() -> str:
    """What tells this machine, since it was started, and this container from others."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return " ".join(parts)


def began(process: int) -> float | None:
    """When a process of this machine began, in its own count; None if there is none that lives."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        try:  # no /proc here: whether it lives is all that can be told
            os.kill(process, 0)
        except ProcessLookupError:
            return None
        return 0.0
    return None if fields[0] in "ZX" else float(fields[19])


class Lease:
    """A worker's hold on a slot of a study, from ``with`` to its end; a thread renews it.

    Slots are counted from 0, and a worker gets the lowest that nobody alive holds: what was under way at it is the
    worker's to go on with.

    Args:
        run: of the crew that the worker belongs to, if it does; when that is over, its lease is.
    """

    def __init__(self, study: Study, run: str | None = None) -> None:
        self.study, self.slot, self.run = study, -1, run
        self._token = uuid.uuid4().hex
        self._renewed = 0.0
        self._over = threading.Event()
        self._lost = self._stopped = False

    def __enter__(self) -> Lease:
        with self.study.alone():
            alive, slot = self.study.alive(), 0
            while slot in alive:
                slot += 1
            self.slot = slot
            self._write(self.study.now())
        self._thread = threading.Thread(target=self._renew_often, daemon=True, name="lease")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(Exception), self.study.alone():  # a lease that is not given back runs out
            self._own()
            self.study.set_holder(self.slot, None)

    def check(self) -> None:
        """Whether what this worker does still counts.

        Raises:
            LeaseLost: if others have taken up what it did. RunOver: if its crew's run is over.
        """
        if self._stopped:
            raise RunOver(
                f"the run that this worker belonged to is over; continue with: autoctr resume {self.study.name}"
            )
        if not self._lost and _now() - self._renewed > TRUSTED * LEASE_SECONDS:  # it stood still, or the database did
            self._renew()
        if self._lost:
            raise LeaseLost(
                f"this worker stood still for more than {LEASE_SECONDS:.0f} s and others have taken up its trials; "
                f"join them again with: autoctr resume {self.study.name}"
            )

    def _renew_often(self) -> None:
        while not self._lost and not self._over.wait(LEASE_SECONDS / RENEWALS):
            with contextlib.suppress(Exception):  # the database is away; the next check tells if it stays so
                self._renew()
                self._stopped = self.run is not None and self.study.is_over(self.run)

    def _renew(self) -> None:
        with contextlib.suppress(LeaseLost), self.study.alone():
            self._own()
            self._write(self.study.now())

    def _own(self) -> None:
        """Whether the slot is still this worker's, while nobody else can take it."""
        holder = self.study.holders().get(self.slot)
        if holder is None or holder.token != self._token:
            self._lost = True
            raise LeaseLost("lost")

    def _write(self, now: float) -> None:
        started = _now()
        self.study.set_holder(
            self.slot,
            Holder(
                self._token,
                platform.node(),
                this_machine(),
                os.getpid(),
                began(os.getpid()) or 0.0,
                now + LEASE_SECONDS,
            ),
        )
        self._renewed = started


def _now() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
