from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from autoctr.data.describe import describe, describe_text
from autoctr.data.encoder import Encoder
from autoctr.data.presets import load_dataset, recipe_for
from autoctr.data.raw_rows import raw_rows
from autoctr.data.taobao import FILES, ThemeLog, read_theme_log
from autoctr.data.themes import build_theme_log, sample_negatives
from autoctr.errors import UserError


@pytest.fixture
def log(raw_taobao) -> ThemeLog:
    return read_theme_log([raw_taobao / name for name in FILES])[0]


def test_the_pipeline_as_described(raw_taobao, log):
    clicks = pl.read_csv(raw_taobao / FILES[0])
    themes = clicks["theme_id"].unique(maintain_order=True)[:10].to_list()
    assert log.themes == tuple(themes)
    users, items = (set(pl.read_csv(raw_taobao / name).to_series().to_list()) for name in FILES[1:])
    kept = clicks.filter(
        pl.col("theme_id").is_in(themes) & pl.col("user_id").is_in(users) & pl.col("item_id").is_in(items)
    ).unique(["user_id", "item_id"], keep="first", maintain_order=True)
    positive = log.label == 1
    found = set(
        zip(
            log.user_id[positive].tolist(), log.item_id[positive].tolist(), log.theme_id[positive].tolist(), strict=True
        )
    )
    assert found == set(kept.select("user_id", "item_id", "theme_id").iter_rows())
    for domain, rho in enumerate(log.rho):
        assert 0.2 <= rho <= 0.5
        assert round(rho, 2) == rho
        inside = log.domain == domain
        pool = np.unique(log.item_id[inside & positive])
        assert len(pool) == log.items[domain]
        for user in np.unique(log.user_id[inside]):
            mine = inside & (log.user_id == user)
            clicked, drawn = log.item_id[mine & positive], log.item_id[mine & ~positive]
            assert len(drawn) == len(np.unique(drawn)) == min(int(len(clicked) / rho + 1e-9), len(pool) - len(clicked))
            assert not np.intersect1d(clicked, drawn).size
            assert np.isin(drawn, pool).all()


