"""A trial with one method on at a time: what each stage does, what the outcome tells, and that it can be repeated."""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_data import TASKS, fake_dataset
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import ADD, FIXED, one_hot
from autoctr.model.build import dense_parameters
from autoctr.model.candidate import Candidate, ranks
from autoctr.model.fusion import FusionNetwork
from autoctr.model.network import Batch
from autoctr.search import trial as trial_module
from autoctr.search.oneshot import search_rows, supernet_candidate
from autoctr.search.trial import Laboratory, Outcome
from autoctr.training import checkpoint
from autoctr.training.adapters import domain_losses
from autoctr.training.cohort import Cohort, Weights
from autoctr.training.fit import Fit, Fitted, OutOfTime, Rung, Standing, score_members
from search.candidates import LEARN, MEMBER, TICKETS

ROWS = 500
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tickets": TICKETS,
    "tickets per task": TICKETS | {"ticket_unit": "task", "ticket_ranking": "layer"},
    "one ticket": TICKETS | {"ticket_unit": "network", "norm": "batch"},
    "adapters": {"rank": 3, "rank_tilt": 1.0, "order": "alternating"},
    "rank rule": {"rank_divisor": 4},
    "frozen schedule": {"rank": 3, "lora_schedule": "frozen"},
    "truncation": {"rank": 4, "truncate": True},
    "warm start": {"warm_start": 0.5, "norm": "batch"},
    "snapshots": {"snapshots": 3, "norm": "batch"},
    "mean of snapshots": {"snapshots": 4, "pooling": "mean", "warm_start": 0.5, "warm_share": 0.8, "rank": 2},
    "supernet of snapshots": LEARN | {"snapshots": 2, "pooling": "last", "readout": "drop"},
    "snapshots into a multi-domain network": {"snapshots": 2, "backbone": "star", "wiring": None},
    "sparsity": {"sparsity": 0.4, "pruner_input": "domain"},
    "input pruner": {"sparsity": 0.4, "input_pruner": True, "sparsity_form": "binarization"},
    "scaling": {"sparsity": 0.4, "sparsity_form": "scaling"},
    "connections": LEARN | {"learned": "connections", "readout": "drop"},
    "operators": LEARN | {"learned": "operators", "readout": "soft", "retrain": "supernet"},
    "everything": LEARN | TICKETS | {
        "wiring": FIXED["shallow"](2),
        "rank": 4, "truncate": True, "lora_schedule": "frozen", "warm_start": 0.5, "sparsity": 0.3,
        "input_pruner": True, "retrain": "supernet", "cross": "attention", "norm": "batch", "snapshots": 3,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=ROWS, tasks=TASKS)


@pytest.fixture
def laboratory(new: Callable[[], Laboratory]) -> Laboratory:
    return new()


@dataclasses.dataclass
class Begun:
    """A fit of one candidate: the cohort, its weights at the start, the rows of earlier stages, and what came out."""

    cohort: Cohort
    weights: Weights
    standing: Standing
    before: int

    @property
    def rows(self) -> int:
        return self.standing.visited

    @property
    def fitted(self) -> Fitted:
        """With the scores of this fit alone."""
        standing = self.standing
        assert standing.kept is not None
        assert standing.best is not None
        return Fitted(standing.kept.weights, standing.best, standing.rungs[self.before :], standing.reason)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Begun]:
    inner, seen = Laboratory.go_on, []

    def go_on(laboratory: Laboratory, cohort: Cohort, standings: Sequence[Standing]) -> Fit:
        seen.append(Begun(cohort, cohort.weights().copy(), standings[0], len(standings[0].rungs)))
        return inner(laboratory, cohort, standings)

    monkeypatch.setattr(Laboratory, "go_on", go_on)
    return seen


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Cohort, Batch]]:
    """Every step of every cohort."""
    inner, seen = Cohort.step, []

    def step(cohort: Cohort, batch: Batch, **options: Any) -> Tensor:
        seen.append((cohort, batch))
        return inner(cohort, batch, **options)

    monkeypatch.setattr(Cohort, "step", step)
    return seen


# what every method's outcome holds


