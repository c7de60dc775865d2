"""Which of a network's domains an export holds, and how rows are encoded for it.

The others become unknown domains: they lose their number, and their value of the domain's field its embedding row.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autoctr.data.dataset import Rows
from autoctr.data.encoder import Encoder, FieldEncoder
from autoctr.data.statistics import Statistics
from autoctr.errors import UserError

SHOWN = 50


@dataclasses.dataclass(frozen=True)
class Scope:
    """The exported domains.

    ``statistics`` are those of the searched network and ``numbers`` the exported ones of its domains, ascending.
    ``ids`` are the rows of its embedding table that hold its domains, then the row of unknown ones.
    """

    statistics: Statistics
    numbers: tuple[int, ...]
    ids: tuple[int, ...]

    @classmethod
    def of(cls, statistics: Statistics, encoder: Encoder, names: Sequence[str] | None = None) -> Scope:
        """The domains of these names, each by itself or several with commas between them; None = all.

        Raises:
            UserError: for a name that is none of a domain.
        """
        field, offset = _domain_field(statistics, encoder), statistics.offsets[statistics.domain_field]
        ids = [offset + field.index.get(name, field.unknown) for name in statistics.domains]
        return cls(statistics, _numbers(statistics, names), (*ids, offset + field.unknown))

    @property
    def is_whole(self) -> bool:
        """Whether every domain is exported."""
        return len(self.numbers) == len(self.statistics.domains)

    @property
    def domain_ids(self) -> list[int]:
        """Rows of the searched embedding table that hold the exported domains, then unknown ones."""
        return [self.ids[number] for number in self.numbers] + [self.ids[-1]]

    @functools.cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """The rows of the searched embedding table that are exported, ascending."""
        every = np.arange(self.statistics.vocabulary)
        if self.is_whole:
            return every
        field = next(f for f in self.statistics.embedded if f.name == self.statistics.domain_field)
        first = self.statistics.offsets[field.name]
        others = (every >= first) & (every < first + field.size) & ~np.isin(every, self.domain_ids)
        return every[~others]

    @functools.cached_property
    def exported(self) -> Statistics:
        """What the export must know of the data set."""
        old, removed = self.statistics, self.statistics.vocabulary - len(self.rows)
        fields = [
            dataclasses.replace(field, size=field.size - removed) if field.name == old.domain_field else field
            for field in old.fields
        ]
        return dataclasses.replace(
            old,
            fields=tuple(fields),
            domains=tuple(old.domains[number] for number in self.numbers),
            domain_rows=tuple(old.domain_rows[number] for number in self.numbers),
        )

    def encoder(self, encoder: Encoder) -> Encoder:
        """``encoder`` without the other domains."""
        if self.is_whole:
            return encoder
        names, domain = set(self.exported.domains), _domain_field(self.statistics, encoder)
        known = tuple(value for value in domain.vocabulary if value in names)
        fields = tuple(
            dataclasses.replace(field, vocabulary=known) if field is domain else field for field in encoder.fields
        )
        return dataclasses.replace(encoder, fields=fields, domains=self.exported.domains)

    def searched_rows(self, rows: Rows) -> Rows:
        """Rows for the searched network in which every other domain is unknown."""
        if self.is_whole:
            return rows
        known = np.isin(rows.domain, self.numbers)
        domain = np.where(known, rows.domain, len(self.statistics.domains)).astype(rows.domain.dtype)
        slot = domain_slot(self.statistics)
        ids = np.array(rows.ids)
        ids[~known, slot] = self.ids[-1]
        return dataclasses.replace(rows, ids=ids, domain=domain)

    def exported_rows(self, rows: Rows) -> Rows:
        """Rows as the export's encoder makes them."""
        if self.is_whole:
            return rows
        rows = self.searched_rows(rows)
        places = np.full(len(self.statistics.domains) + 1, len(self.numbers))
        places[list(self.numbers)] = np.arange(len(self.numbers))
        ids = np.searchsorted(self.rows, rows.ids).astype(rows.ids.dtype)
        return dataclasses.replace(rows, ids=ids, domain=places[rows.domain].astype(rows.domain.dtype))

    def take(self, values: Tensor) -> Tensor:
        """The exported domains' entries of one per domain, [D, ...]."""
        return values if self.is_whole else values[torch.tensor(self.numbers, device=values.device)]


def domain_slot(statistics: Statistics) -> int:
    """The column of ``ids`` that holds the domain."""
    slot = 0
    for field in statistics.embedded:
        if field.name == statistics.domain_field:
            return slot
        slot += field.slots
    raise ValueError(f"the domain {statistics.domain_field} is no embedded field")


def _domain_field(statistics: Statistics, encoder: Encoder) -> FieldEncoder:
    return next(field for field in encoder.fields if field.name == statistics.domain_field)


def _numbers(statistics: Statistics, given: Sequence[str] | None) -> tuple[int, ...]:
    every = statistics.domains
    if given is None:
        return tuple(range(len(every)))
    names: list[str] = []
    for text in given:
        names += [text] if text in every else [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in every]
    if unknown or not names:
        shown = f"there is no domain {', '.join(map(repr, unknown))}" if unknown else "no domain is named"
        more = f", ... ({len(every)} in all)" if len(every) > SHOWN else ""
        raise UserError(f"{shown}; legal are {', '.join(every[:SHOWN])}{more}")
    return tuple(number for number, name in enumerate(every) if name in names)
