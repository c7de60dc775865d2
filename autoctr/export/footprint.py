"""What a network costs for a row of each domain, before its export and after: parameters, bytes, multiply-adds.

The embedding's look-up and its tables are left out, for they do not depend on the domain; see ``tables`` of the card.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from autoctr.export.fusion_plan import FusionPlan
from autoctr.export.plan import Plan
from autoctr.model.build import multiply_adds
from autoctr.model.candidate import ranks
from autoctr.model.components import CROSS
from autoctr.model.fusion import FusionNetwork, open_multiply_adds
from autoctr.model.network import Network, projection_cost
from autoctr.training.cohort import Weights

UNKNOWN = "unknown"
_PRODUCT = re.compile(r"^(?P<layer>\w+?)(?:\.(?P<task>\d+))?\.products\.(?P<number>\d+)\.")
#: Maps of the searched network that every domain has of its own, by parts of their names behind a dot.
_OWN = {
    "mmoe": (".gate.", ".tower.", ".head."),
    "ple": (".own.", ".gate.", ".tower.", ".head."),
    "star": (".domain.",),
    "pepnet": (),
}


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Of one domain: numbers that its rows are computed with, their bytes (indices included), multiply-adds per row."""

    parameters: int
    bytes: int
    multiply_adds: int


def tables(plan: Plan, state: Mapping[str, Tensor]) -> list[str]:
    """The names of tables in the state, whose rows are looked up."""
    names = {"embedding", *plan.vector_names.values(), *plan.snapshots.values()}
    return [name for name in state if name.partition(".")[0] in names]


def exported(plan: Plan, state: Mapping[str, Tensor]) -> list[Footprint]:
    """Of every exported domain, then of unknown ones, counted from the tensors that are exported."""
    looked_up, domains = set(tables(plan, state)), len(plan.statistics.domains) + 1
    dense = {name: tensor for name, tensor in state.items() if name not in looked_up}
    found = []
    for domain in range(domains):
        read = [(tensor, _share(plan, dense, name, domain)) for name, tensor in dense.items()]
        numbers = [round(tensor.numel() * share) for tensor, share in read if tensor.is_floating_point()]
        held = sum(round(tensor.numel() * tensor.element_size() * share) for tensor, share in read)
        found.append(Footprint(sum(numbers), held, _multiply_adds(plan, domain)))
    return found


def _share(plan: Plan, dense: Mapping[str, Tensor], name: str, domain: int) -> float:
    """How much of a tensor rows of a domain read: all, nothing, or its own entry of the first axis."""
    if not isinstance(plan, FusionPlan):
        weight = dense.get(f"{name.rpartition('.')[0]}.weight")
        return 1.0 if weight is None or weight.dim() < 3 else 1 / len(weight)
    if name.endswith("_factors"):
        return 1 / (max(plan.groups) + 1)
    match = _PRODUCT.match(name)
    if match is None:
        return 1.0
    layer = plan.layers[match["layer"]][int(match["task"] or 0)]
    return float(layer.of[domain] == int(match["number"]))


def _multiply_adds(plan: Plan, domain: int) -> int:
    if not isinstance(plan, FusionPlan):
        return multiply_adds(plan.candidate, plan.statistics)
    width, tasks = plan.width, len(plan.statistics.tasks)
    total = plan.head_width * tasks
    if plan.field_factors is not None:
        total += plan.fields_width
    if "projection" in plan.layers:
        total += plan.layers["projection"][0].product(domain).multiply_adds
    for unit in range(tasks if plan.per_task else 1):
        for component in (*plan.components, plan.output):
            for part in component.parts:
                count = len(part.sources)
                if part.operator == "concat" and component.name not in plan.folded:
                    total += _layer(plan, f"{component.name}_concat", unit, domain)
                elif part.operator == "attention":
                    total += count * (2 * width * width + width)
                elif part.operator == "product":
                    total += (count - 1) * width
            if component.deep:
                total += _layer(plan, component.name, unit, domain)
                total += width * (width + plan.candidate.embedding) if plan.prunes_neurons else 0
            elif component is not plan.output:
                total += CROSS[plan.candidate.cross].cost(width, plan.token)
    return total


