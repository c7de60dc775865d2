"""Members with weights that are nowhere zero or one, so that a wrong formula shows, and generated models in memory."""

from __future__ import annotations

import ast
import importlib.util
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoctr.data.dataset import Dataset, Rows
from autoctr.export.generate import model_plan, model_source, model_state
from autoctr.model.architecture import Architecture, Node, inputs, one_hot
from autoctr.model.candidate import Candidate
from autoctr.training.checkpoint import frozen_tables
from autoctr.training.cohort import Cohort

RAMP = 1000


def member(dataset: Dataset, candidate: Candidate, progress: float = 0.7) -> Cohort:
    """A cohort of one with random weights everywhere: adapters, biases, normalisation and gates included."""
    cohort = Cohort(dataset.statistics, [candidate], frozen_tables(dataset), ramp=RAMP)
    draw = torch.Generator().manual_seed(7)
    for name, view in cohort.network.layout.views(cohort.flat).items():
        fan_in = view.shape[-2] if view.dim() > 2 else 4
        view += torch.randn(view.shape, generator=draw) * 0.6 * fan_in**-0.5 * (4 if "pruner" in name else 1)
    cohort.table += torch.randn(cohort.table.shape, generator=draw)
    for pair in cohort.running.view(-1, 2, cohort.network.width):
        pair[0] += torch.randn(pair[0].shape, generator=draw) * 0.3
        pair[1] *= torch.rand(pair[1].shape, generator=draw) + 0.5
    cohort.ramped = round(progress * RAMP)
    return cohort


def uniform_wiring(operator: int, blocks: int = 2) -> Architecture:
    """Every node uses ``operator`` on every second input, counted from the last."""
    return Architecture(
        tuple(Node(tuple((count - u) % 2 == 1 for u in range(count)), one_hot(operator)) for count in inputs(blocks))
    )


def full_wiring(weights: Sequence[float], blocks: int = 2) -> Architecture:
    """Every connection open, every node the same mixture of operators."""
    mixture = (weights[0], weights[1], weights[2], weights[3])
    return Architecture(tuple(Node((True,) * count, mixture) for count in inputs(blocks)))


def source_of(cohort: Cohort) -> str:
    return model_source(model_plan(cohort.network, cohort.weights()))


def state_of(cohort: Cohort) -> dict[str, torch.Tensor]:
    weights = cohort.weights()
    return model_state(model_plan(cohort.network, weights), cohort.network, weights)


def generated(cohort: Cohort) -> Any:
    """The generated model with its weights, in evaluation mode."""
    source = source_of(cohort)
    roots = {name.split(".")[0] for node in ast.walk(ast.parse(source)) for name in _imports(node)}
    assert roots <= {"__future__", "torch"}
    module = types.ModuleType("generated")
    exec(compile(source, "model.py", "exec"), module.__dict__)
    model = module.Model()
    model.load_state_dict(state_of(cohort))
    model.inputs = module.INPUTS
    return model.eval()


def run(model: Any, rows: Rows, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Probabilities of encoded rows."""
    given = {name: torch.from_numpy(np.array(getattr(rows, name))) for name in model.inputs}
    if "numbers" in given:
        given["numbers"] = given["numbers"].to(dtype)
    with torch.inference_mode():
        return model.to(dtype)(*given.values()).sigmoid().numpy()


def load_predict(folder: Path, name: str = "exported_predict") -> Any:
    """The exported ``predict.py`` as a module."""
    spec = importlib.util.spec_from_file_location(name, folder / "predict.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
