"""The parts of ``model.py`` that do not depend on the family of the network: constants, embedding, class ``Model``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from textwrap import indent, wrap

from autoctr.export.names import literal
from autoctr.export.plan import Plan
from autoctr.export.snapshot_tables import pooled_by_attention
from autoctr.model.embedding import SnapshotField

LINE = 100

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

_ATTENTION_POOL = '''
def attention_pool(query: Tensor, snapshots: Tensor) -> Tensor:
    """Σ_m a_m s_m with a = softmax(q · s_m / √d) over the snapshots that know the id (E-CDCTR, arXiv 2408.16238).

    Args:
        query: the id's embedding, [rows, EMBEDDING].
        snapshots: its earlier embeddings, oldest first, zeros where it was not seen; [periods, rows, EMBEDDING].

    Returns: [rows, EMBEDDING]; zeros for an id that no snapshot knows.
    """
    known = snapshots.ne(0).any(2)
    scores = (query * snapshots).sum(2) / EMBEDDING**0.5
    shares = scores.masked_fill(~known, torch.finfo(scores.dtype).min).softmax(0)
    return (shares[:, :, None] * snapshots).sum(0)
'''

_ENTIRE_SPACE = '''
def entire_space(logits: Tensor) -> Tensor:
    """Logits of p_0 p_t for every task t after the first, p_t given the first label (ESMM, arXiv 1804.07931)."""
    first, later = functional.logsigmoid(logits[:, :1]), functional.logsigmoid(logits[:, 1:])
    product = (first + later).clamp(max=-torch.finfo(logits.dtype).eps)
    return torch.cat([logits[:, :1], product - torch.log(-torch.expm1(product))], dim=1)
'''

_KNOWN = '''
def known_or_last(domain: Tensor) -> Tensor:
    """Every domain as it is, len(DOMAINS) for an unknown one."""
    return torch.where((domain >= 0) & (domain < len(DOMAINS)), domain, len(DOMAINS))
'''

_ROWS = '''
def rows_by_{one}({one}: Tensor) -> dict[int, Tensor]:
    """The rows of every {one} that occurs; of all {one}s in a traced graph, which cannot depend on what occurs."""
    if torch.compiler.is_compiling():
        return {{n: ({one} == n).nonzero().squeeze(1) for n in range({count})}}
    counts = torch.bincount({one}, minlength={count}).tolist()
    rows = {one}.argsort(stable=True).split(counts)
    return {{n: own for n, own in enumerate(rows) if counts[n]}}
'''

_INT8_TABLE = '''
class Int8Table(nn.Module):
    """Rows of 8-bit numbers with a scale each; only rows that are looked up become floats."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(shape, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(*shape[:-1], 1))

    def forward(self, ids: Tensor) -> Tensor:
        """Returns: [..., *ids.shape, width]."""
        flat = ids.flatten()
        rows = self.weight.index_select(-2, flat) * self.scale.index_select(-2, flat)
        return rows.unflatten(-2, ids.shape)
