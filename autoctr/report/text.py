"""A study and its trials as plain text."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autoctr.model.candidate import Candidate
from autoctr.search.certificate import Certificate
from autoctr.search.record import Direction, Record, best_of

if TYPE_CHECKING:
    from autoctr.search.study import Study
    from autoctr.training.intervals import Difference, Interval


def study_text(study: Study) -> str:
    """The trials, the winner beside the plain network on the test split, and the winner's network."""
    from autoctr.search.summary import summary

    records, facts = study.records(), summary(study)
    states = {state: sum(record.state == state for record in records) for state in sorted({r.state for r in records})}
    counted = ", ".join(f"{count} {state.lower()}" for state, count in states.items()) or "none"
    lines = [f"study {study.name}: {facts['dataset']}, space {study.settings.space}; trials: {counted}"]
    if at_work := study.others_alive():
        hosts = Counter(holder.host for holder in at_work)
        lines.append("at work: " + ", ".join(f"{_workers(count)} on {host}" for host, count in sorted(hosts.items())))
    lines.append(_time_line(facts["seconds"], study.settings.device))
    best = facts["best"]
    if best is None:
        return "\n".join([*lines, f"no finished trial yet; go on with: autoctr resume {study.name}"])
    lines.append(f"winner: trial {best['number']}, validation {facts['metric']} {best['value']:.5f}")
    lines += lead_lines(best, study.allowed(records), study.settings.direction)
    lines += protection_lines(facts)
    lines += _method_lines(facts)
    if best["test"] is not None:
        lines += ["", *_comparison(best)]
    lines += sizes(best, records)
    if len(facts["front"]["trials"]) > (study.settings.cost is None):
        lines += ["", *front_lines(facts)]
    if study.certificate is not None:
        lines += ["", *certificate_lines(study.certificate, study.ended)]
    lines += ["", *network_lines(Candidate.from_dict(best["candidate"]))]
    return "\n".join(lines)


def _time_line(seconds: dict[str, float], device: str) -> str:
    """What a study has taken so far: with several workers it trains for longer than it is searched."""
    place = "" if device == "auto" else f" on {device}"
    wall, training = seconds["wall"] / 60, seconds["training"] / 60
    return f"searched for {wall:.1f} min; its trials trained for {training:.1f} min{place}"


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def lead_lines(best: dict[str, Any], records: list[Record], direction: Direction) -> list[str]:
    """How clear the winner's lead is, or that of a trial with a better score that does not win."""
    if best["lead"] is not None:
        return [f"its lead over the plain network: {_interval(best['lead'])}"]
    ahead = best_of(records, direction)
    if ahead is None or ahead.lead is None:
        return []
    return [
        f"trial {ahead.number} has {ahead.value:.5f}, but no clear lead over the plain network: {_interval(ahead.lead)}"
    ]


def protection_lines(facts: dict[str, Any]) -> list[str]:
    """The protected domains, and who would have won but for them."""
    if facts["protect"] is None:
        return []
    names = ", ".join(facts["protect"]["domains"])
    lines = [
        f"protected, validation AUC no lower than plain but for noise: {'all domains' if names == 'all' else names}"
    ]
    refused = facts["protect"]["refused"]
    if refused is not None:
        where = _shortfalls(refused["worse"])
        lines.append(
            f"trial {refused['number']} would have won ({refused['value']:.5f}), but is worse than plain in {where}"
        )
    return lines


def _shortfalls(worse: dict[str, float]) -> str:
    return ", ".join(f"domain {name} ({-shortfall:+.5f})" for name, shortfall in worse.items())


def front_lines(facts: dict[str, Any]) -> list[str]:
    """The trials of which no other is both cheaper and better, as a table."""
    front, refused = facts["front"], " that may win" if facts["protect"] is not None else ""
    rows = [("trial", front["metric"], "to trial 0", front["cost"], "to trial 0", "")]
    for trial in front["trials"]:
        cost = f"{trial['cost']:.3f}" if front["cost"] == "latency" else f"{trial['cost']:,.0f}"
        difference = "" if trial["difference"] is None else f"{trial['difference']:+.5f}"
        share = "" if trial["share"] is None else f"{trial['share']:.2f}x"
        marks = ", ".join(trial["marks"]) + ("" if trial["kept"] else " (weights not kept)")
        rows.append((str(trial["number"]), f"{trial['value']:.5f}", difference, cost, share, marks.strip()))
    widths = [max(len(row[place]) for row in rows) for place in range(5)]
    table = [
        "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
    ]
    head = f"no other trial{refused} is both cheaper ({front['what']}) and better (validation {front['metric']}):"
    return [head, *(row.rstrip() for row in table)]


