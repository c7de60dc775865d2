"""The next candidate of a study: a function of what is finished, the study's seed and the trial's number."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoctr.errors import UserError
from autoctr.model.architecture import FIXED, Architecture
from autoctr.model.candidate import Candidate
from autoctr.search.front import cost_of, front
from autoctr.search.protect import shortfalls
from autoctr.search.record import Direction, Record, best_of
from autoctr.search.seeds import derive
from autoctr.search.space import Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STARTUP_SHARE = 4
MOST_STARTUP = 10
CHANGED_AT_START, CHANGED_LATER = 1 / 4, 1 / 8
ATTEMPTS = 50

#: The fields that switch each method on, each with its value when off and a middling one; what takes least time first.
METHODS: dict[str, dict[str, tuple[Any, Any]]] = {
    "mlora": {"rank": (0, 4)},
    "adasparse": {"sparsity": (0, 0.2)},
    "ecdctr": {"warm_start": (0, 0.5), "snapshots": (0, 4)},
    "lt4rec": {"keep_rate": (1, 0.5)},
    "optfusion": {"architecture": ("parallel", "learn")},
}


#: All fields that have no effect while their method is off.
METHOD_FIELDS: dict[str, tuple[str, ...]] = {
    "mlora": ("rank", "rank_tilt", "rank_divisor", "truncate", "lora_schedule"),
    "adasparse": (
        "sparsity", "sparsity_tilt", "sparsity_form", "sparsity_alpha", "sparsity_epsilon", "sparsity_beta",
        "pruner_input", "input_pruner",
    ),
    "ecdctr": ("warm_start", "warm_share", "snapshots", "pooling"),
    "lt4rec": ("keep_rate", "ticket_rounds", "ticket_epochs", "ticket_unit", "ticket_ranking", "rewind"),
    "optfusion": (
        "architecture", "learned", "architecture_rate", "warmup", "alternating", "readout", "search_epochs", "retrain",
    ),
}  # fmt: skip
#: Share of a study's totals in which only what all methods share is searched, with every method off.
TUNING_SHARE = 1 / 2
SWITCHED_OFF = 1 / 4


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A candidate and the values of the varied fields that it was made from."""

    candidate: Candidate
    values: dict[str, Any]


def plain(space: Space) -> Candidate:
    """Trial 0: the plain shared network, every method off, the same training defaults on every data set."""
    base = space.base()
    return Candidate(epochs=base.epochs, batch=base.batch, precision=base.precision)


def defaults(space: Space) -> Candidate:
    """The defaults as far as the space holds them; methods that it does not let go are on."""
    base = space.base()
    wanted = {name: middling for method in METHODS.values() for name, (_, middling) in method.items()}
    for name, part in space.vary.items():
        if part.contains(getattr(base, name)):
            continue
        near = part.nearest(wanted[name], but=None) if name in wanted else None
        found = _with(base, name, [*([] if near is None else [near]), *part.examples()])
        if found is None:
            raise UserError(f"the fields of space {space.name} do not go together: no legal value of {name} is left")
        base = found
    return base


def each_method(space: Space) -> list[Candidate]:
    """The defaults with one method on at a time, of those that the space can switch on; at least one candidate."""
    base, found = defaults(space), []
    for method in METHODS.values():
        candidate = base
        for name, (off, middling) in method.items():
            part = space.vary.get(name)
            chosen = None if part is None else part.nearest(middling, but=off)
            if chosen is not None:
                candidate = _with(candidate, name, [chosen]) or candidate
        if candidate != base:
            found.append(candidate)
    return found or [base]


def method_alone(candidate: Candidate, beside: Candidate) -> str | None:
    """The only method of a candidate that without it is the plain one ``beside`` it, as in trials 1, 3, ..."""
    candidate, beside = (given.replace(wiring=None, domain_ranks=None).effective() for given in (candidate, beside))
    if candidate == beside:
        return None
    for name, method in METHODS.items():
        if candidate.replace(**{field: off for field, (off, _) in method.items()}).effective() == beside:
            return name
    return None


def _with(candidate: Candidate, name: str, values: Sequence[Any]) -> Candidate | None:
    """``candidate`` with the first of ``values`` that goes with its other fields; None if none does."""
    for value in values:
        with contextlib.suppress(ValueError):
            return candidate.replace(**{name: value})
    return None


def switchable(space: Space) -> list[str]:
    """The methods that some candidates of the space use and others do not."""
    found = []
    for method, switches in METHODS.items():
        varied = [name for name in switches if name in space.vary]
        offs = [space.vary[name].contains(switches[name][0]) for name in varied]
        if varied and all(offs) and any(space.switches_on(name, switches[name][0]) for name in varied):
            found.append(method)
    return found


