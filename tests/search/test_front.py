"""Trials of which no other is both cheaper and better: how they are found, searched, kept, shown and exported."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_study import SHORT_SUPERNETS, autoctr, remembered, search_small, write_space

from autoctr.cli import cli
from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.architecture import FIXED
from autoctr.model.candidate import Candidate
from autoctr.report import study_text, trial_text
from autoctr.search import proposal as proposal_module
from autoctr.search.deliver import export
from autoctr.search.front import NOISE, chosen, cost_of, find_trial, front, read_objectives, spread
from autoctr.search.proposal import propose
from autoctr.search.record import Record, winner_of
from autoctr.search.run import load_study, resume
from autoctr.search.rungs import is_weak, rivals, weakest
from autoctr.search.seeds import derive
from autoctr.search.space import Space, load_space
from autoctr.search.study import Settings, Study, differences, fingerprint
from autoctr.search.summary import summary
from autoctr.search.trial import Laboratory
from autoctr.training.metrics import METRICS
from search.test_resume import _DYING, MOMENTS, arguments

SPACE = """\
fix: {epochs: 3, batch: 512}
vary:
  width: {choices: [8, 16, 32, 64, 128]}
  rank: {choices: [0, 2, 4]}
  blocks: {choices: [1, 2, 3]}
  learning_rate: {low: 1e-3, high: 1e-2, log: true}
  dropout: {low: 0.0, high: 0.5}
