"""Loading an export in any of its formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoctr.errors import UserError
from autoctr.export.formats import FORMATS, formats, onnx_library
from autoctr.export.standalone import Model, check_files, load, read_encoder, reading


def load_format(folder: Path | str, kind: str = "python", device: torch.device | str = "cpu") -> Model:
    """Load the export in ``folder``, computed by the model of one of its formats.

    ``onnx`` and ``pt2`` run on the CPU, with as many threads as torch. ``model.pt2`` is code, as
    ``model.py`` is: ``torch.export.load`` evaluates sizes that are written as text, and would accept pickles. It holds
    none, and only a file with the sum in card.json is opened; the folder itself must come from someone you trust.

    Raises:
        UserError: if the folder lacks the format or is damaged, or a library is missing.
    """
    folder, device = Path(folder), torch.device(device)
    *_, kind = formats(kind)
    if kind == "python":
        return load(folder, device)
    with reading(folder):
        card = check_files(folder, ("features.json",))
        if FORMATS[kind] not in card["files"]:
            held = ", ".join(name for name, file in FORMATS.items() if file in card["files"])
            raise UserError(f"{folder} holds no {FORMATS[kind]}; its formats are {held}; export with --format {kind}")
        if device.type != "cpu":
            raise UserError(f"the format {kind} computes on the CPU, not on {device}; use --device cpu")
        check_files(folder, (FORMATS[kind],))
        network, inputs = (_onnx if kind == "onnx" else _pt2)(folder / FORMATS[kind])
        return Model(network, read_encoder(folder), inputs, tuple(card["tasks"]), device)


def _onnx(path: Path) -> tuple[Callable[..., Tensor], tuple[str, ...]]:
    runtime = onnx_library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = tuple(value.name for value in session.get_inputs())

    def network(*parts: Tensor) -> Tensor:
        (logits,) = session.run(None, {name: part.numpy() for name, part in zip(inputs, parts, strict=True)})
        return torch.from_numpy(logits)

    return network, inputs


def _pt2(path: Path) -> tuple[Callable[..., Tensor], tuple[str, ...]]:
    program = torch.export.load(path)
    network: Any = program.module()
    return network, program.graph_signature.user_inputs
