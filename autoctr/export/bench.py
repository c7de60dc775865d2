"""How fast an export answers in each of its formats, beside a plain network of the same fields."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoctr.atomic import write_json
from autoctr.data.encoder import Encoder, FieldEncoder
from autoctr.data.statistics import Kind, Statistics
from autoctr.errors import UserError
from autoctr.export.card import CARD, sums
from autoctr.export.folder import write_model
from autoctr.export.formats import FORMATS, writable
from autoctr.export.scope import Scope
from autoctr.export.served import load_format
from autoctr.export.standalone import Model, check_files, predict, probabilities, read_encoder, reading
from autoctr.model.architecture import FIXED
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort

BATCHES = (1, 64, 4096)
SECONDS = 1.0  # of calls behind each figure, as long as these are
CALLS = (100, 1000)
WARM_UP = 3
CUTS = 256

Columns = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Speed:
    """One network at one batch size.

    ``network`` is ``export`` or ``plain``; ``values`` are ``encoded``, or ``raw`` ones that are encoded on the way.
    ``p50_ms`` and ``p99_ms`` are quantiles of the time of one answer, in milliseconds.
    """

    batch: int
    network: str
    format: str
    values: str
    rows_per_second: float
    p50_ms: float
    p99_ms: float
    calls: int


@dataclasses.dataclass(frozen=True)
class Bench:
    """Speeds on the CPU, measured in turns with ``threads`` threads on ``rows`` drawn rows."""

    rows: int
    threads: int
    speeds: tuple[Speed, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dataclasses.asdict(self)


def bench(folder: Path | str, *, rows: int = 16384, threads: int | None = None) -> Bench:
    """Time the export in ``folder`` at batches of 1, 64 and 4,096 rows.

    Rows are drawn at random from the values that its encoder knows, domains in equal parts. The plain network is the
    DCN-v2 of a study's trial 0, generated and served like the export, with random weights. In each round every network
    answers once, so that all of them meet the same load of the machine.

    Args:
        rows: how many are drawn; larger batches are left out.
        threads: to compute with; by default torch's own number.

    Raises:
        UserError: if the folder is no export, a library is missing, or a number is below 1.
    """
    for name, value in (("--rows", rows), ("--threads", threads)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
    folder, before = Path(folder), torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with tempfile.TemporaryDirectory() as plain:
            with reading(folder):
                card, encoder = check_files(folder, ("features.json",)), read_encoder(folder)
            kinds = writable(name for name, file in FORMATS.items() if file in card["files"])
            _write_plain(Path(plain), encoder, card["tasks"], kinds)
            served = {("export", kind): load_format(folder, kind) for kind in kinds}
            served |= {("plain", kind): load_format(plain, kind) for kind in kinds}
            columns = _drawn(encoder, rows)
            found = tuple(speed for batch in BATCHES if batch <= rows for speed in _speeds(served, columns, batch))
        return Bench(rows, torch.get_num_threads(), found)
    finally:
        torch.set_num_threads(before)


def bench_text(found: Bench) -> str:
    """A table for the terminal."""
    lines = [
        f"{found.rows:,} drawn rows, CPU, {found.threads} threads; plain is trial 0's DCN-v2 on the same fields",
        f"{'batch':>5}  {'network':8}{'format':8}{'values':8}{'rows/s':>12}{'p50 ms':>10}{'p99 ms':>10}",
    ]
    lines += [
        f"{speed.batch:5}  {speed.network:8}{speed.format:8}{speed.values:8}"
        f"{speed.rows_per_second:12,.0f}{speed.p50_ms:10.3f}{speed.p99_ms:10.3f}"
        for speed in found.speeds
    ]
    return "\n".join(lines)


def _speeds(served: Mapping[tuple[str, str], Model], columns: Columns, batch: int) -> Iterator[Speed]:
    """Every network's speed on encoded rows, and that of the export's python format on raw values."""
    raw = list(_cut(columns, batch))
    timed: dict[tuple[str, str, str], tuple[Callable[[Any], object], list[Any]]] = {}
    for (network, kind), model in served.items():
        encoded = [model.encoder.encode(part) for part in raw]
        inputs = [{name: getattr(part, name) for name in model.inputs} for part in encoded]
        timed[network, kind, "encoded"] = partial(probabilities, model), inputs
    first = served["export", "python"]
    timed["export", "python", "raw"] = partial(predict, first), raw
    for what, seconds in _in_turns(timed).items():
        p50, p99 = (1000 * float(np.quantile(seconds, share)) for share in (0.5, 0.99))
        yield Speed(batch, *what, batch * len(seconds) / sum(seconds), p50, p99, len(seconds))


def _in_turns(
    timed: Mapping[tuple[str, str, str], tuple[Callable[[Any], object], Sequence[Any]]],
) -> dict[tuple[str, str, str], list[float]]:
    """Seconds of every call."""
    seconds: dict[tuple[str, str, str], list[float]] = {what: [] for what in timed}
    for answer, given in timed.values():
        for turn in range(WARM_UP):
            answer(given[turn % len(given)])
    started, (fewest, most) = time.perf_counter(), CALLS
    for turn in range(most):
        if turn >= fewest and time.perf_counter() - started > SECONDS * len(timed):
            break
        for what, (answer, given) in timed.items():
            start = time.perf_counter()
            answer(given[turn % len(given)])
            seconds[what].append(time.perf_counter() - start)
    return seconds


def _cut(columns: Columns, batch: int) -> Iterator[Columns]:
    rows = len(next(iter(columns.values())))
    for start in range(0, rows - batch + 1, batch)[:CUTS]:
        yield {name: values[start : start + batch] for name, values in columns.items()}


def _drawn(encoder: Encoder, rows: int) -> Columns:
    """Raw columns of values that the encoder knows."""
    draw = np.random.default_rng(0)
    columns: dict[str, Any] = {encoder.domain: draw.choice(encoder.domains, rows).tolist()}
    # of several fields that read a column, a number decides what it holds, then the longest vocabulary
    for field in sorted(encoder.fields, key=lambda field: (field.kind is not Kind.NUMERIC, -len(field.vocabulary))):
        if field.source not in columns:
            columns[field.source] = _values(field, draw, rows)
    return columns


def _values(field: FieldEncoder, draw: np.random.Generator, rows: int) -> list[Any]:
    if field.kind is Kind.NUMERIC:
        if field.edges:
            return list(draw.uniform(field.edges[0], field.edges[-1], rows))
        return list(draw.normal(field.mean, field.std, rows))
    if not field.vocabulary:
        return [None] * rows
    if field.kind is Kind.MULTI:
        counts = draw.integers(0, field.slots + 1, rows)
        return [(field.separator or ",").join(draw.choice(field.vocabulary, count)) for count in counts]
    return [field.vocabulary[place] for place in draw.integers(0, len(field.vocabulary), rows)]


def _write_plain(folder: Path, encoder: Encoder, tasks: Sequence[str], kinds: Sequence[str]) -> None:
    """An export of trial 0's network with random weights."""
    reads_domain = [field.source == encoder.domain and field.kind is Kind.CATEGORICAL for field in encoder.fields]
    statistics = Statistics(
        fields=tuple(field.field for field in encoder.fields),
        domain_field=encoder.fields[reads_domain.index(True)].name,
        domains=encoder.domains,
        domain_rows=(1,) * len(encoder.domains),
        tasks=tuple(tasks),
        rates=(0.5,) * len(tasks),
    )
    candidate = Candidate()
    candidate = candidate.replace(wiring=FIXED[candidate.architecture](candidate.blocks))
    vectors = [field for field in encoder.fields if field.kind is Kind.VECTOR]
    tables = {field.name: torch.randn(len(field.vocabulary) + 1, field.width) for field in vectors}
    cohort = Cohort(statistics, [candidate], tables, ramp=1)
    write_model(folder, cohort, encoder, kinds, Scope.of(statistics, encoder))
    write_json(folder / CARD, {"tasks": list(tasks), "files": sums(folder)})