def tuning_space(space: Space) -> Space | None:
    """The part of a space with every method off that it can switch off; None where nothing is left to vary.

    None as well where some method cannot be switched off, for then there is no plain network in the space.
    """
    methods = switchable(space)
    varied = [m for m, switches in METHODS.items() if any(name in space.vary for name in switches)]
    own = {name for method in methods for name in METHOD_FIELDS[method]}
    rest = {name: part for name, part in space.vary.items() if name not in own}
    if not methods or methods != varied or not rest:
        return None
    off = {name: value for method in methods for name, (value, _) in METHODS[method].items() if name in space.vary}
    return dataclasses.replace(space, vary=rest, fix={**space.fix, **off})


def startup_trials(expected: int) -> int:
    """Random trials before the search learns: at most a quarter of all."""
    return max(1, min(MOST_STARTUP, expected // STARTUP_SHARE))


def propose(
    space: Space,
    records: Sequence[Record],
    *,
    number: int,
    seed: int,
    direction: Direction,
    expected: int,
    share: float = 1.0,
    shape: dict[str, Any] | None = None,
    cost: str | None = None,
    protect: Sequence[str] = (),
) -> Proposal | None:
    """The candidate of trial ``number``; None if a ``shape`` is asked of which nothing new was found.

    Args:
        records: of the trials before it; those under way count as tried, and no more.
        seed: of the study.
        direction: ``maximize`` or ``minimize``.
        expected: trials that the study will have in the end, as far as that is known.
        share: of the study's totals that is spent. In the first half only what all methods share varies, where the
            space has a plain network: it is quickly trained, and what the methods add is added to a tuned network.
        shape: values that a trial from 2 on must have, so that it trains with others in one cohort; those with one
            method on have their own.
        cost: the second objective, a name of :data:`~autoctr.search.front.COSTS`.
        protect: domains in which a trial must not be worse than trial 0, see :mod:`~autoctr.search.protect`.
    """
    weights, refused = derive(seed, 0, "weights"), shortfalls(records, protect)
    tried = {genes(record.candidate) for record in records}
    methods = each_method(space)
    if number == 0 or (number % 2 and number // 2 < len(methods)):
        candidate = (methods[number // 2] if number else plain(space)).replace(seed=weights)
        first = Proposal(_wired(candidate, records, number, seed, direction), space.within(candidate))
        if genes(first.candidate) not in tried:
            return first
    searched, known = space, records
    if share < TUNING_SHARE and (plain_space := tuning_space(space)) is not None:
        off = [(name, value) for name, value in plain_space.fix.items() if name in space.vary]
        searched = plain_space
        known = [r for r in records if all(getattr(r.candidate, name) == value for name, value in off)]
    found: Proposal | None = None
    for attempt in range(ATTEMPTS):
        drawn = _values(searched, known, number, seed, direction, expected, attempt, cost, refused)
        values = {**drawn, **(shape or {})}
        try:
            candidate = searched.candidate(values).replace(seed=weights)
        except ValueError:  # fields that do not go together
            continue
        varied = values if searched is space else {**space.within(candidate), **values}
        found = Proposal(_wired(candidate, records, number, seed, direction), varied)
        if genes(found.candidate) not in tried:
            return found
    if shape is not None:
        return None
    if found is None:
        raise UserError(f"{ATTEMPTS} candidates in a row have fields of space {space.name} that do not go together")
    return found


def genes(candidate: Candidate) -> Candidate:
    """What decides a candidate's score, before anything is trained."""
    if candidate.domain_ranks is not None:  # found by truncation
        candidate = candidate.replace(domain_ranks=None, truncate=True)
    candidate = candidate.effective()
    return candidate.replace(wiring=None) if candidate.architecture == "learn" else candidate


def _values(
    space: Space,
    records: Sequence[Record],
    number: int,
    seed: int,
    direction: Direction,
    expected: int,
    attempt: int,
    cost: str | None,
    refused: Mapping[int, Mapping[str, float]],
) -> dict[str, Any]:
    """Values of the varied fields of trial ``number``, where it is not the plain network or a method alone.

    Start-up trials change a quarter of the defaults at random. Then even numbers ask Optuna's sampler, and odd ones
    change an eighth of the best candidate's fields: with two dozen fields and as many trials, a density model alone
    is hardly better than chance, while a change of the best is. Every second of these switches a method, or draws its
    fields anew. A later ``attempt``, after a proposal that has been tried already or is not legal, always changes an
    eighth of the best.

    The best is among those that are no worse than trial 0 in a protected domain, and with two objectives any member of
    their front.
    """
    source = random.Random(derive(seed, number, f"change {attempt}" if attempt else "change"))
    start = {**space.within(defaults(space)), **space.within(plain(space))}
    wider = 1 + attempt / 5  # what is near has been tried
    if number < 2 + startup_trials(expected):
        return _changed(space, start, CHANGED_AT_START * wider, source)
    allowed = [record for record in records if record.number not in refused]
    best = best_of(allowed, direction)
    if cost is not None and (members := front(allowed, direction, cost)):
        best = random.Random(derive(seed, number, f"front {attempt}")).choice(members)
    if number % 4 == 3 and not attempt and best is not None and switchable(space):
        return _with_method(space, {**start, **best.values}, source)
    if (number % 2 or attempt) and best is not None:
        return _changed(space, {**start, **best.values}, CHANGED_LATER * wider, source)
    return _sample(space, records, number, seed, direction, cost, refused)


def _changed(space: Space, values: dict[str, Any], share: float, source: random.Random) -> dict[str, Any]:
    """``values`` with each field changed with probability ``share``, and at least one."""
    drawn = [name for name in space.vary if source.random() < share] or [source.choice(list(space.vary))]
    changed = dict(values)
    for name in drawn:
        part = space.vary[name]
        for _ in range(ATTEMPTS):
            changed[name] = part.draw(source)
            if changed[name] != values[name]:
                break
    return {name: changed[name] for name in space.vary}


def _with_method(space: Space, values: dict[str, Any], source: random.Random) -> dict[str, Any]:
    """``values`` with one method on, its fields drawn anew; where it was on, a quarter of the time off instead."""
    method = source.choice(switchable(space))
    switches = {name: switch for name, switch in METHODS[method].items() if name in space.vary}
    was_on = any(values[name] != off for name, (off, _) in switches.items())
    changed = {name: values[name] for name in space.vary}
    if was_on and source.random() < SWITCHED_OFF:
        return changed | {name: off for name, (off, _) in switches.items()}
    for name in METHOD_FIELDS[method]:
        if name in space.vary:
            changed[name] = space.vary[name].draw(source)
    if all(changed[name] == off for name, (off, _) in switches.items()):
        near = {name: space.vary[name].nearest(middling, but=off) for name, (off, middling) in switches.items()}
        changed |= {name: value for name, value in near.items() if value is not None}
    return changed


def _sample(
    space: Space,
    records: Sequence[Record],
    number: int,
    seed: int,
    direction: Direction,
    cost: str | None,
    refused: Mapping[int, Mapping[str, float]],
) -> dict[str, Any]:
    """Ask a fresh TPE sampler that sees the ended trials, and what did not fit, through a study in memory."""
    import optuna

    optuna.logging.disable_propagation()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=derive(seed, number, "sampler"), multivariate=True, n_startup_trials=0
        )
    distributions = {name: part.distribution() for name, part in space.vary.items()}
    directions = [direction] if cost is None else [direction, "minimize"]
    study = optuna.create_study(directions=directions, sampler=sampler)
    study.add_trials(
        [
            _told(record, distributions, cost, refused.get(record.number, {}))
            for record in records
            if record.state not in ("RUNNING", "WAITING")
        ]
    )
    return dict(study.ask(distributions).params)


def _told(
    record: Record, distributions: Mapping[str, BaseDistribution], cost: str | None, worse: Mapping[str, float]
) -> FrozenTrial:
    """A trial as the sampler sees it: its score, or score and cost, and what it breaks.

    With two objectives a pruned trial has no score: TPE orders such trials by their scores for one objective only.

    Args:
        worse: by how much it is worse than trial 0, in each protected domain where it is.
    """
    import optuna

    state = record.state if record.feasible else "PRUNED"
    told = [record.value] if cost is None else [record.value, cost_of(record, cost)]
    values = [value for value in told if value is not None]
    if state == "COMPLETE" and len(values) < len(told):
        state = "PRUNED"
    broken = {f"domain {name}": shortfall for name, shortfall in worse.items()}
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[state],
        values=values if state == "COMPLETE" else None,
        intermediate_values=dict(record.rungs) if cost is None else {},
        params={name: value for name, value in record.values.items() if name in distributions},
        distributions={name: distributions[name] for name in record.values if name in distributions},
        constraints=broken if record.feasible else {"memory": 1.0},
    )


def _wired(candidate: Candidate, records: Sequence[Record], number: int, seed: int, direction: Direction) -> Candidate:
    """Fix the wiring of every architecture but ``learn``, whose wiring the supernet finds."""
    if candidate.architecture == "learn":
        return candidate
    if candidate.architecture != "inherit":
        return candidate.replace(wiring=FIXED[candidate.architecture](candidate.blocks))
    parents = [
        record
        for record in records
        if record.value is not None
        and record.state not in ("RUNNING", "WAITING")
        and record.candidate.wiring is not None
        and record.candidate.blocks == candidate.blocks
    ]
    sign = 1 if direction == "maximize" else -1
    parents.sort(key=lambda record: (-sign * (record.value or 0.0), record.number))
    parent = parents[0].candidate.wiring if parents else None
    parent = parent or FIXED["parallel"](candidate.blocks)
    tried = {record.candidate.wiring.effective() for record in parents if record.candidate.wiring is not None}
    options = [option for option in parent.neighbours() if option.effective() not in tried] or list(parent.neighbours())
    return candidate.replace(wiring=_pick(options, derive(seed, number, "inherit")))


def _pick(options: list[Architecture], seed: int) -> Architecture:
    return random.Random(seed).choice(options)
