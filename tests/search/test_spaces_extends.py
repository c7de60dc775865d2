"""Spaces that extend others, and the shipped ones: each opens its own method and keeps every other closed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_study import write_events, write_space

from autoctr.errors import UserError
from autoctr.model.architecture import FIXED
from autoctr.model.candidate import Candidate
from autoctr.search.proposal import each_method, plain, propose
from autoctr.search.record import Record
from autoctr.search.run import search
from autoctr.search.space import Choices, Interval, Space, load_space
from autoctr.shipped import names

PARENT = """\
description: the parent
fix: {epochs: 5, norm: batch}
vary:
  rank: {choices: [0, 2]}
  dropout: {low: 0, high: 0.5}
  width: {choices: [8, 16]}
"""


def family(folder: Path, **texts: str) -> Path:
    """Files by name; the path of the last one."""
    for name, text in texts.items():
        path = write_space(folder, text, name)
    return path


def extended(folder: Path, text: str) -> Space:
    return load_space(str(family(folder, parent=PARENT, child=text)))


# what a child takes over


def test_a_child_adds_to_its_parent(tmp_path: Path) -> None:
    space = extended(tmp_path, "extends: parent.yaml\nfix: {batch: 64}\nvary: {blocks: {choices: [1, 2]}}")
    assert space.name == "child"
    assert space.fix == {"epochs": 5, "norm": "batch", "batch": 64}
    assert space.vary == {
        "rank": Choices((0, 2)),
        "dropout": Interval(0, 0.5, False, False),
        "width": Choices((8, 16)),
        "blocks": Choices((1, 2)),
    }
    assert space.base() == Candidate(epochs=5, norm="batch", batch=64)


def test_a_child_may_say_nothing_but_whom_it_extends(tmp_path: Path) -> None:
    space = extended(tmp_path, "extends: parent.yaml")
    parent = load_space(str(tmp_path / "parent.yaml"))
    assert (space.fix, space.vary) == (parent.fix, parent.vary)
    assert space.description == ""


def test_a_child_has_the_last_word(tmp_path: Path) -> None:
    text = """\
extends: parent.yaml
description: mine
fix: {rank: 4, epochs: 7}
vary:
  norm: {choices: [none, batch]}
  width: {low: 4, high: 64}
