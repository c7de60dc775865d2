"""A comparison trains each model with each seed once, in pairs, and goes on from its file."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_study import ROWS

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.architecture import FIXED
from autoctr.model.build import dense_parameters
from autoctr.model.candidate import Candidate, ranks
from autoctr.report.comparison import comparison_markdown, comparison_text
from autoctr.search import heldout, trial
from autoctr.search.baselines import BASELINES, baseline, wired, without_methods
from autoctr.search.compare import Comparison, compare, read_winner, winner
from autoctr.search.deliver import export
from autoctr.search.proposal import plain
from autoctr.search.record import Record
from autoctr.search.results import Results, Run, run_key
from autoctr.search.space import load_space
from autoctr.search.study import Study
from autoctr.search.summary import summary
from autoctr.search.trial import Laboratory
from autoctr.training.bootstrap import percentile_interval
from autoctr.training.cohort import Cohort, frozen_tables
from autoctr.training.fit import Diverged
from autoctr.training.intervals import mean_interval

SMALL = Candidate(width=8, embedding=4, blocks=1, batch=512, epochs=2, learning_rate=0.01)
COLUMNS = ["model", "calibration", "ECE", "parameters", "multiply-adds", "seconds"]
TWO = {"flat": SMALL.replace(architecture="deep"), "crossed": SMALL}


def run(out: Path, models: Any = TWO, **options: Any) -> Comparison:
    return compare("taobao-sim", models=models, rows=ROWS, device="cpu", out=out, **{"seeds": 2, **options})


def without_seconds(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    place = rows[0].index("seconds")
    return [row[:place] + row[place + 1 :] for row in rows]


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever trains fails the test."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Laboratory, "run", refuse)


@pytest.fixture(scope="module")
def whole(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A comparison that was never stopped; look at it, but do not add to its file."""
    from search.conftest import make_small

    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, shared)
        return run(tmp_path_factory.mktemp("whole") / "c.csv")


def test_a_row_per_model_and_seed(whole: Comparison, dataset: Dataset) -> None:
    with open(whole.out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["model"]) for row in rows] == [(s, m) for s in "01" for m in TWO]
    assert {row["dataset_key"] for row in rows} == {dataset.key}
    assert len({row["key"] for row in rows} | {row["wauc"] for row in rows}) == 8
    for row in rows:
        assert 0 < float(row["ece"]) < 1
        assert float(row["worst_auc"]) < float(row["wauc"]) < 1
        assert float(row["wauc_error"]) > 0
    by_model = {row["model"]: row for row in rows}
    assert int(by_model["crossed"]["parameters"]) > int(by_model["flat"]["parameters"])
    assert int(by_model["crossed"]["multiply_adds"]) > int(by_model["flat"]["multiply_adds"])
    assert Results(whole.out).runs() == list(whole.runs)
    assert sorted(path.stem for path in whole.out.with_suffix("").glob("*.safetensors")) == sorted(
        row["key"] for row in rows
    )


