"""In which rows a label after the first, such as a conversion after a click, is defined."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TASK_SPACES = ("all", "clicked", "esmm")


def entire_space(logits: Tensor) -> Tensor:
    """Logits of p_0 p_t for every task t after the first, from logits of p_0 and of p_t given the first label.

    ESMM (arXiv 1804.07931): a conversion's chance given a click is learned over all rows, through the product, so that
    rows without a click count as well.

    Args:
        logits: [K, B, tasks].

    Returns: [K, B, tasks]; the first task's as they are.
    """
    first, later = functional.logsigmoid(logits[..., :1]), functional.logsigmoid(logits[..., 1:])
    product = (first + later).clamp(max=-torch.finfo(logits.dtype).eps)
    return torch.cat([logits[..., :1], product - torch.log(-torch.expm1(product))], -1)


def counted_rows(space: str, labels: Tensor) -> Tensor | None:
    """Which rows each task is learned from and scored on: for ``clicked`` those whose first label is 1.

    Args:
        labels: [B, tasks].

    Returns: [B, tasks] of 0 and 1; None = all.
    """
    if space != "clicked":
        return None
    return torch.cat([torch.ones_like(labels[:, :1]), labels[:, :1].expand(-1, labels.shape[1] - 1)], 1)
