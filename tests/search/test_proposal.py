"""Which candidate comes next: a function of (finished trials, seed, number) and of nothing else."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_study import write_space

from autoctr.errors import UserError
from autoctr.model.architecture import FIXED, Architecture
from autoctr.model.candidate import Candidate
from autoctr.search import proposal as proposal_module
from autoctr.search.baselines import without_methods
from autoctr.search.proposal import (
    METHOD_FIELDS,
    METHODS,
    Proposal,
    defaults,
    each_method,
    method_alone,
    plain,
    propose,
    startup_trials,
    switchable,
    tuning_space,
)
from autoctr.search.record import Direction, Record, winner_of
from autoctr.search.rungs import is_ahead, is_weak
from autoctr.search.seeds import derive
from autoctr.search.space import Space, load_space
from autoctr.search.study import Study


def ask(
    space: Space, records: list[Record], number: int, seed: int = 0, expected: int = 40, share: float = 1.0
) -> Proposal:
    return propose(space, records, number=number, seed=seed, direction="maximize", expected=expected, share=share)


def made(proposal: Proposal, number: int, value: float, state: str = "COMPLETE", **changes: Any) -> Record:
    candidate = proposal.candidate
    if candidate.wiring is None:
        candidate = candidate.replace(wiring=FIXED["full"](candidate.blocks))
    record = Record(
        number=number, state=state, value=value, candidate=candidate, values=proposal.values, rungs=((1000, value),),
        seconds=1.0, speed=1.0, valid=None, gap=None, closed=None, multiply_adds=None, kept=None,
        overlap=None, reason=None,
    )  # fmt: skip
    return dataclasses.replace(record, **changes)


def history(space: Space, count: int, seed: int = 0) -> list[Record]:
    """Trials whose values are drawn at random."""
    records: list[Record] = []
    for number in range(count):
        records.append(made(ask(space, records, number, seed), number, random.Random(number).random()))
    return records


@pytest.fixture(params=["joint", "plain"])
def space(request: pytest.FixtureRequest) -> Space:
    return load_space(request.param)


def test_proposals_depend_on_records_seed_and_number_alone(space: Space) -> None:
    records = history(space, 14)
    first = ask(space, records, 14)
    np.random.seed(1)
    torch.manual_seed(1)
    random.seed(1)
    assert ask(space, records, 14) == first
    assert ask(space, records, 14, seed=1) != first
    assert ask(space, records, 15) != first
    best = max(records, key=lambda record: record.value or 0)
    assert ask(space, [dataclasses.replace(r, value=0.0) if r is best else r for r in records], 14) != first


def test_a_proposal_is_as_stored(finished: Study) -> None:
    space = load_space(finished.settings.space)
    records = finished.records()
    for number in range(len(records)):
        again = ask(space, records[:number], number, finished.settings.seed, len(records), number / len(records))
        assert again.values == records[number].values
        assert again.candidate.replace(wiring=records[number].candidate.wiring) == records[number].candidate


def test_trial_0_is_the_plain_network_with_every_method_off(space: Space) -> None:
    candidate = ask(space, [], 0).candidate
    assert (candidate.rank, candidate.sparsity, candidate.architecture) == (0, 0, "parallel")
    assert candidate.wiring == FIXED["parallel"](2)
    defaults = Candidate(epochs=candidate.epochs, batch=candidate.batch, seed=candidate.seed, wiring=candidate.wiring)
    assert candidate == defaults
    assert plain(load_space("joint")) == plain(load_space("plain"))


def test_odd_trials_of_the_joint_space_have_one_method_on_each() -> None:
    space = load_space("joint")
    records, off = history(space, 10), plain(space)
    changes = []
    for number in (1, 3, 5, 7, 9):
        found = ask(space, records[:number], number).candidate.to_dict()
        ordinary = {**off.to_dict(), "seed": found["seed"], "search_epochs": 0.25, "ticket_epochs": 0.5}
        changes.append({name: value for name, value in found.items() if value != ordinary[name] and name != "wiring"})
    assert changes == [
        {"rank": 4},
        {"sparsity": 0.2},
        {"warm_start": 0.5, "snapshots": 4},
        {"keep_rate": 0.4},
        {"architecture": "learn"},
    ]
    later = ask(space, records, 11).candidate.to_dict()
    assert len([name for name, value in later.items() if value != off.to_dict()[name]]) > 4


def test_trial_1_stays_inside_a_space_without_the_defaults(tmp_path: Path) -> None:
    text = "vary: {width: {choices: [8, 16]}, epochs: {low: 20, high: 30}, dropout: {low: 0.5, high: 0.9}}"
    space = load_space(str(write_space(tmp_path, text)))
    (candidate,) = each_method(space)
    assert (candidate.width, candidate.epochs, candidate.dropout) == (8, 25, 0.7)
    assert space.within(candidate) == {"width": 8, "epochs": 25, "dropout": 0.7}
    assert space.within(plain(space)) == {}


def test_every_proposal_lies_in_the_space(space: Space) -> None:
    for record in history(space, 25)[1:]:
        assert space.within(record.candidate).keys() == space.vary.keys()
        assert space.within(record.candidate) == record.values
        assert record.candidate.seed == derive(0, 0, "weights")


@pytest.mark.parametrize(("expected", "random_ones"), [(0, 1), (4, 1), (8, 2), (12, 3), (40, 10), (1000, 10)])
def test_at_most_a_quarter_is_random(expected: int, random_ones: int) -> None:
    assert startup_trials(expected) == random_ones


def changed(values: dict[str, Any], start: dict[str, Any]) -> set[str]:
    return {name for name, value in values.items() if value != start[name]}


def test_start_up_changes_a_quarter_of_the_defaults() -> None:
    space = load_space("joint")
    start = space.within(plain(space))
    assert start.keys() == space.vary.keys()
    counts = [
        len(changed(ask(space, [], number, seed, 40).values, start)) for number in (2, 4, 6, 8, 10) for seed in (0, 1)
    ]
    assert all(counts)
    assert len(space.vary) / 6 < sum(counts) / len(counts) < len(space.vary) / 3


def test_after_start_up_the_best_is_changed_every_second_time() -> None:
    space = load_space("joint")
    records = history(space, 14)
    best = max(records, key=lambda record: record.value or 0)
    for number in (17, 21, 25):
        found = changed(ask(space, records, number).values, {**space.within(plain(space)), **best.values})
        assert 0 < len(found) <= len(space.vary) // 2
    # a sampler's proposal does not hang on the best alone
    apart = [changed(ask(space, records, number).values, best.values) for number in (14, 16, 18)]
    assert max(map(len, apart)) > len(space.vary) // 3


# what all methods share first, then the methods


def is_off(candidate: Candidate) -> bool:
    return candidate.effective() == without_methods(candidate)


def test_the_first_half_leaves_every_method_off_that_can_be() -> None:
    joint = load_space("joint")
    part = tuning_space(joint)
    assert part is not None
    own = {name for fields in METHOD_FIELDS.values() for name in fields}
    assert set(part.vary) == set(joint.vary) - own
    assert switchable(joint) == list(METHODS)
    records = history(joint, 11)
    for number in range(11, 26):
        proposal = ask(joint, records, number, share=number / 60)
        assert is_off(proposal.candidate)
        assert proposal.values.keys() == joint.vary.keys()
        assert joint.candidate(proposal.values) == proposal.candidate.replace(wiring=None, seed=0)
        records.append(made(proposal, number, random.Random(number).random()))
    later = [ask(joint, records, number, share=0.5) for number in range(26, 38)]
    assert not all(is_off(proposal.candidate) for proposal in later)


def test_the_first_half_does_not_see_trials_with_a_method() -> None:
    joint = load_space("joint")
    records = [made(ask(joint, [], number), number, 0.5 + 0.4 * (number == 9)) for number in range(11)]
    assert not is_off(records[9].candidate)
    seen = [record for record in records if is_off(record.candidate)]
    for number in (12, 13):
        assert ask(joint, records, number, share=0.1) == ask(joint, seen, number, share=0.1)
        assert ask(joint, records, number) != ask(joint, seen, number)


@pytest.mark.parametrize("name", ["plain", "mlora", "adasparse", "lt4rec", "ecdctr"])
def test_a_space_without_both_has_no_first_half(name: str) -> None:
    space = load_space(name)
    assert tuning_space(space) is None
    records = history(space, 9)
    assert ask(space, records, 10, share=0.0) == ask(space, records, 10)


def test_a_method_of_the_best_is_switched_or_drawn_anew() -> None:
    joint = load_space("joint")
    records = history(joint, 14)
    best = max(records, key=lambda record: record.value or 0)
    start = {**joint.within(plain(joint)), **best.values}
    methods = set()
    for seed in range(30):
        found = changed(ask(joint, records, 15, seed).values, start)
        touched = {method for method, fields in METHOD_FIELDS.items() if set(found) & set(fields)}
        assert len(touched) == 1 or not found
        assert set(found) <= {name for method in touched for name in METHOD_FIELDS[method]}
        methods |= touched
    assert methods == set(METHODS)


# nothing is trained twice


def genes(candidate: Candidate) -> Candidate:
    """What decides a candidate's score: its effective fields, and of a learned wiring only that it is learned."""
    candidate = candidate.effective()
    return candidate.replace(wiring=None) if candidate.architecture == "learn" else candidate


