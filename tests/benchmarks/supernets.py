"""The relaxed supernet beside a plain one of the same equations, and the discrete network beside the supernet."""

from __future__ import annotations

import argparse

import torch
from plain_supernet import Node as PlainNode
from plain_supernet import PlainSupernet, PlainTraining
from rows import FIELDS, batch, statistics
from timing import seconds

from autoctr.model.architecture import ADD, CONCAT, Architecture, Node, one_hot, producers
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
    """Rows per second of both, in turns; the plain one is always in float32."""
    known = statistics(IDS)
    ours = Cohort(known, [LEARNING.replace(precision=arguments.precision)], {}, ramp=1, device=arguments.device)
    network = PlainSupernet(known.vocabulary, FIELDS, EMBEDDING, WIDTH, BLOCKS).to(arguments.device)
    plain, rows = PlainTraining(network, 1e-3), batch(known, ROWS, 0, arguments.device)
    ids, labels = rows.ids.long(), rows.labels[:, 0]
    _copy(ours, network)
    found = ours.network.forward(ours.flat, ours.table, rows.ids, rows, architecture=ours.architecture).logits[0, :, 0]
    torch.testing.assert_close(network(ids), found, rtol=1e-4, atol=1e-5)
    taken = seconds({"autoctr": lambda: ours.step(rows, wire=True), "plain": lambda: plain.step(ids, labels)})
    speeds = {name: ROWS / value for name, value in taken.items()}
    print(
        f"supernet of {BLOCKS} blocks at width {WIDTH}, batch {ROWS}, {arguments.precision}: "
        f"{speeds['autoctr']:,.0f} rows/s, plain modules "
        f"{speeds['plain']:,.0f} rows/s: {speeds['autoctr'] / speeds['plain']:.2f}x"
    )


@torch.no_grad()
def _copy(cohort: Cohort, plain: PlainSupernet) -> None:
    """The cohort's weights for the plain network, so that both can be seen to compute the same."""
    weights = {name: view[0] for name, view in cohort.network.layout.views(cohort.flat).items()}

    def linear(target: torch.nn.Linear, name: str) -> None:
        target.weight.copy_(weights[f"{name}.weight"].T)
        if target.bias is not None:
            target.bias.copy_(weights[f"{name}.bias"])

    def node(target: PlainNode, name: str, count: int) -> None:
        sources = producers(BLOCKS)[:count]
        target.concat.weight.copy_(torch.cat([weights[f"{name}.concat.{source}.weight"] for source in sources]).T)
        target.concat.bias.copy_(weights[f"{name}.concat.bias"])
        for hidden, score, source in zip(target.hidden, target.score, sources, strict=True):
            linear(hidden, f"{name}.attention.{source}.hidden")
            linear(score, f"{name}.attention.{source}.score")

    plain.embedding.weight.copy_(cohort.table[:, 0])
    linear(plain.projection, "projection")
    crosses, biases = [plain.first_cross, *plain.crosses], [plain.first_bias, *plain.biases]
    for number, (cross, bias) in enumerate(zip(crosses, biases, strict=True)):
        linear(cross, f"C{number}")
        bias.copy_(weights[f"C{number}.bias"])
    for number, ((first, second), layer) in enumerate(zip(plain.nodes, plain.deep, strict=True), start=1):
        node(first, f"C{number}", 2 * number)
        node(second, f"D{number}", 2 * number)
        linear(layer, f"D{number}")
    node(plain.out, "O", 2 * BLOCKS + 2)
    linear(plain.head, "head.click")


def discrete(arguments: argparse.Namespace) -> None:
    """Rows per second of a discrete network of the same width, in turns with its supernet."""
    known = statistics(IDS)
    learning = LEARNING.replace(precision=arguments.precision)
    relaxed = Cohort(known, [learning], {}, ramp=1, device=arguments.device)
    fixed = Cohort(known, [learning.replace(wiring=FOUND)], {}, ramp=1, device=arguments.device)
    rows = batch(known, ROWS, 0, arguments.device)
    taken = seconds({"discrete": lambda: fixed.step(rows), "supernet": lambda: relaxed.step(rows, wire=True)})
    speeds = {name: ROWS / value for name, value in taken.items()}
    print(
        f"discrete network: {speeds['discrete']:,.0f} rows/s, its supernet {speeds['supernet']:,.0f} rows/s: "
        f"{speeds['discrete'] / speeds['supernet']:.2f}x"
    )
