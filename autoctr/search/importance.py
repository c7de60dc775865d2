"""Which fields of a space matter, and which matter together, from a study's finished trials."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from autoctr.search.study import Study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FEWEST_TRIALS = 8
#: For interactions: a trial more or less in one combination must not decide what is shown.
FEWEST_FOR_PAIRS, FEWEST_IN_A_HALF, FEWEST_IN_A_CELL = 24, 6, 3
FEWEST_PAIRS = 3
MOST_FIELDS = 6
SHUFFLES = 400
Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Interactions:
    """How much pairs of fields explain beyond what each of them does alone.

    Attributes:
        fields: in the order of their importance. halves: what stands for 1 of each field, such as ``rank > 2``.
        shares: of the variance that the fields alone leave, explained by the product of two halves; a pair is left out
            where one of its four combinations has fewer than 3 trials.
        chance: the share that the largest of all pairs exceeds in 5 % of shuffles.
        trials: how many were looked at.
    """

    fields: tuple[str, ...]
    halves: tuple[str, ...]
    shares: dict[tuple[str, str], float]
    chance: float
    trials: int

    @property
    def clear(self) -> list[tuple[str, str]]:
        """The pairs beyond chance, the strongest first."""
        found = [pair for pair, share in self.shares.items() if share > self.chance]
        return sorted(found, key=lambda pair: -self.shares[pair])


def importances(study: Study) -> dict[str, float]:
    """How much of the difference between the best tenth and all trials each field explains, the most first.

    Optuna's PED-ANOVA (Watanabe et al., IJCAI 2023). Empty with fewer than 8 finished trials that have all fields.
    """
    import optuna

    whole = _whole_trials(study)
    if len(whole) < FEWEST_TRIALS:
        return {}
    copied = optuna.create_study(direction=study.settings.direction)
    copied.add_trials(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = optuna.importance.get_param_importances(
            copied, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), params=sorted(whole[0].params)
        )
    return {name: float(value) for name, value in found.items() if value > 0}


def interactions(study: Study, fields: Sequence[str]) -> Interactions | None:
    """Pairs of the first six ``fields`` that act together.

    Each field is cut in two halves: at its median, or its most frequent value against the others; one of which a half
    has fewer than 6 trials is passed over. A linear model of the
    ranks of the scores on the halves leaves residuals; a pair's share is the partial R² of the product of its halves.
    Chance is told by shuffling the residuals of the linear model (Freedman and Lane, 1983), 400 times, each time taking
    the largest share of all pairs. Trials are not drawn evenly, since the sampler looks where scores are good: the
    halves may go together, which the partial R² allows for, and say little of where no trial has been.

    Returns: None with fewer than 24 finished trials that have all fields, or fewer than three pairs to look at.
    """
    whole = _whole_trials(study)
    if len(whole) < FEWEST_FOR_PAIRS:
        return None
    cut = {name: _half([trial.params[name] for trial in whole]) for name in fields}
    cut = {n: half for n, half in cut.items() if min(sum(half[1]), len(whole) - sum(half[1])) >= FEWEST_IN_A_HALF}
    names = list(cut)[:MOST_FIELDS]
    halves = np.array([cut[name][1] for name in names], dtype=np.float64).T.reshape(len(whole), len(names))
    pairs = {
        (names[a], names[b]): halves[:, a] * halves[:, b]
        for a, b in itertools.combinations(range(len(names)), 2)
        if min(Counter(zip(halves[:, a], halves[:, b], strict=True)).values()) >= FEWEST_IN_A_CELL
        and len(set(zip(halves[:, a], halves[:, b], strict=True))) == 4
    }
    if len(pairs) < FEWEST_PAIRS:
        return None
    alone = np.column_stack([np.ones(len(whole)), halves])
    basis = np.linalg.qr(alone)[0]
    products = [product - basis @ (basis.T @ product) for product in pairs.values()]
    directions = np.array([p / norm if (norm := np.linalg.norm(p)) > 1e-9 else np.zeros_like(p) for p in products])
    scores = _ranks(np.array([trial.value for trial in whole], dtype=np.float64))
    fitted = basis @ (basis.T @ scores)
    shares = _shares(scores, basis, directions)
    draw = np.random.default_rng(0)
    largest = [
        _shares(fitted + draw.permutation(scores - fitted), basis, directions).max(initial=0.0) for _ in range(SHUFFLES)
    ]
    return Interactions(
        fields=tuple(names),
        halves=tuple(cut[name][0].format(name) for name in names),
        shares=dict(zip(pairs, shares.tolist(), strict=True)),
        chance=float(np.quantile(largest, 0.95)),
        trials=len(whole),
    )


def _whole_trials(study: Study) -> list[FrozenTrial]:
    """The finished trials that have all fields; none where there is no field."""
    import optuna

    trials = [t for t in study.database.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE]
    names = {name for trial in trials for name in trial.params}
    return [trial for trial in trials if len(trial.params) == len(names)] if names else []


def _half(values: Sequence[Any]) -> tuple[str, list[bool]]:
    """What cuts a field's values in two, as words with a place for its name, and on which side each is."""
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        distinct = sorted(set(values))
        # the cut between two values that is nearest to the middle
        edge = min(
            distinct[:-1] or distinct, key=lambda low: abs(sum(value <= low for value in values) - len(values) / 2)
        )
        return f"{{}} > {edge:.3g}", [value > edge for value in values]
    usual = Counter(map(str, values)).most_common(1)[0][0]
    return f"{{}} not {usual}", [str(value) != usual for value in values]


def _ranks(values: Array) -> Array:
    """Ranks, the mean one for equals."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Array = (ends - (counts - 1) / 2)[place]
    return ranks


def _shares(scores: Array, basis: Array, directions: Array) -> Array:
    """The share of what is left of the scores that each direction explains, [pairs]."""
    left = scores - basis @ (basis.T @ scores)
    total = float(left @ left)
    shares: Array = (directions @ left) ** 2 / total if total > 1e-12 else np.zeros(len(directions))
    return shares