"""
#: Width, rank, blocks, learning rate and dropout of trials, their state and score.
STORED: list[tuple[int, int, int, float, float, str, float]] = [
    (128, 0, 2, 0.003, 0.2, "COMPLETE", 0.68444),
    (128, 4, 2, 0.003, 0.2, "COMPLETE", 0.61344),
    (32, 0, 1, 0.003, 0.2, "COMPLETE", 0.6956),
    (64, 0, 2, 0.003, 0.2, "COMPLETE", 0.6238),
    (32, 0, 1, 0.0033125355108414413, 0.2, "PRUNED", 0.6236),
    (128, 4, 2, 0.003, 0.499023697786175, "COMPLETE", 0.66229),
    (128, 0, 2, 0.0066944460253526945, 0.2, "COMPLETE", 0.67933),
    (128, 0, 2, 0.009246911002628297, 0.2, "COMPLETE", 0.63238),
    (128, 2, 1, 0.003, 0.2, "COMPLETE", 0.62267),
    (32, 0, 2, 0.003, 0.08739713865331061, "COMPLETE", 0.6463),
    (32, 0, 3, 0.007333249031168699, 0.2, "FAIL", 0.65714),
    (128, 0, 2, 0.003, 0.47880660824963944, "COMPLETE", 0.64524),
    (64, 0, 1, 0.005076146031310945, 0.08924361604933839, "COMPLETE", 0.64746),
    (32, 2, 1, 0.003, 0.2, "COMPLETE", 0.6259),
]
#: What version 661e035 proposed after them as trials 14, 15, ..., and as trial 14 of the first half of a study.
PROPOSED: list[tuple[int, int, int, float, float]] = [
    (128, 0, 2, 0.0012077738562288266, 0.15219913559416418),
    (32, 0, 1, 0.003, 0.43413663529504454),
    (16, 0, 2, 0.0015294697167052894, 0.20845241113290364),
    (8, 0, 1, 0.003, 0.2),
    (32, 0, 3, 0.0010897407036638185, 0.24396151276734523),
    (32, 4, 1, 0.003, 0.2),
]
IN_FIRST_HALF = (32, 0, 1, 0.0011649239061215122, 0.4403092734528355)
FIELDS = ("width", "rank", "blocks", "learning_rate", "dropout")


def record(number: int, value: float | None, cost: float | None = None, **changes: Any) -> Record:
    """A finished trial of that score and multiply-adds."""
    made = Record(
        number=number, state="COMPLETE", value=value, candidate=Candidate(), values={}, rungs=((1000, value or 0.0),),
        seconds=1.0, speed=1.0, valid=None, gap=None, closed=None, kept=None, overlap=None, reason=None,
        multiply_adds=None if cost is None else {"dense": 2 * cost, "open": [cost / 2, cost]}, cost=cost,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def numbers(records: Sequence[Record]) -> list[int]:
    return [record.number for record in records]


def stored(space: Space) -> list[Record]:
    """The stored trials; what they cost goes with their width."""
    records = []
    for number, (*values, state, score) in enumerate(STORED):
        given = dict(zip(FIELDS, values, strict=True))
        made = record(number, score, float(given["width"]), state=state, values=given, feasible=state != "FAIL")
        records.append(dataclasses.replace(made, candidate=candidate(space, given)))
    return records


def candidate(space: Space, values: dict[str, Any]) -> Candidate:
    found = space.candidate(values).replace(seed=derive(5, 0, "weights"))
    return found.replace(wiring=FIXED["parallel"](found.blocks))


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return load_space(str(write_space(tmp_path_factory.mktemp("space"), SPACE)))


def ask(space: Space, records: Sequence[Record], number: int, **options: Any) -> dict[str, Any]:
    found = propose(space, records, number=number, seed=5, direction="maximize", expected=40, **options)
    assert found is not None
    return found.values


# the front


def test_no_other_trial_is_as_good_and_cheaper_or_as_cheap_and_better() -> None:
    draw = random.Random(0)
    records = [record(n, round(draw.random(), 1), float(draw.randrange(12))) for n in range(60)]
    records += [record(60, None, 0.0), record(61, 2.0), record(62, 2.0, 0.0, state="PRUNED")]
    for direction, sign in (("maximize", 1), ("minimize", -1)):
        found = front(records, direction, "madds")  # type: ignore[arg-type]
        points = {(cost_of(r, "madds"), r.value): r for r in reversed(records[:60])}
        wanted = [
            own
            for (cost, value), own in points.items()
            if not any(c <= cost and sign * v >= sign * value and (c, v) != (cost, value) for c, v in points)  # type: ignore[operator]
        ]
        assert sorted(numbers(found)) == sorted(numbers(wanted))
        costs = [cost_of(r, "madds") or 0.0 for r in found]
        assert costs == sorted(costs)
        draw.shuffle(records)
        assert front(records, direction, "madds") == found  # type: ignore[arg-type]
        records.sort(key=lambda r: r.number)


def test_costs_are_read_from_the_trained_network() -> None:
    one = record(1, 0.5, 70.0, parameters=9, latency=0.25)
    assert [cost_of(one, name) for name in ("madds", "parameters", "latency")] == [70.0, 9, 0.25]
    assert [cost_of(record(1, 0.5), name) for name in ("madds", "parameters", "latency")] == [None, None, None]


def test_the_named_members() -> None:
    plain = record(0, 0.700, 100.0)
    others = [record(n, value, cost) for n, (value, cost) in enumerate([(0.60, 10), (0.6995, 30), (0.71, 90)], 1)]
    members = front([plain, *others], "maximize", "madds")
    assert numbers(members) == [1, 2, 3]
    named = chosen([plain, *others], members, "maximize", "madds")
    assert {name: member.number for name, member in named.items()} == {"fastest": 2, "knee": 2, "best": 3}
    # where the interval of its lead was measured, that decides
    others[1] = dataclasses.replace(others[1], lead=(-0.02, -0.001))
    assert (
        chosen([plain, *others], front([plain, *others], "maximize", "madds"), "maximize", "madds")["fastest"]
        == (others[2])
    )
    others[0] = dataclasses.replace(others[0], lead=(-0.02, 0.001))
    assert (
        chosen([plain, *others], front([plain, *others], "maximize", "madds"), "maximize", "madds")["fastest"]
        == (others[0])
    )
    # a score may be below by the noise of a seed
    low, lower = record(1, 0.7 - 0.9 * NOISE, 20.0), record(1, 0.7 - 1.1 * NOISE, 20.0)
    assert chosen([plain, low], [low, plain], "maximize", "madds")["fastest"] == low
    assert chosen([plain, lower], [lower, plain], "maximize", "madds")["fastest"] == plain
    assert chosen([plain, low], [low, plain], "maximize", "madds")["knee"] == low
    # logloss counts from above
    losses = [record(0, 0.5, 90.0), record(1, 0.5 + 2 * NOISE, 20.0), record(2, 0.5 + NOISE / 2, 40.0)]
    members = front(losses, "minimize", "madds")
    assert numbers(members) == [1, 2, 0]
    named = chosen(losses, members, "minimize", "madds")
    assert (named["fastest"].number, named["best"].number) == (2, 0)
    assert chosen(losses, [], "minimize", "madds") == {}
    alone = chosen([record(3, 0.5, 1.0)], [record(3, 0.5, 1.0)], "maximize", "madds")
    assert {member.number for member in alone.values()} == {3}


def test_the_knee_is_farthest_above_the_line_between_the_ends() -> None:
    costs, scores = [10.0, 20.0, 40.0, 60.0, 110.0], [0.5, 0.58, 0.62, 0.64, 0.7]
    members = [record(n, score, cost) for n, (cost, score) in enumerate(zip(costs, scores, strict=True))]

    def distance(n: int) -> float:
        x, y = (costs[n] - 10) / 100, (scores[n] - 0.5) / 0.2
        return (y - x) / 2**0.5

    wanted = max(range(5), key=distance)
    assert wanted == 1 or distance(wanted) > distance(1)
    assert chosen(members, members, "maximize", "madds")["knee"].number == wanted
    below = [record(0, 0.5, 0.0), record(1, 0.51, 90.0), record(2, 0.7, 100.0)]
    assert chosen(below, below, "maximize", "madds")["knee"].number == 0


def test_members_are_spread_over_their_costs() -> None:
    members = [record(n, n / 100, cost) for n, cost in enumerate([10.0, 11.0, 100.0, 1000.0, 1050.0, 10000.0])]
    assert spread(members, 6, "madds") == members
    assert numbers(spread(members, 4, "madds")) in ([0, 2, 3, 5], [0, 2, 4, 5])
    assert numbers(spread(members, 4, "madds", stay={1, 4})) == [0, 1, 4, 5]
    assert numbers(spread(members, 2, "madds")) == [0, 5]
    assert numbers(spread(members, 1, "madds")) == [0, 5]


# early stopping


def test_a_cheap_trial_is_not_stopped_by_dear_ones() -> None:
    dear = [record(n, 0.7, 100.0, rungs=((2000, 0.7),)) for n in (0, 1, 2)]
    cheap = [record(n, 0.6, 10.0, rungs=((2000, 0.6),)) for n in (3, 4)]
    own = record(5, 0.61, 20.0, rungs=((2000, 0.61),))
    records = [*dear, *cheap, own]

    def weak(value: float, *, by_cost: bool, among: list[Record] = records) -> bool:
        return is_weak(2000, value, rivals(5, among, by_cost=by_cost), 1000, "maximize")

    assert weak(0.61, by_cost=False)
    assert not weak(0.61, by_cost=True)
    assert weak(0.59, by_cost=True)
    assert not weak(0.59, by_cost=True, among=[*dear, cheap[0], own])  # beside fewer than two
    equal = dataclasses.replace(own, number=6, value=0.62, rungs=((2000, 0.62),))
    assert weak(0.59, by_cost=True, among=[*dear, cheap[0], equal, own])
    assert rivals(5, records, by_cost=False) == [*dear, *cheap]
    unknown = dataclasses.replace(own, cost=None)
    assert rivals(5, [*dear, *cheap, unknown], by_cost=True) == []


def test_the_weakest_of_too_many_is_the_one_that_most_no_dearer_ones_beat() -> None:
    records = [record(0, 0.60, 1.0), record(1, 0.65, 5.0), record(2, 0.64, 9.0), record(3, 0.66, 7.0)]
    assert weakest(records, "maximize", by_cost=False).number == 0
    assert weakest(records, "maximize", by_cost=True).number == 2
    assert weakest(records, "minimize", by_cost=False).number == 3
    assert weakest([record(0, 0.5, 1.0), record(1, 0.5, 1.0)], "maximize", by_cost=True).number == 1


# proposals


def test_with_one_objective_the_proposals_are_what_they_were(space: Space) -> None:
    records = stored(space)
    for number, values in enumerate(PROPOSED, len(records)):
        assert ask(space, records, number) == pytest.approx(dict(zip(FIELDS, values, strict=True)), rel=1e-6)
    wanted = dict(zip(FIELDS, IN_FIRST_HALF, strict=True))
    assert ask(space, records, 14, share=0.2) == pytest.approx(wanted, rel=1e-6)


def test_with_two_objectives_changes_are_of_a_random_member_of_the_front(space: Space) -> None:
    records = stored(space)
    records[12] = dataclasses.replace(records[12], multiply_adds={"dense": 4, "open": [4]})
    members = front(records, "maximize", "madds")
    assert len(members) > 1
    nearest = set()
    for number in range(15, 95, 2):
        if number % 4 == 3:
            continue
        found = ask(space, records, number, cost="madds")
        assert found == ask(space, records, number, cost="madds")
        apart = {r.number: sum(found[name] != r.values[name] for name in FIELDS) for r in members}
        nearest.add(min(apart, key=lambda n: apart[n]))
        assert min(apart.values()) <= 3
    assert nearest == set(numbers(members))


def test_with_two_objectives_the_sampler_learns_what_is_cheap(space: Space) -> None:
    """Two widths alike in score: the narrow one is proposed more often."""
    draw, records = random.Random(1), list[Record]()
    template = stored(space)[0]
    for n in range(40):
        values = {**template.values, "width": draw.choice([8, 16, 32, 64, 128]), "dropout": draw.random() / 2}
        cost = float(values["width"]) ** 2
        made = record(n, 0.6 + draw.random() / 1000, cost, values=values, state="PRUNED" if n % 7 == 3 else "COMPLETE")
        records.append(dataclasses.replace(made, candidate=candidate(space, values)))
    widths = {
        cost: [ask(space, records, number, cost=cost)["width"] for number in range(40, 80, 2)]
        for cost in (None, "madds")
    }
    assert sum(widths["madds"]) < sum(widths[None]) / 2


def test_a_trial_of_unknown_cost_is_told_without_a_score(space: Space) -> None:
    distributions = {name: part.distribution() for name, part in space.vary.items()}
    known, unknown = stored(space)[0], dataclasses.replace(stored(space)[0], multiply_adds=None)
    assert proposal_module._told(known, distributions, "madds", {}).values == [0.68444, 128.0]
    told = proposal_module._told(unknown, distributions, "madds", {})
    assert (told.state.name, told.values, told.intermediate_values) == ("PRUNED", None, {})


# options


def test_objectives_are_a_metric_and_a_cost() -> None:
    assert read_objectives(None, None, METRICS) == ("wauc", None)
    assert read_objectives(None, "auc", METRICS) == ("auc", None)
    assert read_objectives("logloss, latency", None, METRICS) == ("logloss", ("logloss", "latency"))
    assert read_objectives(("auc", "madds"), "auc", METRICS) == ("auc", ("auc", "madds"))
    for bad in ("wauc", "madds,wauc", "wauc,flops", "wauc,madds,latency", ""):
        with pytest.raises(UserError, match=r"legal is a metric \(wauc, auc, logloss\) and a cost \(madds, parameters"):
            read_objectives(bad, None, METRICS)
    with pytest.raises(UserError, match="the first objective is auc, but the metric is wauc; name one of them"):
        read_objectives("auc,madds", "wauc", METRICS)


def test_the_fingerprint_covers_objectives_and_protected_domains(space: Space) -> None:
    plain = Settings({}, "s", "wauc", 0, "cpu", 1, None)
    both = dataclasses.replace(plain, objectives=("wauc", "madds"), protect=("a", "b"))
    before, now = (fingerprint(settings, space, "key") for settings in (plain, both))
    assert {"objectives", "protect"} & before.keys() == set()
    assert differences(before, now) == [
        'objectives was absent and is now ["wauc", "madds"]',
        'protect was absent and is now ["a", "b"]',
    ]


def test_a_study_of_other_objectives_is_not_joined(space_file: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'all.db'}"
    search_small(tmp_path, space_file, trials=1, storage=storage)
    with pytest.raises(UserError, match=r'objectives was absent and is now \["wauc", "madds"\]'):
        search_small(tmp_path, space_file, trials=1, storage=storage, objectives="wauc,madds")


# whole studies


@pytest.fixture(scope="module")
def sizes(shared: Path) -> Path:
    """A space whose networks cost more and less."""
    text = (
        "fix: {epochs: 3, batch: 512, embedding: 4}\nvary:\n  width: {choices: [8, 16, 32]}\n"
        "  rank: {choices: [0, 2]}\n  blocks: {choices: [1, 2]}\n  learning_rate: {low: 2e-3, high: 2e-2, log: true}\n"
    )
    return write_space(shared, text, "sizes")


@pytest.fixture(scope="module")
def searched(shared: Path, sizes: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of two objectives; look at it, but do not run it."""
    from search.conftest import make_small

    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, shared)
        return search_small(tmp_path_factory.mktemp("front"), sizes, trials=9, objectives="wauc,madds")


