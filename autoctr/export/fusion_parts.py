"""The definitions that a generated fusion network is made of: crosses, attention, pruners, and maps per domain."""

from __future__ import annotations

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
        return torch.addcmul(x, x0, self.linear(x))
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
        return torch.addcmul(x, x0, self.up(self.down(x)))
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
        return torch.addcmul(x, x0, others.flatten(1))
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
        return torch.addcmul(x, x0, self.linear(others).flatten(1))
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

_COMPACT = '''
class Compact(nn.Module):
    """x W + b of the inputs that can be other than 0 and the outputs that depend on them.

    It reads `reads` of the inputs and computes `computes` numbers (None = all), of which outputs may share some;
    others are `constants`.
    """

    def __init__(
        self, inputs: int, outputs: int, reads: int | None = None, computes: int | None = None, constants: int = 0
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(reads or inputs, computes or outputs)
        self.register_buffer("reads", torch.zeros(reads, dtype=torch.int32) if reads else None)
        self.register_buffer("places", torch.zeros(outputs, dtype=torch.int32) if computes else None)
        self.register_buffer("constants", torch.zeros(constants) if constants else None)

    def forward(self, x: Tensor) -> Tensor:
        """Returns: [rows, outputs]."""
        h = self.linear(x if self.reads is None else x.index_select(1, self.reads))
        if self.constants is not None:
            h = torch.cat([h, self.constants.expand(h.shape[0], -1)], dim=1)
        return h if self.places is None else h.index_select(1, self.places)
'''

_ADAPTED = '''
class Adapted(nn.Module):
    """base(x) + x A B: a domain's adapter that costs less beside its map than merged into it (LoRA)."""

    def __init__(self, base: nn.Module, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(WIDTH, rank, bias=False)
        self.up = nn.Linear(rank, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        return self.base(x) + self.up(self.down(x))
'''

_PER_DOMAIN = '''
class PerDomain(nn.Module):
    """A map for rows of some {one}s, another one for others.

    Args:
        parts: the {one}s that share a map, and the map.
    """

    def __init__(self, *parts: tuple[tuple[int, ...], nn.Module]) -> None:
        super().__init__()
        self.{one}s = [{one}s for {one}s, _ in parts]
        self.products = nn.ModuleList(product for _, product in parts)

    def forward(self, x: Tensor, rows: dict[int, Tensor]) -> Tensor:
        """Returns: [rows, WIDTH]."""
        chosen = [[rows[{one}] for {one} in {one}s if {one} in rows] for {one}s in self.{one}s]
        for own, product in zip(chosen, self.products, strict=True):
            if len(own) == len(rows):
                return product(x)
        out = x.new_zeros(x.shape[0], WIDTH)
        for own, product in zip(chosen, self.products, strict=True):
            if own:
                places = torch.cat(own)
                out.index_copy_(0, places, product(x.index_select(0, places)))
        return out
'''

_SPARSE = '''
class Sparse(PerDomain):
    """Maps without what each {one} closes. Small mixed batches take the first, which is whole, and close by factors.

    With fewer than SPLIT rows per {one}, to compute them apart would take longer than it saves.

    Args:
        inputs: of which the whole map has factors per {one}; 0 = none. outputs: likewise.
    """

    def __init__(self, *parts: tuple[tuple[int, ...], nn.Module], inputs: int = 0, outputs: int = 0) -> None:
        super().__init__(*parts)
        self.register_buffer("input_factors", torch.ones({count}, inputs) if inputs else None)
        self.register_buffer("output_factors", torch.ones({count}, outputs) if outputs else None)

    def forward(self, x: Tensor, rows: dict[int, Tensor], {one}: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        if len(rows) < 2 or torch.compiler.is_compiling() or x.shape[0] >= SPLIT * len(rows):
            return super().forward(x, rows)
        if self.input_factors is not None:
            x = x * self.input_factors.index_select(0, {one})
        h = self.products[0](x)
        return h if self.output_factors is None else h * self.output_factors.index_select(0, {one})
'''

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
    """{verb} neurons per row: π ⊙ h with v = [h; e_d] W + b; e_d is the embedding of the row's domain."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH + EMBEDDING, WIDTH)

    def forward(self, h: Tensor, domain_embedding: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        return h * factors(self.linear(torch.cat([h, domain_embedding], dim=1)))
'''


def definitions(plan: FusionPlan) -> list[str]:
    """Source of every class and function that the network uses, each before its use."""
    layers = [layer for layers in plan.layers.values() for layer in layers]
    products = [product for layer in layers for product in layer.products]
    one, count = ("group", "max(GROUPS) + 1") if plan.has_groups else ("domain", "len(DOMAINS) + 1")
    return [
        *([_COMPACT] if any(product.is_compact for product in products) else []),
        *([_ADAPTED] if any(product.down is not None for product in products) else []),
        *([_PER_DOMAIN.format(one=one)] if not all(map(plan.is_shared, plan.layers)) else []),
        *([_SPARSE.format(one=one, count=count)] if any(map(plan.has_whole, plan.layers)) else []),
        *([_factors(plan), _pruner(plan)] if plan.prunes_neurons else []),
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


def _pruner(plan: FusionPlan) -> str:
    return _PRUNER.format(verb="Closes" if plan.has_steps else "Scales")
