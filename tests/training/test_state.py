"""A member that was put on disk in the midst of its fit goes on as if it had stayed in memory, bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_data import fake_dataset
from safetensors import safe_open
from safetensors.torch import save_file

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.architecture import FIXED
from autoctr.model.candidate import Candidate
from autoctr.training import state
from autoctr.training.cohort import Cohort
from autoctr.training.fit import Fit, Kept, Splits, Standing
from autoctr.training.rows import ResidentRows

MEMBER = Candidate(
    embedding=4, width=8, blocks=2, wiring=FIXED["parallel"](2), batch=64, learning_rate=0.02, dropout=0.1, seed=7
)
MEMBERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged": {"averaging": 0.9, "norm": "batch", "order": "alternating"},
    "everything": {
        "averaging": 0.9,
        "norm": "batch",
        "rank": 3,
        "sparsity": 0.3,
        "keep_rate": 0.5,
        "weight_decay": 0.1,
    },
    "adapters": {"rank": 3, "lora_schedule": "frozen"},
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=500, unseen=0.1)


@pytest.fixture(scope="module")
def splits(dataset: Dataset) -> Splits:
    train, valid = (
        ResidentRows(rows, len(dataset.statistics.domains), dtype=torch.float32, device="cpu")
        for rows in (dataset.train, dataset.valid)
    )
    return Splits(train, valid)


def begun(name: str, dataset: Dataset, splits: Splits) -> Fit:
    """A fit after two scores."""
    cohort = Cohort.on(dataset, [MEMBER.replace(**MEMBERS[name])], adapters_only=name == "adapters")
    if name == "everything":
        shape = (1, cohort.network.units, cohort.network.maskable.size)
        cohort.masks = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    run = fit_of(cohort, Standing(5 * len(splits.train), visited=123), dataset, splits)
    if name == "adapters":
        run.score_start()
    assert run.advance()
    assert run.advance()
    return run


def fit_of(cohort: Cohort, standing: Standing, dataset: Dataset, splits: Splits) -> Fit:
    return Fit(cohort, [standing], splits, dataset, metric="wauc", seed=3, patience=9)


def told(standing: Standing) -> dict[str, Any]:
    """A standing without its weights and speeds."""
    kept = {field.name: getattr(standing, field.name) for field in dataclasses.fields(standing) if field.name != "kept"}
    return {**kept, "rungs": [(rung.rows, rung.scores) for rung in standing.rungs]}


def assert_equal_weights(found: Kept, expected: Kept) -> None:
    for part in ("flat", "table", "running", "architecture", "masks"):
        mine, theirs = getattr(found.weights, part), getattr(expected.weights, part)
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.equal(mine, theirs)
    assert found.weights.progress == expected.weights.progress


@pytest.mark.parametrize("name", MEMBERS)
def test_training_goes_on_bit_for_bit(name: str, dataset: Dataset, splits: Splits, tmp_path: Path) -> None:
    run = begun(name, dataset, splits)
    path, facts = tmp_path / "paused" / "00003.safetensors", {"rows": 5, "place": "here", "list": [1.5, None]}
    state.save(path, run.cohort, run.standings[0], dataset, facts)
    assert state.read_facts(path) == facts
    cohort, standing, read = state.load(path, dataset)
    assert read == facts
    assert told(standing) == told(run.standings[0])
    assert standing.kept is not None
    assert run.standings[0].kept is not None
    assert_equal_weights(standing.kept, run.standings[0].kept)
    again = fit_of(cohort, standing, dataset, splits)
    for fit in (run, again):
        for _ in range(2):
            assert fit.advance()
    assert again.cohort.steps == run.cohort.steps
    assert told(again.standings[0]) == told(run.standings[0])
    assert again.standings[0].kept is not None
    assert_equal_weights(again.standings[0].kept, run.standings[0].kept)
    for mine, theirs in ((again.cohort.flat, run.cohort.flat), (again.cohort.sparse.second, run.cohort.sparse.second)):
        assert torch.equal(mine, theirs)
    if cohort.average is not None:
        assert torch.equal(cohort.weights().flat, run.cohort.weights().flat)


def test_a_state_without_a_score_has_no_best_weights(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    state.save(path, Cohort.on(dataset, [MEMBER]), Standing(100), dataset, {})
    cohort, standing, _ = state.load(path, dataset)
    assert (cohort.steps, standing.kept, standing.best, standing.rungs) == (0, None, None, [])


def test_a_damaged_state_is_refused(dataset: Dataset, splits: Splits, tmp_path: Path) -> None:
    run, path = begun("averaged", dataset, splits), tmp_path / "state.safetensors"
    state.save(path, run.cohort, run.standings[0], dataset, {})
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"no state"):
        path.write_bytes(damaged)
        for read in (state.read_facts, lambda path: state.load(path, dataset)):
            with pytest.raises(UserError, match="is not a whole state of a trial"):
                read(path)
    path.write_bytes(content)
    with safe_open(path, framework="pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    del tensors["table.second"]
    save_file(tensors, path, metadata=header)
    with pytest.raises(UserError, match="its checksum is another"):
        state.load(path, dataset)
    del header["checksum"]
    save_file(tensors, path, metadata=header)
    with pytest.raises(UserError, match=r"table\.second"):
        state.load(path, dataset)
    with pytest.raises(UserError):
        state.load(tmp_path / "nothing", dataset)