def test_split_is_sixty_twenty_twenty_for_positives_and_for_each_users_negatives(log):
    for domain in range(10):
        inside = (log.domain == domain) & (log.label == 1)
        total = int(inside.sum())
        expected = [total * 3 // 5, total * 4 // 5 - total * 3 // 5, total - total * 4 // 5]
        assert np.bincount(log.split[inside], minlength=3).tolist() == expected
        for user in np.unique(log.user_id[inside])[:20]:
            mine = (log.domain == domain) & (log.label == 0) & (log.user_id == user)
            total = int(mine.sum())
            expected = [total * 3 // 5, total * 4 // 5 - total * 3 // 5, total - total * 4 // 5]
            assert np.bincount(log.split[mine], minlength=3).tolist() == expected


def test_trap_3_8_6_the_split_can_be_reproduced(raw_taobao, log):
    again = read_theme_log([raw_taobao / name for name in FILES])[0]
    np.testing.assert_array_equal(log.split, again.split)
    other = read_theme_log([raw_taobao / name for name in FILES], seed=1)[0]
    assert log.rho != other.rho


def test_trap_3_8_7_negatives_depend_on_seed_domain_and_user_alone(log):
    """Neither other users, nor the order of the log, nor other themes change a user's negatives or their split."""
    positive = (log.label == 1) & (log.domain == 0)
    user, item, theme = log.user_id[positive], log.item_id[positive], log.theme_id[positive]
    shuffled = np.random.default_rng(0).permutation(len(user))
    alone = build_theme_log(user[shuffled], item[shuffled], theme[shuffled], np.asarray(log.themes[:1]))
    same = log.domain == 0
    for part in ("user_id", "item_id", "label", "split"):
        np.testing.assert_array_equal(getattr(alone, part), getattr(log, part)[same])
    # without the last user, the pool of items being the same
    pool, last = np.unique(item), user.max()
    rest = user != last
    assert set(item[rest]) == set(pool)
    users, items = sample_negatives(user[rest], item[rest], 0.3, 0, 1)
    all_users, all_items = sample_negatives(user, item, 0.3, 0, 1)
    np.testing.assert_array_equal(users, all_users[all_users != last])
    np.testing.assert_array_equal(items, all_items[all_users != last])


def test_trap_3_8_8_no_negative_is_a_positive_of_the_user_in_any_split(log):
    positive = log.label == 1
    assert set(log.split[positive]) == set(log.split[~positive]) == {0, 1, 2}
    rows = zip(log.user_id.tolist(), log.item_id.tolist(), log.domain.tolist(), positive.tolist(), strict=True)
    clicked: dict[bool, set[tuple[int, int, int]]] = {True: set(), False: set()}
    for user, item, domain, is_click in rows:
        clicked[is_click].add((user, item, domain))
    assert clicked[True]
    assert clicked[False]
    assert not clicked[True] & clicked[False]


def test_negatives_are_uniform_over_the_other_items():
    users = np.repeat(np.arange(4000), 2)
    items = np.tile([0, 1], 4000)
    users, items = np.append(users, np.full(10, 5000)), np.append(items, np.arange(10))
    drawn_users, drawn = sample_negatives(users, items, 0.5, 0, 0)
    counts = np.bincount(drawn[drawn_users < 5000], minlength=10)
    assert counts[:2].tolist() == [0, 0]
    assert counts.sum() == 16000
    np.testing.assert_allclose(counts[2:], 2000, rtol=0.08)
    assert not (drawn_users == 5000).any()


def test_all_that_is_left_when_too_few_items():
    users, items = sample_negatives(np.asarray([1, 1, 1, 2]), np.asarray([10, 11, 12, 13]), 0.2, 0, 0)
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == [(1, 13), (2, 10), (2, 11), (2, 12)]


def test_the_dataset(raw_taobao, log):
    dataset = load_dataset("taobao", data=raw_taobao)
    assert [len(dataset.train), len(dataset.valid), len(dataset.test)] == np.bincount(log.split).tolist()
    assert [field.name for field in dataset.statistics.fields] == ["user_vector", "item_vector", "theme_id"]
    assert set(dataset.statistics.domains) == set(map(str, log.themes))
    assert dataset.train.vectors.min() > 0
    encoder = Encoder.load(dataset.folder)
    vectors = dict(pl.read_csv(raw_taobao / FILES[1]).iter_rows())
    frame = raw_rows(recipe_for("taobao", data=raw_taobao), "train", 50)
    np.testing.assert_array_equal(encoder.encode(frame.to_dict(as_series=False)).vectors, dataset.train.vectors[:50])
    for row, user in enumerate(frame["user_id"][:5]):
        expected = np.asarray(vectors[user].split(), np.float32)
        np.testing.assert_array_equal(dataset.tables["user_vector"][dataset.train.vectors[row, 0]], expected)


def test_files_without_headers_give_the_same(raw_taobao, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in FILES:
        (bare / name).write_text((raw_taobao / name).read_text().split("\n", 1)[1])
    first, second = load_dataset("taobao-10", data=raw_taobao), load_dataset("taobao-10", data=bare)
    np.testing.assert_array_equal(first.test.vectors, second.test.vectors)
    np.testing.assert_array_equal(first.tables["item_vector"], second.tables["item_vector"])


def test_missing_files_are_one_clear_error(tmp_path, raw_taobao):
    with pytest.raises(UserError) as caught:
        load_dataset("taobao", data=tmp_path / "nowhere")
    message = str(caught.value)
    for part in (*FILES, str(tmp_path / "nowhere"), "9716", "autoctr search --dataset taobao-sim"):
        assert part in message
    assert "\n" not in message
    (raw_taobao / FILES[2]).unlink()
    with pytest.raises(UserError, match=r"^missing item_embedding\.csv;"):
        load_dataset("taobao", data=raw_taobao)


def test_fewer_themes_than_asked_for(raw_taobao):
    with pytest.raises(UserError, match="holds 12 themes, fewer than the 20"):
        load_dataset("taobao-20", data=raw_taobao)


def test_the_simulation_goes_the_same_way_and_tells_its_ceiling():
    dataset = load_dataset("taobao-sim", rows=3000)
    assert len(dataset.statistics.domains) == 10
    assert 2000 < len(dataset.train) + len(dataset.valid) + len(dataset.test) < 4500
    facts = describe(dataset)
    assert set(facts["ceiling"]) == {"valid", "test"}
    assert 0.6 < facts["ceiling"]["test"]["wauc"] < 1
    assert set(facts["ceiling"]["test"]["themes"]) <= set(dataset.statistics.domains)
    text = describe_text(dataset)
    assert "WAUC" in text
    assert load_dataset("taobao-sim", rows=3000).key == dataset.key
    assert load_dataset("taobao-sim", rows=3000, seed=1).key != dataset.key
