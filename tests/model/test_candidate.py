from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import pytest
import torch

from autoctr.model.architecture import full, parallel
from autoctr.model.candidate import RANGES, Candidate, field_kinds
from autoctr.model.sparsity import FORMS, factors
from model.networks import random_wiring


@pytest.mark.parametrize(
    "candidate",
    [
        Candidate(),
        Candidate(wiring=parallel(2), seed=(1 << 63) - 1),
        Candidate(blocks=3, wiring=random_wiring(3, 2, True), learning_rate=1 / 3, norm="batch", alternating=True),
    ],
    ids=["default", "wired", "soft"],
)
def test_a_candidate_survives_json(candidate: Candidate) -> None:
    again = Candidate.from_dict(json.loads(json.dumps(candidate.to_dict())))
    assert again == candidate
    assert again.canonical() == candidate.canonical()
    assert hash(again) == hash(candidate)


def test_a_whole_number_is_as_good_as_the_same_with_a_point() -> None:
    whole, point = Candidate(sparsity=0, keep_rate=1, rewind=2), Candidate(sparsity=0.0, keep_rate=1.0, rewind=2.0)
    assert whole == point
    assert whole.canonical() == point.canonical()


def test_the_canonical_form_tells_candidates_apart() -> None:
    varied: dict[str, Any] = {"rank": 1, "dropout": 0.1, "wiring": full(2), "seed": 5, "norm": "batch"}
    forms = {Candidate().replace(**{name: value}).canonical() for name, value in varied.items()}
    assert len(forms | {Candidate().canonical()}) == len(varied) + 1


@pytest.mark.parametrize("name", RANGES)
def test_a_number_outside_its_range_is_refused_by_name(name: str) -> None:
    low, high = RANGES[name]
    for value in (low - 1, high * 1.01 + 1):
        with pytest.raises(ValueError, match=rf"{name} is .*; legal is"):
            Candidate(**{name: value})
    with pytest.raises(ValueError, match=name):
        Candidate(**{name: float("nan")})


@pytest.mark.parametrize("name", [name for name, (kind, words) in field_kinds().items() if words])
def test_a_word_that_is_no_choice_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} is 'sideways'; legal is one of"):
        Candidate(**{name: "sideways"})
    for word in field_kinds()[name][1]:
        assert getattr(Candidate(**{name: word}), name) == word  # type: ignore[arg-type]


def test_trap_2_6_2_a_form_has_one_name_everywhere() -> None:
    v = torch.linspace(-3, 3, 50).view(1, 1, -1)
    _, legal = field_kinds()["sparsity_form"]
    assert set(legal) == set(FORMS)
    made = [factors(form, v, 2.0) for form in legal]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(made, 2))
    with pytest.raises(ValueError, match="sparsity_form is 'binary'; legal is one of fusion, binarization, scaling"):
        Candidate(sparsity_form="binary")  # type: ignore[arg-type]


@pytest.mark.parametrize("backbone", ["mmoe", "ple", "star", "pepnet"])
@pytest.mark.parametrize(
    "method", [{"rank": 2}, {"rank_divisor": 4}, {"sparsity": 0.2}, {"keep_rate": 0.5}, {"architecture": "learn"}]
)
def test_trap_3_8_2_a_method_that_a_backbone_lacks_is_refused_not_left_out(
    backbone: Any, method: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"backbone {backbone} has no learned fusion, sparsity, rank or tickets"):
        Candidate(backbone=backbone, **method)


def test_a_wiring_of_other_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks is 2, the wiring has 3"):
        Candidate(blocks=2, wiring=parallel(3))


def test_every_field_but_what_is_found_may_vary_and_every_number_has_a_range() -> None:
    fields = {field.name for field in dataclasses.fields(Candidate)}
    kinds = field_kinds()
    assert set(kinds) == fields - {"wiring", "domain_ranks"}
    assert {name for name, (kind, _) in kinds.items() if kind in (int, float)} == set(RANGES)
    assert (kinds["rank"], kinds["alternating"]) == ((int, ()), (bool, ()))
    assert kinds["cross"] == (str, ("vector", "matrix", "lowrank", "attention", "fm", "bilinear"))


def test_the_default_candidate_has_every_method_off() -> None:
    candidate = Candidate()
    assert (candidate.rank, candidate.sparsity, candidate.architecture) == (0, 0.0, "parallel")


def test_without_snapshots_a_candidate_reads_as_before_there_were_any() -> None:
    """So that what earlier versions kept under its string is found, and what they stored is read."""
    candidate = Candidate(wiring=parallel(2), warm_start=0.5)
    stored = json.loads(candidate.canonical())
    assert not {"snapshots", "pooling"} & stored.keys()
    assert Candidate.from_dict(stored) == candidate
    on = candidate.replace(snapshots=4, pooling="mean")
    assert Candidate.from_dict(json.loads(on.canonical())) == on
    assert len({on.canonical(), on.replace(pooling="last").canonical(), on.replace(snapshots=2).canonical()}) == 3


def test_pooling_is_idle_with_one_snapshot_or_none_and_the_share_without_a_use() -> None:
    changed = Candidate(pooling="mean", warm_share=0.2)
    assert changed.effective() == Candidate()
    assert changed.replace(snapshots=1).effective() == Candidate(snapshots=1, warm_share=0.2)
    assert changed.replace(snapshots=2).effective() == changed.replace(snapshots=2)
