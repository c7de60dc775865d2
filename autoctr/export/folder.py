"""Writing a trained member as a folder that needs only torch, numpy and safetensors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from autoctr.atomic import replacing, write_json, write_text
from autoctr.data.dataset import Dataset
from autoctr.data.encoder import Encoder
from autoctr.errors import UserError
from autoctr.export.bundle import bundle
from autoctr.export.card import ALL_FILES, CARD, FORMAT, facts
from autoctr.export.formats import writable
from autoctr.export.generate import model_plan, model_source, model_state
from autoctr.export.plan import Plan
from autoctr.export.rounding import Stored, check_stored, cost, rounded_cohort
from autoctr.export.scope import Scope
from autoctr.export.traced import trace, write_traced
from autoctr.export.verify import TOLERANCE, ExportMismatch, check_folder
from autoctr.training.cohort import Cohort


def write_folder(
    cohort: Cohort,
    dataset: Dataset,
    out: Path,
    card: Mapping[str, Any],
    *,
    overwrite: bool = False,
    encoder: Encoder | None = None,
    domains: Sequence[str] | None = None,
    embeddings: str = "fp32",
    formats: str | Iterable[str] = "python",
) -> tuple[Path, float]:
    """Write ``model.py``, ``weights.safetensors``, ``features.json``, ``predict.py`` and ``card.json`` into ``out``.

    The folder appears only when it is whole and gives the probabilities of the searched network in every format.

    Args:
        cohort: one trained member; a fusion network's wiring must be discrete.
        dataset: what it was trained on; its validation rows are used for the check.
        out: an empty or new folder, or one that holds an earlier export, which is replaced.
        card: metrics and whatever else should stand in ``card.json``, JSON-ready.
        overwrite: replace ``out`` whatever it holds.
        encoder: of the dataset; by default the one that lies in its folder.
        domains: names of those that are exported; rows of others are scored as of an unknown domain. None = all.
        embeddings: how embedding rows and frozen vectors are stored: ``fp32``, ``fp16``, or ``int8`` with a scale per
            row. What the rounding costs on validation stands in ``card.json``.
        formats: those beside ``python``: ``onnx`` adds ``model.onnx``, ``pt2`` adds ``model.pt2``.

    Returns: ``out``, and the largest difference of a probability from the searched network's (with rounded embeddings).

    Raises:
        UserError: if ``out`` holds something else or cannot be written, for an unknown domain, format or kind of
            embeddings, or a missing library.
        ExportMismatch: if a probability differs from the searched network's by more than 1e-5.
    """
    out, kinds = Path(out), writable(formats)
    target = out.resolve()
    check_free(target, overwrite)
    if encoder is None:
        if dataset.folder is None:
            raise UserError(f"the dataset {dataset.name} lies in no folder, so its encoder must be given")
        encoder = Encoder.load(dataset.folder)
    stored = check_stored(embeddings)
    scope = Scope.of(cohort.network.statistics, encoder, domains)
    rounded, read = rounded_cohort(cohort, dataset, stored)
    if stored != "fp32":
        card = {**card, "rounding": cost(cohort, rounded, dataset, read)}
    weights, network = rounded.weights(), rounded.network
    with replacing(target) as folder:
        folder.mkdir()
        plan, state = write_model(folder, rounded, encoder, kinds, scope, stored)
        written = {**card, **facts(plan, dataset, state, network, weights, folder)}
        write_json(folder / CARD, written)

        def exact() -> dict[str, Tensor]:
            return model_state(plan, network, weights, torch.float64)

        checks = {kind: check_folder(folder, rounded, read.valid, plan=plan, exact=exact, kind=kind) for kind in kinds}
        largest = float(np.max([check.largest_difference for check in checks.values()]))
        if not largest <= TOLERANCE:
            raise ExportMismatch(
                f"the exported model differs from the searched network by {largest:.2g} in a "
                f"probability (at most {TOLERANCE:g} is allowed); nothing was written to {out}"
            )
        found = {kind: dataclasses.asdict(check) for kind, check in checks.items()}
        write_json(folder / CARD, {**written, "check": found})
    return out, largest


def write_model(
    folder: Path, cohort: Cohort, encoder: Encoder, formats: Sequence[str], scope: Scope, stored: Stored = "fp32"
) -> tuple[Plan, dict[str, Tensor]]:
    """Write everything but the card into ``folder``, unchecked. Returns: the model's plan and state."""
    weights, network = cohort.weights(), cohort.network
    plan = model_plan(network, weights, scope, stored)
    state = model_state(plan, network, weights)
    write_text(folder / "model.py", model_source(plan))
    save_file(state, folder / "weights.safetensors")
    # safetensors lets only the owner read
    (folder / "weights.safetensors").chmod((folder / "model.py").stat().st_mode & 0o777)
    write_text(folder / "features.json", _features(scope.encoder(encoder)))
    write_text(folder / "predict.py", bundle("autoctr.export.standalone"))
    if traced := [name for name in formats if name != "python"]:
        program = trace(folder, network.statistics)
        for name in traced:
            write_traced(name, program, folder)
    return plan, state


def _features(encoder: Encoder) -> str:
    return json.dumps({"format": FORMAT, "encoder": encoder.to_dict()}, ensure_ascii=False) + "\n"


def check_free(target: Path, overwrite: bool = False) -> None:
    """Whether an export may be written here.

    Raises:
        UserError: if a file or something else than an export is in its place.
    """
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; give the name of a folder to export to")
    try:
        held = sorted(path.name for path in target.iterdir()) if target.exists() else []
    except OSError as error:
        raise UserError(f"cannot read {target}: {error.strerror}; choose another folder") from error
    if overwrite or not held:
        return
    foreign = sorted(set(held) - {*ALL_FILES, CARD, "__pycache__"})
    if foreign or not _is_export(target):
        shown = ", ".join((foreign or held)[:3])
        raise UserError(f"{target} already holds {shown}, which no export wrote; choose another folder or overwrite it")


def _is_export(folder: Path) -> bool:
    try:
        return "autoctr_export" in json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
