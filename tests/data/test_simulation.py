"""The planted click model, its files, and the ceiling that is derived from it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from autoctr.data.simulation import (
    FACTORS,
    NOISY,
    PIECES,
    RANKS,
    TRUTH_FILE,
    WIDTH,
    Floats,
    Integers,
    Truth,
    ceiling,
    draw_clicks,
    inclusion,
    log_odds,
    piece_of_factors,
    simulate,
    weighted_auc,
)
from autoctr.data.taobao import FILES, read_theme_log
from autoctr.data.themes import ThemeLog, build_theme_log
from autoctr.data.vectors import read_vectors
from autoctr.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full")
    simulate(path, rows=30_000)
    return path


@pytest.fixture(scope="module")
def log(folder: Path) -> ThemeLog:
    return read_theme_log([folder / name for name in FILES])[0]


def rows_of(log: ThemeLog) -> tuple[Integers, Integers, Integers, Integers]:
    return log.user_id, log.item_id, log.theme_id, log.label.astype(np.int64)


def positions(known: Integers, asked: Integers) -> Integers:
    order = np.argsort(known)
    return order[np.searchsorted(known, asked, sorter=order)]


def planted_scores(truth: Truth, log: ThemeLog) -> Floats:
    """The raw score s_d(u, i) of every row."""
    users, items = positions(truth.user_ids, log.user_id), positions(truth.item_ids, log.item_id)
    scores = np.empty(len(log))
    for number, theme in enumerate(truth.theme_ids):
        mine = np.flatnonzero(log.theme_id == theme)
        present, row = np.unique(users[mine], return_inverse=True)
        scores[mine] = truth.score(number, truth.users[present], truth.items)[row, items[mine]]
    return scores


def wauc(scores: Floats, log: ThemeLog, part: np.ndarray) -> float:
    report = weighted_auc(scores[part], log.label[part], log.theme_id[part], log.user_id[part])
    return float(report["wauc"])


def test_same_seed_same_files(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        simulate(tmp_path / name, rows=2000, seed=seed)
    for file in (*FILES, TRUTH_FILE):
        one, two, other = ((tmp_path / name / file).read_bytes() for name in ("one", "two", "other"))
        assert one == two
        assert one != other


@pytest.mark.parametrize("rows", [8_000, 30_000, 90_000])
def test_rows_scale(tmp_path: Path, rows: int) -> None:
    simulate(tmp_path, rows=rows)
    log = read_theme_log([tmp_path / name for name in FILES])[0]
    assert abs(len(log) / rows - 1) < 0.15


def test_themes_are_of_very_unequal_size(log: ThemeLog) -> None:
    sizes = np.sort(np.bincount(log.domain))
    assert len(sizes) == 10
    assert sizes[-1] > 10 * sizes[0]
    assert 0.008 < sizes[0] / len(log) < 0.03


def test_no_pair_recurs(folder: Path, log: ThemeLog) -> None:
    import polars as pl

    raw = pl.read_csv(folder / FILES[0])
    assert raw.columns == ["user_id", "item_id", "theme_id", "reach_time"]
    assert raw.select("user_id", "item_id").is_duplicated().sum() == 0
    assert int(log.label.sum()) == len(raw)


def test_users_make_the_clicks_their_vectors_announce(folder: Path, log: ThemeLog) -> None:
    truth = Truth.load(folder / TRUTH_FILE)
    click = log.label == 1
    for number, theme in enumerate(truth.theme_ids):
        users, counts = np.unique(log.user_id[click & (log.theme_id == theme)], return_counts=True)
        assert np.array_equal(counts, truth.counts(number)[positions(truth.user_ids, users)])


def test_users_and_items_meet_in_several_themes(log: ThemeLog) -> None:
    click = log.label == 1
    for ids in (log.user_id, log.item_id):
        pairs = np.unique(np.stack([ids[click], log.theme_id[click]]), axis=1)
        assert (np.unique(pairs[0], return_counts=True)[1] > 1).mean() > 0.3


def test_inclusion_is_exact() -> None:
    weights = np.exp(2.0 * np.random.default_rng(0).standard_normal((3, 6)))
    counts = np.array([1, 3, 6])
    expected = np.zeros_like(weights)
    for user, count in enumerate(counts):
        total = 0.0
        for chosen in map(list, itertools.combinations(range(6), count)):
            weight = weights[user, chosen].prod()
            expected[user, chosen] += weight
            total += weight
        expected[user] /= total
    np.testing.assert_allclose(inclusion(weights, counts), expected, rtol=1e-12)


def test_clicks_are_drawn_with_these_probabilities(folder: Path) -> None:
    truth = Truth.load(folder / TRUTH_FILE)
    theme, repeats = 9, 20_000
    pool = np.flatnonzero(truth.pools[theme])
    user = int(np.argmax(truth.clicks))
    visits = [np.full(repeats if number == theme else 0, user) for number in range(10)]
    drawn = draw_clicks(truth, visits, np.random.default_rng(0))
    rates = np.bincount(drawn[:, 1], minlength=len(truth.item_ids))[pool] / repeats
    scores = truth.score(theme, truth.users[[user]], truth.items[pool])
    chances = inclusion(np.exp(scores), truth.counts(theme)[[user]])[0]
    assert np.abs(rates - chances).max() < 5 * 0.5 / np.sqrt(repeats)


def test_odds_are_calibrated_and_rank_best(tmp_path: Path) -> None:
    """Many draws of clicks, negatives and split from one truth: the odds match what comes out, in every bin."""
    simulate(tmp_path, rows=6000, seed=2)
    truth = Truth.load(tmp_path / TRUTH_FILE)
    first = read_theme_log([tmp_path / name for name in FILES])[0]
    visits = [positions(truth.user_ids, np.unique(first.user_id[first.theme_id == theme])) for theme in truth.theme_ids]
    odds, labels, best, others = [], [], [], []
    for repeat in range(60):
        clicks = draw_clicks(truth, visits, np.random.default_rng([7, repeat]))
        log = build_theme_log(
            truth.user_ids[clicks[:, 0]],
            truth.item_ids[clicks[:, 1]],
            truth.theme_ids[clicks[:, 2]],
            truth.theme_ids,
            seed=repeat,
        )
        part = log.split == 2
        every = np.zeros(len(log))
        every[part] = log_odds(truth, *rows_of(log), part)
        raw = planted_scores(truth, log)
        odds.append(every[part])
        labels.append(log.label[part])
        best.append(wauc(every, log, part))
        others.append([wauc(raw, log, part), wauc(every + 0.15 * raw, log, part), wauc(every - 0.15 * raw, log, part)])
    predicted, label = 1.0 / (1.0 + np.exp(-np.concatenate(odds))), np.concatenate(labels)
    for rows in np.array_split(np.argsort(predicted), 10):
        error = 4 * np.sqrt(predicted[rows].mean() * (1 - predicted[rows].mean()) / len(rows))
        assert abs(predicted[rows].mean() - label[rows].mean()) < error + 0.002
    means = np.mean(others, axis=0)
    assert np.mean(best) > means[0] + 0.02
    assert np.mean(best) > means[1:].max()


def test_ceiling_report(folder: Path, log: ThemeLog) -> None:
    part = log.split == 2
    report = json.loads(json.dumps(ceiling(folder / TRUTH_FILE, *rows_of(log), part)))
    assert 0.78 < report["wauc"] < 0.85
    assert report["interval"][0] < report["wauc"] < report["interval"][1]
    assert sum(theme["rows"] for theme in report["themes"].values()) == part.sum()
    weighted = sum(theme["rows"] * theme["auc"] for theme in report["themes"].values()) / part.sum()
    assert report["wauc"] == pytest.approx(weighted)
    raw = planted_scores(Truth.load(folder / TRUTH_FILE), log)
    assert wauc(raw, log, part) < report["wauc"] - 0.02


def test_weighted_auc_counts_ties_half_and_leaves_out_one_class() -> None:
    scores = np.array([0.1, 0.4, 0.4, 0.8, 0.5])
    report = weighted_auc(scores, np.array([0, 0, 1, 1, 1]), np.array([7, 7, 7, 7, 8]), np.arange(5))
    assert report["themes"]["7"]["auc"] == report["wauc"] == pytest.approx(3.5 / 4)
    assert report["themes"]["8"] == {"auc": None, "interval": None, "rows": 1}


def test_planted_ranks_and_noise_inputs(folder: Path) -> None:
    truth = Truth.load(folder / TRUTH_FILE)
    rng = np.random.default_rng(0)
    users, items, noise = rng.standard_normal((3, 8, FACTORS))
    for theme, rank in enumerate(RANKS):
        assert np.linalg.matrix_rank(truth.down[theme] @ truth.up[theme]) == rank
        dead = ~truth.alive[theme]
        assert dead.any() == (theme in NOISY)
        moved = truth.score(theme, users + noise * dead[:FACTORS], items + noise * dead[FACTORS:])
        np.testing.assert_allclose(moved, truth.score(theme, users, items))


def test_a_noisy_theme_hears_one_piece(folder: Path) -> None:
    truth = Truth.load(folder / TRUTH_FILE)
    alive = truth.alive.reshape(len(RANKS), 2, PIECES, -1)
    heard = alive.any(-1)
    assert np.array_equal(heard, alive.all(-1))
    assert np.array_equal(heard[:, 0], heard[:, 1])
    assert [int(pieces.sum()) for pieces in heard[:, 0]] == [1 if theme in NOISY else PIECES for theme in range(10)]
    assert all(heard[list(NOISY), 0].any(0))


@pytest.mark.parametrize("side", ["user", "item"])
def test_every_piece_of_a_vector_holds_its_own_factors_and_no_others(side: str, folder: Path) -> None:
    truth = Truth.load(folder / TRUTH_FILE)
    latent, ids = (truth.users, truth.user_ids) if side == "user" else (truth.items, truth.item_ids)
    table = read_vectors(folder / f"{side}_embedding.csv")
    assert np.array_equal(np.asarray(table.ids, np.int64), ids)
    assert table.width == WIDTH
    vectors = table.matrix.astype(np.float64)
    owner = piece_of_factors()
    assert np.bincount(owner).tolist() == [FACTORS // PIECES] * PIECES
    for piece, columns in enumerate(np.split(np.arange(WIDTH), PIECES)):
        inside = vectors[:, columns]
        unexplained = latent - inside @ np.linalg.lstsq(inside, latent, rcond=None)[0]
        share = unexplained.var(0) / latent.var(0)
        assert share[owner == piece].max() < 1e-4
        assert share[owner != piece].min() > 0.8
        if side == "user":
            clicks = np.log(truth.clicks) - np.log(truth.clicks).mean()
            left = clicks - inside @ np.linalg.lstsq(inside, clicks, rcond=None)[0]
            assert (left.var() < 0.1 * clicks.var()) == (piece == 0)


def mixed_difference(truth: Truth) -> float:
    scores = truth.score(0, truth.users[:20], truth.items[:20])
    return float(np.abs(scores[1:, 1:] - scores[1:, :-1] - scores[:-1, 1:] + scores[:-1, :-1]).max())


def test_variants(folder: Path, tmp_path: Path) -> None:
    full, additive, shared = Truth.load(folder / TRUTH_FILE), tmp_path / "additive", tmp_path / "shared"
    assert mixed_difference(full) > 0.1
    simulate(additive, rows=30_000, truth="additive")
    assert mixed_difference(Truth.load(additive / TRUTH_FILE)) < 1e-12
    simulate(shared, rows=30_000, truth="shared")
    truth = Truth.load(shared / TRUTH_FILE)
    assert mixed_difference(truth) > 0.1
    alike = [truth.score(theme, truth.users[:20], truth.items[:20]) for theme in range(10)]
    assert all(np.array_equal(alike[0], scores) for scores in alike[1:])
    apart = [full.score(theme, full.users[:20], full.items[:20]) for theme in range(10)]
    assert not any(np.allclose(apart[0], scores) for scores in apart[1:])


def test_bad_input(folder: Path, tmp_path: Path, log: ThemeLog) -> None:
    with pytest.raises(UserError, match="full, additive, shared"):
        simulate(tmp_path, truth="linear")
    with pytest.raises(UserError, match="2000 or more"):
        simulate(tmp_path, rows=10)
    (tmp_path / TRUTH_FILE).write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(UserError, match="generate the data again"):
        ceiling(tmp_path / TRUTH_FILE, *rows_of(log))
    users, items, themes, labels = rows_of(log)
    with pytest.raises(UserError, match="a user that the planted truth does not know"):
        ceiling(folder / TRUTH_FILE, users + 1, items, themes, labels)
