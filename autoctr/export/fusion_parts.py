"""The definitions that a generated fusion network is made of: crosses, deep components, adapters, tickets, pruners."""

from __future__ import annotations

from autoctr.export.frame import block
from autoctr.export.fusion_plan import FusionPlan

_VECTOR = '''
class Cross(nn.Module):
    """x0 (x · w) + b + x (DCN, arXiv 1708.05123)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH))
        self.bias = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        return x0 * (x @ self.weight)[:, None] + self.bias + x
'''

_MATRIX = '''
class Cross(nn.Module):
    """x0 ⊙ (x W + b) + x (DCN-v2, arXiv 2008.13535)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        return x0 * self.linear(x) + x
'''

_LOW_RANK = '''
class Cross(nn.Module):
    """x0 ⊙ (x U V + b) + x with a thin U and V (DCN-v2, arXiv 2008.13535)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Linear(WIDTH, {rank}, bias=False)
        self.up = nn.Linear({rank}, WIDTH)

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        return x0 * self.up(self.down(x)) + x
'''

_SELF_ATTENTION = '''
class Cross(nn.Module):
    """relu(heads of softmax(q k / √d) v + x W) at every token of x (AutoInt, arXiv 1810.11921)."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Linear(TOKEN, 4 * TOKEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        tokens = x.unflatten(1, (WIDTH // TOKEN, TOKEN))
        *parts, residual = self.maps(tokens).chunk(4, dim=2)
        query, key, value = (part.unflatten(2, (HEADS, TOKEN // HEADS)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return torch.relu(mixed.transpose(1, 2).flatten(2) + residual).flatten(1)
'''

_FACTORIZATION = '''
class Cross(nn.Module):
    """x0_i ⊙ Σ_{j≠i} x_j + x_i at every token i (factorization machine, ICDM 2010)."""

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        tokens = x.unflatten(1, (WIDTH // TOKEN, TOKEN))
        others = tokens.sum(1, keepdim=True) - tokens
        return x0 * others.flatten(1) + x
'''

_BILINEAR = '''
class Cross(nn.Module):
    """x0_i ⊙ (Σ_{j≠i} x_j W) + x_i at every token i (FiBiNET, arXiv 1905.09433)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(TOKEN, TOKEN, bias=False)

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        tokens = x.unflatten(1, (WIDTH // TOKEN, TOKEN))
        others = tokens.sum(1, keepdim=True) - tokens
        return x0 * self.linear(others).flatten(1) + x
'''

_CROSS = {
    "vector": _VECTOR,
    "matrix": _MATRIX,
    "lowrank": _LOW_RANK,
    "attention": _SELF_ATTENTION,
    "fm": _FACTORIZATION,
    "bilinear": _BILINEAR,
}

_ATTENTION = '''
class Attention(nn.Module):
    """WIDTH · softmax(relu(x W1 + b1) W2 + b2) ⊙ x: one input of an attention node."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.score = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        share = torch.softmax(self.score(torch.relu(self.hidden(x))), dim=1)
        return WIDTH * share * x
'''

_ADAPTERS = '''
class Adapters(nn.Module):
    """x A_d B_d + b_d for rows of domain d (LoRA, MLoRA arXiv 2408.08913).

    0 for a domain without an adapter, such as one that training never showed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleDict({str(d): nn.Linear(WIDTH, rank, bias=False) for d, rank in RANKS.items()})
        self.up = nn.ModuleDict({str(d): nn.Linear(rank, WIDTH) for d, rank in RANKS.items()})

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        out = torch.zeros_like(x)
        for d in present(domain):
            if d in RANKS:
                rows = (domain == d).nonzero().squeeze(1)
                out[rows] = self.up[str(d)](self.down[str(d)](x[rows]))
        return out
'''

_DOMAIN_TICKETS = '''
class TicketLinear(nn.Module):
    """x (m_d ⊙ W){plus_b} with the ticket m_d of the row's domain d (LT4REC, arXiv 2008.09872).

    The last mask is for unknown domains: what any domain keeps.
    """

    masks: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH, WIDTH))
{bias}        self.register_buffer("masks", torch.ones(len(DOMAINS) + 1, WIDTH, WIDTH, dtype=torch.bool))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        out = torch.zeros_like(x)
        for d in present(domain):
            rows = (domain == d).nonzero().squeeze(1)
            out[rows] = functional.linear(x[rows], self.weight * self.masks[d]{argument})
        return out
'''

_TASK_TICKETS = '''
class TicketLinear(nn.Module):
    """x (m_t ⊙ W){plus_b} with the ticket m_t of task t (LT4REC, arXiv 2008.09872)."""

    masks: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDTH, WIDTH))
{bias}        self.register_buffer("masks", torch.ones(len(TASKS), WIDTH, WIDTH, dtype=torch.bool))

    def forward(self, x: Tensor, task: int) -> Tensor:
        """Returns: [rows, WIDTH]."""
        return functional.linear(x, self.weight * self.masks[task]{argument})
'''

_TICKETS = {"domain": _DOMAIN_TICKETS, "task": _TASK_TICKETS}

_FACTORS = {
    "fusion": (
        "π = {beta:g} σ(α v) where that exceeds {epsilon:g}, else 0",
        """    factor = {beta!r} * torch.sigmoid(ALPHA * v)
    return torch.where(factor > {epsilon!r}, factor, 0.0)""",
    ),
    "binarization": (
        "π = 1 where σ(α v) exceeds {epsilon:g}, else 0",
        "    return (torch.sigmoid(ALPHA * v) > {epsilon!r}).to(v.dtype)",
    ),
    "scaling": ("π = {beta:g} σ(v)", "    return {beta!r} * torch.sigmoid(v)"),
}

