"""What a model must know of a dataset: fields, sizes, domains, tasks. Fitted on the training split only."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """How a column is read."""

    CATEGORICAL = "categorical"
    NUMERIC = "numeric"
    MULTI = "multi"
    VECTOR = "vector"


@dataclasses.dataclass(frozen=True)
class Field:
    """One input column after encoding.

    ``size`` is its number of embedding rows. Row 0 is the value that is missing, unseen or too rare
    (``multi``: row 0 is padding and row 1 that value). It is 0 for columns without an embedding.
    ``slots`` is how many columns of ``Rows.ids`` it fills, ``width`` the length of its frozen vector.
    A numeric column cut into bins has ``size`` > 0 and one slot, a scaled one has neither.
    """

    name: str
    kind: Kind
    size: int = 0
    slots: int = 0
    width: int = 0


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Everything a network is built from; the data itself is not needed.

    ``fields`` come in the schema's order. ``domains`` are the names of the D domains, ``domain_rows`` their
    training rows and ``domain_field`` the categorical field that carries the domain. ``tasks`` are the
    labels, ``rates`` their share of ones in the training split.
    """

    fields: tuple[Field, ...]
    domain_field: str
    domains: tuple[str, ...]
    domain_rows: tuple[int, ...]
    tasks: tuple[str, ...]
    rates: tuple[float, ...]

    @property
    def embedded(self) -> tuple[Field, ...]:
        """Fields with rows in the embedding table, in the order of their slots."""
        return tuple(field for field in self.fields if field.size)

    @property
    def scaled(self) -> tuple[Field, ...]:
        """Numeric fields that enter as one standardised number each."""
        return tuple(field for field in self.fields if field.kind is Kind.NUMERIC and not field.size)

    @property
    def vectors(self) -> tuple[Field, ...]:
        """Fields looked up in a side table of frozen vectors."""
        return tuple(field for field in self.fields if field.kind is Kind.VECTOR)

    @property
    def vocabulary(self) -> int:
        """Rows of the joint embedding table."""
        return sum(field.size for field in self.fields)

    @property
    def offsets(self) -> dict[str, int]:
        """First row of every embedded field in the joint embedding table."""
        start, result = 0, {}
        for field in self.embedded:
            result[field.name] = start
            start += field.size
        return result

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Statistics:
        """Inverse of :meth:`to_dict`."""
        fields = tuple(Field(**{**field, "kind": Kind(field["kind"])}) for field in value["fields"])
        rest = {name: tuple(value[name]) for name in ("domains", "domain_rows", "tasks", "rates")}
        return cls(fields=fields, domain_field=value["domain_field"], **rest)
