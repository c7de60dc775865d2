"""One trained member on disk: a safetensors file with its candidate in the header. No pickle."""

from __future__ import annotations

import hashlib
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

CHECKSUM = "checksum"

#: What reading a damaged file raises.
DAMAGES = (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError)


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
    """A safetensors file with a checksum, whole or not at all.

    Raises:
        UserError: if it cannot be written.
    """
    here = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(here, temporary, metadata={**header, CHECKSUM: _checksum(here)})
        except SafetensorError as error:
            raise UserError(f"cannot write {path} ({error}); make room there, then go on") from error


def read_header(path: Path) -> dict[str, str]:
    """The header alone, unchecked."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def read(path: Path, device: torch.device | str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a safetensors file.

    Raises:
        ValueError: if its checksum is another than what was written. And all others of ``DAMAGES``.
    """
    with safe_open(path, framework="pt") as file:
        header, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.pop(CHECKSUM, None) not in (None, _checksum(tensors)):  # None: of a version that wrote none
        raise ValueError("its checksum is another than what was written")
    return header, {name: tensor.to(device) for name, tensor in tensors.items()}


def read_candidate(path: Path) -> Candidate:
    """The candidate that a checkpoint holds.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        return Candidate.from_dict(json.loads(read_header(path)["candidate"]))
    except DAMAGES as error:
        raise UserError(f"{path} is not a whole checkpoint ({error})") from error


def _checksum(tensors: dict[str, Tensor]) -> str:
    total = hashlib.blake2b(digest_size=12)
    for name in sorted(tensors):
        total.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        total.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


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
    except DAMAGES as error:
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
