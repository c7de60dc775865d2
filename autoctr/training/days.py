"""A time-stamped log day by day."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autoctr.data.dataset import SPLITS, Dataset, Rows
from autoctr.errors import UserError

MOST_DAYS = 1000
# Above each limit a time counts a finer unit: days, then seconds, milli-, micro- and nanoseconds since 1970.
_DAY_UNITS = ((10**8, 1), (10**11, 86_400), (10**14, 86_400_000), (10**17, 86_400_000_000))


class DayLog:
    """The rows of all three splits in the order of time, by day; held in memory.

    Attributes:
        day: of every row, from 0. days: their number. encoded_to: last day with rows of the training split.
    """

    def __init__(self, dataset: Dataset, day_length: int = 0) -> None:
        parts = [getattr(dataset, split) for split in SPLITS]
        joined: dict[str, Any] = {
            field.name: None
            if getattr(parts[0], field.name) is None
            else np.concatenate([getattr(part, field.name) for part in parts])
            for field in dataclasses.fields(Rows)
        }
        times = joined["time"]
        days = day_numbers(times, day_length)
        self.encoded_to = int(days[: len(dataset.train)].max())
        order = np.argsort(times, kind="stable")
        self.rows, self.day = Rows(**joined).take(order), days[order]
        self.days = int(self.day[-1]) + 1
        if self.days > MOST_DAYS:
            raise UserError(
                f"the time stamps {times.min()} to {times.max()} span {self.days} days, at most {MOST_DAYS} are "
                "replayed; give the length of a day in their unit with --day-length"
            )

    def numbers(self, domains: Sequence[int], first: int, last: int) -> npt.NDArray[np.int64]:
        """Row numbers of some domains in the days ``first`` to ``last``, both included."""
        start, stop = np.searchsorted(self.day, [first, last + 1])
        inside: npt.NDArray[np.int64] = np.flatnonzero(np.isin(self.rows.domain[start:stop], domains)) + start
        return inside


def day_numbers(times: npt.NDArray[np.int64], length: int = 0) -> npt.NDArray[np.int64]:
    """The day of every time, from 0, [N]. Days are counted back from the newest time, so that only the first is short.

    Args:
        length: of a day, in the unit of ``times``. 0: dates such as 20240131 are taken as such, and other numbers as
            days, seconds, milli-, micro- or nanoseconds by their size.
    """
    newest = int(times.max())
    if not length and int(times.min()) >= 19_000_101 and newest <= 21_001_231:
        years, months, days = times // 10_000, times // 100 % 100, times % 100
        first = ((years - 1970) * 12 + months - 1).astype("datetime64[M]").astype("datetime64[D]")
        times, newest, length = first.astype(np.int64) + days, 0, 1
    back = (times.max() - times) // (
        length or next((unit for limit, unit in _DAY_UNITS if newest < limit), 86_400 * 10**9)
    )
    result: npt.NDArray[np.int64] = back.max() - back
    return result
