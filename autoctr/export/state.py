"""The weights of a trained member under the names of the generated model: what all families share.

Weights of maps are [outputs, inputs], as in ``nn.Linear``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autoctr.export.plan import Plan, pooled_by_attention
from autoctr.model.embedding import SnapshotField, SnapshotPool
from autoctr.model.network import Network
from autoctr.training.cohort import Weights

Named = Mapping[str, Tensor]


def dense_weights(network: Network, weights: Weights) -> dict[str, Tensor]:
    """The only member's dense weights under the names of the searched network."""
    return {name: view[0] for name, view in network.layout.views(weights.flat).items()}


def embedding_state(plan: Plan, network: Network, weights: Weights) -> dict[str, Tensor]:
    """Everything up to x0."""
    dense = dense_weights(network, weights)
    state = {"embedding.weight": weights.table[:, 0]}
    if plan.statistics.scaled:
        state["number_weights"] = dense["numbers"]
    for column, (field, table) in enumerate(zip(plan.statistics.vectors, network.embedding.tables, strict=True)):
        if isinstance(field, SnapshotField):
            state[plan.snapshots[field]] = _served(field, network.embedding.pools[column], table)
        else:
            state[plan.vector_names[field.name]] = table
    if network.projected:
        state |= linear_state(dense, "projection", "projection")
    return state


def _served(field: SnapshotField, pool: SnapshotPool, table: Tensor) -> Tensor:
    """The newest snapshots of every id, [M, V, d], or the one vector they are pooled to, [V, d]."""
    ids = torch.arange(pool.size, device=table.device)
    newest = table[-field.window * pool.size :]
    if pooled_by_attention(field):
        return newest.reshape(field.window, pool.size, field.width)
    return pool.pooled(ids, newest)


def linear_state(dense: Named, source: str, target: str) -> dict[str, Tensor]:
    """One dense map, or one per domain in a leading axis."""
    state = {f"{target}.weight": dense[f"{source}.weight"].mT}
    if f"{source}.bias" in dense:
        state[f"{target}.bias"] = dense[f"{source}.bias"]
    return state


def finished(state: Named) -> dict[str, Tensor]:
    """The state as it is saved: numbers float32, all on the CPU."""

    def one(tensor: Tensor) -> Tensor:
        kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return tensor.detach().to("cpu", kind).contiguous()

    return {name: one(tensor) for name, tensor in state.items()}
