"""Two processes of torchrun that share the rows of every batch do what one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autoctr.data.dataset import Dataset
from autoctr.data.presets import load_dataset
from training.replica_steps import CANDIDATES, trained

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """What two gloo processes have trained, and the data."""
    folder = tmp_path_factory.mktemp("replicas")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCTR_CACHE", str(folder / "cache"))
        dataset = load_dataset("taobao-sim", rows=3000)
        script = Path(__file__).with_name("replica_steps.py")
        done = subprocess.run(
            [*TORCHRUN, str(script), str(folder)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    assert done.returncode == 0, done.stderr
    return folder, dataset


@pytest.mark.parametrize("name", CANDIDATES)
def test_two_processes_take_the_steps_of_one(name: str, together: tuple[Path, Dataset]) -> None:
    folder, dataset = together
    shared, alone = load_file(folder / f"{name}.safetensors"), trained(CANDIDATES[name], dataset)
    for part, tensor in alone.items():
        torch.testing.assert_close(shared[part], tensor.detach(), atol=1e-9, rtol=1e-9)
    assert (alone["losses"][0] != alone["losses"][-1]).all()
