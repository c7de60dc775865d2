"""The source of the multi-domain networks MMoE, PLE, STAR and PEPNet as plain PyTorch, one model for each."""

from __future__ import annotations

from autoctr.export.frame import Body, domain_embedding, embedded, module_source, projected, projection
from autoctr.export.plan import Plan
from autoctr.model.ple import expert_counts

_DOMAIN_LINEAR = '''
class DomainLinear(nn.Module):
    """x W_d + b_d for rows of domain d; {unknown}."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(len(DOMAINS) + 1, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(len(DOMAINS) + 1, outputs))

    def forward(self, x: Tensor, rows: dict[int, Tensor]) -> Tensor:
        """Returns: [rows, outputs]."""
        if len(rows) == 1:
            (d,) = rows
            return functional.linear(x, self.weight[d], self.bias[d])
        out = x.new_zeros(x.shape[0], self.bias.shape[1])
        for d, own in rows.items():
            out.index_copy_(0, own, functional.linear(x.index_select(0, own), self.weight[d], self.bias[d]))
        return out
'''

_MEAN = "the last are the mean of all trained domains', for unknown ones"
_UNSHARED = "the last are the shared ones alone, for unknown domains"

_MIXTURE = '''
def mixture(experts: Tensor, gate: Tensor) -> Tensor:
    """Σ_e softmax(gate)_e · expert_e.

    Args:
        experts: [rows, experts, WIDTH].
        gate: [rows, experts].

    Returns: [rows, WIDTH].
    """
    return (torch.softmax(gate, dim=1)[:, :, None] * experts).sum(1)
'''

_EXPERT = '''
class Expert(nn.Module):
    """LAYERS times relu(x W + b)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x
'''

_EXPERTS = '''
class Experts(nn.Module):
    """The experts of one level, relu(x W + b) each: the domain's own read ``own``, the others ``shared``."""

    def __init__(self) -> None:
        super().__init__()
        self.own = DomainLinear(WIDTH, OWN * WIDTH)
        self.shared = nn.Linear(WIDTH, SHARED * WIDTH)

    def forward(self, own: Tensor, shared: Tensor, rows: dict[int, Tensor]) -> Tensor:
        """Returns: [rows, OWN + SHARED, WIDTH]."""
        neurons = torch.cat([self.own(own, rows), self.shared(shared)], dim=1)
        return torch.relu(neurons).unflatten(1, (OWN + SHARED, WIDTH))
'''

_GATE = '''
class Gate(nn.Module):
    """2 σ(relu(x U + u) V + v), a factor for every neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(EMBEDDING + WIDTH, {hidden})
        self.scale = nn.Linear({hidden}, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Returns: [rows, WIDTH], in (0, 2)."""
        return 2 * torch.sigmoid(self.scale(torch.relu(self.hidden(x))))
'''

_TOWER = ["self.tower = DomainLinear(WIDTH, WIDTH)", "self.head = DomainLinear(WIDTH, len(TASKS))"]


def multidomain_source(plan: Plan) -> str:
    """Python source of a module with the class ``Model``."""
    bodies = {"mmoe": _mmoe, "ple": _ple, "star": _star, "pepnet": _pepnet}
    return module_source(plan, bodies[plan.candidate.backbone](plan))


def _mmoe(plan: Plan) -> Body:
    return Body(
        title=[
            "MMoE with a gate and a tower per domain (Ma et al., KDD 2018): experts for all domains, mixed by the gate",
            "of the row's domain, then the domain's tower.",
        ],
        constants=[
            f"EXPERTS = {plan.candidate.experts}",
            f"LAYERS = {plan.candidate.blocks}  # of an expert",
        ],
        definitions=[_DOMAIN_LINEAR.format(unknown=_MEAN), _MIXTURE, _EXPERT],
        layers=[
            *projection(plan),
            "self.experts = nn.ModuleList(Expert() for _ in range(EXPERTS))",
            "self.gate = DomainLinear(WIDTH, EXPERTS)",
            *_TOWER,
        ],
        compute=[
            f"e = {projected(plan, embedded(plan))}",
            "experts = torch.stack([expert(e) for expert in self.experts], dim=1)",
            "mixed = mixture(experts, self.gate(e, rows))",
        ],
        logits="self.head(torch.relu(self.tower(mixed, rows)), rows)",
    )


