"""What a study found, for programs."""

from __future__ import annotations

from typing import Any

from autoctr.search.study import Study


def summary(study: Study) -> dict[str, Any]:
    """What ``autoctr show --json`` prints."""
    best, proof = study.best(), study.database.user_attrs.get("proof")
    result: dict[str, Any] = {
        "study": study.name,
        "dataset": study.settings.source["name"] or study.settings.source["table"],
        "metric": study.settings.metric,
        "trials": [
            {"number": r.number, "state": r.state, "value": r.value, "seconds": r.seconds} for r in study.records()
        ],
        "seconds": {"wall": study.spent, "training": sum(record.seconds or 0.0 for record in study.records())},
        "methods": _methods_alone(study),
        "best_plain": _best_plain(study),
        "front": front_facts(study),
        "protect": protection(study),
        "best": None,
        "certificate": None if study.certificate is None else study.certificate.to_dict(),
    }
    if best is None:
        return result
    result["best"] = {
        "number": best.number,
        "value": best.value,
        "candidate": best.candidate.to_dict(),
        "valid": best.valid,
        "lead": best.lead,
        "gap": best.gap,
        "test": None,
        "plain": None,
    }
    if proof is not None and proof["number"] == best.number:
        sides = {"test": proof["best"], "plain": proof["plain"]}
        by_task = {task: {side: tested and tested[task] for side, tested in sides.items()} for task in sides["test"]}
        result["best"] |= {**next(iter(by_task.values())), "seen": proof.get("seen", False)}
        result["best"]["difference"] = proof.get("difference")
        result["best"]["reliability"] = proof.get("reliability")
        if len(by_task) > 1:
            result["best"]["tasks"] = by_task
        ceiling = study.database.user_attrs.get("ceiling")
        if ceiling is not None:
            result["best"]["ceiling"] = ceiling
    return result


def front_facts(study: Study) -> dict[str, Any]:
    """The trials of which no other is both cheaper and better, the cheapest first, beside trial 0.

    Each has its ``value`` and ``cost``, the ``difference`` of its value from trial 0's and the ``share`` of trial 0's
    cost that it needs (None without trial 0), what it is called (``marks``), and whether its weights are ``kept``.
    """
    from autoctr.search.front import COSTS, cost_of

    records, kept, cost = study.records(), study.kept(), study.settings.cost or "madds"
    names: dict[int, list[str]] = {}
    for mark, record in study.choices(records).items():
        names.setdefault(record.number, []).append(mark)
    plain = next((record for record in records if record.number == 0 and record.state == "COMPLETE"), None)
    value, price = (None, None) if plain is None else (plain.value, cost_of(plain, cost))
    trials = []
    for record in study.front(records):
        mine, own = record.value or 0.0, cost_of(record, cost) or 0.0
        trials.append(
            {
                "number": record.number,
                "value": mine,
                "cost": own,
                "difference": None if value is None else mine - value,
                "share": own / price if price else None,
                "lead": record.lead,
                "marks": names.get(record.number, []),
                "kept": record.number in kept,
            }
        )
    return {"metric": study.settings.metric, "cost": cost, "what": COSTS[cost], "trials": trials}


def protection(study: Study) -> dict[str, Any] | None:
    """The protected domains, and the trial that would have won but for them; None where none is protected.

    Of a confirmed study the certificate says who cannot win.
    """
    from autoctr.search.protect import shortfalls
    from autoctr.search.record import winner_of

    protected, records = study.settings.protect, study.records()
    if not protected:
        return None
    ahead, refused = winner_of(records, study.settings.direction), shortfalls(records, protected)
    certificate, found = study.certificate, None
    is_confirmed = certificate is not None and certificate.trials == study.ended
    if ahead is not None and ahead.number in refused and not is_confirmed:
        found = {"number": ahead.number, "value": ahead.value, "worse": refused[ahead.number]}
    return {"domains": list(protected), "refused": found}


def _methods_alone(study: Study) -> dict[str, dict[str, Any]]:
    """What each method did alone, all else as in trial 0: its first such trial, and how far from it that scored.

    One that was stopped before its end is measured from what trial 0 had after as many ``rows``, None for the others.
    """
    from autoctr.search.proposal import method_alone

    records = study.records()
    found: dict[str, dict[str, Any]] = {}
    for record in records[1:]:
        if record.value is None or record.state not in ("COMPLETE", "PRUNED"):
            continue
        name = method_alone(record.candidate, records[0].candidate)
        rows = record.rows if record.state == "PRUNED" or record.reason == "time" else None
        plain = records[0].value if rows is None else records[0].best_until(rows, study.settings.direction)
        if name is not None and name not in found and plain is not None:
            distance = record.value - plain
            found[name] = {"number": record.number, "value": record.value, "difference": distance, "rows": rows}
    return found


def _best_plain(study: Study) -> dict[str, Any] | None:
    """The best finished trial with every method off."""
    from autoctr.search.baselines import without_methods
    from autoctr.search.record import best_of

    plain = [r for r in study.records() if r.candidate.effective() == without_methods(r.candidate)]
    best = best_of(plain, study.settings.direction)
    return None if best is None else {"number": best.number, "value": best.value}
