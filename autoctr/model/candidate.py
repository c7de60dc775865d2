"""A candidate: one point of the joint space, and the only thing search, model, training and export exchange."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from autoctr.model.architecture import Architecture

MAXIMUM_RANK = 64
MAXIMUM_SPARSITY = 0.9
MAXIMUM_SNAPSHOTS = 64


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One point of the joint space.

    A part is switched off by its value (``rank`` 0, ``sparsity`` 0), never by leaving a field out.

    Network
        embedding: numbers per embedding row.
        width: width h of every node; 0 takes the concatenated fields as they are, without a projection.
        blocks: fusion blocks K, each a cross and a deep component.
        cross: the explicit component of a block: ``vector`` (DCN), ``matrix`` or ``lowrank`` (DCN-v2), ``attention``
            (AutoInt), ``fm`` or ``bilinear`` (FiBiNET).
        backbone: ``fusion``, or one of the multi-domain networks ``mmoe``, ``ple``, ``star``, ``pepnet``, whose
            depth is ``blocks``; ``experts`` counts the experts of the first two.
        norm: ``none`` or ``batch`` normalisation inside the deep components.
    Fusion (OptFusion, arXiv 2411.15731)
        architecture: ``learn`` runs the one-shot supernet, ``inherit`` changes one connection or operator of the best
            network so far; ``parallel``, ``stacked``, ``full``, ``deep``, ``cross``, ``shallow`` are fixed wirings.
        learned: what the supernet learns: ``both``, only ``connections`` (every node adds) or only ``operators``
            (every connection open).
        wiring: the discrete architecture itself, once it is known.
        architecture_rate: Adam step size of gates and operators.
        warmup: share of the supernet's steps before gates and operators move.
        alternating: learn gates and operators on held-out training rows instead of the weights' batch.
        readout: ``hard`` (best operator), ``soft`` (frozen mixture) or ``drop`` (remove what costs no validation).
        search_epochs: passes over the training rows in the supernet (at least 250 steps are made).
        retrain: start the discrete network from ``scratch`` or from the ``supernet``'s weights.
    Sparsity (AdaSparse, arXiv 2206.13108)
        sparsity: wanted share of closed neurons at a domain of middling size; 0 = off.
        sparsity_tilt: the largest domain gets 2^tilt times as much (see :func:`spread`).
        sparsity_form: ``fusion``, ``binarization`` or ``scaling`` (which closes nothing).
        sparsity_alpha: steepness α at the end of the ramp. sparsity_epsilon: threshold ε of the factors.
        sparsity_beta: largest factor β.
        pruner_input: ``both`` (neurons and domain) or ``domain`` (static masks).
        input_pruner: a pruner on the input as well, one factor per domain and field.
    Adaptation (MLoRA, arXiv 2408.08913)
        rank: LoRA rank at a domain of middling size; 0 = off.
        rank_tilt: the largest domain gets 2^tilt times as much.
        rank_divisor: instead of ``rank``, width // divisor, at least 1; 0 = ``rank`` holds.
        domain_ranks: the rank of every domain itself, once truncation has found it.
        truncate: after the fit, each domain keeps the smallest rank that costs no validation loss.
        lora_schedule: ``joint``, or ``frozen``: the shared weights train first, then the adapters alone.
    Tickets (LT4REC, arXiv 2008.09872)
        keep_rate: share of the deep components' shared weights that survive pruning; 1 = off.
        ticket_rounds: prunings; each is followed by a rewind. ticket_epochs: passes over a unit's rows per round.
        ticket_unit: a mask per ``domain``, per ``task``, or one for the whole ``network``.
        ticket_ranking: magnitudes are ranked over all layers (``global``) or within each (``layer``).
        rewind: passes over the training rows after which θ_k, the point that all stages start from, is taken; 0 = the
            fresh weights.
    Transfer (E-CDCTR, arXiv 2408.16238)
        warm_start: passes over the rows of the richer domains before all domains train; 0 = off.
        warm_share: share of the domains, by rows, that count as rich.
        snapshots: periods of the rich domains' history; after each a tiny model's embeddings are frozen, and every row
            reads those that are older than itself. 0 = off; needs time stamps.
        pooling: how the snapshots of an id become one vector: ``attention``, ``mean`` or ``last``.
    Training
        task_space: how labels after the first are learned: on ``all`` rows, on the rows whose first label is 1
            (``clicked``: a conversion's chance given a click), or over all rows as the product with the first one's
            chance (``esmm``, arXiv 1804.07931).
        order: ``mixed`` batches of all domains, or ``alternating`` ones of a single domain each.
        learning_rate: Adam step size of dense weights; embedding_rate multiplies it for embedding rows.
        weight_decay: decoupled, dense weights. embedding_l2: added to the gradient of the rows a batch touches.
        dropout: share of zeroed neurons after each deep component; embedding_dropout after the embedding.
        averaging: decay per step of the weight average that is scored and kept; 0 takes the last weights.
        batch: rows per step. epochs: most passes over the training rows in the final fit.
        precision: numbers that a training step computes its activations with, ``fp32`` or ``bf16``. Weights, embedding
            rows, optimiser and loss are float32 either way, and so is all scoring.
    """

    embedding: int = 16
    width: int = 128
    blocks: int = 2
    cross: Literal["vector", "matrix", "lowrank", "attention", "fm", "bilinear"] = "matrix"
    backbone: Literal["fusion", "mmoe", "ple", "star", "pepnet"] = "fusion"
    experts: int = 4
    norm: Literal["none", "batch"] = "none"
    architecture: Literal["learn", "inherit", "parallel", "stacked", "full", "deep", "cross", "shallow"] = "parallel"
    learned: Literal["both", "connections", "operators"] = "both"
    wiring: Architecture | None = None
    architecture_rate: float = 0.03
    warmup: float = 0.25
    alternating: bool = False
    readout: Literal["hard", "soft", "drop"] = "drop"
    search_epochs: float = 1.0
    retrain: Literal["scratch", "supernet"] = "scratch"
    sparsity: float = 0.0
    sparsity_tilt: float = 0.0
    sparsity_form: Literal["fusion", "binarization", "scaling"] = "fusion"
    sparsity_alpha: float = 5.0
    sparsity_epsilon: float = 0.25
    sparsity_beta: float = 2.0
    pruner_input: Literal["both", "domain"] = "both"
    input_pruner: bool = False
    rank: int = 0
    rank_tilt: float = 0.0
    rank_divisor: int = 0
    domain_ranks: tuple[int, ...] | None = None
    truncate: bool = False
    lora_schedule: Literal["joint", "frozen"] = "joint"
    keep_rate: float = 1.0
    ticket_rounds: int = 4
    ticket_epochs: float = 1.0
    ticket_unit: Literal["domain", "task", "network"] = "domain"
    ticket_ranking: Literal["global", "layer"] = "global"
    rewind: float = 0.0
    warm_start: float = 0.0
    warm_share: float = 0.5
    snapshots: int = 0
    pooling: Literal["attention", "mean", "last"] = "attention"
    task_space: Literal["all", "clicked", "esmm"] = "all"
    order: Literal["mixed", "alternating"] = "mixed"
    learning_rate: float = 3e-3
    embedding_rate: float = 4.0
    weight_decay: float = 1e-6
    embedding_l2: float = 1e-6
    dropout: float = 0.2
    embedding_dropout: float = 0.0
    averaging: float = 0.99
    batch: int = 2048
    epochs: int = 10
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; legal is {low:g} to {high:g}")
        for name, hint in _hints().items():
            if hint is float:  # so that 0 and 0.0 are one candidate, also where it is written out
                object.__setattr__(self, name, float(getattr(self, name)))
            if hint is int and not isinstance(getattr(self, name), int):
                raise ValueError(f"{name} is {getattr(self, name)!r}; legal is a whole number")
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(f"{name} is {getattr(self, name)!r}; legal is one of {', '.join(get_args(hint))}")
        if self.backbone != "fusion" and (
            self.sparsity or self.rank or self.rank_divisor or self.keep_rate < 1 or self.architecture == "learn"
        ):
            raise ValueError(
                f"backbone {self.backbone} has no learned fusion, sparsity, rank or tickets; use backbone fusion"
            )
        if self.backbone != "fusion" and self.norm != "none":
            raise ValueError(f"norm is {self.norm}; legal with backbone {self.backbone} is none")
        start = {"fusion": self.sparsity_beta / 2, "binarization": 0.5, "scaling": 1.0}[self.sparsity_form]
        if self.sparsity_epsilon >= start:
            raise ValueError(
                f"sparsity_epsilon is {self.sparsity_epsilon:g}, which closes every neuron from the start; legal with "
                f"sparsity_form {self.sparsity_form} is below {start:g}"
            )
        passes = self.ticket_rounds * self.ticket_epochs
        if self.keep_rate < 1 and passes > self.epochs:
            raise ValueError(
                f"{self.ticket_rounds} ticket_rounds of {self.ticket_epochs:g} ticket_epochs need {passes:g} passes, "
                f"more than epochs {self.epochs} allows; use fewer rounds"
            )
        if self.ticket_unit == "task" and self.keep_rate < 1 and self.norm == "batch":
            raise ValueError("ticket_unit is 'task', which needs norm 'none': tasks would share running statistics")
        if self.rank_divisor and not self.width:
            raise ValueError(f"rank_divisor is {self.rank_divisor}, which needs a width above 0")
        if self.wiring is not None and self.wiring.blocks != self.blocks:
            raise ValueError(f"blocks is {self.blocks}, the wiring has {self.wiring.blocks}")

    def replace(self, **changes: Any) -> Candidate:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def effective(self) -> Candidate:
        """The same network and training with every field that has no effect at its default, dead nodes closed."""
        idle: list[str] = []
        if self.architecture != "learn":
            idle += SUPERNET
        if self.backbone not in ("mmoe", "ple"):
            idle.append("experts")
        if not self.sparsity:
            idle += [name for name in RANGES if name.startswith("sparsity_")]
            idle += ["sparsity_form", "pruner_input", "input_pruner"]
        elif self.sparsity_form == "scaling":
            idle += ["sparsity_tilt", "sparsity_alpha", "sparsity_epsilon"]
        elif self.sparsity_form == "binarization":
            idle.append("sparsity_beta")
        if not self.rank and not self.rank_divisor:
            idle += ["rank_tilt", "truncate", "lora_schedule"]
        if self.rank_divisor:
            idle.append("rank")
        if self.keep_rate == 1:
            idle += ["ticket_rounds", "ticket_epochs", "ticket_unit", "ticket_ranking", "rewind"]
        if not self.warm_start and not self.snapshots:
            idle.append("warm_share")
        if self.snapshots < 2:
            idle.append("pooling")
        changes: dict[str, Any] = {name: FIELD_DEFAULTS[name] for name in idle}
        if self.sparsity and self.sparsity_form == "scaling":
            changes["sparsity"] = MAXIMUM_SPARSITY
        if self.wiring is not None:
            changes["wiring"] = self.wiring.effective()
        return self.replace(**changes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        value = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        value["wiring"] = None if self.wiring is None else self.wiring.to_dict()
        return value

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Candidate:
        """Inverse of :meth:`to_dict`."""
        wiring = value.get("wiring")
        known = value.get("domain_ranks")
        return cls(
            **{
                **value,
                "wiring": None if wiring is None else Architecture.from_dict(wiring),
                "domain_ranks": None if known is None else tuple(known),
            }
        )

    def canonical(self) -> str:
        """One string per distinct candidate: JSON with sorted keys, without the :data:`LATER` fields at their default.

        So a candidate from before these fields has the same string as ever, and what is kept under it is found.
        """
        later = {name for name in LATER if getattr(self, name) == FIELD_DEFAULTS[name]}
        return json.dumps({name: value for name, value in self.to_dict().items() if name not in later}, sort_keys=True)


FIELD_DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Candidate)}

