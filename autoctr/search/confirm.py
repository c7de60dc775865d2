"""The confirmation of a study: its best trials and plain networks trained again with several seeds, and a certificate.

The winner is chosen on validation. Then, and only for it and the plain networks, the test split is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.candidate import Candidate
from autoctr.search.baselines import without_methods
from autoctr.search.certificate import Certificate, DomainLead, PlainNetwork
from autoctr.search.compare import as_learned
from autoctr.search.heldout import HeldOut
from autoctr.search.inputs import find_device, open_dataset
from autoctr.search.protect import shortfalls, worse
from autoctr.search.record import FINALISTS, ranked
from autoctr.search.run import load_study
from autoctr.search.seeds import derive
from autoctr.search.study import DEFAULT_ROOT, SCHEMA_VERSION, Study
from autoctr.training import checkpoint
from autoctr.training.bootstrap import difference
from autoctr.training.cohort import Cohort
from autoctr.training.fit import Diverged, OutOfTime, Rung, score_members
from autoctr.training.intervals import LEVEL, Difference, mean_interval
from autoctr.training.metrics import Scores

if TYPE_CHECKING:
    from autoctr.search.trial import Laboratory

SEEDS = 5
MOST_FINALISTS = 5
RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Entrant:
    """A network that is trained again; ``number`` is its trial's, None for one from elsewhere."""

    name: str
    candidate: Candidate
    number: int | None = None


@dataclasses.dataclass(frozen=True)
class Tested:
    """A network's test scores with every seed, and with each its metrics on the resamples."""

    scores: list[Scores]
    resamples: list[dict[str, Tensor]]


def confirm(
    name: str,
    *,
    finalists: int = FINALISTS,
    seeds: int = SEEDS,
    plain: str | None = None,
    root: Path | str = DEFAULT_ROOT,
    storage: str | None = None,
    on_line: Callable[[str], None] = lambda text: None,
    on_progress: Callable[[str], None] = lambda text: None,
) -> Certificate:
    """Train a study's best trials and the plain networks with the same seeds, choose the winner, and test it.

    What has been trained is kept in the study's folder; the same call goes on from there after an interruption.

    Args:
        finalists: how many of the best trials take part beside trial 0.
        seeds: 0, 1, ... seeds - 1: of weights and of the order of the rows, the same for all.
        plain: name of a study of the same data in a space without methods, whose best trial takes part.
        on_line: told each trained network. on_progress: told what is going on.

    Returns: the certificate, which is stored with the study as well.

    Raises:
        UserError: for whatever the user can mend.
    """
    if not 1 <= finalists <= MOST_FINALISTS:
        raise UserError(f"finalists is {finalists}; legal is 1 to {MOST_FINALISTS}, whose weights a study keeps")
    check_seeds(seeds)
    study = load_study(name, root=root, storage=storage)
    with study.owned():
        others = [] if plain is None else [load_study(plain, root=root, storage=storage)]
        return certify(study, open_dataset(study), finalists, seeds, others, on_line, on_progress)


def check_seeds(seeds: int) -> None:
    """Whether a confirmation can have so many seeds.

    Raises:
        UserError: if not.
    """
    if seeds < 2:
        raise UserError(f"seeds is {seeds}; it must be 2 or more, to tell a difference from the noise of training")


def certify(
    study: Study,
    dataset: Dataset,
    finalists: int,
    seeds: int,
    others: Sequence[Study],
    on_line: Callable[[str], None],
    on_progress: Callable[[str], None],
    deadline: float = math.inf,
) -> Certificate:
    """What :func:`confirm` does, for a study that this process holds.

    Args:
        others: studies of the plain space. deadline: of ``time.monotonic()``.

    Raises:
        OutOfTime: if the deadline passes first; what has been trained is kept.
    """
    tuned = [_tuned(study, other) for other in others]
    run = _Confirmation(study, dataset, range(seeds), on_line, on_progress, deadline)
    certificate = run.certify(_own(study, finalists), tuned)
    spent = {searched.name: searched.spent for searched in (study, *others)}
    certificate = dataclasses.replace(certificate, seconds=spent)
    study.set_certificate(certificate)
    return certificate


def _own(study: Study, finalists: int) -> list[Entrant]:
    """Trial 0 and the best others, no network twice; those that were worse in a protected domain come last.

    Raises:
        UserError: if the study has no trial 0, or nothing else.
    """
    records = study.records()
    ended = ranked(records, study.settings.direction)
    plain = next((record for record in ended if record.number == 0), None)
    if plain is None:
        raise UserError(f"study {study.name} has no finished trial 0; go on with: autoctr resume {study.name}")
    refused = shortfalls(records, study.settings.protect)
    others = sorted((record for record in ended if record.number > 0), key=lambda record: record.number in refused)
    if not others:
        raise UserError(
            f"study {study.name} has no finished trial but 0; go on with: autoctr resume {study.name} --trials N"
        )
    found: dict[Candidate, Entrant] = {}
    for record in [plain, *others[:MOST_FINALISTS]]:  # of which the weights are kept
        candidate = as_learned(record.candidate)
        found.setdefault(candidate.effective(), Entrant(f"trial {record.number}", candidate, record.number))
    return list(found.values())[: finalists + 1]