def test_a_study_of_two_objectives_that_is_killed_ends_as_one_that_was_not(
    searched: Study, sizes: Path, tmp_path: Path
) -> None:
    words = arguments(tmp_path, sizes, trials=9, objectives="wauc,madds")
    killed = autoctr(*words, before=SHORT_SUPERNETS + _DYING + MOMENTS["between rungs"])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(load_study("s", root=tmp_path).records()) == 4
    study = resume("s", root=tmp_path)
    assert study.settings == searched.settings
    assert remembered(study) == remembered(searched)
    assert study.kept() == searched.kept()
    assert summary(study)["front"] == summary(searched)["front"]


def test_its_trials_know_what_they_cost_before_they_are_trained(searched: Study) -> None:
    records = searched.records()
    assert all(r.cost == (r.multiply_adds or {})["dense"] for r in records if r.state == "COMPLETE")
    assert all(r.cost is not None for r in records if r.state in ("COMPLETE", "PRUNED"))


def test_the_weights_and_leads_of_its_front_are_there(searched: Study) -> None:
    records = searched.records()
    members = searched.front(records)
    assert members == front(records, "maximize", "madds")
    assert len(members) > 1
    assert set(numbers(members)) <= set(searched.kept())
    assert all(member.lead is not None for member in members if member.number > 0)
    assert searched.best() == winner_of(records, "maximize")


