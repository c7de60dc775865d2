"""A trial's network as its study kept it."""

from __future__ import annotations

from autoctr.data.dataset import Dataset
from autoctr.search.study import Study
from autoctr.search.trial import snapshot_seed
from autoctr.training import checkpoint
from autoctr.training.cohort import Cohort
from autoctr.training.periods import with_snapshots


def stored_network(study: Study, number: int, dataset: Dataset, device: str) -> tuple[Cohort, Dataset]:
    """A trial's network as it was kept, and the data set as that network reads it.

    Raises:
        UserError: if its weights are missing or damaged.
    """
    candidate = next(record.candidate for record in study.records() if record.number == number)
    seed, folder = snapshot_seed(study.settings.seed), study.folder / "snapshots"
    read = with_snapshots(dataset, candidate, seed=seed, device=device, folder=folder)
    return checkpoint.load(study.weights_path(number), read, device), read
