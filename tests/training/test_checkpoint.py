from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_data import TASKS, fake_dataset
from model.networks import TINY, random_cohort, random_wiring, resident
from safetensors import safe_open
from safetensors.torch import save_file

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.architecture import parallel
from autoctr.model.candidate import Candidate
from autoctr.training import checkpoint
from autoctr.training.cohort import Cohort, ramp_rows

MEMBERS: dict[str, dict[str, Any]] = {
    "plain": {"wiring": parallel(2)},
    "everything": {"wiring": random_wiring(2, 1, True), "norm": "batch", "rank": 2, "sparsity": 0.3, "averaging": 0.9},
    "supernet": {"architecture": "learn", "norm": "batch", "rank": 1},
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=150, tasks=TASKS, unseen=0.15)


def trained(dataset: Dataset, name: str) -> Cohort:
    cohort = random_cohort(dataset, [Candidate(**TINY | MEMBERS[name])], dtype=torch.float32, progress=0.0)
    cohort.ramp = ramp_rows(len(dataset.train))
    for batch in list(resident(dataset, "train", torch.float32).batches(0, 0, 40))[:2]:
        cohort.step(batch, wire=cohort.network.relaxed)
    return cohort


@pytest.mark.parametrize("name", MEMBERS)
def test_a_checkpoint_brings_back_every_bit(dataset: Dataset, tmp_path: Path, name: str) -> None:
    cohort = trained(dataset, name)
    weights = cohort.weights()
    path = tmp_path / "member.safetensors"
    checkpoint.save(path, cohort.network, weights)
    again = checkpoint.load(path, dataset)
    assert again.network.candidates == cohort.network.candidates
    assert 0 < again.progress == cohort.progress < 1
    for part in ("flat", "table", "running", "architecture"):
        assert torch.equal(getattr(again.weights(), part), getattr(weights, part))
    rows = resident(dataset, dtype=torch.float32)
    assert torch.equal(again.logits(rows), cohort.logits(rows))
    assert [file.name for file in tmp_path.iterdir()] == ["member.safetensors"]


def test_a_checkpoint_holds_its_candidate_in_the_header_and_named_weights(dataset: Dataset, tmp_path: Path) -> None:
    cohort = trained(dataset, "plain")
    path = tmp_path / "member.safetensors"
    checkpoint.save(path, cohort.network, cohort.weights())
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["candidate"] == cohort.network.candidates[0].canonical()
        assert {"dense.D1.weight", "embedding", "running"} <= set(file.keys())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a checkpoint at all")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _broken_header(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:8] + b"#" * 20 + data[28:])


def _rewrite(
    path: Path, *, drop: str = "", reshape: str = "", candidate: str | None = None, bare: bool = False
) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != drop}  # noqa: SIM118
    if reshape:
        tensors[reshape] = torch.zeros(3, 5, 7)
    if candidate is not None:
        metadata["candidate"] = candidate
    save_file(tensors, path, metadata=None if bare else metadata)


DAMAGES: dict[str, Any] = {
    "missing": lambda path: path.unlink(),
    "cut short": _cut,
    "garbage": _garbage,
    "empty": _empty,
    "broken header": _broken_header,
    "a weight lacks": lambda path: _rewrite(path, drop="dense.D1.weight"),
    "a weight of another shape": lambda path: _rewrite(path, reshape="dense.D1.weight"),
    "a table of another shape": lambda path: _rewrite(path, reshape="embedding"),
    "a candidate that is not JSON": lambda path: _rewrite(path, candidate="{"),
    "an illegal candidate": lambda path: _rewrite(path, candidate=Candidate().canonical().replace('"none"', '"odd"')),
    "a candidate of another version": lambda path: _rewrite(path, candidate='{"depth": 3}'),
    "another candidate": lambda path: _rewrite(path, candidate=Candidate(width=7, wiring=parallel(2)).canonical()),
    "without a header": lambda path: _rewrite(path, bare=True),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_a_users_error_that_names_the_file(
    dataset: Dataset, tmp_path: Path, damage: str
) -> None:
    cohort = trained(dataset, "plain")
    path = tmp_path / "member.safetensors"
    checkpoint.save(path, cohort.network, cohort.weights())
    DAMAGES[damage](path)
    with pytest.raises(UserError, match=r"member\.safetensors is not a whole checkpoint") as caught:
        checkpoint.load(path, dataset)
    assert "\n" not in str(caught.value)


def test_a_failed_save_leaves_the_old_checkpoint(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = trained(dataset, "plain")
    path = tmp_path / "member.safetensors"
    checkpoint.save(path, cohort.network, cohort.weights())
    before = path.read_bytes()

    def half(tensors: Any, target: Path, metadata: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, cohort.network, cohort.weights())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["member.safetensors"]
