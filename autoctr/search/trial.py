"""One candidate from genes to a trained network.

Snapshots, supernet, read-out, warm start, tickets, final fit, truncation: as far as the genes switch them on.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate, ranks
from autoctr.model.fusion import FusionNetwork, open_multiply_adds
from autoctr.search.oneshot import (
    Gap,
    discretisation_gap,
    discretise,
    read_out,
    search_rows,
    supernet_candidate,
    train_supernet,
)
from autoctr.search.seeds import derive
from autoctr.training import checkpoint
from autoctr.training.adapters import adapted, smallest_ranks, truncated
from autoctr.training.cohort import Cohort
from autoctr.training.fit import Fitted, Rung, Splits, fit, score_members
from autoctr.training.periods import rich_domains, visited_rows, with_snapshots
from autoctr.training.rows import ResidentRows
from autoctr.training.tickets import Tickets, find_tickets, train_rows


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A trained candidate: its cohort of one member holds the weights of the best rung.

    ``gap`` is the discretisation's, ``closed`` the share of closed neurons of every pruned layer and domain on the
    validation rows, ``multiply_adds`` per row with every neuron and without the closed ones of each domain,
    ``kept`` each ticket's share of surviving weights and ``overlap`` the mean overlap of two tickets;
    None where the method is off.
    """

    candidate: Candidate
    cohort: Cohort
    fitted: Fitted
    gap: Gap | None = None
    closed: dict[str, list[float]] | None = None
    multiply_adds: dict[str, int | list[int]] | None = None
    kept: tuple[float, ...] | None = None
    overlap: float | None = None


def snapshot_seed(seed: int) -> int:
    """The seed of a study's tiny models, so that equal genes share snapshots."""
    return derive(seed, 0, "snapshots")


