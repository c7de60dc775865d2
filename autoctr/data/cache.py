"""The cache of encoded datasets: built once, checked on every use, rebuilt when damaged."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from autoctr.atomic import replacing
from autoctr.data.dataset import FORMAT, Dataset
from autoctr.data.encoding import RawTable, encode
from autoctr.data.schema import Schema
from autoctr.data.splits import SplitRule, split_to_dict
from autoctr.errors import UserError

ENVIRONMENT = "AUTOCTR_CACHE"
SUMS = "checksums.json"
# Raise it whenever the same raw data would be encoded differently.
ENCODING = 1


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to make a dataset.

    ``content`` identifies the raw data, JSON-ready; ``read`` is called only when it must be encoded.
    """

    name: str
    schema: Schema
    split: SplitRule
    content: dict[str, Any]
    read: Callable[[], RawTable]

    @property
    def key(self) -> str:
        """Hash of schema, contents, split and format version."""
        parts = {
            "format": [FORMAT, ENCODING],
            "schema": self.schema.to_dict(),
            "split": split_to_dict(self.split),
            "content": self.content,
        }
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def cache_root(cache: Path | None = None) -> Path:
    """The folder of the cache: as given, else ``$AUTOCTR_CACHE``, else ``~/.cache/autoctr``."""
    if cache is not None:
        return Path(cache)
    named = os.environ.get(ENVIRONMENT)
    return Path(named) if named else Path.home() / ".cache" / "autoctr"


def prepare(recipe: Recipe, cache: Path | None = None) -> Dataset:
    """The encoded dataset, from the cache or encoded now.

    Raises:
        UserError: for bad raw data, or when the cache cannot be written.
    """
    key = recipe.key
    folder = cache_root(cache) / f"{recipe.name}-{key[:16]}"

    def write(target: Path) -> None:
        encode(target, recipe.name, key, recipe.schema, recipe.split, recipe.read())

    built(folder, write)
    return Dataset.open(folder)


def built(folder: Path, write: Callable[[Path], None]) -> None:
    """Make sure that ``folder`` is there and whole; if not, ``write`` fills a new one that takes its place.

    An interrupted ``write`` leaves nothing that is believed. Of two processes that want the same folder one
    writes and the other waits.
    """
    if _damage(folder) is None:
        return
    with _lock(folder) as alone:
        damage = _damage(folder)
        if damage is None:
            return
        if damage:
            warnings.warn(f"the cached {folder} is damaged ({damage}); making it again", stacklevel=3)
        if alone:
            _clear_leftovers(folder)
        try:
            with replacing(folder) as temporary:
                write(temporary)
                (temporary / SUMS).write_text(json.dumps(_sums(temporary)), encoding="utf-8")
        except OSError as error:
            if _damage(folder) is None:  # another process was first
                return
            raise UserError(f"cannot write the cache {folder}: {error}; choose another with ${ENVIRONMENT}") from error


def _damage(folder: Path) -> str | None:
    """None if the folder is whole, else what is wrong with it; empty if there is none."""
    if not folder.exists():
        return ""
    try:
        expected = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        found = _sums(folder)
        wrong = sorted(name for name, sums in expected.items() if found.get(name) != sums)
    except (OSError, ValueError, AttributeError) as error:
        return str(error)
    return f"{', '.join(wrong[:3])} changed or missing" if wrong else None


def _sums(folder: Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file: fast (about 1 GB/s or more), and enough against accidents."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SUMS:
            crc = 0
            with open(path, "rb") as file:
                while block := file.read(1 << 22):
                    crc = zlib.crc32(block, crc)
            sums[path.relative_to(folder).as_posix()] = [path.stat().st_size, crc]
    return sums


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Hold the lock of ``folder``; the system frees it however the process ends. Yields whether it is held."""
    path = folder.parent / f".{folder.name}.lock"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115 closed below
    except OSError as error:
        raise UserError(
            f"cannot write the cache {folder.parent}: {error.strerror}; choose another with ${ENVIRONMENT}"
        ) from error
    with file:
        alone = False
        with contextlib.suppress(ImportError, OSError):
            # without locks (Windows, some network drives) both write and one stays: wasteful, not wrong
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        yield alone


def _clear_leftovers(folder: Path) -> None:
    """Remove what a killed encode left; safe under the lock."""
    for ending in ("tmp", "old"):
        for left in folder.parent.glob(f".{folder.name}.*.{ending}"):
            shutil.rmtree(left, ignore_errors=True)