def _ple(plan: Plan) -> Body:
    own, shared = expert_counts(plan.candidate.experts)
    levels = range(1, plan.candidate.blocks + 1)
    layers: list[str] = []
    compute = [f"e = {projected(plan, embedded(plan))}", "own = shared = e"]
    for n in levels:
        layers += [f"self.experts_{n} = Experts()", f"self.gate_{n} = DomainLinear(WIDTH, OWN + SHARED)"]
        compute += [f"experts = self.experts_{n}(own, shared, rows)"]
        mixed = f"mixture(experts, self.gate_{n}(own, rows))"
        if n < len(levels):
            layers.append(f"self.shared_gate_{n} = nn.Linear(WIDTH, OWN + SHARED)")
            compute.append(f"own, shared = {mixed}, mixture(experts, self.shared_gate_{n}(shared))")
        else:
            compute.append(f"own = {mixed}")
    return Body(
        title=[
            "PLE with experts and a tower per domain (Tang et al., RecSys 2020): on every level the gate of the row's",
            "domain mixes the domain's own and the shared experts, then follows the domain's tower.",
        ],
        constants=[
            f"OWN = {own}  # experts of a domain on each level",
            f"SHARED = {shared}  # experts of all domains on each level",
        ],
        definitions=[_DOMAIN_LINEAR.format(unknown=_MEAN), _MIXTURE, _EXPERTS],
        layers=[*projection(plan), *layers, *_TOWER],
        compute=compute,
        logits="self.head(torch.relu(self.tower(own, rows)), rows)",
    )


def _star(plan: Plan) -> Body:
    return Body(
        title=[
            "STAR (arXiv 2101.11427): layers whose weights are shared ones times the domain's (here their product),",
            "and an auxiliary network without domains, whose logit is added.",
        ],
        constants=[f"LAYERS = {plan.candidate.blocks}"],
        definitions=[_DOMAIN_LINEAR.format(unknown=_UNSHARED)],
        layers=[
            *projection(plan),
            "self.layers = nn.ModuleList(DomainLinear(WIDTH, WIDTH) for _ in range(LAYERS))",
            "self.head = DomainLinear(WIDTH, len(TASKS))",
            "self.auxiliary = nn.Linear(WIDTH, WIDTH)",
            "self.auxiliary_head = nn.Linear(WIDTH, len(TASKS))",
        ],
        compute=[
            f"e = {projected(plan, embedded(plan))}",
            "h = e",
            "for layer in self.layers:",
            "    h = torch.relu(layer(h, rows))",
        ],
        logits="self.head(h, rows) + self.auxiliary_head(torch.relu(self.auxiliary(e)))",
    )


def _pepnet(plan: Plan) -> Body:
    return Body(
        title=[
            "PEPNet (arXiv 2302.01115): gates of the row's domain and fields scale the embedded fields and the neurons",
            "of every layer.",
        ],
        constants=[f"LAYERS = {plan.candidate.blocks}"],
        definitions=[_GATE.format(hidden=plan.shapes["embedding.gate.hidden.weight"][1])],
        layers=[
            *projection(plan),
            "self.embedding_gate = Gate()",
            "self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))",
            "self.gates = nn.ModuleList(Gate() for _ in range(LAYERS))",
            "self.head = nn.Linear(WIDTH, len(TASKS))",
        ],
        compute=[
            domain_embedding(plan),
            f"e = {projected(plan, embedded(plan))}",
            "h = e * self.embedding_gate(torch.cat([domain_embedding, e], dim=1))",
            "source = torch.cat([domain_embedding, h], dim=1)",
            "for layer, gate in zip(self.layers, self.gates, strict=True):",
            "    h = torch.relu(layer(h)) * gate(source)",
        ],
        logits="self.head(h)",
    )
