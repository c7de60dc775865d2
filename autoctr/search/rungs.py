"""Which trials are weak, or ahead, beside the others at the same number of rows, or beside those that cost no more."""

from __future__ import annotations

from collections.abc import Sequence

from autoctr.search.record import Direction, Record, best_of

FEWEST_TO_COMPARE = 2


def is_weak(rows: int, value: float, others: Sequence[Record], every: int, direction: Direction) -> bool:
    """Whether a trial pauses at a rung: worse than the median of the others' best scores at as many rows.

    Asked at 2, 4, 8, ... passes only, and not before 2 others have got as far: a strong regulariser starts slowly, and
    beside trial 0 alone it would stop too soon. Of an even number of others the weaker middle one counts. As others
    come, a trial that was weak may no longer be.

    Args:
        rows: that the trial has visited. value: its best score so far. every: rows between two rungs.
    """
    passes = rows // every
    if passes < 2 or passes & (passes - 1):
        return False
    reached = [
        record.best_until(rows, direction) for record in others if record.rows >= rows or record.state == "COMPLETE"
    ]
    scores = sorted(score for score in reached if score is not None)
    if len(scores) < FEWEST_TO_COMPARE:
        return False
    middle = scores[(len(scores) - 1) // 2] if direction == "maximize" else scores[len(scores) // 2]
    return value < middle if direction == "maximize" else value > middle


def is_ahead(rows: int, value: float, others: Sequence[Record], direction: Direction) -> bool:
    """Whether a trial is better than the best of the others was after as many rows; before one has ended, than any was.

    A network that is slow, or comes late, may so take its time as long as it promises more than what has been found.

    Args:
        rows: that the trial has visited. value: its best score so far.
    """
    best = best_of(others, direction)
    reached = [record.best_until(rows, direction) for record in ([best] if best is not None else others)]
    scores = [score for score in reached if score is not None]
    return all(value > score if direction == "maximize" else value < score for score in scores)


def rivals(number: int, records: Sequence[Record], *, by_cost: bool) -> list[Record]:
    """The trials beside which a trial may be weak or ahead: all others, or with ``by_cost`` those that cost no more.

    So a cheap network is not stopped by dear ones. What a trial costs is taken as it is known before it is trained; one
    of unknown cost stands beside none.
    """
    others = [record for record in records if record.number != number]
    if not by_cost:
        return others
    own = next((record.cost for record in records if record.number == number), None)
    return [record for record in others if record.cost is not None and own is not None and record.cost <= own]


def weakest(records: Sequence[Record], direction: Direction, *, by_cost: bool) -> Record:
    """The trial that the most of its rivals have a better score than; of equals the worst, and then the latest."""
    sign = 1 if direction == "maximize" else -1

    def gain(record: Record) -> float:
        return sign * (record.value or 0.0)

    def place(record: Record) -> tuple[int, float, int]:
        better = sum(gain(other) > gain(record) for other in rivals(record.number, records, by_cost=by_cost))
        return better, -gain(record), record.number

    return max(records, key=place)