'''

# What the probabilities of tasks after the first mean.
_MEANINGS = {
    "all": [],
    "clicked": ["After the first task, it is the probability given that the first label is 1.", ""],
    "esmm": ["After the first task, it is the probability that both labels are 1.", ""],
}

_SHAPES = {
    "ids": "int [rows, {}], rows of the embedding table.",
    "numbers": "float [rows, {}], standardised.",
    "vectors": "int [rows, {}], rows of the frozen vectors; 0 = none.",
    "domain": "int [rows], number of the domain in features.json; any other number = unknown.",
}


@dataclasses.dataclass(frozen=True)
class Body:
    """What a family adds to the frame, as lines or whole definitions of source.

    ``title`` tells in the docstring what the network computes; ``constants`` and ``definitions`` stand before the
    model, ``layers`` in its ``__init__``, ``methods`` before its forward, ``compute`` in its forward before the
    expression ``logits``. ``groups`` holds a number for every domain, then for unknown ones, where some share all.
    ``splits`` tells whether rows of different domains go different ways, so that ``rows`` must be known.
    """

    title: Sequence[str]
    constants: Sequence[str]
    definitions: Sequence[str]
    layers: Sequence[str]
    compute: Sequence[str]
    logits: str
    methods: Sequence[str] = ()
    groups: Sequence[int] = ()
    splits: bool = True


def module_source(plan: Plan, body: Body) -> str:
    """Python source of a module with the class ``Model``."""
    shared = {
        _POOLING: plan.lists,
        _ATTENTION_POOL: plan.attends,
        _ENTIRE_SPACE: plan.task_space == "esmm",
        _INT8_TABLE: plan.stored == "int8",
    }
    one, count = ("group", "max(GROUPS) + 1") if body.groups else ("domain", "len(DOMAINS) + 1")
    shared |= {_KNOWN: plan.reads_domain, _ROWS.format(one=one, count=count): plan.reads_domain and body.splits}
    pieces = [*(text for text, used in shared.items() if used), *body.definitions, _model(plan, body)]
    functional = any("functional." in piece for piece in pieces)
    pieces = [_header(plan, body, functional), *pieces]
    return "\n\n\n".join(piece.strip() for piece in pieces) + "\n"


def block(lines: Sequence[str], depth: int) -> str:
    """The lines, ``depth`` levels deep."""
    return indent("\n".join(lines), " " * 4 * depth)


def constant(name: str, values: Sequence[str]) -> list[str]:
    """Lines of a constant tuple of texts."""
    parts = list(map(literal, values))
    short = f"{name} = ({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    return [short] if len(short) <= LINE else [f"{name} = (", *(f"    {part}," for part in parts), ")"]


def embedded(plan: Plan) -> str:
    """An expression of all fields side by side."""
    return f"self.embed({', '.join(_embed_inputs(plan))})"


def domain_embedding(plan: Plan) -> str:
    """The line that looks up the embedding of the row's domain."""
    return f"domain_embedding = {_looked_up(plan, f'ids[:, {plan.slots[plan.statistics.domain_field]}]')}"


def projected(plan: Plan, fields: str) -> str:
    """An expression of x0, made of ``fields``."""
    return f"self.projection({fields})" if plan.candidate.width else fields


def projection(plan: Plan) -> list[str]:
    """The line that makes the projection, if there is one."""
    return [f"self.projection = nn.Linear({plan.fields_width}, WIDTH)"] if plan.candidate.width else []


def _looked_up(plan: Plan, ids: str) -> str:
    """An expression of embedding rows."""
    return f"self.embedding({ids}){_widened(plan)}"


def _frozen(plan: Plan, name: str, rows: str, periods: bool = False) -> str:
    """An expression of rows of a frozen table [rows, width], or with ``periods`` [periods, rows, width]."""
    if plan.stored == "int8":
        return f"self.{name}({rows})"
    found = f"self.{name}.index_select(1, {rows})" if periods else f"functional.embedding({rows}, self.{name})"
    return f"{found}{_widened(plan)}"


def _widened(plan: Plan) -> str:
    """What makes rows in half precision numbers of the network's type."""
    return ".to(self.head.weight.dtype)" if plan.stored == "fp16" else ""


def _embed_inputs(plan: Plan) -> list[str]:
    return [name for name in plan.inputs if name != "domain"]


def _header(plan: Plan, body: Body, functional: bool) -> str:
    lines = [
        '"""A click-through-rate network, found and written by autoctr: plain PyTorch, for inference.',
        "",
        *body.title,
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "import torch",
        "from torch import Tensor, nn",
        *(["from torch.nn import functional"] if functional else []),
        "",
        *constant("TASKS", plan.statistics.tasks),
        f"{constant('INPUTS', plan.inputs)[0]}  # what Model.forward takes",
        f"VOCABULARY = {plan.statistics.vocabulary}",
        f"EMBEDDING = {plan.candidate.embedding}",
        f"WIDTH = {plan.width}",
        *(constant("DOMAINS", plan.statistics.domains) if plan.reads_domain else []),
        *(_groups(body) if plan.reads_domain and body.groups else []),
        *body.constants,
    ]
    return "\n".join(lines) + "\n"


def _groups(body: Body) -> list[str]:
    text = "# The group of every domain, then of unknown ones: domains of a group share all their layers."
    short = f"GROUPS = {tuple(body.groups)}"
    rows = wrap(f"{', '.join(map(str, body.groups))},", LINE)
    return [text, short] if len(short) <= LINE else [text, "GROUPS = (", *(f"    {row}" for row in rows), ")"]


def _model(plan: Plan, body: Body) -> str:
    takes = ", ".join(f"{name}: Tensor" for name in plan.inputs)
    shapes = [f"{name}: {_SHAPES[name].format(columns)}" for name, columns in plan.columns.items()]
    buffers = [] if plan.stored == "int8" else [*plan.vector_names.values(), *plan.snapshots.values()]
    annotations = [f"{attribute}: Tensor" for attribute in buffers]
    logits = f"entire_space({body.logits})" if plan.task_space == "esmm" else body.logits
    methods = "".join(f"\n{indent(method.strip(), ' ' * 4)}\n" for method in body.methods)
    return f'''
