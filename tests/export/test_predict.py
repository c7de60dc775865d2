"""The exported ``predict.py``: raw values in, the searched network's probabilities out, without autoctr."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fake_data import TASKS, Columns, fake_columns, fake_encoder
from safetensors.torch import load_file

from autoctr.data.dataset import Dataset
from autoctr.data.presets import load_dataset
from autoctr.export.folder import write_folder
from autoctr.export.verify import Check, searched_probabilities
from autoctr.model.build import multiply_adds
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort
from export.conftest import CANDIDATE, ROWS
from export.members import load_predict, member, random_wiring

ROUNDING = 5e-6  # of float32 probabilities, and of six digits in text
TICKETS: dict[str, Any] = {"embedding": 4, "width": 8, "wiring": random_wiring(1, 2, range(4)), "keep_rate": 0.5}
NETWORKS = {
    "tickets per domain": Candidate(
        **TICKETS, cross="bilinear", domain_ranks=(2, 0, 3, 0), input_pruner=True, sparsity=0.4
    ),
    "tickets per task": Candidate(**TICKETS, cross="attention", ticket_unit="task", sparsity=0.3),
    "one ticket": Candidate(**TICKETS, cross="lowrank", ticket_unit="network"),
    **{kind: Candidate(embedding=4, width=8, backbone=kind) for kind in ("mmoe", "ple", "star", "pepnet")},
}
# as an interpreter of an environment that has torch, numpy, safetensors and pyarrow only
_ISOLATED = """
import runpy, sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] in ("autoctr", "pandas", "polars", "optuna", "yaml")
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Hiding, sys.meta_path)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def predict(exported: Path) -> Any:
    return load_predict(exported)


def write_csv(path: Path, columns: Mapping[str, list[Any]], delimiter: str = ",") -> Path:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def read_csv(path: Path) -> tuple[list[str], np.ndarray]:
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    return header, np.asarray(rows, np.float64).reshape(len(rows), len(header))


def isolated(exported: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-B", "-c", _ISOLATED, str(exported / "predict.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=arguments[0].parent)


