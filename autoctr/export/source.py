"""The source of ``model.py``: the discovered network as plain PyTorch for exactly this architecture."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import indent, wrap

from autoctr.export.names import literal
from autoctr.export.plan import Component, Part, Plan
from autoctr.model import sparsity

_LINE = 100

_MATRIX_CROSS = '''
class Cross(nn.Module):
    """x0 ⊙ (x W + b) + x (DCN-v2, arXiv 2008.13535)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, x0: Tensor) -> Tensor:
        """Returns: [rows, WIDTH]."""
        return x0 * self.linear(x) + x
'''

_VECTOR_CROSS = '''
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
        for d in domain.unique().tolist():
            if d in RANKS:
                rows = (domain == d).nonzero().squeeze(1)
                out[rows] = self.up[str(d)](self.down[str(d)](x[rows]))
        return out
'''

_PRUNERS = {
    "fusion": (
        "Closes neurons per row: π = {beta:g} σ(α v) where that exceeds {epsilon:g}, else 0.",
        """gate = {beta!r} * torch.sigmoid(ALPHA * v)
return h * torch.where(gate > {epsilon!r}, gate, 0.0)""",
    ),
    "binarization": (
        "Closes neurons per row: π = 1 where σ(α v) exceeds {epsilon:g}, else 0.",
        "return h * (torch.sigmoid(ALPHA * v) > {epsilon!r})",
    ),
    "scaling": ("Scales neurons per row: π = {beta:g} σ(v).", "return h * ({beta!r} * torch.sigmoid(v))"),
}

_PRUNER = '''
class Pruner(nn.Module):
    """{summary}

    v = {equation} (AdaSparse, arXiv 2206.13108); e_d is the embedding of the row's domain.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear({inputs}, WIDTH)

    def forward(self, h: Tensor, domain_embedding: Tensor) -> Tensor:
        """Returns: π ⊙ h, [rows, WIDTH]."""
        v = self.linear({argument})
{body}
'''

_POOLING = '''
def mean_of_known(values: Tensor, known: Tensor) -> Tensor:
    """Mean of each row's list without its padding; 0 for an empty list.

    Args:
        values: embedded values, [rows, slots, EMBEDDING].
        known: bool [rows, slots], False for padding.

    Returns: [rows, EMBEDDING].
    """
    share = known.to(values.dtype)[:, :, None]
    return (values * share).sum(1) / share.sum(1).clamp(min=1)
'''

_SHAPES = {
    "ids": "int [rows, {ids}], rows of the embedding table.",
    "numbers": "float [rows, {numbers}], standardised.",
    "vectors": "int [rows, {vectors}], rows of the frozen vectors; 0 = none.",
    "domain": "int [rows], number of the domain in features.json; any other number = unknown.",
}


def model_source(plan: Plan) -> str:
    """Python source of a module with the class ``Model``."""
    classes = [_adapters(plan), _pruner(plan), _deep(plan), _cross(plan), _attention(plan), _pooling(plan)]
    pieces = [_header(plan), *(part for part in classes if part), _model(plan)]
    return "\n\n\n".join(piece.strip() for piece in pieces) + "\n"


def _header(plan: Plan) -> str:
    wiring = plan.candidate.wiring
    assert wiring is not None
    lines = [
        '"""A click-through-rate network, found and written by autoctr: plain PyTorch, for inference.',
        "",
        "E are the embedded fields, C cross components, D deep components, O is the output:",
        "",
        *_first_cross(plan),
        *(f"    {row}" for line in wiring.describe() for row in wrap(line, _LINE, subsequent_indent="    ")),
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "import torch",
        f"from torch import Tensor, nn{'' if not plan.tables else chr(10) + 'from torch.nn import functional'}",
        "",
        f"TASKS = {_tuple(plan.statistics.tasks)}",
        f"INPUTS = {_tuple(plan.inputs)}  # what Model.forward takes",
        f"VOCABULARY = {plan.statistics.vocabulary}",
        f"EMBEDDING = {plan.candidate.embedding}",
        f"WIDTH = {plan.width}",
    ]
    if plan.ranks:
        lines += ["# Rank of each domain's adapter; a domain that is not listed has none.", "RANKS = {"]
        names = plan.statistics.domains
        lines += [f"    {d}: {rank},  # {literal(names[d])}" for d, rank in plan.ranks.items()] + ["}"]
    if plan.has_steps:
        lines.append(f"ALPHA = {plan.steepness!r}  # steepness of the pruners' sigmoid at the end of training")
    return "\n".join(lines) + "\n"