def trained(proposal: Proposal, number: int) -> Record:
    """A finished trial as a study remembers it, with a score that is a function of its genes."""
    score = random.Random(genes(proposal.candidate).canonical()).random()
    return made(proposal, number, score)


def asked(space: Space, count: int, seed: int = 0) -> list[Record]:
    records: list[Record] = []
    for number in range(count):
        records.append(trained(ask(space, records, number, seed), number))
    return records


FEW_CHOICES = """\
fix: {epochs: 20}
vary:
  width: {choices: [8, 16, 32]}
  rank: {choices: [0, 4]}
  rank_tilt: {choices: [-1, 0, 1]}
  keep_rate: {choices: [1, 0.5]}
  ticket_unit: {choices: [domain, network]}
  warm_start: {choices: [0, 1]}
  warm_share: {choices: [0.2, 0.5]}
  sparsity: {choices: [0, 0.2]}
  architecture: {choices: [parallel, learn]}
  readout: {choices: [hard, soft]}
"""


@pytest.mark.parametrize("seed", [0, 1])
def test_no_proposal_repeats_what_is_finished(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = FEW_CHOICES + "  learning_rate: {low: 1e-3, high: 1e-2, log: true}\n"
    space = load_space(str(write_space(tmp_path, text)))
    records = asked(space, 40, seed)
    assert len({genes(record.candidate) for record in records}) == 40
    # which is due to drawing again
    monkeypatch.setattr(proposal_module, "ATTEMPTS", 1)
    assert len({genes(record.candidate) for record in asked(space, 40, seed)}) < 40


def test_no_proposal_repeats_what_is_finished_in_a_space_of_choices_alone(tmp_path: Path) -> None:
    """Of 648 candidates, 40."""
    space = load_space(str(write_space(tmp_path, FEW_CHOICES)))
    assert len({genes(record.candidate) for record in asked(space, 40)}) == 40


def test_a_change_of_the_best_changes_something(tmp_path: Path) -> None:
    space = load_space(str(write_space(tmp_path, FEW_CHOICES)))
    values = space.within(defaults(space))
    for seed in range(40):
        assert changed(proposal_module._changed(space, values, 1 / 6, random.Random(seed)), values)


@pytest.mark.parametrize("name", ["joint", "lt4rec", "ecdctr", "optfusion"])
def test_no_proposal_of_a_shipped_space_repeats_what_is_finished(name: str) -> None:
    records = asked(load_space(name), 40)
    assert len({genes(record.candidate) for record in records}) == 40


def test_failed_and_pruned_trials_are_not_tried_again_either(tmp_path: Path) -> None:
    space = load_space(str(write_space(tmp_path, "vary: {width: {choices: [8, 16, 32, 64]}}")))
    records: list[Record] = []
    for number in range(5):  # the plain network, whose width is none of them, and the four
        state = ["COMPLETE", "FAIL", "PRUNED", "COMPLETE", "FAIL"][number]
        records.append(made(ask(space, records, number), number, 0.5, state))
    assert {record.candidate.width for record in records} == {128, 8, 16, 32, 64}
    assert ask(space, records, 5).candidate.width in (8, 16, 32, 64)  # nothing else is left


def test_a_redrawn_proposal_is_a_function_of_the_records_too(tmp_path: Path) -> None:
    space = load_space(str(write_space(tmp_path, FEW_CHOICES)))
    records = asked(space, 20)
    for number in range(20, 24):
        assert ask(space, records, number) == ask(space, records, number)


def test_a_truncated_trial_is_remembered_as_what_was_asked_for() -> None:
    wanted = Candidate(rank=4, truncate=True, wiring=FIXED["parallel"](2))
    # what a trial makes of it
    finished = wanted.replace(domain_ranks=(1, 4, 0, 2), truncate=False)
    assert proposal_module.genes(finished) == proposal_module.genes(wanted)
    assert proposal_module.genes(finished) != proposal_module.genes(wanted.replace(truncate=False))


WITHOUT_EFFECT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the rank, where the rule gives it": ({"rank_divisor": 16}, {"rank": 8}),
    "the level of a form that closes nothing": ({"sparsity": 0.2, "sparsity_form": "scaling"}, {"sparsity": 0.4}),
    "its tilt": ({"sparsity": 0.2, "sparsity_form": "scaling"}, {"sparsity_tilt": 1.0}),
    "its steepness": ({"sparsity": 0.2, "sparsity_form": "scaling"}, {"sparsity_alpha": 2.0}),
    "its threshold": ({"sparsity": 0.2, "sparsity_form": "scaling"}, {"sparsity_epsilon": 0.05}),
    "the height of a form of ones": ({"sparsity": 0.2, "sparsity_form": "binarization"}, {"sparsity_beta": 3.0}),
    "experts without experts": ({}, {"experts": 8}),
}


