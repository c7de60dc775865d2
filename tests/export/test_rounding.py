"""Embedding rows and frozen vectors in fewer bits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_columns, fake_dataset, fake_encoder
from safetensors.torch import load_file

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.export.folder import write_folder
from autoctr.export.rounding import packed, rounded, rounded_cohort, unpacked
from autoctr.export.verify import searched_probabilities
from autoctr.model.architecture import CONCAT
from autoctr.model.candidate import Candidate
from autoctr.report.export import export_lines
from autoctr.training.periods import with_snapshots
from autoctr.training.snapshots import newest
from export.members import generated, load_predict, member, run, uniform_wiring

KINDS: tuple[Any, ...] = ("fp16", "int8")
FUSION: dict[str, Any] = {"embedding": 4, "width": 8, "wiring": uniform_wiring(CONCAT)}
CASES: dict[str, dict[str, Any]] = {
    "fusion": FUSION | {"rank": 2},
    "pruners": FUSION | {"sparsity": 0.4, "input_pruner": True},
    "static pruners": FUSION | {"sparsity": 0.5, "pruner_input": "domain", "input_pruner": True},
    "tickets": FUSION | {"keep_rate": 0.4, "ticket_unit": "task"},
    **{f"snapshots {name}": FUSION | {"snapshots": 3, "pooling": name} for name in ("attention", "mean", "last")},
    **{kind: {"embedding": 4, "width": 8, "backbone": kind} for kind in ("mmoe", "ple", "star", "pepnet")},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return fake_dataset(tmp_path_factory.mktemp("data") / "fake", tasks=TASKS, unseen=0.1)


@pytest.mark.parametrize("shape", [(50, 7), (3, 20, 4)])
def test_int8_is_exact_where_it_matters(shape: tuple[int, ...]) -> None:
    table = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-6, shape[-1] - 6)
    table[..., 3, :] = 0
    stored = packed(table, "int8")
    assert stored["weight"].dtype == torch.int8
    assert stored["scale"].shape == (*shape[:-1], 1)
    found = unpacked(stored)
    largest = table.abs().amax(-1, keepdim=True)
    assert ((found - table).abs() <= largest / 127 * 0.501).all()
    assert (found[..., 3, :] == 0).all()
    # in float64 the same numbers come out, and another rounding changes nothing
    assert torch.equal(stored["weight"].double() * stored["scale"].double(), found.double())
    assert torch.equal(rounded(found, "int8"), found)
    assert torch.equal(packed(found, "int8")["weight"], stored["weight"])


def test_half_precision() -> None:
    table = torch.tensor([[1.0, 1e-9, 70000.0, -1e6]])
    assert rounded(table, "fp16").tolist() == [[1.0, 0.0, 65504.0, -65504.0]]
    assert packed(table, "fp32")["weight"] is table


@pytest.mark.parametrize("stored", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_searched_network_with_rounded_tables(case: str, stored: Any, dataset: Dataset) -> None:
    candidate = Candidate(**CASES[case])
    dataset = with_snapshots(dataset, candidate, seed=1)
    tables = {name: table * np.float32(30 if "snapshots" in name else 1) for name, table in dataset.tables.items()}
    dataset = dataclasses.replace(dataset, tables=tables)
    cohort = member(dataset, candidate)
    after, read = rounded_cohort(cohort, dataset, stored)
    rows = newest(read.valid, after.network.statistics, after.network.embedding.tables)
    expected = searched_probabilities(after, rows, torch.float64)
    encoded = dataclasses.replace(rows, vectors=rows.vectors[:, :1])
    found = run(generated(after, stored=stored, dtype=torch.float64), encoded, torch.float64)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    single = run(generated(after, stored=stored), encoded)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-5)
    before = searched_probabilities(cohort, rows, torch.float64)
    change = np.abs(before - expected).max()
    assert 1e-6 < change < (0.02 if stored == "fp16" else 0.2)


@pytest.mark.parametrize("stored", KINDS)
def test_a_folder_with_rounded_tables(stored: str, dataset: Dataset, tmp_path: Path) -> None:
    cohort = member(dataset, Candidate(**CASES["fusion"]))
    out, difference = write_folder(cohort, dataset, tmp_path / stored, {}, embeddings=stored)
    assert difference < 1e-5
    weights = load_file(out / "weights.safetensors")
    size = {name: tensor.numel() * tensor.element_size() for name, tensor in weights.items()}
    vocabulary = dataset.statistics.vocabulary
    assert size["embedding.weight"] == vocabulary * 4 * (2 if stored == "fp16" else 1)
    assert ("embedding.scale" in size) == (stored == "int8")
    card = json.loads((out / "card.json").read_text())
    assert card["embeddings"]["stored"] == stored
    assert card["parameters"]["embedding"] == vocabulary * 4
    assert card["footprint"]["tables"]["after"] < card["footprint"]["tables"]["before"]
    for metric in ("auc", "wauc", "logloss"):
        found = card["rounding"][metric]
        assert found["difference"] == pytest.approx(found["after"] - found["before"])
        assert abs(found["difference"]) < 0.05
    assert card["rounding"]["logloss"]["difference"] != 0
    assert export_lines(out)[-1].startswith(f"embeddings in {stored}: ")
    predict = load_predict(out, f"{stored}_predict")
    columns = {name: values for name, values in fake_columns(40, 5, unseen=0.1).items() if name not in TASKS}
    after, _ = rounded_cohort(cohort, dataset, stored)  # type: ignore[arg-type]
    expected = searched_probabilities(after, fake_encoder(TASKS).encode(columns), torch.float32)
    np.testing.assert_allclose(predict.predict(predict.load(out), columns), expected, rtol=0, atol=1e-5)


def test_other_kinds_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    cohort = member(dataset, Candidate(**CASES["fusion"]))
    with pytest.raises(UserError, match="unknown type 'int4' of embeddings; legal are fp32, fp16, int8"):
        write_folder(cohort, dataset, tmp_path / "out", {}, embeddings="int4")
    assert not list(tmp_path.iterdir())
