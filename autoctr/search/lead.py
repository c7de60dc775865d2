"""Whether a trial is better than the plain network beyond luck: a paired bootstrap over the validation users."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoctr.errors import UserError
from autoctr.search.record import Record, best_of, winner_of
from autoctr.search.seeds import derive
from autoctr.search.study import Study
from autoctr.search.trial import Laboratory
from autoctr.training import checkpoint
from autoctr.training.bootstrap import bootstrap, percentile_interval

MOST_ROWS = 400_000
PLAIN = "trial 0 on the resamples"


class Judge:
    """Measures the lead over trial 0 of every trial that could become the study's winner, and stores it.

    With two objectives also that of the front's members, among which one is chosen by it.

    A lead is the trial's validation metric less that of trial 0, positive where the trial is better, as the middle 95 %
    over resamples of the users (of the rows, where users are unknown), the same for both networks.
    """

    def __init__(self, study: Study, laboratory: Laboratory) -> None:
        self.study, self.laboratory = study, laboratory
        self._plain: Tensor | None = None

    def settle(self) -> None:
        """Measure until the best trial whose lead is unknown is not better than the winner."""
        while True:
            records, kept = self.study.records(), self.study.kept()
            if not any(record.number == 0 and record.state == "COMPLETE" for record in records):
                return
            plain, due = self._of_plain(0 in kept), self._due(records, kept)
            if plain is None or due is None:
                return
            try:
                self.study.set_lead(due.number, self._lead(due, plain))
            except UserError:
                if due.number in self.study.kept():
                    raise  # damaged; else another worker has discarded the weights meanwhile

    def _due(self, records: Sequence[Record], kept: Sequence[int]) -> Record | None:
        """The trial whose lead is to be measured next."""
        study, direction = self.study, self.study.settings.direction
        winner = winner_of(study.allowed(records), direction)
        unknown = {r.number: r for r in records if r.number in kept and r.number > 0 and r.lead is None}
        best = best_of(unknown.values() if winner is None else [winner, *unknown.values()], direction)
        if best is not None and best.number in unknown:
            return best
        members = [] if study.settings.cost is None else study.front(records)
        return next((record for record in members if record.number in unknown), None)

    def _of_plain(self, kept: bool) -> Tensor | None:
        """Trial 0's metric on the resamples: from its weights, or from the worker that has them; None before that."""
        if self._plain is None:
            stored = self.study.database.user_attrs.get(PLAIN)
            if stored is not None:
                self._plain = torch.tensor(stored, dtype=torch.float64)
            elif kept:
                self._plain = self._resampled(0, self.laboratory)
                self.study.database.set_user_attr(PLAIN, self._plain.tolist())
        return self._plain

    def _lead(self, record: Record, plain: Tensor) -> tuple[float, float]:
        sign = 1 if self.study.settings.direction == "maximize" else -1
        difference = sign * (self._resampled(record.number, self.laboratory.reader(record.candidate)) - plain)
        interval = percentile_interval(difference)
        return interval or (0.0, 0.0)

    def _resampled(self, number: int, laboratory: Laboratory) -> Tensor:
        """The metric of a trial's network on every resample, float64 [resamples]."""
        study, rows = self.study, laboratory.splits.valid
        cohort = checkpoint.load(study.weights_path(number), laboratory.dataset, laboratory.device)
        chosen = torch.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS), device=rows.device).long()
        resampled = bootstrap(
            cohort.logits(rows)[0, chosen, 0],
            rows.labels[chosen, 0],
            rows.domain[chosen],
            rows.domains + 1,
            None if rows.user is None else rows.user[chosen],
            seed=derive(study.settings.seed, 0, "lead"),
        )
        return resampled[study.settings.metric].cpu()
