"""An encoded dataset on disk: one folder of memory-mapped arrays per split. Needs numpy only."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoctr.data.statistics import Statistics
from autoctr.errors import UserError

FORMAT = 1
SPLITS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True)
class Rows:
    """The encoded rows of one split, as arrays of N rows.

    ``ids`` int32 [N, slots]: rows of the joint embedding table (the field's offset is already added).
    ``numbers`` float32 [N, scaled fields]: standardised, missing = 0. ``vectors`` int32 [N, vector fields]:
    row of the field's side table, 0 = no vector. ``domain`` int32 [N]: 0..D-1; D for a domain that the
    training split never showed. ``labels`` float32 [N, tasks]: 0 or 1. ``user`` int32 [N] groups rows for
    grouped AUC; ``time`` int64 [N]. Both are None when the schema has no such role.
    """

    ids: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.int32]
    domain: npt.NDArray[np.int32]
    labels: npt.NDArray[np.float32]
    user: npt.NDArray[np.int32] | None = None
    time: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.domain)

    def take(self, rows: npt.NDArray[np.integer[Any]] | slice) -> Rows:
        """The given rows, in that order."""
        whole: dict[str, Any] = {part.name: getattr(self, part.name) for part in dataclasses.fields(self)}
        taken: dict[str, Any] = {name: None if part is None else part[rows] for name, part in whole.items()}
        return Rows(**taken)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An encoded dataset.

    ``key`` is the hash of schema, file contents and split. ``tables`` holds the side table of each vector
    field, float32 [rows, width], row 0 all zeros. ``info`` is free-form, JSON-ready: counts, source, and
    ``ceiling`` where the truth is known.
    """

    name: str
    key: str
    statistics: Statistics
    train: Rows
    valid: Rows
    test: Rows
    tables: dict[str, npt.NDArray[np.float32]]
    info: dict[str, Any]
    folder: Path | None = None

    @classmethod
    def open(cls, folder: Path | str) -> Dataset:
        """Open an encoded dataset; arrays stay on disk until they are read.

        Raises:
            UserError: if the folder is not a whole encoded dataset of this format.
        """
        folder = Path(folder)
        try:
            meta = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']}, this version reads {FORMAT}")
            splits: dict[str, Any] = {split: load_rows(folder / split) for split in SPLITS}
            for split, rows in splits.items():
                if len(rows) != meta["rows"][split]:
                    raise ValueError(f"{split} holds {len(rows)} rows, not {meta['rows'][split]}")
            tables = {name: _load(folder / "tables" / f"{name}.npy") for name in meta["tables"]}
            statistics = Statistics.from_dict(meta["statistics"])
            return cls(
                meta["name"],
                meta["key"],
                statistics,
                **splits,
                tables=tables,
                info=meta["info"],
                folder=folder,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} is not a whole encoded dataset ({error}); prepare it again") from error

    def write(self, folder: Path) -> None:
        """Write all arrays into ``folder`` (created); wrap in :func:`autoctr.atomic.replacing` for safety."""
        for split in SPLITS:
            (folder / split).mkdir(parents=True)
            rows: Rows = getattr(self, split)
            for part in dataclasses.fields(rows):
                array = getattr(rows, part.name)
                if array is not None:
                    np.save(folder / split / f"{part.name}.npy", array)
        (folder / "tables").mkdir()
        for name, table in self.tables.items():
            np.save(folder / "tables" / f"{name}.npy", table)
        write_meta(folder, self)


def write_meta(folder: Path, dataset: Dataset) -> None:
    """Write ``dataset.json``: the last file of an encode, without which the folder is not believed."""
    meta = {
        "format": FORMAT,
        "name": dataset.name,
        "key": dataset.key,
        "statistics": dataset.statistics.to_dict(),
        "rows": {split: len(getattr(dataset, split)) for split in SPLITS},
        "tables": sorted(dataset.tables),
        "info": dataset.info,
    }
    (folder / "dataset.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def load_rows(folder: Path) -> Rows:
    """The arrays of one split; they stay on disk until they are read.

    Raises:
        OSError: if an array is missing or cut short.
        ValueError: if the arrays differ in length.
    """
    arrays: dict[str, Any] = {}
    for part in dataclasses.fields(Rows):
        path = folder / f"{part.name}.npy"
        if path.exists() or part.name not in ("user", "time"):
            arrays[part.name] = _load(path)
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the arrays of {folder.name} differ in length: {lengths}")
    return Rows(**arrays)


def _load(path: Path) -> npt.NDArray[Any]:
    """A memory-mapped array; one without elements is read, as an empty file part cannot be mapped."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape = reader(file)[0]
    array: npt.NDArray[Any] = np.load(path, mmap_mode="r" if 0 not in shape else None)
    return array
