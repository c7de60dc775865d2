"""A trained network on the test split: its metrics, and what they become on resamples of the users."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.training.bootstrap import RESAMPLES, bootstrap
from autoctr.training.cohort import Cohort
from autoctr.training.fit import score_logits
from autoctr.training.metrics import Scores, reliability
from autoctr.training.rows import ResidentRows


class HeldOut:
    """The only member of a cohort on the test rows of the data set that it reads."""

    def __init__(self, cohort: Cohort, dataset: Dataset) -> None:
        domains, device = len(dataset.statistics.domains), cohort.network.device
        self._cohort, self._dataset, self._domains = cohort, dataset, domains
        self._rows = ResidentRows(dataset.test, domains, dtype=torch.float32, device=device)

    def scores(self, task: int = 0) -> Scores:
        """The metrics of a label."""
        return score_logits(self._cohort, self._logits, self._rows, self._dataset, task)[0]

    def resampled(self, seed: int, resamples: int = RESAMPLES, *, each_domain: bool = False) -> dict[str, Tensor]:
        """The first label's metrics on resamples of the users; see :func:`autoctr.training.bootstrap.bootstrap`."""
        rows = self._rows
        return bootstrap(
            self._logits[0, :, 0],
            rows.labels[:, 0],
            rows.domain,
            self._domains + 1,
            rows.user,
            seed=seed,
            resamples=resamples,
            each_domain=each_domain,
        )

    def reliability(self) -> list[tuple[float, float, int]]:
        """The first label's; see :func:`autoctr.training.metrics.reliability`."""
        return reliability(self._logits[0, :, 0].double().sigmoid(), self._rows.labels[:, 0])

    @functools.cached_property
    def _logits(self) -> Tensor:
        return self._cohort.logits(self._rows)
