"""A confirmation trains its networks once each, chooses on validation, and tests the winner and the plain networks."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from small_study import ROWS, search_small, write_space

from autoctr.errors import UserError
from autoctr.report import study_text
from autoctr.search import confirm as confirm_module
from autoctr.search.baselines import without_methods
from autoctr.search.certificate import Certificate, DomainLead, PlainNetwork
from autoctr.search.clock import Clock
from autoctr.search.compare import as_learned, compare
from autoctr.search.confirm import Entrant, confirm
from autoctr.search.deliver import export
from autoctr.search.events import Watcher
from autoctr.search.run import load_study, resume
from autoctr.search.study import Study
from autoctr.search.summary import summary
from autoctr.search.trial import Laboratory
from autoctr.training.intervals import Difference, Interval, mean_interval
from search.conftest import make_small

#: Without the learning rate of trial 0, so that no trial is trial 0 but for its method.
METHODS = """\
fix: {epochs: 2, batch: 512}
vary:
  rank: {choices: [2, 4]}
  learning_rate: {low: 4e-3, high: 1e-2, log: true}
"""
PLAIN = """\
fix: {epochs: 2, batch: 512, architecture: parallel}
vary: {learning_rate: {low: 1e-3, high: 1e-2, log: true}}
"""


@pytest.fixture(scope="module")
def searched(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of methods and one of plain networks; copy them before you run them."""
    root = tmp_path_factory.mktemp("confirm")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, shared)
        for name, text in (("s", METHODS), ("plain", PLAIN)):
            search_small(root, write_space(root, text, name), trials=5, study=name, precision="fp32")
    return root


@pytest.fixture
def root(searched: Path, tmp_path: Path) -> Path:
    shutil.copytree(searched, tmp_path / "studies")
    return tmp_path / "studies"


@pytest.fixture(scope="module")
def confirmed(searched: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Certificate]:
    """A confirmed study in which a trial with a method wins, for trial 0 has a handicap; look at it only.

    Of the plain study another trial than 0 takes part.
    """
    root = tmp_path_factory.mktemp("confirmed") / "studies"
    shutil.copytree(searched, root)
    load_study("plain", root=root).set_certificate(certificate(winner=2, trials=5))
    inner = confirm_module._Confirmation._validated

    def handicapped(self: Any, entrants: Any) -> dict[str, list[float]]:
        found = inner(self, entrants)
        return {name: [value - (name == "trial 0") for value in values] for name, values in found.items()}

    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, shared)
        patch.setattr(confirm_module._Confirmation, "_validated", handicapped)
        return root, confirm("s", finalists=2, seeds=2, plain="plain", root=root)


def test_the_winner_has_the_best_mean_on_validation(confirmed: tuple[Path, Certificate]) -> None:
    root, found = confirmed
    study = load_study("s", root=root)
    ended = sorted(study.records()[1:], key=lambda record: -(record.value or 0))
    assert list(found.valid) == ["trial 0", *(f"trial {record.number}" for record in ended[:2])]
    best = max(found.valid, key=lambda name: found.valid[name].mean)
    assert best == f"trial {found.winner}"
    assert all(interval.half is not None for interval in found.valid.values())
    assert study.best().number == found.winner  # type: ignore[union-attr]
    assert found.trials == 5


def test_its_numbers_are_those_of_a_comparison(
    confirmed: tuple[Path, Certificate], tmp_path: Path, dataset: Any
) -> None:
    root, found = confirmed
    record = load_study("s", root=root).records()[found.winner]
    tuned = load_study("plain", root=root).best()
    assert tuned is not None
    learned = as_learned(record.candidate)
    models = {
        "winner": learned,
        "trial 0": as_learned(load_study("s", root=root).records()[0].candidate),
        f"plain trial {tuned.number}": as_learned(tuned.candidate),
        f"trial {found.winner} without its methods": without_methods(learned),
    }
    side = compare("taobao-sim", models=models, rows=ROWS, device="cpu", seeds=2, out=tmp_path / "c.csv")
    assert set(found.plain) == {*models} - {"winner"}
    assert found.test == side.interval("winner", "wauc")
    assert found.level == pytest.approx(1 - 0.05 / len(found.plain))
    for name, plain in found.plain.items():
        assert plain.test == side.interval(name, "wauc")
        pairs = zip(side.of("winner").values(), side.of(name).values(), strict=True)
        assert plain.lead.seeds == mean_interval([(a.wauc or 0) - (b.wauc or 0) for a, b in pairs], found.level)
        assert plain.lead.users is not None
        assert plain.lead.users[0] <= plain.lead.seeds.mean <= plain.lead.users[1]
    assert sum(domain.rows for domain in found.domains.values()) == len(dataset.test)
    assert found.domain_level == pytest.approx(1 - 0.05 / len(found.domains))


