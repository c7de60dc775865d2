"""One candidate from genes to a trained network: supernet, read-out, final fit."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import torch

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
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
from autoctr.training.cohort import Cohort
from autoctr.training.fit import Fitted, Rung, Splits, fit, ramp_rows
from autoctr.training.rows import ResidentRows


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A trained candidate: its cohort of one member holds the weights of the best rung."""

    candidate: Candidate
    cohort: Cohort
    fitted: Fitted
    gap: Gap | None


class Laboratory:
    """Everything a trial needs beside its candidate: data on the device, metric, seed, and where supernets are kept."""

    def __init__(self, dataset: Dataset, *, metric: str, seed: int, device: torch.device, supernets: Path) -> None:
        self.dataset, self.metric, self.seed, self.device, self.supernets = dataset, metric, seed, device, supernets
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
        visited, gap = 0, None
        start: Cohort | None = None
        if candidate.architecture == "learn":
            on_stage("supernet")
            supernet = self._supernet(supernet_candidate(candidate, derive(self.seed, 0, "supernet")), deadline)
            visited = search_rows(candidate, len(self.splits.train))
            if candidate.wiring is None:
                on_stage("read-out")
                candidate = candidate.replace(wiring=read_out(supernet, candidate, self.splits, self.dataset))
            assert candidate.wiring is not None
            discrete = discretise(supernet, candidate.wiring, self.dataset)
            gap = discretisation_gap(supernet, discrete, self.splits, self.dataset, self.metric)
            if candidate.retrain == "supernet":
                start = supernet
        on_stage("fit")
        cohort = Cohort(
            self.dataset.statistics,
            [candidate],
            checkpoint.frozen_tables(self.dataset),
            ramp=ramp_rows(len(self.splits.train)),
            device=self.device,
            start=start,
        )
        fitted = fit(
            cohort,
            self.splits,
            self.dataset,
            metric=self.metric,
            seed=derive(self.seed, 0, "batches"),
            epochs=candidate.epochs,
            visited=visited,
            deadline=deadline,
            on_rung=on_rung,
        )
        cohort.restore(fitted.weights)
        return Outcome(candidate, cohort, fitted, gap)

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
