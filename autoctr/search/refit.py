"""A found candidate trained once more, on new rows or all GPUs of torchrun, and exported."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.search.compare import as_learned, check_fits, read_winner
from autoctr.search.heldout import HeldOut
from autoctr.search.inputs import check_scorable, find_device
from autoctr.search.seeds import derive
from autoctr.training import replicas
from autoctr.training.fit import Diverged, Rung
from autoctr.training.metrics import METRICS, Scores
from autoctr.training.precision import find_precision


@dataclasses.dataclass(frozen=True)
class Refit:
    """A trained candidate: its scores, and where it was exported to (None in all processes but the first)."""

    candidate: Candidate
    valid: Scores
    test: Scores
    passes: float
    seconds: float
    folder: Path | None


def refit(
    winner: Path | str,
    out: Path | str,
    dataset: str | None = None,
    *,
    data: Path | str | None = None,
    table: Path | str | None = None,
    schema: Path | str | None = None,
    metric: str = "wauc",
    seed: int = 0,
    precision: str = "auto",
    device: str = "auto",
    data_seed: int | None = None,
    formats: str | Iterable[str] = "python",
    on_progress: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Refit:
    """Train a candidate from fresh weights, test it, and write it as a folder that runs without autoctr.

    Started by ``torchrun``, its processes share the rows of every batch, and the result is that of one process, but for
    rounding. The wiring and ranks that were learned stay; warm start, snapshots and tickets are made anew.

    Args:
        winner: a file with the candidate; see :func:`autoctr.search.compare.read_winner`.
        out: folder of the export; see :func:`autoctr.export.folder.write_folder`.
        dataset: name of a built-in data set; or ``table`` and ``schema`` for one's own.
        metric: ``wauc``, ``auc`` or ``logloss`` of the first label: chooses the best pass on validation.
        seed: of the weights and of the order of the rows.
        formats: of the export; see :func:`autoctr.export.folder.write_folder`.
        precision: of the training steps: ``fp32``, ``bf16``, or ``auto`` for what the device is made for.
        options: of the data set, such as ``rows`` of ``taobao-sim``.

    Raises:
        UserError: for whatever the user can mend.
    """
    from autoctr.data.presets import load_dataset
    from autoctr.export.formats import writable

    kinds = writable(formats)
    if metric not in METRICS:
        raise UserError(f"unknown metric {metric!r}; legal are {', '.join(METRICS)}")
    name, candidate = read_winner(Path(winner))
    where = {name: Path(value) for name, value in (("data", data), ("table", table), ("schema", schema)) if value}
    with replicas.together(find_device(device)) as place:
        with replicas.first_alone():
            encoded = load_dataset(dataset, **where, **options, seed=data_seed)
        check_scorable(encoded, metric)
        candidate = as_learned(candidate).replace(
            seed=derive(seed, 0, "weights"), precision=find_precision(precision, place)
        )
        check_fits(name, candidate, encoded)
        if candidate.backbone != "fusion" and replicas.count() > 1:
            raise UserError(f"{name} is a {candidate.backbone}, which trains in one process; start it without torchrun")
        return _refit(name, candidate, encoded, metric, seed, place, Path(out), kinds, on_progress)


def _refit(
    name: str,
    candidate: Candidate,
    dataset: Dataset,
    metric: str,
    seed: int,
    place: torch.device,
    out: Path,
    formats: tuple[str, ...],
    on_progress: Callable[[str], None],
) -> Refit:
    from autoctr.export.folder import write_folder
    from autoctr.search.trial import Laboratory

    def on_rung(rung: Rung) -> bool:
        value = getattr(rung.scores, metric)
        on_progress(f"{rung.rows:,} rows  {rung.speed:,.0f} rows/s  validation {metric} {value:.5f}")
        return True

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        laboratory = Laboratory(dataset, metric=metric, seed=seed, device=place, folder=Path(folder))
        try:
            outcome = laboratory.run(candidate, on_rung=on_rung, on_stage=lambda stage: on_progress(f"{stage} ..."))
        except Diverged:
            raise UserError(f"{name} diverged with seed {seed}; try another --seed") from None
        read, valid = laboratory.reader(outcome.candidate).dataset, outcome.fitted.best
        test = HeldOut(outcome.cohort, read).scores()
        found = Refit(
            outcome.candidate, valid, test, outcome.fitted.rungs[-1].rows / len(dataset.train),
            time.monotonic() - started, None,
        )  # fmt: skip
        if not replicas.is_first():
            return found
        card = {"refit": name, "seed": seed, "metric": metric, "valid": dataclasses.asdict(valid)}
        card["test"] = {dataset.statistics.tasks[0]: dataclasses.asdict(test)}
        write_folder(outcome.cohort, read, out, card, formats=formats)
    return dataclasses.replace(found, folder=out)
