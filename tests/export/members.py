"""Members with weights that are nowhere zero or one, so that a wrong formula shows, and generated models in memory."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoctr.data.dataset import Dataset, Rows
from autoctr.export.generate import model_plan, model_source, model_state
from autoctr.export.plan import Plan
from autoctr.export.rounding import Stored
from autoctr.export.scope import Scope
from autoctr.export.verify import searched_probabilities
from autoctr.model.architecture import Architecture, Node, inputs, one_hot
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort, frozen_tables

RAMP = 1000
VOCABULARY = {"de": 1, "us": 2, "fr": 3, "jp": 4}


def member(dataset: Dataset, candidate: Candidate, progress: float = 0.7, scale: float = 1.0) -> Cohort:
    """A cohort of one with random weights everywhere: adapters, biases, normalisation, gates and tickets included.

    Without normalisation, long products need a smaller ``scale``, lest float32 rounding show in the logits.
    """
    cohort = Cohort(dataset.statistics, [candidate], frozen_tables(dataset), ramp=RAMP)
    draw = torch.Generator().manual_seed(7)
    for name, view in cohort.network.layout.views(cohort.flat).items():
        fan_in = view.shape[-2] if view.dim() > 2 else 4
        view += torch.randn(view.shape, generator=draw) * 0.6 * scale * fan_in**-0.5 * (4 if "pruner" in name else 1)
    cohort.table += torch.randn(cohort.table.shape, generator=draw) * scale
    for pair in cohort.running.view(-1, 2, cohort.network.width):
        pair[0] += torch.randn(pair[0].shape, generator=draw) * 0.3
        pair[1] *= torch.rand(pair[1].shape, generator=draw) + 0.5
    if candidate.keep_rate < 1:
        shape = (1, cohort.network.units, cohort.network.maskable.size)
        cohort.masks = (torch.rand(shape, generator=draw) < candidate.keep_rate).to(cohort.flat.dtype)
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


def random_wiring(seed: int, blocks: int, operators: Sequence[int]) -> Architecture:
    """Random connections, half of the inputs open; every node uses one of the ``operators``. All components are live.

    The output node reads everything.
    """
    draw = np.random.default_rng(seed)
    counts = inputs(blocks)
    nodes = []
    for count in counts:
        flags = draw.random(count) < (0.5 if len(nodes) < len(counts) - 1 else 1.1)
        flags[draw.integers(count)] = True
        nodes.append(Node(tuple(map(bool, flags)), one_hot(int(draw.choice(operators)))))
    return Architecture(tuple(nodes))


def scope_of(cohort: Cohort, *names: str) -> Scope:
    """These domains of the fake data, or all; their vocabulary has another order than the domains."""
    statistics = cohort.network.statistics
    offset = statistics.offsets[statistics.domain_field]
    ids = [offset + VOCABULARY.get(name, 0) for name in (*statistics.domains, "unknown")]
    chosen = tuple(number for number, name in enumerate(statistics.domains) if not names or name in names)
    return Scope(statistics, chosen, tuple(ids))


def plan_of(cohort: Cohort, *names: str, stored: Stored = "fp32") -> Plan:
    return model_plan(cohort.network, cohort.weights(), scope_of(cohort, *names), stored)


def source_of(cohort: Cohort) -> str:
    return model_source(plan_of(cohort))


def state_of(cohort: Cohort) -> dict[str, torch.Tensor]:
    return model_state(plan_of(cohort), cohort.network, cohort.weights())


def generated(
    cohort: Cohort,
    *names: str,
    stored: Stored = "fp32",
    dtype: torch.dtype = torch.float32,
    split_rows: int | None = None,
) -> Any:
    """The generated model with its weights, in evaluation mode.

    ``split_rows`` is its least number of rows per domain for which mixed batches are split.
    """
    plan = plan_of(cohort, *names, stored=stored)
    source = model_source(plan)
    if split_rows is not None:
        source = re.sub(r"^SPLIT = \d+", f"SPLIT = {split_rows}", source, flags=re.MULTILINE)
    roots = {name.split(".")[0] for node in ast.walk(ast.parse(source)) for name in _imports(node)}
    assert roots <= {"__future__", "torch"}
    module = types.ModuleType("generated")
    exec(compile(source, "model.py", "exec"), module.__dict__)
    with torch.device("meta"):
        model = module.Model()
    model.load_state_dict(model_state(plan, cohort.network, cohort.weights(), dtype), assign=True)
    model.inputs = module.INPUTS
    return model.eval()


def run(model: Any, rows: Rows, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Probabilities of encoded rows."""
    given = {name: torch.from_numpy(np.array(getattr(rows, name))) for name in model.inputs}
    if "numbers" in given:
        given["numbers"] = given["numbers"].to(dtype)
    with torch.inference_mode():
        return model.to(dtype)(*given.values()).sigmoid().numpy()


def check(dataset: Dataset, cohort: Cohort, rows: Rows | None = None, spread: float = 0.004) -> None:
    """Compare the generated model with the searched network, in float32 and float64.

    ``spread`` is the least standard deviation of a task's probabilities, so that a constant does not pass.
    """
    rows = dataset.valid if rows is None else rows
    model = generated(cohort)
    found = run(model, rows)
    assert found.dtype == np.float32
    assert found.shape == (len(rows), len(dataset.statistics.tasks))
    np.testing.assert_allclose(found, searched_probabilities(cohort, rows, torch.float32), rtol=0, atol=1e-5)
    exact = searched_probabilities(cohort, rows, torch.float64)
    model = generated(cohort, dtype=torch.float64)
    np.testing.assert_allclose(run(model, rows, torch.float64), exact, rtol=0, atol=1e-12)
    if "SPLIT" in source_of(cohort):
        for split_rows in (0, 1 << 30):
            model = generated(cohort, dtype=torch.float64, split_rows=split_rows)
            np.testing.assert_allclose(run(model, rows, torch.float64), exact, rtol=0, atol=1e-12)
    if len(rows) > 1:
        assert exact.std(axis=0).min() > spread


def unknown_rows(dataset: Dataset) -> Rows:
    """Validation rows of an unknown domain."""
    rows = dataset.valid.take(np.flatnonzero(dataset.valid.domain == len(dataset.statistics.domains)))
    assert len(rows) > 3
    return rows


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
