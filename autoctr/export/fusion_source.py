"""The source of a discovered fusion network as plain PyTorch for exactly this architecture."""

from __future__ import annotations

from textwrap import wrap

from autoctr.export.frame import LINE, Body, block, domain_embedding, embedded, module_source
from autoctr.export.fusion_parts import definitions, heads
from autoctr.export.fusion_plan import FusionPlan
from autoctr.export.names import literal
from autoctr.export.product import Layer, Product
from autoctr.export.wiring import Component, Part

#: So many maps of a layer are listed with the names of their domains, even if they are alike.
LISTED = 8
_TOKENS = ("attention", "fm", "bilinear")


def fusion_source(plan: FusionPlan) -> str:
    """Python source of a module with the class ``Model``."""
    lines, fused = _blocks(plan)
    body = Body(
        title=_title(plan),
        constants=_constants(plan),
        definitions=definitions(plan),
        layers=_layers(plan),
        compute=[*_start(plan), *(_tasks(plan) if plan.per_task else lines)],
        logits="torch.stack(logits, dim=1)" if plan.per_task else f"self.head({fused})",
        methods=[_method(plan)] if plan.per_task else [],
        groups=plan.groups if plan.has_groups else (),
        splits=not all(map(plan.is_shared, plan.layers)),
    )
    return module_source(plan, body)


def _title(plan: FusionPlan) -> list[str]:
    wiring = plan.candidate.wiring
    assert wiring is not None
    first = ["    C0 = cross(E)"] if any(component.name == "c0" for component in plan.components) else []
    described = [f"    {row}" for line in wiring.describe() for row in wrap(line, LINE, subsequent_indent="    ")]
    lines = [
        "E are the embedded fields, C cross components, D deep components, O is the output:",
        "",
        *first,
        *described,
    ]
    if plan.has(deep=True):
        pruner = ", times the pruner's factors" if plan.prunes_neurons else ""
        lines += ["", f"A deep component is relu(x W + b){pruner}."]
        if not all(map(plan.is_shared, plan.layers)):
            text = f"{lines[-1]} The maps of a domain hold what is its own: {_own_parts(plan)}."
            lines[-1:] = wrap(text, LINE)
    return [*lines, "", "Every task computes it with its own ticket."] if plan.per_task else lines


def _own_parts(plan: FusionPlan) -> str:
    """What a domain has of its own, in words."""
    candidate = plan.candidate
    parts = {
        "its adapters": candidate.rank or candidate.rank_divisor or candidate.domain_ranks,
        "its tickets": candidate.keep_rate < 1 and candidate.ticket_unit == "domain",
        "its pruners' factors of neurons": candidate.sparsity > 0 and candidate.pruner_input == "domain",
        "its pruner's factors of fields": candidate.sparsity > 0 and candidate.input_pruner,
    }
    return ", ".join(name for name, used in parts.items() if used)


def _constants(plan: FusionPlan) -> list[str]:
    lines = []
    if plan.has(deep=False) and plan.candidate.cross in _TOKENS:
        lines.append(f"TOKEN = {plan.token}  # neurons of a token, of which a cross component sees WIDTH // TOKEN")
        if plan.candidate.cross == "attention":
            lines.append(f"HEADS = {heads(plan.token)}")
    if any(map(plan.has_whole, plan.layers)):
        lines.append(f"SPLIT = {plan.split_rows}  # rows per domain from which on mixed batches are split")
    if plan.has_steps:
        lines.append(f"ALPHA = {plan.steepness!r}  # steepness of the pruners' sigmoid at the end of training")
    return lines


def _layers(plan: FusionPlan) -> list[str]:
    lines = []
    if plan.field_factors is not None:
        lines.append(_factor_table(plan, "field_factors", str(plan.fields_width)))
    if "projection" in plan.layers:
        lines += _layer(plan, "projection")
    for component in (*plan.components, plan.output):
        if component.concat is not None and component.name not in plan.folded:
            lines += _layer(plan, f"{component.name}_concat")
        for part in component.parts:
            if part.operator == "attention":
                lines += [f"self.{component.name}_attention_{source} = Attention()" for source in part.sources]
        if component is plan.output:
            continue
        if not component.deep:
            lines.append(f"self.{component.name} = Cross()")
            continue
        lines += _layer(plan, component.name)
        if plan.layers[component.name][0].factors is not None:
            lines.append(_factor_table(plan, f"{component.name}_factors", "WIDTH"))
        if plan.prunes_neurons:
            lines.append(f"self.{component.name}_pruner = Pruner()")
    lines.append(f"self.head = nn.Linear({_size(plan, plan.head_width)}, len(TASKS))")
    return lines


