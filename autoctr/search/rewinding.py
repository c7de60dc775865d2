"""Does rewinding help? Tickets at θ_k for several k, beside the same masks on weights that are drawn anew."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence

import torch

from autoctr.data.dataset import Dataset, Rows
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.search.seeds import derive
from autoctr.search.trial import snapshot_seed
from autoctr.training.cohort import Cohort, Member
from autoctr.training.fit import Splits, fit, score_members
from autoctr.training.intervals import Interval, mean_interval
from autoctr.training.periods import with_snapshots
from autoctr.training.rows import ResidentRows
from autoctr.training.tickets import error_barrier, find_tickets, give_masks


@dataclasses.dataclass(frozen=True)
class Rewind:
    """One k and one seed: validation and test scores of the ticket at θ_k and of its masks on fresh weights.

    ``barrier`` is the error barrier at θ_k in log-loss (None if it was not measured), ``kept`` the share of surviving
    weights, ``overlap`` the mean overlap of two units' masks.
    """

    passes: float
    seed: int
    ticket_valid: float
    ticket_test: float
    fresh_test: float
    barrier: float | None
    kept: float
    overlap: float | None


@dataclasses.dataclass(frozen=True)
class Rewinding:
    """All runs, the dense network's test scores per seed, and the k whose tickets validate best."""

    metric: str
    runs: list[Rewind]
    dense: list[float]

    @property
    def rewinds(self) -> list[float]:
        """The values of k, in passes over the training rows."""
        return list(dict.fromkeys(run.passes for run in self.runs))

    def at(self, passes: float) -> list[Rewind]:
        """The runs of one k, by seed."""
        return [run for run in self.runs if run.passes == passes]

    @property
    def best(self) -> float:
        """The k with the best mean validation score of its tickets."""
        sign = -1 if self.metric == "logloss" else 1
        return max(self.rewinds, key=lambda k: sign * statistics.fmean(run.ticket_valid for run in self.at(k)))

    def gain(self, passes: float) -> Interval:
        """Test score of the ticket less that of its masks on fresh weights, paired by seed."""
        return mean_interval([run.ticket_test - run.fresh_test for run in self.at(passes)])


def rewinding(
    dataset: Dataset,
    candidate: Candidate,
    rewinds: Sequence[float],
    *,
    seeds: int = 5,
    metric: str = "wauc",
    barrier_epochs: float | None = None,
    device: str = "cpu",
    on_line: Callable[[str], None] = lambda line: None,
) -> Rewinding:
    """Train tickets of ``candidate`` at each k and seed, and the same masks from weights drawn anew.

    Args:
        candidate: with a wiring and ``keep_rate`` below 1. rewinds: values of k, in passes over the training rows.
        seeds: of weights and batch order; all k and both starts share them.
        barrier_epochs: passes of the two trainings between which the error barrier is measured; None leaves it out.

    Raises:
        UserError: for a keep rate of 1, a negative k or less than one seed.
    """
    if candidate.keep_rate >= 1:
        raise UserError("the keep rate is 1, which prunes nothing; use one below 1")
    if seeds < 1 or not rewinds or min(rewinds) < 0:
        raise UserError("rewinding needs at least one seed and one k of 0 or more passes")
    place = torch.device(device)
    dataset = with_snapshots(dataset, candidate, seed=snapshot_seed(0), device=place)
    domains = len(dataset.statistics.domains)

    def resident(rows: Rows) -> ResidentRows:
        return ResidentRows(rows, domains, dtype=torch.float32, device=place)

    splits, test = Splits(resident(dataset.train), resident(dataset.valid)), resident(dataset.test)

    def trained(
        candidate: Candidate, start: Member | None, masks: torch.Tensor | None, seed: int
    ) -> tuple[float, float]:
        """Validation and test score."""
        cohort = Cohort.on(dataset, [candidate], device=place, start=[start])
        if masks is not None:
            give_masks(cohort, [masks])
        fitted = fit(cohort, splits, dataset, metric=metric, seed=derive(seed, 0, "batches"), epochs=candidate.epochs)
        cohort.restore(fitted.weights)
        return getattr(fitted.best, metric), getattr(score_members(cohort, test, dataset)[0], metric)

    runs, dense = [], []
    for seed in range(seeds):
        member = candidate.replace(seed=derive(seed, 0, "weights"))
        dense.append(trained(member.replace(keep_rate=1.0), None, None, seed)[1])
        on_line(f"seed {seed}: dense network, test {metric} {dense[-1]:.5f}")
        for passes in rewinds:
            (tickets,) = find_tickets(
                [member.replace(rewind=passes)], splits, dataset, seed=derive(seed, 0, "ticket batches"), device=place
            )
            barrier = None
            if barrier_epochs is not None:
                orders = (derive(seed, 1, "batches"), derive(seed, 2, "batches"))
                barrier = error_barrier(tickets.start, splits, dataset, seeds=orders, epochs=barrier_epochs)
            valid, score = trained(member, tickets.start, tickets.masks, seed)
            anew = member.replace(seed=derive(seed, 0, "weights drawn anew"))
            again = trained(anew, None, tickets.masks, seed)[1]
            kept = statistics.fmean(tickets.kept)
            runs.append(Rewind(passes, seed, valid, score, again, barrier, kept, tickets.overlap))
            on_line(f"seed {seed}: k = {passes:g} passes, ticket {score:.5f}, same masks on fresh weights {again:.5f}")
    return Rewinding(metric, runs, dense)
