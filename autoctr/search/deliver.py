"""From a study's trial to a folder: the one step that joins study and export."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from autoctr.errors import UserError
from autoctr.search.front import find_trial
from autoctr.search.inputs import open_dataset
from autoctr.search.run import load_study
from autoctr.search.study import DEFAULT_ROOT, Study


def export(
    name: str,
    out: Path | str,
    *,
    trial: int | str | None = None,
    root: Path | str = DEFAULT_ROOT,
    storage: str | None = None,
    domains: Sequence[str] | None = None,
    embeddings: str = "fp32",
    formats: str | Iterable[str] = "python",
) -> tuple[Path, float]:
    """Write a trial's network as a folder that runs without autoctr.

    Args:
        trial: its number, or ``pareto:fastest``, ``pareto:knee`` or ``pareto:best`` of the study's front, see
            :func:`autoctr.search.front.chosen`; the winner by default.
        domains: names of those that are exported; rows of others are scored as of an unknown domain. None = all.
        embeddings: how embedding rows and frozen vectors are stored: ``fp32``, ``fp16``, or ``int8`` with a scale per
            row.
        formats: see :func:`autoctr.export.folder.write_folder`.

    Returns: the folder, and the largest difference of a probability from the searched network's.

    Raises:
        UserError: if the study or the trial is not there, its weights were not kept, or it has no such domain;
            for an unknown format.
    """
    from autoctr.export.folder import write_folder
    from autoctr.export.formats import writable
    from autoctr.search.stored import stored_network

    kinds = writable(formats)
    study = load_study(name, root=root, storage=storage)
    number = _number(study, trial)
    cohort, dataset = stored_network(study, number, open_dataset(study), "cpu")
    card = _card(study, number)
    return write_folder(cohort, dataset, Path(out), card, domains=domains, embeddings=embeddings, formats=kinds)


def _number(study: Study, trial: int | str | None) -> int:
    best = study.best()
    if best is None:
        raise UserError(f"study {study.name} has no finished trial; go on with: autoctr resume {study.name}")
    number = best.number if trial is None else find_trial(study, trial)
    records = {record.number: record for record in study.records()}
    if number not in records:
        raise UserError(f"study {study.name} has no trial {number}; it has 0 to {len(records) - 1}")
    if number not in study.kept():
        kept = ", ".join(map(str, study.kept())) or "none"
        of_front = str(trial).startswith("pareto") and study.settings.cost is None
        hint = "; search with --objectives to keep the front's" if of_front else ""
        raise UserError(f"there are no weights of trial {number}; trials that can be exported: {kept}{hint}")
    return number


def _card(study: Study, number: int) -> dict[str, Any]:
    record = next(record for record in study.records() if record.number == number)
    proof = study.database.user_attrs.get("proof")
    tested = None
    if proof is not None:
        tested = proof["best"] if proof["number"] == number else proof["plain"] if number == 0 else None
    certificate = study.certificate
    proven = certificate is not None and certificate.winner == number
    return {
        "study": study.name,
        "trial": number,
        "metric": study.settings.metric,
        "valid": record.valid,
        "test": tested,
        "certificate": certificate.to_dict() if certificate is not None and proven else None,
    }
