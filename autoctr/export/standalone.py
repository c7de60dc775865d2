"""Predict with the exported model in this folder: raw values in, probabilities out.

    python predict.py events.csv scores.csv

reads csv (also .csv.gz, .tsv, .tsv.gz) or parquet and writes one row per input row, in the same order, with a column
p_<task> per task. Labels are not needed; columns that the model does not read are ignored. Values that training never
showed, and unknown domains, are scored as such. Needs torch, numpy and safetensors; parquet needs pyarrow too.

From Python, with this folder on the path:

    import predict
    model = predict.load("this/folder")
    probabilities = predict.predict(model, {"column": ["value", ...], ...})  # float32 [rows, tasks]
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import gzip
import hashlib
import importlib.util
import itertools
import json
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from autoctr.data.encoder import Encoder
from autoctr.errors import UserError

CHUNK_ROWS = 32_768
CACHED_ROWS = 4096  # of which a processor's cache holds a layer's numbers
TEXT = (".csv", ".csv.gz", ".tsv", ".tsv.gz")


@dataclasses.dataclass(frozen=True)
class Model:
    """A loaded export: the network (inputs to logits), how raw values become its inputs, its tasks, its place."""

    network: Any
    encoder: Encoder
    inputs: tuple[str, ...]
    tasks: tuple[str, ...]
    device: torch.device


def load(folder: Path | str, device: torch.device | str = "cpu") -> Model:
    """Load the export in ``folder``.

    Raises:
        UserError: if a file is missing, or damaged by the sums in card.json.
    """
    folder, device = Path(folder), torch.device(device)
    with reading(folder):
        check_files(folder, ("model.py", "weights.safetensors", "features.json"))
        module, network = read_network(folder, device)
        return Model(network, read_encoder(folder), module.INPUTS, module.TASKS, device)


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """An export that cannot be read is the user's to mend."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{folder} is not a whole export ({_one_line(error)}); export again") from error


