"""What a new study takes over from an old one whose space, or whatever else, has changed since."""

from __future__ import annotations

import contextlib
import json
import shutil

from autoctr.atomic import replacing
from autoctr.model.candidate import Candidate
from autoctr.search.proposal import genes, plain
from autoctr.search.space import Space
from autoctr.search.study import Study

#: Parts of the fingerprint in which studies must agree, or no score of the one is a score of the other.
SCORED_ALIKE = ("code schema version", "dataset", "metric", "seed")
CACHES = ("supernets", "snapshots")


def take_over(old: Study, new: Study, space: Space, cost: str | None) -> int:
    """Copy the ended trials of ``old`` that are candidates of ``space``, with leads, kept weights and caches.

    Nothing is taken where scores have changed their meaning, or trial 0, beside which every lead is measured, is
    another network now.

    Args:
        new: a study without trials. cost: its second objective; what a trial was known to cost before it was trained
            is read off the trained one, where ``old`` has another.

    Returns: how many trials it has then.
    """
    import optuna

    before, now = (study.database.user_attrs["fingerprint"] for study in (old, new))
    if any(before.get(part) != now.get(part) for part in SCORED_ALIKE):
        return 0
    distributions = {name: part.distribution() for name, part in space.vary.items()}
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    numbers: dict[int, int] = {}
    for trial in old.database.get_trials(deepcopy=False):
        if trial.state not in ended or "candidate" not in trial.user_attrs:
            continue
        candidate = Candidate.from_dict(json.loads(trial.user_attrs["candidate"]))
        if not (is_plain(candidate, space) if trial.number == 0 else is_of(candidate, space)):
            if trial.number == 0:
                return 0
            continue
        values = space.within(candidate)
        facts = {name: fact for name, fact in trial.user_attrs.items() if name not in ("group", "owner")}
        if cost not in (None, old.settings.cost):
            dense = (facts.get("multiply_adds") or {}).get("dense")
            facts["cost"] = facts.get("parameters") if cost == "parameters" else dense
        new.database.add_trial(
            optuna.trial.create_trial(
                state=trial.state,
                value=trial.value if trial.state == ended[0] else None,
                params=values,
                distributions={name: distributions[name] for name in values},
                user_attrs=facts,
                intermediate_values=trial.intermediate_values,
            )
        )
        numbers[trial.number] = len(numbers)
    told = old.database.user_attrs
    new.database.set_user_attr("seen", told.get("proof") is not None or told.get("seen", False))
    for number, lead in old.leads().items():
        if number in numbers:
            new.set_lead(numbers[number], lead)
    for number in set(old.kept()) & numbers.keys():
        with contextlib.suppress(FileNotFoundError), replacing(new.weights_path(numbers[number])) as temporary:
            shutil.copyfile(old.weights_path(number), temporary)  # which a search in ``old`` may have discarded by now
    for name in CACHES:
        if (old.folder / name).is_dir():
            shutil.copytree(old.folder / name, new.folder / name, dirs_exist_ok=True)
    return len(numbers)


def is_plain(candidate: Candidate, space: Space) -> bool:
    """Whether a candidate is what the space's studies begin with."""
    return genes(candidate.replace(wiring=None)) == genes(plain(space).replace(seed=candidate.seed))


def is_of(candidate: Candidate, space: Space) -> bool:
    """Whether the space could have proposed the candidate, but for fields that have no effect on it."""
    try:
        found = space.candidate(space.within(candidate)).replace(seed=candidate.seed, wiring=candidate.wiring)
    except ValueError:  # fields that do not go together
        return False
    return genes(found) == genes(candidate)