def _tuple(names: Sequence[str]) -> str:
    return f"({', '.join(map(literal, names))}{',' if len(names) == 1 else ''})"


def _first_cross(plan: Plan) -> list[str]:
    return ["    C0 = cross(E)"] if any(component.name == "c0" for component in plan.components) else []


def _has(plan: Plan, *, deep: bool) -> bool:
    return any(component.deep == deep for component in plan.components)


def _cross(plan: Plan) -> str:
    if not _has(plan, deep=False):
        return ""
    return _MATRIX_CROSS if plan.candidate.cross == "matrix" else _VECTOR_CROSS


def _attention(plan: Plan) -> str:
    return _ATTENTION if "attention" in plan.operators else ""


def _adapters(plan: Plan) -> str:
    return _ADAPTERS if plan.ranks else ""


def _pooling(plan: Plan) -> str:
    return _POOLING if plan.lists else ""


def _pruner(plan: Plan) -> str:
    if plan.form is None:
        return ""
    constants = {"beta": sparsity.BETA, "epsilon": sparsity.EPSILON}
    summary, body = _PRUNERS[plan.form]
    both = plan.reads_neurons
    return _PRUNER.format(
        summary=summary.format(**constants),
        equation="[h; e_d] W + b" if both else "e_d W + b",
        inputs="WIDTH + EMBEDDING" if both else "EMBEDDING",
        argument="torch.cat([h, domain_embedding], dim=1)" if both else "domain_embedding",
        body=indent(body.format(**constants), " " * 8),
    )


def _deep(plan: Plan) -> str:
    if not _has(plan, deep=True):
        return ""
    norm = plan.candidate.norm == "batch"
    inner = "x W" if norm else "x W + b"
    if plan.ranks:
        inner += " + x A_d B_d + b_d"
    equation = f"relu(norm({inner}))" if norm else f"relu({inner})"
    build = [f"self.linear = nn.Linear(WIDTH, WIDTH{', bias=False' if norm else ''})"]
    compute, arguments = ["h = self.linear(x)"], ["x: Tensor"]
    if plan.ranks:
        build.append("self.adapters = Adapters()")
        compute[0] += " + self.adapters(x, domain)"
        arguments.append("domain: Tensor")
    if norm:
        build.append("self.norm = nn.BatchNorm1d(WIDTH)")
        compute.append("h = self.norm(h)")
    if plan.form is None:
        compute.append("return torch.relu(h)")
    else:
        equation = f"π ⊙ {equation}"
        build.append("self.pruner = Pruner()")
        compute.append("return self.pruner(torch.relu(h), domain_embedding)")
        arguments.append("domain_embedding: Tensor")
    return f'''
class Deep(nn.Module):
    """{equation}"""

    def __init__(self) -> None:
        super().__init__()
{indent(chr(10).join(build), " " * 8)}

    def forward(self, {", ".join(arguments)}) -> Tensor:
        """Returns: [rows, WIDTH]."""
{indent(chr(10).join(compute), " " * 8)}
'''


