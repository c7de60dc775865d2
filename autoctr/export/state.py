"""The weights of a trained member under the names of the generated model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autoctr.export.plan import Component, Plan
from autoctr.model.fusion import FusionNetwork
from autoctr.training.cohort import Weights


def model_state(plan: Plan, network: FusionNetwork, weights: Weights) -> dict[str, Tensor]:
    """The state of the generated model, float32 on the CPU. Weights of maps are [outputs, inputs], as in nn.Linear."""
    dense = {name: view[0] for name, view in network.layout.views(weights.flat).items()}
    state = {"embedding.weight": weights.table[:, 0]}
    if plan.statistics.scaled:
        state["number_weights"] = dense["numbers"]
    for field, table in zip(plan.statistics.vectors, network.embedding.tables, strict=True):
        state[plan.vector_names[field.name]] = table
    if network.projected:
        state |= _linear(dense, "projection", "projection")
    deep = 0
    for component in plan.components:
        state |= _fusion(dense, component)
        if component.deep:
            state |= _deep(plan, dense, component.name)
            if network.norm is not None:
                start = 2 * plan.width * deep
                state |= _norm(dense, component.name, weights.running[0, start : start + 2 * plan.width])
            deep += 1
        elif plan.candidate.cross == "matrix":
            state |= _linear(dense, component.name.upper(), f"{component.name}.linear")
        else:
            state[f"{component.name}.weight"] = dense[f"{component.name.upper()}.weight"][:, 0]
            state[f"{component.name}.bias"] = dense[f"{component.name.upper()}.bias"]
    state |= _fusion(dense, plan.output)
    tasks = [f"head.{task}" for task in plan.statistics.tasks]
    state["head.weight"] = torch.cat([dense[f"{task}.weight"] for task in tasks], 1).T
    state["head.bias"] = torch.cat([dense[f"{task}.bias"] for task in tasks])
    return {name: _finished(tensor) for name, tensor in state.items()}


def _finished(tensor: Tensor) -> Tensor:
    kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", kind).contiguous()


def _linear(dense: Mapping[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    state = {f"{target}.weight": dense[f"{source}.weight"].T}
    if f"{source}.bias" in dense:
        state[f"{target}.bias"] = dense[f"{source}.bias"]
    return state


def _fusion(dense: Mapping[str, Tensor], component: Component) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    node, name = component.name.upper(), component.name
    for part in component.parts:
        if part.operator == "concat":
            blocks = [dense[f"{node}.concat.{source.upper()}.weight"] for source in part.sources]
            state[f"{name}_concat.weight"] = torch.cat(blocks).T
            state[f"{name}_concat.bias"] = dense[f"{node}.concat.bias"]
        if part.operator == "attention":
            for source in part.sources:
                for layer in ("hidden", "score"):
                    place = f"{node}.attention.{source.upper()}.{layer}"
                    state |= _linear(dense, place, f"{name}_attention_{source}.{layer}")
    return state


def _deep(plan: Plan, dense: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    node = name.upper()
    state = _linear(dense, node, f"{name}.linear")
    for domain, rank in plan.ranks.items():
        a, b, bias = (dense[f"{node}.lora.{part}"][domain] for part in ("A", "B", "bias"))
        state[f"{name}.adapters.down.{domain}.weight"] = a[:, :rank].T
        state[f"{name}.adapters.up.{domain}.weight"] = b[:rank].T
        state[f"{name}.adapters.up.{domain}.bias"] = bias
    if plan.form is not None:
        parts = [dense[f"{node}.pruner.neurons"]] if plan.reads_neurons else []
        parts.append(dense[f"{node}.pruner.domain"])
        state[f"{name}.pruner.linear.weight"] = torch.cat(parts).T
        state[f"{name}.pruner.linear.bias"] = dense[f"{node}.pruner.bias"]
    return state


def _norm(dense: Mapping[str, Tensor], name: str, running: Tensor) -> dict[str, Tensor]:
    mean, variance = running.chunk(2)
    return {
        f"{name}.norm.weight": dense[f"{name.upper()}.norm.scale"],
        f"{name}.norm.bias": dense[f"{name.upper()}.norm.shift"],
        f"{name}.norm.running_mean": mean,
        f"{name}.norm.running_var": variance,
        f"{name}.norm.num_batches_tracked": torch.tensor(0),
    }
