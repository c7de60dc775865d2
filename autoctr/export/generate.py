"""The generated model of a trained member, whatever the family of its network: its plan, source and weights."""

from __future__ import annotations

import torch
from torch import Tensor

from autoctr.export.fusion_plan import FusionPlan, fusion_plan
from autoctr.export.fusion_source import fusion_source
from autoctr.export.fusion_state import fusion_state
from autoctr.export.multidomain_source import multidomain_source
from autoctr.export.multidomain_state import multidomain_state
from autoctr.export.plan import Plan, sizes
from autoctr.export.rounding import Stored
from autoctr.export.scope import Scope
from autoctr.export.state import finished
from autoctr.model.fusion import FusionNetwork
from autoctr.model.network import Network
from autoctr.training.cohort import Weights


def model_plan(network: Network, weights: Weights, scope: Scope, stored: Stored = "fp32") -> Plan:
    """What the generated model consists of.

    Args:
        scope: the domains it holds. stored: the type of the numbers in its embedding rows and frozen vectors.

    Raises:
        ValueError: for a supernet or several members.
    """
    if isinstance(network, FusionNetwork):
        return fusion_plan(network, weights, scope, stored)
    return Plan(**sizes(network, scope, (), stored), reads_domain=network.candidates[0].backbone != "pepnet")


def model_source(plan: Plan) -> str:
    """Python source of a module with the class ``Model``."""
    return fusion_source(plan) if isinstance(plan, FusionPlan) else multidomain_source(plan)


def model_state(
    plan: Plan, network: Network, weights: Weights, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The state of the generated model on the CPU, its numbers ``dtype`` where they are not stored in fewer bits."""
    if isinstance(plan, FusionPlan):
        assert isinstance(network, FusionNetwork)
        return finished(fusion_state(plan, network, weights), dtype)
    return finished(multidomain_state(plan, network, weights), dtype)
