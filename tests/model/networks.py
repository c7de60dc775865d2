"""Cohorts with random weights everywhere, and what the numpy reference says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from reference import adasparse, fusion, lora
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.data.statistics import Kind
from autoctr.model.architecture import OPERATORS, Architecture, Node, consumers, inputs, one_hot, producers
from autoctr.model.candidate import Candidate, ranks
from autoctr.model.network import Batch
from autoctr.training.cohort import Cohort, frozen_tables
from autoctr.training.rows import ResidentRows

Array = npt.NDArray[np.float64]
Weights = tuple[float, float, float, float]

RAMP = 1000
TINY: dict[str, Any] = {"embedding": 3, "width": 6, "dropout": 0.0, "averaging": 0.0}


def random_node(count: int, draw: np.random.Generator, soft: bool) -> Node:
    flags = draw.random(count) < 0.5
    flags[draw.integers(count)] = True
    if not soft:
        return Node(tuple(flags.tolist()), one_hot(int(draw.integers(4))))
    weights = draw.random(4) * (draw.random(4) < 0.7)
    weights[draw.integers(4)] += 0.1
    a, b, c, d = (weights / weights.sum()).tolist()
    return Node(tuple(flags.tolist()), (a, b, c, d))


def random_wiring(blocks: int, seed: int, soft: bool = False) -> Architecture:
    draw = np.random.default_rng(seed)
    return Architecture(tuple(random_node(count, draw, soft) for count in inputs(blocks)))


def uniform_wiring(weights: Weights, blocks: int = 2, every: int = 1) -> Architecture:
    """Every node uses the same operators on every ``every``-th input, counted from the last."""
    return Architecture(
        tuple(Node(tuple((count - 1 - u) % every == 0 for u in range(count)), weights) for count in inputs(blocks))
    )


def random_cohort(
    dataset: Dataset,
    candidates: Sequence[Candidate],
    *,
    dtype: torch.dtype = torch.float64,
    progress: float = 0.7,
    seed: int = 0,
) -> Cohort:
    """Members whose weights, running statistics and gates are random: nothing is zero, one or equal by its start."""
    cohort = Cohort(dataset.statistics, candidates, frozen_tables(dataset), ramp=RAMP, dtype=dtype)
    draw = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=draw, dtype=torch.float64).to(dtype)

    for name, view in cohort.network.layout.views(cohort.flat).items():
        fan_in = view.shape[-2] if view.dim() > 2 else 4
        view += noise(view) * fan_in**-0.5 * (3.0 if "pruner" in name else 1.0)
    cohort.table += noise(cohort.table)
    half = cohort.running.view(len(candidates), -1, 2, cohort.network.width)
    half[:, :, 0] += noise(half[:, :, 0])
    half[:, :, 1] *= 0.5 + noise(half[:, :, 1]).abs()
    cohort.architecture += noise(cohort.architecture)
    cohort.ramped = round(progress * RAMP)
    return cohort


def resident(
    dataset: Dataset, split: str = "valid", dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> ResidentRows:
    return ResidentRows(getattr(dataset, split), len(dataset.statistics.domains), dtype=dtype, device=device)


def batch_of(rows: ResidentRows, chosen: Sequence[int]) -> Batch:
    """The chosen rows as a batch, sorted by domain."""
    numbers = torch.tensor(chosen, dtype=torch.int64)
    return rows.batch(numbers[rows.domain[numbers].argsort(stable=True)])


def mixed_batch(rows: ResidentRows, each: int = 3) -> Batch:
    """The first rows of every domain, the unknown one included."""
    chosen = [(rows.domain == d).nonzero()[:each, 0] for d in range(rows.domains + 1)]
    assert all(len(numbers) for numbers in chosen)
    return rows.batch(torch.cat(chosen))


def scored(cohort: Cohort, batch: Batch, **changes: Any) -> Tensor:
    """Logits of a batch in evaluation, [K, B, tasks]."""
    network = cohort.network
    arguments: dict[str, Any] = {
        "architecture": cohort.architecture if network.relaxed else None,
        "running": cohort.running,
        "progress": cohort.progress,
    }
    return network.forward(cohort.flat, cohort.table, batch.ids, batch, **arguments | changes).logits


def reference_x0(cohort: Cohort, member: int, batch: Batch, row: int) -> tuple[Array, Array]:
    """x0 and the domain's embedding of one row, field by field."""
    statistics = cohort.network.statistics
    table = cohort.table[:, member].numpy().astype(np.float64)
    weights = cohort.network.layout.views(cohort.flat)
    ids, single, pooled, slot = batch.ids[row].tolist(), [], [], 0
    domain = np.zeros(0)
    for field in statistics.embedded:
        mine = ids[slot : slot + field.slots]
        slot += field.slots
        if field.kind is Kind.MULTI:
            known = [table[i] for i in mine if i != statistics.offsets[field.name]]
            pooled.append(np.mean(known, axis=0) if known else np.zeros(table.shape[1]))
            continue
        single.append(table[mine[0]])
        if field.name == statistics.domain_field:
            domain = table[mine[0]]
    scaled = [
        float(batch.numbers[row, n]) * weights["numbers"][member, n].numpy() for n in range(len(statistics.scaled))
    ]
    frozen = [
        cohort.network.embedding.tables[n][int(batch.vectors[row, n])].numpy() for n in range(len(statistics.vectors))
    ]
    return np.concatenate([*single, *pooled, *scaled, *frozen]).astype(np.float64), domain