#: Fields that stored candidates of earlier versions lack.
LATER = ("snapshots", "pooling", "precision")

SUPERNET = ["learned", "architecture_rate", "warmup", "alternating", "readout", "search_epochs", "retrain"]

RANGES: dict[str, tuple[float, float]] = {
    "embedding": (1, 1024),
    "width": (0, 8192),
    "blocks": (1, 12),
    "architecture_rate": (0, 10),
    "warmup": (0, 1),
    "search_epochs": (0, 1000),
    "sparsity": (0, MAXIMUM_SPARSITY),
    "sparsity_tilt": (-8, 8),
    "rank": (0, MAXIMUM_RANK),
    "rank_tilt": (-8, 8),
    "sparsity_alpha": (1, 20),
    "sparsity_epsilon": (0.001, 0.9),
    "sparsity_beta": (1, 8),
    "experts": (1, 64),
    "rank_divisor": (0, 8192),
    "keep_rate": (0.01, 1),
    "ticket_rounds": (1, 20),
    "ticket_epochs": (0, 1000),
    "rewind": (0, 1000),
    "warm_start": (0, 1000),
    "warm_share": (0, 1),
    "snapshots": (0, MAXIMUM_SNAPSHOTS),
    "learning_rate": (0, 10),
    "embedding_rate": (0, 1000),
    "weight_decay": (0, 10),
    "embedding_l2": (0, 10),
    "dropout": (0, 0.95),
    "embedding_dropout": (0, 0.95),
    "averaging": (0, 0.99999),
    "batch": (1, 1 << 24),
    "epochs": (1, 10_000),
    "seed": (0, (1 << 63) - 1),
}


