"""The weights of a trained member under the names of the generated model: what all families share.

Weights of maps are [outputs, inputs], as in ``nn.Linear``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autoctr.export.plan import Plan
from autoctr.export.rounding import packed
from autoctr.export.snapshot_tables import served
from autoctr.model.embedding import SnapshotField
from autoctr.model.network import Network
from autoctr.training.cohort import Weights

Named = Mapping[str, Tensor]


def dense_weights(network: Network, weights: Weights) -> dict[str, Tensor]:
    """The only member's dense weights under the names of the searched network."""
    return {name: view[0] for name, view in network.layout.views(weights.flat).items()}


def embedding_state(plan: Plan, network: Network, weights: Weights) -> dict[str, Tensor]:
    """The tables, and the weights of scaled numbers."""
    rows = torch.from_numpy(plan.rows).to(weights.table.device)
    whole = len(rows) == len(weights.table)
    state = _table(plan, "embedding", weights.table[:, 0] if whole else weights.table[rows, 0], module=True)
    scaled = network.statistics.scaled
    if plan.statistics.scaled:
        kept = [column for column, field in enumerate(scaled) if field in plan.statistics.scaled]
        state["number_weights"] = dense_weights(network, weights)["numbers"][kept]
    for column, (field, table) in enumerate(zip(network.statistics.vectors, network.embedding.tables, strict=True)):
        if field not in plan.statistics.vectors:
            continue
        if isinstance(field, SnapshotField):
            state |= _table(plan, plan.snapshots[field], served(field, network.embedding.pools[column], table))
        else:
            state |= _table(plan, plan.vector_names[field.name], table)
    return state


def _table(plan: Plan, name: str, table: Tensor, module: bool = False) -> dict[str, Tensor]:
    """A table as it is stored; ``module``: under a name of its own even if it has no scale."""
    parts = packed(table.float(), plan.stored)
    if len(parts) == 1 and not module:
        return {name: parts["weight"]}
    return {f"{name}.{part}": tensor for part, tensor in parts.items()}


def linear_state(dense: Named, source: str, target: str) -> dict[str, Tensor]:
    """One dense map, or one per domain in a leading axis."""
    state = {f"{target}.weight": dense[f"{source}.weight"].mT}
    if f"{source}.bias" in dense:
        state[f"{target}.bias"] = dense[f"{source}.bias"]
    return state


def finished(state: Named, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The state as it is saved, all on the CPU: half-precision and whole numbers as they are, others ``dtype``."""

    def one(tensor: Tensor) -> Tensor:
        kind = dtype if tensor.dtype in (torch.float32, torch.float64) else tensor.dtype
        return tensor.detach().to("cpu", kind).contiguous()

    return {name: one(tensor) for name, tensor in state.items()}
