"""The named networks that a comparison trains beside the winners of studies."""

from __future__ import annotations

from typing import Any

from autoctr.errors import UserError
from autoctr.model.architecture import FIXED
from autoctr.model.candidate import Candidate
from autoctr.search.proposal import METHODS, plain
from autoctr.search.space import load_space

#: What each differs in from trial 0 of a study, the plain DCN-v2. All have the same width, depth and embedding.
BASELINES: dict[str, dict[str, Any]] = {
    "dnn": {"architecture": "deep"},
    "dcn-v2": {"architecture": "parallel", "cross": "matrix"},
    "deepfm": {"architecture": "shallow", "cross": "fm"},
    "autoint": {"architecture": "cross", "cross": "attention"},
    "mmoe": {"backbone": "mmoe"},
    "ple": {"backbone": "ple"},
    "star": {"backbone": "star"},
    "pepnet": {"backbone": "pepnet"},
}


def baseline(name: str) -> Candidate:
    """The candidate of a named network, with the training defaults of trial 0.

    Raises:
        UserError: for an unknown name.
    """
    if name not in BASELINES:
        raise UserError(
            f"unknown model {name!r}; legal are {', '.join(BASELINES)}; a study's winner needs --study NAME"
        )
    return wired(plain(load_space("joint")).replace(**BASELINES[name]))


def without_methods(candidate: Candidate) -> Candidate:
    """The same components, size and training with every method off, in parallel: what the methods are worth beside."""
    off = {name: value for method in METHODS.values() for name, (value, _) in method.items()}
    return wired(candidate.replace(**off, wiring=None, rank_divisor=0, domain_ranks=None)).effective()


def wired(candidate: Candidate) -> Candidate:
    """The candidate with the wiring that its ``architecture`` names, unless it has one, needs none or learns it.

    Raises:
        UserError: for ``inherit`` without a wiring.
    """
    if candidate.wiring is not None or candidate.backbone != "fusion" or candidate.architecture == "learn":
        return candidate
    if candidate.architecture not in FIXED:
        raise UserError(
            f"architecture {candidate.architecture} needs a wiring; without one legal are learn, {', '.join(FIXED)}"
        )
    return candidate.replace(wiring=FIXED[candidate.architecture](candidate.blocks))