def _after(patch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """Ctrl-C right after ``call`` calls."""
    inner, calls = getattr(owner, name), [0]

    def outer(*arguments: Any, **options: Any) -> Any:
        result = inner(*arguments, **options)
        calls[0] += 1
        if calls[0] == call:
            raise KeyboardInterrupt
        return result

    patch.setattr(owner, name, outer)


@pytest.mark.parametrize(
    ("owner", "name", "call"), [(Results, "append", 1), (Results, "keep", 2), (Cohort, "step", 3), (Results, "find", 1)]
)
def test_a_stopped_comparison_ends_as_one_that_was_not(
    owner: Any, name: str, call: int, whole: Comparison, tmp_path: Path
) -> None:
    out = tmp_path / "c.csv"
    with pytest.MonkeyPatch.context() as patch:
        _after(patch, owner, name, call)
        with pytest.raises(KeyboardInterrupt):
            run(out)
    before = len(without_seconds(out)) if out.exists() else 0
    assert before < 5
    again = run(out)
    assert without_seconds(out) == without_seconds(whole.out)
    assert comparison_text(again).split("parameters")[0] == comparison_text(whole).split("parameters")[0]
    for path in whole.out.with_suffix("").glob("*.safetensors"):
        assert (out.with_suffix("") / path.name).read_bytes() == path.read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.usefixtures("no_training")
def test_nothing_is_run_twice(whole: Comparison) -> None:
    content = whole.out.read_bytes()
    lines: list[str] = []
    again = run(whole.out, on_line=lines.append)
    assert again.runs == whole.runs
    assert comparison_text(again) == comparison_text(whole)
    assert lines[0].startswith("taobao-sim: 4 runs, 4 of them in ")
    assert whole.out.read_bytes() == content


def test_only_what_changed_is_run(whole: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "c.csv"
    out.write_bytes(whole.out.read_bytes())
    trained: list[Candidate] = []
    inner = Laboratory.run

    def counted(self: Laboratory, candidate: Candidate, **options: Any) -> Any:
        trained.append(candidate)
        return inner(self, candidate, **options)

    monkeypatch.setattr(Laboratory, "run", counted)
    run(out, {**TWO, "crossed": SMALL.replace(learning_rate=0.02)})
    assert [candidate.learning_rate for candidate in trained] == [0.02, 0.02]
    run(out, seeds=3)
    assert len(trained) == 4
    capped = run(out, epochs=1)
    assert len(trained) == 8
    assert {candidate.epochs for candidate in trained[4:]} == {1}
    assert [capped.of("flat")[0].wauc] != [whole.of("flat")[0].wauc]
    run(out, metric="auc")
    assert len(trained) == 12
    assert len(Results(out).runs()) == 4 + 12


def test_the_same_model_under_another_name_gets_a_row_without_training(
    whole: Comparison, tmp_path: Path, no_training: None
) -> None:
    out = tmp_path / "c.csv"
    out.write_bytes(whole.out.read_bytes())
    renamed = run(out, {"one": TWO["crossed"]})
    assert [run.wauc for run in renamed.runs] == [run.wauc for run in whole.of("crossed").values()]
    assert [run.model for run in Results(out).runs()[4:]] == ["one", "one"]


def test_keys_differ_where_results_may(dataset: Dataset) -> None:
    other = dataclasses.replace(dataset, key="x")
    keys = {
        run_key(SMALL, dataset, "wauc", 0),
        run_key(SMALL, dataset, "wauc", 1),
        run_key(SMALL, dataset, "auc", 0),
        run_key(SMALL, other, "wauc", 0),
        run_key(SMALL.replace(dropout=0.1), dataset, "wauc", 0),
    }
    assert len(keys) == 5
    assert run_key(SMALL.replace(seed=3), dataset, "wauc", 0) in keys


def test_the_same_seed_gives_the_same_batches_and_the_same_embedding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    draws: set[int] = set()
    resample = heldout.bootstrap

    def drawing(*arguments: Any, seed: int, **options: Any) -> Any:
        draws.add(seed)
        return resample(*arguments, seed=seed, **options)

    monkeypatch.setattr(heldout, "bootstrap", drawing)
    inner = Cohort.step

    def spied(self: Cohort, batch: Any, **options: Any) -> Any:
        if self.steps == 0:
            seen.append((self.table.clone(), batch.ids.clone()))
        return inner(self, batch, **options)

    monkeypatch.setattr(Cohort, "step", spied)
    run(tmp_path / "c.csv", {**TWO, "wide": SMALL.replace(width=16, learning_rate=0.02)})
    assert len(draws) == 1
    first, second = seen[:3], seen[3:]
    for group in (first, second):
        assert all(torch.equal(table, group[0][0]) and torch.equal(ids, group[0][1]) for table, ids in group)
    assert not torch.equal(first[0][0], second[0][0])
    assert not torch.equal(first[0][1], second[0][1])


def test_differences_are_paired_by_seed_and_by_resample(whole: Comparison) -> None:
    flat, crossed = whole.of("flat"), whole.of("crossed")
    found = whole.difference("crossed")
    assert found is not None
    differences = [(crossed[seed].wauc or 0) - (flat[seed].wauc or 0) for seed in (0, 1)]
    assert found.seeds == mean_interval(differences)
    resampled = [whole.resamples[crossed[s].key] - whole.resamples[flat[s].key] for s in (0, 1)]
    assert found.users == percentile_interval((resampled[0] + resampled[1]) / 2)
    assert found.users is not None
    assert found.users[0] < found.seeds.mean < found.users[1]
    assert whole.interval("flat", "ece") == mean_interval([run.ece for run in flat.values()])
    gone = dataclasses.replace(whole, resamples={})
    assert gone.difference("crossed") == dataclasses.replace(found, users=None)


ON: dict[str, Any] = {
    "architecture": "full", "wiring": FIXED["full"](1), "rank_divisor": 4, "domain_ranks": (2,) * 10, "sparsity": 0.2,
    "keep_rate": 0.5, "ticket_rounds": 1, "warm_start": 0.5, "snapshots": 2,
}  # fmt: skip


def test_a_twin_is_the_winner_without_its_methods(tmp_path: Path) -> None:
    crossed = SMALL.replace(cross="fm", dropout=0.4)
    assert without_methods(crossed.replace(**ON)) == wired(crossed).effective()
    for name, field in (("methods", crossed.replace(rank=4)), ("nothing", crossed)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"candidate": wired(field).to_dict()}))
    files = [tmp_path / "methods.json", tmp_path / "nothing.json"]
    found = run(tmp_path / "c.csv", TWO, winners=files, twins=True, seeds=1, epochs=1)
    assert found.models == ("flat", "crossed", "methods", "nothing", "methods-off")
    assert found.twins == {"methods": "methods-off"}
    off, same = found.of("methods-off")[0], found.of("nothing")[0]
    assert off.key == same.key  # trained once
    difference = found.difference("methods", beside="methods-off")
    assert difference is not None
    assert difference.seeds.mean == (found.of("methods")[0].wauc or 0) - (off.wauc or 0)
    taken = {"methods-off": SMALL}
    with pytest.raises(UserError, match="methods-off is named twice"):
        run(tmp_path / "c.csv", taken, winners=files[:1], twins=True, seeds=1)


