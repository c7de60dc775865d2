"""Exports of some domains only: the others are scored as unknown ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import MARKETS, TASKS, fake_columns, fake_dataset, fake_encoder
from safetensors.torch import load_file

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.export.folder import write_folder
from autoctr.export.scope import Scope
from autoctr.export.verify import searched_probabilities
from autoctr.model.architecture import CONCAT
from autoctr.model.candidate import Candidate
from autoctr.report.export import export_lines
from export.members import generated, load_predict, member, run, scope_of, uniform_wiring

FUSION: dict[str, Any] = {"embedding": 4, "width": 8, "wiring": uniform_wiring(CONCAT)}
CASES: dict[str, dict[str, Any]] = {
    "adapters": FUSION | {"rank": 2, "rank_tilt": 1.5},
    "tickets": FUSION | {"keep_rate": 0.4, "rank": 1},
    "static pruners": FUSION | {"sparsity": 0.5, "pruner_input": "domain", "input_pruner": True},
    "pruners": FUSION | {"sparsity": 0.4, "input_pruner": True, "rank": 2},
    "fields": FUSION | {"width": 0, "sparsity": 0.5, "pruner_input": "domain", "input_pruner": True},
    **{kind: {"embedding": 4, "width": 8, "backbone": kind} for kind in ("mmoe", "ple", "star", "pepnet")},
}
CHOICES = [("fr",), ("us", "de"), ("de", "fr", "jp"), MARKETS]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return fake_dataset(tmp_path_factory.mktemp("data") / "fake", tasks=TASKS, unseen=0.1)


@pytest.mark.parametrize("names", CHOICES)
@pytest.mark.parametrize("case", CASES)
def test_other_domains_are_unknown(case: str, names: tuple[str, ...], dataset: Dataset) -> None:
    cohort = member(dataset, Candidate(**CASES[case]))
    scope, rows = scope_of(cohort, *names), dataset.valid
    expected = searched_probabilities(cohort, scope.searched_rows(rows), torch.float64)
    model = generated(cohort, *names, dtype=torch.float64)
    found = run(model, scope.exported_rows(rows), torch.float64)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    whole = searched_probabilities(cohort, rows, torch.float64)
    known = np.isin(rows.domain, scope.numbers)
    np.testing.assert_allclose(expected[known], whole[known], rtol=0, atol=1e-12)
    if len(names) < len(MARKETS):
        others = ~known & (rows.domain < len(MARKETS))
        assert np.abs(expected[others] - whole[others]).max() > 1e-3
    small, large = (sum(t.numel() for t in m.state_dict().values()) for m in (model, generated(cohort)))
    assert small < large or names == MARKETS
    assert model.embedding.weight.shape[0] == dataset.statistics.vocabulary - len(MARKETS) + len(names)


@pytest.mark.parametrize("case", ["tickets", "mmoe"])
def test_raw_values_are_encoded_for_the_domains_that_are_there(case: str, dataset: Dataset, tmp_path: Path) -> None:
    cohort = member(dataset, Candidate(**CASES[case]))
    out, difference = write_folder(cohort, dataset, tmp_path / "out", {}, domains=["us", "de"])
    assert difference < 1e-5
    predict = load_predict(out, "scoped_predict")
    model = predict.load(out)
    assert model.encoder.domains == ("de", "us")
    columns = {name: values for name, values in fake_columns(60, 5, unseen=0.1).items() if name not in TASKS}
    rows = Scope.of(dataset.statistics, fake_encoder(TASKS), ["de,us"]).searched_rows(
        fake_encoder(TASKS).encode(columns)
    )
    expected = searched_probabilities(cohort, rows, torch.float32)
    np.testing.assert_allclose(predict.predict(model, columns), expected, rtol=0, atol=1e-5)
    strangers = {**columns, "market": ["atlantis" if name in ("fr", "jp") else name for name in columns["market"]]}
    np.testing.assert_array_equal(predict.predict(model, strangers), predict.predict(model, columns))
    card = json.loads((out / "card.json").read_text())
    assert card["domains"] == {"exported": ["de", "us"], "as_unknown": ["fr", "jp"]}
    assert [own["domain"] for own in card["footprint"]["domains"]] == ["de", "us", "unknown"]
    assert export_lines(out)[0] == "holds de, us; rows of the 2 other domains are scored as of an unknown domain"
    weights = load_file(out / "weights.safetensors")
    if case == "mmoe":
        tower = cohort.network.layout.views(cohort.flat)["tower.weight"][0].mT
        torch.testing.assert_close(weights["tower.weight"], torch.cat([tower[[0, 3]], tower.mean(0, keepdim=True)]))


def test_names() -> None:
    dataset = fake_dataset(tasks=TASKS)
    encoder = fake_encoder(TASKS)

    def numbers(*names: str) -> tuple[int, ...]:
        return Scope.of(dataset.statistics, encoder, names).numbers

    assert numbers("us", "fr") == numbers("us, fr") == (1, 3)
    assert numbers("us,fr", "us") == (1, 3)
    assert Scope.of(dataset.statistics, encoder).is_whole
    with pytest.raises(UserError, match="there is no domain 'xx', 'yy'; legal are de, fr, jp, us"):
        numbers("us,xx", "yy")
    with pytest.raises(UserError, match="no domain is named; legal are de, fr, jp, us"):
        numbers()


def test_a_name_may_hold_a_comma() -> None:
    dataset, encoder = fake_dataset(tasks=TASKS), fake_encoder(TASKS)
    statistics = dataclasses.replace(dataset.statistics, domains=("a,b", "c", "a", "d"))
    assert Scope.of(statistics, encoder, ["a,b"]).numbers == (0,)
    assert Scope.of(statistics, encoder, ["a,b", "c,d"]).numbers == (0, 1, 3)
