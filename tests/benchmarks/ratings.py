"""MovieLens-1M as csv files of eight categorical columns, the same rows for autoctr and for a peer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from autoctr.data.movielens import read_ratings

COLUMNS = ("user_id", "movie_id", "gender", "age", "occupation", "zip_prefix", "genre", "year")
SPLITS = ("train", "valid", "test")
SCHEMA = "\n".join(
    [
        "labels: [label]",
        "domain: gender",
        "user: user_id",
        "split: {kind: column, column: split}",
        "columns:",
        *(f"  - {{name: {name}, kind: categorical, min_count: 1}}" for name in COLUMNS),
    ]
)


def write_ratings(data: Path, folder: Path) -> int:
    """``train.csv``, ``valid.csv`` and ``test.csv`` (80/10/10 at random), ``all.csv`` and ``schema.yaml``.

    Returns: the number of training rows.
    """
    files = [data / f"{name}.parquet" for name in ("ratings", "users", "movies")]
    genre = pl.col("genres").str.split("|").list.first()
    frame = read_ratings(files, 4).with_columns(genre.alias("genre"), pl.col("liked").alias("label"))
    draw = np.random.default_rng(0).random(len(frame))
    split = np.select([draw < 0.8, draw < 0.9], ["train", "valid"], "test")
    frame = frame.select("label", *COLUMNS).with_columns(pl.Series("split", split))
    for name in SPLITS:
        frame.filter(pl.col("split") == name).drop("split").write_csv(folder / f"{name}.csv")
    frame.write_csv(folder / "all.csv")
    (folder / "schema.yaml").write_text(SCHEMA + "\n", encoding="utf-8")
    return int((split == "train").sum())
