"""Data parallel training: processes that hold the same weights have a share of the rows of every batch (torchrun).

What mixes rows, which is the loss, batch normalisation and the pruners' shares of closed neurons, sums over the
processes, and so do the gradients: the steps are those of one process, but for the order in which numbers are added.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from autoctr.errors import UserError
from autoctr.model.network import Batch, Share
from autoctr.model.segments import Segments


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return summed(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return summed(gradients[0])


def total(values: Tensor) -> Tensor:
    """The sum over the processes; its gradient is the sum of theirs."""
    result: Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]
    return result


def summed(values: Tensor) -> Tensor:
    """The sum over the processes, without gradient."""
    values = values.detach().contiguous().clone()
    distributed.all_reduce(values)
    return values


def of_first(values: Tensor) -> Tensor:
    """What the first process has, lest rounding lets the processes decide differently."""
    distributed.broadcast(values, 0)
    return values


def count() -> int:
    """How many processes train together; 1 without torchrun."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return count() == 1 or distributed.get_rank() == 0


def part_of(batch: Batch) -> Batch:
    """This process's share of a batch: neighbouring rows, about as many for each."""
    size, rank, rows = count(), distributed.get_rank(), len(batch)
    first, last = rows * rank // size, rows * (rank + 1) // size
    mine, segments = slice(first, last), batch.segments
    bounds = [min(max(bound, first), last) - first for bound in segments.bounds]
    return Batch(
        batch.ids[mine],
        batch.numbers[mine],
        batch.vectors[mine],
        batch.labels[mine],
        Segments(segments.domain[mine], segments.domains, batch.numbers.dtype, bounds),
        Share(first, rows, total),
    )


def is_launched() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def together(device: str) -> Iterator[torch.device]:
    """Join the processes that torchrun has started; yields this one's device.

    Raises:
        UserError: if there are fewer GPUs than processes.
    """
    if not is_launched():
        yield torch.device(device)
        return
    local, place = int(os.environ["LOCAL_RANK"]), torch.device(device)
    if place.type == "cuda":
        if local >= torch.cuda.device_count():
            present = torch.cuda.device_count()
            raise UserError(
                f"torchrun has started process {local + 1} here, where {present} GPUs are; start as many as there are "
                "with --nproc-per-node"
            )
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield place
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process of the machine do this before the others do it."""
    waits = count() > 1 and int(os.environ["LOCAL_RANK"]) > 0
    if waits:
        distributed.barrier()
    yield
    if count() > 1 and not waits:
        distributed.barrier()
