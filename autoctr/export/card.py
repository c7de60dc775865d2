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
from autoctr.export import footprint
from autoctr.export.formats import FORMATS
from autoctr.export.plan import Plan
from autoctr.model.build import multiply_adds
from autoctr.model.network import Network
from autoctr.training.cohort import Weights

CARD = "card.json"
FORMAT = 1
FILES = ("model.py", "weights.safetensors", "features.json", "predict.py")
ALL_FILES = (*dict.fromkeys([*FILES, *FORMATS.values()]),)
USE = "python predict.py events.csv scores.csv; needs torch, numpy and safetensors (pyarrow for parquet), not autoctr"


def facts(
    plan: Plan, dataset: Dataset, state: Mapping[str, Tensor], network: Network, weights: Weights, folder: Path
) -> dict[str, Any]:
    """The card of the files that lie in ``folder``, JSON-ready, without metrics."""
    wiring, looked_up = plan.candidate.wiring, set(footprint.tables(plan, state))
    dense = [tensor for name, tensor in state.items() if name not in looked_up and tensor.is_floating_point()]
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
        "domains": {"exported": list(plan.statistics.domains), "as_unknown": _as_unknown(plan)},
        "embeddings": {"stored": plan.stored, "rows": len(plan.rows), "fields_left_out": _left_out(plan)},
        "parameters": {"dense": sum(tensor.numel() for tensor in dense), "embedding": embedding},
        "multiply_adds": multiply_adds(plan.candidate, network.statistics),
        "footprint": footprint.compared(plan, state, network, weights),
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


def _as_unknown(plan: Plan) -> list[str]:
    """Domains that the network was trained on and the export scores as unknown."""
    return [name for name in plan.scope.statistics.domains if name not in plan.statistics.domains]


def _left_out(plan: Plan) -> list[str]:
    """Fields that every domain closes."""
    return [field.name for field in plan.encoded.fields if field not in plan.statistics.fields]


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