@functools.cache
def _hints() -> dict[str, Any]:
    """The types of a candidate's fields; finding them out costs more than all checks of a candidate."""
    return get_type_hints(Candidate)


def field_kinds() -> dict[str, tuple[type, tuple[str, ...]]]:
    """Fields a search space may vary: name -> (type, legal words of a choice or an empty tuple)."""
    kinds: dict[str, tuple[type, tuple[str, ...]]] = {}
    for name, hint in _hints().items():
        if get_origin(hint) is Literal:
            kinds[name] = (str, get_args(hint))
        elif hint in (int, float, bool):
            kinds[name] = (typing.cast(type, hint), ())
        else:
            assert get_origin(hint) is types.UnionType
    return kinds


def spread(domain_rows: Sequence[int]) -> list[float]:
    """Where each domain lies between poor and rich: centred log rows, the farthest at distance 1."""
    if len(set(domain_rows)) == 1:
        return [0.0] * len(domain_rows)
    logs = [math.log(max(rows, 1)) for rows in domain_rows]
    centre = sum(logs) / len(logs)
    reach = max(abs(value - centre) for value in logs)
    return [(value - centre) / reach for value in logs]


def ranks(candidate: Candidate, domain_rows: Sequence[int]) -> list[int]:
    """LoRA rank of every domain: level * 2^(tilt * spread), rounded, within 0..64. All 0 when the level is 0.

    The level is ``rank``, or MLoRA's rule max(width // ``rank_divisor``, 1). ``domain_ranks``, where known, hold
    instead.
    """
    if candidate.domain_ranks is not None:
        return list(candidate.domain_ranks)
    level = max(candidate.width // candidate.rank_divisor, 1) if candidate.rank_divisor else candidate.rank
    return [min(MAXIMUM_RANK, math.floor(level * 2 ** (candidate.rank_tilt * s) + 0.5)) for s in spread(domain_rows)]


def sparsities(candidate: Candidate, domain_rows: Sequence[int]) -> list[float]:
    """Wanted share of closed neurons of every domain: ``sparsity`` * 2^(tilt * spread), within 0..0.9."""
    return [min(MAXIMUM_SPARSITY, candidate.sparsity * 2 ** (candidate.sparsity_tilt * s)) for s in spread(domain_rows)]
