from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from autoctr.data.schema import Column, Schema
from autoctr.data.statistics import Kind


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("AUTOCTR_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("AUTOCTR_TEST_DATA does not name a folder with the real data")
    return Path(folder)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("AUTOCTR_CACHE", str(folder))
    return folder


@pytest.fixture
def events() -> pl.DataFrame:
    """3,000 impressions with every kind of column, and holes in them."""
    rng = np.random.default_rng(7)
    rows = 3000
    user = rng.zipf(1.5, rows) % 200
    return pl.DataFrame(
        {
            "user": user,
            "item": [None if i % 97 == 0 else f"i{x}" for i, x in enumerate(rng.integers(0, 60, rows))],
            "market": rng.choice(["de", "fr", "it"], rows, p=[0.7, 0.25, 0.05]).tolist(),
            "price": [None if i % 50 == 0 else float(x) for i, x in enumerate(rng.lognormal(3, 1, rows))],
            "age": rng.integers(18, 80, rows).astype(float),
            "tags": ["|".join(f"t{k}" for k in rng.integers(0, 9, i % 4)) for i in range(rows)],
            "seen": [rng.integers(0, 40, i % 5).tolist() for i in range(rows)],
            "click": rng.integers(0, 2, rows),
            "buy": np.zeros(rows, np.int64),
            "ts": np.arange(rows) * 60 + 1_700_000_000,
        }
    ).with_columns(pl.col("click").mul(pl.col("user") % 2).alias("buy"))


@pytest.fixture
def schema() -> Schema:
    return Schema(
        (
            Column("user"),
            Column("item", min_count=3),
            Column("price", Kind.NUMERIC),
            Column("age_bin", Kind.NUMERIC, source="age", bins=5),
            Column("tags", Kind.MULTI, separator="|", max_length=2),
            Column("seen", Kind.MULTI, max_length=10),
        ),
        labels=("click", "buy"),
        domain="market",
        user="user",
        timestamp="ts",
    )


@pytest.fixture
def raw_taobao(tmp_path: Path) -> Path:
    """Generated raw files of the Taobao pipeline: 12 themes, ids without vectors, repeated pairs."""
    folder = tmp_path / "raw"
    folder.mkdir()
    rng = np.random.default_rng(3)
    clicks = 4000
    theme = 100 + rng.choice(12, clicks, p=np.arange(12, 0, -1) / 78)
    pl.DataFrame(
        {
            "user_id": rng.integers(0, 300, clicks),
            "item_id": theme * 1000 + rng.integers(0, 60, clicks),
            "theme_id": theme,
            "reach_time": rng.integers(0, 10**6, clicks),
        }
    ).write_csv(folder / "theme_click_log.csv")
    for part, ids in (
        ("user", np.arange(5, 300)),
        ("item", (np.arange(100, 112)[:, None] * 1000 + np.arange(59)).ravel()),
    ):
        text = [" ".join(f"{x:.3f}" for x in row) for row in rng.standard_normal((len(ids), 128))]
        pl.DataFrame({f"{part}_id": ids, "emb": text}).write_csv(folder / f"{part}_embedding.csv")
    return folder
