"""What a comparison has found so far: a csv file of runs, and beside it their metrics on resampled test users."""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import hashlib
import io
import json
import typing
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from autoctr.atomic import replacing, write_text
from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate

#: Raise it whenever the same candidate, data and seed would be trained or tested differently.
SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Run:
    """One model trained with one seed: a row of the csv file.

    Test metrics are those of the first label, see :class:`autoctr.training.metrics.Scores`; ``metric`` chose the best
    pass on validation. ``_error`` is the standard error of a metric under resampling of the test users.
    ``parameters`` leaves out the embedding table, ``multiply_adds`` per row its look-up. ``seconds`` is training time.
    """

    dataset: str
    model: str
    seed: int
    metric: str
    auc: float | None
    wauc: float | None
    mean_auc: float | None
    worst_auc: float | None
    gauc: float | None
    logloss: float
    calibration: float | None
    ece: float
    auc_error: float | None
    wauc_error: float | None
    logloss_error: float | None
    parameters: int
    embedding_parameters: int
    multiply_adds: int
    seconds: float
    dataset_key: str
    key: str


def run_key(candidate: Candidate, dataset: Dataset, metric: str, seed: int) -> str:
    """Equal for runs that give the same result."""
    parts = [candidate.replace(seed=0).canonical(), dataset.key, metric, seed, SCHEMA_VERSION]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


class Results:
    """The csv file of runs, and beside it a folder with each run's metrics on resamples of the test users.

    Several processes may add to it at a time.

    Args:
        path: of the csv file; the folder has its name without ``.csv``.

    Raises:
        UserError: if it cannot be written, or holds something else.
    """

    COLUMNS = tuple(field.name for field in dataclasses.fields(Run))

    def __init__(self, path: Path) -> None:
        if path.suffix != ".csv":
            raise UserError(f"--out is {path}; it must end in .csv")
        if path.is_dir():
            raise UserError(f"--out {path} is a folder; name a file")
        self.path, self.folder = path, path.with_suffix("")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock().close()
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror}); choose another --out") from error
        self.runs()

    def runs(self) -> list[Run]:
        """All rows."""
        if not self.path.exists():
            return []
        try:
            with open(self.path, newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file, strict=True)
                if tuple(reader.fieldnames or ()) != self.COLUMNS:
                    raise ValueError("other columns")
                return [_run(row) for row in reader]
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(
                f"{self.path} holds no comparison of this version ({error}); choose another --out"
            ) from error

    def find(self, key: str, model: str) -> Run | None:
        """The row of a run; if it was made under another model's name, it gets a row of its own."""
        same = [run for run in self.runs() if run.key == key]
        for run in same:
            if run.model == model:
                return run
        if not same:
            return None
        renamed = dataclasses.replace(same[0], model=model)
        self.append(renamed)
        return renamed

    def append(self, run: Run) -> None:
        """Add a row, whole or not at all, unless another process has added it meanwhile."""
        with self._lock() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            runs = self.runs()
            if any((other.key, other.model) == (run.key, run.model) for other in runs):
                return
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(self.COLUMNS)
            writer.writerows([getattr(row, name) for name in self.COLUMNS] for row in [*runs, run])
            write_text(self.path, text.getvalue())

    def keep(self, key: str, resamples: dict[str, Tensor]) -> None:
        """Store a run's resampled metrics."""
        with replacing(self._resamples(key)) as temporary:
            save_file({name: values.cpu() for name, values in resamples.items()}, temporary)

    def resamples(self, key: str, metric: str) -> Tensor | None:
        """A run's metric on the resamples; None if the file is gone."""
        try:
            return load_file(self._resamples(key))[metric]
        except (OSError, SafetensorError, KeyError):
            return None

    def _resamples(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _lock(self) -> typing.TextIO:
        return open(self.folder / "lock", "a", encoding="utf-8")


def _run(row: Mapping[str, str]) -> Run:
    values: dict[str, typing.Any] = {}
    for name, hint in typing.get_type_hints(Run).items():
        kind, *optional = typing.get_args(hint) or (hint,)
        values[name] = None if optional and row[name] == "" else kind(row[name])
    return Run(**values)
