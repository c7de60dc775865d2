from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_data import TASKS, Columns, fake_columns, fake_dataset, fake_encoder

from autoctr.data.dataset import Dataset
from autoctr.export.folder import write_folder
from autoctr.export.verify import searched_probabilities
from autoctr.model.architecture import CONCAT
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort
from export.members import member, uniform_wiring

ROWS = 300
WIRING = uniform_wiring(CONCAT)
CANDIDATE = Candidate(embedding=4, width=8, blocks=2, wiring=WIRING, rank=2, rank_tilt=1.5, sparsity=0.3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return fake_dataset(tmp_path_factory.mktemp("data") / "fake", tasks=TASKS)


@pytest.fixture(scope="module")
def cohort(dataset: Dataset) -> Cohort:
    return member(dataset, CANDIDATE)


@pytest.fixture(scope="module")
def exported(dataset: Dataset, cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written, difference = write_folder(cohort, dataset, tmp_path_factory.mktemp("out") / "winner", {})
    assert difference < 1e-5
    moved = tmp_path_factory.mktemp("elsewhere") / "a folder"
    shutil.move(written, moved)
    return moved


@pytest.fixture(scope="module")
def columns() -> Columns:
    """Raw values with unseen and missing ones, without labels, with a column that the model does not know."""
    raw = fake_columns(ROWS, 11, (), unseen=0.15)
    raw["user"][3] = raw["item"][5] = None
    return {**raw, "impression": list(range(ROWS))}


@pytest.fixture(scope="module")
def expected(cohort: Cohort, columns: Columns) -> np.ndarray:
    return searched_probabilities(cohort, fake_encoder(TASKS).encode(columns), torch.float32)
