"""Models side by side: each trained from scratch with several seeds, tested once, and remembered in a csv file."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.build import dense_parameters, multiply_adds
from autoctr.model.candidate import RANGES, Candidate
from autoctr.search.baselines import BASELINES, baseline, wired, without_methods
from autoctr.search.heldout import HeldOut
from autoctr.search.inputs import check_scorable, find_device
from autoctr.search.results import Results, Run, run_key
from autoctr.search.run import load_study
from autoctr.search.seeds import derive
from autoctr.search.study import DEFAULT_ROOT, Study
from autoctr.training.bootstrap import difference
from autoctr.training.fit import Diverged, Rung
from autoctr.training.intervals import Difference, Interval, mean_interval
from autoctr.training.metrics import METRICS
from autoctr.training.periods import obstacle
from autoctr.training.precision import find_precision

if TYPE_CHECKING:
    from autoctr.search.trial import Laboratory


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs of several models with the same seeds.

    ``twins`` names, for a model with methods, the same without them. ``resamples`` holds the metric of each run, by its
    key, on the same resamples of the test users; ``failures`` says in a line each which runs gave no result, and
    ``out`` is the csv file.
    """

    dataset: str
    metric: str
    test_rows: int
    models: tuple[str, ...]
    twins: Mapping[str, str]
    runs: tuple[Run, ...]
    resamples: Mapping[str, Tensor]
    failures: tuple[str, ...]
    out: Path

    def of(self, model: str) -> dict[int, Run]:
        """A model's runs by their seed."""
        return {run.seed: run for run in self.runs if run.model == model}

    def interval(self, model: str, column: str) -> Interval | None:
        """Mean and 95 % interval over the seeds of a model's column; None where no seed defines it."""
        values = [getattr(run, column) for run in self.of(model).values()]
        defined = [value for value in values if value is not None]
        return mean_interval(defined) if defined else None

    def difference(self, model: str, beside: str | None = None) -> Difference | None:
        """The model's metric minus that of another, by default of the first; None where no seed has both."""
        ours, theirs = self.of(model), self.of(self.models[0] if beside is None else beside)
        pairs = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
        values = [(getattr(mine, self.metric), getattr(other, self.metric)) for mine, other in pairs]
        defined = [mine - other for mine, other in values if mine is not None and other is not None]
        if not defined:
            return None
        resampled = None
        if all(run.key in self.resamples for pair in pairs for run in pair):
            resampled = [self.resamples[mine.key] - self.resamples[other.key] for mine, other in pairs]
        return difference(defined, resampled)


