"""The weights of a trained MMoE, PLE, STAR or PEPNet under the names of the generated model.

Weights of domains lie in a leading axis; the last entry is for unknown domains, whichever domains are exported.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autoctr.export.plan import Plan
from autoctr.export.state import Named, dense_weights, embedding_state, linear_state
from autoctr.model.network import Network
from autoctr.training.cohort import Weights


def multidomain_state(plan: Plan, network: Network, weights: Weights) -> dict[str, Tensor]:
    """The state of the generated model."""
    own = {"mmoe": _mmoe, "ple": _ple, "star": _star, "pepnet": _pepnet}[plan.candidate.backbone]
    dense, state = dense_weights(network, weights), embedding_state(plan, network, weights)
    if network.projected:
        state |= linear_state(dense, "projection", "projection")
    return state | own(plan, dense)


def _domain_linear(plan: Plan, dense: Named, source: str, target: str) -> dict[str, Tensor]:
    """A map per exported domain, then the mean of all that were trained."""
    return {
        name: torch.cat([plan.scope.take(tensor).double(), tensor.double().mean(0, keepdim=True)])
        for name, tensor in linear_state(dense, source, target).items()
    }


def _mmoe(plan: Plan, dense: Named) -> dict[str, Tensor]:
    state = _domain_linear(plan, dense, "gate", "gate") | _tower(plan, dense)
    count = plan.candidate.experts
    for n in range(1, plan.candidate.blocks + 1):
        weight, bias = dense[f"experts.{n}.weight"], dense[f"experts.{n}.bias"]
        wide = n == 1  # all experts side by side
        weights = weight.chunk(count, 1) if wide else weight.unbind()
        biases = bias.chunk(count) if wide else bias.unbind()
        for expert in range(count):
            state[f"experts.{expert}.layers.{n - 1}.weight"] = weights[expert].T
            state[f"experts.{expert}.layers.{n - 1}.bias"] = biases[expert]
    return state


def _ple(plan: Plan, dense: Named) -> dict[str, Tensor]:
    state = _tower(plan, dense)
    for n in range(1, plan.candidate.blocks + 1):
        state |= _domain_linear(plan, dense, f"level.{n}.own", f"experts_{n}.own")
        state |= linear_state(dense, f"level.{n}.shared", f"experts_{n}.shared")
        state |= _domain_linear(plan, dense, f"level.{n}.gate", f"gate_{n}")
        if n < plan.candidate.blocks:
            state |= linear_state(dense, f"level.{n}.shared_gate", f"shared_gate_{n}")
    return state


def _tower(plan: Plan, dense: Named) -> dict[str, Tensor]:
    return _domain_linear(plan, dense, "tower", "tower") | _domain_linear(plan, dense, "head", "head")


def _star(plan: Plan, dense: Named) -> dict[str, Tensor]:
    state = linear_state(dense, "auxiliary.hidden", "auxiliary") | linear_state(
        dense, "auxiliary.head", "auxiliary_head"
    )
    names = {f"layer.{n}": f"layers.{n - 1}" for n in range(1, plan.candidate.blocks + 1)} | {"head": "head"}
    for source, target in names.items():
        weight, bias = dense[f"{source}.weight"].double(), dense[f"{source}.bias"].double()
        own = weight * plan.scope.take(dense[f"{source}.domain.weight"])
        shift = bias + plan.scope.take(dense[f"{source}.domain.bias"])
        state[f"{target}.weight"] = torch.cat([own, weight[None]]).mT
        state[f"{target}.bias"] = torch.cat([shift, bias[None]])
    return state


def _pepnet(plan: Plan, dense: Named) -> dict[str, Tensor]:
    state = linear_state(dense, "head", "head") | _gate(dense, "embedding.gate", "embedding_gate")
    for n in range(1, plan.candidate.blocks + 1):
        state |= linear_state(dense, f"layer.{n}", f"layers.{n - 1}")
        state |= _gate(dense, f"layer.{n}.gate", f"gates.{n - 1}")
    return state


def _gate(dense: Named, source: str, target: str) -> dict[str, Tensor]:
    return linear_state(dense, f"{source}.hidden", f"{target}.hidden") | linear_state(
        dense, f"{source}.scale", f"{target}.scale"
    )
