from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from autoctr.data.cache import prepare
from autoctr.data.dataset import Dataset
from autoctr.data.presets import load_dataset, recipe_for
from autoctr.errors import UserError


@pytest.fixture
def table(tmp_path: Path, events: pl.DataFrame) -> dict[str, Path]:
    events.drop("seen").write_csv(tmp_path / "events.csv")
    schema = tmp_path / "schema.yaml"
    schema.write_text(
        textwrap.dedent(
            """\
            labels: [click]
            domain: market
            user: user
            timestamp: ts
            split: {kind: stratified, seed: 3}
            columns:
              - user
              - {name: item, min_count: 3}
              - {name: price, kind: numeric}
              - {name: tags, kind: multi, separator: "|"}
            """
        )
    )
    return {"table": tmp_path / "events.csv", "schema": schema}


def test_the_key_follows_contents_schema_and_split_but_not_names(table, tmp_path):
    key = recipe_for(**table).key
    moved = tmp_path / "moved.csv"
    moved.write_bytes(table["table"].read_bytes())
    assert recipe_for(table=moved, schema=table["schema"]).key == key
    moved.write_text(moved.read_text().replace("de", "dk"))
    assert recipe_for(table=moved, schema=table["schema"]).key != key
    schema = tmp_path / "other.yaml"
    for old, new in (("seed: 3", "seed: 4"), ("min_count: 3", "min_count: 4")):
        schema.write_text(table["schema"].read_text().replace(old, new))
        assert recipe_for(table=table["table"], schema=schema).key != key


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "train" / "ids.npy").unlink(),
        lambda folder: os.truncate(folder / "valid" / "labels.npy", 200),
        lambda folder: (folder / "test" / "user.npy").unlink(),
        lambda folder: (folder / "dataset.json").write_text("{"),
        lambda folder: (folder / "encoder.json").write_text("{}"),
        lambda folder: (folder / "checksums.json").unlink(),
        lambda folder: _flip_last_byte(folder / "train" / "ids.npy"),
    ],
)
def test_a_damaged_cache_is_rebuilt_with_a_warning(table, damage):
    first = load_dataset(**table)
    expected = np.array(first.train.ids)
    damage(first.folder)
    with pytest.warns(UserWarning, match="damaged"):
        again = load_dataset(**table)
    np.testing.assert_array_equal(again.train.ids, expected)


def _flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_an_interrupted_encode_leaves_nothing(table, own_cache, monkeypatch):
    from autoctr.data import encoding

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(encoding, "encode_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_dataset(**table)
    assert [path for path in own_cache.iterdir() if path.is_dir()] == []


def test_a_killed_encode_is_not_believed_and_cleared_away(table, own_cache):
    code = """
        import os, signal, sys
        from pathlib import Path
        from autoctr.data import encoding
        from autoctr.data.presets import load_dataset
        encoding.write_meta = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        load_dataset(table=Path(sys.argv[1]), schema=Path(sys.argv[2]))
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), *map(str, table.values())]
    assert subprocess.run(arguments).returncode == -signal.SIGKILL
    assert [path.suffix for path in own_cache.iterdir() if path.is_dir()] == [".tmp"]
    with pytest.raises(UserError):
        Dataset.open(next(path for path in own_cache.iterdir() if path.is_dir()))
    load_dataset(**table)
    assert [path.suffix for path in own_cache.iterdir() if path.is_dir()] == [""]


def test_two_processes_at_once_both_get_it(table, own_cache):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        rows = pool.map(_count, [table] * 4)
    assert len(set(rows)) == 1
    assert len([path for path in own_cache.iterdir() if path.is_dir()]) == 1


def _count(table: dict[str, Path]) -> int:
    return len(load_dataset(**table).train)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_write_permission(table, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot write the cache"):
        load_dataset(**table, cache=closed / "below")


def test_a_file_where_the_cache_should_be(table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the cache"):
        load_dataset(**table, cache=tmp_path / "file" / "below")


def test_opening_an_encoded_dataset_loads_no_table_engine(table):
    recipe = recipe_for(**table)
    folder = prepare(recipe).folder
    code = """
        import sys
        from autoctr.data.dataset import Dataset
        from autoctr.data.encoder import Encoder
        import autoctr.data.presets
        dataset, encoder = Dataset.open(sys.argv[1]), Encoder.load(sys.argv[1])
        encoder.encode({name: ["3"] for name in encoder.raw_columns})
        assert len(dataset.train.ids[:5]) == 5
        print([name for name in ("polars", "pandas", "pyarrow", "torch", "yaml") if name in sys.modules])
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(folder)]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to measure memory")
def test_memory_does_not_grow_with_the_file(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from autoctr.data.encoding import RawTable, encode
        from autoctr.data.schema import Column, Schema
        from autoctr.data.source import FileSource
        from autoctr.data.splits import RandomSplit
        from autoctr.data.statistics import Kind
        schema = Schema((Column("a"), Column("b", Kind.NUMERIC), Column("c", Kind.NUMERIC, bins=5)), ("y",), "d")
        encode(Path(sys.argv[2]), "t", "k", schema, RandomSplit(), RawTable(FileSource(Path(sys.argv[1]))), 20_000)
        print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    """
    peaks = []
    for rows in (100_000, 2_000_000):
        numbers = np.random.default_rng(0).standard_normal(rows)
        frame = pl.DataFrame({"a": np.arange(rows) % 500, "b": numbers, "c": numbers * 2, "d": np.arange(rows) % 3})
        frame = frame.with_columns(pl.col("d").mod(2).alias("y"), *(pl.col("b").alias(f"unused{i}") for i in range(4)))
        frame.write_parquet(tmp_path / f"{rows}.parquet", row_group_size=50_000)
        arguments = [
            sys.executable,
            "-c",
            textwrap.dedent(code),
            str(tmp_path / f"{rows}.parquet"),
            str(tmp_path / f"{rows}"),
        ]
        peaks.append(int(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] - peaks[0] < 40_000, peaks  # KiB; the encoded rows alone are 60 MB
