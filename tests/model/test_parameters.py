from __future__ import annotations

import pytest
import torch
from fake_data import fake_dataset

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import full, parallel
from autoctr.model.candidate import Candidate
from autoctr.model.embedding import initial_table
from autoctr.model.parameters import Layout, constant, normal, transfer, uniform, zeros
from autoctr.training.cohort import Cohort, frozen_tables
from model.networks import TINY, resident


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=120, unseen=0.1)


def layout_of(*shapes: tuple[str, tuple[int, ...]]) -> Layout:
    layout = Layout()
    for name, shape in shapes:
        layout.add(name, shape, uniform(4), decayed=name.startswith("w"))
    return layout


def test_views_lie_where_the_flat_tensor_has_them_and_share_its_memory() -> None:
    layout = layout_of(("w", (2, 3)), ("b", (3,)))
    flat = torch.arange(18.0).view(2, 9)
    views = layout.views(flat)
    assert layout.size == 9
    assert views["w"].tolist() == [[[0, 1, 2], [3, 4, 5]], [[9, 10, 11], [12, 13, 14]]]
    assert views["b"].tolist() == [[6, 7, 8], [15, 16, 17]]
    views["b"][1, 2] = -1
    assert flat[1, 8] == -1
    assert layout.decayed().tolist() == [1.0] * 6 + [0.0] * 3


def test_a_start_depends_on_seed_and_name_only() -> None:
    small, large = layout_of(("w", (4, 4))), layout_of(("a", (3,)), ("w", (4, 4)), ("z", (2,)))
    first = small.views(small.initial([5]))["w"][0]
    second = large.views(large.initial([9, 5]))["w"]
    assert torch.equal(first, second[1])
    assert not torch.equal(second[0], second[1])
    other = layout_of(("v", (4, 4)))
    assert not torch.equal(other.initial([5])[0], first.reshape(-1))


def test_a_name_is_declared_once() -> None:
    layout = layout_of(("w", (2,)))
    with pytest.raises(ValueError, match="w is declared twice"):
        layout.add("w", (2,), zeros)


def test_starts_have_their_spread() -> None:
    layout = Layout()
    layout.add("uniform", (100, 100), uniform(25))
    layout.add("normal", (100, 100), normal(0.3))
    layout.add("one", (3,), constant(1.0))
    views = layout.views(layout.initial([1]))
    assert float(views["uniform"].abs().max()) <= 0.2
    assert float(views["uniform"].std()) == pytest.approx(0.2 / 3**0.5, rel=0.03)
    assert float(views["normal"].std()) == pytest.approx(0.3, rel=0.03)
    assert views["one"].tolist() == [[1, 1, 1]]


def test_embedding_rows_start_small_and_alike_in_every_cohort(dataset: Dataset) -> None:
    together = initial_table(dataset.statistics, 4, [3, 8])
    assert together.shape == (dataset.statistics.vocabulary, 2, 4)
    assert torch.equal(initial_table(dataset.statistics, 4, [8])[:, 0], together[:, 1])
    assert not torch.equal(together[:, 0], together[:, 1])
    assert float(together.std()) == pytest.approx(0.01, rel=0.1)


def test_gates_start_open_at_a_half_and_operators_alike(dataset: Dataset) -> None:
    cohort = Cohort(dataset.statistics, [Candidate(**TINY, architecture="learn")], frozen_tables(dataset), ramp=1)
    for name, view in cohort.network.architecture.views(cohort.architecture).items():
        assert set(view.flatten().tolist()) == {0.5 if name.endswith("gates") else 0.0}


def test_a_start_is_independent_of_the_cohorts_union_of_edges(dataset: Dataset) -> None:
    settings = TINY | {"blocks": 2}
    members = [Candidate(**settings, wiring=wiring, seed=4) for wiring in (parallel(2), full(2))]
    tables = frozen_tables(dataset)
    together = Cohort(dataset.statistics, members, tables, ramp=1)
    alone = Cohort(dataset.statistics, members[:1], tables, ramp=1)
    many = together.network.layout.views(together.flat)
    for name, view in alone.network.layout.views(alone.flat).items():
        assert torch.equal(many[name][0], view[0])


def test_rank_2_padded_to_16_is_rank_2_alone(dataset: Dataset) -> None:
    members = [Candidate(**TINY, wiring=parallel(2), rank=rank, seed=4, learning_rate=0.01) for rank in (2, 16)]
    tables, rows = frozen_tables(dataset), resident(dataset, "train")
    together = Cohort(dataset.statistics, members, tables, ramp=1, dtype=torch.float64)
    alone = Cohort(dataset.statistics, members[:1], tables, ramp=1, dtype=torch.float64)
    assert together.network.layout.weights["D1.lora.A"].shape[-1] == 16
    start = together.network.layout.views(together.flat)["D1.lora.A"]
    # both ranks share their start, and the member of rank 2 its start with itself alone
    assert torch.equal(start[0], start[1])
    assert torch.equal(start[0, :, :, :2], alone.network.layout.views(alone.flat)["D1.lora.A"][0])
    padding = start[0, :, :, 2:].clone()
    for batch in rows.batches(0, 0, 20):
        together.step(batch)
        alone.step(batch)
    torch.testing.assert_close(together.logits(rows)[0], alone.logits(rows)[0], rtol=0, atol=1e-12)
    after = together.network.layout.views(together.flat)
    assert torch.equal(after["D1.lora.A"][0, :, :, 2:], padding)
    assert float(after["D1.lora.B"][0, :, 2:].abs().max()) == 0
    assert float(after["D1.lora.B"][0, :, :2].abs().max()) > 0
    assert float(after["D1.lora.B"][1, :, 2:].abs().max()) > 0


def test_transfer_copies_what_both_hold_and_names_what_is_missing() -> None:
    source, target = (
        layout_of(("w", (2, 2)), ("b", (3,)), ("old", (1,))),
        layout_of(("b", (4,)), ("w", (2, 2)), ("n", (1,))),
    )
    values, into = source.initial([1]), target.initial([2])
    before = target.views(into.clone())
    missing = transfer(source, values, target, into)
    after = target.views(into)
    assert missing == ["n"]
    assert torch.equal(after["w"], source.views(values)["w"])
    assert torch.equal(after["b"], before["b"])
    assert torch.equal(after["n"], before["n"])
