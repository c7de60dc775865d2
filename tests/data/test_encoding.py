from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from autoctr.data.cache import Recipe, prepare
from autoctr.data.dataset import SPLITS, Dataset, Rows
from autoctr.data.encoder import Encoder
from autoctr.data.encoding import RawTable, encode
from autoctr.data.raw_rows import raw_rows
from autoctr.data.schema import Column, Schema
from autoctr.data.source import FileSource, FrameSource
from autoctr.data.splits import ColumnSplit, RandomSplit, TimeSplit
from autoctr.data.statistics import Kind
from autoctr.data.vectors import VectorTable
from autoctr.errors import UserError


def make(folder: Path, frame: pl.DataFrame, schema: Schema, split=None, tables=None, **options) -> Dataset:
    raw = RawTable(FrameSource(frame), tables or {})
    encode(folder, "events", "key", schema, split or RandomSplit(), raw, **options)
    return Dataset.open(folder)


def same(one: Rows, other: Rows, exactly: bool = True) -> None:
    for part in dataclasses.fields(Rows):
        first, second = getattr(one, part.name), getattr(other, part.name)
        if first is None or second is None:
            assert first is second
        elif exactly or first.dtype.kind == "i":
            np.testing.assert_array_equal(first, second, err_msg=part.name)
        else:
            np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-6, err_msg=part.name)


def test_shapes_and_statistics_agree(tmp_path, events, schema):
    dataset = make(tmp_path / "d", events, schema)
    statistics = dataset.statistics
    assert [field.name for field in statistics.fields] == ["user", "item", "price", "age_bin", "tags", "seen", "market"]
    slots = sum(field.slots for field in statistics.embedded)
    for split in SPLITS:
        rows = getattr(dataset, split)
        assert rows.ids.shape == (len(rows), slots)
        assert rows.ids.dtype == np.int32
        assert rows.numbers.shape == (len(rows), 1)
        assert rows.vectors.shape == (len(rows), 0)
        assert rows.labels.shape == (len(rows), 2)
        assert rows.time is not None
        assert rows.time.dtype == np.int64
        column = 0
        for field in statistics.embedded:
            part = rows.ids[:, column : column + field.slots] - statistics.offsets[field.name]
            assert part.min() >= 0
            assert part.max() < field.size
            column += field.slots
    assert statistics.domains == ("de", "fr", "it")
    assert sum(statistics.domain_rows) == len(dataset.train)
    np.testing.assert_allclose(statistics.rates, dataset.train.labels.mean(axis=0), rtol=1e-6)
    assert abs(dataset.train.numbers.mean()) < 1e-6
    assert 0.9 < dataset.train.numbers.std() < 1.1


def test_streaming_gives_the_same_as_one_shot(tmp_path, events, schema):
    whole = make(tmp_path / "whole", events, schema, chunk_rows=10**6)
    for rows in (1, 7, 1000) if len(events) <= 200 else (41, 1000):
        parts = make(tmp_path / f"parts{rows}", events, schema, chunk_rows=rows)
        for split in SPLITS:
            same(getattr(whole, split), getattr(parts, split), exactly=False)
        assert parts.statistics == whole.statistics


def test_trap_1_9_10_a_value_seen_only_in_valid_is_out_of_vocabulary(tmp_path):
    frame = pl.DataFrame(
        {
            "color": ["red", "red", "blue", "blue", "green", "green", "red", "once"],
            "size": [1.0, 3.0, 1.0, 3.0, 100.0, 100.0, 2.0, 2.0],
            "market": ["a", "a", "a", "a", "a", "b", "a", "a"],
            "split": ["train", "train", "train", "train", "valid", "valid", "test", "test"],
            "click": [0, 1, 0, 1, 0, 1, 0, 1],
        }
    )
    schema = Schema((Column("color"), Column("size", Kind.NUMERIC)), ("click",), "market")
    dataset = make(tmp_path / "d", frame, schema, ColumnSplit("split"))
    color = dataset.statistics.offsets["color"]
    assert dataset.valid.ids[:, 0].tolist() == [color, color]
    assert dataset.test.ids[0, 0] > color
    assert dataset.test.ids[1, 0] == color
    assert dataset.valid.domain.tolist() == [0, 1]  # b never occurs in train: index D = 1
    assert dataset.valid.ids[1, 1] == dataset.statistics.offsets["market"]
    np.testing.assert_allclose(dataset.train.numbers[:, 0], [-1, 1, -1, 1])
    np.testing.assert_allclose(dataset.test.numbers[:, 0], [0, 0])
    assert dataset.info["single_class"] == {"click": {"valid": ["a", "(unknown)"]}}