def test_it_is_shown_as_a_table_and_as_json(searched: Study) -> None:
    found = json.loads(json.dumps(summary(searched), allow_nan=False))["front"]
    members, records = searched.front(searched.records()), searched.records()
    assert (found["metric"], found["cost"]) == ("wauc", "madds")
    assert [row["number"] for row in found["trials"]] == numbers(members)
    plain_cost = cost_of(records[0], "madds") or 0.0
    for row, member in zip(found["trials"], members, strict=True):
        assert row["difference"] == pytest.approx((member.value or 0.0) - (records[0].value or 0.0))
        assert row["share"] == pytest.approx((cost_of(member, "madds") or 0.0) / plain_cost)
        assert row["kept"]
    marks = list(itertools.chain.from_iterable(row["marks"] for row in found["trials"]))
    assert sorted(marks) == ["best", "fastest", "knee"]
    text = study_text(searched).splitlines()
    start = text.index("no other trial is both cheaper (multiply-adds per row) and better (validation wauc):")
    table = text[start + 1 : start + 2 + len(members)]
    assert table[0].split() == ["trial", "wauc", "to", "trial", "0", "madds", "to", "trial", "0"]
    for line, row in zip(table[1:], found["trials"], strict=True):
        cells = line.replace(",", "").split()
        assert int(cells[0]) == row["number"]
        assert [float(cell.rstrip("x")) for cell in cells[1:5]] == pytest.approx(
            [row["value"], row["difference"], row["cost"], row["share"]], abs=0.006
        )
        assert cells[5:] == row["marks"]


