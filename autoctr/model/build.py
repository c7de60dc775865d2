"""Which class computes a candidate's network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from autoctr.data.statistics import Statistics
from autoctr.model.candidate import Candidate, ranks
from autoctr.model.fusion import FusionNetwork
from autoctr.model.mmoe import MMoE
from autoctr.model.network import Network
from autoctr.model.pepnet import PEPNet
from autoctr.model.ple import PLE
from autoctr.model.star import STAR

BACKBONES: dict[str, type[Network]] = {
    "fusion": FusionNetwork,
    "mmoe": MMoE,
    "ple": PLE,
    "star": STAR,
    "pepnet": PEPNet,
}


def build_network(
    statistics: Statistics,
    candidates: Sequence[Candidate],
    tables: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Network:
    """The network of a cohort; see :class:`Network` for the arguments."""
    return BACKBONES[candidates[0].backbone](statistics, candidates, tables, dtype=dtype, device=device)


def multiply_adds(candidate: Candidate, statistics: Statistics) -> int:
    """Multiply-adds of a candidate's network per row, without the embedding look-up, for the dearest domain."""
    return BACKBONES[candidate.backbone].multiply_adds(candidate, statistics)


def dense_parameters(network: Network) -> int:
    """Weights of the only member without the embedding table: adapters unpadded, what tickets prune included."""
    used = ranks(network.candidates[0], network.statistics.domain_rows)
    total = 0
    for name, weight in network.layout.weights.items():
        if ".lora." not in name:
            total += weight.size
        elif name.endswith(".bias"):
            total += weight.shape[1] * sum(rank > 0 for rank in used)
        else:
            _, first, second = weight.shape
            total += (first if name.endswith(".A") else second) * sum(used)
    return total
