"""STAR: a network per domain whose weights are shared ones times the domain's (arXiv 2101.11427)."""

from __future__ import annotations

from torch import Tensor

from autoctr.data.statistics import Statistics
from autoctr.model.candidate import Candidate
from autoctr.model.domain_linear import domain_products
from autoctr.model.linear import declare_linear, linear
from autoctr.model.network import Inputs, Network, Pass, projection_cost
from autoctr.model.parameters import Views, constant, zeros
from autoctr.model.segments import Segments


class STAR(Network):
    """L layers relu(x (W ⊙ W_d) + b + b_d) and such a linear logit per task, plus an auxiliary network's logit.

    W_d starts at 1 and b_d at 0, which is also what rows of an unknown domain use. The auxiliary network is a hidden
    layer and a linear logit per task on x0, which holds the domain's embedding. There is no partitioned
    normalisation: these networks have no batch normalisation.
    """

    def declare(self) -> None:
        """Shared and domains' weights of every layer, and the auxiliary network."""
        domains, width, tasks = len(self.statistics.domains), self.width, len(self.statistics.tasks)
        for name, outputs in [*((f"layer.{n}", width) for n in range(1, self.blocks + 1)), ("head", tasks)]:
            declare_linear(self.layout, name, width, outputs)
            self.layout.add(f"{name}.domain.weight", (domains, width, outputs), constant(1.0))
            self.layout.add(f"{name}.domain.bias", (domains, outputs), zeros)
        declare_linear(self.layout, "auxiliary.hidden", width, width)
        declare_linear(self.layout, "auxiliary.head", width, tasks)

    def body(self, weights: Views, inputs: Inputs) -> Pass:
        """Logits [K, B, tasks]."""
        h, segments = inputs.x0, inputs.batch.segments
        for n in range(1, self.blocks + 1):
            h = self.dropped(_star(weights, f"layer.{n}", h, segments).relu(), inputs.step, n)
        auxiliary = linear(weights, "auxiliary.hidden", inputs.x0).relu()
        auxiliary = self.dropped(auxiliary, inputs.step, self.blocks + 1)
        return Pass(_star(weights, "head", h, segments) + linear(weights, "auxiliary.head", auxiliary), None)

    @staticmethod
    def multiply_adds(candidate: Candidate, statistics: Statistics) -> int:
        """Multiply-adds per row, without the embedding look-up and the product of the weights, which rows share."""
        projection, width = projection_cost(candidate, statistics)
        return projection + (candidate.blocks + 1) * width * width + 2 * width * len(statistics.tasks)


def _star(weights: Views, name: str, x: Tensor, segments: Segments) -> Tensor:
    """x (W ⊙ W_d) + b + b_d, [K, B, outputs]."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    own, shift = weight[:, None] * weights[f"{name}.domain.weight"], bias[:, None] + weights[f"{name}.domain.bias"]
    return domain_products(x, own, shift, segments, lambda: (weight, bias))