def assert_kept(outcome: Outcome, laboratory: Laboratory, path: Path) -> None:
    """The outcome's cohort, its weights and what lies on disk say the same as its scores."""
    laboratory = laboratory.reader(outcome.candidate)
    valid = laboratory.splits.valid
    assert score_members(outcome.cohort, valid, laboratory.dataset)[0] == outcome.fitted.best
    logits = outcome.cohort.logits(valid)
    assert torch.equal(outcome.cohort.logits(valid, outcome.fitted.weights), logits)
    assert outcome.cohort.network.candidates == (outcome.candidate,)
    checkpoint.save(path, outcome.cohort.network, outcome.fitted.weights)
    again = checkpoint.load(path, laboratory.dataset)
    assert again.network.candidates == (outcome.candidate,)
    assert torch.equal(again.logits(valid), logits)


@pytest.mark.parametrize("method", METHODS)
def test_an_outcome_tells_what_its_method_did_and_nothing_else(
    method: str, laboratory: Laboratory, tmp_path: Path
) -> None:
    candidate = MEMBER.replace(**METHODS[method])
    stages: list[str] = []
    rungs: list[Rung] = []
    outcome = laboratory.run(candidate, on_stage=stages.append, on_rung=lambda rung: not rungs.append(rung))
    on = {
        "snapshots": candidate.snapshots > 0,
        "supernet": candidate.architecture == "learn",
        "read-out": candidate.architecture == "learn",
        "warm start": candidate.warm_start > 0,
        "tickets": candidate.keep_rate < 1,
        "fit": True,
        "truncation": candidate.truncate,
    }
    assert stages == [stage for stage, is_on in on.items() if is_on]
    assert (outcome.gap is not None) == on["supernet"]
    assert (outcome.kept is not None) == on["tickets"]
    assert (outcome.overlap is not None) == (on["tickets"] and candidate.ticket_unit != "network")
    closes = candidate.sparsity > 0 and candidate.sparsity_form != "scaling"
    assert (outcome.closed is not None) == closes
    dense, left = outcome.multiply_adds["dense"], outcome.multiply_adds["open"]
    assert isinstance(left, list)
    assert len(left) == len(laboratory.dataset.statistics.domains)
    assert closes or max(left) == dense
    assert 0 < min(left) <= dense
    assert outcome.parameters == dense_parameters(outcome.cohort.network) > 0
    assert (outcome.candidate.domain_ranks is not None) == candidate.truncate
    assert_kept(outcome, laboratory, tmp_path / "member.safetensors")
    # what is changed of the genes is only what was found
    found = {"wiring", "domain_ranks", "truncate"}
    for field in dataclasses.fields(Candidate):
        if field.name not in found:
            assert getattr(outcome.candidate, field.name) == getattr(candidate, field.name)
    # rows count over all stages, and the best score is among those that were told
    rows = [rung.rows for rung in outcome.fitted.rungs]
    assert [rung.rows for rung in rungs] == rows
    assert rows == sorted(set(rows))
    if not candidate.truncate:
        assert outcome.fitted.best.wauc == max(rung.scores.value("wauc") for rung in rungs)


def comparable(outcome: Outcome) -> dict[str, Any]:
    """Everything of an outcome but what the clock says."""
    return {
        "candidate": outcome.candidate,
        "best": outcome.fitted.best,
        "rungs": [(rung.rows, rung.scores) for rung in outcome.fitted.rungs],
        "reason": outcome.fitted.reason,
        "gap": outcome.gap,
        "closed": outcome.closed,
        "kept": outcome.kept,
        "overlap": outcome.overlap,
    }


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_are_equal_to_the_bit(method: str, new: Callable[[], Laboratory]) -> None:
    candidate = MEMBER.replace(**METHODS[method])
    first, second = new().run(candidate), new().run(candidate)
    assert comparable(first) == comparable(second)
    for part in ("flat", "table", "running", "architecture"):
        assert torch.equal(getattr(first.fitted.weights, part), getattr(second.fitted.weights, part))
    masks = [outcome.fitted.weights.masks for outcome in (first, second)]
    assert (masks[0] is None) == (masks[1] is None)
    assert masks[0] is None or masks[1] is None or torch.equal(masks[0], masks[1])


