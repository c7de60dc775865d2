"""A cohort in the midst of training, as tensors and facts: weights, optimiser, averages, a fit's scores. No pickle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.training import checkpoint
from autoctr.training.cohort import Cohort
from autoctr.training.fit import Kept, Rung, Standing
from autoctr.training.joining import PROGRESS, alone
from autoctr.training.metrics import Scores

State = tuple[dict[str, Tensor], dict[str, Any]]


def of_cohort(cohort: Cohort) -> State:
    """All that training changes, shared with the cohort, and where it is (JSON-ready)."""
    facts: dict[str, Any] = {name: getattr(cohort, name) for name in PROGRESS}
    return _tensors(cohort), {**facts, "averaged": 0 if cohort.average is None else cohort.average.steps}


def fill(cohort: Cohort, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Put a cohort of the same members where it was when :func:`of_cohort` was called.

    Raises:
        KeyError, ValueError: if it was a cohort of others.
    """
    if "masks" in tensors:
        cohort.masks = tensors["masks"]
    for name, tensor in _tensors(cohort).items():
        checkpoint.fill(tensor, tensors, name)
    for name in PROGRESS:
        setattr(cohort, name, facts[name])
    if cohort.average is not None:
        cohort.average.steps = facts["averaged"]


def of_fit(cohort: Cohort, standings: Sequence[Standing], dataset: Dataset) -> State:
    """A fit: its cohort, and every member's standing with the weights of its best score."""
    tensors, progress = of_cohort(cohort)
    members = []
    for index, (candidate, standing) in enumerate(zip(cohort.network.candidates, standings, strict=True)):
        told = {"candidate": candidate.to_dict(), "standing": _told(standing)}
        if standing.kept is not None:
            best = alone(standing.kept, dataset)
            weights = best.weights()
            named = checkpoint.named(best.network, weights)
            tensors |= {f"best.{index}.{name}": tensor for name, tensor in named.items()}
            told["best"] = {"candidate": best.network.candidates[0].to_dict(), "progress": weights.progress}
        members.append(told)
    return tensors, {"progress": progress, "adapters_only": cohort.adapters_only, "members": members}


def fit_of(state: State, dataset: Dataset, device: torch.device | str = "cpu") -> tuple[Cohort, list[Standing]]:
    """The inverse of :func:`of_fit`; training goes on from it as if it had never stopped.

    Raises:
        one of ``checkpoint.DAMAGES``: if something is missing, or of another shape.
    """
    tensors, facts = state
    members = facts["members"]
    candidates = [Candidate.from_dict(told["candidate"]) for told in members]
    cohort = Cohort.on(dataset, candidates, device=device, adapters_only=facts["adapters_only"])
    fill(cohort, tensors, facts["progress"])
    standings = []
    for index, told in enumerate(members):
        standing = _standing(told["standing"])
        if "best" in told:
            prefix = f"best.{index}."
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            candidate, progress = Candidate.from_dict(told["best"]["candidate"]), told["best"]["progress"]
            best = checkpoint.restore(candidate, own, progress, dataset, device)
            standing.kept = Kept(best.network, 0, best.weights())
        standings.append(standing)
    return cohort, standings


def save(path: Path, cohort: Cohort, standing: Standing, dataset: Dataset, facts: dict[str, Any]) -> None:
    """Write the fit of a cohort of one member to ``path``, whole or not at all.

    Args:
        facts: JSON-ready; :func:`read_facts` and :func:`load` return them.
    """
    tensors, own = of_fit(cohort, [standing], dataset)
    checkpoint.write(path, tensors, {"fit": json.dumps(own), "facts": json.dumps(facts)})


def read_facts(path: Path) -> dict[str, Any]:
    """The facts alone.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        return dict(json.loads(checkpoint.read_header(path)["facts"]))
    except checkpoint.DAMAGES as error:
        raise UserError(f"{path} is not a whole state of a trial ({error})") from error


def load(path: Path, dataset: Dataset, device: torch.device | str = "cpu") -> tuple[Cohort, Standing, dict[str, Any]]:
    """What :func:`save` has written.

    Raises:
        UserError: if the file is missing, damaged, or of another network than its header says.
    """
    try:
        header, tensors = checkpoint.read(path, device)
        cohort, (standing,) = fit_of((tensors, json.loads(header["fit"])), dataset, device)
        return cohort, standing, json.loads(header["facts"])
    except torch.OutOfMemoryError:
        raise
    except checkpoint.DAMAGES as error:
        raise UserError(f"{path} is not a whole state of a trial ({error})") from error


def _tensors(cohort: Cohort) -> dict[str, Tensor]:
    """All that training changes, by name; shared with the cohort."""
    found = {
        "dense": cohort.flat,
        "dense.first": cohort.dense.first,
        "dense.second": cohort.dense.second,
        "table": cohort.table,
        "table.first": cohort.sparse.first,
        "table.second": cohort.sparse.second,
        "wiring": cohort.architecture,
        "wiring.first": cohort.wiring.first,
        "wiring.second": cohort.wiring.second,
        "running": cohort.running,
    }
    if cohort.masks is not None:
        found["masks"] = cohort.masks
    if cohort.average is not None:
        average = cohort.average
        found |= {"average": average.flat, "average.table": average.table, "average.seen": average.seen}
    return found


def _told(standing: Standing) -> dict[str, Any]:
    told = {field.name: getattr(standing, field.name) for field in dataclasses.fields(standing)}
    del told["kept"]
    told["rungs"] = [dataclasses.asdict(rung) for rung in standing.rungs]
    told["best"] = None if standing.best is None else dataclasses.asdict(standing.best)
    return told


def _standing(told: dict[str, Any]) -> Standing:
    rungs = [Rung(**{**rung, "scores": Scores.from_dict(rung["scores"])}) for rung in told["rungs"]]
    best = None if told["best"] is None else Scores.from_dict(told["best"])
    return Standing(**{**told, "rungs": rungs, "best": best})
