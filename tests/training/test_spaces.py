"""Search spaces: what a file may say, and the file and line of what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.search.space import Choices, Interval, load_space
from autoctr.shipped import names

ERRORS: dict[str, tuple[str, int, str]] = {
    "unknown field": ("vary:\n  depth: {low: 1, high: 2}\n", 2, "unknown field 'depth'"),
    "unknown fixed field": ("fix:\n  depth: 3\nvary:\n  rank: {low: 1, high: 2}\n", 2, "unknown field 'depth'"),
    "the seed": ("vary:\n  seed: {low: 1, high: 2}\n", 2, "unknown field 'seed'"),
    "the wiring": ("fix:\n  wiring: 1\nvary:\n  rank: {low: 1, high: 2}\n", 2, "unknown field 'wiring'"),
    "unknown section": ("vary:\n  rank: {low: 1, high: 2}\nfixed:\n  blocks: 1\n", 3, "unknown section 'fixed'"),
    "a word for a number": ("vary:\n\n  rank: {low: one, high: 2}\n", 3, "must be a number"),
    "a fraction for a whole number": ("vary:\n  rank: {low: 1, high: 2.5}\n", 2, "whole number"),
    "a number for a word": ("vary:\n  cross: {choices: [vector, 3]}\n", 2, "legal is one of vector, matrix"),
    "an interval of words": ("vary:\n  cross: {low: 1, high: 2}\n", 2, "list its choices"),
    "a word for a truth": ("vary:\n  alternating: {choices: [maybe]}\n", 2, "legal is true or false"),
    "a list for a value": ("fix:\n  rank: [1, 2]\nvary:\n  blocks: {low: 1, high: 2}\n", 2, "must be one value"),
    "a value out of range": ("vary:\n  dropout: {low: 0, high: 1.5}\n", 2, "legal is 0 to 0.95"),
    "not a number": ("vary:\n  dropout: {low: 0, high: nan}\n", 2, "legal is 0 to 0.95"),
    "a choice out of range": ("vary:\n  rank:\n    choices:\n      - 2\n      - 65\n", 5, "legal is 0 to 64"),
    "an empty range": ("vary:\n  rank: {low: 4, high: 4}\n", 2, "empty range"),
    "a range upside down": ("vary:\n  dropout:\n    high: 0.1\n    low: 0.3\n", 4, "empty range"),
    "no choices": ("vary:\n  rank: {choices: []}\n", 2, "at least one value"),
    "choices that are no list": ("vary:\n  rank: {choices: 4}\n", 2, "a list of choices"),
    "a choice twice": ("vary:\n  rank: {choices: [2, 4, 2]}\n", 2, "twice"),
    "a logarithm of zero": ("vary:\n  dropout: {low: 0, high: 0.5, log: true}\n", 2, "low must be above 0"),
    "a logarithm of a negative": ("vary:\n  rank_tilt: {low: -1, high: 1, log: true}\n", 2, "low must be above 0"),
    "a log that is no truth": ("vary:\n  dropout: {low: 0.1, high: 0.5, log: yes!}\n", 2, "true or false"),
    "a log that is a list": ("vary:\n  dropout: {low: 0.1, high: 0.5, log: [true]}\n", 2, "log"),
    "a half-open range": ("vary:\n  rank: {low: 1}\n", 2, "needs either choices, or low and high"),
    "a stray word": ("vary:\n  rank: {low: 1, high: 2, step: 1}\n", 2, "needs either choices, or low and high"),
    "choices and a range": ("vary:\n  rank: {low: 1, high: 2, choices: [1]}\n", 2, "needs either choices"),
    "a bare value": ("vary:\n  rank: 4\n", 2, "rank must be a mapping"),
    "fixed and varied": ("fix:\n  rank: 1\nvary:\n  rank: {low: 1, high: 2}\n", 4, "under fix and under vary"),
    "varied twice": ("vary:\n  rank: {low: 1, high: 2}\n  rank: {low: 1, high: 3}\n", 3, "stands here twice"),
    "a section twice": ("vary:\n  rank: {low: 1, high: 2}\nvary:\n  blocks: {low: 1, high: 2}\n", 3, "twice"),
    "nothing varies": ("fix:\n  rank: 1\n", 1, "nothing varies"),
    "an empty vary": ("vary: {}\n", 1, "nothing varies"),
    "an empty section": ("fix:\nvary:\n  rank: {low: 1, high: 2}\n", 1, "fix must be a mapping"),
    "a list": ("- rank\n- blocks\n", 1, "a search space must be a mapping"),
    "an empty file": ("", 1, "the file is empty"),
    "only remarks": ("# nothing\n", 1, "the file is empty"),
    "no YAML": ("vary:\n  rank: {low: 1, high: 2\n", 3, "not YAML"),
    "a key that is a list": ("vary:\n  ? [rank, blocks]\n  : {low: 1, high: 2}\n", 2, ""),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_wrong_space_is_a_users_error_with_file_and_line(tmp_path: Path, case: str) -> None:
    text, line, problem = ERRORS[case]
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_space(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ")
    assert problem in message
    assert "\n" not in message


def test_a_file_that_is_not_text_is_a_users_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"vary:\n  rank: \xff\xfe\n")
    with pytest.raises(UserError, match=r"mine\.yaml"):
        load_space(str(path))


@pytest.mark.parametrize("name", ["nowhere", "nowhere.yaml"])
def test_an_unknown_space_is_a_users_error_that_names_the_legal_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"nowhere.*joint"):
        load_space(name)


def test_a_space_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "description: mine\n"
        "fix: {alternating: true, epochs: 3, dropout: 1e-1, norm: batch}\n"
        "vary:\n"
        "  rank: {low: 1, high: 8, log: true}\n"
        "  learning_rate: {low: 1e-4, high: 1e-2, log: true}\n"
        "  embedding_dropout: {low: 0, high: 0.5}\n"
        "  cross: {choices: [matrix]}\n"
        "  sparsity: {choices: [0, 0.2]}\n"
    )
    space = load_space(str(path))
    assert (space.name, space.description) == ("mine", "mine")
    assert space.fix == {"alternating": True, "epochs": 3, "dropout": 0.1, "norm": "batch"}
    assert space.vary == {
        "rank": Interval(1, 8, True, True),
        "learning_rate": Interval(1e-4, 1e-2, True, False),
        "embedding_dropout": Interval(0, 0.5, False, False),
        "cross": Choices(("matrix",)),
        "sparsity": Choices((0.0, 0.2)),
    }
    assert space.base() == Candidate(alternating=True, epochs=3, dropout=0.1, norm="batch")
    member = space.candidate({"rank": 4, "cross": "matrix"})
    assert (member.rank, member.epochs) == (4, 3)
    assert space.within(Candidate(rank=0, learning_rate=5e-3, cross="vector", sparsity=0.2)) == {
        "learning_rate": 5e-3,
        "embedding_dropout": 0.0,
        "sparsity": 0.2,
    }


def test_a_space_becomes_optunas_distributions(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "vary:\n  rank: {low: 1, high: 8, log: true}\n  dropout: {low: 0, high: 0.5}\n  cross: {choices: [matrix]}\n"
    )
    parts = {name: part.distribution() for name, part in load_space(str(path)).vary.items()}
    assert {name: type(part).__name__ for name, part in parts.items()} == {
        "rank": "IntDistribution",
        "dropout": "FloatDistribution",
        "cross": "CategoricalDistribution",
    }
    assert (parts["rank"].low, parts["rank"].high, parts["rank"].log) == (1, 8, True)  # type: ignore[attr-defined]


def test_shipped_spaces_load_and_every_value_of_theirs_is_a_legal_candidate() -> None:
    shipped = names("search_spaces")
    assert {"joint", "plain"} <= set(shipped)
    for name in shipped:
        space = load_space(name)
        assert space.description
        for field, part in space.vary.items():
            ends = part.values if isinstance(part, Choices) else (part.low, part.high)
            for value in ends:
                if isinstance(part, Interval) and part.integer:
                    value = int(value)
                member = space.candidate({field: value})
                assert getattr(member, field) == value
                assert part.contains(value)


def test_the_default_candidate_lies_in_the_joint_space() -> None:
    space = load_space("joint")
    assert set(space.within(space.base())) == set(space.vary)