def _method_lines(facts: dict[str, Any]) -> list[str]:
    """What each method did to the plain network on validation by itself, where the study has tried more than one."""
    if len(facts["methods"]) < 2:
        return []
    told = [
        f"{name} {found['difference']:+.5f} (trial {found['number']}{_stopped_after(found['rows'])})"
        for name, found in facts["methods"].items()
    ]
    lines = [f"each method alone beside trial 0, validation {facts['metric']}: {', '.join(told)}"]
    plain = facts["best_plain"]
    if plain is not None and plain["number"] > 0:
        lines.append(f"best with every method off: trial {plain['number']}, {plain['value']:.5f}")
    return lines


def _stopped_after(rows: int | None) -> str:
    return "" if rows is None else f", both after {rows:,} rows"


def _interval(lead: Sequence[float]) -> str:
    low, high = lead
    return f"{low:+.5f} to {high:+.5f} (95 %, over the validation users)"


def _comparison(best: dict[str, Any]) -> list[str]:
    """Test metrics of winner and plain network, pooled and per domain."""
    sides = [("winner", best["test"])] + ([("plain", best["plain"])] if best["plain"] else [])
    ceiling, difference = best.get("ceiling"), best["difference"] or {}
    head = "test          " + "".join(f"{name:>10}" for name, _ in sides) + ("   ceiling" if ceiling else "")
    lines = [head + (f"{'difference, 95 % over the test users':>40}" if difference else "")]
    for metric in ("wauc", "auc", "logloss"):
        row = f"{metric:14}" + "".join(_number(side[metric]) for _, side in sides)
        if ceiling:
            row += _number(ceiling["wauc"]) if metric == "wauc" else " " * 10
        lines.append((row + _range(difference.get(metric))).rstrip())
    for domain, score in best["test"]["domains"].items():
        values = [side["domains"].get(domain, {}).get("auc") for _, side in sides]
        row = f"{domain[:13]:14}" + "".join(map(_number, values)) + (" " * 10 if ceiling else "")
        lines.append(
            row + (_range(difference["domains"].get(domain)) if difference else "") + f"   {score['rows']:,} rows"
        )
    if ceiling and best["test"]["wauc"] is not None:
        gap = ceiling["wauc"] - best["test"]["wauc"]
        low, high = ceiling["interval"]
        lines.append(f"the winner is {gap:.4f} WAUC below the best possible ranking ({low:.4f} to {high:.4f})")
    if best["seen"]:
        lines.append("test already seen: it had been read for an earlier winner before this one was chosen")
    single = [name for name, score in best["test"]["domains"].items() if score["auc"] is None]
    if single:
        lines.append(f"left out of WAUC, only one class in the test rows: {', '.join(single)}")
    return lines


def _range(interval: Sequence[float] | None) -> str:
    return " " * 24 if interval is None else f"{interval[0]:+12.5f} to {interval[1]:+.5f}"


def sizes(best: dict[str, Any], records: Sequence[Record]) -> list[str]:
    """How large the winner's network is, beside that of trial 0, without the embedding table."""
    chosen = {record.number: record for record in records if record.number in (0, best["number"])}
    costs = {n: max(record.multiply_adds["open"]) for n, record in chosen.items() if record.multiply_adds}
    counts = {n: record.parameters for n, record in chosen.items() if record.parameters is not None}
    lines = []
    for label, values in (("parameters without the embedding table", counts), ("multiply-adds per row", costs)):
        if best["number"] in values:
            beside = f" (trial 0: {values[0]:,})" if best["number"] and 0 in values else ""
            lines.append(f"{label}: {values[best['number']]:,}{beside}")
    return lines


def _number(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:10.5f}"


