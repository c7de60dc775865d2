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
        "methods": _methods_alone(study),
        "best_plain": _best_plain(study),
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


def _methods_alone(study: Study) -> dict[str, dict[str, Any]]:
    """What each method did alone, all else as in trial 0: its first such trial, and how far from it that scored."""
    from autoctr.search.proposal import method_alone

    records = study.records()
    found: dict[str, dict[str, Any]] = {}
    for record in records[1:]:
        if records[0].value is None or record.value is None or record.state not in ("COMPLETE", "PRUNED"):
            continue
        name = method_alone(record.candidate, records[0].candidate)
        if name is not None and name not in found:
            distance = record.value - records[0].value
            found[name] = {"number": record.number, "value": record.value, "difference": distance}
    return found


def _best_plain(study: Study) -> dict[str, Any] | None:
    """The best finished trial with every method off."""
    from autoctr.search.baselines import without_methods
    from autoctr.search.record import best_of

    plain = [r for r in study.records() if r.candidate.effective() == without_methods(r.candidate)]
    best = best_of(plain, study.settings.direction)
    return None if best is None else {"number": best.number, "value": best.value}
