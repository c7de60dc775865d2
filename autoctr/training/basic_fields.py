"""The few fields of the tiny pre-training model of E-CDCTR (arXiv 2408.16238): the user, and what it meets."""

from __future__ import annotations

from collections.abc import Sequence

from autoctr.data.dataset import Dataset
from autoctr.data.encoder import Encoder
from autoctr.data.statistics import Kind, Statistics
from autoctr.errors import UserError


def user_field(dataset: Dataset) -> str | None:
    """The categorical input that carries the user, if there is one.

    Raises:
        UserError: if the encoder in the data set's folder cannot be read.
    """
    if dataset.folder is None:
        return None
    encoder = Encoder.load(dataset.folder)
    return next((f.name for f in encoder.fields if f.source == encoder.user and f.kind is Kind.CATEGORICAL), None)


def categorical(statistics: Statistics) -> dict[str, int]:
    """Rows of every categorical field beside the domain, by its name."""
    return {
        field.name: field.size
        for field in statistics.embedded
        if field.kind is Kind.CATEGORICAL and field.name != statistics.domain_field
    }


def basic_fields(statistics: Statistics, user: str | None, chosen: Sequence[str] = ()) -> tuple[str, ...]:
    """The fields of the tiny model beside the domain.

    Args:
        user: the field that carries the user.
        chosen: fields to take; none are the user and, of the others, the one with the largest vocabulary.

    Raises:
        UserError: for a field that is not categorical, or where there is none.
    """
    sizes = categorical(statistics)
    for name in chosen:
        if name not in sizes:
            raise UserError(f"TPM field {name!r} is not a categorical field; legal are {', '.join(sizes) or 'none'}")
    if not sizes:
        raise UserError("the data set has no categorical field beside the domain; the tiny model needs one")
    if chosen:
        return tuple(dict.fromkeys(chosen))
    largest = sorted(sizes, key=lambda name: -sizes[name])
    if user not in sizes:
        return tuple(largest[:2])
    return (user, *[name for name in largest if name != user][:1])