def compare(
    dataset: str | None = None,
    *,
    models: Sequence[str] | Mapping[str, Candidate] | None = None,
    studies: Sequence[str] = (),
    winners: Sequence[Path | str] = (),
    twins: bool = False,
    seeds: int = 5,
    metric: str = "wauc",
    precision: str = "fp32",
    epochs: int | None = None,
    data: Path | str | None = None,
    table: Path | str | None = None,
    schema: Path | str | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    data_seed: int | None = None,
    root: Path | str = DEFAULT_ROOT,
    storage: str | None = None,
    on_line: Callable[[str], None] = lambda text: None,
    on_progress: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Comparison:
    """Train models from scratch with the same seeds and test them on the same rows.

    The same seed gives all models the same order of the training rows and the same start of every weight that they
    share by name and shape, the embedding table above all.

    Args:
        dataset: name of a built-in data set; or ``table`` and ``schema`` for one's own.
        models: names of ``BASELINES``, all by default, or candidates by name; differences are to the first.
        studies: each adds its winner under its own name.
        winners: files with a winner; see :func:`read_winner`.
        twins: beside each winner that uses a method, the same with every method off, named ``NAME-off``.
        seeds: 0, 1, ... seeds - 1.
        metric: ``wauc``, ``auc`` or ``logloss`` of the first label: chooses the best pass on validation.
        precision: of all models' training steps: ``fp32``, so that a file can be continued on any machine, ``bf16``, or
            ``auto``, whichever the device is made for.
        epochs: most passes over the training rows; by default each model's own.
        data: folder of the built-in data set's raw files.
        out: csv file, ``results/compare-DATASET.csv`` in ``root`` by default. What it holds is not run again.
        on_line: told each finished run. on_progress: told what is going on.
        options: of the data set, such as ``rows`` of ``taobao-sim``.

    Raises:
        UserError: for whatever the user can mend.
    """
    from autoctr.data.presets import load_dataset

    if metric not in METRICS:
        raise UserError(f"unknown metric {metric!r}; legal are {', '.join(METRICS)}")
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; it must be 1 or more")
    low, high = RANGES["epochs"]
    if epochs is not None and not low <= epochs <= high:
        raise UserError(f"epochs is {epochs}; legal is {low:g} to {high:g}")
    number = find_precision(precision, torch.device(find_device(device)))
    names = list(BASELINES) if models is None else list(models)
    read = [read_winner(Path(path)) for path in winners]
    every = [*names, *studies, *(name for name, _ in read)]
    twice = sorted({name for name in every if every.count(name) > 1})
    if twice:
        raise UserError(f"{', '.join(twice)} is named twice; every model needs a name of its own")
    if not every:
        raise UserError(f"no model is named; legal are {', '.join(BASELINES)}")
    chosen = {name: wired(models[name]) if isinstance(models, Mapping) else baseline(name) for name in names}
    opened = [load_study(name, root=root, storage=storage) for name in studies]
    where = {name: Path(value) for name, value in (("data", data), ("table", table), ("schema", schema)) if value}
    encoded = load_dataset(dataset, **where, **options, seed=data_seed)
    check_scorable(encoded, metric)
    chosen |= {study.name: winner(study, encoded) for study in opened}
    chosen |= {name: as_learned(candidate) for name, candidate in read}
    for name, candidate in chosen.items():
        check_fits(name, candidate, encoded)
    changes: dict[str, Any] = {"precision": number} if epochs is None else {"precision": number, "epochs": epochs}
    chosen = {name: candidate.replace(**changes) for name, candidate in chosen.items()}
    paired: dict[str, str] = {}
    if twins:
        for name in (*(study.name for study in opened), *(name for name, _ in read)):
            plain = without_methods(chosen[name])
            if plain != chosen[name].effective():
                paired[name] = f"{name}-off"
        if clash := sorted(chosen.keys() & set(paired.values())):
            raise UserError(f"{', '.join(clash)} is named twice; every model needs a name of its own")
        chosen |= {twin: without_methods(chosen[name]) for name, twin in paired.items()}
    stem = re.sub(r"[^A-Za-z0-9._]+", "-", encoded.name)
    results = Results(Path(out) if out is not None else Path(root) / "results" / f"compare-{stem}.csv")
    bench = _Bench(encoded, chosen, paired, metric, torch.device(find_device(device)), results, on_line, on_progress)
    return bench.run(range(seeds))


def check_fits(name: str, candidate: Candidate, dataset: Dataset) -> None:
    """Whether the data have what a candidate from elsewhere needs.

    Raises:
        UserError: if not.
    """
    problem, domains = obstacle(dataset), len(dataset.statistics.domains)
    if candidate.snapshots and problem is not None:
        raise UserError(f"model {name} reads snapshots, but {dataset.name} {problem}; set its snapshots to 0")
    if candidate.domain_ranks is not None and len(candidate.domain_ranks) != domains:
        raise UserError(
            f"{name} has learned ranks for {len(candidate.domain_ranks)} domains, but {dataset.name} has "
            f"{domains}; take data with the same domains"
        )


def winner(study: Study, dataset: Dataset) -> Candidate:
    """The candidate of a study's winner; the wiring and the ranks that it learned stay.

    If the winner started from its supernet's weights, it will again, from a supernet of each seed's own.

    Raises:
        UserError: if the study has none, or is of other data.
    """
    stored, source = study.database.user_attrs["fingerprint"]["dataset"], study.settings.source
    if stored != dataset.key:
        raise UserError(
            f"study {study.name} is of {source.get('name') or source.get('table')} as it was encoded then, not of this "
            f"{dataset.name}; compare it on its own data, with the same files, schema and options"
        )
    best = study.best()
    if best is None:
        raise UserError(f"study {study.name} has no finished trial; go on with: autoctr resume {study.name}")
    return as_learned(best.candidate)


def read_winner(path: Path) -> tuple[str, Candidate]:
    """A name and a candidate, from what ``autoctr show NAME --json`` prints or an export's ``card.json``.

    The name is the study's, or that of the export's folder. What ``show NAME --trial N --json`` prints is read as well,
    for a trial that did not win; its name is the file's.

    Raises:
        UserError: if the file holds no candidate.
    """
    try:
        content = json.loads(path.read_text())
        exported = "autoctr_export" in content
        held = content.get("best") if "study" in content and not exported else content
        if not held or "candidate" not in held:
            raise ValueError("no candidate is in it")
        name = path.resolve().parent.name if exported else str(content.get("study", path.stem))
        return name, Candidate.from_dict(held["candidate"])
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds no candidate ({error}); legal are what autoctr show NAME --json prints, with --trial or "
            "without, and an export's card.json"
        ) from error


def as_learned(candidate: Candidate) -> Candidate:
    """``candidate`` as others may train it again: what it learned stays."""
    if candidate.architecture == "learn" and candidate.retrain == "scratch":
        candidate = candidate.replace(architecture="inherit")
    found = candidate.domain_ranks
    if found is not None:
        candidate = candidate.replace(truncate=False)
        if not any(found):  # what truncation leaves where the adapters were worth nothing
            candidate = candidate.replace(rank=0, rank_divisor=0, domain_ranks=None)
    return candidate.replace(seed=0)