def _tuned(study: Study, plain: Study) -> Entrant:
    """The best trial of a study of the plain space.

    Raises:
        UserError: if it is of other data, or no plain network.
    """
    best = plain.best()
    if best is None:
        raise UserError(f"study {plain.name} has no finished trial; go on with: autoctr resume {plain.name}")
    for what in ("dataset", "metric"):
        mine, theirs = (given.database.user_attrs["fingerprint"][what] for given in (study, plain))
        if mine != theirs:
            raise UserError(f"study {plain.name} has another {what} than {study.name}; search both on the same")
    candidate = as_learned(best.candidate)
    if without_methods(candidate) != candidate.effective():
        raise UserError(
            f"the winner of study {plain.name} uses a method; name a study of autoctr search --space plain with --plain"
        )
    return Entrant(f"{plain.name} trial {best.number}", candidate)


def _means(scores: Sequence[Scores]) -> dict[str, dict[str, Any]]:
    """Every domain's scores with the mean of its area over the seeds, whose rows are the same."""
    found = {}
    for name, domain in scores[0].domains.items():
        areas = [own.domains[name].auc for own in scores]
        known = [area for area in areas if area is not None]
        mean = math.fsum(known) / len(known) if len(known) == len(areas) else None
        found[name] = {**dataclasses.asdict(domain), "auc": mean}
    return found


