"""The trials of which no other is both cheaper and better, and how one of them is named."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from autoctr.errors import UserError
from autoctr.search.record import Direction, Record

if TYPE_CHECKING:
    from autoctr.search.study import Study

#: What a network may cost, in words; all leave the embedding table and its look-up out, but for the latency.
COSTS: dict[str, str] = {
    "madds": "multiply-adds per row",
    "parameters": "parameters without the embedding table",
    "latency": "milliseconds per 1,024 rows",
}
CHOICES = ("fastest", "knee", "best")
#: A score that is below another by no more may be as good: what another seed alone moves a network by.
NOISE = 0.001
#: The most members of a front whose weights a study keeps.
MOST_MEMBERS = 12


def read_objectives(
    given: str | Sequence[str] | None, metric: str | None, metrics: Sequence[str]
) -> tuple[str, tuple[str, str] | None]:
    """A search's metric and its two objectives, the metric and a cost, if it has them.

    Args:
        given: such as ``wauc,madds`` or the two words. metric: if it was named apart. metrics: the legal ones.

    Raises:
        UserError: for anything else.
    """
    if given is None:
        return metric or metrics[0], None
    words = given.split(",") if isinstance(given, str) else list(given)
    names = [word.strip() for word in words]
    if len(names) != 2 or names[0] not in metrics or names[1] not in COSTS:
        raise UserError(
            f"objectives are {','.join(names)!r}; legal is a metric ({', '.join(metrics)}) and a cost "
            f"({', '.join(COSTS)}), such as {metrics[0]},madds"
        )
    if metric not in (None, names[0]):
        raise UserError(f"the first objective is {names[0]}, but the metric is {metric}; name one of them")
    return names[0], (names[0], names[1])


def cost_of(record: Record, cost: str) -> float | None:
    """What a trained network costs, a name of ``COSTS``; None where it was not measured."""
    if cost == "madds":
        return None if record.multiply_adds is None else float(max(record.multiply_adds["open"]))
    return record.latency if cost == "latency" else record.parameters


def front(records: Sequence[Record], direction: Direction, cost: str) -> list[Record]:
    """The finished trials of which no other is as good and cheaper, or as cheap and better; the cheapest first.

    Of trials that are equal in both the earliest is taken.
    """
    sign = 1 if direction == "maximize" else -1
    points = [
        (price, -sign * record.value, record.number, record)
        for record in records
        if record.state == "COMPLETE" and record.value is not None and (price := cost_of(record, cost)) is not None
    ]
    found: list[Record] = []
    reached = math.inf
    for _, loss, _, record in sorted(points, key=lambda point: point[:3]):
        if loss < reached:
            reached = loss
            found.append(record)
    return found


def chosen(records: Sequence[Record], members: Sequence[Record], direction: Direction, cost: str) -> dict[str, Record]:
    """The named members of a front.

    ``fastest`` is the cheapest whose score is not clearly below trial 0's: some of the interval of its lead is not
    below 0, or, where that was not measured, its score is below by ``NOISE`` at most. ``best`` has the best score.
    ``knee`` is farthest above the line between the ends of the front, score against cost, both from 0 to 1; of equals,
    and so of two, the cheapest.

    Args:
        records: of the study. members: the front, the cheapest first.
    """
    if not members:
        return {}
    best = members[-1]
    plain = next((record for record in records if record.number == 0 and record.state == "COMPLETE"), best)
    fastest = next((record for record in members if not _is_clearly_below(record, plain, direction)), best)
    return {"fastest": fastest, "knee": _knee(members, cost), "best": best}


def _is_clearly_below(record: Record, plain: Record, direction: Direction) -> bool:
    if record.lead is not None:
        return record.lead[1] < 0
    return _ahead(record, plain, direction) < -NOISE


def _ahead(record: Record, other: Record, direction: Direction) -> float:
    """By how much the score of ``record`` is better."""
    assert record.value is not None
    assert other.value is not None
    return (record.value - other.value) * (1 if direction == "maximize" else -1)


def _knee(members: Sequence[Record], cost: str) -> Record:
    prices, scores = [cost_of(record, cost) or 0.0 for record in members], [record.value or 0.0 for record in members]
    if len(members) < 3:
        return members[0]

    def above(place: int) -> float:
        x = (prices[place] - prices[0]) / (prices[-1] - prices[0])
        return (scores[place] - scores[0]) / (scores[-1] - scores[0]) - x

    return members[max(range(len(members)), key=lambda place: (above(place), -place))]


def spread(members: Sequence[Record], most: int, cost: str, stay: Collection[int] = ()) -> list[Record]:
    """At most so many members of a front, spread over its costs: what lies closest between its neighbours goes first.

    The ends stay, and so do the trials of the numbers ``stay``.

    Args:
        members: the cheapest first.
    """
    left = list(members)
    while len(left) > most:
        between = [n for n in range(1, len(left) - 1) if left[n].number not in stay]
        if not between:
            break
        prices = [math.log1p(cost_of(record, cost) or 0.0) for record in left]
        del left[min(between, key=lambda n: prices[n + 1] - prices[n - 1])]
    return left


def find_trial(study: Study, trial: int | str) -> int:
    """The number of a trial that was named by it, or as ``pareto:fastest``, ``pareto:knee`` or ``pareto:best``.

    Raises:
        UserError: for another name, or where no trial has ended that could have it.
    """
    name = str(trial)
    if name.isdecimal():
        return int(name)
    kind, _, choice = name.partition(":")
    if kind != "pareto" or choice not in CHOICES:
        legal = ", ".join(f"pareto:{word}" for word in CHOICES)
        raise UserError(f"trial is {name!r}; legal are a trial's number and {legal}")
    found = study.choices(study.records())
    if not found:
        cost = study.settings.cost or "madds"
        raise UserError(
            f"study {study.name} has no finished trial of known {cost}; go on with: autoctr resume {study.name}"
        )
    return found[choice].number
