"""The multi-domain networks the search is compared with, against the numpy statement of their equations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fake_data import TASKS, fake_dataset
from reference import multidomain
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from autoctr.data.dataset import Dataset
from autoctr.model.build import BACKBONES
from autoctr.model.candidate import Candidate
from autoctr.model.domain_linear import domain_linear
from autoctr.model.network import Batch, Network
from autoctr.model.segments import Segments
from autoctr.training.cohort import Cohort, frozen_tables
from autoctr.training.rows import ResidentRows
from model.networks import TINY, batch_of, mixed_batch, random_cohort, reference_x0, resident, scored

Array = npt.NDArray[np.float64]
Layer = tuple[Array, Array]

NAMES = ["mmoe", "ple", "star", "pepnet"]
SHAPES: dict[str, dict[str, Any]] = {
    "two blocks": {"blocks": 2},
    "one block": {"blocks": 1},
    "three blocks, three experts": {"blocks": 3, "experts": 3},
    "one expert": {"blocks": 2, "experts": 1},
    "without projection": {"blocks": 2, "width": 0, "embedding": 2},
    "wide": {"blocks": 1, "width": 40},
}
BATCHES = ["mixed", "one row", "one unknown row", "a domain lacks", "one domain", "unknown only", "no row"]
STEP = 1e-5


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=150, tasks=TASKS, unseen=0.2)


def batch_like(name: str, rows: ResidentRows) -> Batch:
    numbers = torch.arange(len(rows))
    known, unknown = numbers[rows.domain < rows.domains], numbers[rows.domain == rows.domains]
    chosen: dict[str, Tensor] = {
        "one row": known[:1],
        "one unknown row": unknown[:1],
        "a domain lacks": known[rows.domain[known] != 1][:9],
        "one domain": known[rows.domain[known] == 1][:6],
        "unknown only": unknown[:5],
        "no row": numbers[:0],
    }
    return mixed_batch(rows, 2) if name == "mixed" else batch_of(rows, chosen[name].tolist())


def fresh(dataset: Dataset, members: Sequence[Candidate]) -> Cohort:
    return Cohort(dataset.statistics, members, frozen_tables(dataset), ramp=1000, dtype=torch.float64)


class Reference:
    """Logits of one member by the numpy reference."""

    def __init__(self, cohort: Cohort, member: int, batch: Batch) -> None:
        network = cohort.network
        self.candidate, self.statistics, self.width = network.candidates[member], network.statistics, network.width
        views = network.layout.views(cohort.flat)
        self.weights = {name: view[member].numpy().astype(np.float64) for name, view in views.items()}
        inputs = [reference_x0(cohort, member, batch, row) for row in range(len(batch))]
        self.x, self.e_d = np.stack([x for x, _ in inputs]), np.stack([e for _, e in inputs])
        if self.candidate.width:
            self.x = multidomain.linear(self.x, self.pair("projection"))
        self.domain = batch.segments.domain.tolist()
        self.domains = len(self.statistics.domains)

    def pair(self, name: str) -> Layer:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def pairs(self, name: str) -> list[Layer]:
        """One layer per entry of the leading axis."""
        return list(zip(*self.pair(name), strict=True))

    def cut(self, layer: Layer) -> list[list[Layer]]:
        """The experts of a wide layer, each of one layer of the network's width."""
        count = layer[0].shape[-1] // self.width
        return [[layer] for layer in zip(np.split(layer[0], count, 1), np.split(layer[1], count), strict=True)]

    def towers(self) -> list[dict[str, Layer]]:
        both = zip(self.pairs("tower"), self.pairs("head"), strict=True)
        return [{"hidden": hidden, "output": output} for hidden, output in both]

    def mmoe(self) -> Array:
        experts = self.cut(self.pair("experts.1"))
        for n in range(2, self.candidate.blocks + 1):
            experts = [[*expert, layer] for expert, layer in zip(experts, self.pairs(f"experts.{n}"), strict=True)]
        parameters = {"experts": experts, "gates": self.pairs("gate"), "towers": self.towers()}
        return multidomain.mmoe(self.x, self.domain, parameters)[1]

    def ple(self) -> Array:
        """The published formula; with several levels, each row's own domain is alone in it."""
        levels = []
        for n in range(1, self.candidate.blocks + 1):
            own = [self.cut(layer) for layer in self.pairs(f"level.{n}.own")]
            level: dict[str, Any] = {
                "own": own,
                "shared": self.cut(self.pair(f"level.{n}.shared")),
                "gates": self.pairs(f"level.{n}.gate"),
            }
            if n < self.candidate.blocks:
                level["shared_gate"] = self.pair(f"level.{n}.shared_gate")
            levels.append(level)
        if self.candidate.blocks == 1:
            return multidomain.ple(self.x, self.domain, {"levels": levels, "towers": self.towers()})[1]
        logits = []
        for x, d in zip(self.x, self.domain, strict=True):
            mine = [
                level | {part: [multidomain.of_domain(level[part], d)] for part in ("own", "gates")} for level in levels
            ]
            towers = [multidomain.of_domain(self.towers(), d)]
            logits.append(multidomain.ple(x[None], [0], {"levels": mine, "towers": towers})[1][0])
        return np.array(logits)

    def star(self) -> Array:
        def layer(name: str) -> dict[str, Any]:
            return {"shared": self.pair(name), "domains": self.pairs(f"{name}.domain")}

        parameters = {
            "layers": [layer(f"layer.{n}") for n in range(1, self.candidate.blocks + 1)],
            "output": layer("head"),
            "auxiliary": [self.pair("auxiliary.hidden"), self.pair("auxiliary.head")],
        }
        return multidomain.star(self.x, self.domain, parameters)[1]

    def _pepnet(self, frozen: tuple[Array, Array] | None) -> tuple[Array, Array]:
        def gate(name: str) -> tuple[Layer, Layer]:
            return self.pair(f"{name}.gate.hidden"), self.pair(f"{name}.gate.scale")

        names = [f"layer.{n}" for n in range(1, self.candidate.blocks + 1)]
        layers = [{"linear": self.pair(name), "gate": gate(name)} for name in names]
        parameters = {"embedding_gate": gate("embedding"), "layers": layers}
        return multidomain.pepnet(self.x, self.e_d, parameters, frozen)

    def pepnet(self, frozen: tuple[Array, Array] | None = None) -> Array:
        return multidomain.linear(self._pepnet(frozen)[1], self.pair("head"))

    def frozen(self) -> tuple[Array, Array]:
        """What PEPNet's gates read without a gradient: x0 and the scaled x0."""
        return self.x, self._pepnet(None)[0]

    def logits(self, frozen: tuple[Array, Array] | None = None) -> Array:
        """[B, tasks]."""
        if self.candidate.backbone == "pepnet":
            return self.pepnet(frozen)
        return {"mmoe": self.mmoe, "ple": self.ple, "star": self.star}[self.candidate.backbone]()


