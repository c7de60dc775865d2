"""A trial wins only where it leads the plain network on most resamples of the users."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from autoctr.data.dataset import Dataset
from autoctr.report.text import study_text
from autoctr.search.lead import PLAIN, Judge
from autoctr.search.proof import prove
from autoctr.search.record import best_of
from autoctr.search.stored import stored_network
from autoctr.search.study import Study
from autoctr.search.summary import summary
from autoctr.search.trial import Laboratory
from autoctr.training.metrics import score


@pytest.fixture
def study(finished: Study, tmp_path: Path) -> Study:
    """A copy of the finished study that knows no lead and no proof."""
    shutil.copytree(finished.folder, tmp_path / "s")
    copied = Study.load("s", root=tmp_path)
    for name in [PLAIN, *(name for name in copied.database.user_attrs if name.startswith("lead "))]:
        copied.database.set_user_attr(name, None)
    copied.database.set_user_attr("proof", None)
    return copied


def judge(study: Study, dataset: Dataset) -> Judge:
    place = torch.device("cpu")
    laboratory = Laboratory(
        dataset, metric=study.settings.metric, seed=study.settings.seed, device=place, folder=study.folder
    )
    return Judge(study, laboratory)


def test_the_winner_leads_clearly_or_is_trial_0(finished: Study) -> None:
    best = finished.best()
    assert best is not None
    assert best.number == 0 or (best.lead is not None and best.lead[0] > 0)
    better = [r for r in finished.records() if r.number in finished.kept() and (r.value or 0) > (best.value or 0)]
    assert all(r.lead is not None and r.lead[0] <= 0 for r in better)


def test_a_lead_is_measured_where_it_is_missing_and_only_there(study: Study, finished: Study, dataset: Dataset) -> None:
    judge(study, dataset).settle()
    assert [r.lead for r in study.records()] == [r.lead for r in finished.records()]
    measured = {r.number: (-1.0, 1.0) for r in study.records() if r.lead is not None}
    assert measured
    for number, lead in measured.items():
        study.set_lead(number, lead)
    judge(study, dataset).settle()
    assert {r.number: r.lead for r in study.records() if r.number in measured} == measured


@pytest.mark.parametrize("metric", ["wauc", "logloss"])
def test_the_interval_is_that_of_resampled_rows(
    metric: str, study: Study, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against resamples drawn one by one with numpy's generator."""
    settings = dataclasses.replace(study.settings, metric=metric)
    monkeypatch.setattr(Study, "settings", property(lambda _: settings))
    number = next(n for n in study.kept() if n > 0)
    record = next(r for r in study.records() if r.number == number)
    judging = judge(study, dataset)
    plain = judging._of_plain(True)
    assert plain is not None
    low, high = judging._lead(record, plain)
    rows = judge(study, dataset).laboratory.splits.valid
    logits = [stored_network(study, n, dataset, "cpu")[0].logits(rows)[0, :, 0] for n in (number, 0)]
    generator, names = np.random.default_rng(0), dataset.statistics.domains
    users = rows.user.numpy() if rows.user is not None else np.arange(len(rows))
    of_user = [np.flatnonzero(users == user) for user in np.unique(users)]
    found = []
    for _ in range(200):
        drawn = torch.from_numpy(
            np.concatenate([of_user[u] for u in generator.integers(0, len(of_user), len(of_user))])
        )
        ours, theirs = (score(x[drawn], rows.labels[drawn, 0], rows.domain[drawn], names, None) for x in logits)
        found.append(getattr(ours, metric) - getattr(theirs, metric))
    sign = -1 if metric == "logloss" else 1
    spread = np.std(found)
    assert low == pytest.approx(np.quantile(sign * np.array(found), 0.025), abs=0.8 * spread)
    assert high == pytest.approx(np.quantile(sign * np.array(found), 0.975), abs=0.8 * spread)


def test_show_says_how_clear_the_lead_is(study: Study, dataset: Dataset) -> None:
    best = best_of((r for r in study.records() if r.number > 0), "maximize")
    assert best is not None
    plain = study.records()[0]
    assert (best.value or 0) > (plain.value or 0)
    study.set_lead(best.number, (0.01, 0.02))
    prove(study, dataset)
    said = "its lead over the plain network: +0.01000 to +0.02000 (95 %, over the validation users)"
    assert said in study_text(study)
    found = summary(study)["best"]
    table = {line.split()[0]: line.split()[1:] for line in study_text(study).splitlines() if line}
    for metric in ("wauc", "auc", "logloss"):
        low, high = found["difference"][metric]
        assert low <= found["test"][metric] - found["plain"][metric] <= high
        assert [float(word) for word in table[metric][-3:] if word != "to"] == pytest.approx([low, high], abs=1e-5)
    for name, interval in found["difference"]["domains"].items():
        sides = [found[side]["domains"].get(name, {}).get("auc") for side in ("test", "plain")]
        assert (interval is None) == (None in sides)
        if interval is not None:
            assert interval[0] <= sides[0] - sides[1] <= interval[1]
    sizes = {r.number: (r.parameters, max((r.multiply_adds or {})["open"])) for r in study.records() if r.parameters}
    (parameters, cost), (plain_parameters, plain_cost) = sizes[best.number], sizes[0]
    shown = study_text(study)
    assert f"parameters without the embedding table: {parameters:,} (trial 0: {plain_parameters:,})" in shown
    assert f"multiply-adds per row: {cost:,} (trial 0: {plain_cost:,})" in shown
    study.set_lead(best.number, (-0.01, 0.02))
    prove(study, dataset)
    text = study_text(study)
    assert "winner: trial 0" in text
    assert f"trial {best.number} has {best.value:.5f}, but no clear lead over the plain network: -0.01000 to" in text