def reference_logits(cohort: Cohort, member: int, batch: Batch) -> Array:
    """Logits of one member by the numpy reference, row by row, [B, tasks]."""
    network, candidate = cohort.network, cohort.network.candidates[member]
    weights = {
        name: view[member].numpy().astype(np.float64) for name, view in network.layout.views(cohort.flat).items()
    }
    wiring = _reference_wiring(cohort, member)
    result = [_reference_row(cohort, candidate, member, weights, wiring, batch, row) for row in range(len(batch))]
    return np.array(result)


def _reference_wiring(cohort: Cohort, member: int) -> dict[str, tuple[list[int], list[float]]]:
    network, candidate = cohort.network, cohort.network.candidates[member]
    if candidate.wiring is not None:
        nodes = zip(consumers(network.blocks), candidate.wiring.nodes, strict=True)
        return {name: ([int(g) for g in node.open], list(node.operators)) for name, node in nodes}
    views = network.architecture.views(cohort.architecture)
    return {
        name: (
            fusion.gates(views[f"{name}.gates"][member].numpy()),
            fusion.softmax(views[f"{name}.operators"][member].numpy()).tolist(),
        )
        for name in consumers(network.blocks)
    }


def _reference_row(
    cohort: Cohort,
    candidate: Candidate,
    member: int,
    weights: dict[str, Array],
    wiring: dict[str, tuple[list[int], list[float]]],
    batch: Batch,
    row: int,
) -> list[float]:
    network = cohort.network
    x0, e_d = reference_x0(cohort, member, batch, row)
    if candidate.width:
        x0 = x0 @ weights["projection.weight"] + weights["projection.bias"]
    domain = int(batch.segments.domain[row])
    h, junk = network.width, np.random.default_rng(row)
    deep_names = [name for p, name in enumerate(producers(network.blocks)) if p in network.needed and name[0] == "D"]

    def given(name: str, *shape: int) -> Array:
        """A weight, or noise where the network has none: what it leaves out must not matter."""
        return weights[name] if name in weights else junk.normal(size=shape)

    parameters: dict[str, dict[str, Any]] = {}
    for name in [*producers(network.blocks)[1:], "O"]:
        own: dict[str, Any] = {}
        if name != "C0":
            sources = fusion.candidates(name, network.blocks)
            pieces = [
                [given(f"{name}.attention.{u}.{part}", *shape) for u in sources]
                for part, shape in (
                    ("hidden.weight", (h, h)),
                    ("hidden.bias", (h,)),
                    ("score.weight", (h, h)),
                    ("score.bias", (h,)),
                )
            ]
            own["attention"] = tuple(pieces)
            own["concat"] = (
                [given(f"{name}.concat.{u}.weight", h, h) for u in sources],
                given(f"{name}.concat.bias", h),
            )
        if name.startswith("C"):
            w = given(f"{name}.weight", *((h, 1) if candidate.cross == "vector" else (h, h)))
            own["cross"] = (w[:, 0] if candidate.cross == "vector" else w, given(f"{name}.bias", h))
        elif name.startswith("D"):
            bias = np.zeros(h) if candidate.norm == "batch" else given(f"{name}.bias", h)
            own["deep"] = {"W": given(f"{name}.weight", h, h), "b": bias}
            if name in deep_names:
                own["deep"] |= _reference_parts(cohort, candidate, member, weights, name, deep_names, domain, e_d)
        parameters[name] = own
    logits = []
    for task in network.statistics.tasks:
        parameters["O"]["output"] = (weights[f"head.{task}.weight"], weights[f"head.{task}.bias"])
        logits.append(float(fusion.network(x0, parameters, wiring)))
    return logits


def _reference_parts(
    cohort: Cohort,
    candidate: Candidate,
    member: int,
    weights: dict[str, Array],
    name: str,
    deep_names: list[str],
    domain: int,
    e_d: Array,
) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    statistics, h = cohort.network.statistics, cohort.network.width
    rank = lora.ranks(candidate.rank, candidate.rank_tilt, statistics.domain_rows, 64)
    if domain < len(rank) and rank[domain] > 0:
        r = rank[domain]
        parts["lora"] = (weights[f"{name}.lora.A"][domain, :, :r], weights[f"{name}.lora.B"][domain, :r])
        parts["domain_bias"] = weights[f"{name}.lora.bias"][domain]
    if candidate.norm == "batch":
        start = 2 * h * deep_names.index(name)
        mean, var = cohort.running[member, start : start + 2 * h].numpy().reshape(2, h)
        scale, shift = weights[f"{name}.norm.scale"], weights[f"{name}.norm.shift"]
        parts["norm"] = lambda z: fusion.batch_norm(z, mean, var, scale, shift)
    if candidate.sparsity > 0:
        alpha = adasparse.alpha_schedule(cohort.progress, 1.0)
        neurons = weights.get(f"{name}.pruner.neurons", np.zeros((h, h)))
        w = np.concatenate([neurons, weights[f"{name}.pruner.domain"]])

        def pruner(z: Array) -> Array:
            v = adasparse.pruner_input(z, e_d, w, weights[f"{name}.pruner.bias"])
            if candidate.sparsity_form == "scaling":
                return adasparse.scaling(v, 2.0)
            if candidate.sparsity_form == "binarization":
                return adasparse.binarization(v, alpha, 0.25)
            return adasparse.fusion(v, alpha, 2.0, 0.25)

        parts["pruner"] = pruner
    return parts


def member_ranks(cohort: Cohort, member: int = 0) -> list[int]:
    return ranks(cohort.network.candidates[member], cohort.network.statistics.domain_rows)


def number_of(operator: str) -> int:
    return OPERATORS.index(operator)