def test_trap_5_5_4_domains_share_their_ids(tmp_path):
    frame = pl.DataFrame(
        {
            "user": ["u", "v", "u", "v", "u", "v"],
            "market": ["a", "a", "b", "b", "b", "a"],
            "split": ["train"] * 4 + ["valid", "test"],
            "click": [0, 1, 0, 1, 0, 1],
        }
    )
    dataset = make(tmp_path / "d", frame, Schema((Column("user"),), ("click",), "market"), ColumnSplit("split"))
    u, v = dataset.train.ids[:2, 0].tolist()
    assert u != v
    assert dataset.train.ids[:, 0].tolist() == [u, v, u, v]
    assert dataset.train.domain.tolist() == [0, 0, 1, 1]
    assert (dataset.valid.ids[0, 0], dataset.test.ids[0, 0]) == (u, v)


def test_rare_values_share_the_unknown_id(tmp_path):
    frame = pl.DataFrame(
        {"x": ["a", "a", "b", "a", "a"], "d": ["k"] * 5, "y": [0, 1, 0, 1, 1], "s": ["train"] * 3 + ["valid", "test"]}
    )
    dataset = make(tmp_path / "d", frame, Schema((Column("x"),), ("y",), "d"), ColumnSplit("s"))
    assert dataset.train.ids[:, 0].tolist() == [1, 1, 0]


def test_multi_values_are_padded_and_cut(tmp_path):
    frame = pl.DataFrame(
        {
            "g": [[1, 2, 3, 1], [2], [], None, [1, 9]],
            "d": ["k"] * 5,
            "y": [0, 1, 0, 1, 1],
            "s": ["train", "train", "train", "valid", "test"],
        }
    )
    schema = Schema((Column("g", Kind.MULTI, max_length=3),), ("y",), "d")
    dataset = make(tmp_path / "d", frame, schema, ColumnSplit("s"))
    assert dataset.train.ids[:, :3].tolist() == [[2, 3, 1], [3, 0, 0], [0, 0, 0]]
    assert dataset.valid.ids[:, :3].tolist() == [[0, 0, 0]]
    assert dataset.test.ids[:, :3].tolist() == [[2, 1, 0]]
    assert dataset.statistics.fields[0].size == 4


def test_vectors_are_looked_up_and_unknown_ids_get_row_zero(tmp_path):
    frame = pl.DataFrame(
        {"v": [7, 8, 9, 7], "d": ["k"] * 4, "y": [0, 1, 0, 1], "s": ["train", "train", "valid", "test"]}
    )
    table = VectorTable(("7", "8"), np.asarray([[1, 2], [3, 4]], np.float32))
    schema = Schema((Column("v", Kind.VECTOR, table="v.csv"),), ("y",), "d")
    dataset = make(tmp_path / "d", frame, schema, ColumnSplit("s"), {"v": table})
    assert dataset.train.vectors.tolist() == [[1], [2]]
    assert dataset.valid.vectors.tolist() == [[0]]
    np.testing.assert_array_equal(dataset.tables["v"], [[0, 0], [1, 2], [3, 4]])
    assert dataset.statistics.vectors[0].width == 2


