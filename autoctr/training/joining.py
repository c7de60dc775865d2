"""Members leave a cohort and join another, and their training goes on as if nothing had happened.

A cohort computes the union of what its members use, and pads adapters to the largest rank. So everything of a member,
weights, optimiser state and averages, is found by the names of its weights and cut or padded to the new cohort.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model.candidate import Candidate
from autoctr.model.network import SHAPE_FIELDS
from autoctr.model.parameters import Layout, transfer
from autoctr.training.cohort import Cohort, Member, frozen_tables
from autoctr.training.fit import Kept

PROGRESS = ("steps", "rows", "wiring_steps", "ramped", "ramp")


def rows_read(candidate: Candidate) -> float | None:
    """Which rows a candidate's snapshots were trained on, as far as its shape does not tell."""
    return candidate.warm_share if candidate.snapshots else None


def place(cohort: Cohort) -> dict[str, Any]:
    """Where a cohort is on its way; its members can be joined with those of cohorts in the same place."""
    first = cohort.network.candidates[0]
    shape = {name: getattr(first, name) for name in SHAPE_FIELDS}
    progress = {name: getattr(cohort, name) for name in PROGRESS}
    stage = {"adapters_only": cohort.adapters_only, "tickets": cohort.masks is not None}
    return {**shape, "rows_read": rows_read(first), **progress, **stage, "relaxed": cohort.network.relaxed}


def joined(members: Sequence[Member], dataset: Dataset) -> Cohort:
    """A cohort of ``members``, of one cohort or of several, that goes on from where they are.

    Raises:
        ValueError: if they are not of one shape, or not at the same step of the same stage.
    """
    first = members[0].cohort
    places = [place(member.cohort) for member in members]
    for name in places[0]:
        values = {where[name] for where in places}
        if len(values) > 1:
            raise ValueError(f"members of a cohort must agree in {name}, not {sorted(values)}")
    network = first.network
    cohort = Cohort(
        dataset.statistics,
        [member.candidate for member in members],
        frozen_tables(dataset),
        ramp=first.ramp,
        dtype=network.dtype,
        device=network.device,
        table=_stacked([member.cohort.table[:, member.index] for member in members]),
        adapters_only=first.adapters_only,
    )
    for name in PROGRESS:
        setattr(cohort, name, getattr(first, name))
    cohort.sparse.first = _stacked([member.cohort.sparse.first[:, member.index] for member in members])
    cohort.sparse.second = _stacked([member.cohort.sparse.second[:, member.index] for member in members])
    if first.masks is not None:
        shape = (len(members), network.units, cohort.network.maskable.size)
        cohort.masks = torch.ones(shape, dtype=network.dtype, device=network.device)
    _join_averages(cohort, members)
    for k, member in enumerate(members):
        source, index = member.cohort, member.index
        for layout, given, target, into in _rows(source, cohort):
            transfer(layout, given[index : index + 1], target, into[k : k + 1])
        if source.masks is not None and cohort.masks is not None:
            transfer(source.network.maskable, source.masks[index], cohort.network.maskable, cohort.masks[k])
    return cohort


def alone(kept: Kept, dataset: Dataset) -> Cohort:
    """A cohort of the one member whose weights were kept, to score, to export or to start others from."""
    network, weights = kept.network, kept.weights
    cohort = Cohort.on(
        dataset, [network.candidates[kept.index]], dtype=network.dtype, device=network.device, table=weights.table
    )
    own = cohort.network
    transfer(network.layout, weights.flat, own.layout, cohort.flat)
    transfer(network.normalisation, weights.running, own.normalisation, cohort.running)
    transfer(network.architecture, weights.architecture, own.architecture, cohort.architecture)
    if weights.masks is not None:
        masks = weights.masks.new_ones(1, network.units, own.maskable.size)
        transfer(network.maskable, weights.masks[0], own.maskable, masks[0])
        cohort.masks = masks
    cohort.ramped = round(weights.progress * cohort.ramp)
    return cohort


def _stacked(columns: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(columns), 1)


def _rows(source: Cohort, cohort: Cohort) -> list[tuple[Layout, Tensor, Layout, Tensor]]:
    """Everything that has a row per member, with the layout of the row, in both cohorts."""
    layouts = source.network.layout, cohort.network.layout
    gates = source.network.architecture, cohort.network.architecture
    norms = source.network.normalisation, cohort.network.normalisation
    found = [
        (layouts[0], source.flat, layouts[1], cohort.flat),
        (layouts[0], source.dense.first, layouts[1], cohort.dense.first),
        (layouts[0], source.dense.second, layouts[1], cohort.dense.second),
        (gates[0], source.architecture, gates[1], cohort.architecture),
        (gates[0], source.wiring.first, gates[1], cohort.wiring.first),
        (gates[0], source.wiring.second, gates[1], cohort.wiring.second),
        (norms[0], source.running, norms[1], cohort.running),
    ]
    if cohort.average is not None:
        average = source.flat if source.average is None else source.average.flat
        found.append((layouts[0], average, layouts[1], cohort.average.flat))
    return [(layout, given, target, into) for layout, given, target, into in found if target.weights]


def _join_averages(cohort: Cohort, members: Sequence[Member]) -> None:
    """Averages of the embedding rows. A member that came without one has decay 0: its weights are its average."""
    known = next((member.cohort.average for member in members if member.cohort.average is not None), None)
    if cohort.average is None or known is None:
        return
    cohort.average.steps, cohort.average.seen = known.steps, known.seen.clone()
    sources = [(member.cohort.average or member.cohort).table[:, member.index] for member in members]
    cohort.average.table = _stacked(sources)