class Laboratory:
    """Everything a trial needs beside its candidate: data on the device, metric, seed, and what trials share.

    Args:
        folder: where trained supernets and snapshots are kept, in ``supernets`` and ``snapshots``.
    """

    def __init__(self, dataset: Dataset, *, metric: str, seed: int, device: torch.device, folder: Path) -> None:
        self.dataset, self.metric, self.seed, self.device = dataset, metric, seed, device
        self.supernets, self.snapshots = folder / "supernets", folder / "snapshots"
        self._reader: tuple[tuple[object, ...], Laboratory] | None = None
        domains = len(dataset.statistics.domains)
        self.splits = Splits(
            ResidentRows(dataset.train, domains, dtype=torch.float32, device=device),
            ResidentRows(dataset.valid, domains, dtype=torch.float32, device=device),
        )

    def run(
        self,
        candidate: Candidate,
        *,
        deadline: float = math.inf,
        on_rung: Callable[[Rung], bool] = lambda rung: True,
        on_stage: Callable[[str], None] = lambda stage: None,
    ) -> Outcome:
        """Train one candidate.

        Raises:
            OutOfTime: if ``deadline`` (``time.monotonic()``) passes before its first score.
            Diverged: if its scores are no longer numbers.
        """
        if not candidate.snapshots:
            return self._run(candidate, 0, deadline, on_rung, on_stage)
        on_stage("snapshots")
        reader, visited = self.reader(candidate, deadline), visited_rows(self.dataset, candidate)
        return reader._run(candidate, visited, deadline, on_rung, on_stage)

    def reader(self, candidate: Candidate, deadline: float = math.inf) -> Laboratory:
        """The laboratory whose rows read the candidate's snapshots; itself where they are off.

        It shares everything else, and only the latest one is kept.

        Raises:
            OutOfTime: if ``deadline`` (``time.monotonic()``) passes.
        """
        if not candidate.snapshots:
            return self
        genes = (candidate.snapshots, candidate.pooling, candidate.warm_share, candidate.embedding)
        if self._reader is None or self._reader[0] != genes:
            self._reader = None
            dataset = with_snapshots(
                self.dataset,
                candidate,
                seed=snapshot_seed(self.seed),
                device=self.device,
                folder=self.snapshots,
                deadline=deadline,
            )
            reader = copy.copy(self)
            reader.dataset = dataset
            reader.splits = Splits(
                self.splits.train.reading(dataset.train.vectors), self.splits.valid.reading(dataset.valid.vectors)
            )
            self._reader = (genes, reader)
        return self._reader[1]

    def _run(
        self,
        candidate: Candidate,
        visited: int,
        deadline: float,
        on_rung: Callable[[Rung], bool],
        on_stage: Callable[[str], None],
    ) -> Outcome:
        """All stages after the snapshots, for which ``visited`` rows have been visited."""
        gap: Gap | None = None
        start: Cohort | None = None
        if candidate.architecture == "learn":
            on_stage("supernet")
            rows, seed = len(self.splits.train), derive(self.seed, 0, "supernet")
            supernet = self._supernet(supernet_candidate(candidate, seed, rows), deadline)
            visited += search_rows(candidate, rows)
            if candidate.wiring is None:
                on_stage("read-out")
                candidate = candidate.replace(wiring=read_out(supernet, candidate, self.splits, self.dataset))
            assert candidate.wiring is not None
            discrete = discretise(supernet, candidate.wiring, self.dataset)
            gap = discretisation_gap(supernet, discrete, self.splits, self.dataset, self.metric)
            if candidate.retrain == "supernet":
                start = supernet
        if candidate.warm_start:
            on_stage("warm start")
            warm = self._warm(candidate, start, deadline)
            visited += warm.rows
            start = self._cohort(candidate, start=warm, fresh_norm=True)
        tickets: Tickets | None = None
        if candidate.keep_rate < 1:
            on_stage("tickets")
            seed = derive(self.seed, 0, "ticket batches")
            tickets = find_tickets(
                candidate, self.splits, self.dataset, seed=seed, device=self.device, start=start, deadline=deadline
            )
            start = tickets.start
            visited += tickets.rows
        on_stage("fit")
        masks = None if tickets is None else tickets.masks
        cohort, fitted = self._fit(candidate, start, masks, visited, deadline, on_rung)
        if candidate.truncate and adapted(cohort):
            on_stage("truncation")
            cohort = truncated(cohort, smallest_ranks(cohort, self.splits.valid, self.dataset), self.dataset)
            candidate = cohort.network.candidates[0]
            best = score_members(cohort, self.splits.valid, self.dataset)[0]
            fitted = dataclasses.replace(fitted, weights=cohort.weights(), best=best)
        closed = {name: share[0].tolist() for name, share in cohort.closed(self.splits.valid).items()}
        return Outcome(
            candidate=candidate,
            cohort=cohort,
            fitted=fitted,
            gap=gap,
            closed=closed or None,
            multiply_adds=self._multiply_adds(candidate, closed) if closed else None,
            kept=None if tickets is None else tickets.kept,
            overlap=None if tickets is None else tickets.overlap,
        )

    def _multiply_adds(self, candidate: Candidate, closed: dict[str, list[float]]) -> dict[str, int | list[int]]:
        statistics = self.dataset.statistics
        dense = FusionNetwork.multiply_adds(candidate, statistics)
        return {"dense": dense, "open": open_multiply_adds(candidate, statistics, closed)}

    def _cohort(self, candidate: Candidate, **options: Any) -> Cohort:
        return Cohort.on(self.dataset, [candidate], device=self.device, **options)

    def _fit(
        self,
        candidate: Candidate,
        start: Cohort | None,
        masks: Tensor | None,
        visited: int,
        deadline: float,
        on_rung: Callable[[Rung], bool],
    ) -> tuple[Cohort, Fitted]:
        """The final fit; with a frozen schedule the shared network first, then the adapters alone, A drawn afresh."""

        def trained(cohort: Cohort, rows: int, score_start: bool) -> Fitted:
            fitted = fit(
                cohort,
                self.splits,
                self.dataset,
                metric=self.metric,
                seed=derive(self.seed, 0, "batches"),
                epochs=candidate.epochs,
                visited=rows,
                deadline=deadline,
                on_rung=on_rung,
                score_start=score_start,
            )
            cohort.restore(fitted.weights)
            return fitted

        if candidate.lora_schedule == "joint" or not any(ranks(candidate, self.dataset.statistics.domain_rows)):
            cohort = self._cohort(candidate, start=start, masks=masks)
            return cohort, trained(cohort, visited, score_start=False)
        shared = self._cohort(candidate.replace(rank=0, rank_divisor=0, domain_ranks=None), start=start, masks=masks)
        first = trained(shared, visited, score_start=False)
        cohort = self._cohort(candidate, start=shared, masks=masks, adapters_only=True)
        if first.reason in ("weak", "time", "diverged"):
            return cohort, dataclasses.replace(first, weights=cohort.weights())
        second = trained(cohort, visited + shared.rows, score_start=True)
        return cohort, dataclasses.replace(second, rungs=[*first.rungs, *second.rungs])

    def _warm(self, candidate: Candidate, start: Cohort | None, deadline: float) -> Cohort:
        """The network after passes over the richest domains' rows alone (E-CDCTR's complete pre-training)."""
        train = self.splits.train
        source = torch.tensor(rich_domains(self.dataset.statistics, candidate.warm_share), device=self.device)
        chosen = torch.isin(train.domain, source)
        cohort = self._cohort(candidate, start=start)
        train_rows(
            cohort,
            train,
            math.ceil(candidate.warm_start * int(chosen.sum())),
            seed=derive(self.seed, 0, "warm batches"),
            batch=candidate.batch,
            chosen=chosen,
            deadline=deadline,
        )
        return cohort

    def _supernet(self, candidate: Candidate, deadline: float) -> Cohort:
        """The trained supernet, from the study's cache if a trial with the same genes has trained it."""
        key = hashlib.blake2b(candidate.canonical().encode(), digest_size=12).hexdigest()
        path = self.supernets / f"{key}.safetensors"
        if path.exists():
            try:
                return checkpoint.load(path, self.dataset, self.device)
            except UserError:
                path.unlink()
        seed = derive(self.seed, 0, "supernet batches")
        supernet = train_supernet(
            candidate, self.splits, self.dataset, seed=seed, device=self.device, deadline=deadline
        )
        checkpoint.save(path, supernet.network, supernet.weights())
        return supernet
