"""``autoctr bench``: what it measures, and that its rows are ones that the encoder knows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_data import MARKETS, TASKS, fake_encoder

from autoctr.errors import UserError
from autoctr.export import bench as module
from autoctr.export.bench import bench, bench_text


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    monkeypatch.setattr(module, "CALLS", (5, 10))


def test_sane_numbers(exported: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = bench(exported, rows=4096, threads=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert (found.rows, found.threads) == (4096, 1)
    networks = [("export", "python", "encoded"), ("plain", "python", "encoded"), ("export", "python", "raw")]
    assert [(speed.batch, speed.network, speed.format, speed.values) for speed in found.speeds] == [
        (batch, *network) for batch in (1, 64, 4096) for network in networks
    ]
    for speed in found.speeds:
        assert 0 < speed.p50_ms <= speed.p99_ms
        assert speed.calls == 5
        # the mean lies near the median: within the slowest call and a share of it
        assert speed.batch * 1000 / speed.rows_per_second <= speed.p99_ms * 1.1
    by_name = {(speed.batch, speed.network, speed.values): speed for speed in found.speeds}
    assert by_name[4096, "export", "raw"].p50_ms > by_name[4096, "export", "encoded"].p50_ms
    assert by_name[4096, "plain", "encoded"].rows_per_second > 4 * by_name[1, "plain", "encoded"].rows_per_second
    lines = bench_text(found).splitlines()
    assert len(lines) == 2 + 9
    assert lines[0].startswith("4,096 drawn rows, CPU, ")
    assert len({len(line) for line in lines[1:]}) == 1


def test_batches_larger_than_the_rows_are_left_out(exported: Path) -> None:
    assert {speed.batch for speed in bench(exported, rows=100).speeds} == {1, 64}


def test_rows_are_drawn_from_what_the_encoder_knows() -> None:
    encoder = fake_encoder(TASKS)
    rows = encoder.encode(module._drawn(encoder, 2000))
    shares = np.bincount(rows.domain, minlength=len(MARKETS)) / 2000
    assert len(shares) == len(MARKETS)
    assert abs(shares - 0.25).max() < 0.05
    column = 0
    for field in encoder.fields:
        if field.name in ("user", "item", "market"):
            ids = rows.ids[:, column] - encoder.offsets[field.name]
            assert ids.min() == 1
            assert ids.max() == len(field.vocabulary)
        if field.name in ("user", "tags", "market", "price bin", "item"):
            column += field.slots
    tags = rows.ids[:, 1:4] - encoder.offsets["tags"]
    assert set(np.unique(tags)) == {0, 2, 3, 4, 5, 6}
    assert abs(rows.numbers.mean()) < 0.1
    assert 0 < (rows.vectors == 0).mean() < 1


def test_bad_input(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--rows is 0; it must be at least 1"):
        bench(exported, rows=0)
    with pytest.raises(UserError, match="--threads is -1"):
        bench(exported, threads=-1)
    with pytest.raises(UserError, match="is not a whole export"):
        bench(tmp_path)


def test_an_encoder_with_nothing_to_draw() -> None:
    encoder = fake_encoder(TASKS)
    first, *others = encoder.fields
    bare = dataclasses.replace(encoder, fields=(dataclasses.replace(first, vocabulary=()), *others))
    assert (bare.encode(module._drawn(bare, 3)).ids[:, 0] == 0).all()
