"""The rows that a batch touches: each once, or filled up without asking how many there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_data import fake_dataset
from model.networks import resident

from autoctr.training.touched import RowFinder
from training.cohorts import cohort_of, compare, discrete_members, train

CPU = torch.device("cpu")


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (40, 3), (7, 0), (0, 3)], ids=str)
def test_every_id_finds_its_row_and_every_row_stands_first_once(padded: bool, shape: tuple[int, int]) -> None:
    finder, draw = RowFinder(50, CPU, padded=padded), np.random.default_rng(0)
    for _ in range(3):  # marks of an earlier batch do not matter
        ids = torch.from_numpy(draw.integers(0, 50, shape).astype(np.int32))
        found = finder.find(ids)
        assert torch.equal(found.rows[found.positions.long()], ids.long())
        distinct = len(ids.unique())
        assert len(found.rows[:distinct].unique()) == distinct
        if not padded or not ids.numel():
            assert len(found.rows) == distinct
            assert found.place is None
            continue
        assert found.place is not None
        assert len(found.rows) == ids.numel()
        assert found.place.tolist() == [min(n, distinct - 1) for n in range(ids.numel())]
        assert torch.equal(found.rows, found.rows[found.place])
        assert int(found.positions.max()) < distinct


def test_filled_up_rows_train_as_distinct_ones() -> None:
    dataset = fake_dataset(rows=240, unseen=0.1)
    members, rows = discrete_members({}), resident(dataset, "train")
    ends = []
    for padded in (False, True):
        cohort = cohort_of(dataset, members, torch.float64)
        cohort.finder.padded = padded
        losses = train(cohort, rows, 30, wire=False)
        assert cohort.average is not None
        ends.append([losses, cohort.flat, cohort.table, cohort.sparse.second, *cohort.average.read(cohort.table)])
    for plain, filled in zip(*ends, strict=True):
        compare("filled up", filled, plain, 1e-12)