def members_of(name: str, count: int = 2, **settings: Any) -> list[Candidate]:
    return [Candidate(**TINY | {"backbone": name} | settings, seed=seed) for seed in range(count)]


def test_every_backbone_of_a_candidate_is_a_network() -> None:
    assert set(BACKBONES) == {"fusion", *NAMES}


# what it computes


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_network_equals_the_reference(dataset: Dataset, name: str, shape: str) -> None:
    cohort = random_cohort(dataset, members_of(name, **SHAPES[shape]))
    batch = mixed_batch(resident(dataset), 2)
    logits = scored(cohort, batch)
    for k in range(2):
        expected = Reference(cohort, k, batch).logits()
        np.testing.assert_allclose(logits[k].numpy(), expected, rtol=1e-9, atol=1e-9)
    assert float(logits.std()) > 1e-2


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", NAMES)
def test_edge_batches_are_scored_like_the_reference_and_trained_on(dataset: Dataset, name: str, kind: str) -> None:
    cohort = random_cohort(dataset, members_of(name, blocks=2, dropout=0.3, embedding_dropout=0.1))
    batch = batch_like(kind, resident(dataset))
    logits = scored(cohort, batch)
    assert logits.shape == (2, len(batch), len(TASKS))
    if not len(batch):
        return
    for k in range(2):
        np.testing.assert_allclose(logits[k].numpy(), Reference(cohort, k, batch).logits(), rtol=1e-9, atol=1e-9)
    start = cohort.flat.clone()
    for _ in range(2):
        assert bool(cohort.step(batch).isfinite().all())
    assert bool(cohort.flat.isfinite().all())
    assert bool(((cohort.flat - start).abs().amax(1) > 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_mixed_batches_give_each_row_its_own_domains_weights(dataset: Dataset, name: str) -> None:
    cohort = random_cohort(dataset, members_of(name, blocks=2))
    rows = resident(dataset)
    whole = cohort.logits(rows)
    single = torch.cat([scored(cohort, batch_of(rows, [n])) for n in range(len(rows))], 1)
    torch.testing.assert_close(whole, single, rtol=0, atol=1e-11)


def test_a_map_per_domain_is_the_mean_map_for_an_unknown_domain() -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=draw).double() for shape in ((2, 7, 3), (2, 3, 3, 4), (2, 3, 4)))
    domain = torch.tensor([0, 0, 2, 2, 2, 3, 3])
    out = domain_linear({"N.weight": weight, "N.bias": bias}, "N", x, Segments(domain, 3, torch.float64))
    weights, biases = [*weight.unbind(1), weight.mean(1)], [*bias.unbind(1), bias.mean(1)]
    expected = torch.stack([x[:, [n]] @ weights[d] + biases[d][:, None] for n, d in enumerate(domain.tolist())], 1)
    torch.testing.assert_close(out, expected[:, :, 0], rtol=0, atol=1e-12)