def _factor_table(plan: FusionPlan, name: str, width: str) -> str:
    return f'self.register_buffer("{name}", torch.ones({max(plan.groups) + 1}, {width}))'


def _layer(plan: FusionPlan, name: str) -> list[str]:
    """Lines that make a map, or one per task."""
    several = plan.layers[name]
    if len(several) == 1:
        lines = _map(plan, name, several[0])
        return [f"self.{name} = {lines[0]}", *lines[1:]]
    inner = [line for layer in several for line in _comma(_map(plan, name, layer))]
    inner = [f"        {line}" for line in inner]
    return [f"self.{name} = nn.ModuleList(", "    [  # one per task", *inner, "    ]", ")"]


def _comma(lines: list[str]) -> list[str]:
    return [*lines[:-1], f"{lines[-1]},"]


def _map(plan: FusionPlan, name: str, layer: Layer) -> list[str]:
    """Lines of an expression that makes a map."""
    made = [_product(plan, product) for product in layer.products]
    if plan.is_shared(name):
        return made
    groups: list[list[int]] = [[] for _ in made]
    for group, domain in enumerate(plan.domain_of_group):
        groups[layer.of[domain]].append(group)
    if len(made) > LISTED and len(set(made)) == 1 and groups == [[group] for group in range(len(made))]:
        return [f"PerDomain(*(((n,), {made[0]}) for n in range({len(made)})))"]
    lines = [f"    ({tuple(own)}, {text})," for own, text in zip(groups, made, strict=True)]
    comments = [_named(plan, own) if own else "small mixed batches" for own in groups]
    lines = [
        f"{line}  # {names}" if len(line) + len(names) + 4 <= LINE else line
        for line, names in zip(lines, comments, strict=True)
    ]
    if plan.has_closing(name):
        first = layer.products[0]
        lines.append(f"    inputs={first.inputs}," if name == "projection" else "    outputs=WIDTH,")
    return [f"{'Sparse' if plan.has_whole(name) else 'PerDomain'}(", *lines, ")"]


def _named(plan: FusionPlan, groups: list[int]) -> str:
    """The domains of groups, in words."""
    names = [*map(literal, plan.statistics.domains), "unknown domains"]
    return ", ".join(name for name, group in zip(names, plan.groups, strict=True) if group in groups)


def _product(plan: FusionPlan, product: Product) -> str:
    inputs, outputs = _size(plan, product.inputs), _size(plan, product.outputs)
    text = f"nn.Linear({inputs}, {outputs})"
    if product.is_compact:
        given = [inputs, outputs]
        if product.reads is not None:
            given.append(f"reads={len(product.reads)}")
        if product.places is not None:
            given.append(f"computes={len(product.bias)}")
        if product.constants is not None:
            given.append(f"constants={len(product.constants)}")
        text = f"Compact({', '.join(given)})"
    return text if product.down is None else f"Adapted({text}, rank={len(product.down)})"


def _size(plan: FusionPlan, neurons: int) -> str:
    times, rest = divmod(neurons, plan.width)
    if rest or neurons == plan.fields_width != plan.width:
        return str(neurons)
    return "WIDTH" if times == 1 else f"{times} * WIDTH"


def _start(plan: FusionPlan) -> list[str]:
    """Lines that compute E, and the embedding of the domain where it is read."""
    lines = [domain_embedding(plan)] if plan.prunes_neurons else []
    fields = embedded(plan)
    if plan.field_factors is not None:
        lines.append(f"fields = {fields} * {_factor(plan, 'field_factors')}")
        fields = "fields"
    return [*lines, f"e = {_applied(plan, 'projection', fields) if 'projection' in plan.layers else fields}"]


def _factor(plan: FusionPlan, name: str) -> str:
    """An expression of the factors of every row."""
    return f"self.{name}.index_select(0, {_number(plan)})"


def _number(plan: FusionPlan) -> str:
    """The variable that tells domains apart."""
    return "group" if plan.has_groups else "domain"


def _applied(plan: FusionPlan, name: str, inputs: str) -> str:
    """An expression of a map of ``inputs``."""
    several = plan.layers[name]
    task = "" if len(several) == 1 else "[task]"
    rows = "" if plan.is_shared(name) else ", rows"
    if plan.has_whole(name):
        rows += f", {_number(plan)}"
    return f"self.{name}{task}({inputs}{rows})"


