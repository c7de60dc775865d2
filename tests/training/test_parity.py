"""A member's result does not depend on who else is in its cohort."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_data import fake_dataset
from model.networks import resident

from autoctr.data.dataset import Dataset
from autoctr.data.statistics import Kind
from autoctr.model.architecture import ADD, Architecture, Node, one_hot, parallel, stacked
from autoctr.model.candidate import Candidate
from training.cohorts import SHAPE, assert_same, cohort_of, compare, discrete_members, relaxed_members, train

STEPS = 200


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=240, kinds=(Kind.MULTI, Kind.NUMERIC), unseen=0.1)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("discrete", {}),
        ("discrete", {"norm": "batch", "cross": "vector", "sparsity_form": "binarization", "pruner_input": "domain"}),
        ("supernet", {}),
        ("supernet", {"norm": "batch", "cross": "vector"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "plain",
)
def test_eight_together_are_eight_alone_after_200_steps(dataset: Dataset, kind: str, shape: dict[str, Any]) -> None:
    wire = kind == "supernet"
    members = relaxed_members(shape) if wire else discrete_members(shape)
    tolerance = 1e-9
    train_rows, valid_rows = resident(dataset, "train"), resident(dataset)
    together = cohort_of(dataset, members, torch.float64)
    start = together.weights().copy()
    losses = train(together, train_rows, STEPS, wire)
    logits = together.logits(valid_rows)
    assert bool(losses.isfinite().all())
    assert bool(((together.flat - start.flat).abs().amax(1) > 1e-2).all())
    if wire:
        assert bool(((together.architecture - start.architecture).abs().amax(1) > 1e-2).all())
    for k, candidate in enumerate(members):
        if shape and k % 3 != 1:
            continue
        alone = cohort_of(dataset, [candidate], torch.float64)
        assert alone.network.normalisation.size <= together.network.normalisation.size
        alone_losses = train(alone, train_rows, STEPS, wire)
        compare("losses", losses[:, k], alone_losses[:, 0], 1e-9)
        compare("logits", logits[k], alone.logits(valid_rows)[0], tolerance)
        compare("table", together.table[:, k], alone.table[:, 0], tolerance)
        compare("architecture", together.architecture[k], alone.architecture[0], tolerance)
        if together.running.shape[1] == alone.running.shape[1]:
            compare("running", together.running[k], alone.running[0], tolerance)
        assert_same(together, alone, k, (together.flat, alone.flat), tolerance)


@pytest.mark.parametrize("kind", ["discrete", "supernet"])
def test_one_steps_gradients_in_float32_agree_to_1e_5(dataset: Dataset, kind: str) -> None:
    wire = kind == "supernet"
    members = relaxed_members({}) if wire else discrete_members({})
    batch = next(resident(dataset, "train", torch.float32).batches(5, 0, 24))
    together = cohort_of(dataset, members, torch.float32)
    together.step(batch, wire=wire)
    for k, candidate in enumerate(members):
        alone = cohort_of(dataset, [candidate], torch.float32)
        alone.step(batch, wire=wire)
        # after one step Adam's first moments are a tenth of the gradients
        largest = float(alone.dense.first.abs().max())
        assert_same(together, alone, k, (together.dense.first, alone.dense.first), 1e-5 * largest)
        rows = float(alone.sparse.first.abs().max())
        compare("table", together.sparse.first[:, k], alone.sparse.first[:, 0], 1e-5 * rows)
        if wire:
            gates = float(alone.wiring.first.abs().max())
            compare("architecture", together.wiring.first[k], alone.wiring.first[0], 1e-5 * gates)


def test_the_band_penalty_counts_the_members_own_deep_components_only(dataset: Dataset) -> None:
    settings: dict[str, Any] = SHAPE | {"blocks": 2, "sparsity": 0.9, "dropout": 0.0}
    one_deep, two_deep = (Candidate(**settings, wiring=wiring) for wiring in (stacked(2), parallel(2)))
    batch = next(resident(dataset, "train").batches(5, 0, 24))
    losses = []
    for members in ([one_deep], [one_deep, two_deep]):
        cohort = cohort_of(dataset, members, torch.float64)
        cohort.ramped = 1000
        unused = cohort.network.layout.views(cohort.flat).get("D1.pruner.bias")
        if unused is not None:
            unused[0] = -100.0  # would close all neurons of a component that the member does not have
        losses.append(float(cohort.step(batch)[0]))
    # all its neurons are open, so the penalty of its one deep component is 10 * 0.9^2, whoever else is there
    assert losses[0] > 8.1
    assert losses[1] == pytest.approx(losses[0], abs=1e-9)


def test_a_dead_node_may_read_what_no_member_needs(dataset: Dataset) -> None:
    first = Node((True, False), one_hot(ADD))
    dead = Node((False, False, False, True), one_hot(ADD))  # C2 reads D1
    skipping = Node((True, False, False, False), one_hot(ADD))
    # D2 only, C2 is dead; and the other way about
    wirings = [
        Architecture((first, first, dead, skipping, Node((False,) * 5 + (True,), one_hot(ADD)))),
        Architecture((first, first, skipping, dead, Node((False,) * 4 + (True, False), one_hot(ADD)))),
    ]
    members = [Candidate(**SHAPE, blocks=2, wiring=wiring, seed=n) for n, wiring in enumerate(wirings)]
    rows = resident(dataset)
    together = cohort_of(dataset, members, torch.float64).logits(rows)
    for k, candidate in enumerate(members):
        compare("logits", together[k], cohort_of(dataset, [candidate], torch.float64).logits(rows)[0], 1e-12)


def test_a_member_that_becomes_not_a_number_leaves_the_others_alone(dataset: Dataset) -> None:
    members = discrete_members({})[:2]
    rows = resident(dataset, "train")
    together, alone = cohort_of(dataset, members, torch.float64), cohort_of(dataset, members[1:], torch.float64)
    together.flat[0] = torch.nan
    losses = train(together, rows, 5, False)
    train(alone, rows, 5, False)
    assert bool(losses[:, 0].isnan().all())
    assert_same(together, alone, 1, (together.flat, alone.flat), 1e-12)
    compare("table", together.table[:, 1], alone.table[:, 0], 1e-12)


def test_members_of_a_cohort_must_share_their_shape(dataset: Dataset) -> None:
    first = Candidate(**SHAPE, wiring=parallel(2))
    for change in ({"width": 4}, {"embedding": 3}, {"cross": "vector"}, {"norm": "batch"}, {"batch": 7}):
        with pytest.raises(ValueError, match=next(iter(change))):
            cohort_of(dataset, [first, first.replace(**change)], torch.float32)
    with pytest.raises(ValueError, match="wiring"):
        cohort_of(dataset, [first, first.replace(wiring=None)], torch.float32)