@pytest.mark.parametrize("case", WITHOUT_EFFECT)
def test_a_field_without_effect_does_not_make_another_candidate(case: str) -> None:
    settings, change = WITHOUT_EFFECT[case]
    one = Candidate(**settings)
    assert one.replace(**change).effective() == one.effective()


# fields that do not go together


def test_fields_that_do_not_go_together_are_drawn_again(tmp_path: Path) -> None:
    text = """\
fix: {epochs: 20}
vary:
  backbone: {choices: [fusion, mmoe, star]}
  rank: {choices: [0, 4]}
  sparsity: {choices: [0, 0.2]}
  ticket_unit: {choices: [domain, task]}
  keep_rate: {choices: [1, 0.5]}
  norm: {choices: [none, batch]}
  width: {choices: [8, 16, 32, 64]}
"""
    space = load_space(str(write_space(tmp_path, text)))
    records = asked(space, 30)
    candidates = [record.candidate for record in records[2:]]
    assert "fusion" in {candidate.backbone for candidate in candidates}
    assert {candidate.backbone for candidate in candidates} & {"mmoe", "star"}
    for candidate, record in zip(candidates, records[2:], strict=True):
        assert space.within(candidate) == record.values
        assert candidate.backbone == "fusion" or not (candidate.rank or candidate.sparsity)
    # some draws were not legal
    draws = random.Random(0)
    illegal = 0
    for _ in range(50):
        try:
            space.candidate({name: part.draw(draws) for name, part in space.vary.items()})
        except ValueError:
            illegal += 1
    assert illegal > 10


