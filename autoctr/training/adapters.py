"""After a fit: how much rank each domain's adapter needs (MLoRA, arXiv 2408.08913)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from autoctr.data.dataset import Dataset
from autoctr.model.candidate import ranks
from autoctr.model.fusion import FusionNetwork
from autoctr.training.cohort import Cohort
from autoctr.training.rows import ResidentRows

TOLERANCE = 1e-4


def adapted(cohort: Cohort) -> bool:
    """Whether the network of ``cohort`` has adapters."""
    return isinstance(cohort.network, FusionNetwork) and cohort.network.adapters is not None


def low_rank(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The closest product of the given rank to a b, by its singular values, as balanced factors.

    Args:
        a: [..., inputs, R]. b: [..., R, outputs].

    Returns: [..., inputs, rank] and [..., rank, outputs]; zeros past the last singular value.
    """
    # a b = Q_a (R_a R_bᵀ) Q_bᵀ: the small matrix in the middle has the same singular values
    qa, ra = torch.linalg.qr(a)
    qb, rb = torch.linalg.qr(b.mT)
    u, s, vt = torch.linalg.svd(ra @ rb.mT, full_matrices=False)
    root = s[..., :rank].sqrt()
    left, right = (qa @ u[..., :rank]) * root[..., None, :], root[..., :, None] * (vt[..., :rank, :] @ qb.mT)
    missing = rank - root.shape[-1]
    return functional.pad(left, (0, missing)), functional.pad(right, (0, 0, 0, missing))


def truncated(cohort: Cohort, wanted: list[int], dataset: Dataset) -> Cohort:
    """``cohort``'s only member with its adapters cut to the ``wanted`` rank of every domain.

    A domain of rank 0 loses its adapter, bias included.
    """
    candidate = cohort.network.candidates[0]
    member = candidate.replace(domain_ranks=tuple(wanted), truncate=False)
    network, given = cohort.network, cohort.weights()
    options = {"dtype": network.dtype, "device": network.device}
    cut = Cohort.on(dataset, [member], start=cohort, masks=given.masks, **options)
    views, sources = cut.network.layout.views(cut.flat), network.layout.views(given.flat)
    for name in list(views):
        if not name.endswith(".lora.A"):
            continue
        a, b = views[name][0], views[name.replace(".lora.A", ".lora.B")][0]
        full_a, full_b = sources[name][0], sources[name.replace(".lora.A", ".lora.B")][0]
        a.zero_()
        b.zero_()
        for domain, rank in enumerate(wanted):
            left, right = low_rank(full_a[domain].double(), full_b[domain].double(), rank)
            a[domain, :, :rank] = left.to(a.dtype)
            b[domain, :rank] = right.to(b.dtype)
    return cut


def domain_losses(cohort: Cohort, rows: ResidentRows) -> Tensor:
    """Mean log-loss of every domain, float64 [D]; NaN for a domain without rows."""
    logits = cohort.logits(rows)[0].double()
    losses = functional.binary_cross_entropy_with_logits(logits, rows.labels.double(), reduction="none").mean(1)
    zeros = torch.zeros(rows.domains + 1, dtype=torch.float64, device=losses.device)
    counts = torch.bincount(rows.domain, minlength=rows.domains + 1)
    return (zeros.index_add(0, rows.domain, losses) / counts)[: rows.domains]


def smallest_ranks(cohort: Cohort, rows: ResidentRows, dataset: Dataset) -> list[int]:
    """For each domain the smallest rank (0, 1, 2, 4, ... or its own) that keeps its held-out loss within 1e-4.

    Args:
        cohort: one trained member with adapters. rows: held-out rows.
    """
    own = ranks(cohort.network.candidates[0], dataset.statistics.domain_rows)
    found, full = list(own), domain_losses(cohort, rows)
    options = [0, *(2**n for n in range(max(own).bit_length()) if 2**n < max(own))]
    for rank in reversed(options):
        losses = domain_losses(truncated(cohort, [min(rank, r) for r in own], dataset), rows)
        keeps = (losses <= full + TOLERANCE) | losses.isnan()
        found = [min(rank, r) if keep else r for keep, r in zip(keeps.tolist(), found, strict=True)]
    return found
