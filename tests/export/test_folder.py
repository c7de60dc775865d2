"""The exported folder as a whole: contents, check, and what it refuses to overwrite."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_dataset
from safetensors.torch import load_file, save_file

from autoctr.data.dataset import Dataset
from autoctr.data.encoder import Encoder
from autoctr.errors import UserError
from autoctr.export import folder as folder_module
from autoctr.export.bundle import bundle
from autoctr.export.folder import write_folder
from autoctr.export.verify import Check, ExportMismatch, check_folder, verify_folder
from autoctr.model.build import multiply_adds
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort
from export.members import full_wiring, load_predict, member

CANDIDATE = Candidate(
    embedding=4, width=8, blocks=2, wiring=full_wiring((0.0, 0.25, 0.5, 0.25)), rank=2, rank_tilt=1.5, sparsity=0.3
)
FILES = ["card.json", "features.json", "model.py", "predict.py", "weights.safetensors"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return fake_dataset(tmp_path_factory.mktemp("data") / "fake", tasks=TASKS, unseen=0.1)


@pytest.fixture(scope="module")
def cohort(dataset: Dataset) -> Cohort:
    return member(dataset, CANDIDATE)


@pytest.fixture(scope="module")
def exported(dataset: Dataset, cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(cohort, dataset, tmp_path_factory.mktemp("out") / "winner", {"metrics": {"auc": 0.75}})[0]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the check, which starts an interpreter."""
    monkeypatch.setattr(folder_module, "check_folder", lambda *_, **__: Check(0, 0.0, 0))