def test_a_member_is_exported_by_its_name(searched: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = searched.folder.parent
    named = searched.choices(searched.records())
    for name, member in named.items():
        assert find_trial(searched, f"pareto:{name}") == member.number
    folder, difference = export("s", tmp_path / "knee", trial="pareto:knee", root=root)
    assert json.loads((folder / "card.json").read_text())["trial"] == named["knee"].number
    assert difference < 1e-5
    with pytest.raises(UserError, match="'pareto:cheap'; legal are a trial's number and pareto:fastest, pareto:knee, "):
        export("s", tmp_path / "model", trial="pareto:cheap", root=root)
    for bad in ("best", "-1", "pareto:", "1.5", ""):
        with pytest.raises(UserError, match="legal are a trial's number and pareto:fastest"):
            find_trial(searched, bad)
    cli.main(["show", "s", "--root", str(root), "--trial", "pareto:fastest", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["number"] == named["fastest"].number


def test_a_study_of_one_objective_has_a_front_as_well(finished: Study, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "s")
    study = load_study("s", root=tmp_path)
    members = study.front(study.records())
    assert members == front(study.records(), "maximize", "madds")
    assert summary(study)["front"]["trials"][-1]["marks"][-1] == "best"
    assert find_trial(study, "pareto:best") == members[-1].number
    for member in members:
        study.weights_path(member.number).unlink(missing_ok=True)
    assert "best (weights not kept)" in study_text(study)
    with pytest.raises(UserError, match=r"no weights of trial \d+; .*; search with --objectives to keep the front's"):
        export("s", tmp_path / "model", trial="pareto:best", root=tmp_path)


def test_the_weights_of_a_crowded_front_are_thinned(
    searched: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(searched.folder, tmp_path / "s")
    study = load_study("s", root=tmp_path)
    records = [record(0, 0.5, 900.0), *(record(n, 0.5 + n / 100, 10.0 * n) for n in range(1, 40))]
    for made in records:
        study.weights_path(made.number).write_bytes(b"")
    monkeypatch.setattr(Study, "records", lambda self: records)
    study.discard_weights()
    kept = study.kept()
    assert {0, 1, *range(35, 40)} <= set(kept)  # trial 0, the ends and the five best
    named = {member.number for member in study.choices(records).values()}
    assert named <= set(kept)
    assert 12 <= len(kept) <= 1 + 5 + 12
    study.discard_weights()
    assert study.kept() == kept


def test_latency_is_measured_and_multiply_adds_stand_for_it_before(sizes: Path, tmp_path: Path) -> None:
    study = search_small(tmp_path, sizes, trials=3, objectives=("wauc", "latency"))
    for made in study.records():
        assert made.latency is not None
        assert 0 < made.latency < 1000
        assert made.cost == (made.multiply_adds or {})["dense"]
    assert summary(study)["front"]["cost"] == "latency"
    assert "cheaper (milliseconds per 1,024 rows)" in study_text(study)
    assert f"milliseconds per 1,024 rows: {study.records()[0].latency:.3f}" in trial_text(study.records()[0], "wauc")


@pytest.mark.parametrize("changes", [{}, {"rank": 4}, {"sparsity": 0.2}, {"keep_rate": 0.5}])
def test_costs_before_training_are_those_after(
    changes: dict[str, Any], dataset: Dataset, space: Space, tmp_path: Path
) -> None:
    laboratory = Laboratory(dataset, metric="wauc", seed=0, device=torch.device("cpu"), folder=tmp_path)
    small = stored(space)[3].candidate.replace(**changes, epochs=1, ticket_epochs=0.1)
    outcome = laboratory.run(small)
    assert laboratory.cost(small, "parameters") == outcome.parameters
    assert laboratory.cost(small, "madds") == outcome.multiply_adds["dense"]
    assert laboratory.cost(small, "latency") == laboratory.cost(small, "madds")


def test_a_study_goes_on_with_another_objective_and_protected_domains_in_a_fork(
    finished: Study, tmp_path: Path
) -> None:
    shutil.copytree(finished.folder, tmp_path / "s")
    domain = next(iter((finished.records()[0].valid or {})["domains"]))
    wanted: dict[str, Any] = {"objectives": "wauc,parameters", "protect": f"domain:{domain}>=plain"}
    with pytest.raises(UserError, match="objectives or protected domains need a new study; name it with --fork NEW"):
        resume("s", root=tmp_path, **wanted)
    with pytest.raises(UserError, match="the first objective is auc, but the metric is wauc"):
        resume("s", fork="t", root=tmp_path, objectives="auc,madds")
    found = resume("s", fork="t", root=tmp_path, trials=9, **wanted)
    assert (found.settings.objectives, found.settings.protect) == (("wauc", "parameters"), (domain,))
    records = found.records()
    assert [r.value for r in records[:8]] == [r.value for r in finished.records()]
    assert [r.cost for r in records if r.state == "COMPLETE"] == [
        r.parameters for r in records if r.state == "COMPLETE"
    ]
    assert found.front(records) == front(found.allowed(records), "maximize", "parameters")


def test_a_fork_takes_costs_along(searched: Study, tmp_path: Path) -> None:
    shutil.copytree(searched.folder, tmp_path / "s")
    found = resume("s", fork="t", root=tmp_path)
    assert found.settings.objectives == ("wauc", "madds")
    assert remembered(found) == remembered(searched)
    assert found.kept() == searched.kept()
