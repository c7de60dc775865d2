from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from autoctr.data import kuairand
from autoctr.data.describe import describe, describe_text
from autoctr.data.encoder import Encoder
from autoctr.data.presets import PRESETS, load_dataset, recipe_for
from autoctr.data.raw_rows import raw_rows
from autoctr.errors import UserError


def test_unknown_names_and_options(tmp_path):
    with pytest.raises(UserError, match=r"unknown data set 'movielense'; legal names are .*; did you mean movielens\?"):
        load_dataset("movielense")
    with pytest.raises(UserError, match="no data set was given"):
        load_dataset()
    with pytest.raises(UserError, match="--table needs --schema"):
        load_dataset(table=tmp_path)
    with pytest.raises(UserError, match="give one of them"):
        load_dataset("taobao", table=tmp_path)
    with pytest.raises(UserError, match="kuairand has no option 'rows'; its options are: none"):
        load_dataset("kuairand", rows=3)
    with pytest.raises(UserError, match="option rows is 'x', expected int"):
        load_dataset("taobao-sim", rows="x")


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.needs_files])
def test_every_preset_says_what_files_it_misses(name, tmp_path):
    with pytest.raises(UserError, match=f"^missing .*{tmp_path}.*(come from|They are)"):
        load_dataset(name, data=tmp_path)


@pytest.fixture
def movielens_dat(tmp_path):
    """The official form of MovieLens-1M, generated: latin-1, ``::``."""
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    rng = np.random.default_rng(0)
    users = [f"{u}::{'FM'[u % 2]}::{[1, 18, 25, 35][u % 4]}::{u % 21}::{10000 + 7 * u}" for u in range(1, 61)]
    titles = ["Café, Le (1990)", "Seven (a.k.a. Se7en) (1995)", "Up: Down (2000)"]
    movies = [f"{m}::{titles[m % 3]}::{['Drama', 'Drama|Comedy', 'Horror|War|Drama'][m % 3]}" for m in range(1, 41)]
    ratings = [
        f"{u}::{m}::{rng.integers(1, 6)}::{978300000 + u * m}" for u in range(1, 61) for m in range(1, 41, 1 + u % 3)
    ]
    for name, lines in (("users", users), ("movies", movies), ("ratings", ratings)):
        (folder / f"{name}.dat").write_bytes(("\n".join(lines) + "\n").encode("latin-1"))
    return folder


def test_movielens_from_dat_and_from_parquet_is_the_same(movielens_dat, tmp_path):
    dat = load_dataset("movielens", data=movielens_dat)
    other = tmp_path / "parquet"
    other.mkdir()
    rows = {
        name: [line.split("::") for line in (movielens_dat / f"{name}.dat").read_text("latin-1").splitlines()]
        for name in ("users", "movies", "ratings")
    }
    pl.DataFrame(rows["users"], ["user_id", "gender", "age", "occupation", "zip"], orient="row").with_columns(
        pl.col("user_id", "age", "occupation").cast(pl.Int64)
    ).write_parquet(other / "users.parquet")
    pl.DataFrame(rows["movies"], ["movie_id", "title", "genres"], orient="row").with_columns(
        pl.col("movie_id").cast(pl.Int64), pl.col("title").str.extract(r"\((\d{4})\)$").cast(pl.Float64).alias("year")
    ).write_parquet(other / "movies.parquet")
    pl.DataFrame(rows["ratings"], ["user_id", "movie_id", "rating", "time_rank"], orient="row").cast(
        pl.Int64
    ).write_parquet(other / "ratings.parquet")
    parquet = load_dataset("movielens", data=other)
    assert dat.statistics == parquet.statistics
    np.testing.assert_array_equal(dat.train.ids, parquet.train.ids)
    np.testing.assert_array_equal(dat.test.labels, parquet.test.labels)
    names = [field.name for field in dat.statistics.fields]
    assert names == ["user_id", "movie_id", "gender", "age", "occupation", "zip_prefix", "genres", "year"]


def test_movielens_mlora_is_stratified(movielens_dat):
    dataset = load_dataset("movielens-mlora", data=movielens_dat)
    for domain in describe(dataset)["domains"]:
        shares = np.asarray(list(domain["rows"].values())) / sum(domain["rows"].values())
        np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.02)
        rates = list(domain["rates"]["liked"].values())
        assert max(rates) - min(rates) < 0.03


def test_a_broken_dat_line_is_named(movielens_dat):
    with open(movielens_dat / "users.dat", "ab") as file:
        file.write(b"61::F::1\n")
    with pytest.raises(UserError, match=r"users\.dat, line 61: expected user_id::gender"):
        load_dataset("movielens", data=movielens_dat)


LEAKING = {
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "long_view",
    "play_time_ms",
    "profile_stay_time",
    "comment_stay_time",
    "is_profile_enter",
    "finish",
    "split",
    "counts",
    "play_progress",
    "play_duration",
    "comment_stay_duration",
}


def test_kuairand_inputs_hold_no_leakage_columns():
    inputs = {name for column in kuairand.SCHEMA.inputs for name in (column.name, column.raw)}
    assert len(kuairand.SCHEMA.inputs) == 35
    assert not inputs & (LEAKING | {*kuairand.SCHEMA.labels})
    assert not [name for name in inputs if name.endswith(("_cnt", "_user_num", "_rate"))]


@pytest.mark.real_data
def test_real_kuairand_rows_and_rates(real_data):
    dataset = load_dataset("kuairand", data=real_data)
    assert [len(dataset.train), len(dataset.valid), len(dataset.test)] == [165_058, 26_313, 28_489]
    assert dataset.statistics.domains == ("0", "1", "2", "4", "6")
    counts = dataset.info["counts"]["test"]
    assert counts["rows"][:5] == [2_534, 22_424, 1_140, 1_821, 570]
    assert counts["positives"]["click"][:5] == [220, 11_007, 577, 1_071, 112]
    every = [np.asarray(rows.labels) for rows in (dataset.train, dataset.valid, dataset.test)]
    np.testing.assert_allclose(np.concatenate(every).mean(axis=0), [0.453, 0.318], atol=6e-4)
    assert (every[0][:, 1] <= every[0][:, 0]).all()
    slack = 3_600_000  # the log's days were cut by another clock, up to an hour off time_ms
    assert dataset.train.time.max() < dataset.valid.time.min() + slack
    assert dataset.valid.time.max() < dataset.test.time.min() + slack
    duration = next(field for field in dataset.statistics.fields if field.name == "duration")
    assert duration.size == 21
    text = describe_text(dataset)
    assert "22,424" in text


@pytest.mark.real_data
def test_real_movielens_rows(real_data):
    dataset = load_dataset("movielens", data=real_data)
    sizes = [len(dataset.train), len(dataset.valid), len(dataset.test)]
    assert sum(sizes) == 1_000_209
    np.testing.assert_allclose(np.asarray(sizes) / 1_000_209, [0.8, 0.1, 0.1], atol=1e-4)
    age = recipe_for("movielens-age", data=real_data)
    assert age.schema.domain == "age"
    assert age.key != recipe_for("movielens", data=real_data).key


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["movielens", "kuairand"])
def test_real_rows_through_the_encoder_alone(real_data, name):
    dataset = load_dataset(name, data=real_data)
    frame = raw_rows(recipe_for(name, data=real_data), "valid", 2_000)
    rows = Encoder.load(dataset.folder).encode(frame.to_dict(as_series=False))
    for part in dataclasses.fields(rows):
        if part.name not in ("user", "time"):
            np.testing.assert_array_equal(getattr(rows, part.name), getattr(dataset.valid, part.name)[:2_000])
