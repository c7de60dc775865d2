"""Random rows for benchmarks of single steps: categorical fields with skewed ids, a few domains."""

from __future__ import annotations

import numpy as np
import torch

from autoctr.data.statistics import Field, Kind, Statistics
from autoctr.model.network import Batch
from autoctr.model.segments import Segments

FIELDS, DOMAINS = 8, 2


def statistics(ids: int) -> Statistics:
    """Eight fields, the first of them the domain, that hold about ``ids`` ids together."""
    sizes = [DOMAINS + 1] + [ids // (FIELDS - 1)] * (FIELDS - 1)
    fields = tuple(
        Field(name=f"f{number}", kind=Kind.CATEGORICAL, size=size, slots=1) for number, size in enumerate(sizes)
    )
    return Statistics(
        fields=fields,
        domain_field="f0",
        domains=tuple(str(number) for number in range(DOMAINS)),
        domain_rows=(600_000, 200_000),
        tasks=("click",),
        rates=(0.5,),
    )


def batch(known: Statistics, rows: int, seed: int, device: torch.device | str = "cpu") -> Batch:
    """Rows sorted by domain; ids fall off as 1/rank."""
    rng = np.random.default_rng(seed)
    columns = []
    for field in known.fields:
        ranks = np.exp(rng.random(rows) * np.log(field.size)).astype(np.int64) - 1
        columns.append(np.clip(ranks, 0, field.size - 1) + known.offsets[field.name])
    ids = torch.from_numpy(np.stack(columns, 1)).int()
    domain = torch.from_numpy(np.sort(rng.choice(DOMAINS, rows, p=[0.75, 0.25]))).long()
    ids[:, 0] = domain.int() + known.offsets["f0"]
    labels = torch.from_numpy((rng.random((rows, 1)) < 0.5).astype(np.float32))
    empty = torch.zeros(rows, 0)
    parts = (part.to(device) for part in (ids, empty, empty.int(), labels))
    return Batch(*parts, Segments(domain.to(device), DOMAINS, torch.float32, None))
