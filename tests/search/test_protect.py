"""No winner is worse than the plain network in a protected domain."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_study import remembered, search_small, write_space

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.report import study_text
from autoctr.search import confirm as confirm_module
from autoctr.search import proposal as proposal_module
from autoctr.search.certificate import Certificate
from autoctr.search.confirm import confirm
from autoctr.search.events import Watcher
from autoctr.search.protect import TOLERANCE, allowed, noisy, read_protected, shortfalls, standard_error, worse
from autoctr.search.record import Record, ranked, winner_of
from autoctr.search.run import load_study, resume
from autoctr.search.space import Space, load_space
from autoctr.search.study import Study
from autoctr.search.summary import summary
from autoctr.training.metrics import grouped_auc
from search.test_front import FIELDS, SPACE, ask, numbers, record, stored

ROWS, CLICKS = 400, 100


def valid(**areas: float | None) -> dict[str, Any]:
    """Validation scores with these areas by domain."""
    return {"domains": {name: {"rows": ROWS, "positives": CLICKS, "auc": area} for name, area in areas.items()}}


def margin(area: float) -> float:
    return TOLERANCE * standard_error({"rows": ROWS, "positives": CLICKS, "auc": area})


PLAIN = record(0, 0.70, valid=valid(a=0.7, b=0.8, unknown=0.6, c=None))


def test_what_can_be_protected() -> None:
    domains = ["a", "b", "c > d"]
    assert read_protected((), domains) == ()
    assert read_protected("all", domains) == ("all",)
    assert read_protected(["domain:b>=plain", "domain:a>=plain"], domains) == ("a", "b")
    assert read_protected("domain:c > d >= plain", domains) == ("c > d",)
    assert read_protected(["domain:a>=plain", "all"], domains) == ("all",)
    with pytest.raises(UserError, match=r"^unknown domain 'd'; legal are a, b, c > d$"):
        read_protected("domain:d>=plain", domains)
    with pytest.raises(UserError, match=r"^unknown domain 'd'; legal are 0, 1, .*, 19, and 80 more$"):
        read_protected("domain:d>=plain", [str(n) for n in range(100)])
    for bad in ("a", "domain:a", "domain:a>=trial 0", "a>=plain", ""):
        with pytest.raises(UserError, match=r"; legal are all and domain:NAME>=plain$"):
            read_protected(bad, domains)


@pytest.mark.parametrize("shift", [0.0, 0.7, 2.0])
def test_the_standard_error_is_that_of_samples(shift: float) -> None:
    """Scores of both classes are exponential, for which the formula is exact."""
    generator, areas = np.random.default_rng(0), []
    for _ in range(3000):
        scores = np.concatenate([generator.exponential(math.exp(shift), 30), generator.exponential(1.0, 50)])
        labels = torch.cat([torch.ones(30), torch.zeros(50)])
        areas.append(float(grouped_auc(torch.from_numpy(scores), labels, torch.zeros(80, dtype=torch.long), 1)))
    mean = math.exp(shift) / (1 + math.exp(shift))
    assert np.mean(areas) == pytest.approx(mean, abs=0.01)
    error = standard_error({"rows": 80, "positives": 30, "auc": mean})
    assert np.std(areas) == pytest.approx(error, rel=0.05)


def test_a_network_is_worse_where_it_is_below_by_more_than_noise() -> None:
    plain = valid(a=0.7, b=0.8, c=None, unknown=0.6)["domains"]

    def lower(protected: tuple[str, ...], **areas: float | None) -> dict[str, float]:
        return worse(valid(**areas)["domains"], plain, protected)

    below = 0.7 - 1.01 * margin(0.7)
    assert lower(("a",), a=below, b=0.1) == {"a": pytest.approx(0.7 - below)}
    assert lower(("a",), a=0.7 - 0.99 * margin(0.7), b=0.1) == {}
    assert set(lower(("all",), a=0.2, b=0.2, c=0.2, unknown=0.1)) == {"a", "b"}
    assert lower(("a", "c"), a=None, c=0.1) == {}
    assert lower((), a=0.1, b=0.1) == {}


def test_who_may_win() -> None:
    bad = record(1, 0.80, valid=valid(a=0.9, b=0.7), lead=(0.01, 0.02))
    good = record(2, 0.75, valid=valid(a=0.71, b=0.8), lead=(0.01, 0.02))
    paused = record(3, 0.75, valid=valid(a=0.1, b=0.1), state="PRUNED")
    records = [PLAIN, bad, good, paused]
    assert shortfalls(records, ("b",)) == {1: {"b": pytest.approx(0.1)}}
    assert shortfalls(records, ("a",)) == {}
    assert allowed(records, ()) == records
    assert numbers(allowed(records, ("all",))) == [0, 2, 3]
    assert winner_of(records, "maximize") == bad
    assert winner_of(allowed(records, ("b",)), "maximize") == good
    assert shortfalls([dataclasses.replace(PLAIN, state="RUNNING"), bad], ("b",)) == {}
    assert shortfalls([bad], ("b",)) == {}


def test_small_domains_are_named_once(dataset: Dataset, tmp_path: Path, space_file: Path) -> None:
    names = dataset.statistics.domains
    few = noisy(("all",), dataset)
    labels, domains = dataset.valid.labels[:, 0], dataset.valid.domain
    counts = {n: [int(((domains == d) & (labels == y)).sum()) for y in (0, 1)] for d, n in enumerate(names)}
    assert few == [name for name in names if min(counts[name]) < 100]
    assert noisy((), dataset) == []
    heard: list[str] = []

    class Notes(Watcher):
        def note(self, message: str) -> None:
            heard.append(message)

    search_small(tmp_path, space_file, trials=1, protect=f"domain:{few[0]}>=plain", watcher=Notes())
    assert heard == [f"protected with fewer than 100 validation rows of a class, so that noise decides: {few[0]}"]
    with pytest.raises(UserError, match=f"unknown domain 'none'; legal are {names[0]}, "):
        search_small(tmp_path, space_file, trials=1, study="t", protect="domain:none>=plain")


# the sampler


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return load_space(str(write_space(tmp_path_factory.mktemp("space"), SPACE)))


def told_apart(space: Space) -> list[Record]:
    """Trials of which the wide ones are worse in domain a."""
    return [
        dataclasses.replace(r, valid=valid(a=0.7 if r.number == 0 or r.values["width"] < 100 else 0.5, b=0.8))
        for r in stored(space)
    ]


def test_the_sampler_is_told_by_how_much(space: Space) -> None:
    records = told_apart(space)
    refused = shortfalls(records, ("a",))
    assert set(refused) == {1, 5, 6, 7, 8, 11}
    distributions = {name: part.distribution() for name, part in space.vary.items()}
    told = [proposal_module._told(r, distributions, None, refused.get(r.number, {})) for r in records]
    assert told[1].constraints == {"domain a": pytest.approx(0.2)}
    assert told[0].constraints == told[2].constraints == {}
    assert told[10].constraints == {"memory": 1.0}
    assert [trial.value for trial in told[:3]] == [r.value for r in records[:3]]


def test_the_search_turns_away_from_what_is_worse(space: Space) -> None:
    records = told_apart(space)
    best, second = (r.values for r in ranked(records, "maximize")[:2])
    records[2] = dataclasses.replace(records[2], valid=valid(a=0.1, b=0.8))  # the best
    assert best == records[2].values
    for number in (17, 21, 25):
        apart = [
            sum(ask(space, records, number, protect=protect)[name] != start[name] for name in FIELDS)
            for protect, start in (((), best), (("a",), second))
        ]
        assert max(apart) <= 3
    widths = {
        protect: [ask(space, records, number, protect=protect)["width"] for number in range(14, 54, 2)]
        for protect in ((), ("a",))
    }
    wide = {protect: sum(width == 128 for width in found) for protect, found in widths.items()}
    assert wide[("a",)] < wide[()]
    assert ask(space, records, 14, protect=("b",)) == ask(space, records, 14)  # nobody is worse there


# whole studies


def test_protection_changes_the_winner_and_show_says_who_would_have_won(finished: Study, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "s")
    study = load_study("s", root=tmp_path)
    refused = shortfalls(study.records(), ("all",))
    ahead = next(r for r in ranked(study.records(), "maximize") if r.number in refused)
    for number in range(1, 8):
        study.set_lead(number, (0.01, 0.02) if number == ahead.number else (-0.01, 0.02))
    assert study.best() == study.records()[ahead.number]
    assert summary(study)["protect"] is None
    domain, shortfall = next(iter(refused[ahead.number].items()))
    settings = study.database.user_attrs["settings"]
    study.database.set_user_attr("settings", {**settings, "protect": [domain]})
    assert study.best() == study.records()[0]
    found = summary(study)
    assert found["protect"]["domains"] == [domain]
    assert found["protect"]["refused"]["number"] == ahead.number
    assert ahead.number not in [row["number"] for row in found["front"]["trials"]]
    text = study_text(study).splitlines()
    assert "winner: trial 0" in "\n".join(text)
    assert f"protected, validation AUC no lower than plain but for noise: {domain}" in text
    assert (
        f"trial {ahead.number} would have won ({ahead.value:.5f}), but is worse than plain in domain {domain} "
        f"({-shortfall:+.5f})"
    ) in text
    # another domain, where it is not worse
    other = next(name for name in (ahead.valid or {})["domains"] if name not in refused[ahead.number])
    study.database.set_user_attr("settings", {**settings, "protect": [other]})
    assert study.best() == study.records()[ahead.number]
    assert "would have won" not in study_text(study)


def test_a_protected_study_that_stops_ends_as_one_that_did_not(space_file: Path, tmp_path: Path) -> None:
    whole = search_small(tmp_path / "whole", space_file, trials=6, protect="all")
    assert whole.settings.protect == ("all",)
    records = whole.records()
    refused = shortfalls(records, ("all",))
    assert refused
    best = whole.best()
    assert best is not None
    assert best.number not in refused
    allowed_ones = ranked(whole.allowed(records), "maximize")[:5]
    assert set(whole.kept()) == {0, *numbers(ranked(records, "maximize")[:5]), *numbers(allowed_ones)}

    class Stop(Watcher):
        def finished(self, record: Record, best: Record | None) -> None:
            if record.number == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_small(tmp_path / "stopped", space_file, trials=6, protect="all", watcher=Stop())
    study = resume("s", root=tmp_path / "stopped")
    assert remembered(study) == remembered(whole)
    assert study.kept() == whole.kept()
    assert study.best() == study.records()[best.number]


CONFIRMED = """\
fix: {epochs: 2, batch: 512}
vary: {learning_rate: {low: 4e-3, high: 1e-2, log: true}}
"""


@pytest.fixture(scope="module")
def handicapped(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Certificate]:
    """Confirmations of a study in which trial 0 validates worse than it does; the others are worse in domain 143."""
    from search.conftest import make_small

    root = tmp_path_factory.mktemp("confirm")
    inner = confirm_module._Confirmation._validated

    def validated(self: Any, entrants: Any) -> dict[str, list[float]]:
        found = inner(self, entrants)
        for entrant in entrants:
            for scores in self._valid[entrant.name].values():
                area = 0.5 if entrant.number == 0 else 0.1
                scores.domains["143"] = dataclasses.replace(scores.domains["143"], auc=area)
        return {name: [value - (name == "trial 0") for value in values] for name, values in found.items()}

    def confirmed(*protect: str) -> Certificate:
        with pytest.MonkeyPatch.context() as patch:
            make_small(patch, shared)
            if not (root / "s").exists():
                search_small(root, write_space(root, CONFIRMED, "rates"), trials=3)
            study = load_study("s", root=root)
            study.database.set_user_attr(
                "settings", {**study.database.user_attrs["settings"], "protect": list(protect)}
            )
            patch.setattr(confirm_module._Confirmation, "_validated", validated)
            found = confirm("s", finalists=2, seeds=2, root=root)
            assert study.best() == study.records()[found.winner]
            return dataclasses.replace(found, seen="cannot win" in study_text(study))

    return confirmed


def test_a_confirmation_refuses_who_is_worse_in_the_mean(handicapped: Callable[..., Certificate]) -> None:
    free = handicapped()
    assert free.winner > 0
    assert (free.worse, free.seen) == ({}, False)
    protected = handicapped("143")
    assert protected.winner == 0
    assert protected.worse == {name: {"143": pytest.approx(0.4)} for name in free.valid if name != "trial 0"}
    assert protected.seen
    elsewhere = handicapped("177")
    assert set(elsewhere.worse) <= set(free.valid)
    assert all(set(where) == {"177"} for where in elsewhere.worse.values())
    assert Certificate.from_dict(protected.to_dict()) == protected
    stored_before = {name: value for name, value in free.to_dict().items() if name != "worse"}
    assert Certificate.from_dict(stored_before) == free


def test_finalists_are_first_of_all_those_that_may_win(finished: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    records = finished.records()
    first, second = numbers(ranked(records[1:], "maximize"))[:2]
    for number in range(len(records)):
        scores = {"domains": {"177": {"rows": ROWS, "positives": CLICKS, "auc": 0.2 if number == first else 0.7}}}
        records[number] = dataclasses.replace(records[number], valid=scores)
    monkeypatch.setattr(Study, "records", lambda self: records)
    assert [entrant.number for entrant in confirm_module._own(finished, 2)] == [0, first, second]
    settings = dataclasses.replace(finished.settings, protect=("177",))
    monkeypatch.setattr(Study, "settings", property(lambda _: settings))
    found = [entrant.number for entrant in confirm_module._own(finished, 5)]
    assert found[:2] == [0, second]
    assert first not in found[:-1]
