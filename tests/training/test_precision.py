"""bfloat16 is for what a training step computes: weights, optimiser and scores stay in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_data import fake_dataset
from model.networks import random_cohort, resident
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.model.network import Batch
from autoctr.training import precision
from autoctr.training.cohort import Cohort
from training.cohorts import SHAPE, discrete_members, relaxed_members

BACKBONES = ("mmoe", "ple", "star", "pepnet")
CROSSES = ("vector", "lowrank", "attention", "fm", "bilinear")
PRUNED: dict[str, Any] = {"input_pruner": True, "pruner_input": "domain", "sparsity_form": "binarization"}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=480, unseen=0.1)


def members_of(kind: str, shape: dict[str, Any]) -> list[Candidate]:
    if kind == "supernet":
        return relaxed_members(shape)
    if kind == "discrete":
        return discrete_members(shape)
    return [Candidate(**SHAPE | shape, backbone=kind, blocks=2, seed=seed) for seed in range(2)]  # type: ignore[arg-type]


def pair(dataset: Dataset, members: list[Candidate]) -> tuple[Cohort, Cohort]:
    """The same random weights twice, to be trained with either precision."""
    single, half = (
        random_cohort(dataset, [c.replace(precision=word) for c in members], dtype=torch.float32)
        for word in ("fp32", "bf16")
    )
    assert torch.equal(single.flat, half.flat)
    return single, half


def batch_of(dataset: Dataset) -> Batch:
    return next(resident(dataset, "train", torch.float32).batches(5, 0, 240))


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def median_distance(found: Tensor, expected: Tensor) -> float:
    """Of the members: rounding takes a neuron of some across a threshold. Each must differ, or it was not rounded."""
    distances = torch.tensor([distance(*both) for both in zip(found, expected, strict=True)])
    assert bool((distances > 0).all())
    return float(distances.median())


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("discrete", {}),
        ("discrete", {"norm": "batch"}),
        ("discrete", PRUNED),
        ("discrete", {"sparsity_form": "scaling"}),
        ("supernet", {}),
        ("supernet", {"norm": "batch"}),
        ("supernet", PRUNED),
        *(("discrete", {"cross": cross}) for cross in CROSSES),
        *((backbone, {}) for backbone in BACKBONES),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "plain",
)
def test_a_step_in_bf16_has_the_gradients_of_one_in_fp32_up_to_rounding(
    dataset: Dataset, kind: str, shape: dict[str, Any]
) -> None:
    wire, batch = kind == "supernet", batch_of(dataset)
    single, half = pair(dataset, members_of(kind, shape))
    losses = [cohort.step(batch, wire=wire) for cohort in (single, half)]
    assert 0 < distance(losses[1], losses[0]) < 0.05
    assert median_distance(half.dense.first, single.dense.first) < 0.1
    assert median_distance(half.sparse.first.transpose(0, 1), single.sparse.first.transpose(0, 1)) < 0.1
    if wire:
        assert median_distance(half.wiring.first, single.wiring.first) < 0.05


@pytest.mark.parametrize("unit", ["domain", "task", "network"])
def test_tickets_hold_in_bf16(unit: str) -> None:
    dataset = fake_dataset(rows=480, tasks=("click", "conversion"))
    members = [c.replace(ticket_unit=unit) for c in discrete_members({})]
    single, half = pair(dataset, members)
    network = single.network
    draw = torch.Generator().manual_seed(0)
    masks = (torch.rand(network.members, network.units, network.maskable.size, generator=draw) < 0.5).float()
    single.masks = half.masks = masks
    before, batch = half.flat.clone(), batch_of(dataset)
    single.step(batch)
    half.step(batch)
    assert median_distance(half.dense.first, single.dense.first) < 0.1
    moved = network.maskable.views(masks.amax(1))
    for name, kept in moved.items():
        mine, theirs = (network.layout.views(flat)[name] for flat in (half.flat, before))
        assert bool((mine != theirs).any())
        assert torch.equal(mine[kept == 0], theirs[kept == 0])


def test_all_that_is_kept_is_float32(dataset: Dataset) -> None:
    members = [c.replace(precision="bf16") for c in discrete_members({"norm": "batch"})]
    cohort = random_cohort(dataset, members, dtype=torch.float32)
    cohort.step(batch_of(dataset))
    weights = cohort.weights()
    kept = [weights.flat, weights.table, weights.running, cohort.dense.first, cohort.dense.second]
    kept += [cohort.sparse.first, cohort.sparse.second]
    assert {tensor.dtype for tensor in kept} == {torch.float32}


def test_scores_do_not_depend_on_the_precision_of_training(dataset: Dataset) -> None:
    rows = resident(dataset, dtype=torch.float32)
    single, half = pair(dataset, discrete_members({"norm": "batch"}))
    assert torch.equal(single.logits(rows), half.logits(rows))


def test_a_member_in_bf16_does_not_depend_on_its_cohort(dataset: Dataset) -> None:
    members = [c.replace(precision="bf16") for c in discrete_members({})]
    together, batch = random_cohort(dataset, members, dtype=torch.float32), batch_of(dataset)
    start = together.weights().copy()
    together.step(batch)
    for k, candidate in enumerate(members):
        alone = random_cohort(dataset, [candidate], dtype=torch.float32)
        alone.table.copy_(start.table[:, k : k + 1])
        mine, theirs = (c.network.layout.views(flat) for c, flat in ((alone, alone.flat), (together, start.flat)))
        for name, view in mine.items():
            if ".lora." not in name:
                view.copy_(theirs[name][k : k + 1])
        if ".lora." in " ".join(mine):
            continue
        alone.step(batch)
        assert distance(alone.sparse.first[:, 0], together.sparse.first[:, k]) < 0.02


def test_bf16_trains_as_well(dataset: Dataset) -> None:
    """Its losses come down by as much as those in float32."""
    rows, falls = resident(dataset, "train", torch.float32), []
    for word in ("fp32", "bf16"):
        candidate = Candidate(embedding=8, width=16, batch=64, dropout=0.0, precision=word, architecture="learn")
        cohort = Cohort.on(dataset, [candidate.replace(architecture_rate=0.01)])
        losses = [
            float(cohort.step(batch, wire=True))
            for epoch in range(8)
            for batch in rows.batches(1, epoch, candidate.batch)
        ]
        falls.append(sum(losses[:5]) / 5 - sum(losses[-5:]) / 5)
    assert falls[0] > 0.02
    assert falls[1] == pytest.approx(falls[0], rel=0.1)


def test_members_share_their_precision(dataset: Dataset) -> None:
    first = discrete_members({})[0]
    with pytest.raises(ValueError, match="precision"):
        random_cohort(dataset, [first, first.replace(precision="bf16")])


def test_a_candidate_in_fp32_has_the_string_that_it_had_before_there_was_a_choice() -> None:
    assert "precision" not in Candidate().canonical()
    assert '"precision": "bf16"' in Candidate(precision="bf16").canonical()


@pytest.mark.parametrize(
    ("features", "expected"), [({}, "fp32"), ({"amx_tile": True}, "bf16"), ({"avx2": True}, "fp32")]
)
def test_auto_asks_the_processor(features: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert precision.find_precision("auto", torch.device("cpu")) == expected


def test_a_given_precision_holds_on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert [precision.find_precision(word, torch.device("cpu")) for word in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match="unknown precision 'fp16'; legal are auto, fp32, bf16"):
        precision.find_precision("fp16", torch.device("cpu"))
