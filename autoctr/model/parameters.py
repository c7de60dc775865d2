"""All dense weights of a cohort in one tensor, one row per member; layers see it as named views."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Shape = tuple[int, ...]
Initialiser = Callable[[Shape, torch.Generator], Tensor]
Views = Mapping[str, Tensor]


def zeros(shape: Shape, generator: torch.Generator) -> Tensor:
    """All zeros."""
    return torch.zeros(shape)


def constant(value: float) -> Initialiser:
    """All ``value``."""
    return lambda shape, generator: torch.full(shape, value)


def normal(deviation: float) -> Initialiser:
    """Normal draws with the given standard deviation."""
    return lambda shape, generator: torch.randn(shape, generator=generator) * deviation


def within(bound: float) -> Initialiser:
    """Uniform in ±``bound``."""
    return lambda shape, generator: (torch.rand(shape, generator=generator) * 2 - 1) * bound


def uniform(fan_in: int) -> Initialiser:
    """Uniform in ±1/√fan_in, the start of ``torch.nn.Linear``."""
    return within(1 / math.sqrt(fan_in))


def glorot(fan_in: int, fan_out: int) -> Initialiser:
    """Uniform in ±√(6 / (fan_in + fan_out))."""
    return within(math.sqrt(6 / (fan_in + fan_out)))


def named_generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator that depends on the member's seed and on what is drawn, on nothing else."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclasses.dataclass(frozen=True)
class Weight:
    """One named weight of one member: its shape, its start and whether weight decay applies to it.

    ``drawn`` is the shape the start is drawn in before it is cut to ``shape``: LoRA's A is drawn at the largest rank,
    so that all ranks share a start and padding changes nothing.
    """

    name: str
    shape: Shape
    start: Initialiser
    decayed: bool
    drawn: Shape

    @property
    def size(self) -> int:
        """Numbers per member."""
        return math.prod(self.shape)


class Layout:
    """Where every weight of a member lies in the row of the flat tensor."""

    def __init__(self) -> None:
        self.weights: dict[str, Weight] = {}

    def add(
        self,
        name: str,
        shape: Shape,
        start: Initialiser,
        *,
        decayed: bool = False,
        drawn: Shape | None = None,
    ) -> None:
        """Reserve room for one weight."""
        if name in self.weights:
            raise ValueError(f"weight {name} is declared twice")
        self.weights[name] = Weight(name, shape, start, decayed, drawn or shape)

    @property
    def size(self) -> int:
        """P, the dense numbers of one member."""
        return sum(weight.size for weight in self.weights.values())

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Named weights [K, *shape] of ``flat`` [K, P]. One split, so that the backward pass is one concatenation."""
        pieces = torch.split(flat, [weight.size for weight in self.weights.values()], dim=1)
        return {
            name: piece.reshape(len(flat), *weight.shape)
            for (name, weight), piece in zip(self.weights.items(), pieces, strict=True)
        }

    def initial(self, seeds: Sequence[int]) -> Tensor:
        """Fresh weights, float32 [K, P], one row per seed."""
        if not self.weights:
            return torch.zeros(len(seeds), 0)
        return torch.stack([torch.cat([self._draw(w, seed) for w in self.weights.values()]) for seed in seeds])

    def _draw(self, weight: Weight, seed: int) -> Tensor:
        values = weight.start(weight.drawn, named_generator(seed, weight.name))
        return values[tuple(slice(0, n) for n in weight.shape)].reshape(-1)

    def decayed(self) -> Tensor:
        """1 where weight decay applies, else 0; float32 [P]."""
        return torch.cat([torch.full((w.size,), float(w.decayed)) for w in self.weights.values()])


def transfer(source: Layout, values: Tensor, target: Layout, into: Tensor, skip: str | None = None) -> list[str]:
    """Copy every weight that both layouts hold in the same shape from ``values`` to ``into`` [K, P], in place.

    Adapters of another rank are cut or padded to the target's: what it has beyond the source's stays. So do weights
    whose names contain ``skip``.

    Returns: the names that ``target`` has and ``source`` lacks.
    """
    given, wanted = source.views(values), target.views(into)
    for name, view in wanted.items():
        if name not in given or (skip is not None and skip in name):
            continue
        if ".lora." in name:
            shared = tuple(slice(0, min(sizes)) for sizes in zip(given[name].shape, view.shape, strict=True))
            view[shared] = given[name][shared]
        elif given[name].shape == view.shape:
            view.copy_(given[name])
    return [name for name in wanted if name not in given]