def test_fields_that_never_go_together_are_a_users_error(tmp_path: Path) -> None:
    text = "fix: {ticket_unit: task, keep_rate: 0.4}\nvary: {norm: {choices: [batch]}}"
    space = load_space(str(write_space(tmp_path, text)))
    with pytest.raises(UserError, match=r"small.* do not go together"):
        ask(space, [], 2)


@pytest.mark.parametrize(
    "text",
    [
        "fix: {epochs: 3}\nvary: {keep_rate: {choices: [1, 0.5]}}",  # 4 rounds of a pass do not fit
        "fix: {backbone: mmoe}\nvary: {rank: {choices: [0, 4]}}",
        "fix: {norm: batch, ticket_unit: task}\nvary: {keep_rate: {choices: [1, 0.5]}}",
    ],
    ids=["rounds", "backbone", "task"],
)
def test_trial_1_leaves_off_what_does_not_go_together(tmp_path: Path, text: str) -> None:
    space = load_space(str(write_space(tmp_path, text)))
    candidate = ask(space, [], 1).candidate
    assert (candidate.rank, candidate.keep_rate) == (0, 1)


def test_a_method_alone_is_known_as_such() -> None:
    space = load_space("joint")
    off = plain(space)
    alone = each_method(space)
    assert [method_alone(candidate, off) for candidate in alone] == list(METHODS)
    found = alone[-1].replace(wiring=FIXED["full"](2))
    assert method_alone(found, off) == "optfusion"
    assert method_alone(alone[0].replace(rank=16, rank_tilt=1.0, domain_ranks=(1, 2)), off) == "mlora"
    for other in (off, off.replace(dropout=0.3), alone[0].replace(sparsity=0.2), alone[0].replace(dropout=0.3)):
        assert method_alone(other, off) is None