"""
    space = extended(tmp_path, text)
    assert space.description == "mine"
    assert space.fix == {"rank": 4, "epochs": 7}  # varied before, fixed before
    assert space.vary == {
        "dropout": Interval(0, 0.5, False, False),
        "width": Interval(4, 64, False, True),
        "norm": Choices(("none", "batch")),  # fixed before
    }


def test_the_order_of_the_sections_does_not_matter(tmp_path: Path) -> None:
    one = extended(tmp_path, "extends: parent.yaml\nfix: {rank: 4}\nvary: {norm: {choices: [none]}}")
    other = extended(tmp_path, "vary: {norm: {choices: [none]}}\nfix: {rank: 4}\nextends: parent.yaml")
    assert (one.fix, one.vary) == (other.fix, other.vary)


def test_a_grandchild_reads_through_to_its_grandparent(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    family(tmp_path, parent=PARENT)
    family(tmp_path / "deeper", middle="extends: ../parent.yaml\nfix: {rank: 2}\nvary: {blocks: {choices: [1, 3]}}")
    child = "extends: deeper/middle.yaml\nvary: {rank: {choices: [0, 8]}}"  # beside itself, wherever one stands
    space = load_space(str(family(tmp_path, child=child)))
    assert space.fix == {"epochs": 5, "norm": "batch"}
    assert list(space.vary) == ["dropout", "width", "blocks", "rank"]
    assert space.vary["rank"] == Choices((0, 8))


def test_a_child_may_extend_a_shipped_space(tmp_path: Path) -> None:
    space = extended(tmp_path, "extends: plain\nvary: {rank: {choices: [2, 4]}}")
    shipped = load_space("plain")
    assert space.vary == {**shipped.vary, "rank": Choices((2, 4))}
    assert space.fix == shipped.fix


def test_a_parent_is_not_changed_by_its_children(tmp_path: Path) -> None:
    before = load_space("plain")
    extended(tmp_path, "extends: plain\nfix: {width: 8}\nvary: {architecture: {choices: [deep]}}")
    assert load_space("plain") == before


# what it may not


def problem(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_space(str(path))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("extends: [parent.yaml]\n", 1, "extends must be one value"),
        ("extends: {parent.yaml: 1}\n", 1, "extends must be one value"),
        ("extends: parent.yaml\nextends: parent.yaml\n", 2, "extends stands here twice"),
        ("extends: child.yaml\nvary: {rank: {choices: [1]}}\n", 1, "leads back to this file"),
        ("extends: parent.yaml\nfix: {rank: 1}\nvary:\n  rank: {choices: [1]}\n", 4, "under fix and under vary"),
        ("extends: parent.yaml\nfix: {rank: 1, dropout: 0, width: 8}\n", 1, "nothing varies"),
        ("extends: parent.yaml\nfix:\n  depth: 1\n", 3, "unknown field 'depth'"),
        ("extends: parent.yaml\nfix: {keep_rate: 0.5}\n", 2, "do not go together"),  # with the parent's 5 epochs
    ],
)
def test_a_wrong_child_is_a_users_error_with_file_and_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    if "keep_rate" in text:
        text = text.replace("0.5}", "0.5, ticket_rounds: 9}")
    path = family(tmp_path, parent=PARENT, child=text)
    message = problem(path)
    assert message.startswith(f"{path}:{line}: ")
    assert words in message


def test_a_wrong_parent_is_named_with_its_own_line(tmp_path: Path) -> None:
    path = family(tmp_path, parent="fix: {epochs: 5}\nvary:\n  depth: {choices: [1]}\n", child="extends: parent.yaml")
    message = problem(path)
    assert message.startswith(f"{tmp_path / 'parent.yaml'}:3: ")
    assert "unknown field 'depth'" in message


@pytest.mark.parametrize("members", [1, 2, 3])
def test_a_circle_of_spaces_is_a_users_error(tmp_path: Path, members: int) -> None:
    texts = {f"s{n}": f"extends: s{(n + 1) % members}.yaml\nvary: {{rank: {{choices: [{n}]}}}}" for n in range(members)}
    family(tmp_path, **texts)
    message = problem(tmp_path / "s0.yaml")
    assert "leads back" in message
    assert ".yaml:1: " in message


@pytest.mark.parametrize("parent", ["nowhere", "nowhere.yaml", "folder/nowhere.yml"])
def test_a_missing_parent_is_a_users_error_with_file_and_line(tmp_path: Path, parent: str) -> None:
    path = family(tmp_path, child=f"description: mine\nextends: {parent}\nvary: {{rank: {{choices: [1]}}}}")
    message = problem(path)
    assert message.startswith(f"{path}:2: ")
    assert "nowhere" in message


@pytest.mark.parametrize("parent", ["nowhere", "nowhere.yaml"])
def test_a_missing_parent_is_a_users_error_that_names_it(tmp_path: Path, parent: str) -> None:
    path = family(tmp_path, child=f"extends: {parent}\nvary: {{rank: {{choices: [1]}}}}")
    assert "nowhere" in problem(path)


# the shipped ones

OFF: dict[str, Callable[[Candidate], bool]] = {
    "optfusion": lambda c: (c.architecture, c.learned, c.readout, c.retrain) == ("parallel", "both", "drop", "scratch"),
    "adasparse": lambda c: c.sparsity == 0,
    "mlora": lambda c: c.rank == 0 and c.rank_divisor == 0 and c.order == "mixed",
    "lt4rec": lambda c: c.keep_rate == 1,
    "ecdctr": lambda c: c.warm_start == 0 and c.snapshots == 0,
    "another backbone": lambda c: c.backbone == "fusion",
}


def drawn(space: Space, count: int = 30) -> list[Candidate]:
    source = random.Random(1)
    return [space.candidate({name: part.draw(source) for name, part in space.vary.items()}) for _ in range(count)]


def proposed(space: Space, count: int = 30) -> list[Candidate]:
    records: list[Record] = []
    for number in range(count):
        proposal = propose(space, records, number=number, seed=2, direction="maximize", expected=count)
        candidate = proposal.candidate
        if candidate.wiring is None:
            candidate = candidate.replace(wiring=FIXED["full"](candidate.blocks))
        score = random.Random(number).random()
        records.append(
            Record(
                number=number, state="COMPLETE", value=score, candidate=candidate, values=proposal.values,
                rungs=((1000, score),), seconds=1.0, speed=1.0, valid=None, gap=None, closed=None,
                multiply_adds=None, kept=None, overlap=None, reason=None,
            )
        )  # fmt: skip
    return [record.candidate for record in records]


def test_all_shipped_spaces_are_spoken_of_here() -> None:
    assert set(names("search_spaces")) == {*OFF, "plain", "joint"} - {"another backbone"}


@pytest.mark.parametrize("name", [*sorted(set(OFF) - {"another backbone"}), "plain"])
@pytest.mark.parametrize("how", [drawn, proposed])
def test_a_method_on_its_own_leaves_every_other_one_off(name: str, how: Callable[[Space], list[Candidate]]) -> None:
    space = load_space(name)
    candidates = how(space)
    assert len(candidates) == 30
    for candidate in candidates:
        on = {method for method, is_off in OFF.items() if not is_off(candidate)}
        assert on <= {name}
    # and is on itself, but in the plain network
    share = sum(not OFF[name](candidate) for candidate in candidates) / 30 if name in OFF else 0.0
    least = {"plain": 0.0, "optfusion": 0.5}
    assert share >= least.get(name, 29 / 30)


@pytest.mark.parametrize("name", sorted(set(OFF) - {"another backbone"}))
def test_trial_1_has_the_spaces_own_method_on(name: str) -> None:
    space = load_space(name)
    (candidate,) = each_method(space)
    assert [method for method, is_off in OFF.items() if not is_off(candidate)] == [name]
    assert space.within(candidate).keys() == space.vary.keys()


def test_trial_0_is_the_same_in_every_shipped_space() -> None:
    firsts = []
    for name in names("search_spaces"):
        space = load_space(name)
        assert space.description
        assert plain(space) == plain(load_space("plain"))
        firsts.append(propose(space, [], number=0, seed=5, direction="maximize", expected=30).candidate)
    assert len(set(firsts)) == 1
    assert all(is_off(firsts[0]) for is_off in OFF.values())


def test_the_joint_space_holds_every_method() -> None:
    space = load_space("joint")
    candidates = drawn(space, 60)
    for method in ("optfusion", "adasparse", "mlora", "lt4rec", "ecdctr"):
        shares = [OFF[method](candidate) for candidate in candidates]
        assert sum(not off for off in shares) > 0
    for name in ("optfusion", "adasparse", "mlora", "lt4rec", "ecdctr"):
        only = set(load_space(name).vary) - set(load_space("plain").vary)
        assert only & set(space.vary)


def test_single_methods_tune_what_the_plain_space_tunes() -> None:
    shared = load_space("plain").vary
    for name in set(OFF) - {"another backbone"}:
        space = load_space(name)
        assert set(shared) <= set(space.vary) | set(space.fix)
        changed = {field for field, part in shared.items() if space.vary.get(field) != part}
        assert changed <= {"blocks", "cross", "architecture"}


# data of one domain


@pytest.fixture
def one_market(tmp_path: Path) -> dict[str, Any]:
    """A table whose rows are all of one market, as arguments of a search."""
    table, schema = write_events(tmp_path, rows=600)
    head, *lines = table.read_text().splitlines()
    column = head.split(",").index("market")
    cells = [line.split(",") for line in lines]
    for row in cells:
        row[column] = "de"
    table.write_text("\n".join([head, *(",".join(row) for row in cells)]) + "\n")
    return {"table": table, "schema": schema, "trials": 1, "study": "s", "device": "cpu", "root": tmp_path / "studies"}


@pytest.mark.parametrize(
    ("name", "field"),
    [("ecdctr", "warm_start"), ("mlora", "rank"), ("mlora", "rank_divisor"), ("adasparse", "sparsity"),
     ("joint", "sparsity")],
)  # fmt: skip
def test_a_method_between_domains_needs_more_than_one(one_market: dict[str, Any], name: str, field: str) -> None:
    with pytest.raises(UserError) as caught:
        search(space=name, **one_market)
    message = str(caught.value)
    assert field in message
    assert "one domain" in message
    assert "\n" not in message
    assert not (one_market["root"] / "s").exists()


@pytest.mark.parametrize("parent", ["plain", "optfusion", "lt4rec"])
def test_what_needs_no_domains_runs_on_one(one_market: dict[str, Any], parent: str, tmp_path: Path) -> None:
    small = "width: 8, embedding: 4, batch: 128, epochs: 1, ticket_rounds: 1, ticket_epochs: 0.5, blocks: 1"
    text = f"extends: {parent}\nfix: {{{small}, search_epochs: 0.1}}"
    study = search(space=write_space(tmp_path, text), **one_market | {"trials": 2})
    assert [record.state for record in study.records()] == ["COMPLETE"] * 2


def test_a_fixed_method_needs_domains_too(one_market: dict[str, Any], tmp_path: Path) -> None:
    text = "fix: {rank: 4}\nvary: {width: {choices: [8, 16]}}"
    with pytest.raises(UserError, match="rank"):
        search(space=write_space(tmp_path, text), **one_market)
    off = "fix: {rank: 0, epochs: 1, embedding: 4}\nvary: {width: {choices: [8, 16]}, sparsity: {choices: [0]}}"
    assert search(space=write_space(tmp_path, off), **one_market).best() is not None
