"""One trained member on disk: a safetensors file with its candidate in the header. No pickle."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from autoctr.atomic import replacing
from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.model.network import Network
from autoctr.training.cohort import Cohort, Weights


def save(path: Path, network: Network, weights: Weights) -> None:
    """Write the only member of ``network`` to ``path``, whole or not at all."""
    header = {"candidate": network.candidates[0].canonical(), "progress": repr(weights.progress)}
    write(path, named(network, weights), header)


def named(network: Network, weights: Weights) -> dict[str, Tensor]:
    """The weights of the only member of ``network``, as :func:`restore` takes them."""
    found = {f"dense.{name}": view[0] for name, view in network.layout.views(weights.flat).items()}
    found |= {f"wiring.{name}": view[0] for name, view in network.architecture.views(weights.architecture).items()}
    found |= {"embedding": weights.table[:, 0], "running": weights.running[0]}
    if weights.masks is not None:
        found["masks"] = weights.masks[0] > 0
    return found


def write(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """A safetensors file, whole or not at all."""
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, temporary, metadata=header)


def read(path: Path, device: torch.device | str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a safetensors file."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def load(path: Path, dataset: Dataset, device: torch.device | str = "cpu") -> Cohort:
    """A cohort of the one member that ``path`` holds.

    Raises:
        UserError: if the file is missing, damaged, or of another network than its header says.
    """
    try:
        header, tensors = read(path, device)
        candidate = Candidate.from_dict(json.loads(header["candidate"]))
        return restore(candidate, tensors, float(header["progress"]), dataset, device)
    except torch.OutOfMemoryError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is not a whole checkpoint ({error}); run the trial again") from error


def restore(
    candidate: Candidate,
    tensors: dict[str, Tensor],
    progress: float,
    dataset: Dataset,
    device: torch.device | str,
) -> Cohort:
    """A cohort of one member with the given named weights."""
    masks = tensors["masks"][None] if "masks" in tensors else None
    if masks is None and candidate.keep_rate < 1:
        raise ValueError("the masks of its tickets are missing")
    cohort = Cohort.on(dataset, [candidate], device=device, masks=masks)
    network = cohort.network
    if masks is not None and masks.shape != (1, network.units, network.maskable.size):
        raise ValueError(f"masks has the shape {list(masks.shape)}, expected {[network.units, network.maskable.size]}")
    for prefix, layout, flat in (
        ("dense", network.layout, cohort.flat),
        ("wiring", network.architecture, cohort.architecture),
    ):
        for name, view in layout.views(flat).items():
            fill(view[0], tensors, f"{prefix}.{name}")
    fill(cohort.table[:, 0], tensors, "embedding")
    fill(cohort.running[0], tensors, "running")
    cohort.ramped = round(progress * cohort.ramp)
    return cohort


def fill(target: Tensor, tensors: dict[str, Tensor], name: str) -> None:
    """Copy the tensor ``name`` to ``target``.

    Raises:
        KeyError: if there is none. ValueError: if it has another shape.
    """
    if tensors[name].shape != target.shape:
        raise ValueError(f"{name} has the shape {list(tensors[name].shape)}, expected {list(target.shape)}")
    target.copy_(tensors[name])