def test_what_is_trained_is_kept_and_only_damage_is_trained_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    inner = Laboratory.run

    def dying(self: Laboratory, *arguments: Any, **options: Any) -> Any:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(self.seed)
        return inner(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Laboratory, "run", dying)
        with pytest.raises(KeyboardInterrupt):
            confirm("s", finalists=2, seeds=2, root=root)
    assert load_study("s", root=root).certificate is None
    first = confirm("s", finalists=2, seeds=2, root=root)
    files = sorted((root / "s" / "confirmation").glob("*/*.safetensors"))
    assert len(files) == 2 * (3 + ("without" in " ".join(first.plain)))
    files[0].write_bytes(files[0].read_bytes()[:-40])
    again: list[int] = []
    monkeypatch.setattr(Laboratory, "run", lambda self, *a, **o: again.append(self.seed) or inner(self, *a, **o))
    second = confirm("s", finalists=2, seeds=2, root=root)
    assert again == [0]
    assert second == Certificate.from_dict({**first.to_dict(), "seen": True})  # by the first


def test_a_network_takes_part_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study("s", root=root)
    records = study.records()
    plain = records[1].candidate.replace(rank=0)
    cut = plain.replace(rank=8, domain_ranks=(0,) * 10)  # adapters of which truncation has left nothing
    records[1] = dataclasses.replace(records[1], candidate=plain, value=0.9)
    records[2] = dataclasses.replace(records[2], candidate=cut, value=0.8)
    records[3] = dataclasses.replace(records[3], value=0.7)
    monkeypatch.setattr(Study, "records", lambda self: records)
    assert [entrant.number for entrant in confirm_module._own(study, 2)] == [0, 1, 3]
    assert as_learned(cut) == as_learned(plain)


def test_test_rows_are_read_for_the_winner_and_the_plain_networks_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    inner = confirm_module._Confirmation._tested

    def tested(self: Any, entrant: Entrant) -> Any:
        read.append(entrant.name)
        return inner(self, entrant)

    monkeypatch.setattr(confirm_module._Confirmation, "_tested", tested)
    found = confirm("s", finalists=2, seeds=2, root=root)
    assert read == [f"trial {found.winner}", *found.plain]
    assert found.seen is False


def test_a_confirmed_winner_holds_until_another_trial_ends(root: Path) -> None:
    found = confirm("s", finalists=1, seeds=2, root=root)
    study = load_study("s", root=root)
    other = 0 if found.winner else 1
    study.set_certificate(Certificate.from_dict({**found.to_dict(), "winner": other}))
    assert study.best().number == other  # type: ignore[union-attr]
    _, difference = export("s", root / "model", root=root)
    card = json.loads((root / "model" / "card.json").read_text())
    assert card["trial"] == card["certificate"]["winner"] == other
    assert difference < 1e-5
    longer = resume("s", root=root, trials=6)
    assert longer.certificate is not None
    assert "it knows the first 5 of 6 trials" in study_text(longer)


def certificate(*leads: tuple[float, float, float], winner: int = 4, **changes: Any) -> Certificate:
    def lead(mean: float, low: float, high: float) -> Difference:
        return Difference(Interval(mean, 0.01), (low, high))

    plain = {f"plain {n}": PlainNetwork(Interval(0.7 - n / 100, 0.002), lead(*own)) for n, own in enumerate(leads)}
    domains = {
        "a": DomainLead(90, lead(0.1, 0.05, 0.2)),
        "b": DomainLead(30, lead(-0.2, -0.3, -0.1)),
        "c": DomainLead(5, None),
    }
    given: dict[str, Any] = {
        "metric": "wauc", "seeds": 5, "trials": 9, "winner": winner,
        "valid": {"trial 0": Interval(0.71, 0.001), "trial 4": Interval(0.72, 0.003)}, "test": Interval(0.73, 0.004),
        "plain": plain, "level": 0.975, "domains": domains, "domain_level": 0.99, "seen": False,
        "seconds": {"s": 600.0, "plain": 300.0},
    }  # fmt: skip
    return Certificate(**given | changes)


BETTER, UNCLEAR, WORSE = (0.03, 0.02, 0.04), (0.02, -0.01, 0.05), (-0.03, -0.05, -0.02)


