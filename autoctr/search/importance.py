"""Which fields of a space matter: Optuna's PED-ANOVA (Watanabe et al., IJCAI 2023) over a study's finished trials."""

from __future__ import annotations

import warnings

from autoctr.search.study import Study

FEWEST_TRIALS = 8


def importances(study: Study) -> dict[str, float]:
    """How much of the difference between the best tenth and all trials each field explains, the most first.

    Empty with fewer than 8 finished trials that have all fields.
    """
    import optuna

    trials = [t for t in study.database.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE]
    names = sorted({name for trial in trials for name in trial.params})
    whole = [trial for trial in trials if len(trial.params) == len(names)]
    if len(whole) < FEWEST_TRIALS or not names:
        return {}
    copied = optuna.create_study(direction=study.settings.direction)
    copied.add_trials(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = optuna.importance.get_param_importances(
            copied, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), params=names
        )
    return {name: float(value) for name, value in found.items() if value > 0}
