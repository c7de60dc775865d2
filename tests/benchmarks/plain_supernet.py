"""OptFusion's supernet as one would write it from the paper: modules, one loop over nodes, operators and inputs.

The equations are those of ``autoctr.model.fusion``; nothing is batched, skipped or shared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gate(torch.autograd.Function):
    """1 where the logit is above 0, else 0; the gradient passes."""

    @staticmethod
    def forward(ctx: object, logits: Tensor) -> Tensor:
        return (logits > 0).float()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]


class Node(nn.Module):
    """Four operators over gated inputs, mixed by a softmax."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.full((inputs,), 0.5))
        self.mixture = nn.Parameter(torch.zeros(4))
        self.concat = nn.Linear(inputs * width, width)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(inputs)])
        self.score = nn.ModuleList([nn.Linear(width, width) for _ in range(inputs)])

    def forward(self, inputs: list[Tensor]) -> Tensor:
        gates = Gate.apply(self.gates)
        gated = [gate * x for gate, x in zip(gates, inputs, strict=True)]
        product = attention = None
        for gate, x, open_x, hidden, score in zip(gates, inputs, gated, self.hidden, self.score, strict=True):
            factor = gate * x + (1 - gate)
            product = factor if product is None else product * factor
            part = torch.softmax(score(torch.relu(hidden(open_x))), -1) * open_x
            attention = part if attention is None else attention + part
        results = [sum(gated), product, self.concat(torch.cat(gated, -1)), attention * inputs[0].shape[-1]]
        return sum(share * result for share, result in zip(torch.softmax(self.mixture, 0), results, strict=True))


class PlainSupernet(nn.Module):
    """Blocks of a cross and a deep component, each behind a node, and an output node.

    Args:
        ids: of all fields together.
    """

    def __init__(self, ids: int, fields: int, embedding: int, width: int, blocks: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ids, embedding)
        nn.init.normal_(self.embedding.weight, std=0.01)
        self.projection = nn.Linear(fields * embedding, width)
        self.first_cross, self.first_bias = nn.Linear(width, 1, bias=False), nn.Parameter(torch.zeros(width))
        counts = [2 * block for block in range(1, blocks + 1)]
        self.nodes = nn.ModuleList([nn.ModuleList([Node(count, width), Node(count, width)]) for count in counts])
        self.crosses = nn.ModuleList([nn.Linear(width, 1, bias=False) for _ in range(blocks)])
        self.biases = nn.ParameterList([torch.zeros(width) for _ in range(blocks)])
        self.deep = nn.ModuleList([nn.Linear(width, width) for _ in range(blocks)])
        self.out = Node(2 * blocks + 2, width)
        self.head = nn.Linear(width, 1)

    def forward(self, ids: Tensor) -> Tensor:
        x0 = self.projection(self.embedding(ids).flatten(1))
        values = [x0, x0 * self.first_cross(x0) + self.first_bias + x0]
        for (cross, deep), weight, bias, layer in zip(self.nodes, self.crosses, self.biases, self.deep, strict=True):
            f, g = cross(values), deep(values)
            values = [*values, x0 * weight(f) + bias + f, torch.relu(layer(g))]
        return self.head(self.out(values))[:, 0]


class PlainTraining:
    """Its steps: one Adam over all weights, embeddings included."""

    def __init__(self, network: PlainSupernet, rate: float) -> None:
        self.network = network
        self.optimiser = torch.optim.Adam(network.parameters(), lr=rate)

    def step(self, ids: Tensor, labels: Tensor) -> None:
        loss = nn.functional.binary_cross_entropy_with_logits(self.network(ids), labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