def check_files(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """What card.json says, once the named files have the sums that it gives.

    Raises:
        UserError: for a file that was changed.
    """
    card: dict[str, Any] = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    for name in names:
        if _digest(folder / name) != card["files"][name]:
            raise UserError(f"{folder / name} is not the file that was exported (see card.json); export again")
    return card


def read_encoder(folder: Path) -> Encoder:
    """How raw values become inputs, from features.json."""
    return Encoder.from_dict(json.loads((folder / "features.json").read_text(encoding="utf-8"))["encoder"])


def read_network(folder: Path, device: torch.device) -> tuple[types.ModuleType, Any]:
    """The module model.py, and its network with the weights, for inference."""
    module = _module(folder / "model.py")
    with torch.device("meta"):
        network = module.Model()
    network.load_state_dict(load_file(folder / "weights.safetensors", device=str(device)), assign=True)
    return module, network.eval().requires_grad_(False)


def predict(model: Model, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """Probabilities for raw columns, given by name, all of the same length.

    Returns: float32 [rows, tasks].

    Raises:
        UserError: if a column is missing or a number cannot be read.
    """
    rows = model.encoder.encode(columns)
    return probabilities(model, {name: getattr(rows, name) for name in model.inputs})


def probabilities(model: Model, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Probabilities for encoded rows, given by the names of the model's inputs: [rows, tasks]."""
    rows, pieces = len(inputs["ids"]), []
    step = CACHED_ROWS if model.device.type == "cpu" else CHUNK_ROWS
    with torch.inference_mode():
        for start in range(0, max(rows, 1), step):
            parts = [torch.from_numpy(inputs[name][start : start + step]).to(model.device) for name in model.inputs]
            pieces.append(model.network(*parts).sigmoid().cpu().numpy())
    result: npt.NDArray[Any] = np.concatenate(pieces)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns: the exit code, 2 for an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="predict.py", description="Probabilities for the rows of a table.")
    parser.add_argument("input", type=Path, help="raw values: .csv, .tsv (also .gz) or .parquet")
    parser.add_argument("output", type=Path, help="probabilities: .csv or .parquet")
    parser.add_argument("--device", default="cpu", help="where to compute, such as cpu or cuda")
    given = parser.parse_args(arguments)
    try:
        if given.device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError("no CUDA device was found; use --device cpu")
        model = load(Path(__file__).resolve().parent, given.device)
        with _output(given.output, [f"p_{task}" for task in model.tasks]) as write:
            for columns in _read(given.input, model.encoder.raw_columns):
                write(predict(model, columns))
    except (UserError, OSError, UnicodeDecodeError, csv.Error) as error:
        print(f"predict.py: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _module(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("exported_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _read(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The given raw columns, ``CHUNK_ROWS`` rows at a time."""
    if path.suffix == ".parquet":
        return _read_parquet(path, columns)
    if path.name.endswith(TEXT):
        return _read_text(path, columns)
    raise UserError(f"{path} is neither csv nor parquet; its name must end in .parquet, {', '.join(TEXT)}")


def _need(path: Path, columns: Sequence[str], present: Sequence[str]) -> None:
    missing = [name for name in columns if name not in present]
    if missing:
        raise UserError(f"{path} lacks the column {', '.join(missing)}; its columns are {', '.join(present)}")
    twice = [name for name in columns if list(present).count(name) > 1]
    if twice:
        raise UserError(f"{path} has more than one column named {', '.join(twice)}; give every column its own name")


def _read_text(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(1 << 30)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if ".tsv" in path.suffixes else ",")
        header = next(reader, [])
        _need(path, columns, header)
        places = {name: header.index(name) for name in columns}
        while lines := list(itertools.islice(reader, CHUNK_ROWS)):
            rows = [row for row in lines if row]
            for row in rows:
                if len(row) != len(header):
                    line = reader.line_num
                    raise UserError(f"{path}, up to line {line}: a row has {len(row)} values, not {len(header)}: {row}")
            yield {name: [row[place] for row in rows] for name, place in places.items()}


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("parquet needs pyarrow, which is missing; pip install pyarrow, or use csv") from error
    return pyarrow


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    pa = _pyarrow()
    try:
        with pa.parquet.ParquetFile(path) as file:
            _need(path, columns, file.schema_arrow.names)
            for batch in file.iter_batches(CHUNK_ROWS, columns=list(columns)):
                yield {name: _values(pa, batch.column(name)) for name in columns}
    except pa.ArrowException as error:
        raise UserError(f"cannot read {path}: {_one_line(error)}") from error


def _values(pa: Any, array: Any) -> Any:
    """The values of a parquet column as the encoder reads them; float32 stays float32, for its short text form."""
    kinds = pa.types
    if kinds.is_dictionary(array.type):
        array = array.dictionary_decode()
    if kinds.is_timestamp(array.type) and array.type.unit == "ns":
        array = array.cast(pa.timestamp("us", array.type.tz), safe=False)
    if kinds.is_floating(array.type) or (kinds.is_integer(array.type) and not array.null_count):
        return array.to_numpy(zero_copy_only=False)
    values = array.to_pylist()
    if kinds.is_nested(array.type) and kinds.is_float32(getattr(array.type, "value_type", None)):
        return [None if row is None else list(np.asarray(row, np.float32)) for row in values]
    return values


@contextlib.contextmanager
def _output(path: Path, names: Sequence[str]) -> Iterator[Callable[[npt.NDArray[np.float32]], None]]:
    """A function that appends rows to ``path``, which appears only when all of them are written."""
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"cannot write {path}; its name must end in .csv or .parquet")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with (_csv_rows if path.suffix == ".csv" else _parquet_rows)(temporary, names) as write:
            yield write
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _csv_rows(path: Path, names: Sequence[str]) -> Iterator[Callable[[npt.NDArray[np.float32]], None]]:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(names)
        # nine digits give a float32 back exactly
        pattern = ",".join(["%.9g"] * len(names)) + "\n"
        yield lambda rows: file.writelines(pattern % tuple(row) for row in rows.tolist())


@contextlib.contextmanager
def _parquet_rows(path: Path, names: Sequence[str]) -> Iterator[Callable[[npt.NDArray[np.float32]], None]]:
    pa = _pyarrow()
    schema = pa.schema([(name, pa.float32()) for name in names])
    with pa.parquet.ParquetWriter(path, schema) as file:
        yield lambda rows: file.write_batch(pa.record_batch(list(rows.T), schema=schema))


if __name__ == "__main__":
    sys.exit(main())