_FACTORS_FUNCTION = '''
def factors(v: Tensor) -> Tensor:
    """{equation} (AdaSparse, arXiv 2206.13108)."""
{body}
'''

_PRUNER = '''
class Pruner(nn.Module):
    """{verb} neurons per row: π ⊙ h with v = {equation}; e_d is the embedding of the row's domain."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear({inputs}, WIDTH)

    def forward(self, h: Tensor, domain_embedding: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        return h * factors(self.linear({argument}))
'''

_INPUT_PRUNER = '''
class InputPruner(nn.Module):
    """{verb} whole fields per domain: one π per field with v = e_d W + b; e_d is the embedding of the row's domain."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(EMBEDDING, len(FIELD_WIDTHS))

    def forward(self, fields: Tensor, domain_embedding: Tensor) -> Tensor:
        """Returns: the fields side by side, [rows, {fields_width}]."""
        columns = [field for field, width in enumerate(FIELD_WIDTHS) for _ in range(width)]
        return fields * factors(self.linear(domain_embedding))[:, columns]
'''


def definitions(plan: FusionPlan) -> list[str]:
    """Source of every class and function that the network uses, each before its use."""
    return [
        *([_factors(plan)] if plan.prunes else []),
        *([_input_pruner(plan)] if plan.prunes_input else []),
        *([_ADAPTERS] if plan.ranks else []),
        *([_tickets(plan, plan.tickets)] if plan.tickets else []),
        *([_pruner(plan)] if plan.prunes_neurons else []),
        *([_deep(plan)] if plan.has(deep=True) else []),
        *([_cross(plan)] if plan.has(deep=False) else []),
        *([_ATTENTION] if "attention" in plan.operators else []),
    ]


def heads(token: int) -> int:
    """Heads of the self-attention over tokens of ``token`` neurons."""
    return 2 if token % 2 == 0 else 1


def _cross(plan: FusionPlan) -> str:
    text = _CROSS[plan.candidate.cross]
    if plan.candidate.cross != "lowrank":
        return text
    first = next(component.name for component in plan.components if not component.deep)
    return text.format(rank=plan.shapes[f"{first.upper()}.down"][1])


def _factors(plan: FusionPlan) -> str:
    candidate = plan.candidate
    equation, body = (
        text.format(beta=candidate.sparsity_beta, epsilon=candidate.sparsity_epsilon)
        for text in _FACTORS[candidate.sparsity_form]
    )
    return _FACTORS_FUNCTION.format(equation=equation, body=body)


def _verb(plan: FusionPlan) -> str:
    return "Closes" if plan.has_steps else "Scales"


def _input_pruner(plan: FusionPlan) -> str:
    return _INPUT_PRUNER.format(verb=_verb(plan), fields_width=plan.fields_width)


def _pruner(plan: FusionPlan) -> str:
    both = plan.reads_neurons
    return _PRUNER.format(
        verb=_verb(plan),
        equation="[h; e_d] W + b" if both else "e_d W + b",
        inputs="WIDTH + EMBEDDING" if both else "EMBEDDING",
        argument="torch.cat([h, domain_embedding], dim=1)" if both else "domain_embedding",
    )


def _tickets(plan: FusionPlan, unit: str) -> str:
    biased = plan.candidate.norm != "batch"
    return _TICKETS[unit].format(
        plus_b=" + b" if biased else "",
        bias="        self.bias = nn.Parameter(torch.zeros(WIDTH))\n" if biased else "",
        argument=", self.bias" if biased else "",
    )


def _deep(plan: FusionPlan) -> str:
    norm = plan.candidate.norm == "batch"
    unit = {"domain": "m_d ⊙ ", "task": "m_t ⊙ ", None: ""}[plan.tickets]
    inner = f"x ({unit}W)" if unit else "x W"
    inner += "" if norm else " + b"
    if plan.ranks:
        inner += " + x A_d B_d + b_d"
    equation = f"relu(norm({inner}))" if norm else f"relu({inner})"
    if plan.tickets is None:
        build, linear = [f"self.linear = nn.Linear(WIDTH, WIDTH{', bias=False' if norm else ''})"], "self.linear(x)"
    else:
        build, linear = ["self.linear = TicketLinear()"], f"self.linear(x, {plan.tickets})"
    compute, arguments = [f"h = {linear}"], ["x: Tensor"]
    if plan.reads_domain:
        arguments.append("domain: Tensor")
    if plan.tickets == "task":
        arguments.append("task: int")
    if plan.ranks:
        build.append("self.adapters = Adapters()")
        compute[0] += " + self.adapters(x, domain)"
    if norm:
        build.append("self.norm = nn.BatchNorm1d(WIDTH)")
        compute.append("h = self.norm(h)")
    if plan.prunes_neurons:
        equation = f"π ⊙ {equation}"
        build.append("self.pruner = Pruner()")
        compute.append("return self.pruner(torch.relu(h), domain_embedding)")
        arguments.append("domain_embedding: Tensor")
    else:
        compute.append("return torch.relu(h)")
    return f'''
class Deep(nn.Module):
    """{equation}"""

    def __init__(self) -> None:
        super().__init__()
{block(build, 2)}

    def forward(self, {", ".join(arguments)}) -> Tensor:
        """Returns: [rows, WIDTH]."""
{block(compute, 2)}
'''
