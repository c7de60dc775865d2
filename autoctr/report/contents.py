"""What a report of a study holds, whether it becomes a page or text for a terminal."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoctr.model.candidate import Candidate, ranks
from autoctr.progress import outline
from autoctr.report.text import certificate_lines, lead_lines, network_lines, protection_lines, sizes
from autoctr.search.front import COSTS, cost_of
from autoctr.search.importance import Interactions, importances, interactions
from autoctr.search.protect import ALL
from autoctr.search.record import Direction, Record
from autoctr.search.summary import summary

if TYPE_CHECKING:
    from autoctr.search.study import Study

#: What stands below the pictures and the tables.
CAPTIONS = {
    "course": "Every finished trial, and the best so far.",
    "costs": "Trials on the line have no other that is both cheaper and better.",
    "importances": "How much of the difference between the best tenth and all trials each field explains (PED-ANOVA).",
    "network": "E: the embedded fields; C: cross, D: deep components; O: the output. Below a node, how it joins.",
    "leads": "Test rows; blue: better, orange: worse, grey: not distinguishable.",
    "gaps": "Below the line, reading a discrete network off the supernet cost something.",
    "reliability": "Test rows in 15 bins of equal mass. Below the line, the model promises more clicks than there are.",
    "calibration": "Calibration is the sum of predicted probabilities over the number of clicks.",
}


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as they are shown; the first column holds names."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Point:
    """A finished trial: when it had ended, what it scored, and the best score by then."""

    minutes: float
    value: float
    best: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """A finished trial: what its network costs, its score, and whether no other is both cheaper and better."""

    number: int
    price: float
    value: float
    ahead: bool


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the winner's network does in each domain.

    Attributes:
        rows: of each domain. counted: what kind of rows they are.
        columns: rank of the adapter, and per cent of each layer's neurons that are closed; NaN where unknown.
    """

    rows: dict[str, int]
    counted: str
    columns: dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Contents:
    """A study in pieces, each empty or None where there is nothing to show.

    Attributes:
        title: name and data. setting: space, trials, time and device in a sentence.
        verdict: what won, and how clearly; the first sentences of a report. certificate: what ``confirm`` found.
        facts: as ``autoctr show --json`` prints them.
        priced: what ``costs`` are, in words.
        leads: of the winner over the plain network by domain: (lead, low, high) in AUC.
        gaps: relaxed and discrete score of each supernet.
        reliability: by network, bins of (mean probability, rate of clicks, rows).
        scores, domains: test metrics of winner and plain network, pooled and by domain.
        trials: the records. commands: that repeat the search.
    """

    title: str
    setting: str
    metric: str
    direction: Direction
    verdict: list[str]
    certificate: list[str]
    facts: dict[str, Any]
    trials: list[Record]
    commands: list[str]
    course: list[Point]
    costs: list[Cost]
    priced: str
    importances: dict[str, float]
    interactions: Interactions | None
    candidate: Candidate | None
    network: list[str]
    shape: Shape | None
    leads: dict[str, tuple[float, float, float]]
    gaps: list[tuple[float, float]]
    reliability: dict[str, list[tuple[float, float, int]]]
    scores: Table | None
    domains: Table | None

    @property
    def winner(self) -> int | None:
        """The number of the trial that wins."""
        best = self.facts["best"]
        return None if best is None else int(best["number"])


def contents(study: Study) -> Contents:
    """Read a study; nothing is written, and no lock is held."""
    facts = summary(study)
    records, best, direction = study.records(), facts["best"], study.settings.direction
    weights = importances(study)
    candidate = None if best is None else Candidate.from_dict(best["candidate"])
    tested = None if best is None or best["test"] is None else best
    return Contents(
        title=f"{study.name}: {facts['dataset']}",
        setting=_setting(study, records, facts),
        metric=facts["metric"],
        direction=direction,
        verdict=_verdict(study, records, facts),
        certificate=[] if study.certificate is None else certificate_lines(study.certificate, study.ended),
        facts=facts,
        trials=records,
        commands=_commands(study),
        course=_course(records, study.minutes(), direction),
        costs=_costs(study, records),
        priced=COSTS[study.settings.cost or "madds"],
        importances=weights,
        interactions=interactions(study, list(weights)),
        candidate=candidate,
        network=[] if candidate is None else network_lines(candidate),
        shape=None if best is None or candidate is None else _shape(study, candidate, records, best),
        leads={} if best is None else _leads(study, best),
        gaps=[(record.gap["relaxed"], record.gap["discrete"]) for record in records if record.gap],
        reliability=_reliability(tested),
        scores=None if tested is None else _scores(tested),
        domains=None if tested is None else _domains(tested),
    )


