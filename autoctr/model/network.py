"""What every network of a cohort shares: embedding, optional projection to the width, dropout, labels in, logits out.

A kind of network says with which weights it goes on from there: :mod:`autoctr.model.fusion` for the searched one, and
one file for each multi-domain network that it is compared with.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from autoctr.data.statistics import Statistics
from autoctr.model.candidate import Candidate
from autoctr.model.dropout import dropout
from autoctr.model.embedding import FeatureEmbedding, SnapshotField
from autoctr.model.linear import declare_linear, linear
from autoctr.model.parameters import Layout, Views
from autoctr.model.segments import Segments
from autoctr.model.sparsity import Pruners
from autoctr.model.tasks import entire_space

SHAPE_FIELDS = (
    "backbone", "experts", "embedding", "width", "blocks", "cross", "norm", "sparsity_form", "pruner_input",
    "input_pruner", "learned", "ticket_unit", "batch", "order", "task_space", "snapshots", "pooling", "precision",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Share:
    """What one of several processes has of a batch: rows ``first``, ``first`` + 1, ... of ``rows`` in all.

    ``total`` sums a tensor over the processes; its gradient is the sum of theirs.
    """

    first: int
    rows: int
    total: Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows sorted by domain, on one device.

    ids int [B, slots], numbers float [B, scaled fields], vectors int [B, vector fields], labels float [B, tasks].
    ``share`` is None for a whole batch.
    """

    ids: Tensor
    numbers: Tensor
    vectors: Tensor
    labels: Tensor
    segments: Segments
    share: Share | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def first(self) -> int:
        """Number of the first row in the whole batch."""
        return 0 if self.share is None else self.share.first

    def total(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all who have a share of the batch."""
        return values if self.share is None else self.share.total(values)


@dataclasses.dataclass
class Pass:
    """What one forward pass returns: logits [K, B, tasks] and the band penalty [K] (None without pruners).

    ``closed``, if measured, is the share of closed neurons of each pruned layer, [K, D]; ``x0`` names the input's.
    """

    logits: Tensor
    penalty: Tensor | None
    closed: dict[str, Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Inputs:
    """What a network's body reads.

    x0 [K, B, H], the domain's embedding [K, B, E], the batch, the training step (None = evaluation), the share of the
    sparsity ramp that is done, gate and operator logits (supernets only), running statistics [K, S] (batch
    normalisation only), and masks of maskable weights, [K, U, M] (tickets only). Pruned layers put their shares of
    closed neurons into ``closed``, unless it is None. With ``rests``, normalisation uses its running statistics and
    leaves them as they are, in training too. ``values`` holds outputs of components that are known already, by their
    numbers; what else is computed is put there.
    """

    x0: Tensor
    domain: Tensor
    batch: Batch
    step: int | None
    progress: float
    learned: Views | None
    running: Tensor | None
    masks: Tensor | None
    closed: dict[str, Tensor] | None
    rests: bool
    values: dict[int, Tensor]


class Network(abc.ABC):
    """The computation of K members that share a shape; weights come in as arguments.

    Args:
        statistics: of the dataset.
        candidates: the members; they agree in ``SHAPE_FIELDS``.
        tables: frozen vectors of each vector field, float [rows, width].

    Attributes:
        layout: the dense weights of one member.
        architecture: the gates and operator logits of one member of a supernet (empty for a discrete network).
        normalisation: running means and variances of one member (empty without batch normalisation).
        maskable: the dense weights of one member that tickets may prune.
        computing: the type of what training steps compute; in evaluation it is that of the weights.
        relaxed: whether it is a supernet.
        pruners: of the members; None if none is sparse.
    """

    def __init__(
        self,
        statistics: Statistics,
        candidates: Sequence[Candidate],
        tables: Mapping[str, Tensor],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        first = candidates[0]
        for name in SHAPE_FIELDS:
            values = {getattr(candidate, name) for candidate in candidates}
            if len(values) > 1:
                raise ValueError(f"members of a cohort must agree in {name}, not {sorted(values)}")
        if first.snapshots and not any(isinstance(field, SnapshotField) for field in statistics.vectors):
            raise ValueError(f"snapshots is {first.snapshots}, but the rows read none; see with_snapshots")
        self.relaxed = False
        self.pruners: Pruners | None = None
        self.statistics, self.candidates = statistics, tuple(candidates)
        self.dtype, self.device = dtype, torch.device(device)
        self.computing = torch.bfloat16 if first.precision == "bf16" else dtype
        self.members, self.blocks = len(candidates), first.blocks
        frozen = {name: table.to(self.device, dtype) for name, table in tables.items()}
        self.embedding = FeatureEmbedding(statistics, first.embedding, frozen)
        self.width = first.width or self.embedding.width
        self.projected = first.width > 0
        self.rates = self.tensor([c.dropout for c in candidates])
        self.embedding_rates = self.tensor([c.embedding_dropout for c in candidates])
        self.drops = any(c.dropout > 0 for c in candidates)
        self.drops_embedding = any(c.embedding_dropout > 0 for c in candidates)
        self.seeds = torch.tensor([c.seed % (1 << 31) for c in candidates], dtype=torch.int32, device=self.device)
        self.layout, self.architecture, self.normalisation, self.maskable = Layout(), Layout(), Layout(), Layout()
        self.embedding.declare(self.layout)
        if self.projected:
            declare_linear(self.layout, "projection", self.embedding.width, self.width)
        self.declare()

    def tensor(self, values: object) -> Tensor:
        """``values`` with the network's type on its device."""
        return torch.tensor(values, dtype=self.dtype, device=self.device)

    @abc.abstractmethod
    def declare(self) -> None:
        """Reserve the weights behind x0 in ``layout``, ``architecture``, ``normalisation`` and ``maskable``."""

    @property
    def units(self) -> int:
        """Number of tickets: one per domain, per task, or one."""
        kinds = {"domain": len(self.statistics.domains), "task": len(self.statistics.tasks), "network": 1}
        return kinds[self.candidates[0].ticket_unit]

    @staticmethod
    @abc.abstractmethod
    def multiply_adds(candidate: Candidate, statistics: Statistics) -> int:
        """Multiply-adds per row without the embedding look-up, for the dearest domain."""

    @abc.abstractmethod
    def body(self, weights: Views, inputs: Inputs) -> Pass:
        """Logits and penalty from x0."""

    def select(self, weights: Views, fields: Tensor, inputs: Inputs) -> Tensor:
        """The fields that go on, [K, B, F]: all, unless a kind of network prunes its input."""
        return fields

    def initial_running(self) -> Tensor:
        """Fresh running means (0) and variances (1), [K, S]."""
        return self.normalisation.initial([0] * self.members).to(self.device, self.dtype)

    def dropped(self, h: Tensor, step: int | None, place: int, first: int = 0) -> Tensor:
        """``h`` [K, B, H] with each member's share of neurons dropped in training; ``place`` numbers the layer.

        ``first`` is the number of the first row in the whole batch.
        """
        return dropout(h, self.rates, self.seeds, step, place, first) if step is not None and self.drops else h

    def forward(
        self,
        flat: Tensor,
        table: Tensor,
        positions: Tensor,
        batch: Batch,
        *,
        architecture: Tensor | None = None,
        running: Tensor | None = None,
        masks: Tensor | None = None,
        step: int | None = None,
        progress: float = 1.0,
        measure: bool = False,
        rests: bool = False,
        values: dict[int, Tensor] | None = None,
    ) -> Pass:
        """Logits of every member for every row.

        Args:
            flat: dense weights [K, P]. table: embedding rows [U, K, E]. positions: int [B, slots], rows of ``table``.
            architecture: gate and operator logits [K, A] of a supernet.
            running: normalisation statistics [K, S], updated in place while training.
            masks: 0 where a maskable weight is pruned for a unit (domain, task or all), else 1; [K, U, M].
            step: training step; None means evaluation (no dropout, running statistics).
            progress: share of the sparsity ramp that is done.
            measure: tell the shares of closed neurons in evaluation too.
            rests: keep running statistics as they are, and use them, in training too.
            values: of a searched network without tickets: outputs of components, by their number, that need not be
                computed again. Those that are computed are added.

        Returns: logits [K, B, tasks], penalty [K].
        """
        kind = flat.dtype if step is None else self.computing
        weights = self.layout.views(flat.to(kind))
        # Rows are cast behind the look-up: the gradients of an id's occurrences add up in the type of the table.
        x, domain = self.embedding.forward(weights, table, positions, batch.ids, batch.numbers, batch.vectors)
        x, domain = x.to(kind), domain.to(kind)
        if step is not None and self.drops_embedding:
            x = dropout(x, self.embedding_rates, self.seeds, step, 0, batch.first)
        learned = None if architecture is None else self.architecture.views(architecture)
        closed: dict[str, Tensor] | None = {} if measure or step is not None else None
        values = {} if values is None else values
        inputs = Inputs(x, domain, batch, step, progress, learned, running, masks, closed, rests, values)
        x = self.select(weights, x, inputs)
        inputs.x0 = linear(weights, "projection", x) if self.projected else x
        result = self.body(weights, inputs)
        result.logits = result.logits.to(flat.dtype)
        if self.candidates[0].task_space == "esmm":
            result.logits = entire_space(result.logits)
        return result


def field_widths(candidate: Candidate, statistics: Statistics) -> list[int]:
    """Numbers of every field in x0 before the projection."""
    tables = {field.name: torch.empty(0, field.width) for field in statistics.vectors}
    return FeatureEmbedding(statistics, candidate.embedding, tables).widths


def projection_cost(candidate: Candidate, statistics: Statistics) -> tuple[int, int]:
    """Multiply-adds of the projection per row, and the width behind it."""
    inputs = sum(field_widths(candidate, statistics))
    return inputs * candidate.width, candidate.width or inputs