@pytest.mark.parametrize("name", ["optfusion", "adasparse", "mlora", "lt4rec", "ecdctr"])
def test_the_space_of_one_method_has_it_on_in_trial_1(name: str) -> None:
    space = load_space(name)
    assert len(each_method(space)) == 1
    assert ask(space, history(space, 1), 1).candidate.effective() != ask(space, [], 0).candidate.effective()


# inheriting


def distance(one: Architecture, other: Architecture) -> int:
    """Connections and operators in which two architectures differ."""
    return sum(
        sum(a != b for a, b in zip(left.open, right.open, strict=True)) + (left.operators != right.operators)
        for left, right in zip(one.nodes, other.nodes, strict=True)
    )


def inheriting(folder: Path, blocks: int) -> Space:
    text = f"fix: {{architecture: inherit, blocks: {blocks}}}\nvary: {{rank: {{choices: [0, 2]}}}}"
    return load_space(str(write_space(folder, text)))


def inherited(space: Space, records: list[Record], seed: int) -> Candidate:
    return ask(space, records, len(records), seed).candidate


def test_inherit_changes_one_thing_of_the_best_with_as_many_blocks(tmp_path: Path) -> None:
    space = inheriting(tmp_path, 2)
    other_size = made(Proposal(Candidate(blocks=3, wiring=FIXED["full"](3)), {}), 0, 0.9)
    worse = made(Proposal(Candidate(blocks=2, wiring=FIXED["parallel"](2)), {}), 1, 0.5)
    best = made(Proposal(Candidate(blocks=2, wiring=FIXED["full"](2)), {}), 2, 0.8)
    records = [other_size, worse, best]
    seen = set()
    for seed in range(20):
        wiring = inherited(space, records, seed).wiring
        assert wiring is not None
        assert distance(wiring, FIXED["full"](2)) == 1
        seen.add(wiring)
    assert len(seen) > 10


def test_inherit_tries_nothing_twice(tmp_path: Path) -> None:
    space = inheriting(tmp_path, 1)
    records = [made(Proposal(Candidate(blocks=1, wiring=FIXED["parallel"](1)), {}), 0, 0.9)]
    neighbours = {option.effective() for option in FIXED["parallel"](1).neighbours()} - {FIXED["parallel"](1)}
    for number in range(1, len(neighbours) + 1):
        candidate = inherited(space, records, 0)
        assert candidate.wiring is not None
        tried = {record.candidate.wiring.effective() for record in records if record.candidate.wiring}
        assert candidate.wiring.effective() not in tried
        records.append(made(Proposal(candidate, {"rank": 0}), number, 0.1))
    assert inherited(space, records, 0).wiring is not None


def test_without_a_parent_inherit_starts_from_the_parallel_network(tmp_path: Path) -> None:
    space = inheriting(tmp_path, 3)
    wiring = inherited(space, history(space, 2), 0).wiring
    assert wiring is not None
    assert wiring.blocks == 3


def reached(*values: float, rows: int = 4000, state: str = "COMPLETE") -> list[Record]:
    proposal = Proposal(Candidate(), {})
    return [made(proposal, n, value, state, rungs=((1000, 0.0), (rows, value))) for n, value in enumerate(values)]


def test_weak_is_below_the_median_at_as_many_rows() -> None:
    others = reached(0.5, 0.6, 0.7, 0.8, 0.9)
    assert is_weak(4000, 0.65, others, 1000, "maximize")
    assert not is_weak(4000, 0.7, others, 1000, "maximize")
    assert is_weak(4000, 0.55, others[:4], 1000, "maximize")
    assert not is_weak(4000, 0.65, others[:4], 1000, "maximize")
    others = [dataclasses.replace(record, rungs=record.rungs[1:]) for record in others]
    assert is_weak(4000, 0.75, others, 1000, "minimize")
    assert not is_weak(4000, 0.7, others, 1000, "minimize")