def interaction_words(found: Interactions) -> str:
    """How the interactions were reckoned, and what they say."""
    clear = ", ".join(f"{a} with {b}" for a, b in found.clear) or "none"
    return (
        f"Pairs of fields, each cut in two ({', '.join(found.halves)}): per cent of the variance of the scores' ranks "
        f"over {found.trials} trials that a pair explains beyond all fields alone (partial R² of their product). "
        f"Chance reaches {found.chance:.0%} for the largest pair in 5 % of shuffles; beyond it: {clear}. "
        "Trials crowd where scores are good, so this is a hint, no experiment."
    )


def shape_words(shape: Shape) -> str:
    """What the picture of the domains shows."""
    return f"{shape.counted} of each domain, the rank of its adapter, and per cent of each layer's neurons it closes."


def trial_table(found: Contents) -> Table:
    """All trials."""
    rows = []
    for record in found.trials:
        cost = None if not record.multiply_adds else max(record.multiply_adds["open"])
        cells = (
            str(record.number),
            record.state.lower(),
            "" if record.value is None else f"{record.value:.5f}",
            "" if record.seconds is None else f"{record.seconds:.1f}",
            "" if cost is None else f"{cost:,}",
            "" if record.parameters is None else f"{record.parameters:,}",
            outline(record.candidate),
        )
        rows.append(cells)
    return Table(("trial", "state", found.metric, "seconds", "multiply-adds", "parameters", "what"), tuple(rows))


def _setting(study: Study, records: Sequence[Record], facts: dict[str, Any]) -> str:
    ended, running = study.ended, sum(record.state in ("RUNNING", "WAITING") for record in records)
    wall, training = (facts["seconds"][kind] / 60 for kind in ("wall", "training"))
    state = f"{ended} trials in {wall:.1f} minutes, of training {training:.1f}"
    state += f", {running} under way" if running else ""
    return f"Space {study.settings.space}, {state}, on {study.settings.device}."


def _verdict(study: Study, records: list[Record], facts: dict[str, Any]) -> list[str]:
    best = facts["best"]
    if best is None:
        return ["No trial has ended yet."]
    words = [f"Trial {best['number']} wins with a validation {facts['metric']} of {best['value']:.5f}."]
    told = [*lead_lines(best, study.allowed(records), study.settings.direction), *protection_lines(facts)]
    told += sizes(best, records)
    words += [f"{line[0].upper()}{line[1:]}." for line in told]
    if study.certificate is None:
        words.append(f"Each network was trained once; autoctr confirm {study.name} repeats it.")
    if best["test"] is not None and best["seen"]:
        words.append("The test split had been read for an earlier winner before this one was chosen.")
    ceiling = best.get("ceiling")
    if ceiling and best["test"] is not None:
        words.append(f"The best possible ranking of the test rows has WAUC {ceiling['wauc']:.4f}.")
    return words


def _course(records: Sequence[Record], minutes: Mapping[int, float], direction: Direction) -> list[Point]:
    """The finished trials in the order in which they ended."""
    choose = max if direction == "maximize" else min
    done = [(minutes[r.number], r.value) for r in records if r.state == "COMPLETE" and r.number in minutes]
    found: list[Point] = []
    for when, value in sorted((when, value) for when, value in done if value is not None):
        found.append(Point(when, value, choose([value, *(point.best for point in found[-1:])])))
    return found


def _costs(study: Study, records: Sequence[Record]) -> list[Cost]:
    """The finished trials whose cost is known, the cheapest first."""
    kind = study.settings.cost or "madds"
    ahead = {record.number for record in study.front(records)}
    found = [
        Cost(record.number, price, record.value, record.number in ahead)
        for record in records
        if record.state == "COMPLETE" and record.value is not None and (price := cost_of(record, kind)) is not None
    ]
    return sorted(found, key=lambda cost: (cost.price, cost.number))


