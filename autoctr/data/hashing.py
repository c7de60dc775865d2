"""Random numbers that depend on (seed, purpose, keys) alone: the same in any order, chunking or platform."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoctr.errors import UserError

Words = npt.NDArray[np.uint64]


def word(text: str) -> int:
    """64-bit hash of a text, the same in every process (unlike ``hash``)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def words(seed: int, purpose: str, *keys: npt.ArrayLike) -> Words:
    """Hash integer keys to 64 random bits each (SplitMix64's finaliser, applied once per key).

    Returns: uint64 of the keys' common shape.
    """
    state = _mix(np.asarray([(seed & 0xFFFFFFFFFFFFFFFF) ^ word(purpose)], dtype=np.uint64))
    for key in keys:
        state = _mix(state ^ _unsigned(key))
    return state


def uniforms(seed: int, purpose: str, *keys: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Like :func:`words`, as floats in [0, 1) of 53 bits."""
    return (words(seed, purpose, *keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def file_digest(paths: Iterable[Path]) -> str:
    """blake2b of the contents of the files in the given order; names do not matter.

    Raises:
        UserError: if a file cannot be read.
    """
    total = hashlib.blake2b(digest_size=20)
    for path in paths:
        try:
            with open(path, "rb") as file:
                total.update(hashlib.file_digest(file, _blake).digest())
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
    return total.hexdigest()


def _blake() -> Any:
    return hashlib.blake2b(digest_size=20)


def _unsigned(key: npt.ArrayLike) -> Words:
    array = np.asarray(key)
    return array if array.dtype == np.uint64 else array.astype(np.int64).view(np.uint64)


def _mix(state: Words) -> Words:
    with np.errstate(over="ignore"):
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))
