"""``card.json``: what an exported folder holds, where it comes from and how it is used."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoctr.data.dataset import SPLITS, Dataset
from autoctr.export.formats import FORMATS
from autoctr.export.plan import Plan
from autoctr.model.build import multiply_adds

FORMAT = 1
_FIXED = (".running_mean", ".running_var", ".num_batches_tracked", ".masks")
FILES = ("model.py", "weights.safetensors", "features.json", "predict.py")
ALL_FILES = (*dict.fromkeys([*FILES, *FORMATS.values()]),)
USE = "python predict.py events.csv scores.csv; needs torch, numpy and safetensors (pyarrow for parquet), not autoctr"


def facts(plan: Plan, dataset: Dataset, state: Mapping[str, Tensor], folder: Path) -> dict[str, Any]:
    """The card of the files that lie in ``folder``, JSON-ready, without metrics."""
    wiring = plan.candidate.wiring
    frozen = {*plan.vector_names.values(), *plan.snapshots.values()}
    trained = [name for name in state if name not in frozen and not name.endswith(_FIXED)]
    embedding = math.prod(state["embedding.weight"].shape)
    return {
        "autoctr_export": FORMAT,
        "use": USE,
        "tasks": list(plan.statistics.tasks),
        "candidate": plan.candidate.to_dict(),
        "wiring": None if wiring is None else wiring.describe(),
        "snapshots": _snapshots(plan),
        "dataset": {
            "name": dataset.name,
            "key": dataset.key,
            "rows": {split: len(getattr(dataset, split)) for split in SPLITS},
        },
        "parameters": {"dense": sum(state[name].numel() for name in trained) - embedding, "embedding": embedding},
        "multiply_adds": multiply_adds(plan.candidate, plan.statistics),
        "versions": {
            "autoctr": _version("autoctr"),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "safetensors": _version("safetensors"),
        },
        "files": sums(folder),
    }


def sums(folder: Path) -> dict[str, str]:
    """The sha256 of every file of an export that lies in ``folder``."""
    return {name: _digest(folder / name) for name in ALL_FILES if (folder / name).exists()}


def _snapshots(plan: Plan) -> dict[str, Any] | None:
    """Which frozen snapshots every row reads, see E-CDCTR (arXiv 2408.16238); None without."""
    fields = list(plan.snapshots)
    if not fields:
        return None
    first = fields[0]
    return {
        "fields": [field.of for field in fields],
        "pooling": first.pooling,
        "newest": first.window,
        "use": "every row reads the newest snapshots, which have learned from all training rows of the rich domains; "
        "no time stamp is needed",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
