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
from autoctr.data.statistics import Statistics
from autoctr.export.formats import FORMATS
from autoctr.export.plan import Plan
from autoctr.export.traced import row_shapes, trace, write_traced
from autoctr.model.build import build_network
from autoctr.training.cohort import SCORING_ROWS, Cohort
from autoctr.training.rows import ResidentRows
from autoctr.training.snapshots import newest

TOLERANCE = 1e-5
#: What float64 leaves of a difference that was mere rounding; a translation to ONNX keeps constants in float32.
EXACT = {"python": 1e-9, "pt2": 1e-9, "onnx": 1e-7}
MOST_ROUNDING = 0.01

# argv: the model's folder, the folder of the encoded rows, float32 or float64. An import of autoctr fails in it. What
# is saved are the probabilities of all rows, of the first alone, and of none.
_PROGRAM = """
import importlib.util, pathlib, sys
sys.modules["autoctr"] = None
import numpy, torch
folder, work = map(pathlib.Path, sys.argv[1:3])
{load}
inputs = {{name: numpy.load(work / f"{{name}}.npy") for name in names}}
batches = [{{name: values[:rows] for name, values in inputs.items()}} for rows in (None, 1, 0)]
numpy.save(work / "probabilities.npy", numpy.concatenate([probabilities(batch) for batch in batches]))
"""
# Each defines the names of its inputs, and probabilities.
_LOAD = {
    "python": """
spec = importlib.util.spec_from_file_location("predict", folder / "predict.py")
predict = sys.modules["predict"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(predict)
model = predict.load(folder)
model.network.to(getattr(torch, sys.argv[3]))
if (work / "exact.safetensors").exists():
    model.network.load_state_dict(predict.load_file(work / "exact.safetensors"), assign=True)
names = model.inputs
def probabilities(batch):
    return predict.probabilities(model, batch)
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
names = [value.name for value in session.get_inputs()]
def probabilities(batch):
    return torch.from_numpy(session.run(["logits"], batch)[0]).sigmoid().numpy()
""",
    "pt2": """
program = torch.export.load(folder / "model.pt2")
names, network = program.graph_signature.user_inputs, program.module()
@torch.inference_mode()
def probabilities(batch):
    return network(*map(torch.from_numpy, batch.values())).sigmoid().numpy()
""",
}


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
    kind: str = "python",
    plan: Plan | None = None,
    exact: Callable[[], dict[str, Tensor]] | None = None,
) -> Check:
    """Run the exported folder in a fresh interpreter that cannot import autoctr, and compare.

    The first row is compared alone as well, and no rows at all must give no probabilities.

    In float32 rounding alone can move a probability: a pruner's threshold is a step, and a neuron that lies on it falls
    to either side; long products magnify it. The searched network does the same when its batch is cut differently. A
    row beyond the tolerance does not count if both sides agree on it in float64, as long as such rows are rare (one in
    a hundred); how many there were is reported. A traced format is traced in float64 for that. Where maps are
    merged, their weights are rounded once more, which matters in float64 only.

    Args:
        folder: a whole export.
        cohort: the member that was exported.
        rows: encoded rows; at most ``limit`` of them are compared, evenly spaced. Where the network reads snapshots,
            they read the newest, as every row does at serving time.
        kind: the format that computes.
        plan: of the folder's model, if it does not hold all domains; rows of others are compared as of an unknown one.
        exact: makes the folder's weights anew, in float64; None takes them as they are.

    Raises:
        ExportMismatch: if the folder does not run.
    """
    if len(rows) > limit:
        rows = rows.take(np.linspace(0, len(rows) - 1, limit).astype(np.int64))
    rows = newest(rows, cohort.network.statistics, cohort.network.embedding.tables)
    pair = (rows, rows) if plan is None else (plan.scope.searched_rows(rows), plan.scope.exported_rows(rows))
    differences = _differences(folder, cohort, pair, torch.float32, kind, None)
    beyond = ~(differences <= TOLERANCE)
    rounding = np.zeros(len(beyond), bool)
    if beyond.any() and beyond.mean() <= MOST_ROUNDING:
        rounding = beyond & (_differences(folder, cohort, pair, torch.float64, kind, exact) <= EXACT[kind])
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
    kind: str,
    exact: Callable[[], dict[str, Tensor]] | None,
) -> npt.NDArray[np.float64]:
    """The largest absolute difference of a probability, of each row and of the first alone, [N + 1].

    ``pair`` are the rows as either side reads them.
    """
    expected = searched_probabilities(cohort, pair[0], dtype)
    expected = np.concatenate([expected, expected[:1]])
    state = None if exact is None else exact()
    found = _exported_probabilities(folder, cohort.network.statistics, pair[1], dtype, kind, state)
    if found.shape != expected.shape:
        raise ExportMismatch(f"{folder} gives probabilities of shape {found.shape}, not {expected.shape}")
    differences: npt.NDArray[np.float64] = np.abs(expected.astype(np.float64) - found).max(axis=1, initial=0.0)
    return differences


def _exported_probabilities(
    folder: Path, statistics: Statistics, rows: Rows, dtype: torch.dtype, kind: str, state: dict[str, Tensor] | None
) -> npt.NDArray[Any]:
    name = str(dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for column, shape in row_shapes(statistics).items():
            values = np.asarray(getattr(rows, column))[(slice(None), *map(slice, shape))]
            np.save(work / f"{column}.npy", values.astype(name) if column == "numbers" else values)
        if kind != "python" and dtype is torch.float64:
            write_traced(kind, trace(folder, statistics, dtype, state), work)
            folder = work
        elif state is not None:
            save_file(state, work / "exact.safetensors")
        # -P: nothing of the present folder is importable; -B: no __pycache__ in the export
        program = _PROGRAM.format(load=_LOAD[kind])
        command = [sys.executable, "-P", "-B", "-c", program, str(Path(folder).resolve()), str(work), name]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise ExportMismatch(f"the exported {FORMATS[kind]} does not run: {reason}")
        result: npt.NDArray[Any] = np.load(work / "probabilities.npy")
    return result