def certificate_lines(certificate: Certificate, ended: int) -> list[str]:
    """What a confirmation has proven, in words and as a table.

    Args:
        ended: trials of the study that have ended by now.
    """
    found, name = certificate, f"trial {certificate.winner}"
    verdicts = {
        "better": f"{name} is better than every plain network",
        "worse": f"{name} is worse than a plain network",
        "not distinguishable": f"{name} is not distinguishable from the strongest plain network, {found.strongest}",
        "plain": f"no finalist {'that may win ' if found.worse else ''}validates better than {name}, the plain network",
    }
    searched = ", ".join(f"{study} for {seconds / 60:.1f} min" for study, seconds in found.seconds.items())
    lines = [f"certificate, {found.seeds} seeds each: {verdicts[found.verdict]} (searched: {searched})"]
    if ended > found.trials:
        lines.append(f"it knows the first {found.trials} of {ended} trials; renew it with: autoctr confirm")
    if found.seen:
        lines.append("test already seen: it had been read for an earlier winner before this one was chosen")
    valid = ", ".join(f"{trial} {_mean(interval)}" for trial, interval in found.valid.items())
    lines.append(f"chosen by validation {found.metric}: {valid}")
    for trial, worse in found.worse.items():
        lines.append(f"{trial} cannot win: on validation its mean is worse than plain in {_shortfalls(worse)}")
    head = f"test {found.metric}"
    width = max(len(row) for row in (head, *found.plain))
    lines.append(f"{head:{width}}  {_mean(found.test)}  {name}")
    for plain, beside in found.plain.items():
        lines.append(f"{plain:{width}}  {_mean(beside.test)}  {name} ahead by {_lead(beside.lead, found.level)}")
    worst = found.worst_domain
    if worst is not None:
        domain = found.domains[worst]
        assert domain.lead is not None
        clear = [other for other, own in found.domains.items() if own.lead is not None and own.lead.sign < 0]
        lines.append(
            f"beside {found.strongest}, worst in domain {worst} ({domain.rows:,} test rows): AUC "
            f"{_lead(domain.lead, found.domain_level)}; clearly worse in: {', '.join(clear) or 'none'}"
        )
    return lines


def _mean(interval: Interval) -> str:
    return f"{interval.mean:.5f}" + ("" if interval.half is None else f" ± {interval.half:.5f}")


def _lead(lead: Difference, level: float) -> str:
    half = "" if lead.seeds.half is None else f" ± {lead.seeds.half:.5f} over seeds"
    users = "" if lead.users is None else f", {lead.users[0]:+.5f} to {lead.users[1]:+.5f} over users"
    return f"{lead.seeds.mean:+.5f}{half}{users} ({level:.1%})"


def network_lines(candidate: Candidate) -> list[str]:
    """The network and the settings in which the candidate differs from the defaults."""
    lines = []
    if candidate.wiring is not None:
        lines += ["network:", *(f"  {line}" for line in candidate.wiring.describe())]
    default, candidate = Candidate(), candidate.effective()
    changed = {
        field.name: getattr(candidate, field.name)
        for field in dataclasses.fields(candidate)
        if field.name not in ("wiring", "seed") and getattr(candidate, field.name) != getattr(default, field.name)
    }
    shown = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in changed.items())
    return [*lines, f"settings other than the defaults: {shown or 'none'}"]


def trial_text(record: Record, metric: str) -> str:
    """One trial: its state, its rungs and its network."""
    score = "no score" if record.value is None else f"validation {metric} {record.value:.5f}"
    lines = [f"trial {record.number}: {record.state.lower()}, {score}"]
    if record.reason:
        lines.append(f"ended by: {record.reason}")
    if record.seconds is not None:
        speed = "" if record.speed is None else f", {record.speed:,.0f} rows/s"
        lines.append(f"{record.seconds:.1f} s{speed}")
    if record.gap:
        lines.append(
            f"supernet {record.gap['relaxed']:.5f}, discrete with the same weights {record.gap['discrete']:.5f}"
        )
    for layer, shares in (record.closed or {}).items():
        known = [share for share in shares if share == share]
        lines.append(f"closed neurons of {layer}: {min(known):.3f} to {max(known):.3f}, domain by domain")
    if record.multiply_adds:
        dense, left = record.multiply_adds["dense"], record.multiply_adds["open"]
        closed = f" with every neuron, {min(left):,} to {max(left):,} without closed ones" if record.closed else ""
        lines.append(f"multiply-adds per row: {dense:,}{closed}")
    if record.parameters is not None:
        lines.append(f"parameters without the embedding table: {record.parameters:,}")
    if record.latency is not None:
        lines.append(f"milliseconds per 1,024 rows: {record.latency:.3f}")
    if record.kept:
        low, high = min(record.kept), max(record.kept)
        share = f"{low:.3f}" if high - low < 5e-4 else f"{low:.3f} to {high:.3f}"
        overlap = "" if record.overlap is None else f", mean overlap of two tickets {record.overlap:.3f}"
        lines.append(f"tickets keep {share} of the deep weights{overlap}")
    lines += [f"  {rows:>12,} rows  {value:.5f}" for rows, value in record.rungs]
    return "\n".join([*lines, *network_lines(record.candidate)])