@dataclasses.dataclass
class _Bench:
    """Everything that a comparison's runs share."""

    dataset: Dataset
    models: Mapping[str, Candidate]
    twins: Mapping[str, str]
    metric: str
    device: torch.device
    results: Results
    on_line: Callable[[str], None]
    on_progress: Callable[[str], None]

    def run(self, seeds: Iterable[int]) -> Comparison:
        """Train what the file lacks, seed by seed, and read everything back."""
        wanted = [(seed, model, self._key(model, seed)) for seed in seeds for model in self.models]
        missing = [(seed, model) for seed, model, key in wanted if self.results.find(key, model) is None]
        self.on_line(
            f"{self.dataset.name}: {len(wanted)} runs, {len(wanted) - len(missing)} of them in {self.results.path}; "
            f"the best pass is chosen by validation {self.metric}"
        )
        failures: list[str] = []
        for seed in sorted({seed for seed, _ in missing}):
            with tempfile.TemporaryDirectory() as folder:
                self._run_seed(seed, [model for due, model in missing if due == seed], Path(folder), failures)
        runs = [run for _, model, key in wanted if (run := self.results.find(key, model)) is not None]
        resamples = {run.key: self.results.resamples(run.key, self.metric) for run in runs}
        return Comparison(
            dataset=self.dataset.name,
            metric=self.metric,
            test_rows=len(self.dataset.test),
            models=tuple(self.models),
            twins=self.twins,
            runs=tuple(runs),
            resamples={key: values for key, values in resamples.items() if values is not None},
            failures=tuple(failures),
            out=self.results.path,
        )

    def _key(self, model: str, seed: int) -> str:
        return run_key(self.models[model], self.dataset, self.metric, seed)

    def _run_seed(self, seed: int, models: list[str], folder: Path, failures: list[str]) -> None:
        from autoctr.search.trial import Laboratory

        laboratory = Laboratory(self.dataset, metric=self.metric, seed=seed, device=self.device, folder=folder)
        for model in models:
            if self.results.find(self._key(model, seed), model) is not None:  # by another process, meanwhile
                continue
            try:
                run = self._train(model, seed, laboratory)
            except (Diverged, MemoryError, RuntimeError, ValueError) as error:
                reason = "diverged" if isinstance(error, Diverged) else str(error).partition("\n")[0][:400]
                failures.append(f"{model} seed {seed} failed: {reason or type(error).__name__}")
                self.on_line(failures[-1])
                continue
            self.results.append(run)
            value = getattr(run, self.metric)
            shown = "undefined" if value is None else f"{value:.5f}"
            self.on_line(f"{model:12} seed {seed}  test {self.metric} {shown}  {run.seconds:6.1f} s")

    def _train(self, model: str, seed: int, laboratory: Laboratory) -> Run:
        candidate = self.models[model].replace(seed=derive(seed, 0, "weights"))

        def on_rung(rung: Rung) -> bool:
            self.on_progress(
                f"{model} seed {seed}  {rung.rows:,} rows  {rung.speed:,.0f} rows/s  "
                f"validation {self.metric} {getattr(rung.scores, self.metric):.5f}"
            )
            return True

        started = time.monotonic()
        outcome = laboratory.run(
            candidate, on_rung=on_rung, on_stage=lambda stage: self.on_progress(f"{model} seed {seed}  {stage} ...")
        )
        seconds = time.monotonic() - started
        network, held_out = outcome.cohort.network, HeldOut(outcome.cohort, laboratory.reader(candidate).dataset)
        scores, resamples = held_out.scores(), held_out.resampled(derive(0, 0, "bootstrap"))
        key = self._key(model, seed)
        self.results.keep(key, resamples)
        metrics = ("auc", "wauc", "mean_auc", "worst_auc", "gauc", "logloss", "calibration", "ece")
        return Run(
            dataset=self.dataset.name,
            model=model,
            seed=seed,
            metric=self.metric,
            **{name: getattr(scores, name) for name in metrics},
            auc_error=_standard_error(resamples["auc"]),
            wauc_error=_standard_error(resamples["wauc"]),
            logloss_error=_standard_error(resamples["logloss"]),
            parameters=dense_parameters(network),
            embedding_parameters=outcome.cohort.table[:, 0].numel(),
            multiply_adds=multiply_adds(outcome.candidate, network.statistics),
            seconds=round(seconds, 2),
            dataset_key=self.dataset.key,
            key=key,
        )


def _standard_error(values: Tensor) -> float | None:
    defined = values[~values.isnan()]
    return float(defined.std()) if len(defined) > 1 else None