def _leads(study: Study, best: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    """The winner's lead over a plain network by domain: from the certificate, else from the one training."""
    certificate, found = study.certificate, {}
    if certificate is not None:
        for name, domain in certificate.domains.items():
            if domain.lead is not None:
                mean, half = domain.lead.seeds.mean, domain.lead.seeds.half or 0.0
                low, high = domain.lead.users or (mean, mean)
                found[name] = (mean, min(low, mean - half), max(high, mean + half))
    elif best.get("difference"):
        for name, interval in best["difference"]["domains"].items():
            gap = _gap(best, name)
            if interval is not None and gap is not None:
                found[name] = (gap, interval[0], interval[1])
    return found


def _gap(best: dict[str, Any], domain: str) -> float | None:
    """The winner's test AUC in a domain less that of the plain network."""
    if not best["plain"]:
        return None
    mine, plain = (best[side]["domains"].get(domain, {}).get("auc") for side in ("test", "plain"))
    return None if mine is None or plain is None else mine - plain


def _shape(study: Study, candidate: Candidate, records: Sequence[Record], best: dict[str, Any]) -> Shape | None:
    rows, counted = study.domain_rows, "Training rows"
    if rows is None:
        if not best["valid"]:
            return None
        rows, counted = {n: own["rows"] for n, own in best["valid"]["domains"].items() if n != "unknown"}, "Rows"
    columns: dict[str, list[float]] = {}
    adapted = ranks(candidate, list(rows.values()))
    if len(adapted) == len(rows) and any(adapted):
        columns["rank"] = [float(rank) for rank in adapted]
    record = next(record for record in records if record.number == best["number"])
    for layer, shares in (record.closed or {}).items():
        if len(shares) == len(rows):
            columns[f"{layer} %"] = [math.nan if math.isnan(share) else round(100 * share) for share in shares]
    return Shape(rows, counted, columns)


def _sides(best: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [("winner", best["test"])] + ([("plain", best["plain"])] if best["plain"] else [])


def _scores(best: dict[str, Any]) -> Table:
    """Pooled test metrics of all labels, with the difference on resamples of the users for the first one."""
    sides, difference = _sides(best), best["difference"] or {}
    rows = []
    for name in ("wauc", "auc", "logloss", "calibration", "ece"):
        cells = [name, *(_number(side.get(name), 5) for _, side in sides)]
        rows.append((*cells, *([_range(difference.get(name))] if difference else [])))
    for task, tested in list(best.get("tasks", {}).items())[1:]:
        for name in ("wauc", "auc", "logloss"):
            cells = [f"{task}: {name}", *(_number((tested[_SIDES[side]] or {}).get(name), 5) for side, _ in sides)]
            rows.append((*cells, *([""] if difference else [])))
    last = ("difference, 95 % over the test users",) if difference else ()
    return Table(("test rows", *(name for name, _ in sides), *last), tuple(rows))


_SIDES = {"winner": "test", "plain": "plain"}


def _domains(best: dict[str, Any]) -> Table:
    """Test metrics by domain."""
    sides, difference = _sides(best), best["difference"] or {}
    head = ["domain", "rows", "clicks"]
    head += [f"{name} {what}" for name, _ in sides for what in ("AUC", "log-loss", "calibration")]
    head += ["AUC difference, 95 %"] if difference else []
    rows = []
    for name, own in best["test"]["domains"].items():
        cells = [name, f"{own['rows']:,}", f"{own['positives']:,}"]
        for _, side in sides:
            score = side["domains"].get(name, {})
            cells += [_number(score.get(what), 4) for what in ("auc", "logloss", "calibration")]
        if difference:
            cells.append(_range(difference["domains"].get(name)))
        rows.append(tuple(cells))
    return Table(tuple(head), tuple(rows))


def _reliability(best: dict[str, Any] | None) -> dict[str, list[tuple[float, float, int]]]:
    if best is None or not best.get("reliability"):
        return {}
    stored = best["reliability"]
    sides = [("winner", "best")] + ([("plain", "plain")] if best["number"] and stored.get("plain") else [])
    return {name: [(promised, rate, rows) for promised, rate, rows in stored[side]] for name, side in sides}


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _range(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:+.5f} to {interval[1]:+.5f}"


def _commands(study: Study) -> list[str]:
    """What was typed, as far as it matters."""
    settings = study.settings
    source = {name: value for name, value in settings.source.items() if value is not None}
    words = {"name": "dataset", "seed": "data-seed"}
    given = [f"--{words.get(name, name)} {shlex.quote(str(value))}" for name, value in source.items()]
    given += [f"--space {shlex.quote(settings.space)}", f"--metric {settings.metric}", f"--seed {settings.seed}"]
    if settings.trials is not None:
        given.append(f"--trials {settings.trials}")
    if settings.time_limit is not None:
        given.append(f"--time-limit {settings.time_limit:g}")
    given += [f"--precision {settings.precision}"] if settings.precision else []
    given += [f"--objectives {','.join(settings.objectives)}"] if settings.objectives else []
    given += [f"--protect '{name if name == ALL else f'domain:{name}>=plain'}'" for name in settings.protect]
    given.append(f"--study {study.name}")
    return [f"autoctr search {' '.join(given)}", f"autoctr export {study.name} --out model/"]
