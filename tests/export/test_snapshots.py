"""Generated models that read frozen snapshots: the newest of every id, without a time stamp."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_columns, fake_dataset, fake_encoder
from reference import transfer
from safetensors.torch import load_file

from autoctr.data.dataset import Dataset, Rows
from autoctr.export.folder import write_folder
from autoctr.export.verify import searched_probabilities
from autoctr.model.architecture import CONCAT
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort
from autoctr.training.periods import with_snapshots
from autoctr.training.snapshots import newest
from export.members import generated, load_predict, member, run, source_of, state_of, uniform_wiring, unknown_rows

POOLINGS = ("attention", "mean", "last")
FUSION: dict[str, Any] = {"embedding": 4, "width": 8, "wiring": uniform_wiring(CONCAT)}
CASES: dict[str, dict[str, Any]] = {
    "fusion": FUSION,
    "as wide as the fields": FUSION | {"width": 0},
    "pruned input": FUSION | {"sparsity": 0.3, "input_pruner": True, "rank": 2},
    "self-attention": FUSION | {"cross": "attention", "keep_rate": 0.5},
    **{kind: {"embedding": 4, "width": 8, "backbone": kind} for kind in ("mmoe", "ple", "star", "pepnet")},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users and items that appear late or never, so that snapshots lack them."""
    dataset = fake_dataset(tmp_path_factory.mktemp("data") / "fake", tasks=TASKS, unseen=0.1)
    train = dataset.train.take(np.arange(90))
    return dataclasses.replace(dataset, train=train)


def cohort_of(plain: Dataset, **settings: Any) -> tuple[Cohort, Dataset]:
    """A member over snapshots whose numbers are as large as the embeddings'."""
    candidate = Candidate(**{"snapshots": 3, "warm_share": 0.5, **settings})
    dataset = with_snapshots(plain, candidate, seed=1)
    tables = {name: table * (30 if "snapshots" in name else 1) for name, table in dataset.tables.items()}
    dataset = dataclasses.replace(dataset, tables={name: np.float32(table) for name, table in tables.items()})
    return member(dataset, candidate), dataset


def served(cohort: Cohort, rows: Rows) -> Rows:
    return newest(rows, cohort.network.statistics, cohort.network.embedding.tables)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_searched_network(case: str, pooling: str, plain: Dataset) -> None:
    cohort, dataset = cohort_of(plain, **CASES[case], pooling=pooling)
    for rows in (dataset.valid, unknown_rows(dataset), dataset.valid.take(slice(0, 1)), dataset.valid.take(slice(0))):
        expected = searched_probabilities(cohort, served(cohort, rows), torch.float32)
        # the generated model reads the encoder's columns, which know of no snapshots
        encoded = dataclasses.replace(rows, vectors=rows.vectors[:, :1])
        np.testing.assert_allclose(run(generated(cohort), encoded), expected, rtol=0, atol=1e-5)
    assert np.abs(expected_change(cohort, dataset.valid)).max() > 1e-3
    source = source_of(cohort)
    assert max(map(len, source.splitlines())) <= 120
    assert ("def attention_pool" in source) == (pooling == "attention")


def expected_change(cohort: Cohort, rows: Rows) -> np.ndarray:
    """How much the probabilities would differ if rows read no snapshot at all."""
    nothing = rows.vectors.copy()
    nothing[:, 1:] = 0
    before = searched_probabilities(cohort, dataclasses.replace(rows, vectors=nothing), torch.float64)
    return searched_probabilities(cohort, served(cohort, rows), torch.float64) - before


@pytest.mark.parametrize("pooling", POOLINGS)
def test_only_what_is_needed_is_stored(pooling: str, plain: Dataset) -> None:
    cohort, dataset = cohort_of(plain, **FUSION, pooling=pooling)
    state, sizes = state_of(cohort), {field.name: field.size for field in dataset.statistics.embedded}
    for name in ("user", "item"):
        shape = (3, sizes[name], 4) if pooling == "attention" else (sizes[name], 4)
        assert tuple(state[f"snapshots_{name}"].shape) == shape
        history = dataset.tables[f"snapshots of {name}"].reshape(6, sizes[name], 4)[3:]
        if pooling == "attention":
            np.testing.assert_array_equal(state[f"snapshots_{name}"], history)
            continue
        pool = transfer.mean_pool if pooling == "mean" else transfer.last_pool
        expected = [pool(history[:, number], history[:, number].any(1).tolist()) for number in range(sizes[name])]
        np.testing.assert_allclose(state[f"snapshots_{name}"], expected, rtol=1e-5, atol=1e-7)


def test_a_single_snapshot_needs_no_attention(plain: Dataset) -> None:
    cohort, dataset = cohort_of(plain, **FUSION, snapshots=1)
    rows = dataset.valid
    expected = searched_probabilities(cohort, served(cohort, rows), torch.float32)
    np.testing.assert_allclose(run(generated(cohort), rows), expected, rtol=0, atol=1e-5)
    assert "attention_pool" not in source_of(cohort)
    assert state_of(cohort)["snapshots_user"].dim() == 2


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_folder_predicts_raw_values_without_time_stamps(pooling: str, plain: Dataset, tmp_path: Path) -> None:
    cohort, dataset = cohort_of(plain, **FUSION, pooling=pooling)
    folder, difference = write_folder(cohort, dataset, tmp_path / "out", {})
    assert difference <= 1e-5
    predict = load_predict(folder)
    model = predict.load(folder)
    columns = {name: values for name, values in fake_columns(50, 9).items() if name not in TASKS}
    assert "time" not in " ".join(model.encoder.raw_columns)
    rows = fake_encoder(TASKS).encode(columns)
    padded = dataclasses.replace(rows, vectors=np.concatenate([rows.vectors, np.zeros((50, 2), np.int32)], 1))
    expected = searched_probabilities(cohort, served(cohort, padded), torch.float32)
    np.testing.assert_allclose(predict.predict(model, columns), expected, rtol=0, atol=1e-5)


def test_the_card_tells_of_the_snapshots_and_counts_none_as_trained(plain: Dataset, tmp_path: Path) -> None:
    cohort, dataset = cohort_of(plain, **FUSION)
    folder, _ = write_folder(cohort, dataset, tmp_path / "out", {})
    card = json.loads((folder / "card.json").read_text())
    assert (card["snapshots"]["fields"], card["snapshots"]["pooling"]) == (["user", "item"], "attention")
    assert card["snapshots"]["newest"] == 3
    weights = load_file(folder / "weights.safetensors")
    frozen = sum(weights[name].numel() for name in weights if name.startswith(("snapshots_", "vectors_")))
    assert sum(card["parameters"].values()) == sum(tensor.numel() for tensor in weights.values()) - frozen
    other, _ = write_folder(member(plain, Candidate(**FUSION)), plain, tmp_path / "plain", {})
    assert json.loads((other / "card.json").read_text())["snapshots"] is None