def test_ahead_is_above_what_the_best_had_after_as_many_rows() -> None:
    proposal = Proposal(Candidate(), {})
    curves = [((1000, 0.50), (2000, 0.80)), ((1000, 0.70), (2000, 0.75)), ((1000, 0.90),)]
    states = ["COMPLETE", "COMPLETE", "PRUNED"]
    others = [made(proposal, n, curves[n][-1][1], states[n], rungs=curves[n]) for n in range(3)]
    assert is_ahead(1000, 0.51, others, "maximize")  # the best is the first
    assert not is_ahead(1000, 0.50, others, "maximize")
    assert not is_ahead(3000, 0.80, others, "maximize")
    assert is_ahead(500, 0.0, others, "maximize")  # before its first score
    assert is_ahead(1000, 0.69, others, "minimize")
    assert not is_ahead(1000, 0.70, others, "minimize")
    running = [dataclasses.replace(record, state="RUNNING") for record in others]
    assert is_ahead(1000, 0.91, running, "maximize")
    assert not is_ahead(1000, 0.90, running, "maximize")
    assert is_ahead(1000, 0.0, [], "maximize")


def test_weak_is_asked_at_doubling_rungs_and_with_enough_others_only() -> None:
    others = reached(0.5, 0.6, 0.7, 0.8, 0.9, rows=1000)
    asked = [passes for passes in range(1, 20) if is_weak(1000 * passes, 0.0, others, 1000, "maximize")]
    assert asked == [2, 4, 8, 16]
    assert not is_weak(4000, 0.0, others[:1], 1000, "maximize")
    assert is_weak(4000, 0.0, others[:2], 1000, "maximize")
    # trials that were stopped earlier do not count, those that finished earlier do
    assert not is_weak(4000, 0.0, reached(*[0.5] * 9, rows=2000, state="PRUNED"), 1000, "maximize")
    assert is_weak(4000, 0.0, reached(*[0.5] * 9, rows=2000), 1000, "maximize")


def test_what_others_reached_later_does_not_count() -> None:
    others = [dataclasses.replace(r, rungs=((2000, 0.3), (9000, 0.9))) for r in reached(*[0.9] * 5)]
    assert not is_weak(2000, 0.4, others, 1000, "maximize")
    assert is_weak(2000, 0.2, others, 1000, "maximize")


def test_trial_1_is_not_trial_0_again() -> None:
    """The plain space has no method to switch on."""
    space = load_space("plain")
    records = [made(ask(space, [], 0), 0, 0.5)]
    assert genes(ask(space, records, 1).candidate) != genes(records[0].candidate)


@pytest.mark.parametrize(
    ("direction", "values", "leads", "winner"),
    [
        ("maximize", (0.7, 0.71, 0.72), ((0.001, 0.02), (-0.001, 0.04)), 1),
        ("maximize", (0.7, 0.71, 0.72), ((0.001, 0.02), (0.001, 0.04)), 2),
        ("maximize", (0.7, 0.71, 0.72), (None, (0.0, 0.04)), 0),
        ("maximize", (0.7, 0.6, 0.72), ((0.001, 0.02), None), 0),
        ("minimize", (0.5, 0.49, 0.48), ((0.001, 0.02), (-0.001, 0.04)), 1),
    ],
)
def test_trial_0_wins_where_no_lead_over_it_is_clear(
    direction: Direction, values: tuple[float, ...], leads: tuple[tuple[float, float] | None, ...], winner: int
) -> None:
    proposal = ask(load_space("plain"), [], 0)
    records = [made(proposal, n, v, lead=lead) for n, (v, lead) in enumerate(zip(values, (None, *leads), strict=True))]
    records.append(made(proposal, 3, 0.0, "FAIL"))
    found = winner_of(records, direction)
    assert found is not None
    assert found.number == winner
    without = winner_of(records[1:], direction)
    assert without is not None
    assert without.value == (max if direction == "maximize" else min)(values[1:])
    assert winner_of(records[3:], direction) is None