def test_all_models_train_in_one_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    inner = Laboratory.run

    def spied(self: Laboratory, candidate: Candidate, **options: Any) -> Any:
        seen.append(candidate.precision)
        return inner(self, candidate, **options)

    monkeypatch.setattr(Laboratory, "run", spied)
    halves = {"flat": TWO["flat"], "half": SMALL.replace(precision="bf16")}
    for options in ({}, {"precision": "bf16"}):
        run(tmp_path / "c.csv", halves, seeds=1, epochs=1, **options)
    assert seen == ["fp32", "fp32", "bf16", "bf16"]


def made(model: str, seed: int, **values: Any) -> Run:
    metrics = {"auc": 0.7, "wauc": 0.7, "mean_auc": 0.7, "worst_auc": 0.6, "gauc": None, "logloss": 0.5}
    more = {"calibration": 1.0, "ece": 0.01, "auc_error": 0.1, "wauc_error": 0.1, "logloss_error": 0.1}
    counts = {"parameters": 1234, "embedding_parameters": 10, "multiply_adds": 5678, "seconds": 1.26}
    key = f"{model}{seed}"
    fixed = {"dataset": "d", "metric": "wauc", "dataset_key": "k", "key": key, "model": model, "seed": seed}
    return Run(**{**metrics, **more, **counts, **fixed, **values})  # type: ignore[arg-type]


