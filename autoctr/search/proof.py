"""What a study's winner does on the test split, read once beside the plain network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from autoctr.search.inputs import find_device
from autoctr.search.study import Study

if TYPE_CHECKING:
    from torch import Tensor

    from autoctr.data.dataset import Dataset


def prove(study: Study, dataset: Dataset) -> None:
    """Read the test split, once for each pair of winner and plain network, and store what it says.

    ``seen`` tells whether it had been read before this winner was chosen: in an earlier run of this study, or in that
    which it forked from.
    """
    best = study.best()
    if best is None:
        return
    stored, certificate = study.database.user_attrs.get("proof"), study.certificate
    if certificate is not None and certificate.trials == study.ended:
        return  # a confirmed winner has been tested
    if stored is not None and stored["number"] == best.number:
        return
    scores, resamples, bins = _tested(study, best.number, dataset)
    proof: dict[str, Any] = {"number": best.number, "best": scores, "plain": None, "reliability": {"best": bins}}
    proof["seen"] = stored is not None or study.test_seen
    if best.number == 0:
        proof["plain"] = scores
    elif 0 in study.kept():
        proof["plain"], others, proof["reliability"]["plain"] = _tested(study, 0, dataset)
        proof["difference"] = _difference(resamples, others, dataset.statistics.domains)
    study.database.set_user_attr("ceiling", dataset.info.get("ceiling", {}).get("test"))
    study.database.set_user_attr("proof", proof)


def _difference(mine: dict[str, Tensor], theirs: dict[str, Tensor], domains: Sequence[str]) -> dict[str, Any]:
    """By how much two networks' test metrics differ on the middle 95 % of resamples of the users, both on the same."""
    from autoctr.training.bootstrap import percentile_interval

    found = {name: percentile_interval(mine[name] - theirs[name]) for name in mine if name != "domains"}
    areas = (mine["domains"] - theirs["domains"]).unbind(0)
    by_domain = {name: percentile_interval(area) for name, area in zip([*domains, "unknown"], areas, strict=True)}
    return {**found, "domains": by_domain}


def _tested(
    study: Study, number: int, dataset: Dataset
) -> tuple[dict[str, Any], dict[str, Tensor], list[tuple[float, float, int]]]:
    """Test metrics of every task; of the first also those on resamples of the users, and its reliability."""
    from autoctr.search.heldout import HeldOut
    from autoctr.search.seeds import derive
    from autoctr.search.stored import stored_network

    held_out = HeldOut(*stored_network(study, number, dataset, find_device(study.settings.device)))
    scores = {name: dataclasses.asdict(held_out.scores(task)) for task, name in enumerate(dataset.statistics.tasks)}
    seed = derive(study.settings.seed, 0, "test users")
    return scores, held_out.resampled(seed, each_domain=True), held_out.reliability()
