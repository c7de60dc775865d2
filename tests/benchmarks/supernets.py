"""The relaxed supernet beside a plain one of the same equations, and the discrete network beside the supernet."""

from __future__ import annotations

import argparse

from plain_supernet import PlainSupernet, PlainTraining
from rows import FIELDS, batch, statistics
from timing import seconds

from autoctr.model.architecture import ADD, CONCAT, Architecture, Node, one_hot
from autoctr.model.architecture import inputs as input_counts
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort

ROWS, IDS, BLOCKS, WIDTH, EMBEDDING = 4096, 20_000, 3, 128, 16
LEARNING = Candidate(
    embedding=EMBEDDING, width=WIDTH, blocks=BLOCKS, cross="vector", architecture="learn", averaging=0.0, batch=ROWS
)
#: What a read-out typically leaves: about two inputs a node, one CONCAT, the rest ADD.
FOUND = Architecture(
    tuple(
        Node(tuple(u >= count - 2 for u in range(count)), one_hot(CONCAT if count == 2 * BLOCKS + 2 else ADD))
        for count in input_counts(BLOCKS)
    )
)


def supernet(arguments: argparse.Namespace) -> None:
    """Rows per second of both in float32, in turns."""
    known = statistics(IDS)
    ours = Cohort(known, [LEARNING], {}, ramp=1, device=arguments.device)
    network = PlainSupernet(known.vocabulary, FIELDS, EMBEDDING, WIDTH, BLOCKS).to(arguments.device)
    plain, rows = PlainTraining(network, 1e-3), batch(known, ROWS, 0, arguments.device)
    ids, labels = rows.ids.long(), rows.labels[:, 0]
    taken = seconds({"autoctr": lambda: ours.step(rows, wire=True), "plain": lambda: plain.step(ids, labels)})
    speeds = {name: ROWS / value for name, value in taken.items()}
    print(
        f"supernet of {BLOCKS} blocks at width {WIDTH}, batch {ROWS}: {speeds['autoctr']:,.0f} rows/s, plain modules "
        f"{speeds['plain']:,.0f} rows/s: {speeds['autoctr'] / speeds['plain']:.2f}x"
    )


def discrete(arguments: argparse.Namespace) -> None:
    """Rows per second of a discrete network of the same width, in turns with its supernet."""
    known = statistics(IDS)
    relaxed = Cohort(known, [LEARNING], {}, ramp=1, device=arguments.device)
    fixed = Cohort(known, [LEARNING.replace(wiring=FOUND)], {}, ramp=1, device=arguments.device)
    rows = batch(known, ROWS, 0, arguments.device)
    taken = seconds({"discrete": lambda: fixed.step(rows), "supernet": lambda: relaxed.step(rows, wire=True)})
    speeds = {name: ROWS / value for name, value in taken.items()}
    print(
        f"discrete network: {speeds['discrete']:,.0f} rows/s, its supernet {speeds['supernet']:,.0f} rows/s: "
        f"{speeds['discrete'] / speeds['supernet']:.2f}x"
    )