@pytest.mark.parametrize(
    ("leads", "verdict", "strongest"),
    [
        ([BETTER], "better", "plain 0"),
        ([BETTER, UNCLEAR], "not distinguishable", "plain 1"),
        ([BETTER, UNCLEAR, WORSE], "worse", "plain 2"),
        ([], "plain", None),
    ],
)
def test_the_verdict(leads: list[tuple[float, float, float]], verdict: str, strongest: str | None) -> None:
    found = certificate(*leads)
    assert (found.verdict, found.strongest, found.worst_domain) == (verdict, strongest, "b")
    assert Certificate.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_words(root: Path) -> None:
    study = load_study("s", root=root)
    study.set_certificate(certificate(BETTER, UNCLEAR, trials=5))
    text = study_text(study)
    lines = text[text.index("certificate,") :].splitlines()
    assert lines[0] == (
        "certificate, 5 seeds each: trial 4 is not distinguishable from the strongest plain network, plain 1 "
        "(searched: s for 10.0 min, plain for 5.0 min)"
    )
    assert lines[1] == "chosen by validation wauc: trial 0 0.71000 ± 0.00100, trial 4 0.72000 ± 0.00300"
    assert lines[2] == "test wauc  0.73000 ± 0.00400  trial 4"
    assert lines[3] == (
        "plain 0    0.70000 ± 0.00200  trial 4 ahead by +0.03000 ± 0.01000 over seeds, +0.02000 to +0.04000 over users "
        "(97.5%)"
    )
    assert lines[5] == (
        "beside plain 1, worst in domain b (30 test rows): AUC -0.20000 ± 0.01000 over seeds, -0.30000 to -0.10000 "
        "over users (99.0%); clearly worse in: b"
    )
    assert summary(study)["certificate"]["verdict"] == "not distinguishable"
    study.set_certificate(certificate(winner=0, trials=5, seen=True))
    text = study_text(study)
    assert "no finalist validates better than trial 0, the plain network" in text
    assert "test already seen" in text


def test_bad_confirmations(root: Path, space_file: Path) -> None:
    with pytest.raises(UserError, match="finalists is 6; legal is 1 to 5"):
        confirm("s", finalists=6, root=root)
    with pytest.raises(UserError, match="seeds is 1; it must be 2 or more"):
        confirm("s", seeds=1, root=root)
    with pytest.raises(UserError, match="there is no study absent"):
        confirm("s", plain="absent", root=root)
    lone = search_small(root, root / "plain.yaml", trials=1, study="lone")
    with pytest.raises(UserError, match="study lone has no finished trial but 0"):
        confirm(lone.name, root=root)
    search_small(root, root / "plain.yaml", trials=1, study="other", rows=ROWS + 500)
    with pytest.raises(UserError, match="study other has another dataset than s"):
        confirm("s", plain="other", root=root)
    search_small(root, root / "plain.yaml", trials=1, study="auc", metric="auc")
    with pytest.raises(UserError, match="study auc has another metric than s"):
        confirm("s", plain="auc", root=root)


def test_a_tuned_network_with_a_method_is_not_plain(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = next(record for record in load_study("s", root=root).records() if record.candidate.rank)
    monkeypatch.setattr(Study, "best", lambda self: adapted)
    with pytest.raises(UserError, match="the winner of study plain uses a method"):
        confirm("s", plain="plain", root=root)


def test_logloss_counts_from_above(root: Path, tmp_path: Path) -> None:
    search_small(root, root / "s.yaml", trials=3, study="loss", metric="logloss")
    found = confirm("loss", finalists=2, seeds=2, root=root)
    assert found.valid[f"trial {found.winner}"].mean == min(interval.mean for interval in found.valid.values())
    for plain in found.plain.values():
        assert math.copysign(1, plain.lead.seeds.mean) == math.copysign(1, plain.test.mean - found.test.mean)


def test_a_search_ends_with_its_confirmation(shared: Path, tmp_path: Path) -> None:
    study = search_small(tmp_path, write_space(tmp_path, METHODS, "methods"), trials=4, confirm=2)
    certificate = study.certificate
    assert certificate is not None
    assert (certificate.seeds, certificate.trials) == (2, 4)
    best = study.best()
    assert best is not None
    assert best.number == certificate.winner
    assert "proof" not in study.database.user_attrs  # the test split was read for the certificate alone
    again = resume("s", root=tmp_path)
    assert again.certificate == certificate
    with pytest.raises(UserError, match="seeds is 1; it must be 2 or more"):
        search_small(tmp_path, write_space(tmp_path, METHODS, "methods"), study="t", confirm=1)


def test_the_confirmation_is_within_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(Watcher, "note", lambda _, message: lines.append(message))
    space = write_space(tmp_path, METHODS, "methods")
    began = time.monotonic()
    study = search_small(tmp_path, space, trials=None, time_limit=8.0, confirm=2)
    assert time.monotonic() - began < 12
    assert study.certificate is not None
    assert len(study.records()) > 1
    short = search_small(tmp_path, space, trials=None, time_limit=6.0, confirm=5000, study="short")
    assert short.certificate is None
    assert "no time is left to confirm the winner; go on with: autoctr confirm short" in lines
    assert short.database.user_attrs["proof"]["best"]


@pytest.mark.parametrize(("reserve", "left"), [(0.0, 95.0), (30.0, 65.0), (300.0, 45.0)])
def test_half_of_the_limit_at_most_is_set_aside(reserve: float, left: float) -> None:
    assert Clock(0.0, 100.0, reserve=reserve).left == pytest.approx(left, abs=1.0)
    assert Clock(0.0, None, reserve=reserve).left == math.inf
