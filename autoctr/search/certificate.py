"""What a confirmation proves: the winner beside every plain network, as numbers that a study can store."""

from __future__ import annotations

import dataclasses
from typing import Any

from autoctr.training.intervals import Difference, Interval


@dataclasses.dataclass(frozen=True)
class PlainNetwork:
    """A plain network's test metric over the seeds, and by how much the winner is better."""

    test: Interval
    lead: Difference


@dataclasses.dataclass(frozen=True)
class DomainLead:
    """A domain's test rows, and by how much the winner's area under the curve is larger there; None if undefined."""

    rows: int
    lead: Difference | None


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The winner of a confirmation beside the plain networks.

    Leads are positive where the winner is better, also in log-loss. Each is paired over the seeds and over resamples of
    the test users, at a level that is corrected for the number of networks or domains, so that all hold together with
    95 % (Bonferroni).

    Attributes:
        metric: that was searched. seeds: how many times each network was trained. trials: of the study by then.
        winner: its trial.
        valid: validation metric over the seeds of trial 0 and the finalists, by trial.
        test: of the winner.
        plain: the plain networks by name, those that are the winner itself left out.
        level: of their leads.
        domains: the leads over the strongest plain network by domain, at ``domain_level``.
        seen: whether the test split had been read before the winner was chosen.
        seconds: of search, of the study and of those that the plain networks come from.
        worse: by how much a trial's mean on validation is below trial 0's in protected domains, so that it cannot win.
    """

    metric: str
    seeds: int
    trials: int
    winner: int
    valid: dict[str, Interval]
    test: Interval
    plain: dict[str, PlainNetwork]
    level: float
    domains: dict[str, DomainLead]
    domain_level: float
    seen: bool
    seconds: dict[str, float]
    worse: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    @property
    def strongest(self) -> str | None:
        """The plain network over which the winner's lead is least; None where the winner is the only one."""
        return min(self.plain, key=lambda name: self.plain[name].lead.seeds.mean, default=None)

    @property
    def verdict(self) -> str:
        """``better`` than all plain networks, ``worse`` than some, or else ``not distinguishable`` from the strongest.

        It is ``plain`` where the winner is itself the only plain network.
        """
        signs = [network.lead.sign for network in self.plain.values()]
        if not signs:
            return "plain"
        return "better" if min(signs) > 0 else "worse" if min(signs) < 0 else "not distinguishable"

    @property
    def worst_domain(self) -> str | None:
        """The domain with the least lead."""
        known = {name: domain.lead.seeds.mean for name, domain in self.domains.items() if domain.lead is not None}
        return min(known, key=lambda name: known[name], default=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, with what can be said in words."""
        words = {name: getattr(self, name) for name in ("strongest", "verdict", "worst_domain")}
        return {**dataclasses.asdict(self), **words}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Certificate:
        """The inverse of :meth:`to_dict`."""
        stored = {field.name: value[field.name] for field in dataclasses.fields(cls) if field.name in value}
        stored["valid"] = {name: Interval(**own) for name, own in stored["valid"].items()}
        stored["test"] = Interval(**stored["test"])
        stored["plain"] = {
            name: PlainNetwork(Interval(**own["test"]), _difference(own["lead"]))
            for name, own in stored["plain"].items()
        }
        stored["domains"] = {
            name: DomainLead(own["rows"], None if own["lead"] is None else _difference(own["lead"]))
            for name, own in stored["domains"].items()
        }
        return cls(**stored)


def _difference(value: dict[str, Any]) -> Difference:
    users = value["users"]
    return Difference(Interval(**value["seeds"]), None if users is None else (users[0], users[1]))