class Model(nn.Module):
    """The network. Call ``eval()`` before use; see predict.py for raw values."""
{block(["", *annotations], 1) + chr(10) if annotations else ""}
    def __init__(self) -> None:
        super().__init__()
{block([*_embedding_layers(plan), *body.layers], 2)}

    def embed(self, {", ".join(f"{name}: Tensor" for name in _embed_inputs(plan))}) -> Tensor:
        """All fields side by side, [rows, {plan.fields_width}]."""
{block(_embed(plan), 2)}
{methods}
    def forward(self, {takes}) -> Tensor:
        """Logits; the probability of a task is the sigmoid of its logit.

{block([*_MEANINGS[plan.task_space], "Args:", *(f"    {shape}" for shape in shapes)], 2)}

        Returns: [rows, {len(plan.statistics.tasks)}], one column per entry of TASKS.
        """
{block([*_selection(plan), *_numbering(plan, body), *body.compute, f"return {logits}"], 2)}
'''


def _numbering(plan: Plan, body: Body) -> list[str]:
    """Lines that say which rows belong together."""
    if not plan.reads_domain:
        return []
    one, line = "domain", "domain = known_or_last(domain)"
    if body.groups:
        one = "group"
        line = "group = torch.tensor(GROUPS, device=domain.device).index_select(0, known_or_last(domain))"
    return [line, f"rows = rows_by_{one}({one})"] if body.splits else [line]


def _selection(plan: Plan) -> list[str]:
    """Lines that leave out what no domain reads."""
    if plan.encoded.fields == plan.statistics.fields:
        return []
    columns, absent = list(plan.read_slots), list(plan.read_slots.values())
    lines = ["# Fields that are closed in every domain are left out, and so are their embedding rows."]
    chosen = _columns(columns, sum(field.slots for field in plan.encoded.embedded))
    if any(absent):
        shift = f"torch.tensor({absent}, dtype=ids.dtype, device=ids.device)"
        lines.append(f"ids = ids{chosen} - {shift}")
    elif chosen:
        lines.append(f"ids = ids{chosen}")
    scaled = [column for column, field in enumerate(plan.encoded.scaled) if field in plan.statistics.scaled]
    frozen = [field for field in plan.encoded.vectors if not isinstance(field, SnapshotField)]
    vectors = [column for column, field in enumerate(frozen) if field.name in plan.tables]
    for name, kept, count in (("numbers", scaled, len(plan.encoded.scaled)), ("vectors", vectors, len(frozen))):
        if kept and len(kept) < count:
            lines.append(f"{name} = {name}{_columns(kept, count)}")
    return lines


def _embedding_layers(plan: Plan) -> list[str]:
    stored = {"fp32": "", "fp16": ", dtype=torch.float16"}
    if plan.stored == "int8":
        lines = ["self.embedding = Int8Table(VOCABULARY, EMBEDDING)"]
    else:
        lines = [f"self.embedding = nn.Embedding(VOCABULARY, EMBEDDING{stored[plan.stored]})"]
    if plan.statistics.scaled:
        lines.append(f"self.number_weights = nn.Parameter(torch.zeros({len(plan.statistics.scaled)}, EMBEDDING))")
    sizes = {field.name: field.size for field in plan.statistics.embedded}
    for field in plan.statistics.vectors:
        if isinstance(field, SnapshotField):
            periods = f"{field.window}, " if pooled_by_attention(field) else ""
            name, shape = plan.snapshots[field], f"{periods}{sizes[field.of]}, EMBEDDING"
        else:
            name, shape = plan.vector_names[field.name], f"{plan.tables[field.name]}, {field.width}"
        if plan.stored == "int8":
            lines.append(f"self.{name} = Int8Table({shape})")
        else:
            lines.append(f'self.register_buffer("{name}", torch.zeros({shape}{stored[plan.stored]}))')
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
    parts = [f"embedded{chosen}.flatten(1),"] if plan.singles else []
    for field in plan.lists:
        span = f"[:, {slots[field.name]}:{slots[field.name] + field.slots}]"
        parts.append(f"mean_of_known(embedded{span}, ids{span} != {offsets[field.name]}),  # {literal(field.name)}")
    if statistics.scaled:
        parts.append("(numbers[:, :, None] * self.number_weights).flatten(1),")
    frozen = list(plan.vector_names)
    for field in statistics.vectors:
        if isinstance(field, SnapshotField):
            parts.append(f"{_snapshots(plan, field)},  # {literal(field.name)}")
        else:
            attribute = plan.vector_names[field.name]
            column = frozen.index(field.name)
            parts.append(f"{_frozen(plan, attribute, f'vectors[:, {column}]')},  # {literal(field.name)}")
    if len(parts) == 1 and not plan.lists:
        return [*lines, f"return {_looked_up(plan, 'ids')}{chosen}.flatten(1)"]
    parts = [f"    {part}" for part in parts]
    return [*lines, f"embedded = {_looked_up(plan, 'ids')}", "parts = [", *parts, "]", "return torch.cat(parts, dim=1)"]


def _snapshots(plan: Plan, field: SnapshotField) -> str:
    """An expression of an id's pooled snapshots."""
    slot, offset = plan.slots[field.of], plan.statistics.offsets[field.of]
    rows = f"ids[:, {slot}] - {offset}" if offset else f"ids[:, {slot}]"
    if pooled_by_attention(field):
        return f"attention_pool(embedded[:, {slot}], {_frozen(plan, plan.snapshots[field], rows, True)})"
    return _frozen(plan, plan.snapshots[field], rows)


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
