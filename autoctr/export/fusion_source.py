"""The source of a discovered fusion network as plain PyTorch for exactly this architecture."""

from __future__ import annotations

from textwrap import wrap

from autoctr.export.frame import LINE, Body, block, domain_embedding, embedded, module_source, projected
from autoctr.export.fusion_parts import definitions, heads
from autoctr.export.fusion_plan import Component, FusionPlan, Part
from autoctr.export.names import literal

_TOKENS = ("attention", "fm", "bilinear")


def fusion_source(plan: FusionPlan) -> str:
    """Python source of a module with the class ``Model``."""
    per_task = plan.tickets == "task"
    lines, fused = _blocks(plan)
    body = Body(
        title=_title(plan),
        constants=_constants(plan),
        definitions=definitions(plan),
        layers=_layers(plan),
        compute=[*_start(plan), *(_tasks(plan) if per_task else lines)],
        logits="torch.stack(logits, dim=1)" if per_task else f"self.head({fused})",
        methods=[_method(plan)] if per_task else [],
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
    return [*lines, "", "Every task computes it with its own ticket."] if plan.tickets == "task" else lines


def _constants(plan: FusionPlan) -> list[str]:
    lines, names = [], plan.statistics.domains
    if plan.has(deep=False) and plan.candidate.cross in _TOKENS:
        lines.append(f"TOKEN = {plan.token}  # neurons of a token, of which a cross component sees WIDTH // TOKEN")
        if plan.candidate.cross == "attention":
            lines.append(f"HEADS = {heads(plan.token)}")
    if plan.ranks:
        lines += ["# Rank of each domain's adapter; a domain that is not listed has none.", "RANKS = {"]
        lines += [f"    {d}: {rank},  # {literal(names[d])}" for d, rank in plan.ranks.items()] + ["}"]
    if plan.prunes_input:
        lines += ["# Numbers of each field.", "FIELD_WIDTHS = ("]
        lines += [f"    {width},  # {literal(name)}" for name, width in plan.widths] + [")"]
    if plan.has_steps:
        lines.append(f"ALPHA = {plan.steepness!r}  # steepness of the pruners' sigmoid at the end of training")
    return lines


def _layers(plan: FusionPlan) -> list[str]:
    lines = ["self.input_pruner = InputPruner()"] if plan.prunes_input else []
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


def _start(plan: FusionPlan) -> list[str]:
    """Lines that compute E, and the embedding of the domain where it is read."""
    lines = [domain_embedding(plan)] if plan.prunes else []
    fields = f"self.input_pruner({embedded(plan)}, domain_embedding)" if plan.prunes_input else embedded(plan)
    return [*lines, f"e = {projected(plan, fields)}"]


def _further(plan: FusionPlan) -> dict[str, str]:
    """Arguments of a deep component beside its input, with their types."""
    needed = {"domain": plan.reads_domain, "task": plan.tickets == "task", "domain_embedding": plan.prunes_neurons}
    return {name: "int" if name == "task" else "Tensor" for name, value in needed.items() if value}


def _blocks(plan: FusionPlan) -> tuple[list[str], str]:
    """Lines that compute all blocks, and an expression of the output node."""
    lines = []
    anchored = plan.candidate.cross != "attention"
    for component in plan.components:
        fused, before = _fused(component)
        lines += before
        arguments = [fused, *_further(plan)] if component.deep else [fused, "e"] if anchored else [fused]
        lines.append(f"{component.name} = self.{component.name}({', '.join(arguments)})")
    fused, before = _fused(plan.output)
    return [*lines, *before], fused


def _method(plan: FusionPlan) -> str:
    takes = {"e": "Tensor", **_further(plan)}
    lines, fused = _blocks(plan)
    return f'''
def blocks(self, {", ".join(f"{name}: {kind}" for name, kind in takes.items())}) -> Tensor:
    """The output node by the tickets of one task, [rows, WIDTH]."""
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


def _fused(component: Component) -> tuple[str, list[str]]:
    """An expression of the fused input, and the lines that must stand before it."""
    if not component.parts:
        return "e", []
    terms = [_weighted(component.name, part) for part in component.parts]
    whole = " + ".join(terms)
    if len(whole) <= LINE - 40:
        return whole, []
    if len(terms) > 1 and all(len(term) <= LINE for term in terms):
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
    if len(short) <= LINE:
        return [short]
    if part.operator == "concat":
        rows = wrap(f"{', '.join(part.sources)},", LINE - 10)
        inputs = ["inputs = [", *(f"    {row}" for row in rows), "]"]
        return [*inputs, f"{start}{factor}self.{name}_concat(torch.cat(inputs, dim=1))"]
    sign = "*" if part.operator == "product" else "+"
    attention = part.operator == "attention"
    terms = [f"self.{name}_attention_{source}({source})" if attention else source for source in part.sources]
    return [f"{start}{factor}(", *(f"    {f'{sign} ' if n else ''}{term}" for n, term in enumerate(terms)), ")"]
