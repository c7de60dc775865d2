"""Exports as ONNX and pt2: the searched network's probabilities in every format."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from fake_data import TASKS, Columns, fake_dataset, fake_encoder

from autoctr.data.dataset import Dataset
from autoctr.data.encoder import Encoder
from autoctr.errors import UserError
from autoctr.export import folder as folder_module
from autoctr.export import traced, verify
from autoctr.export.folder import write_folder, write_model
from autoctr.export.formats import formats
from autoctr.export.generate import model_state
from autoctr.export.predict_table import predict_table
from autoctr.export.scope import Scope
from autoctr.export.served import load_format
from autoctr.export.standalone import predict, probabilities
from autoctr.export.verify import Check, check_folder, searched_probabilities
from autoctr.model.architecture import CONCAT
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort
from autoctr.training.periods import with_snapshots
from autoctr.training.snapshots import newest
from export.members import full_wiring, member, random_wiring, uniform_wiring
from export.test_predict import ROUNDING, write_csv

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

TRACED = ("onnx", "pt2")
SMALL: dict[str, Any] = {"embedding": 4, "width": 8, "blocks": 1}
NETWORKS = {
    "mixtures, adapters, norm, pruners": Candidate(
        **SMALL, wiring=full_wiring((0.1, 0.25, 0.4, 0.25), 1), cross="vector", norm="batch", rank=2, sparsity=0.3
    ),
    "tickets per domain, entire space, pruned input": Candidate(
        **SMALL, wiring=random_wiring(1, 1, range(4)), cross="bilinear", domain_ranks=(2, 0), keep_rate=0.5,
        input_pruner=True, sparsity=0.4, task_space="esmm",
    ),
    "tickets per task": Candidate(
        **SMALL, wiring=uniform_wiring(CONCAT, 1), cross="attention", ticket_unit="task", keep_rate=0.5
    ),
    "snapshots, no projection": Candidate(
        **{**SMALL, "width": 0}, wiring=random_wiring(2, 1, range(3)), cross="lowrank", snapshots=3
    ),
    **{kind: Candidate(**SMALL, backbone=kind, experts=2) for kind in ("mmoe", "ple", "star", "pepnet")},
}  # fmt: skip
# Translating to ONNX takes four times as long as tracing: these two have nothing that mmoe lacks.
ONNX_IS_SLOW = ("ple", "star")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return fake_dataset(tmp_path_factory.mktemp("data") / "fake", tasks=TASKS, unseen=0.1)


@pytest.fixture(scope="module")
def two(dataset: Dataset) -> Dataset:
    """The same with two known domains, since every domain adds to a graph and to the time that tracing takes."""
    first, second, *_ = dataset.statistics.domains
    statistics = dataclasses.replace(
        dataset.statistics, domains=(first, second), domain_rows=dataset.statistics.domain_rows[:2]
    )
    assert dataset.folder is not None
    scope = Scope.of(dataset.statistics, Encoder.load(dataset.folder), (first, second))
    splits = {name: scope.searched_rows(getattr(dataset, name)) for name in ("train", "valid", "test")}
    cut = {name: dataclasses.replace(rows, domain=np.minimum(rows.domain, 2)) for name, rows in splits.items()}
    return dataclasses.replace(dataset, statistics=statistics, **cut)


@pytest.fixture(scope="module")
def pepnet(dataset: Dataset) -> Cohort:
    return member(dataset, NETWORKS["pepnet"])


@pytest.fixture(scope="module")
def both(dataset: Dataset, pepnet: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in all formats, checked."""
    return write_folder(pepnet, dataset, tmp_path_factory.mktemp("out") / "winner", {}, formats=["onnx,pt2"])[0]


@pytest.fixture
def copied(both: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(both, tmp_path / "copied"))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        *((name, ["pt2"] if name in ONNX_IS_SLOW else ["onnx", "pt2"]) for name in NETWORKS if name != "pepnet"),
        *(pytest.param(name, ["onnx"], marks=pytest.mark.slow) for name in ONNX_IS_SLOW),
    ],
)
def test_every_kind_of_network(
    name: str, kinds: list[str], two: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "check_folder", lambda *_, **__: Check(0, 0.0, 0))
    candidate = NETWORKS[name]
    encoded = with_snapshots(two, candidate, seed=1) if candidate.snapshots else two
    cohort = member(encoded, candidate)
    rows = newest(encoded.valid, cohort.network.statistics, cohort.network.embedding.tables)
    assert set(rows.domain) == {0, 1, 2}
    expected = searched_probabilities(cohort, rows, torch.float32)
    assert expected.std(axis=0).min() > 0.004
    out, _ = write_folder(cohort, encoded, tmp_path / "out", {}, formats=kinds)
    for kind in kinds:
        model = load_format(out, kind)
        assert model.inputs == load_format(out).inputs
        for count in (len(rows), 1, 0):
            part = rows.take(slice(0, count))
            given = {name: np.array(getattr(part, name)) for name in model.inputs}
            if "vectors" in given:
                given["vectors"] = given["vectors"][:, :1]
            found = probabilities(model, given)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected[:count], rtol=0, atol=1e-5, err_msg=kind)