@pytest.mark.parametrize("form", ["parquet", "csv", "csv.gz", "folder"])
def test_every_file_form_gives_the_same_ids(tmp_path, events, schema, form):
    frame = events.with_columns(pl.col("seen").list.eval(pl.element().cast(pl.String)).list.join("|"))
    schema = dataclasses.replace(
        schema, columns=(*schema.columns[:-1], Column("seen", Kind.MULTI, separator="|", max_length=10))
    )
    expected = make(tmp_path / "frame", frame, schema)
    path = tmp_path / f"events.{form}"
    if form == "parquet":
        frame.write_parquet(path, row_group_size=500)
    elif form == "csv":
        frame.write_csv(path)
    elif form == "csv.gz":
        import gzip

        path.write_bytes(gzip.compress(frame.write_csv().encode()))
    else:
        path.mkdir()
        for number, part in enumerate(frame.iter_slices(1100)):
            part.write_parquet(path / f"part-{number}.parquet")
    encode(tmp_path / "file", "events", "key", schema, RandomSplit(), RawTable(FileSource(path)), chunk_rows=700)
    for split in SPLITS:
        same(getattr(expected, split), getattr(Dataset.open(tmp_path / "file"), split), exactly=False)


def test_the_encoder_alone_gives_the_same_ids(tmp_path, events, schema):
    dataset = make(tmp_path / "d", events, schema)
    encoder = Encoder.load(tmp_path / "d")
    assert Encoder.from_dict(encoder.to_dict()) == encoder
    recipe = Recipe("events", schema, RandomSplit(), {}, lambda: RawTable(FrameSource(events)))
    for split in SPLITS:
        frame = raw_rows(recipe, split)
        expected = dataclasses.replace(getattr(dataset, split), user=None, time=None)
        same(encoder.encode(frame.to_dict(as_series=False)), expected)
        arrays = {n: frame[n].to_numpy() for n in frame.columns if not frame[n].dtype.is_nested()}
        same(encoder.encode({**arrays, "seen": frame["seen"].to_list()}), expected)


VALUES = [3, "3", 3.0, "3.0", np.int32(3), np.float32(3), None, "", float("nan"), "x", "007", True, 2.5, "2.5", 1e300]


def test_integers_floats_and_texts_meet_in_one_vocabulary_entry(tmp_path):
    frame = pl.DataFrame(
        {
            "x": ["3", "2.5", "x", "007", "true"],
            "d": ["k"] * 5,
            "y": [0, 1, 0, 1, 1],
            "s": ["train"] * 3 + ["valid", "test"],
        }
    )
    frame = pl.concat([frame.with_columns(s=pl.lit("train")), frame])
    make(tmp_path / "d", frame, Schema((Column("x", min_count=1),), ("y",), "d"), ColumnSplit("s"))
    encoder = Encoder.load(tmp_path / "d")
    ids = encoder.encode({"x": VALUES, "d": ["k"] * len(VALUES)}).ids[:, 0].tolist()
    known = dict(zip(encoder.fields[0].vocabulary, range(1, 9), strict=False))
    names = ["3"] * 6 + [None] * 3 + ["x", "007", "true", "2.5", "2.5", None]
    assert ids == [known.get(name, 0) for name in names]


