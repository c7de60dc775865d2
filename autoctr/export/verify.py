"""The check of an export: its probabilities against those of the network that was searched."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor

from autoctr.data.dataset import Rows
from autoctr.export.plan import Plan
from autoctr.model.build import build_network
from autoctr.training.cohort import SCORING_ROWS, Cohort
from autoctr.training.rows import ResidentRows
from autoctr.training.snapshots import newest

TOLERANCE = 1e-5
EXACT = 1e-9
MOST_ROUNDING = 0.01

# argv: the folder, the folder of the encoded rows, float32 or float64. An import of autoctr fails in it.
_PROGRAM = """
import importlib.util, pathlib, sys
sys.modules["autoctr"] = None
folder, work = map(pathlib.Path, sys.argv[1:3])
spec = importlib.util.spec_from_file_location("predict", folder / "predict.py")
predict = sys.modules["predict"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(predict)
import numpy, torch
model = predict.load(folder)
model.network.to(getattr(torch, sys.argv[3]))
if (work / "exact.safetensors").exists():
    model.network.load_state_dict(predict.load_file(work / "exact.safetensors"), assign=True)
inputs = {name: numpy.load(work / f"{name}.npy") for name in model.inputs}
if "numbers" in inputs:
    inputs["numbers"] = inputs["numbers"].astype(sys.argv[3])
numpy.save(work / "probabilities.npy", predict.probabilities(model, inputs))
"""


class ExportMismatch(RuntimeError):
    """The exported folder does not run, or gives other probabilities than the searched network."""


@dataclasses.dataclass(frozen=True)
class Check:
    """Rows that were compared, their largest difference of a probability, and rows left out of it as mere rounding."""

    rows: int
    largest_difference: float
    rounding_rows: int


def verify_folder(folder: Path, cohort: Cohort, rows: Rows, limit: int = 10_000) -> float:
    """The largest absolute difference of a probability; see :func:`check_folder`."""
    return check_folder(folder, cohort, rows, limit).largest_difference


def check_folder(
    folder: Path,
    cohort: Cohort,
    rows: Rows,
    limit: int = 10_000,
    *,
    plan: Plan | None = None,
    exact: Callable[[], dict[str, Tensor]] | None = None,
) -> Check:
    """Run the exported folder in a fresh interpreter that cannot import autoctr, and compare.

    In float32 rounding alone can move a probability: a pruner's threshold is a step, and a neuron that lies on it falls
    to either side; long products magnify it. The searched network does the same when its batch is cut differently. A
    row beyond the tolerance does not count if both sides agree on it in float64, as long as such rows are rare (one in
    a hundred); how many there were is reported.

    Where maps are merged, their weights are rounded once more, which matters in float64 only.

    Args:
        folder: a whole export.
        cohort: the member that was exported.
        rows: encoded rows; at most ``limit`` of them are compared, evenly spaced. Where the network reads snapshots,
            they read the newest, as every row does at serving time.
        plan: of the folder's model, if it does not hold all domains; rows of others are compared as of an unknown one.
        exact: makes the folder's weights anew, in float64; None takes them as they are.

    Raises:
        ExportMismatch: if the folder does not run.
    """
    if len(rows) > limit:
        rows = rows.take(np.linspace(0, len(rows) - 1, limit).astype(np.int64))
    rows = newest(rows, cohort.network.statistics, cohort.network.embedding.tables)
    pair = (rows, rows) if plan is None else (plan.scope.searched_rows(rows), plan.scope.exported_rows(rows))
    differences = _differences(folder, cohort, pair, torch.float32, None)
    beyond = ~(differences <= TOLERANCE)
    rounding = np.zeros(len(rows), bool)
    if beyond.any() and beyond.mean() <= MOST_ROUNDING:
        rounding = beyond & (_differences(folder, cohort, pair, torch.float64, exact) <= EXACT)
    return Check(len(rows), float(differences[~rounding].max(initial=0.0)), int(rounding.sum()))


def searched_probabilities(cohort: Cohort, rows: Rows, dtype: torch.dtype) -> npt.NDArray[Any]:
    """Probabilities of the cohort's only member, computed on the CPU in ``dtype``: [N, tasks]."""
    network, weights = cohort.network, cohort.weights()
    names = [field.name for field in network.statistics.vectors]
    tables = dict(zip(names, network.embedding.tables, strict=True))
    here = build_network(network.statistics, network.candidates, tables, dtype=dtype)
    resident = ResidentRows(rows, len(network.statistics.domains), dtype=dtype, device="cpu")
    flat, running = weights.flat.to("cpu", dtype), weights.running.to("cpu", dtype)
    masks = None if weights.masks is None else weights.masks.to("cpu", dtype)
    result = torch.empty(len(rows), len(network.statistics.tasks), dtype=dtype)
    with torch.inference_mode():
        for numbers, batch in resident.chunks(SCORING_ROWS):
            distinct, places = np.unique(batch.ids.numpy(), return_inverse=True)
            positions = torch.from_numpy(places).view(batch.ids.shape)
            table = weights.table[torch.from_numpy(distinct).to(weights.table.device)].to("cpu", dtype)
            out = here.forward(flat, table, positions, batch, running=running, masks=masks, progress=weights.progress)
            result[numbers] = out.logits[0].sigmoid()
    return result.numpy()


def _differences(
    folder: Path,
    cohort: Cohort,
    pair: tuple[Rows, Rows],
    dtype: torch.dtype,
    exact: Callable[[], dict[str, Tensor]] | None,
) -> npt.NDArray[np.float64]:
    """Each row's largest absolute difference of a probability, [N]; ``pair`` are the rows as either side reads them."""
    expected = searched_probabilities(cohort, pair[0], dtype)
    state = None if exact is None else exact()
    found = _exported_probabilities(folder, pair[1], str(dtype).removeprefix("torch."), state)
    if found.shape != expected.shape:
        raise ExportMismatch(f"{folder} gives probabilities of shape {found.shape}, not {expected.shape}")
    differences: npt.NDArray[np.float64] = np.abs(expected.astype(np.float64) - found).max(axis=1, initial=0.0)
    return differences


def _exported_probabilities(
    folder: Path, rows: Rows, dtype: str, state: dict[str, Tensor] | None = None
) -> npt.NDArray[Any]:
    with tempfile.TemporaryDirectory() as work:
        if state is not None:
            save_file(state, Path(work) / "exact.safetensors")
        for name in ("ids", "numbers", "vectors", "domain"):
            np.save(Path(work) / f"{name}.npy", np.asarray(getattr(rows, name)))
        # -P: nothing of the present folder is importable; -B: no __pycache__ in the export
        command = [sys.executable, "-P", "-B", "-c", _PROGRAM, str(Path(folder).resolve()), work, dtype]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise ExportMismatch(f"the exported model does not run: {reason}")
        result: npt.NDArray[Any] = np.load(Path(work) / "probabilities.npy")
    return result