def _further(plan: FusionPlan) -> dict[str, str]:
    """What the components read beside E, with the types."""
    names = [name for name in plan.layers if name != "projection"]
    told_apart = any(plan.layers[name][0].factors is not None or plan.has_whole(name) for name in names)
    needed = {
        "rows: dict[int, Tensor]": not all(map(plan.is_shared, names)),
        f"{_number(plan)}: Tensor": told_apart,
        "task: int": plan.per_task,
        "domain_embedding: Tensor": plan.prunes_neurons,
    }
    return dict(text.split(": ", 1) for text, value in needed.items() if value)


def _blocks(plan: FusionPlan) -> tuple[list[str], str]:
    """Lines that compute all blocks, and an expression of the output node."""
    lines = []
    anchored = plan.candidate.cross != "attention"
    for component in plan.components:
        fused, before = _fused(plan, component)
        lines += before
        name = component.name
        if not component.deep:
            lines.append(f"{name} = self.{name}({fused}, e)" if anchored else f"{name} = self.{name}({fused})")
            continue
        lines.append(f"{name} = torch.relu({_applied(plan, name, fused)})")
        if plan.layers[name][0].factors is not None:
            lines.append(f"{name} = {name} * {_factor(plan, f'{name}_factors')}")
        if plan.prunes_neurons:
            lines.append(f"{name} = self.{name}_pruner({name}, domain_embedding)")
    fused, before = _fused(plan, plan.output)
    return [*lines, *before], fused


def _method(plan: FusionPlan) -> str:
    takes = {"e": "Tensor", **_further(plan)}
    lines, fused = _blocks(plan)
    return f'''
def blocks(self, {", ".join(f"{name}: {kind}" for name, kind in takes.items())}) -> Tensor:
    """What the head reads, by the tickets of one task, [rows, {_size(plan, plan.head_width)}]."""
{block([*lines, f"return {fused}"], 1)}
'''


def _tasks(plan: FusionPlan) -> list[str]:
    given = ", ".join(["e", *_further(plan)])
    return [
        "logits = []",
        "for task in range(len(TASKS)):",
        f"    out = self.blocks({given})",
        "    logits.append(out @ self.head.weight[task] + self.head.bias[task])",
    ]


def _fused(plan: FusionPlan, component: Component) -> tuple[str, list[str]]:
    """An expression of the fused input, and the lines that must stand before it."""
    if not component.parts:
        return "e", []
    terms = [_weighted(plan, component.name, part) for part in component.parts]
    whole = " + ".join(terms)
    if len(whole) <= LINE - 40:
        return whole, []
    if len(terms) > 1 and all(len(term) <= LINE for term in terms):
        return "f", ["f = (", *(f"    {'+ ' if n else ''}{term}" for n, term in enumerate(terms)), ")"]
    lines: list[str] = []
    for n, part in enumerate(component.parts):
        lines += _long(plan, component.name, part, "f = " if n == 0 else "f = f + ")
    return "f", lines


def _weighted(plan: FusionPlan, name: str, part: Part) -> str:
    term = _term(plan, name, part)
    if part.weight == 1.0:
        return term
    is_sum = part.operator in ("add", "attention") and len(part.sources) > 1
    return f"{part.weight!r} * ({term})" if is_sum else f"{part.weight!r} * {term}"


def _term(plan: FusionPlan, name: str, part: Part) -> str:
    sources = part.sources
    if part.operator == "add":
        return " + ".join(sources)
    if part.operator == "product":
        return " * ".join(sources)
    if part.operator == "concat":
        joined = sources[0] if len(sources) == 1 else f"torch.cat([{', '.join(sources)}], dim=1)"
        return joined if name in plan.folded else _applied(plan, f"{name}_concat", joined)
    return " + ".join(f"self.{name}_attention_{source}({source})" for source in sources)


def _long(plan: FusionPlan, name: str, part: Part, start: str) -> list[str]:
    """One part as a statement, over as many lines as it needs."""
    factor = "" if part.weight == 1.0 else f"{part.weight!r} * "
    short = f"{start}{_weighted(plan, name, part)}"
    if len(short) <= LINE:
        return [short]
    if part.operator == "concat":
        rows = wrap(f"{', '.join(part.sources)},", LINE - 10)
        inputs, joined = ["inputs = [", *(f"    {row}" for row in rows), "]"], "torch.cat(inputs, dim=1)"
        mapped = joined if name in plan.folded else _applied(plan, f"{name}_concat", joined)
        return [*inputs, f"{start}{factor}{mapped}"]
    sign = "*" if part.operator == "product" else "+"
    attention = part.operator == "attention"
    terms = [f"self.{name}_attention_{source}({source})" if attention else source for source in part.sources]
    return [f"{start}{factor}(", *(f"    {f'{sign} ' if n else ''}{term}" for n, term in enumerate(terms)), ")"]