def test_the_folder(both: Path, dataset: Dataset) -> None:
    card = json.loads((both / "card.json").read_text())
    files = {path.name for path in both.iterdir()}
    assert files >= {"model.onnx", "model.pt2", "model.py"}
    assert set(card["files"]) == files - {"card.json"}
    assert set(card["check"]) == {"python", "onnx", "pt2"}
    for check in card["check"].values():
        assert check["rows"] == len(dataset.valid)
        assert check["largest_difference"] < 1e-5
    assert len({path.stat().st_mode for path in both.iterdir()}) == 1


def test_neither_pickles_nor_paths(both: Path) -> None:
    with zipfile.ZipFile(both / "model.pt2") as archive:
        texts = [archive.read(name) for name in archive.namelist()]
        (samples,) = [name for name in archive.namelist() if "sample_inputs" in name]
        assert archive.read(samples) == b""
        configured = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith("config.json")]
    payloads = [payload for config in configured for payload in config["config"].values()]
    assert len(payloads) > 10
    assert not [payload for payload in payloads if payload["use_pickle"]]
    for text in (*texts, (both / "model.onnx").read_bytes()):
        assert b"model.py" not in text
        assert b"site-packages" not in text


def test_onnx_has_the_names_of_model_py(both: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(both / "model.onnx", providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape[0]) for value in session.get_inputs()] == [
        ("ids", "rows"), ("numbers", "rows"), ("vectors", "rows"),
    ]  # fmt: skip
    assert [(value.name, value.shape) for value in session.get_outputs()] == [("logits", ["rows", 2])]


@pytest.mark.parametrize("kind", TRACED)
def test_raw_tables(kind: str, both: Path, pepnet: Cohort, columns: Columns, tmp_path: Path) -> None:
    expected = searched_probabilities(pepnet, fake_encoder(TASKS).encode(columns), torch.float32)
    np.testing.assert_allclose(predict(load_format(both, kind), columns), expected, rtol=0, atol=1e-5)
    predict_table(both, write_csv(tmp_path / "events.csv", columns), tmp_path / "s.parquet", format=kind)
    frame = pl.read_parquet(tmp_path / "s.parquet")
    np.testing.assert_allclose(frame.to_numpy(), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("kind", TRACED)
def test_only_what_is_read_must_be_whole(kind: str, copied: Path) -> None:
    load_format(copied, kind)
    (copied / "weights.safetensors").unlink()
    load_format(copied, kind)
    path = copied / f"model.{kind}"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(UserError, match=rf"model\.{kind} is not the file that was exported"):
        load_format(copied, kind)
    path.unlink()
    with pytest.raises(UserError, match="is not a whole export"):
        load_format(copied, kind)


def test_a_format_that_cannot_be_had(both: Path, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert formats([]) == formats("python") == ("python",)
    assert formats(["pt2, onnx", "pt2"]) == ("python", "onnx", "pt2")
    with pytest.raises(UserError, match="unknown format 'tflite'; legal are python, onnx, pt2"):
        load_format(both, "tflite")
    card = json.loads((copied / "card.json").read_text())
    del card["files"]["model.onnx"]
    (copied / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"holds no model\.onnx; its formats are python, pt2; export with --format onn"):
        load_format(copied, "onnx")
    with pytest.raises(UserError, match="computes on the CPU, not on cuda"):
        load_format(both, "onnx", "cuda")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime, which is missing; pip install 'autoctr\[onnx\]'"):
        load_format(both, "onnx")


def test_nothing_is_written_without_the_library(
    dataset: Dataset, pepnet: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match="needs onnxscript"):
        write_folder(pepnet, dataset, tmp_path / "out", {}, formats=["onnx"])
    assert not list(tmp_path.iterdir())


def test_too_large_for_one_onnx_file(both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced, "ONNX_BYTES", 1000)
    program = torch.export.load(both / "model.pt2")
    with pytest.raises(UserError, match=r"one \.onnx file holds 2 GiB; leave out --format onnx"):
        traced.write_traced("onnx", program, tmp_path)


def test_another_networks_graph_is_found_out(both: Path, dataset: Dataset) -> None:
    other = member(dataset, NETWORKS["pepnet"])
    other.network.layout.views(other.flat)["head.weight"].add_(0.01)
    assert check_folder(both, other, dataset.valid, limit=50, kind="onnx").largest_difference > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETWORKS)[:2])
@pytest.mark.parametrize("kind", TRACED)
def test_rounding_is_told_by_a_graph_in_double_precision(kind: str, name: str, two: Dataset, tmp_path: Path) -> None:
    cohort = member(two, NETWORKS[name])
    assert two.folder is not None
    encoder = Encoder.load(two.folder)
    plan, _ = write_model(tmp_path, cohort, encoder, ["python"], Scope.of(two.statistics, encoder))

    def exact() -> dict[str, torch.Tensor]:
        return model_state(plan, cohort.network, cohort.weights(), torch.float64)

    differences = verify._differences(tmp_path, cohort, (two.valid, two.valid), torch.float64, kind, exact)
    assert differences.shape == (len(two.valid) + 1,)
    assert differences.max() < verify.EXACT[kind]


def test_an_earlier_export_in_more_formats_is_replaced(
    copied: Path, dataset: Dataset, pepnet: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "check_folder", lambda *_, **__: Check(0, 0.0, 0))
    write_folder(pepnet, dataset, copied, {})
    assert not {path.name for path in copied.iterdir()} & {"model.onnx", "model.pt2"}
