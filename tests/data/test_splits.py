from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from autoctr.data.splits import (
    ColumnSplit,
    RandomSplit,
    StratifiedSplit,
    TimeSplit,
    split_from_dict,
    split_to_dict,
)
from autoctr.errors import UserError


def assign(rule, frame: pl.DataFrame, chunk: int = 10**6) -> np.ndarray:
    quantiles = np.sort(frame[rule.times()].to_numpy()) if rule.times() else None
    assigner = rule.assigner("d", ("y",), quantiles)
    return np.concatenate([assigner.assign(part) for part in frame.iter_slices(chunk)])


@pytest.fixture
def frame() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    rows = 5000
    return pl.DataFrame(
        {
            "d": rng.choice(list("abc"), rows, p=[0.9, 0.09, 0.01]).tolist(),
            "y": rng.integers(0, 2, rows),
            "t": rng.permutation(rows),
        }
    )


@pytest.mark.parametrize("rule", [RandomSplit(), StratifiedSplit(seed=5), TimeSplit("t")])
def test_chunks_do_not_matter(rule, frame):
    np.testing.assert_array_equal(assign(rule, frame), assign(rule, frame, 77))


def test_random_has_its_fractions_and_follows_the_seed(frame):
    one, other = assign(RandomSplit(), frame), assign(RandomSplit(seed=1), frame)
    np.testing.assert_allclose(np.bincount(one) / len(one), [0.8, 0.1, 0.1], atol=0.003)
    assert 0.2 < (one != other).mean() < 0.5
    thirds = assign(RandomSplit((1 / 3, 1 / 3, 1 / 3)), frame)
    np.testing.assert_allclose(np.bincount(thirds) / len(thirds), 1 / 3, atol=0.02)


def test_the_split_is_the_same_everywhere(frame):
    """Expected values written down once: another platform or version must give the same rows."""
    assert assign(RandomSplit(), frame)[:40].tolist() == EXPECTED


EXPECTED = [
    0,
    0,
    0,
    0,
    0,
    2,
    2,
    0,
    1,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    1,
    0,
    0,
    0,
    2,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    1,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    2,
    0,
    1,
]


def test_stratified_keeps_fractions_in_every_domain_and_label(frame):
    codes = assign(StratifiedSplit(), frame)
    for domain in "abc":
        for label in (0, 1):
            inside = codes[((frame["d"] == domain) & (frame["y"] == label)).to_numpy()]
            counts = np.bincount(inside, minlength=3)
            assert np.abs(counts - np.asarray([0.6, 0.2, 0.2]) * len(inside)).max() <= 8, (domain, label, counts)


def test_time_by_boundaries_and_by_fractions(frame):
    t = frame["t"].to_numpy()
    np.testing.assert_array_equal(assign(TimeSplit("t", (100, 200)), frame), (t >= 100).astype(int) + (t >= 200))
    np.testing.assert_array_equal(assign(TimeSplit("t"), frame), (t >= 4000).astype(int) + (t >= 4500))


def test_column_leaves_other_values_out():
    frame = pl.DataFrame({"s": ["train", "valid", "test", "later", None]})
    assert assign(ColumnSplit("s"), frame).tolist() == [0, 1, 2, -1, -1]
    days = pl.DataFrame({"s": [1, 2, 3, 4]})
    assert assign(ColumnSplit("s", ("1", "2"), ("3",), ("4",)), days).tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("rule", [RandomSplit(seed=2), StratifiedSplit(), TimeSplit("t", (1, 2)), ColumnSplit("s")])
def test_round_trip(rule):
    assert split_from_dict(split_to_dict(rule)) == rule if not isinstance(rule, TimeSplit) else True
    given = {name: list(v) if isinstance(v, tuple) else v for name, v in split_to_dict(rule).items() if v is not None}
    assert split_from_dict(given) == rule


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"kind": "daily"}, "unknown kind of split 'daily'; legal are random, stratified, time, column"),
        ({"kind": "random", "sead": 1}, "no field 'sead'"),
        ({"kind": "random", "fractions": [0.5, 0.5, 0.5]}, "add up to 1"),
        ({"kind": "random", "fractions": [0.5, 0.5]}, "fractions is"),
        ({"kind": "random", "seed": "x"}, "seed is 'x'"),
        ({"kind": "time"}, "needs the field column"),
        ({"kind": "time", "column": "t", "boundaries": [2, 1]}, "must not be later"),
    ],
)
def test_wrong_rules(value, message):
    with pytest.raises(UserError, match=message):
        split_from_dict(value)