def test_csv_in_a_process_without_autoctr(exported: Path, columns: Columns, expected: Any, tmp_path: Path) -> None:
    done = isolated(exported, write_csv(tmp_path / "events.csv", columns), tmp_path / "scores.csv")
    assert (done.returncode, done.stderr) == (0, "")
    header, found = read_csv(tmp_path / "scores.csv")
    assert header == ["p_click", "p_conversion"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.csv", "scores.csv"]


def test_parquet_in_a_process_without_autoctr(exported: Path, columns: Columns, expected: Any, tmp_path: Path) -> None:
    lists = {"tags": [text.split("|") if text else [] for text in columns["tags"]]}
    table = pa.table({**columns, **lists, "market": pa.array(columns["market"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "events.parquet", row_group_size=70)
    done = isolated(exported, tmp_path / "events.parquet", tmp_path / "scores.parquet")
    assert (done.returncode, done.stderr) == (0, "")
    found = pq.read_table(tmp_path / "scores.parquet")
    assert found.schema.names == ["p_click", "p_conversion"]
    np.testing.assert_allclose(np.stack(found.columns, 1), expected, rtol=0, atol=ROUNDING)


def test_a_mistake_is_one_line_and_exit_code_2(exported: Path, columns: Columns, tmp_path: Path) -> None:
    rest = {name: values for name, values in columns.items() if name not in ("price", "market")}
    done = isolated(exported, write_csv(tmp_path / "events.csv", rest), tmp_path / "scores.csv")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "events.csv lacks the column price, market" in done.stderr
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize("name", ["events.tsv", "events.csv.gz", "events.tsv.gz"])
def test_other_text_files(name: str, predict: Any, columns: Columns, expected: Any, tmp_path: Path) -> None:
    write_csv(tmp_path / name, columns, "\t" if "tsv" in name else ",")
    assert predict.main([str(tmp_path / name), str(tmp_path / "scores.csv")]) == 0
    np.testing.assert_allclose(read_csv(tmp_path / "scores.csv")[1], expected, rtol=0, atol=ROUNDING)


def test_from_python(exported: Path, predict: Any, columns: Columns, expected: Any) -> None:
    model = predict.load(exported)
    found = predict.predict(model, columns)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)
    one = predict.predict(model, {name: values[:1] for name, values in columns.items()})
    np.testing.assert_allclose(one, expected[:1], rtol=0, atol=ROUNDING)
    assert predict.predict(model, {name: [] for name in columns}).shape == (0, 2)
    with pytest.raises(predict.UserError, match="missing columns user"):
        predict.predict(model, {name: values for name, values in columns.items() if name != "user"})


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_chunks_and_empty_tables(
    kind: str, predict: Any, columns: Columns, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "CHUNK_ROWS", 64)
    out = tmp_path / "scores.csv"
    for count in (ROWS, 128, 0):
        part = {name: values[:count] for name, values in columns.items()}
        path = tmp_path / f"events.{kind}"
        if kind == "csv":
            write_csv(path, part)
        else:
            pq.write_table(pa.table(columns).slice(0, count), path)
        assert predict.main([str(path), str(out)]) == 0
        np.testing.assert_allclose(read_csv(out)[1], expected[:count], rtol=0, atol=ROUNDING)


def test_types_of_parquet_columns(exported: Path, predict: Any, cohort: Cohort, tmp_path: Path) -> None:
    raw = fake_columns(50, 3, ())
    price = np.asarray([np.nan if value is None else value for value in raw["price"]], np.float32)
    item = [None if n % 7 == 0 else value for n, value in enumerate(raw["item"])]
    for type_ in (pa.int8(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.large_string()):
        items = [None if value is None else str(value) for value in item] if "string" in str(type_) else item
        pq.write_table(pa.table({**raw, "price": price, "item": pa.array(items, type_)}), tmp_path / "events.parquet")
        assert predict.main([str(tmp_path / "events.parquet"), str(tmp_path / "scores.csv")]) == 0
        wanted = fake_encoder(TASKS).encode({**raw, "price": price, "item": item})
        expected = searched_probabilities(cohort, wanted, torch.float32)
        np.testing.assert_allclose(read_csv(tmp_path / "scores.csv")[1], expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network(
    name: str, dataset: Dataset, columns: Columns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the check starts an interpreter: one network of each family will do
    if name not in ("tickets per domain", "mmoe"):
        monkeypatch.setattr("autoctr.export.folder.check_folder", lambda *_, **__: Check(0, 0.0, 0))
    candidate = NETWORKS[name]
    cohort = member(dataset, candidate)
    out, difference = write_folder(cohort, dataset, tmp_path / "winner", {})
    assert difference < 1e-5
    predict = load_predict(out, "network_predict")
    assert predict.main([str(write_csv(tmp_path / "events.csv", columns)), str(tmp_path / "scores.csv")]) == 0
    expected = searched_probabilities(cohort, fake_encoder(TASKS).encode(columns), torch.float32)
    np.testing.assert_allclose(read_csv(tmp_path / "scores.csv")[1], expected, rtol=0, atol=ROUNDING)
    card = json.loads((out / "card.json").read_text())
    assert card["multiply_adds"] == multiply_adds(candidate, dataset.statistics) > 0
    assert (card["wiring"] is None) == (candidate.backbone != "fusion")
    weights = load_file(out / "weights.safetensors")
    numbers = {key: tensor.numel() for key, tensor in weights.items() if tensor.is_floating_point()}
    trained = sum(count for key, count in numbers.items() if "vectors" not in key)
    assert sum(card["parameters"].values()) == trained


def test_bad_tables(
    predict: Any,
    columns: Columns,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def complaint(path: Path, out: str = "scores.csv", *more: str) -> str:
        assert predict.main([str(path), str(tmp_path / out), *more]) == 2
        assert not (tmp_path / out).exists()
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        return printed

    good = write_csv(tmp_path / "good.csv", columns)
    assert "No such file" in complaint(tmp_path / "absent.csv")
    assert "must end in .csv or .parquet" in complaint(good, "scores.xlsx")
    (tmp_path / "table.txt").write_text("user\n")
    assert "neither csv nor parquet" in complaint(tmp_path / "table.txt")
    (tmp_path / "empty.csv").write_text("")
    assert "lacks the column" in complaint(tmp_path / "empty.csv")
    (tmp_path / "ragged.csv").write_text(good.read_text() + "u1,3\n")
    assert "a row has 2 values, not 6" in complaint(tmp_path / "ragged.csv")
    write_csv(tmp_path / "word.csv", {**columns, "price": ["cheap"] * ROWS})
    assert "price holds 'cheap', which is not a number" in complaint(tmp_path / "word.csv")
    text = good.read_text().replace("impression", "user", 1)
    (tmp_path / "twice.csv").write_text(text)
    assert "more than one column named user" in complaint(tmp_path / "twice.csv")
    (tmp_path / "broken.parquet").write_text("no parquet")
    assert "cannot read" in complaint(tmp_path / "broken.parquet")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in complaint(good, "scores.csv", "--device", "cuda")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in complaint(good, "scores.parquet")


def test_a_table_that_went_through_the_whole_encoding(tmp_path: Path) -> None:
    raw = fake_columns(900, 2, TASKS)
    raw["split"] = (["train"] * 600 + ["valid"] * 150 + ["test"] * 150)[::-1]
    raw["user"] = [f" {name}" if number % 50 == 0 else name for number, name in enumerate(raw["user"])]
    write_csv(tmp_path / "events.csv", raw)
    draw = np.random.default_rng(0)
    vectors = {"id": list(range(12)), **{f"v{n}": draw.normal(size=12).tolist() for n in range(3)}}
    write_csv(tmp_path / "items.csv", vectors)
    (tmp_path / "schema.yaml").write_text(
        "labels: [click, conversion]\n"
        "domain: market\n"
        "columns:\n"
        "  - user\n"
        "  - {name: tags, kind: multi, separator: '|', max_length: 2}\n"
        "  - {name: price, kind: numeric}\n"
        "  - {name: price bin, kind: numeric, source: price, bins: 4}\n"
        "  - {name: vector, kind: vector, source: item, table: items.csv}\n"
        "split: {kind: column, column: split}\n"
    )
    dataset = load_dataset(table=tmp_path / "events.csv", schema=tmp_path / "schema.yaml", cache=tmp_path / "cache")
    cohort = member(dataset, CANDIDATE)
    out, _ = write_folder(cohort, dataset, tmp_path / "winner", {})
    tests = [number for number, split in enumerate(raw["split"]) if split == "test"]
    part = {name: [values[number] for number in tests] for name, values in raw.items()}
    write_csv(tmp_path / "test.csv", part)
    predict = load_predict(out, "encoded_predict")
    assert predict.main([str(tmp_path / "test.csv"), str(tmp_path / "scores.csv")]) == 0
    expected = searched_probabilities(cohort, dataset.test, torch.float32)
    np.testing.assert_allclose(read_csv(tmp_path / "scores.csv")[1], expected, rtol=0, atol=ROUNDING)