def _model(plan: Plan) -> str:
    takes = ", ".join(f"{name}: Tensor" for name in plan.inputs)
    embedded = [name for name in plan.inputs if name != "domain"]
    sizes = {
        "ids": sum(field.slots for field in plan.statistics.embedded),
        "numbers": len(plan.statistics.scaled),
        "vectors": len(plan.tables),
    }
    shapes = [f"{name}: {_SHAPES[name].format(**sizes)}" for name in plan.inputs]
    annotations = [f"{attribute}: Tensor" for attribute in plan.vector_names.values()]
    return f'''
class Model(nn.Module):
    """The network. Call ``eval()`` before use; see predict.py for raw values."""
{indent(chr(10).join(["", *annotations]), " " * 4) + chr(10) if annotations else ""}
    def __init__(self) -> None:
        super().__init__()
{indent(chr(10).join(_layers(plan)), " " * 8)}

    def embed(self, {", ".join(f"{name}: Tensor" for name in embedded)}) -> Tensor:
        """All fields side by side, [rows, {plan.fields_width}]."""
{indent(chr(10).join(_embed(plan)), " " * 8)}

    def forward(self, {takes}) -> Tensor:
        """Logits; the probability of a task is the sigmoid of its logit.

        Args:
{indent(chr(10).join(shapes), " " * 12)}

        Returns: [rows, {len(plan.statistics.tasks)}], one column per entry of TASKS.
        """
{indent(chr(10).join(_compute(plan, embedded)), " " * 8)}
'''


def _layers(plan: Plan) -> list[str]:
    lines = ["self.embedding = nn.Embedding(VOCABULARY, EMBEDDING)"]
    if plan.statistics.scaled:
        lines.append(f"self.number_weights = nn.Parameter(torch.zeros({len(plan.statistics.scaled)}, EMBEDDING))")
    for field in plan.statistics.vectors:
        shape = f"{plan.tables[field.name]}, {field.width}"
        lines.append(f'self.register_buffer("{plan.vector_names[field.name]}", torch.zeros({shape}))')
    if plan.candidate.width:
        lines.append(f"self.projection = nn.Linear({plan.fields_width}, WIDTH)")
    for component in (*plan.components, plan.output):
        for part in component.parts:
            if part.operator == "concat":
                lines.append(f"self.{component.name}_concat = nn.Linear({len(part.sources)} * WIDTH, WIDTH)")
            if part.operator == "attention":
                lines += [f"self.{component.name}_attention_{source} = Attention()" for source in part.sources]
        if component is not plan.output:
            lines.append(f"self.{component.name} = {'Deep' if component.deep else 'Cross'}()")
    lines.append("self.head = nn.Linear(WIDTH, len(TASKS))")
    return lines


def _embed(plan: Plan) -> list[str]:
    statistics, slots, offsets = plan.statistics, plan.slots, plan.statistics.offsets
    lines = ["# Columns of ids:"]
    for field in statistics.embedded:
        first, last = slots[field.name], slots[field.name] + field.slots - 1
        columns = f"{first}" if first == last else f"{first} to {last}"
        lines.append(f"#   {columns}: {literal(field.name)}, {field.size} rows from {offsets[field.name]}")
    if statistics.scaled:
        lines.append("# Columns of numbers:")
        lines += [f"#   {column}: {literal(field.name)}" for column, field in enumerate(statistics.scaled)]
    chosen = _columns(plan.singles, sum(field.slots for field in statistics.embedded))
    parts = [f"embedded{chosen}.flatten(1),"]
    for field in plan.lists:
        span = f"[:, {slots[field.name]}:{slots[field.name] + field.slots}]"
        parts.append(f"mean_of_known(embedded{span}, ids{span} != {offsets[field.name]}),  # {literal(field.name)}")
    if statistics.scaled:
        parts.append("(numbers[:, :, None] * self.number_weights).flatten(1),")
    for column, (name, attribute) in enumerate(plan.vector_names.items()):
        parts.append(f"functional.embedding(vectors[:, {column}], self.{attribute}),  # {literal(name)}")
    if len(parts) == 1:
        return [*lines, f"return self.embedding(ids){chosen}.flatten(1)"]
    parts = [f"    {part}" for part in parts]
    return [*lines, "embedded = self.embedding(ids)", "parts = [", *parts, "]", "return torch.cat(parts, dim=1)"]