def test_holds_the_five_files_and_nothing_else(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == FILES
    assert [path.name for path in exported.parent.iterdir()] == ["winner"]
    assert len({path.stat().st_mode for path in exported.iterdir()}) == 1


def test_card(exported: Path, dataset: Dataset) -> None:
    card = json.loads((exported / "card.json").read_text())
    assert card["metrics"] == {"auc": 0.75}
    assert Candidate.from_dict(card["candidate"]) == CANDIDATE
    assert card["dataset"]["key"] == dataset.key
    assert card["multiply_adds"] == multiply_adds(CANDIDATE, dataset.statistics)
    assert set(card["check"]) == {"python"}
    assert card["check"]["python"]["rows"] == len(dataset.valid)
    assert card["check"]["python"]["largest_difference"] < 1e-5
    weights = load_file(exported / "weights.safetensors")
    frozen = weights["vectors_item_vector"].numel()
    assert sum(card["parameters"].values()) == sum(tensor.numel() for tensor in weights.values()) - frozen
    for name, digest in card["files"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest
    assert set(card["files"]) == {*FILES} - {"card.json"}


def test_an_earlier_export_is_replaced(
    exported: Path, dataset: Dataset, cohort: Cohort, tmp_path: Path, unchecked: None
) -> None:
    out = tmp_path / "winner"
    write_folder(cohort, dataset, out, {"metrics": 1})
    (out / "__pycache__").mkdir()
    write_folder(cohort, dataset, out, {"metrics": 2})
    assert json.loads((out / "card.json").read_text())["metrics"] == 2
    assert sorted(path.name for path in out.iterdir()) == FILES
    for name in FILES[1:]:
        assert (out / name).read_bytes() == (exported / name).read_bytes()


def test_foreign_folders_are_left_alone(dataset: Dataset, cohort: Cohort, tmp_path: Path, unchecked: None) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"already holds thesis\.tex"):
        write_folder(cohort, dataset, tmp_path, {})
    out, _ = write_folder(cohort, dataset, tmp_path / "winner", {})
    (out / "scores.csv").write_text("p_click")
    with pytest.raises(UserError, match=r"already holds scores\.csv"):
        write_folder(cohort, dataset, out, {})
    assert (out / "scores.csv").exists()
    write_folder(cohort, dataset, out, {}, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == FILES
    (tmp_path / "lookalike").mkdir()
    (tmp_path / "lookalike" / "model.py").write_text("mine")
    with pytest.raises(UserError, match=r"already holds model\.py"):
        write_folder(cohort, dataset, tmp_path / "lookalike", {})
    with pytest.raises(UserError, match="is a file"):
        write_folder(cohort, dataset, tmp_path / "thesis.tex", {})


def test_a_wrong_model_is_not_kept(
    dataset: Dataset, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = folder_module.model_source
    monkeypatch.setattr(folder_module, "model_source", lambda plan: right(plan).replace("> 0.25", "> 0.5"))
    with pytest.raises(ExportMismatch, match="differs from the searched network"):
        write_folder(cohort, dataset, tmp_path / "winner", {})
    assert not list(tmp_path.iterdir())


def test_a_model_that_does_not_run_is_not_kept(
    dataset: Dataset, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "model_source", lambda plan: "import autoctr\n")
    with pytest.raises(ExportMismatch, match=r"does not run: .*autoctr"):
        write_folder(cohort, dataset, tmp_path / "winner", {})
    assert not list(tmp_path.iterdir())


def test_verify_sees_other_weights(exported: Path, dataset: Dataset) -> None:
    other = member(dataset, CANDIDATE)
    assert verify_folder(exported, other, dataset.valid, limit=50) < 1e-5
    other.network.layout.views(other.flat)["head.click.bias"].add_(0.001)
    assert verify_folder(exported, other, dataset.valid, limit=50) > 1e-5


def test_verify_takes_rows_from_everywhere(exported: Path, cohort: Cohort, dataset: Dataset) -> None:
    check = check_folder(exported, cohort, dataset.valid, limit=7)
    assert check.rows == 7
    assert check.rounding_rows == 0


def test_rounding_at_a_step_is_told_from_a_wrong_formula(
    dataset: Dataset, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoctr.export import verify

    def differences(apart: dict[torch.dtype, float], rows: int) -> Any:
        def fake(folder: Path, cohort: Cohort, pair: Any, dtype: torch.dtype, kind: str, exact: Any) -> Any:
            result = np.full(len(pair[0]), 1e-7)
            result[:rows] = apart[dtype]
            return result

        return fake

    def check(single: float, double: float, rows: int) -> Check:
        monkeypatch.setattr(verify, "_differences", differences({torch.float32: single, torch.float64: double}, rows))
        return check_folder(Path(), cohort, dataset.valid)

    assert check(0.1, 1e-14, 2) == Check(200, 1e-7, 2)
    assert check(0.1, 1e-6, 2) == Check(200, 0.1, 0)
    assert check(0.1, 1e-14, 20) == Check(200, 0.1, 0)
    assert np.isnan(check(np.nan, np.nan, 1).largest_difference)


def test_damaged_files_are_told(exported: Path, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    predict = load_predict(tmp_path, "damaged_predict")
    weights = load_file(tmp_path / "weights.safetensors")
    weights["head.bias"] += 1
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(predict.UserError, match=r"weights\.safetensors is not the file that was exported"):
        predict.load(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(predict.UserError, match="is not a whole export"):
        predict.load(tmp_path)


def test_a_dataset_in_memory_needs_its_encoder(
    cohort: Cohort, dataset: Dataset, tmp_path: Path, unchecked: None
) -> None:
    loose = fake_dataset(tasks=TASKS)
    with pytest.raises(UserError, match="encoder must be given"):
        write_folder(cohort, loose, tmp_path / "winner", {})
    assert dataset.folder is not None
    write_folder(cohort, loose, tmp_path / "winner", {}, encoder=Encoder.load(dataset.folder))


def test_the_bundle_is_one_tidy_file() -> None:
    text = bundle("autoctr.export.standalone")
    assert "autoctr" not in text.replace("autoctr data", "")
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("def canonical(") == text.count("class Encoder:") == 1
    assert "\n\n\n\n" not in text
    imports = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    assert not [line for line in imports if "pandas" in line or "polars" in line or "pyarrow" in line]
