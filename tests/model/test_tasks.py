"""Trap 4.7.8 of the ports of LT4REC: from which rows a conversion is learned, and on which it is scored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_dataset
from reference.metrics import auc as reference_auc
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model.candidate import Candidate
from autoctr.model.network import Batch
from autoctr.model.tasks import TASK_SPACES, counted_rows, entire_space
from autoctr.training.cohort import Cohort
from autoctr.training.fit import score_members
from model.networks import resident


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=200, tasks=TASKS)


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


def test_trap_4_7_8_the_entire_space_is_the_product_of_both_chances() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(scale=3, size=(2, 20, 3))
    chances = 1 / (1 + np.exp(-logits))
    expected = np.stack([chances[..., 0], *(chances[..., 0] * chances[..., t] for t in (1, 2))], -1)
    found = entire_space(torch.from_numpy(logits)).numpy()
    np.testing.assert_allclose(found, logit(expected), rtol=1e-9, atol=1e-9)


def test_the_entire_spaces_gradient_equals_central_differences() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, generator=draw, dtype=torch.float64).mul_(2).requires_grad_()
    assert torch.autograd.gradcheck(entire_space, (logits,))


@pytest.mark.parametrize("value", [-800.0, -40.0, 40.0, 800.0])
def test_the_entire_space_stays_finite_at_the_ends(value: float) -> None:
    logits = torch.full((1, 1, 2), value, dtype=torch.float32, requires_grad=True)
    found = entire_space(logits)
    assert bool(found.isfinite().all())
    (gradient,) = torch.autograd.grad(found.sum(), [logits])
    assert bool(gradient.isfinite().all())


def test_trap_4_7_8_only_clicked_rows_count_where_the_space_says_so() -> None:
    labels = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    assert counted_rows("all", labels) is None
    assert counted_rows("esmm", labels) is None
    counted = counted_rows("clicked", labels)
    assert counted is not None
    assert counted.tolist() == [[1, 1], [1, 1], [1, 0]]


def flipped(batch: Batch, where: Tensor) -> Batch:
    """The batch with the second label of some rows changed."""
    labels = batch.labels.clone()
    labels[where, 1] = 1 - labels[where, 1]
    return dataclasses.replace(batch, labels=labels)


@pytest.mark.parametrize("space", TASK_SPACES)
def test_trap_4_7_8_which_rows_a_step_learns_a_conversion_from(dataset: Dataset, space: str) -> None:
    rows = resident(dataset, "train", torch.float32)
    batch = next(rows.batches(0, 0, 64))
    unclicked = batch.labels[:, 0] == 0
    assert 0 < int(unclicked.sum()) < len(batch)

    def after(batch: Batch) -> Tensor:
        cohort = Cohort.on(dataset, [Candidate(embedding=4, width=8, task_space=space)])  # type: ignore[arg-type]
        cohort.step(batch)
        return cohort.flat

    plain = after(batch)
    assert torch.equal(plain, after(flipped(batch, unclicked))) == (space == "clicked")
    assert not torch.equal(plain, after(flipped(batch, ~unclicked)))


@pytest.mark.parametrize("space", TASK_SPACES)
def test_trap_4_7_8_which_rows_a_conversion_is_scored_on(dataset: Dataset, space: str) -> None:
    rows = resident(dataset, "valid", torch.float32)
    cohort = Cohort.on(dataset, [Candidate(embedding=4, width=8, task_space=space)])  # type: ignore[arg-type]
    logits, labels = cohort.logits(rows)[0, :, 1].numpy(), rows.labels.numpy()
    chosen = labels[:, 0] == 1 if space == "clicked" else np.full(len(labels), True)
    found = score_members(cohort, rows, dataset, task=1)[0].auc
    assert found == pytest.approx(reference_auc(labels[chosen, 1], logits[chosen]), abs=1e-9)