def test_the_table_reads_as_written_here(tmp_path: Path) -> None:
    runs = (
        made("a", 0), made("b", 0, wauc=0.72, worst_auc=None),
        made("a", 1, wauc=0.71), made("b", 1, wauc=0.74, worst_auc=None),
    )  # fmt: skip
    resamples = {run.key: torch.full((5,), run.wauc or 0.0, dtype=torch.float64) for run in runs}
    models = ("a", "b", "lost")
    comparison = Comparison(
        "d", "wauc", 1000, models, {"b": "a"}, runs, resamples, ("lost seed 0 failed: diverged",), tmp_path
    )
    lines = comparison_text(comparison).splitlines()
    assert lines[0] == "d: 1,000 test rows; the best pass is chosen by validation WAUC"
    assert lines[2].split() == ["model", "seeds", "AUC", "WAUC", "mean", "AUC", "worst", "AUC", "log-loss"]
    assert (
        lines[3] == "a          2  0.7000 ± 0.0000  0.7050 ± 0.0635  0.7000 ± 0.0000  0.6000 ± 0.0000  0.5000 ± 0.0000"
    )
    assert lines[4].split()[11] == "-"
    assert lines[5].split() == ["lost", "0", "-", "-", "-", "-", "-"]
    assert lines[7].split() == [*COLUMNS, "Δ", "WAUC", "users"]
    assert lines[8].split()[7:] == ["1,234", "5,678", "1.3", "-", "-"]
    assert lines[9].endswith("1,234          5,678      1.3  +0.0250 ± 0.0635  +0.0250 to +0.0250")
    worth = "b beside itself with every method off: Δ WAUC +0.0250 ± 0.0635, users +0.0250 to +0.0250"
    assert lines[11:14] == ["", worth, ""]
    assert lines[-1] == "lost seed 0 failed: diverged"
    table = [line for line in comparison_markdown(comparison).splitlines() if line.startswith("|")]
    assert len(table) == 5
    assert len({line.count("|") for line in table}) == 1
    assert "| 0.7300 ± 0.1271 |" in table[3]
    alone = dataclasses.replace(comparison, models=("a",), twins={}, runs=runs[:1], failures=())
    assert "Δ" not in comparison_text(alone)
    assert "±" not in comparison_text(alone).splitlines()[3]


def test_a_model_that_fails_is_named_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Laboratory.run

    def failing(self: Laboratory, candidate: Candidate, **options: Any) -> Any:
        if candidate.architecture == "deep" and self.seed == 1:
            raise Diverged
        return inner(self, candidate, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Laboratory, "run", failing)
        found = run(tmp_path / "c.csv")
    assert found.failures == ("flat seed 1 failed: diverged",)
    assert [(run.seed, run.model) for run in found.runs] == [(0, "flat"), (0, "crossed"), (1, "crossed")]
    difference = found.difference("crossed")
    assert difference is not None
    assert difference.seeds.half is None
    assert len(run(tmp_path / "c.csv").runs) == 4


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_train(name: str, tmp_path: Path) -> None:
    found = run(tmp_path / "c.csv", [name], seeds=1, epochs=1)
    assert found.failures == ()
    (result,) = found.runs
    assert result.parameters > 10_000
    assert result.multiply_adds > 10_000
    assert 0 < result.logloss < 1


def test_trap_3_8_3_baselines_share_size_and_training_with_trial_0() -> None:
    trial_0 = plain(load_space("joint"))
    own = ("architecture", "cross", "backbone", "wiring")
    for name in BASELINES:
        candidate = baseline(name)
        kept = {field: value for field, value in candidate.to_dict().items() if field not in own}
        assert kept == {field: value for field, value in trial_0.to_dict().items() if field not in own}
    assert wired(trial_0) == baseline("dcn-v2")
    assert len({baseline(name).canonical() for name in BASELINES}) == len(BASELINES)
    with pytest.raises(UserError, match="architecture inherit needs a wiring"):
        wired(Candidate(architecture="inherit"))


def test_parameters_leave_out_padding(dataset: Dataset) -> None:
    candidates = [wired(SMALL.replace(rank=rank, rank_tilt=1.0)) for rank in (0, 3)]
    tables = frozen_tables(dataset)
    networks = [Cohort(dataset.statistics, [candidate], tables, ramp=1).network for candidate in candidates]
    shared, adapted = map(dense_parameters, networks)
    assert networks[1].layout.size - networks[0].layout.size > adapted - shared
    used = ranks(candidates[1], dataset.statistics.domain_rows)
    assert len(set(used)) > 1
    assert adapted - shared == sum(16 * rank + 8 for rank in used)


