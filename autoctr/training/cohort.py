"""A cohort in training: the weights of K members, their optimisers, and one step for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.data.statistics import Statistics
from autoctr.model.build import build_network
from autoctr.model.candidate import Candidate
from autoctr.model.embedding import initial_table
from autoctr.model.network import Batch, Pass
from autoctr.model.parameters import transfer
from autoctr.model.tasks import counted_rows
from autoctr.model.tickets import movable
from autoctr.training import replicas
from autoctr.training.averaging import Average
from autoctr.training.optimiser import DenseAdam, RowAdam
from autoctr.training.rows import ResidentRows
from autoctr.training.touched import RowFinder

SCORING_ROWS = 16_384
MOST_PATTERNS = 64


@dataclasses.dataclass
class Weights:
    """Everything that makes a trained cohort: dense [K, P], table [V, K, E], running [K, S], architecture [K, A].

    ``progress`` is the share of the sparsity ramp that was done, which fixes the pruners' steepness. ``masks``
    [K, U, M] are the tickets; None without.
    """

    flat: Tensor
    table: Tensor
    running: Tensor
    architecture: Tensor
    progress: float
    masks: Tensor | None = None

    def copy(self, member: int | None = None) -> Weights:
        """A copy that later training does not change: of all members, or of one alone."""
        chosen = slice(None) if member is None else slice(member, member + 1)
        return Weights(
            self.flat[chosen].clone(),
            self.table[:, chosen].clone(),
            self.running[chosen].clone(),
            self.architecture[chosen].clone(),
            self.progress,
            None if self.masks is None else self.masks[chosen].clone(),
        )


def ramp_rows(train_rows: int) -> int:
    """Training rows over which sparsity is ramped up: one pass. Independent of where a fit ends."""
    return train_rows


def frozen_tables(dataset: Dataset) -> dict[str, Tensor]:
    """The dataset's side tables as tensors, which share memory with those that are in memory."""
    tables = {name: table if table.flags.writeable else table.copy() for name, table in dataset.tables.items()}
    return {name: torch.from_numpy(table) for name, table in tables.items()}


@dataclasses.dataclass(frozen=True)
class Member:
    """One member of a cohort."""

    cohort: Cohort
    index: int

    @property
    def candidate(self) -> Candidate:
        """What the member was made from."""
        return self.cohort.network.candidates[self.index]