@pytest.mark.parametrize(
    "series",
    [
        pl.Series([3, 4, None, 3], dtype=pl.Int16),
        pl.Series([3.0, 2.5, None, float("nan")], dtype=pl.Float64),
        pl.Series([0.1, 3.0, 1e-7, 1e20], dtype=pl.Float32),
        pl.Series([1e-7, 1e16, 1.5e300, -2.25]),
        pl.Series(["3.0", "-4.0", "", "True"]),
        pl.Series([True, False, None, True]),
        pl.Series([datetime.date(2024, 1, 2), None, datetime.date(2024, 2, 3), datetime.date(2024, 1, 2)]),
        pl.Series([datetime.datetime(2024, 1, 2, 3, 4, 5), None, datetime.datetime(2024, 1, 2), None]),
        pl.Series(["a", "b", None, "a"], dtype=pl.Categorical),
    ],
    ids=lambda series: str(series.dtype),
)
def test_stream_and_encoder_agree_on_every_type(tmp_path, series):
    count = len(series)
    frame = pl.DataFrame({"x": series, "d": ["k"] * count, "y": [0, 1] * (count // 2)})
    frame = pl.concat([frame.with_columns(s=pl.lit(split)) for split in ("train", "valid", "test")])
    dataset = make(tmp_path / "d", frame, Schema((Column("x", min_count=1),), ("y",), "d"), ColumnSplit("s"))
    encoder = Encoder.load(tmp_path / "d")
    assert encoder.encode({"x": series.to_list(), "d": ["k"] * count}).ids.tolist() == dataset.train.ids.tolist() or (
        series.dtype == pl.Float32  # python floats hold a float32 with other digits
    )
    assert encoder.encode({"x": series.to_numpy(), "d": ["k"] * count}).ids.tolist() == dataset.train.ids.tolist()


def test_unknown_domain_and_missing_columns_at_prediction(tmp_path, events, schema):
    make(tmp_path / "d", events, schema)
    encoder = Encoder.load(tmp_path / "d")
    row = {"user": [1], "item": ["i3"], "price": [None], "age": ["33"], "tags": [None], "seen": [[]], "market": ["zz"]}
    rows = encoder.encode(row)
    assert rows.domain.tolist() == [3]
    assert rows.ids[0, -1] == encoder.offsets["market"]
    assert rows.numbers.tolist() == [[0.0]]
    assert rows.labels.shape == (1, 0)
    with pytest.raises(UserError, match="missing columns market"):
        encoder.encode({name: value for name, value in row.items() if name != "market"})
    with pytest.raises(UserError, match="price holds 'dear'"):
        encoder.encode({**row, "price": ["dear"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("item"), "no column item; its columns are user, market"),
        (lambda f: f.with_columns(pl.lit(2).alias("click")), "label click is 2 in row 1"),
        (
            lambda f: f.with_columns(pl.when(pl.int_range(3000) == 5).then(None).otherwise(1).alias("click")),
            "missing in row 6",
        ),
        (
            lambda f: f.with_columns(pl.when(pl.int_range(3000) == 5).then(float("nan")).otherwise(1.0).alias("buy")),
            "missing in row 6",
        ),
        (lambda f: f.with_columns(pl.lit("yes").alias("click")), "label click must be 0 or 1"),
        (
            lambda f: f.with_columns(pl.lit(None, dtype=pl.String).alias("market")),
            "domain column market is empty in row 1",
        ),
        (lambda f: f.with_columns(pl.lit("cheap").alias("price")), "price holds 'cheap'"),
        (lambda f: f.with_columns(pl.col("seen").alias("item")), "its kind should be multi"),
        (lambda f: f.head(1), "no rows for"),
        (lambda f: f.head(0), "no rows"),
    ],
)
def test_bad_input_is_one_line(tmp_path, events, schema, change, message):
    with pytest.raises(UserError, match=message) as caught:
        make(tmp_path / "d", change(events), schema, chunk_rows=100)
    assert "\n" not in str(caught.value)


def test_time_split_needs_its_column(tmp_path, events, schema):
    with pytest.raises(UserError, match="no column when"):
        make(tmp_path / "d", events, schema, TimeSplit("when"))


def test_a_domain_with_one_class_is_reported_not_refused(tmp_path, events, schema):
    frame = events.with_columns(pl.when(pl.col("market") == "it").then(0).otherwise(pl.col("click")).alias("click"))
    dataset = make(tmp_path / "d", frame, schema)
    assert dataset.info["single_class"]["click"] == {split: ["it"] for split in SPLITS}


def test_prepare_reads_nothing_when_the_cache_holds_it(events, schema):
    reads = []

    def read() -> RawTable:
        reads.append(1)
        return RawTable(FrameSource(events))

    recipe = Recipe("events", schema, RandomSplit(), {"files": "x"}, read)
    first, second = prepare(recipe), prepare(recipe)
    assert reads == [1]
    assert first.key == second.key == recipe.key
    other = dataclasses.replace(recipe, split=RandomSplit(seed=1))
    assert prepare(other).folder != first.folder
    assert len(reads) == 2
