"""The wall time of a study over all its runs."""

from __future__ import annotations

import dataclasses
import time

TRIAL_SHARE = 0.2


@dataclasses.dataclass
class Clock:
    """Wall time spent over all runs of a study, in seconds, and the moment at which trials must stop.

    ``reserve`` is what the confirmation is likely to take of the limit; it gets half of it at most.
    """

    before: float
    limit: float | None
    started: float = dataclasses.field(default_factory=time.monotonic)
    reserve: float = 0.0

    @property
    def spent(self) -> float:
        """Seconds of all runs."""
        return self.before + time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds for trials: a twentieth of the limit, 15 s at most, is set aside for the end, and the reserve."""
        if self.limit is None:
            return float("inf")
        return self.limit - min(0.05 * self.limit, 15.0) - min(self.reserve, 0.5 * self.limit) - self.spent

    @property
    def deadline(self) -> float:
        """The moment, of ``time.monotonic()``, at which every trial must stop."""
        return time.monotonic() + self.left

    @property
    def share(self) -> float:
        """Seconds after which a trial other than 0 makes room for others, once it has a score and is not ahead."""
        return float("inf") if self.limit is None else TRIAL_SHARE * self.limit