def _columns(chosen: Sequence[int], count: int) -> str:
    """An index that picks the ``chosen`` ones, ascending, of ``count`` columns."""
    runs: list[list[int]] = []
    for column in chosen:
        if runs and column == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([column, column + 1])
    if len(runs) == 1:
        start, end = runs[0]
        return "" if end - start == count else f"[:, {start}:{end}]"
    parts = [f"*range({start}, {end})" if end > start + 1 else f"{start}" for start, end in runs]
    return f"[:, [{', '.join(parts)}]]"


def _compute(plan: Plan, embedded: Sequence[str]) -> list[str]:
    e = f"self.embed({', '.join(embedded)})"
    lines = [f"e = self.projection({e})" if plan.candidate.width else f"e = {e}"]
    further = ["domain"] if plan.ranks else []
    if plan.form is not None:
        column = plan.slots[plan.statistics.domain_field]
        lines.append(f"domain_embedding = self.embedding(ids[:, {column}])")
        further.append("domain_embedding")
    for component in plan.components:
        fused, before = _fused(component)
        lines += before
        arguments = ", ".join([fused, *further] if component.deep else [fused, "e"])
        lines.append(f"{component.name} = self.{component.name}({arguments})")
    fused, before = _fused(plan.output)
    return [*lines, *before, f"return self.head({fused})"]


def _fused(component: Component) -> tuple[str, list[str]]:
    """An expression of the fused input, and the lines that must stand before it."""
    if not component.parts:
        return "e", []
    terms = [_weighted(component.name, part) for part in component.parts]
    whole = " + ".join(terms)
    if len(whole) <= _LINE - 40:
        return whole, []
    if len(terms) > 1 and all(len(term) <= _LINE for term in terms):
        return "f", ["f = (", *(f"    {'+ ' if n else ''}{term}" for n, term in enumerate(terms)), ")"]
    lines: list[str] = []
    for n, part in enumerate(component.parts):
        lines += _long(component.name, part, "f = " if n == 0 else "f = f + ")
    return "f", lines


def _weighted(name: str, part: Part) -> str:
    term = _term(name, part)
    if part.weight == 1.0:
        return term
    is_sum = part.operator in ("add", "attention") and len(part.sources) > 1
    return f"{part.weight!r} * ({term})" if is_sum else f"{part.weight!r} * {term}"


def _term(name: str, part: Part) -> str:
    sources = part.sources
    if part.operator == "add":
        return " + ".join(sources)
    if part.operator == "product":
        return " * ".join(sources)
    if part.operator == "concat":
        joined = sources[0] if len(sources) == 1 else f"torch.cat([{', '.join(sources)}], dim=1)"
        return f"self.{name}_concat({joined})"
    return " + ".join(f"self.{name}_attention_{source}({source})" for source in sources)


def _long(name: str, part: Part, start: str) -> list[str]:
    """One part as a statement, over as many lines as it needs."""
    factor = "" if part.weight == 1.0 else f"{part.weight!r} * "
    short = f"{start}{_weighted(name, part)}"
    if len(short) <= _LINE:
        return [short]
    if part.operator == "concat":
        rows = wrap(f"{', '.join(part.sources)},", _LINE - 10)
        inputs = ["inputs = [", *(f"    {row}" for row in rows), "]"]
        return [*inputs, f"{start}{factor}self.{name}_concat(torch.cat(inputs, dim=1))"]
    sign = "*" if part.operator == "product" else "+"
    attention = part.operator == "attention"
    terms = [f"self.{name}_attention_{source}({source})" if attention else source for source in part.sources]
    return [f"{start}{factor}(", *(f"    {f'{sign} ' if n else ''}{term}" for n, term in enumerate(terms)), ")"]
