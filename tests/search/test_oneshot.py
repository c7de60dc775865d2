"""The supernet: read-outs, held-out rows, its cache, and what a trial makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_data import fake_dataset
from small_study import search_small, write_space

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import CONCAT, FIXED, PRODUCT, Architecture, Node, inputs, one_hot
from autoctr.model.candidate import Candidate
from autoctr.model.network import Batch
from autoctr.search import oneshot
from autoctr.search import trial as trial_module
from autoctr.search.oneshot import (
    discretise,
    read_out,
    search_rows,
    supernet_candidate,
    train_supernets,
    trainable,
)
from autoctr.search.trial import Laboratory, Outcome
from autoctr.training.cohort import Cohort
from autoctr.training.fit import Diverged, Fit, OutOfTime, Rung, Standing, score_members

LEARN = Candidate(
    architecture="learn", embedding=4, width=8, blocks=2, batch=512, epochs=2, architecture_rate=0.1, warmup=0.1, rank=2
)
PARALLEL = FIXED["parallel"](2)


@pytest.fixture
def laboratory(dataset: Dataset, tmp_path: Path) -> Laboratory:
    return Laboratory(dataset, metric="wauc", seed=0, device=torch.device("cpu"), folder=tmp_path)


def supernet_of(laboratory: Laboratory, candidate: Candidate) -> Cohort:
    found = supernet_candidate(candidate, 1, len(laboratory.splits.train))
    return train_supernets([found], laboratory.splits, laboratory.dataset, seed=2)


@pytest.mark.parametrize("readout", ["hard", "soft", "drop"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_every_read_out_is_legal(readout: str, norm: str, laboratory: Laboratory) -> None:
    candidate = LEARN.replace(readout=readout, norm=norm)
    supernet = supernet_of(laboratory, candidate)
    wiring = read_out(supernet, candidate, laboratory.splits, laboratory.dataset)
    assert wiring.blocks == 2
    assert all(any(node.open) for node in wiring.nodes)
    assert all(node.hard for node in wiring.nodes) == (readout != "soft")
    outcome = laboratory.run(candidate)
    assert outcome.candidate.wiring is not None
    scores = score_members(outcome.cohort, laboratory.splits.valid, laboratory.dataset)[0]
    assert outcome.fitted.best.wauc == scores.wauc


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_trap_1_9_1_the_soft_network_with_the_supernets_weights_is_the_supernet(
    norm: str, laboratory: Laboratory
) -> None:
    candidate = LEARN.replace(readout="soft", norm=norm)
    supernet = supernet_of(laboratory, candidate)
    wiring = read_out(supernet, candidate, laboratory.splits, laboratory.dataset)
    discrete = discretise(supernet, wiring, laboratory.dataset)
    valid = laboratory.splits.valid
    assert torch.allclose(discrete.logits(valid), supernet.logits(valid), atol=1e-5)


PRODUCTS = Architecture(tuple(Node((True,) * count, one_hot(PRODUCT)) for count in inputs(3)))


def test_products_that_start_without_a_signal_give_way(tmp_path: Path) -> None:
    dataset = fake_dataset(kinds=())  # categorical fields alone: all of x0 starts near 0
    laboratory = Laboratory(dataset, metric="wauc", seed=0, device=torch.device("cpu"), folder=tmp_path)
    candidate = LEARN.replace(blocks=3, width=0, embedding=4, batch=128, averaging=0.0, learning_rate=1e-2)
    leads = [0.5 - 0.01 * n for n in range(len(PRODUCTS.nodes))]
    mixture = Architecture(
        tuple(Node(node.open, (0.1, lead, 0.7 - lead, 0.2)) for node, lead in zip(PRODUCTS.nodes, leads, strict=True))
    )
    valid = laboratory.splits.valid
    chosen = trainable(PRODUCTS, mixture, candidate, valid, dataset)
    changed = [n for n, node in enumerate(chosen.nodes) if node.operators != one_hot(PRODUCT)]
    assert changed == list(range(changed[0], len(PRODUCTS.nodes)))  # the smallest leads first
    assert all(chosen.nodes[n].operators == one_hot(CONCAT) for n in changed)
    assert [node.open for node in chosen.nodes] == [node.open for node in PRODUCTS.nodes]

    def learned(wiring: Architecture) -> float:
        cohort = Cohort(dataset.statistics, [candidate.replace(wiring=wiring)], {}, ramp=1)
        start = cohort.logits(valid)
        for epoch in range(3):
            for batch in laboratory.splits.train.batches(0, epoch, 128):
                cohort.step(batch)
        return float((cohort.logits(valid) - start).std())

    assert learned(PRODUCTS) < 1e-6
    assert learned(chosen) > 1e-2


def test_products_that_pass_their_input_on_stay(laboratory: Laboratory) -> None:
    wiring = PARALLEL.with_node(0, Node((True, True), one_hot(PRODUCT)))
    assert trainable(wiring, wiring, LEARN, laboratory.splits.valid, laboratory.dataset) == wiring


def test_drop_costs_no_more_than_it_may(laboratory: Laboratory) -> None:
    supernet = supernet_of(laboratory, LEARN)

    def loss(readout: str) -> float:
        wiring = read_out(supernet, LEARN.replace(readout=readout), laboratory.splits, laboratory.dataset)
        discrete = discretise(supernet, wiring, laboratory.dataset)
        return score_members(discrete, laboratory.splits.valid, laboratory.dataset)[0].logloss

    assert loss("drop") <= loss("hard") + 1e-3


@pytest.mark.parametrize("settings", [{}, {"norm": "batch", "sparsity": 0.3}, {"learned": "operators"}], ids=str)
def test_the_losses_of_drop_are_those_of_the_discrete_networks(
    settings: dict[str, Any], laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oneshot, "PROBE_ROWS", 100)  # several chunks, the last of them shorter
    candidate = LEARN.replace(readout="soft", **settings)
    supernet, valid = supernet_of(laboratory, candidate), laboratory.splits.valid.head(250)
    current = read_out(supernet, candidate, laboratory.splits, laboratory.dataset)
    probe = oneshot._Probe(supernet, current, valid)
    draw = torch.Generator().manual_seed(0)
    for position in range(len(current.nodes) - 1, -1, -1):
        count = len(current.nodes[position].open)
        flags = (*torch.rand(count, generator=draw).gt(0.5).tolist()[1:], True)
        if settings.get("learned") == "operators":
            flags = (True,) * count
        operator = int(torch.randint(4, (), generator=draw))
        current = current.with_node(position, Node(flags, one_hot(operator)))
        logits = discretise(supernet, current, laboratory.dataset).logits(valid)[0]
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), valid.labels.double())
        assert probe.loss(current, position) == pytest.approx(float(expected), abs=1e-6)


def test_trap_1_9_11_alternating_holds_rows_out_that_the_weights_never_see(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed: set[tuple[int, ...]] = set()
    wired: set[tuple[int, ...]] = set()
    inner = Cohort.step

    def step(cohort: Cohort, batch: Batch, *, wire: bool = False, weigh: bool = True) -> torch.Tensor:
        assert wire != weigh
        (wired if wire else weighed).update(map(tuple, batch.ids.tolist()))
        before = cohort.flat.clone(), cohort.table.clone(), cohort.architecture.clone()
        loss = inner(cohort, batch, wire=wire, weigh=weigh)
        assert torch.equal(cohort.architecture, before[2]) != wire
        assert torch.equal(cohort.flat, before[0]) == torch.equal(cohort.table, before[1]) == (not weigh)
        return loss

    monkeypatch.setattr(Cohort, "step", step)
    supernet_of(laboratory, LEARN.replace(alternating=True))
    every = [tuple(row) for row in laboratory.splits.train.ids.tolist()]
    twins = {row for row in every if every.count(row) > 1}
    assert not (weighed & wired) - twins
    assert len(wired) > 0.15 * len(set(every))
    assert len(weighed | wired) == len(set(every))


@pytest.mark.parametrize("rows", [2, 3, 7])
def test_a_tiny_table_still_has_both_parts(rows: int, laboratory: Laboratory) -> None:
    for seed in range(20):
        held = oneshot._held_out(laboratory.splits.train.head(rows), seed)
        assert 0 < int(held.sum()) < rows


def trained(laboratory: Laboratory, candidate: Candidate, monkeypatch: pytest.MonkeyPatch) -> tuple[Outcome, int]:
    """The outcome and how many supernets were trained for it."""
    calls: list[Candidate] = []
    inner = oneshot.train_supernets

    def counted(found: Sequence[Candidate], *arguments: object, **options: object) -> Cohort:
        calls.extend(found)
        return inner(found, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "train_supernets", counted)
        rungs: list[Rung] = []

        def on_rung(rung: Rung) -> bool:
            rungs.append(rung)
            return True

        outcome = laboratory.run(candidate, on_rung=on_rung)
    assert [rung.rows for rung in rungs] == [rung.rows for rung in outcome.fitted.rungs]
    return outcome, len(calls)


def test_equal_genes_share_one_supernet_and_pay_for_it_alike(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, count = trained(laboratory, LEARN, monkeypatch)
    assert count == 1
    cached, count = trained(laboratory, LEARN, monkeypatch)
    assert count == 0
    assert torch.equal(cached.cohort.flat, first.cohort.flat)
    assert torch.equal(cached.cohort.table, first.cohort.table)
    assert cached.gap == first.gap
    assert [r.rows for r in cached.fitted.rungs] == [r.rows for r in first.fitted.rungs]
    train = len(laboratory.splits.train)
    assert first.fitted.rungs[0].rows == search_rows(LEARN, train) + train
    assert search_rows(LEARN, train) == train

    other, count = trained(laboratory, LEARN.replace(learning_rate=0.01, dropout=0.0, readout="drop"), monkeypatch)
    assert count == 0
    assert other.candidate.wiring is not None
    for change in ({"rank": 0}, {"width": 16}, {"alternating": True}, {"sparsity": 0.2}):
        assert trained(laboratory, LEARN.replace(**change), monkeypatch)[1] == 1
    assert not list(laboratory.supernets.glob("*.tmp"))


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_supernet_is_trained_again(
    damage: str, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = trained(laboratory, LEARN, monkeypatch)
    (path,) = laboratory.supernets.glob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-100], "garbage": b"x" * len(whole), "empty": b""}[damage])
    again, count = trained(laboratory, LEARN, monkeypatch)
    assert count == 1
    assert torch.equal(again.cohort.flat, first.cohort.flat)
    assert len(path.read_bytes()) == len(whole)


@pytest.mark.parametrize("metric", ["wauc", "auc", "logloss"])
def test_the_gap_is_told_in_the_metric_itself(metric: str, laboratory: Laboratory) -> None:
    laboratory.metric = metric
    outcome = laboratory.run(LEARN)
    assert outcome.gap is not None
    wanted = supernet_candidate(LEARN, trial_module.derive(0, 0, "supernet"), len(laboratory.splits.train))
    supernet = laboratory._supernets([wanted], float("inf"))[wanted]
    relaxed = score_members(supernet, laboratory.splits.valid, laboratory.dataset)[0]
    assert outcome.gap.relaxed == pytest.approx(getattr(relaxed, metric), abs=1e-9)
    assert 0 < outcome.gap.discrete < 2


def test_no_supernet_no_gap(laboratory: Laboratory) -> None:
    outcome = laboratory.run(LEARN.replace(architecture="inherit", wiring=PARALLEL))
    assert outcome.gap is None
    assert not laboratory.supernets.exists()


def test_retraining_starts_from_the_supernets_weights(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: dict[str, Cohort] = {}
    inner = Laboratory.go_on

    def go_on(laboratory: Laboratory, cohort: Cohort, standings: Sequence[Standing]) -> Fit:
        starts[cohort.network.candidates[0].retrain] = cohort
        table[cohort.network.candidates[0].retrain] = cohort.table.clone()
        named[cohort.network.candidates[0].retrain] = {
            name: view.clone() for name, view in cohort.network.layout.views(cohort.flat).items()
        }
        return inner(laboratory, cohort, standings)

    table: dict[str, torch.Tensor] = {}
    named: dict[str, dict[str, torch.Tensor]] = {}
    monkeypatch.setattr(Laboratory, "go_on", go_on)
    for retrain in ("scratch", "supernet"):
        laboratory.run(LEARN.replace(retrain=retrain))
    wanted = supernet_candidate(LEARN, trial_module.derive(0, 0, "supernet"), len(laboratory.splits.train))
    supernet = laboratory._supernets([wanted], float("inf"))[wanted]
    assert torch.equal(table["supernet"], supernet.table)
    assert not torch.equal(table["scratch"], supernet.table)
    views = supernet.network.layout.views(supernet.flat)
    same = [name for name, view in named["supernet"].items() if name in views and torch.equal(view, views[name])]
    assert set(same) >= {name for name in named["supernet"] if name.startswith(("projection", "head"))}


def test_trap_1_9_8_a_soft_network_trains_its_weights_and_keeps_its_mixture(laboratory: Laboratory) -> None:
    candidate = LEARN.replace(readout="soft", retrain="supernet")
    wanted = supernet_candidate(candidate, trial_module.derive(0, 0, "supernet"), len(laboratory.splits.train))
    supernet = laboratory._supernets([wanted], float("inf"))[wanted]
    outcome = laboratory.run(candidate)
    assert outcome.candidate.wiring == read_out(supernet, candidate, laboratory.splits, laboratory.dataset)
    assert not all(node.hard for node in outcome.candidate.wiring.nodes)
    before = supernet.network.layout.views(supernet.weights().flat)
    after = outcome.cohort.network.layout.views(outcome.cohort.flat)
    moved = [float((view - before[name]).abs().max()) for name, view in after.items()]
    assert sum(distance > 1e-3 for distance in moved) > 0.9 * len(moved)


def test_a_wild_learning_rate_does_not_end_the_laboratory(laboratory: Laboratory) -> None:
    wild = LEARN.replace(architecture="parallel", wiring=PARALLEL, learning_rate=10.0, embedding_rate=1000.0)
    try:
        outcome = laboratory.run(wild)
    except Diverged:
        return
    assert torch.isfinite(outcome.cohort.logits(laboratory.splits.valid)).all()


def test_no_time_no_network(laboratory: Laboratory) -> None:
    with pytest.raises(OutOfTime):
        laboratory.run(LEARN, deadline=0.0)
    with pytest.raises(OutOfTime):
        laboratory.run(LEARN.replace(architecture="parallel", wiring=PARALLEL), deadline=0.0)
    assert not laboratory.supernets.exists()


def test_a_study_outlives_diverging_and_failing_trials(
    tmp_path: Path, space_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Laboratory.finish
    fails = {1: Diverged(), 3: MemoryError()}
    counted = iter(range(99))

    def finish(self: Laboratory, *arguments: Any, **options: Any) -> Outcome:
        number = next(counted)
        if number in fails:
            raise fails[number]
        return inner(self, *arguments, **options)

    monkeypatch.setattr(Laboratory, "finish", finish)
    study = search_small(tmp_path, space_file, trials=5)
    states = [(record.state, record.reason) for record in study.records()]
    assert states[1] == ("FAIL", "diverged")
    assert states[3] == ("FAIL", "out of memory: MemoryError")
    assert [state for state, _ in states].count("FAIL") == 2
    assert study.database.user_attrs["proof"]


def test_three_failures_in_a_row_stop_the_study(
    tmp_path: Path, space_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*_: object) -> Fit:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(Laboratory, "begin", begin)
    study = search_small(tmp_path, space_file, trials=9)
    assert [(record.state, record.reason) for record in study.records()] == [("FAIL", "first line")] * 3
    assert study.best() is None


def test_wild_learning_rates_in_a_study(tmp_path: Path) -> None:
    text = "fix: {epochs: 1, width: 8, blocks: 1, embedding_rate: 1000}\nvary: {learning_rate: {low: 9, high: 10}}"
    study = search_small(tmp_path, write_space(tmp_path, text), trials=3)
    assert len(study.records()) == 3
    assert study.best() is not None


def test_logloss_is_minimised(tmp_path: Path, space_file: Path) -> None:
    study = search_small(tmp_path, space_file, trials=5, metric="logloss")
    complete = [record for record in study.records() if record.state == "COMPLETE"]
    best = study.best()
    assert best is not None
    assert best.value == min(record.value or 9 for record in complete)
    for record in study.records():
        scores = [value for _, value in record.rungs]
        assert scores == sorted(scores, reverse=True)
        assert record.valid is not None
        assert record.value == record.valid["logloss"] == scores[-1]
    assert best.number in study.kept()