def best_is(patch: pytest.MonkeyPatch, record: Record | None) -> None:
    patch.setattr(Study, "best", lambda study: record)


def test_winners_of_studies(
    finished: Study, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path
) -> None:
    learned = next(r for r in finished.records() if r.candidate.architecture == "learn" and r.candidate.wiring)
    supernets: list[int] = []
    inner = trial.train_supernets

    def counted(candidates: Sequence[Candidate], *arguments: Any, **options: Any) -> Any:
        supernets.extend(candidate.seed for candidate in candidates)
        return inner(candidates, *arguments, **options)

    monkeypatch.setattr(trial, "train_supernets", counted)
    for retrain, expected in (("scratch", 0), ("supernet", 2)):
        changed = learned.candidate.replace(retrain=retrain, seed=5)
        best_is(monkeypatch, dataclasses.replace(learned, candidate=changed))
        candidate = winner(finished, dataset)
        assert (candidate.wiring, candidate.seed) == (changed.wiring, 0)
        found = run(tmp_path / "c.csv", {"flat": TWO["flat"]}, studies=["s"], root=shared / "studies")
        assert found.models == ("flat", "s")
        assert len(found.runs) == 4
        assert len(set(supernets)) == expected
    best_is(monkeypatch, None)
    with pytest.raises(UserError, match="study s has no finished trial; go on with: autoctr resume s"):
        winner(finished, dataset)
    best_is(monkeypatch, learned)
    with pytest.raises(UserError, match="study s is of taobao-sim as it was encoded then, not of this taobao-sim"):
        winner(finished, dataclasses.replace(dataset, key="x"))


def test_winners_from_files(finished: Study, dataset: Dataset, tmp_path: Path, no_training: None) -> None:
    printed, card = tmp_path / "printed.json", tmp_path / "model" / "card.json"
    printed.write_text(json.dumps(summary(finished)))
    best = finished.best()
    assert best is not None
    export("s", card.parent, root=finished.folder.parent)
    assert read_winner(printed) == ("s", best.candidate)
    assert read_winner(card) == ("model", best.candidate)
    other = next(record for record in finished.records() if record.number != best.number)
    trial = tmp_path / "second.json"
    trial.write_text(json.dumps(other.to_dict()))
    assert read_winner(trial) == ("second", other.candidate) != ("second", best.candidate)
    out = Results(tmp_path / "c.csv")
    key = run_key(winner(finished, dataset).replace(precision="fp32"), dataset, "wauc", 0)
    out.append(made("s", 0, key=key, dataset=dataset.name, dataset_key=dataset.key))
    found = run(out.path, [], winners=[printed, card], seeds=1)
    assert [run.model for run in found.runs] == ["s", "model"]
    assert {run.key for run in found.runs} == {key}
    for content in (
        "{}",
        "[]",
        '{"study": "s", "best": null}',
        '{"study": "s", "best": {"candidate": {"width": -1}}}',
        "?",
    ):
        printed.write_text(content)
        with pytest.raises(
            UserError, match=r"printed.json holds no candidate \(.+\); legal are what autoctr show NAME --json"
        ):
            read_winner(printed)
    with pytest.raises(UserError, match=r"there is no file .*absent\.json"):
        read_winner(tmp_path / "absent.json")
    ranked = {**best.candidate.to_dict(), "rank": 2, "domain_ranks": [1, 2]}
    card.write_text(json.dumps({"autoctr_export": 1, "candidate": ranked}))
    with pytest.raises(UserError, match="model has learned ranks for 2 domains, but taobao-sim has 10; take data"):
        run(out.path, [], winners=[card])


def test_two_processes_may_add_to_one_file(tmp_path: Path) -> None:
    one, other = Results(tmp_path / "c.csv"), Results(tmp_path / "c.csv")
    one.append(made("a", 0))
    other.append(made("b", 0))
    one.append(made("b", 0, seconds=9.0))
    assert [(run.model, run.seconds) for run in one.runs()] == [("a", 1.26), ("b", 1.26)]
    assert one.runs()[0] == made("a", 0)
