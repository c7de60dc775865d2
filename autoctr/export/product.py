"""A dense map as an export keeps it: without the inputs that are always 0 and the outputs that are always the same."""

from __future__ import annotations

import dataclasses
import hashlib

import torch
from torch import Tensor

#: Share of the inputs, or outputs, that must be left out before a map is stored without them: to pick some columns of
#: its input, or to spread those of its output, costs a pass through memory that fewer multiply-adds must pay for.
WORTHWHILE = 0.25


@dataclasses.dataclass(frozen=True)
class Product:
    """x W + b of ``inputs`` and ``outputs`` neurons, and x A B beside it where an adapter is kept.

    ``weight`` [computed, read] and ``bias`` [computed] are those of what is computed from what is read, as in
    ``nn.Linear``. ``reads`` int [read] numbers the inputs that are read; None = all. ``places`` int [outputs] tells
    where each output lies among the computed ones and the ``constants`` behind them; None = all are computed. A single
    constant is computed, from weights of 0. ``down`` [rank, inputs] and ``up`` [outputs, rank] are the adapter's.
    """

    inputs: int
    outputs: int
    weight: Tensor
    bias: Tensor
    reads: Tensor | None = None
    places: Tensor | None = None
    constants: Tensor | None = None
    down: Tensor | None = None
    up: Tensor | None = None

    @property
    def is_linear(self) -> bool:
        """Whether it is a plain ``nn.Linear``."""
        return len(self.tensors) == 2

    @property
    def is_compact(self) -> bool:
        """Whether inputs or outputs are left out."""
        return self.reads is not None or self.places is not None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All its tensors by their names."""
        names = ("weight", "bias", "reads", "places", "constants", "down", "up")
        return {name: tensor for name in names if (tensor := getattr(self, name)) is not None}

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per row."""
        return sum(part.numel() for part in (self.weight, self.down, self.up) if part is not None)

    @property
    def size(self) -> int:
        """Numbers it holds, indices included."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def key(self) -> str:
        """Equal for equal maps."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in self.tensors.items():
            digest.update(f"{name} {list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def compact(weight: Tensor, bias: Tensor, zeros: Tensor) -> Product:
    """x W + b where the inputs ``zeros`` are always 0, without what that makes needless, as far as it is worthwhile.

    Args:
        weight: [outputs, inputs]. bias: [outputs]. zeros: bool [inputs].
    """
    outputs, inputs = weight.shape
    unread = zeros | (weight == 0).all(0)
    constant = (weight[:, ~unread] == 0).all(1)
    reads = places = constants = None
    small, shift = weight, bias
    if is_worthwhile(unread):
        reads = _some(~unread)
        small = small[:, reads]
    if is_worthwhile(constant):
        computed = _some(~constant)
        left = torch.ones(outputs, dtype=torch.bool)
        left[computed] = False
        constants, of = torch.unique(bias[left], return_inverse=True)
        places = torch.empty(outputs, dtype=torch.int64)
        places[computed] = torch.arange(len(computed))
        places[left] = len(computed) + of
        small, shift = small[computed], bias[computed]
        if len(constants) == 1:
            small = torch.cat([small, torch.zeros_like(small[:1])])
            shift, constants = torch.cat([shift, constants]), None
    return Product(inputs, outputs, small, shift, reads, places, constants)


def adapted(weight: Tensor, bias: Tensor, zeros: Tensor, down: Tensor, up: Tensor) -> Product:
    """x (W + A B) + b, merged or with the adapter beside W: what needs fewer multiply-adds, then what is smaller.

    Args:
        weight: [outputs, inputs]. bias: [outputs]. zeros: bool [inputs]. down: A, [rank, inputs]. up: B, [outputs,
            rank].
    """
    merged = compact(weight + up @ down, bias, zeros)
    beside = dataclasses.replace(compact(weight, bias, zeros), down=down, up=up)
    return min(merged, beside, key=lambda product: (product.multiply_adds, product.size))


def is_worthwhile(left_out: Tensor) -> bool:
    """Whether so many inputs or outputs are left out, bool [neurons], that picking the others pays."""
    return bool(left_out.any()) and float(left_out.double().mean()) >= WORTHWHILE


def _some(chosen: Tensor) -> Tensor:
    """The numbers of the chosen ones; the first where there is none, for a product without any is no product."""
    numbers = chosen.nonzero()[:, 0]
    return numbers if len(numbers) else torch.zeros(1, dtype=torch.int64)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A map of the generated model, which may differ between domains.

    ``of`` holds the number of its product for every domain, then for unknown domains. ``factors`` [domains + 1,
    outputs] multiply what an activation makes of its outputs; None = 1. If it ``has_whole``, the first product is the
    whole map, which with the factors ``closing`` [domains + 1, outputs or inputs] (None = 1) gives for all domains what
    their own products give: for batches that are not worth splitting.
    """

    products: tuple[Product, ...]
    of: tuple[int, ...]
    factors: Tensor | None = None
    has_whole: bool = False
    closing: Tensor | None = None

    @classmethod
    def joining(
        cls,
        products: list[Product],
        factors: Tensor | None = None,
        whole: Product | None = None,
        closing: Tensor | None = None,
    ) -> Layer:
        """Of one product per domain; equal ones are kept once."""
        factors, closing = _unless_one(factors), _unless_one(closing)
        keys = [product.key for product in products]
        if len(set(keys)) == 1:
            return cls((products[0],), (0,) * len(products), factors)
        distinct = {} if whole is None else {whole.key: whole}
        distinct |= {key: product for key, product in zip(keys, products, strict=True) if key not in distinct}
        numbers = {key: number for number, key in enumerate(distinct)}
        of = tuple(numbers[key] for key in keys)
        return cls(tuple(distinct.values()), of, factors, whole is not None, None if whole is None else closing)

    @property
    def is_shared(self) -> bool:
        """Whether all domains have one product."""
        return len(self.products) == 1

    def product(self, domain: int) -> Product:
        """That of a domain."""
        return self.products[self.of[domain]]

    def kind(self, domain: int) -> tuple[object, ...]:
        """Equal for domains between which the layer does not tell."""
        tables = [table for table in (self.factors, self.closing) if table is not None]
        return self.of[domain], *(tuple(table[domain].tolist()) for table in tables)


def _unless_one(factors: Tensor | None) -> Tensor | None:
    return None if factors is None or bool((factors == 1).all()) else factors
