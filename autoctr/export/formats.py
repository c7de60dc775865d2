"""The formats that a model is written in: the files they add to an export, and what they need installed."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from autoctr.errors import UserError

#: The model's file in each format. ``python`` is always there, with weights and ``predict.py``.
FORMATS = {"python": "model.py", "onnx": "model.onnx", "pt2": "model.pt2"}


def formats(names: str | Iterable[str]) -> tuple[str, ...]:
    """The named formats and ``python``, each once; a name may be several with commas between them.

    Raises:
        UserError: for an unknown one.
    """
    given = [names] if isinstance(names, str) else names
    named = {"python", *(part.strip() for name in given for part in name.split(","))}
    if unknown := sorted(named - FORMATS.keys()):
        raise UserError(f"unknown format {unknown[0]!r}; legal are {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in named)


def writable(names: str | Iterable[str]) -> tuple[str, ...]:
    """The same for formats that are to be written.

    Raises:
        UserError: for an unknown one, or a missing library.
    """
    wanted = formats(names)
    if "onnx" in wanted:
        for library in ("onnx", "onnxscript", "onnxruntime"):
            onnx_library(library)
    return wanted


def onnx_library(name: str) -> Any:
    """The module ``name``, one of those that write or run ONNX.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"the format onnx needs {name}, which is missing; pip install 'autoctr[onnx]'") from error
