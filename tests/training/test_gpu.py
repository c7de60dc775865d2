"""On a GPU: the numbers of a CPU, members that do not depend on their cohort, and no wait for the GPU inside a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_data import fake_dataset
from model.networks import resident
from small_study import search_small, write_space
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model.candidate import Candidate
from autoctr.search.cohort_size import measured_size
from autoctr.search.deliver import export
from autoctr.search.trial import Laboratory
from autoctr.training.cohort import Cohort
from autoctr.training.fit import score_members
from autoctr.training.precision import has_bf16_products
from training.cohorts import assert_same, cohort_of, compare, discrete_members, relaxed_members, train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

NORMALISED: dict[str, Any] = {
    "norm": "batch", "cross": "attention", "sparsity_form": "binarization", "input_pruner": True,
}  # fmt: skip
TICKETS: dict[str, Any] = {"keep_rate": 0.5, "ticket_rounds": 1, "cross": "lowrank"}
KINDS = pytest.mark.parametrize(
    ("kind", "shape"),
    [("discrete", {}), ("discrete", NORMALISED), ("discrete", TICKETS), ("supernet", {}), ("supernet", NORMALISED)],
    ids=["discrete", "normalised", "tickets", "supernet", "normalised supernet"],
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=240, unseen=0.1)


def made(dataset: Dataset, kind: str, shape: dict[str, Any], dtype: torch.dtype, device: str) -> Cohort:
    members = relaxed_members(shape) if kind == "supernet" else discrete_members(shape)
    cohort = cohort_of(dataset, members, dtype, device)
    if "keep_rate" in shape:
        network, draw = cohort.network, torch.Generator().manual_seed(0)
        kept = torch.rand(network.members, network.units, network.maskable.size, generator=draw) < 0.5
        cohort.masks = kept.to(device, dtype)
    return cohort


@KINDS
def test_a_gpu_trains_as_a_cpu(dataset: Dataset, kind: str, shape: dict[str, Any]) -> None:
    ends: list[tuple[Tensor, Tensor]] = []
    for device in ("cpu", "cuda"):
        cohort = made(dataset, kind, shape, torch.float64, device)
        losses = train(cohort, resident(dataset, "train", device=device), 60, kind == "supernet")
        ends.append((losses, cohort.logits(resident(dataset, device=device))))
    for host, device in zip(*ends, strict=True):
        compare("on a GPU", device, host, 1e-8)


@pytest.mark.parametrize("kind", ["discrete", "supernet"])
def test_eight_together_are_eight_alone_on_a_gpu(dataset: Dataset, kind: str) -> None:
    rows, together = resident(dataset, "train", device="cuda"), made(dataset, kind, {}, torch.float64, "cuda")
    losses = train(together, rows, 200, kind == "supernet")
    for k, candidate in enumerate(together.network.candidates):
        alone = cohort_of(dataset, [candidate], torch.float64, "cuda")
        compare("losses", losses[:, k], train(alone, rows, 200, kind == "supernet")[:, 0], 1e-9)
        assert_same(together, alone, k, (together.flat, alone.flat), 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@KINDS
def test_a_step_never_waits_for_the_gpu(dataset: Dataset, kind: str, shape: dict[str, Any], dtype: torch.dtype) -> None:
    cohort = made(dataset, kind, shape, dtype, "cuda")
    batches = list(resident(dataset, "train", dtype, "cuda").batches(0, 0, 24))
    for batch in batches:  # what depends on which domains a batch holds is made once
        cohort.step(batch, wire=kind == "supernet")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            cohort.step(batch, wire=kind == "supernet")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert cohort.steps == 2 * len(batches) > 12


def test_a_gpu_scores_as_a_cpu(dataset: Dataset) -> None:
    scores = []
    for device in ("cpu", "cuda"):
        cohort = cohort_of(dataset, discrete_members({}), torch.float64, device)
        scores.append(score_members(cohort, resident(dataset, device=device), dataset))
    for host, device in zip(*scores, strict=True):
        assert device.wauc == pytest.approx(host.wauc, abs=1e-9)
        assert device.logloss == pytest.approx(host.logloss, abs=1e-9)
        assert device.ece == pytest.approx(host.ece, abs=1e-9)


@pytest.mark.skipif(
    torch.cuda.is_available() and not has_bf16_products(torch.device("cuda")), reason="needs products of bfloat16"
)
def test_steps_in_bfloat16_learn_on_a_gpu(dataset: Dataset) -> None:
    rows, ends = resident(dataset, "train", torch.float32, "cuda"), []
    for precision in ("fp32", "bf16"):
        cohort = cohort_of(dataset, discrete_members({"precision": precision}), torch.float32, "cuda")
        losses = train(cohort, rows, 60, wire=False)
        assert bool(losses.isfinite().all())
        ends.append(losses[-10:].mean(0))
    assert float((ends[0] - ends[1]).abs().max()) < 0.05
    assert not torch.equal(*ends)


def test_a_study_on_a_gpu_trains_cohorts_and_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("optuna", "polars"):  # which training alone does without
        pytest.importorskip(module)
    monkeypatch.setenv("AUTOCTR_CACHE", str(tmp_path / "cache"))
    study = search_small(tmp_path, write_space(tmp_path), trials=8, cohort=4, device="cuda")
    records = study.records()
    assert len(records) == 8
    assert all(record.state in ("COMPLETE", "PRUNED") for record in records)
    _, difference = export("s", tmp_path / "model", root=tmp_path)
    assert difference < 1e-5


def test_the_size_of_a_cohort_is_measured(dataset: Dataset, tmp_path: Path) -> None:
    laboratory = Laboratory(dataset, metric="auc", seed=0, device=torch.device("cuda"), folder=tmp_path)
    assert measured_size(laboratory, Candidate(embedding=4, width=8, batch=24)) in {1, 2, 4, 8, 16, 32, 64}
