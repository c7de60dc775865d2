"""Which class computes a candidate's network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from autoctr.data.statistics import Statistics
from autoctr.model.candidate import Candidate
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