class _Confirmation:
    """The networks of a confirmation: each is trained once per seed, kept, and scored when it is asked for."""

    def __init__(
        self,
        study: Study,
        dataset: Dataset,
        seeds: Sequence[int],
        on_line: Callable[[str], None],
        on_progress: Callable[[str], None],
        deadline: float,
    ) -> None:
        self.study, self.dataset, self.seeds = study, dataset, seeds
        self.on_line, self.on_progress, self.deadline = on_line, on_progress, deadline
        self.metric, self.device = study.settings.metric, torch.device(find_device(study.settings.device))
        self.sign = 1.0 if study.settings.direction == "maximize" else -1.0
        self._laboratory: Laboratory | None = None
        self._valid: dict[str, dict[int, Scores]] = {}

    def certify(self, own: Sequence[Entrant], tuned: Sequence[Entrant]) -> Certificate:
        """Train all, choose among ``own``, the first of which is trial 0, and test.

        Args:
            tuned: plain networks from elsewhere.
        """
        valid = self._validated([*own, *tuned])
        refused = self._refused(own)
        may_win = [entrant for entrant in own if entrant.name not in refused]
        winner = max(may_win, key=lambda entrant: (self.sign * math.fsum(valid[entrant.name]), entrant.number == 0))
        twin = Entrant(f"{winner.name} without its methods", without_methods(winner.candidate))
        taken, plain = {winner.candidate.effective()}, list[Entrant]()
        for entrant in (own[0], *tuned, twin):  # each network once, under its first name
            if entrant.candidate.effective() not in taken:
                taken.add(entrant.candidate.effective())
                plain.append(entrant)
        self._validated(plain)
        seen = self.study.test_seen
        mine, theirs = self._tested(winner), {entrant.name: self._tested(entrant) for entrant in plain}
        level = 1 - (1 - LEVEL) / max(len(plain), 1)
        beside = {
            name: PlainNetwork(mean_interval(self._values(tested)), self._lead(mine, tested, level))
            for name, tested in theirs.items()
        }
        found = Certificate(
            metric=self.metric,
            seeds=len(self.seeds),
            trials=self.study.ended,
            winner=winner.number or 0,
            valid={entrant.name: mean_interval(valid[entrant.name]) for entrant in own},
            test=mean_interval(self._values(mine)),
            plain=beside,
            level=level,
            domains={},
            domain_level=LEVEL,
            seen=seen,
            seconds={},
            worse=refused,
        )
        return found if found.strongest is None else self._by_domain(found, mine, theirs[found.strongest])

    def _by_domain(self, found: Certificate, mine: Tested, theirs: Tested) -> Certificate:
        """The certificate with the leads of every domain."""
        names = [*self.dataset.statistics.domains, "unknown"]
        present = mine.scores[0].domains
        level = 1 - (1 - LEVEL) / max(len(present), 1)
        domains = {}
        for name, own in present.items():
            values, resampled = [], []
            for scores, others, ours, their in zip(
                mine.scores, theirs.scores, mine.resamples, theirs.resamples, strict=True
            ):
                areas = scores.domains[name].auc, others.domains[name].auc
                if areas[0] is not None and areas[1] is not None:
                    values.append(areas[0] - areas[1])
                    place = names.index(name)
                    resampled.append(ours["domains"][place] - their["domains"][place])
            domains[name] = DomainLead(own.rows, difference(values, resampled, level) if values else None)
        return dataclasses.replace(found, domains=domains, domain_level=level)

    def _values(self, tested: Tested) -> list[float]:
        return [getattr(scores, self.metric) for scores in tested.scores]

    def _lead(self, mine: Tested, theirs: Tested, level: float) -> Difference:
        values = [self.sign * (a - b) for a, b in zip(self._values(mine), self._values(theirs), strict=True)]
        pairs = zip(mine.resamples, theirs.resamples, strict=True)
        return difference(values, [self.sign * (a[self.metric] - b[self.metric]) for a, b in pairs], level)

    def _validated(self, entrants: Sequence[Entrant]) -> dict[str, list[float]]:
        """Everyone's validation metric with every seed, trained where it has not been."""
        found: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
        for seed in self.seeds:
            for entrant in entrants:
                cohort, laboratory = self._trained(entrant, seed)
                scores = score_members(cohort, laboratory.splits.valid, laboratory.dataset)[0]
                found[entrant.name].append(getattr(scores, self.metric))
                self._valid.setdefault(entrant.name, {})[seed] = scores
        return found

    def _refused(self, own: Sequence[Entrant]) -> dict[str, dict[str, float]]:
        """Who has a lower mean than trial 0, the first of ``own``, in protected domains, and by how much."""
        means = {entrant.name: _means(list(self._valid[entrant.name].values())) for entrant in own}
        plain, protected = means[own[0].name], self.study.settings.protect
        found = {name: worse(mine, plain, protected) for name, mine in means.items()}
        return {name: where for name, where in found.items() if where}

    def _tested(self, entrant: Entrant) -> Tested:
        """The test scores with every seed."""
        tested = Tested([], [])
        for seed in self.seeds:
            cohort, laboratory = self._trained(entrant, seed)
            held_out = HeldOut(cohort, laboratory.dataset)
            tested.scores.append(held_out.scores())
            tested.resamples.append(held_out.resampled(derive(0, 0, "bootstrap"), RESAMPLES, each_domain=True))
        return tested

    def _trained(self, entrant: Entrant, seed: int) -> tuple[Cohort, Laboratory]:
        """A network, from the study's folder or trained now, and the laboratory whose rows it reads."""
        laboratory = self._of_seed(seed)
        parts = [entrant.candidate.replace(seed=0).canonical(), self.dataset.key, self.metric, SCHEMA_VERSION]
        key = hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()
        path = self._folder(seed) / f"{key}.safetensors"
        if path.exists():
            with contextlib.suppress(UserError):  # a damaged one is trained again
                candidate = checkpoint.read_candidate(path)
                reader = laboratory.reader(candidate)
                return checkpoint.load(path, reader.dataset, self.device), reader

        def on_rung(rung: Rung) -> bool:
            self.on_progress(f"{entrant.name} seed {seed}  {rung.rows:,} rows  {rung.speed:,.0f} rows/s")
            return True

        started = time.monotonic()
        try:
            candidate = entrant.candidate.replace(seed=derive(seed, 0, "weights"))
            outcome = laboratory.run(candidate, deadline=self.deadline, on_rung=on_rung)
        except Diverged:
            raise UserError(
                f"{entrant.name} diverged with seed {seed}, so that it proves nothing; confirm with fewer --finalists"
            ) from None
        if outcome.fitted.reason == "time":
            raise OutOfTime
        checkpoint.save(path, outcome.cohort.network, outcome.fitted.weights)
        value = getattr(outcome.fitted.best, self.metric)
        self.on_line(
            f"{entrant.name} seed {seed}  validation {self.metric} {value:.5f}  {time.monotonic() - started:.1f} s"
        )
        return outcome.cohort, laboratory.reader(outcome.candidate)

    def _of_seed(self, seed: int) -> Laboratory:
        from autoctr.search.trial import Laboratory

        if self._laboratory is None or self._laboratory.seed != seed:
            self._laboratory = Laboratory(
                self.dataset, metric=self.metric, seed=seed, device=self.device, folder=self._folder(seed)
            )
        return self._laboratory

    def _folder(self, seed: int) -> Path:
        return self.study.folder / "confirmation" / f"seed-{seed}"
