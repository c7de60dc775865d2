"""The weights of a trained fusion network under the names of the generated model."""

from __future__ import annotations

import torch
from torch import Tensor

from autoctr.export.fusion_layers import concat_map
from autoctr.export.fusion_plan import FusionPlan
from autoctr.export.product import Layer, Product
from autoctr.export.state import Named, dense_weights, embedding_state, linear_state
from autoctr.export.wiring import Component
from autoctr.model.fusion import FusionNetwork
from autoctr.training.cohort import Weights


def fusion_state(plan: FusionPlan, network: FusionNetwork, weights: Weights) -> dict[str, Tensor]:
    """The state of the generated model; maps that may differ between domains in float64."""
    dense = dense_weights(network, weights)
    state = embedding_state(plan, network, weights)
    for name, several in plan.layers.items():
        for task, layer in enumerate(several):
            place = name if len(several) == 1 else f"{name}.{task}"
            state |= _product(layer.products[0], place) if plan.is_shared(name) else _per_domain(layer, place)
            if plan.has_closing(name):
                side = "input" if name == "projection" else "output"
                state[f"{place}.{side}_factors"] = plan.closing(name)[task][plan.domain_of_group]
        if several[0].factors is not None:
            state[f"{name}_factors"] = several[0].factors[plan.domain_of_group]
    if plan.field_factors is not None:
        state["field_factors"] = plan.field_factors[plan.domain_of_group]
    for component in (*plan.components, plan.output):
        state |= _attention(dense, component)
        if component.deep:
            state |= _pruner(dense, component.name) if plan.prunes_neurons else {}
        elif component is not plan.output:
            state |= _cross(plan.candidate.cross, dense, component.name)
    return state | _head(plan, dense)


def _head(plan: FusionPlan, dense: Named) -> dict[str, Tensor]:
    """The head, with the output's concatenation in it where it has no map of its own."""
    tasks = [f"head.{task}" for task in plan.statistics.tasks]
    weight = torch.cat([dense[f"{task}.weight"] for task in tasks], 1).T
    bias = torch.cat([dense[f"{task}.bias"] for task in tasks])
    if plan.output.name in plan.folded:
        joined, shift = concat_map(dense, plan.output)
        weight, bias = weight.cpu().double(), bias.cpu().double()
        weight, bias = weight @ joined, bias + weight @ shift
    return {"head.weight": weight, "head.bias": bias}


def _per_domain(layer: Layer, name: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for number, product in enumerate(layer.products):
        state |= _product(product, f"{name}.products.{number}")
    return state


def _product(product: Product, name: str) -> dict[str, Tensor]:
    tensors, state = product.tensors, {}
    if product.down is not None:
        state = {f"{name}.{part}.weight": tensors.pop(part) for part in ("down", "up")}
        name = f"{name}.base"
    inner = f"{name}.linear" if product.is_compact else name
    state |= {f"{inner}.{part}": tensors.pop(part) for part in ("weight", "bias")}
    for part, tensor in tensors.items():
        state[f"{name}.{part}"] = tensor if tensor.is_floating_point() else tensor.to(torch.int32)
    return state


def _cross(kind: str, dense: Named, name: str) -> dict[str, Tensor]:
    node = name.upper()
    if kind == "vector":
        return {f"{name}.weight": dense[f"{node}.weight"][:, 0], f"{name}.bias": dense[f"{node}.bias"]}
    if kind == "lowrank":
        return {f"{name}.down.weight": dense[f"{node}.down"].T, **linear_state(dense, node, f"{name}.up")}
    if kind == "fm":
        return {}
    return linear_state(dense, node, f"{name}.{'maps' if kind == 'attention' else 'linear'}")


def _attention(dense: Named, component: Component) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    node, name = component.name.upper(), component.name
    for part in component.parts:
        for source in part.sources if part.operator == "attention" else ():
            for layer in ("hidden", "score"):
                place = f"{node}.attention.{source.upper()}.{layer}"
                state |= linear_state(dense, place, f"{name}_attention_{source}.{layer}")
    return state


def _pruner(dense: Named, name: str) -> dict[str, Tensor]:
    source, target = f"{name.upper()}.pruner", f"{name}_pruner.linear"
    weights = [dense[f"{source}.neurons"], dense[f"{source}.domain"]]
    return {f"{target}.weight": torch.cat(weights).T, f"{target}.bias": dense[f"{source}.bias"]}
