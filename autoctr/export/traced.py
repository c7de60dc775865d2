"""The generated model as one graph without Python: ``model.pt2`` of ``torch.export``, and ``model.onnx``."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from autoctr.data.statistics import Statistics
from autoctr.errors import UserError
from autoctr.export.formats import FORMATS
from autoctr.export.standalone import read_network
from autoctr.model.embedding import SnapshotField

ONNX_BYTES = 2**31 - 2**24  # one file holds 2 GiB, graph included
OUTPUT = "logits"


def write_traced(kind: str, program: ExportedProgram, folder: Path) -> None:
    """Write a traced model as ``onnx`` or ``pt2``: inputs as in ``INPUTS`` of ``model.py``, its logits as output.

    Raises:
        UserError: if the weights are too large for ``onnx``.
    """
    path = folder / FORMATS[kind]
    if kind == "onnx":
        _write_onnx(program, path)
    else:
        torch.export.save(program, path)


def trace(
    folder: Path,
    statistics: Statistics,
    dtype: torch.dtype = torch.float32,
    state: Mapping[str, Tensor] | None = None,
) -> ExportedProgram:
    """The graph of the model in ``folder``, for any number of rows, computed in ``dtype``.

    Args:
        statistics: of the rows that it reads.
        state: weights to take instead of those in the folder.
    """
    module, network = read_network(folder, torch.device("cpu"))
    network.to(dtype)
    if state is not None:
        network.load_state_dict(state, assign=True)
    shapes = row_shapes(statistics)
    example = [torch.zeros(2, *shapes[name], dtype=torch.int32) for name in module.INPUTS]
    example = [part.to(dtype) if name == "numbers" else part for name, part in zip(module.INPUTS, example, strict=True)]
    rows = torch.export.Dim("rows")
    with _quiet():
        program = torch.export.export(
            network, tuple(example), dynamic_shapes={name: {0: rows} for name in module.INPUTS}
        )
    program.example_inputs = None  # they would be saved as a pickle
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def row_shapes(statistics: Statistics) -> dict[str, tuple[int, ...]]:
    """The shape of a row of all that a model may read. Snapshots are no input."""
    return {
        "ids": (sum(field.slots for field in statistics.embedded),),
        "numbers": (len(statistics.scaled),),
        "vectors": (sum(not isinstance(field, SnapshotField) for field in statistics.vectors),),
        "domain": (),
    }


def _write_onnx(program: ExportedProgram, path: Path) -> None:
    weights = sum(tensor.nbytes for tensor in program.state_dict.values())
    if weights > ONNX_BYTES:
        raise UserError(
            f"the weights take {weights / 2**30:.1f} GiB, and one .onnx file holds 2 GiB; "
            "leave out --format onnx, pt2 has no such limit"
        )
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    with _quiet():
        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            input_names=names,
            output_names=[OUTPUT],
            dynamic_shapes={name: {0: "rows"} for name in names},
            verbose=False,
        )
    model = exported.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")
    path.write_bytes(model.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks on optional libraries and on themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
