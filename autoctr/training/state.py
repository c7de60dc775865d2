"""A member in the midst of its fit on disk: weights, optimiser, averages and scores. No pickle."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.training import checkpoint
from autoctr.training.cohort import Cohort
from autoctr.training.fit import Kept, Rung, Standing
from autoctr.training.joining import PROGRESS, alone
from autoctr.training.metrics import Scores

BEST = "best."


def save(path: Path, cohort: Cohort, standing: Standing, dataset: Dataset, facts: dict[str, Any]) -> None:
    """Write a cohort of one member in the midst of its fit to ``path``, whole or not at all.

    Args:
        facts: JSON-ready; :func:`read_facts` and :func:`load` return them.
    """
    tensors = _tensors(cohort)
    header = {
        "candidate": cohort.network.candidates[0].canonical(),
        "progress": json.dumps({name: getattr(cohort, name) for name in PROGRESS}),
        "adapters_only": json.dumps(cohort.adapters_only),
        "averaged": json.dumps(0 if cohort.average is None else cohort.average.steps),
        "standing": json.dumps(_told(standing)),
        "facts": json.dumps(facts),
    }
    if standing.kept is not None:
        best = alone(standing.kept, dataset)
        weights = best.weights()
        tensors |= {BEST + name: tensor for name, tensor in checkpoint.named(best.network, weights).items()}
        header["best"] = repr(weights.progress)
    checkpoint.write(path, tensors, header)


def read_facts(path: Path) -> dict[str, Any]:
    """The facts alone.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(json.loads(file.metadata()["facts"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a whole state of a trial ({error})") from error


def load(path: Path, dataset: Dataset, device: torch.device | str = "cpu") -> tuple[Cohort, Standing, dict[str, Any]]:
    """What :func:`save` has written; training goes on from it as if it had never stopped.

    Raises:
        UserError: if the file is missing, damaged, or of another network than its header says.
    """
    try:
        header, tensors = checkpoint.read(path, device)
        candidate = Candidate.from_dict(json.loads(header["candidate"]))
        cohort = Cohort.on(
            dataset,
            [candidate],
            device=device,
            masks=tensors.get("masks"),
            adapters_only=json.loads(header["adapters_only"]),
        )
        for name, number in json.loads(header["progress"]).items():
            setattr(cohort, name, number)
        if cohort.average is not None:
            cohort.average.steps = json.loads(header["averaged"])
        for name, tensor in _tensors(cohort).items():
            checkpoint.fill(tensor, tensors, name)
        standing = _standing(json.loads(header["standing"]))
        if "best" in header:
            own = {name.removeprefix(BEST): t for name, t in tensors.items() if name.startswith(BEST)}
            best = checkpoint.restore(candidate, own, float(header["best"]), dataset, device)
            standing.kept = Kept(best.network, 0, best.weights())
        return cohort, standing, json.loads(header["facts"])
    except torch.OutOfMemoryError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
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
