"""The weights of a trained fusion network under the names of the generated model."""

from __future__ import annotations

import torch
from torch import Tensor

from autoctr.export.fusion_plan import Component, FusionPlan
from autoctr.export.state import Named, dense_weights, embedding_state, finished, linear_state
from autoctr.model.fusion import FusionNetwork
from autoctr.training.cohort import Weights


def fusion_state(plan: FusionPlan, network: FusionNetwork, weights: Weights) -> dict[str, Tensor]:
    """The state of the generated model."""
    dense = dense_weights(network, weights)
    state = embedding_state(plan, network, weights)
    tickets = _tickets(network, weights)
    if plan.prunes_input:
        state |= _pruner(dense, "x0", "input_pruner")
    deep = 0
    for component in plan.components:
        state |= _fusion(dense, component)
        if component.deep:
            state |= _deep(plan, dense, component.name, tickets.get(f"{component.name.upper()}.weight"))
            if network.norm is not None:
                start = 2 * plan.width * deep
                state |= _norm(dense, component.name, weights.running[0, start : start + 2 * plan.width])
            deep += 1
        else:
            state |= _cross(plan.candidate.cross, dense, component.name)
    state |= _fusion(dense, plan.output)
    tasks = [f"head.{task}" for task in plan.statistics.tasks]
    state["head.weight"] = torch.cat([dense[f"{task}.weight"] for task in tasks], 1).T
    state["head.bias"] = torch.cat([dense[f"{task}.bias"] for task in tasks])
    return finished(state)


def _tickets(network: FusionNetwork, weights: Weights) -> dict[str, Tensor]:
    """Each maskable weight's tickets, bool [units, inputs, outputs]; empty without."""
    return {} if weights.masks is None else network.maskable.views(weights.masks[0] > 0)


def _cross(kind: str, dense: Named, name: str) -> dict[str, Tensor]:
    node = name.upper()
    if kind == "vector":
        return {f"{name}.weight": dense[f"{node}.weight"][:, 0], f"{name}.bias": dense[f"{node}.bias"]}
    if kind == "lowrank":
        return {f"{name}.down.weight": dense[f"{node}.down"].T, **linear_state(dense, node, f"{name}.up")}
    if kind == "fm":
        return {}
    return linear_state(dense, node, f"{name}.{'maps' if kind == 'attention' else 'linear'}")


def _fusion(dense: Named, component: Component) -> dict[str, Tensor]:
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
                    state |= linear_state(dense, place, f"{name}_attention_{source}.{layer}")
    return state


def _deep(plan: FusionPlan, dense: Named, name: str, tickets: Tensor | None) -> dict[str, Tensor]:
    node = name.upper()
    state = linear_state(dense, node, f"{name}.linear")
    if plan.tickets is not None:
        assert tickets is not None
        masks = torch.cat([tickets, tickets.any(0, keepdim=True)]) if plan.tickets == "domain" else tickets
        state[f"{name}.linear.masks"] = masks.mT
    elif tickets is not None:
        state[f"{name}.linear.weight"] = (dense[f"{node}.weight"] * tickets[0]).T
    for domain, rank in plan.ranks.items():
        a, b, bias = (dense[f"{node}.lora.{part}"][domain] for part in ("A", "B", "bias"))
        state[f"{name}.adapters.down.{domain}.weight"] = a[:, :rank].T
        state[f"{name}.adapters.up.{domain}.weight"] = b[:rank].T
        state[f"{name}.adapters.up.{domain}.bias"] = bias
    if plan.prunes_neurons:
        state |= _pruner(dense, node, f"{name}.pruner")
    return state


def _pruner(dense: Named, source: str, target: str) -> dict[str, Tensor]:
    parts = [dense[f"{source}.pruner.{part}"] for part in ("neurons", "domain") if f"{source}.pruner.{part}" in dense]
    return {f"{target}.linear.weight": torch.cat(parts).T, f"{target}.linear.bias": dense[f"{source}.pruner.bias"]}


def _norm(dense: Named, name: str, running: Tensor) -> dict[str, Tensor]:
    mean, variance = running.chunk(2)
    return {
        f"{name}.norm.weight": dense[f"{name.upper()}.norm.scale"],
        f"{name}.norm.bias": dense[f"{name.upper()}.norm.shift"],
        f"{name}.norm.running_mean": mean,
        f"{name}.norm.running_var": variance,
        f"{name}.norm.num_batches_tracked": torch.tensor(0),
    }