def _layer(plan: FusionPlan, name: str, unit: int, domain: int) -> int:
    several = plan.layers[name]
    layer = several[min(unit, len(several) - 1)]
    return layer.product(domain).multiply_adds + (plan.width if layer.factors is not None else 0)


def searched(plan: Plan, network: Network, weights: Weights) -> list[Footprint]:
    """Of every exported domain, then of unknown ones, in the searched network: whole matrices under masks."""
    statistics, numbers = network.statistics, plan.scope.numbers
    known = [*ranks(network.candidates[0], statistics.domain_rows), 0]
    costs = _searched_multiply_adds(plan, network)
    masks = 0 if weights.masks is None else weights.masks.shape[2]
    found = []
    for number in (*numbers, len(statistics.domains)):
        parameters = round(sum(_used(network, name, known[number]) for name in network.layout.weights))
        if number == len(statistics.domains) and plan.candidate.backbone in ("mmoe", "ple"):
            own = [name for name in network.layout.weights if _is_own(plan.candidate.backbone, name)]
            parameters += round(sum(_used(network, name, 0) for name in own)) * (len(statistics.domains) - 1)
        found.append(Footprint(parameters, 4 * parameters + masks, costs[number]))
    return found


def _searched_multiply_adds(plan: Plan, network: Network) -> list[int]:
    statistics, candidate = network.statistics, plan.candidate
    if not isinstance(network, FusionNetwork):
        return [multiply_adds(candidate, statistics)] * (len(statistics.domains) + 1)
    costs = open_multiply_adds(candidate, statistics, {})
    costs.append(open_multiply_adds(candidate.replace(rank=0, rank_divisor=0, domain_ranks=None), statistics, {})[0])
    if isinstance(plan, FusionPlan) and plan.per_task:
        once = projection_cost(candidate, statistics)[0] + plan.width * len(statistics.tasks)
        costs = [once + (cost - once) * len(statistics.tasks) for cost in costs]
    return costs


def _used(network: Network, name: str, rank: int) -> float:
    """How many numbers of a dense weight a row reads whose domain's adapter has this rank."""
    shape, backbone = network.layout.weights[name].shape, network.candidates[0].backbone
    if name.endswith(".lora.bias"):
        return shape[1] if rank else 0
    if ".lora." in name:
        return rank * (shape[1] if name.endswith(".A") else shape[2])
    size = network.layout.weights[name].size
    return size / len(network.statistics.domains) if _is_own(backbone, name) else size


def _is_own(backbone: str, name: str) -> bool:
    """Whether every domain of a multi-domain network has this map of its own."""
    return any(part in f".{name}" for part in _OWN.get(backbone, ()))


def compared(plan: Plan, state: Mapping[str, Tensor], network: Network, weights: Weights) -> dict[str, Any]:
    """Both for every domain, and of the whole; JSON-ready."""
    names = [*plan.statistics.domains, UNKNOWN]
    pairs = zip(names, searched(plan, network, weights), exported(plan, state), strict=True)
    held = {
        "before": _bytes(network, weights),
        "after": sum(tensor.numel() * tensor.element_size() for tensor in state.values()),
    }
    domains = [
        {"domain": name, "before": dataclasses.asdict(before), "after": dataclasses.asdict(after)}
        for name, before, after in pairs
    ]
    return {"bytes": held, "tables": _table_bytes(plan, state, network, weights), "domains": domains}


def _table_bytes(plan: Plan, state: Mapping[str, Tensor], network: Network, weights: Weights) -> dict[str, int]:
    before = weights.table.numel() + sum(table.numel() for table in network.embedding.tables)
    after = [state[name] for name in tables(plan, state)]
    return {"before": 4 * before, "after": sum(tensor.numel() * tensor.element_size() for tensor in after)}


def _bytes(network: Network, weights: Weights) -> int:
    """Of the searched network: numbers in float32 and masks in a byte each."""
    numbers = weights.flat.numel() + weights.running.numel() + weights.table.numel()
    numbers += sum(table.numel() for table in network.embedding.tables)
    return 4 * numbers + (0 if weights.masks is None else weights.masks.numel())
