"""Domains that must not be worse off with a study's winner than with the plain network.

A domain's validation AUC may be below trial 0's by no more than ``TOLERANCE`` standard errors of that AUC, which follow
from the domain's clicks and rows. On the same rows the AUCs of two alike networks differ by a third of it (0.35; 4
networks beside trial 0 in the 10 domains of taobao-sim). Without a tolerance, a network that is as good in a domain is
refused there half of the time, and hardly any passes in ten: 11 of those 40 were below, 5 of them on the test split as
well, and every network was in some domain. With half a standard error 1 of the 40 is refused, rightly by the test rows,
and what passes is nowhere worse there by half a standard error. Small domains are the less protected for it, as far as
nobody can tell: :func:`noisy` names them. A confirmation compares means over seeds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoctr.errors import UserError
from autoctr.search.record import Record

if TYPE_CHECKING:
    from autoctr.data.dataset import Dataset

#: A network's scores by domain, :class:`~autoctr.training.metrics.DomainScore` as a trial stores them.
Domains = Mapping[str, Mapping[str, Any]]
ALL = "all"
#: In standard errors of the plain network's area; about one and a half times the noise of a difference.
TOLERANCE = 0.5
MOST_NAMES = 20
#: With fewer rows of either class on validation a domain is named as one where noise decides.
FEWEST_OF_A_CLASS = 100


def read_protected(given: str | Sequence[str], domains: Sequence[str]) -> tuple[str, ...]:
    """The domains that are to be protected, or ``all`` alone.

    Args:
        given: ``all`` or ``domain:NAME>=plain``, one or several. domains: of the data.

    Raises:
        UserError: for other words, or an unknown domain.
    """
    names: set[str] = set()
    for text in [given] if isinstance(given, str) else given:
        found = re.fullmatch(r"domain:(.+?)\s*>=\s*plain", text.strip())
        if found is None and text.strip() != ALL:
            raise UserError(f"protect is {text!r}; legal are {ALL} and domain:NAME>=plain")
        name = ALL if found is None else found[1]
        if found is not None and name not in domains:
            more = f", and {len(domains) - MOST_NAMES} more" if len(domains) > MOST_NAMES else ""
            raise UserError(f"unknown domain {name!r}; legal are {', '.join(domains[:MOST_NAMES])}{more}")
        names |= {ALL} if found is None else {name}
    return (ALL,) if ALL in names else tuple(name for name in domains if name in names)


def noisy(protected: Sequence[str], dataset: Dataset) -> list[str]:
    """The protected domains that have few validation rows of one class, so that noise decides there."""
    import numpy as np

    names, valid = dataset.statistics.domains, dataset.valid
    rows = np.bincount(valid.domain, minlength=len(names) + 1)
    ones = np.bincount(valid.domain, valid.labels[:, 0], minlength=len(names) + 1)
    fewest = dict(zip(names, np.minimum(ones, rows - ones), strict=False))
    return [name for name in _named(protected, names) if fewest[name] < FEWEST_OF_A_CLASS]


def worse(mine: Domains, plain: Domains, protected: Sequence[str]) -> dict[str, float]:
    """By how much a network's area under the curve is below the plain one's, in each protected domain where it is.

    It is where the difference is more than ``TOLERANCE`` standard errors of the plain network's area. A domain where
    the area is undefined, for want of a class, can be no worse; rows of unknown domains are no domain.

    Args:
        mine, plain: both networks' scores by domain, as a trial stores them.
    """
    found = {}
    for name in _named(protected, [name for name in plain if name != "unknown"]):
        area, its = (side[name]["auc"] if name in side else None for side in (mine, plain))
        if area is not None and its is not None and its - area > TOLERANCE * standard_error(plain[name]):
            found[name] = its - area
    return found


def standard_error(score: Mapping[str, Any]) -> float:
    """The standard error of an area under the curve A of P positive and N negative rows (Hanley & McNeil, 1982).

    √((A (1 - A) + (P - 1) (Q₁ - A²) + (N - 1) (Q₂ - A²)) / (P N)) with Q₁ = A / (2 - A) and Q₂ = 2 A² / (1 + A).
    """
    area, positives = score["auc"], score["positives"]
    negatives = score["rows"] - positives
    above, below = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    variance = area * (1 - area) + (positives - 1) * above + (negatives - 1) * below
    return math.sqrt(max(variance, 0.0) / (positives * negatives))


def _named(protected: Sequence[str], domains: Sequence[str]) -> Sequence[str]:
    return domains if ALL in protected else protected


def shortfalls(records: Sequence[Record], protected: Sequence[str]) -> dict[int, dict[str, float]]:
    """Of each finished trial that is worse than trial 0 in a protected domain on validation: where, and by how much.

    Empty until trial 0 has ended.
    """
    plain = next((record for record in records if record.number == 0 and record.state == "COMPLETE"), None)
    if not protected or plain is None:
        return {}
    ended = [record for record in records if record.state == "COMPLETE" and record.number > 0]
    found = {record.number: worse(_domains(record), _domains(plain), protected) for record in ended}
    return {number: where for number, where in found.items() if where}


def _domains(record: Record) -> Domains:
    return record.valid["domains"] if record.valid is not None else {}


def allowed(records: Sequence[Record], protected: Sequence[str]) -> list[Record]:
    """The trials that are no worse than trial 0 in any protected domain."""
    refused = shortfalls(records, protected)
    return [record for record in records if record.number not in refused]
