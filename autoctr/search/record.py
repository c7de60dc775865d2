"""What a study remembers of one trial."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from autoctr.model.candidate import Candidate

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Direction = Literal["maximize", "minimize"]
#: The best trials that a confirmation trains again.
FINALISTS = 3


@dataclasses.dataclass(frozen=True)
class Record:
    """One trial.

    ``state`` is Optuna's name. ``value`` is the best validation score so far (None before the first), ``values`` the
    varied fields that the sampler sees, ``rungs`` pairs of (rows visited over all stages, best score so far).
    ``seconds`` is wall time and ``speed`` training rows per second. ``gap`` holds the supernet's relaxed and discrete
    validation score, ``closed`` the share of closed neurons of each pruned layer and domain, ``multiply_adds`` per row
    with every neuron (``dense``) and without the closed ones of each domain (``open``), ``parameters`` those of the
    network without the embedding table, ``kept`` each ticket's share of surviving weights, ``overlap`` the tickets'
    mean overlap, ``reason`` why training ended, ``lead`` the 95 % interval of its lead over trial 0, where it was
    measured (see :class:`~autoctr.search.lead.Judge`), ``feasible`` is False where the candidate alone does not fit
    into memory, ``owner`` the slot of the worker that has or had it, and ``paused`` tells whether that worker put it
    aside as weak. With a cost as second objective, ``cost`` is what was known of it before the network was trained, and
    ``latency`` milliseconds per 1,024 rows, if they are the cost.
    """

    number: int
    state: str
    value: float | None
    candidate: Candidate
    values: dict[str, Any]
    rungs: tuple[tuple[int, float], ...]
    seconds: float | None
    speed: float | None
    valid: dict[str, Any] | None
    gap: dict[str, float] | None
    closed: dict[str, list[float]] | None
    multiply_adds: dict[str, Any] | None
    kept: list[float] | None
    overlap: float | None
    reason: str | None
    parameters: int | None = None
    lead: tuple[float, float] | None = None
    feasible: bool = True
    owner: int = 0
    paused: bool = False
    cost: float | None = None
    latency: float | None = None

    @property
    def rows(self) -> int:
        """Rows visited at the last rung."""
        return self.rungs[-1][0] if self.rungs else 0

    def best_until(self, rows: int, direction: Direction) -> float | None:
        """Best score among the rungs up to ``rows``, None if there is none yet."""
        seen = [value for visited, value in self.rungs if visited <= rows]
        if not seen:
            return None
        return max(seen) if direction == "maximize" else min(seen)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**kept, "candidate": self.candidate.to_dict(), "rungs": [list(rung) for rung in self.rungs]}

    @classmethod
    def of(cls, trial: FrozenTrial, lead: Sequence[float] | None = None) -> Record:
        """Read a trial of the study's storage, where its lead lies apart."""
        kept = trial.user_attrs
        rungs = tuple(sorted(trial.intermediate_values.items()))
        value = trial.value if trial.state.name == "COMPLETE" else rungs[-1][1] if rungs else None
        return cls(
            number=trial.number,
            state=trial.state.name,
            value=value,
            candidate=Candidate.from_dict(json.loads(kept.get("found", kept["candidate"]))),
            values=dict(trial.params),
            rungs=rungs,
            seconds=kept.get("seconds"),
            speed=kept.get("speed"),
            valid=kept.get("valid"),
            gap=kept.get("gap"),
            closed=kept.get("closed"),
            multiply_adds=kept.get("multiply_adds"),
            kept=kept.get("kept"),
            overlap=kept.get("overlap"),
            reason=kept.get("reason"),
            parameters=kept.get("parameters"),
            cost=kept.get("cost"),
            latency=kept.get("latency"),
            lead=None if lead is None else (lead[0], lead[1]),
            owner=kept.get("owner", 0),
            paused=kept.get("paused", False) and not trial.state.is_finished(),
            feasible=trial.state.name != "FAIL" or all(value <= 0 for value in trial.constraints.values()),
        )


def ranked(records: Iterable[Record], direction: Direction) -> list[Record]:
    """The finished trials, the best validation score first; the earlier one of equals."""
    sign = 1 if direction == "maximize" else -1
    finished = [record for record in records if record.state == "COMPLETE" and record.value is not None]
    return sorted(finished, key=lambda record: (-sign * (record.value or 0.0), record.number))


def best_of(records: Iterable[Record], direction: Direction) -> Record | None:
    """The finished trial with the best validation score; the earlier one of equals."""
    return next(iter(ranked(records, direction)), None)


def winner_of(records: Iterable[Record], direction: Direction) -> Record | None:
    """The best finished trial of trial 0 and those whose lead over it is clear: all of the interval is above 0.

    Of networks that may be alike the plain one is taken: the best of many is picked for its luck as well. Without a
    trial 0 the best trial wins.
    """
    records = list(records)
    has_plain = any(r.number == 0 and r.state == "COMPLETE" and r.value is not None for r in records)
    clear = [r for r in records if r.number == 0 or (r.lead is not None and r.lead[0] > 0)]
    return best_of(clear if has_plain else records, direction)


def confirmation_seconds(records: Iterable[Record], direction: Direction, finalists: int, seeds: int) -> float:
    """What it is likely to take to train the finalists, trial 0 and the winner without its methods again."""
    ended = ranked(records, direction)
    plain = [record for record in ended if record.number == 0]
    return seeds * sum(record.seconds or 0.0 for record in [*ended[:finalists], *plain, *plain])