class Cohort:
    """K members, their weights and optimisers.

    Args:
        statistics: of the dataset.
        candidates: the members.
        tables: frozen vectors of each vector field.
        ramp: rows over which sparsity is ramped up.
        start: a trained cohort (of supernets), or for each of ``candidates`` a trained member or None, to start from
            where names and shapes match; else weights are fresh. Its tickets come along.
        table: embedding rows [V, K, E] to take over, instead of those of ``start`` or fresh ones.
        masks: the members' tickets, [K, U, M] over the network's maskable weights; None = those of ``start``.
        fresh_norm: whether scales, shifts and running statistics of normalisations start fresh even so.
        adapters_only: train the adapters (LoRA) alone; everything else stays as it starts.
    """

    def __init__(
        self,
        statistics: Statistics,
        candidates: Sequence[Candidate],
        tables: Mapping[str, Tensor],
        *,
        ramp: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        start: Cohort | Sequence[Member | None] | None = None,
        table: Tensor | None = None,
        masks: Tensor | None = None,
        fresh_norm: bool = False,
        adapters_only: bool = False,
    ) -> None:
        self.network = build_network(statistics, candidates, tables, dtype=dtype, device=device)
        self.ramp = max(ramp, 1)
        self.steps = self.rows = self.wiring_steps = 0
        starts = start.members if isinstance(start, Cohort) else start or [None] * len(candidates)
        if len(starts) != len(candidates):
            raise ValueError(f"{len(candidates)} members cannot start from {len(starts)}")
        progress = {0.0 if member is None else member.cohort.progress for member in starts}
        if len(progress) > 1:
            raise ValueError(f"members of a cohort must agree in their progress, not {sorted(progress)}")
        self.ramped = round(progress.pop() * self.ramp)
        device = self.network.device
        seeds = [candidate.seed for candidate in candidates]
        self.flat = self.network.layout.initial(seeds).to(device, dtype)
        self.running = self.network.initial_running()
        given = {id(member.cohort): member.cohort.weights() for member in starts if member is not None}
        columns: list[Tensor] = []
        for k, (seed, member) in enumerate(zip(seeds, starts, strict=True)):
            if member is None:
                if table is None:
                    columns.append(initial_table(statistics, candidates[k].embedding, [seed])[:, 0].to(device, dtype))
                continue
            source, weights, mine = member.cohort.network, given[id(member.cohort)], slice(k, k + 1)
            flat, running = (part[member.index, None].to(device, dtype) for part in (weights.flat, weights.running))
            transfer(source.layout, flat, self.network.layout, self.flat[mine], ".norm." if fresh_norm else None)
            if not fresh_norm:
                transfer(source.normalisation, running, self.network.normalisation, self.running[mine])
            columns.append(weights.table[:, member.index].to(device, dtype))
        self.table = torch.stack(columns, 1) if table is None else table.to(device, dtype)
        self.architecture = self.network.architecture.initial(seeds).to(device, dtype)
        rates = [candidate.learning_rate for candidate in candidates]
        row_rates = [candidate.learning_rate * candidate.embedding_rate for candidate in candidates]

        def tensor(values: list[float]) -> Tensor:
            return torch.tensor(values, device=device, dtype=dtype)

        dense_rates, weight_decays = tensor(rates)[:, None], tensor([c.weight_decay for c in candidates])[:, None]
        if self.network.pruners is not None:
            pace = self.network.pruners.pace(self.ramp / candidates[0].batch)[:, None]
            dense_rates = torch.where(self._pruning, torch.maximum(dense_rates, pace), dense_rates)
        decayed = self.network.layout.decayed().to(device, dtype)
        self.dense = DenseAdam(self.flat, dense_rates, weight_decays, decayed)
        self.sparse = RowAdam(self.table, tensor(row_rates), tensor([c.embedding_l2 for c in candidates]))
        wiring_rates = tensor([c.architecture_rate for c in candidates])[:, None]
        self.wiring = DenseAdam(self.architecture, wiring_rates, torch.zeros_like(wiring_rates), torch.zeros(0))
        decays = tensor([candidate.averaging for candidate in candidates])
        self.average = Average(self.flat, self.table, decays) if bool((decays > 0).any()) else None
        self.masks = self._inherited(starts) if masks is None else masks.to(device, dtype)
        self.adapters_only = adapters_only
        self._movable: dict[tuple[bool, ...], Tensor] = {}
        self.finder = RowFinder(len(self.table), device, padded=device.type != "cpu")

    def _inherited(self, starts: Sequence[Member | None]) -> Tensor | None:
        """The tickets of ``starts`` [K, U, M]; where a member has none, or has weights that they had not, all ones."""
        network = self.network
        masks: Tensor | None = None
        for k, member in enumerate(starts):
            if member is None or member.cohort.masks is None:
                continue
            if masks is None:
                shape = (network.members, network.units, network.maskable.size)
                masks = torch.ones(shape, dtype=network.dtype, device=network.device)
            transfer(member.cohort.network.maskable, member.cohort.masks[member.index], network.maskable, masks[k])
        return masks

    @classmethod
    def on(cls, dataset: Dataset, candidates: Sequence[Candidate], **options: Any) -> Cohort:
        """A cohort for a dataset, with the usual ramp; ``options`` as in :class:`Cohort`."""
        ramp = ramp_rows(len(dataset.train))
        return cls(dataset.statistics, candidates, frozen_tables(dataset), ramp=ramp, **options)

    @property
    def members(self) -> list[Member]:
        """All members."""
        return [Member(self, index) for index in range(self.network.members)]

    @property
    def progress(self) -> float:
        """Share of the sparsity ramp that is done."""
        return min((self.ramped + self.rows) / self.ramp, 1.0)

    def step(self, batch: Batch, *, wire: bool = False, weigh: bool = True, task: int | None = None) -> Tensor:
        """One training step.

        Args:
            batch: rows sorted by domain.
            wire: move gates and operators. weigh: move weights and embeddings.
            task: number of the only label to learn; None = all.

        Returns: each member's loss before the step, [K].
        """
        touched = self.finder.find(batch.ids)
        values = self.table[touched.rows].requires_grad_(weigh and not self.adapters_only)
        flat = self.flat.detach().requires_grad_(weigh)
        architecture = self.architecture.detach().requires_grad_(wire) if self.network.relaxed else None
        if weigh:
            self.steps += 1
            self.rows += len(batch)
        processes = replicas.count()
        part, positions = batch, touched.positions
        if processes > 1:
            part = replicas.part_of(batch)
            positions = positions[part.first : part.first + len(part)]
        result = self.network.forward(
            flat,
            values,
            positions,
            part,
            architecture=architecture,
            running=self.running if weigh else self.running.clone(),
            masks=self.masks,
            rests=self.adapters_only,
            step=self.steps,
            progress=self.progress,
        )
        learnt = slice(None) if task is None else slice(task, task + 1)
        logits = result.logits[:, :, learnt]
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, part.labels[:, learnt].expand_as(logits), reduction="none"
        )
        counted = counted_rows(self.network.candidates[0].task_space, part.labels)
        if counted is None:
            losses = losses.mean(2).sum(1) / len(batch) if processes > 1 else losses.mean((1, 2))
        else:
            counted = counted[:, learnt]
            losses = ((losses * counted).sum(1) / part.total(counted.sum(0)).clamp(min=1)).mean(1)
        if result.penalty is not None:  # every process has the same
            losses = losses + result.penalty / processes
        leaves = [leaf for leaf in (flat, values, architecture) if leaf is not None and leaf.requires_grad]
        found = torch.autograd.grad(losses.sum(), leaves)
        gradients = iter(found if processes == 1 else map(replicas.summed, found))
        with torch.no_grad():
            if weigh:
                self.dense.step(self.flat, next(gradients), self.steps, self._may_move(batch))
                moved = before = values.detach()
                if not self.adapters_only:
                    moved = self.sparse.step(self.table, touched, before, next(gradients), self.steps)
                if self.average is not None:
                    self.average.step(self.flat, touched.rows, before, moved)
            if wire:
                self.wiring_steps += 1
                self.wiring.step(self.architecture, next(gradients), self.wiring_steps)
        return losses.detach() if processes == 1 else replicas.summed(losses)

    def _belonging(self, part: str) -> Tensor:
        """Which dense weights have ``part`` in their names, bool [K, P]."""
        pieces = [torch.full((weight.size,), part in name) for name, weight in self.network.layout.weights.items()]
        return torch.cat(pieces).to(self.network.device).expand(self.flat.shape)

    @cached_property
    def _adapters(self) -> Tensor:
        return self._belonging(".lora.")

    @cached_property
    def _pruning(self) -> Tensor:
        return self._belonging(".pruner.")

    def _may_move(self, batch: Batch) -> Tensor | None:
        """Which dense weights this batch may move, bool [K, P]; None = all."""
        if self.adapters_only:
            return self._adapters
        if self.masks is None:
            return None
        present: tuple[bool, ...] = ()
        if self.network.candidates[0].ticket_unit == "domain":
            bounds = batch.segments.bounds
            present = tuple(end > start for start, end in pairwise(bounds))
            if len(batch) > bounds[-1]:
                present = (True,) * len(present)
        if present not in self._movable:
            if len(self._movable) >= MOST_PATTERNS:
                self._movable.clear()
            chosen = torch.tensor(present, device=self.network.device) if present else None
            network = self.network
            self._movable[present] = movable(network.layout, network.maskable, self.masks, chosen)
        return self._movable[present]

    def logits(self, rows: ResidentRows, weights: Weights | None = None) -> Tensor:
        """Scores of every row in its order, [K, N, tasks], by the present weights unless others are given."""
        network, weights = self.network, weights or self.weights()
        tasks = len(network.statistics.tasks)
        out = torch.empty(network.members, len(rows), tasks, dtype=network.dtype, device=network.device)
        with torch.inference_mode():
            for numbers, batch in rows.chunks(SCORING_ROWS):
                out[:, numbers] = self.evaluated(batch, weights).logits
        return out if replicas.count() == 1 else replicas.of_first(out)

    def closed(self, rows: ResidentRows, weights: Weights | None = None) -> dict[str, Tensor]:
        """Share of closed neurons of every pruned layer over ``rows``, [K, D]; NaN for a domain without rows."""
        weights = weights or self.weights()
        totals: dict[str, Tensor] = {}
        counts = torch.bincount(rows.domain, minlength=rows.domains + 1)[: rows.domains].to(self.network.dtype)
        with torch.inference_mode():
            for _, batch in rows.chunks(SCORING_ROWS):
                for name, share in self.evaluated(batch, weights, measure=True).closed.items():
                    totals[name] = totals.get(name, torch.zeros_like(share)) + share * batch.segments.one_hot.sum(0)
        return {name: total / counts for name, total in totals.items()}

    def evaluated(
        self,
        batch: Batch,
        weights: Weights,
        *,
        measure: bool = False,
        architecture: Tensor | None = None,
        values: dict[int, Tensor] | None = None,
    ) -> Pass:
        """The pass of a batch in evaluation.

        Args:
            measure: tell the shares of closed neurons.
            architecture: gate and operator logits [K, A] of a supernet, instead of those of ``weights``.
            values: see :meth:`Network.forward`.
        """
        if architecture is None and self.network.relaxed:
            architecture = weights.architecture
        return self.network.forward(
            weights.flat,
            weights.table,
            batch.ids,
            batch,
            architecture=architecture,
            running=weights.running,
            masks=weights.masks,
            progress=weights.progress,
            measure=measure,
            values=values,
        )

    def weights(self) -> Weights:
        """The present weights, averaged where a member asks for it (else shared with the cohort: copy to keep).

        Pruners and the domain's embedding, which steers them, are not averaged: the regulariser holds the present
        shares of closed neurons in their bands, and an average of the way there would close others.
        """
        flat, table = self.flat, self.table
        if self.average is not None and self.average.steps:
            with torch.no_grad():
                averaged, rows = self.average.read(table)
                if self.adapters_only:
                    flat = torch.where(self._adapters, averaged, flat)
                elif self.network.pruners is None:
                    flat, table = averaged, rows
                else:
                    flat = torch.where(self._pruning, flat, averaged)
                    steering, sparse = self.network.embedding.domain_rows, self.network.pruners.used[:, 0] > 0
                    rows[steering] = torch.where(sparse, table[steering], rows[steering])
                    table = rows
        return Weights(flat, table, self.running, self.architecture, self.progress, self.masks)

    def restore(self, weights: Weights) -> None:
        """Take over weights, and the steepness of the pruners that goes with them, for scoring and export.

        Optimiser state stays as it is and the average starts anew, so this is not a place to train on from.
        """
        if self.average is not None:
            self.average.steps = 0
        for mine, given in (
            (self.flat, weights.flat),
            (self.table, weights.table),
            (self.running, weights.running),
            (self.architecture, weights.architecture),
        ):
            mine.copy_(given)
        self.masks = weights.masks
        self.ramped = round(weights.progress * self.ramp) - self.rows
