"""How near a training step comes to what the machine can do: its operations and bytes over measured ceilings."""

from __future__ import annotations

import argparse

import torch
from cohorts import PLAIN
from rows import FIELDS, batch, statistics
from supernets import IDS, LEARNING, ROWS
from timing import seconds

from autoctr.model.architecture import full
from autoctr.model.build import multiply_adds
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort

#: Adam reads weight, gradient and both moments, and writes weight and both moments.
ADAM_PASSES = 7


def limits(arguments: argparse.Namespace) -> None:
    """A plain network and a supernet: the time of a step, and the least that its products and its bytes need."""
    kind = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    for size in (1,) if arguments.device == "cpu" else (1, 32):
        rate, bandwidth = _product_rate(size, kind, arguments.device), _bandwidth(arguments.device)
        print(f"products {rate / 1e9:,.0f} GFLOP/s, copies {bandwidth / 1e9:,.1f} GB/s")
        for name, candidate in (("plain network", PLAIN), ("supernet", LEARNING)):
            _report(name, size, candidate.replace(precision=arguments.precision), rate, bandwidth, arguments.device)


def _report(name: str, size: int, candidate: Candidate, rate: float, bandwidth: float, device: str) -> None:
    known = statistics(IDS)
    cohort = Cohort(known, [candidate.replace(seed=seed) for seed in range(size)], {}, ramp=1, device=device)
    rows = batch(known, ROWS, 0, device)
    relaxed = candidate.wiring is None
    taken = seconds({"step": lambda: cohort.step(rows, wire=relaxed)}, rounds=20)["step"]
    per_row = _supernet_cost(candidate, known) if relaxed else multiply_adds(candidate, known)
    operations = 3 * 2 * per_row * ROWS * size
    # of the activations no more than the embeddings is sure to pass through memory: there, back, and its gradient
    moved = 4 * (ADAM_PASSES * cohort.flat.numel() + (ADAM_PASSES + 3) * FIELDS * candidate.embedding * ROWS * size)
    products, memory = operations / rate, moved / bandwidth
    print(
        f"{name}, {size} of them, {candidate.precision}: {1000 * taken:.2f} ms for {ROWS} rows, "
        f"{size * ROWS / taken:,.0f} members' rows/s; its products need {1000 * products:.2f} ms "
        f"({100 * products / taken:.0f} %), weights and rows {1000 * memory:.2f} ms ({100 * memory / taken:.0f} %)"
    )


def _supernet_cost(candidate: Candidate, known: object) -> int:
    """Multiply-adds per row with every input open and every operator computed."""
    wiring = full(candidate.blocks)
    every = [node.__class__(node.open, (0.25, 0.25, 0.25, 0.25)) for node in wiring.nodes]
    return multiply_adds(candidate.replace(wiring=wiring.__class__(tuple(every))), known)  # type: ignore[arg-type]


def _product_rate(size: int, kind: torch.dtype, device: str) -> float:
    """Floating point operations per second of the products that the networks are made of."""
    width = LEARNING.width
    left = torch.randn(size, ROWS, width, device=device).to(kind)
    right = torch.randn(size, width, width, device=device).to(kind)
    taken = seconds({"product": lambda: [torch.bmm(left, right) for _ in range(10)]})["product"] / 10
    return 2 * left.numel() * width / taken


def _bandwidth(device: str) -> float:
    """Bytes per second that a copy reads and writes."""
    source = torch.zeros(64 << 20, device=device)
    target = torch.empty_like(source)
    taken = seconds({"copy": lambda: target.copy_(source)}, rounds=10)["copy"]
    return 2 * 4 * source.numel() / taken