@pytest.mark.parametrize("method", METHODS)
def test_without_time_there_is_no_outcome(method: str, laboratory: Laboratory) -> None:
    with pytest.raises(OutOfTime):
        laboratory.run(MEMBER.replace(**METHODS[method]), deadline=0.0)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_copes_with_a_wiring_without_deep_components(
    method: str, laboratory: Laboratory, tmp_path: Path
) -> None:
    """A supernet may find one."""
    outcome = laboratory.run(MEMBER.replace(**METHODS[method] | {"wiring": FIXED["cross"](2), "epochs": 2}))
    assert_kept(outcome, laboratory, tmp_path / "member.safetensors")
    assert outcome.candidate.domain_ranks in (None, (0, 0, 0, 0))
    assert set(outcome.closed or ()) <= {"x0"}


# tickets


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_trap_4_7_1_the_fit_starts_from_the_same_theta_k_as_the_units(
    norm: str, laboratory: Laboratory, fits: list[Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, found = trial_module.find_tickets, []

    def finding(*arguments: Any, **options: Any) -> Any:
        found.extend(inner(*arguments, **options))
        return found[-1:]

    monkeypatch.setattr(trial_module, "find_tickets", finding)
    outcome = laboratory.run(MEMBER.replace(**TICKETS, norm=norm, weight_decay=0.1, averaging=0.0))
    (tickets,), (only,) = found, fits
    assert tickets.start.cohort.steps == 2  # 100 rows in batches of 64
    assert torch.equal(only.weights.flat, tickets.start.cohort.flat)
    assert torch.equal(only.weights.table, tickets.start.cohort.table)
    assert torch.equal(only.weights.running, tickets.start.cohort.running)
    assert only.cohort.network.candidates[0].seed == tickets.start.cohort.network.candidates[0].seed
    assert only.rows == tickets.rows
    assert outcome.fitted.rungs[0].rows == tickets.rows + ROWS
    # what no unit keeps is at θ_k to the end
    network = outcome.cohort.network
    views, start = network.layout.views(outcome.fitted.weights.flat), network.layout.views(tickets.start.cohort.flat)
    masks = outcome.fitted.weights.masks
    assert masks is not None
    assert torch.equal(masks[0], tickets.masks.to(masks.dtype))
    for name, never in network.maskable.views(masks.amax(1) == 0).items():
        assert bool(never.any())
        assert torch.equal(views[name][never], start[name][never])
        assert not torch.equal(views[name][~never], start[name][~never])


def test_tickets_tell_their_shares(laboratory: Laboratory) -> None:
    outcome = laboratory.run(MEMBER.replace(**TICKETS))
    masks = outcome.fitted.weights.masks
    assert masks is not None
    assert outcome.kept == pytest.approx(masks[0].mean(1).tolist())
    assert outcome.kept == pytest.approx([0.4] * 4, abs=0.01)
    assert outcome.overlap is not None
    assert 0.2 < outcome.overlap < 1


# adapters


@pytest.mark.parametrize("averaging", [0.0, 0.9])
@pytest.mark.parametrize("more", [{}, {"norm": "batch", "sparsity": 0.3}, TICKETS], ids=["", "norm", "tickets"])
def test_trap_3_8_1_a_frozen_schedule_trains_the_shared_network_first(
    averaging: float, more: dict[str, Any], laboratory: Laboratory, fits: list[Begun]
) -> None:
    outcome = laboratory.run(MEMBER.replace(rank=3, lora_schedule="frozen", averaging=averaging, **more))
    first, second = fits
    assert first.fitted is not None
    assert second.fitted is not None
    assert isinstance(first.cohort.network, FusionNetwork)
    assert first.cohort.network.adapters is None
    assert first.cohort.network.candidates[0].epochs == MEMBER.epochs
    shared = first.cohort.network.layout.views(first.fitted.weights.flat)
    start = second.cohort.network.layout.views(second.weights.flat)
    ends = second.cohort.network.layout.views(outcome.fitted.weights.flat)
    for name, view in start.items():
        if name.endswith(".lora.A"):
            assert bool((view != 0).all())
            assert float(view.std()) == pytest.approx(8**-0.5, rel=0.3)
        elif ".lora." in name:
            assert bool((view == 0).all())
        else:
            assert torch.equal(view, shared[name])
            assert torch.allclose(ends[name], view, rtol=1e-5, atol=1e-6)
            assert averaging > 0 or torch.equal(ends[name], view)
    assert torch.equal(second.weights.table, first.fitted.weights.table)
    assert torch.allclose(outcome.fitted.weights.table, second.weights.table, rtol=1e-5, atol=1e-6)
    assert averaging > 0 or torch.equal(outcome.fitted.weights.table, second.weights.table)
    # rows go on counting, and the second phase never makes it worse
    assert second.rows == first.rows + first.cohort.rows
    assert outcome.fitted.rungs == [*first.fitted.rungs, *second.fitted.rungs]
    assert second.fitted.rungs[0].rows == second.rows + ROWS
    assert outcome.fitted.best.value("wauc") >= first.fitted.best.value("wauc")


def test_trap_3_8_1_adapters_that_other_stages_trained_are_drawn_afresh(
    laboratory: Laboratory, fits: list[Begun], steps: list[tuple[Cohort, Batch]]
) -> None:
    candidate = MEMBER.replace(rank=3, lora_schedule="frozen", warm_start=1.0, averaging=0.0)
    laboratory.run(candidate)
    warm = steps[0][0]
    warmed = warm.network.layout.views(warm.flat)
    fresh = laboratory._cohort([candidate])
    drawn = fresh.network.layout.views(fresh.flat)
    start = fits[1].cohort.network.layout.views(fits[1].weights.flat)
    assert float(warmed["D1.lora.B"].abs().max()) > 0
    assert not torch.equal(warmed["D1.lora.A"], start["D1.lora.A"])
    assert torch.equal(drawn["D1.lora.A"], start["D1.lora.A"])
    assert float(start["D1.lora.B"].abs().max()) == 0


def test_a_weak_first_phase_ends_a_frozen_schedule(laboratory: Laboratory, fits: list[Begun], tmp_path: Path) -> None:
    outcome = laboratory.run(MEMBER.replace(rank=3, lora_schedule="frozen"), on_rung=lambda rung: False)
    assert len(fits) == 1
    assert outcome.fitted.reason == "weak"
    assert len(outcome.fitted.rungs) == 1
    assert outcome.cohort.network.candidates[0].rank == 3
    assert_kept(outcome, laboratory, tmp_path / "member.safetensors")


def test_a_frozen_schedule_of_no_rank_is_a_plain_fit(new: Callable[[], Laboratory]) -> None:
    plain = new().run(MEMBER)
    frozen = new().run(MEMBER.replace(lora_schedule="frozen"))
    assert torch.equal(plain.fitted.weights.flat, frozen.fitted.weights.flat)


@pytest.mark.parametrize(
    "more", [{}, {"lora_schedule": "frozen", "rank_tilt": 1.0}, TICKETS, {"norm": "batch"}], ids=str
)
def test_truncation_costs_no_domain_more_than_it_may(more: dict[str, Any], new: Callable[[], Laboratory]) -> None:
    laboratory = new()
    candidate = MEMBER.replace(rank=4, learning_rate=0.05, **more)
    whole, cut = laboratory.run(candidate), new().run(candidate.replace(truncate=True))
    rows = laboratory.dataset.statistics.domain_rows
    own, found = ranks(candidate, rows), ranks(cut.candidate, rows)
    assert cut.candidate.domain_ranks == tuple(found)
    assert all(0 <= after <= before for after, before in zip(found, own, strict=True))
    assert sum(found) < sum(own)
    valid = laboratory.splits.valid
    excess = domain_losses(cut.cohort, valid) - domain_losses(whole.cohort, valid)
    assert float(excess.max()) <= 1e-4 + 1e-6
    assert [rung.scores for rung in cut.fitted.rungs] == [rung.scores for rung in whole.fitted.rungs]


def test_without_adapters_there_is_nothing_to_truncate(laboratory: Laboratory) -> None:
    stages: list[str] = []
    outcome = laboratory.run(MEMBER.replace(truncate=True), on_stage=stages.append)
    assert outcome.candidate.domain_ranks is None
    assert stages == ["fit"]


# warm start


@pytest.mark.parametrize(("share", "count"), [(0.0, 1), (0.2, 1), (0.5, 2), (0.8, 3), (1.0, 4)])
def test_a_warm_start_reads_rows_of_the_richest_domains_only(
    share: float, count: int, laboratory: Laboratory, steps: list[tuple[Cohort, Batch]]
) -> None:
    laboratory.run(MEMBER.replace(warm_start=1.5, warm_share=share, epochs=1))
    domain_rows = laboratory.dataset.statistics.domain_rows
    richest = sorted(range(4), key=lambda d: -domain_rows[d])[:count]
    warm = [batch for cohort, batch in steps if cohort is steps[0][0]]
    assert set(torch.cat([batch.segments.domain for batch in warm]).tolist()) == set(richest)
    source = sum(domain_rows[d] for d in richest)
    assert 1.5 * source <= sum(map(len, warm)) < 1.5 * source + 64
    fitted = [batch for cohort, batch in steps if cohort is not steps[0][0]]
    assert sum(map(len, fitted)) == ROWS
    assert len({id(cohort) for cohort, _ in steps}) == 2


@pytest.mark.parametrize("retrain", ["scratch", "supernet"])
def test_trap_5_5_5_a_warm_start_hands_on_everything_but_the_normalisation(
    retrain: str, laboratory: Laboratory, fits: list[Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    warm: list[Cohort] = []
    starts: list[Tensor] = []
    inner = trial_module.train_rows

    def train(cohort: Cohort, *arguments: Any, **options: Any) -> None:
        starts.append(cohort.table.clone())
        inner(cohort, *arguments, **options)
        warm.append(cohort)

    monkeypatch.setattr(trial_module, "train_rows", train)
    changes: dict[str, Any] = {"architecture": "learn", "retrain": retrain} if retrain == "supernet" else {}
    candidate = MEMBER.replace(norm="batch", warm_start=1.0, sparsity=0.2, **changes)
    outcome = laboratory.run(candidate)
    (only,) = fits
    kept = warm[0].weights()
    given, start = warm[0].network.layout.views(kept.flat), only.cohort.network.layout.views(only.weights.flat)
    fresh = laboratory._cohort([outcome.candidate])
    drawn = fresh.network.layout.views(fresh.flat)
    for name, view in start.items():
        assert torch.equal(view, drawn[name] if ".norm." in name else given[name]), name
        assert ".norm." not in name or not torch.equal(given[name], view)
    assert torch.equal(only.weights.running, fresh.running)
    assert not torch.equal(kept.running, fresh.running)
    assert torch.equal(only.weights.table, kept.table)
    visited = search_rows(candidate, ROWS) if retrain == "supernet" else 0
    assert only.rows == visited + warm[0].rows
    assert outcome.fitted.rungs[0].rows == only.rows + ROWS
    assert torch.equal(starts[0], fresh.table) == (retrain == "scratch")


# snapshots


def test_rows_of_snapshots_count_whether_they_are_trained_or_kept(laboratory: Laboratory) -> None:
    candidate = MEMBER.replace(snapshots=3, warm_share=0.5)
    history = sum(sorted(laboratory.dataset.statistics.domain_rows)[2:])
    for changes, before in (
        ({}, 0),
        ({"pooling": "mean"}, 0),
        ({"architecture": "learn"}, search_rows(candidate, ROWS)),
    ):
        outcome = laboratory.run(candidate.replace(**changes))
        assert outcome.fitted.rungs[0].rows == history + before + ROWS
    assert len(list(laboratory.snapshots.iterdir())) == 1


def test_only_the_latest_derived_data_set_is_kept(laboratory: Laboratory) -> None:
    candidate = MEMBER.replace(snapshots=3)
    assert laboratory.reader(candidate.replace(snapshots=0)) is laboratory
    first = laboratory.reader(candidate)
    assert laboratory.reader(candidate.replace(width=16, seed=2)) is first
    gone = weakref.ref(first)
    assert first.splits.train.ids.data_ptr() == laboratory.splits.train.ids.data_ptr()
    del first
    second = laboratory.reader(candidate.replace(pooling="mean"))
    assert gone() is None
    assert second.dataset.statistics != laboratory.dataset.statistics


def test_snapshots_are_part_of_the_supernets_key_where_they_are_on(laboratory: Laboratory) -> None:
    learn = MEMBER.replace(**LEARN, epochs=1)
    for changes in ({}, {"pooling": "mean"}, {"warm_share": 0.9}):  # which have no effect
        laboratory.run(learn.replace(**changes))
    assert len(list(laboratory.supernets.iterdir())) == 1
    for count, changes in enumerate(({}, {"pooling": "mean"}, {"warm_share": 0.9}, {"snapshots": 3}), 2):
        laboratory.run(learn.replace(**{"snapshots": 2, **changes}))
        assert len(list(laboratory.supernets.iterdir())) == count


# sparsity


def test_the_closed_shares_of_an_outcome_are_counted_by_hand(laboratory: Laboratory) -> None:
    outcome = laboratory.run(MEMBER.replace(**METHODS["input pruner"], learning_rate=0.05))
    assert outcome.closed is not None
    assert list(outcome.closed) == ["x0", "D1", "D2"]
    cohort, valid = outcome.cohort, laboratory.splits.valid
    inner, seen = FusionNetwork._factors, {}

    def factors(network: FusionNetwork, weights: Any, name: str, h: Tensor, inputs: Any) -> Tensor:
        seen[name] = inner(network, weights, name, h, inputs)
        return seen[name]

    order = valid.domain.argsort(stable=True)
    batch = valid.batch(order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FusionNetwork, "_factors", factors)
        weights = cohort.weights()
        cohort.network.forward(weights.flat, weights.table, batch.ids, batch, progress=weights.progress)
    for name, shares in outcome.closed.items():
        zero = (seen[name][0] == 0).double().mean(1)
        counted = [float(zero[valid.domain[order] == d].mean()) for d in range(4)]
        assert shares == pytest.approx(counted, abs=1e-6)
    assert max(max(shares) for shares in outcome.closed.values()) > 0


# what the supernet learns


@pytest.mark.parametrize("learned", ["connections", "operators"])
@pytest.mark.parametrize("readout", ["hard", "soft", "drop"])
@pytest.mark.parametrize("retrain", ["scratch", "supernet"])
def test_what_is_not_learned_is_fixed(learned: str, readout: str, retrain: str, laboratory: Laboratory) -> None:
    candidate = MEMBER.replace(**LEARN, learned=learned, readout=readout, retrain=retrain, epochs=1)
    outcome = laboratory.run(candidate)
    wiring = outcome.candidate.wiring
    assert wiring is not None
    wanted = supernet_candidate(candidate, trial_module.derive(3, 0, "supernet"), len(laboratory.splits.train))
    supernet = laboratory._supernets([wanted], math.inf)[wanted]
    network = supernet.network
    names = set(network.architecture.weights)
    fresh = network.architecture.initial([0])
    assert not torch.equal(supernet.architecture, fresh)  # what is learned moves
    if learned == "connections":
        assert all(name.endswith(".gates") for name in names)
        assert not any(".concat." in name or ".attention." in name for name in network.layout.weights)
        assert all(node.operators == one_hot(ADD) for node in wiring.nodes)
    else:
        assert all(name.endswith(".operators") for name in names)
        assert all(all(node.open) for node in wiring.nodes)
        assert all(node.hard for node in wiring.nodes) == (readout != "soft")
    assert len(names) == 5
    assert all(any(node.open) for node in wiring.nodes)
    assert outcome.gap is not None
    if readout == "soft" or (learned == "connections" and readout == "hard"):
        assert outcome.gap.relaxed == pytest.approx(outcome.gap.discrete, abs=1e-4)


def test_what_is_learned_is_part_of_the_supernets_key(laboratory: Laboratory) -> None:
    for learned in ("both", "connections", "operators"):
        laboratory.run(MEMBER.replace(**LEARN, learned=learned, epochs=1))
    assert len(list(laboratory.supernets.glob("*.safetensors"))) == 3


def test_the_network_of_ones_is_the_supernet_that_learns_connections(laboratory: Laboratory) -> None:
    """All gates start open and every node adds: that is the ``full`` wiring."""
    found = supernet_candidate(MEMBER.replace(**LEARN, learned="connections"), 1, len(laboratory.splits.train))
    relaxed = laboratory._cohort([found])
    full = laboratory._cohort([found.replace(architecture="full", wiring=FIXED["full"](2))])
    views, sources = full.network.layout.views(full.flat), relaxed.network.layout.views(relaxed.flat)
    assert set(views) == set(sources)
    for name, view in views.items():
        view.copy_(sources[name])
    valid = laboratory.splits.valid
    torch.testing.assert_close(full.logits(valid), relaxed.logits(valid), rtol=0, atol=1e-6)