def test_star_starts_as_its_shared_network(dataset: Dataset) -> None:
    cohort = fresh(dataset, members_of("star"))
    batch = mixed_batch(resident(dataset), 2)
    logits = scored(cohort, batch)
    unknown = Segments(torch.full_like(batch.segments.domain, 4), 4, torch.float64)
    shared = scored(cohort, dataclasses.replace(batch, segments=unknown))
    torch.testing.assert_close(shared, logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_batch_normalisation_is_refused(dataset: Dataset, name: str) -> None:
    with pytest.raises(ValueError, match=f"norm is batch; legal with backbone {name} is none"):
        fresh(dataset, members_of(name, norm="batch"))


# how it learns


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_central_differences_of_the_reference(dataset: Dataset, name: str) -> None:
    cohort = random_cohort(dataset, members_of(name, 1, width=4, embedding=2, blocks=2, experts=3))
    network, batch = cohort.network, mixed_batch(resident(dataset), 2)
    weigh = np.random.default_rng(3).normal(size=(len(batch), len(TASKS)))
    leaves = [cohort.flat.clone().requires_grad_(), cohort.table.clone().requires_grad_()]
    logits = network.forward(leaves[0], leaves[1], batch.ids, batch).logits[0]
    gradients = torch.autograd.grad((logits * torch.from_numpy(weigh)).sum(), leaves)
    frozen = Reference(cohort, 0, batch).frozen() if name == "pepnet" else None

    def numeric(values: Tensor, entry: tuple[int, ...]) -> float:
        """A central difference of fourth order."""
        start, total = float(values[entry]), 0.0
        for steps, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            values[entry] = start + steps * STEP
            total += weight * float((Reference(cohort, 0, batch).logits(frozen) * weigh).sum())
        values[entry] = start
        return total / (12 * STEP)

    draw = torch.Generator().manual_seed(0)
    entries: list[tuple[int, tuple[int, ...]]] = []
    at = 0
    for weight in network.layout.weights.values():
        entries += [(0, (0, at + int(n))) for n in torch.randint(weight.size, (3,), generator=draw)]
        at += weight.size
    entries += [(1, (int(row), 0, 1)) for row in batch.ids.unique()[::4]]
    alive = 0
    for place, entry in entries:
        expected = numeric((cohort.flat, cohort.table)[place], entry)
        assert float(gradients[place][entry]) == pytest.approx(expected, rel=1e-6, abs=1e-7)
        alive += abs(expected) > 1e-4
    assert alive > len(entries) // 3


@pytest.mark.parametrize("name", NAMES)
def test_every_dense_weight_gets_a_gradient(dataset: Dataset, name: str) -> None:
    cohort = random_cohort(dataset, members_of(name, 1, blocks=2))
    batch = mixed_batch(resident(dataset), 8)
    leaf = cohort.flat.clone().requires_grad_()
    result = cohort.network.forward(leaf, cohort.table, batch.ids, batch, step=1)
    assert result.penalty is None
    assert not cohort.network.relaxed
    weigh = torch.randn(result.logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((result.logits * weigh).sum(), [leaf])
    dead = []
    for part, view in cohort.network.layout.views(gradient).items():
        # every domain's and every expert's matrix
        dead += [part for each in (view[0] if view.dim() > 3 else view) if float(each.abs().max()) < 1e-9]
    assert dead == []


@pytest.mark.parametrize("name", ["mmoe", "ple", "star"])
def test_the_weights_of_an_absent_domain_rest(dataset: Dataset, name: str) -> None:
    cohort = random_cohort(dataset, members_of(name, 1, blocks=2, experts=3, weight_decay=0.0))
    domains, weights = len(dataset.statistics.domains), cohort.network.layout.weights.values()
    per_domain = [weight.name for weight in weights if weight.shape[0] == domains]
    before = {part: cohort.network.layout.views(cohort.flat)[part].clone() for part in per_domain}
    cohort.step(batch_like("a domain lacks", resident(dataset)))
    after = cohort.network.layout.views(cohort.flat)
    assert len(before) == {"mmoe": 6, "ple": 12, "star": 6}[name]
    for part, old in before.items():
        assert torch.equal(after[part][:, 1], old[:, 1])
        assert not torch.equal(after[part][:, 0], old[:, 0])


SETTINGS: list[dict[str, Any]] = [
    {"learning_rate": 4e-3, "dropout": 0.3, "averaging": 0.9, "weight_decay": 1e-2},
    {"learning_rate": 1e-3, "dropout": 0.0, "averaging": 0.0, "weight_decay": 0.0, "embedding_l2": 1e-3},
    {"learning_rate": 2e-3, "dropout": 0.6, "embedding_dropout": 0.2, "embedding_rate": 3.0},
]


def train(cohort: Cohort, rows: ResidentRows, steps: int) -> Tensor:
    losses: list[Tensor] = []
    while len(losses) < steps:
        for batch in rows.batches(5, len(losses), 24):
            losses.append(cohort.step(batch))
    return torch.stack(losses[:steps])


@pytest.mark.parametrize("name", NAMES)
def test_three_together_are_three_alone_after_30_steps(dataset: Dataset, name: str) -> None:
    shape: dict[str, Any] = {"embedding": 4, "width": 8, "blocks": 2, "experts": 3, "backbone": name}
    members = [Candidate(**shape | settings, seed=11 * n) for n, settings in enumerate(SETTINGS)]
    rows, valid = resident(dataset, "train"), resident(dataset)
    together = fresh(dataset, members)
    start = together.flat.clone()
    losses = train(together, rows, 30)
    assert bool(((together.flat - start).abs().amax(1) > 1e-2).all())
    for k, member in enumerate(members):
        alone = fresh(dataset, [member])
        assert torch.equal(alone.flat[0], start[k])
        mine = train(alone, rows, 30)[:, 0]
        pairs = [(losses[:, k], mine), (together.flat[k], alone.flat[0]), (together.table[:, k], alone.table[:, 0])]
        for theirs, own in [*pairs, (together.logits(valid)[k], alone.logits(valid)[0])]:
            torch.testing.assert_close(theirs, own, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_100_steps_lower_the_loss(dataset: Dataset, name: str) -> None:
    members = members_of(name, 1, embedding=8, width=16, learning_rate=5e-3, dropout=0.1)
    losses = train(fresh(dataset, members), resident(dataset, "train"), 100)
    assert float(losses[-10:].mean()) < 0.8 * float(losses[:10].mean())


@pytest.mark.parametrize("name", NAMES)
def test_every_hidden_layer_has_a_dropout_of_its_own(
    dataset: Dataset, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = random_cohort(dataset, members_of(name, 1, blocks=3, dropout=0.5))
    batch, places = mixed_batch(resident(dataset), 2), []
    original = Network.dropped

    def recorded(self: Network, h: Tensor, step: int | None, place: int) -> Tensor:
        assert float(h.min()) == 0
        out = original(self, h, step, place)
        assert torch.equal(out, h) == (step is None)
        places.append(place)
        return out

    monkeypatch.setattr(Network, "dropped", recorded)
    for step in (None, 4):
        cohort.network.forward(cohort.flat, cohort.table, batch.ids, batch, step=step)
    # PEPNet alone has neither towers nor an auxiliary network behind or beside its three layers
    assert places == 2 * ([1, 2, 3] if name == "pepnet" else [1, 2, 3, 4])


# what it costs


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_multiply_adds_are_the_products_really_done(dataset: Dataset, name: str, shape: str) -> None:
    (member,) = members_of(name, 1, **SHAPES[shape])
    cohort, batch = fresh(dataset, [member]), batch_like("one domain", resident(dataset))
    with FlopCounterMode(display=False) as counter:
        scored(cohort, batch)
    matrices = counter.get_total_flops() / 2 / len(batch)
    # scaled neurons are products too, but not of matrices
    scaled = (member.blocks + 1) * cohort.network.width if name == "pepnet" else 0
    assert BACKBONES[name].multiply_adds(member, dataset.statistics) == matrices + scaled
