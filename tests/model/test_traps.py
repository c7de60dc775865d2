"""Traps of reference implementations, numbered paper, section, trap (1 OptFusion, 2 AdaSparse, 3 MLoRA)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_data import fake_dataset
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model import sparsity
from autoctr.model.architecture import ATTENTION, OPERATORS, consumers, full, inputs, one_hot, parallel, producers
from autoctr.model.candidate import Candidate, sparsities
from autoctr.model.gates import open_gates, straight_through
from autoctr.model.node import Node
from autoctr.model.operators import FUSION_OPERATORS, Edge
from autoctr.model.parameters import Layout
from autoctr.training.cohort import Cohort, frozen_tables
from autoctr.training.rows import ResidentRows
from model.networks import TINY, batch_of, mixed_batch, random_cohort, resident, scored, uniform_wiring


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=200, unseen=0.1)


def fresh(dataset: Dataset, **settings: Any) -> Cohort:
    return Cohort(
        dataset.statistics,
        [Candidate(**TINY | settings)],
        frozen_tables(dataset),
        ramp=1000,
        dtype=torch.float64,
    )


def wide_edges(width: int, gates: list[float], seed: int = 0) -> list[Edge]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(len(gates), 1, 30, width, generator=draw, dtype=torch.float64)
    return [Edge(x[u], torch.full((1, 1, 1), gate, dtype=torch.float64)) for u, gate in enumerate(gates)]


def joined(operator: str, edges: list[Edge], width: int) -> Tensor:
    """What an operator with fresh weights makes of its inputs."""
    layout, joins, sources = Layout(), FUSION_OPERATORS[operator], [f"E{u}" for u in range(len(edges))]
    joins.declare(layout, "N", sources, width)
    weights = layout.views(layout.initial([3]).double()) if layout.weights else {}
    out, _ = joins.forward([weights[name] for name in joins.names("N", sources)], edges)
    return out


# 1.9 OptFusion


def test_trap_1_9_2_product_survives_a_closed_gate() -> None:
    edges = wide_edges(8, [1.0, 0.0, 1.0])
    out = joined("product", edges, 8)
    torch.testing.assert_close(out, edges[0].value * edges[2].value, rtol=1e-12, atol=0)
    assert float(out.abs().min()) > 0


def test_trap_1_9_2_a_closed_gate_of_product_gets_a_gradient() -> None:
    values = [edge.value for edge in wide_edges(8, [1.0] * 4)]
    logits = torch.tensor([[0.5, -0.5, 0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    only = torch.full((1, len(OPERATORS)), -torch.inf, dtype=torch.float64)
    only[0, OPERATORS.index("product")] = 0.0
    node = Node([Candidate(blocks=1, architecture="learn")], 2, 8, torch.tensor)
    layout = Layout()
    node.declare(layout)
    weights = layout.views(layout.initial([3]).double())
    out = node.forward(weights, dict(enumerate(values)), {"O.gates": logits, "O.operators": only})
    (gradient,) = torch.autograd.grad(out.sum(), [logits])
    expected = (values[0] * values[2] * values[3] * (values[1] - 1)).sum()
    assert float(gradient[0, 1]) == pytest.approx(float(expected), rel=1e-12)
    assert float(gradient[0, 1]) != 0


@pytest.mark.parametrize("width", [8, 256])
def test_trap_1_9_3_attention_keeps_the_scale(width: int) -> None:
    edges = wide_edges(width, [1.0])
    out = joined("attention", edges, width)
    assert 0.7 < float(out.std() / edges[0].value.std()) < 1.5


@pytest.mark.parametrize("operator", OPERATORS)
def test_trap_1_9_3_no_operator_starts_far_below_add(operator: str) -> None:
    width, edges = 64, wide_edges(64, [1.0, 1.0])
    add, out = joined("add", edges, width), joined(operator, edges, width)
    assert float(out.std() / add.std()) > 0.2


@pytest.mark.parametrize("rate", [0.3, 0.1, 0.03])
def test_trap_1_9_4_gates_rest_before_they_are_wired(dataset: Dataset, rate: float) -> None:
    cohort = fresh(dataset, blocks=1, architecture="learn", architecture_rate=rate, embedding_rate=1.0)
    rows = resident(dataset, "train")
    start = cohort.architecture.clone()
    for batch in rows.batches(0, 0, 50):
        cohort.step(batch)
    assert torch.equal(cohort.architecture, start)
    # the architecture's Adam counts its own steps: the first is one whole rate, however late it comes
    cohort.step(next(rows.batches(0, 0, 50)), wire=True)
    moved = (cohort.architecture - start).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-3, atol=0)


def test_trap_1_9_5_a_node_never_loses_its_last_input(dataset: Dataset) -> None:
    draw = torch.Generator().manual_seed(0)
    for count in inputs(3):
        logits = torch.randn(500, count, generator=draw) - 1.5
        flags = open_gates(logits)
        assert bool(flags.any(-1).all())
        closed = ~(logits > 0).any(-1)
        assert bool(closed.any())
        assert bool((flags[closed].sum(-1) == 1).all())
        assert bool((flags[~closed] == (logits[~closed] > 0)).all())
    cohort = fresh(dataset, blocks=2, architecture="learn")
    cohort.architecture.fill_(-1.0)
    closed_logits = scored(cohort, mixed_batch(resident(dataset)))
    assert float(closed_logits.std()) > 0


def test_trap_1_9_6_no_dead_architecture_parameters(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY, blocks=3, architecture="learn")])
    gates = [w for w in cohort.network.architecture.weights.values() if w.name.endswith("gates")]
    assert [w.shape[0] for w in gates] == inputs(3)
    assert sum(w.size for w in gates) == 32  # 33 connections, of which C0's one is not a choice
    assert cohort.network.architecture.size == 32 + 7 * 4
    batch = mixed_batch(resident(dataset), 4)
    leaf = cohort.architecture.clone().requires_grad_()
    logits = scored(cohort, batch, architecture=leaf)
    (gradient,) = torch.autograd.grad((logits * torch.randn_like(logits)).sum(), [leaf])
    assert int((gradient == 0).sum()) == 0


@pytest.mark.parametrize("wiring", [None, full(2), uniform_wiring((0.25,) * 4)], ids=["supernet", "full", "soft"])
def test_trap_1_9_6_every_dense_weight_gets_a_gradient(dataset: Dataset, wiring: Any) -> None:
    settings: dict[str, Any] = {"norm": "batch", "rank": 2, "sparsity": 0.3, "blocks": 2}
    cohort = random_cohort(dataset, [Candidate(**TINY | settings, wiring=wiring)])
    cohort.architecture.abs_()  # all gates open
    batch = mixed_batch(resident(dataset), 8)
    leaf = cohort.flat.clone().requires_grad_()
    result = cohort.network.forward(
        leaf, cohort.table, batch.ids, batch, running=cohort.running, step=1, progress=0.2,
        architecture=cohort.architecture if wiring is None else None,
    )  # fmt: skip
    assert result.penalty is not None
    loss = (result.logits * torch.randn_like(result.logits)).sum() + result.penalty.sum()
    (gradient,) = torch.autograd.grad(loss, [leaf])
    dead = [name for name, view in cohort.network.layout.views(gradient).items() if float(view.abs().max()) < 1e-9]
    assert dead == []


def test_trap_1_9_7_the_cost_of_a_supernet_does_not_grow_with_the_fields(dataset: Dataset) -> None:
    def node_weights(dataset: Dataset) -> dict[str, int]:
        weights = fresh(dataset, blocks=2, architecture="learn").network.layout.weights
        nodes = {*producers(2), *consumers(2)}
        return {name: weight.size for name, weight in weights.items() if name.partition(".")[0] in nodes}

    few = fake_dataset(rows=20, kinds=())
    assert len(few.statistics.fields) < len(dataset.statistics.fields)
    assert node_weights(few) == node_weights(dataset)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_straight_through_gates_are_exactly_zero_or_one(dtype: torch.dtype) -> None:
    logits = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)).to(dtype) * 3
    gates = straight_through(logits)
    assert gates.dtype == dtype
    assert set(gates.unique().tolist()) == {0.0, 1.0}


# 2.6 AdaSparse


@pytest.mark.parametrize("form", sparsity.FORMS)
def test_trap_2_6_1_a_pruner_closes_and_never_negates(form: str) -> None:
    v = torch.linspace(-10, 10, 401, dtype=torch.float64)[None, None]
    factors = sparsity.factors(form, v, 5.0)
    assert float(factors.min()) >= 0
    kept = factors[factors > 0]
    if form == "scaling":
        assert len(kept) == v.numel()
        return
    assert len(kept) < v.numel()
    assert float(kept.min()) > 0.25
    below = v < sparsity.threshold(form, 5.0)
    assert bool((factors[below] == 0).all())
    assert bool((factors[~below] > 0).all())
    if form == "binarization":
        assert set(factors.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("form", ["fusion", "binarization"])
def test_trap_2_6_1_a_pruner_closes_and_learns(dataset: Dataset, form: str) -> None:
    cohort = fresh(dataset, wiring=parallel(1), blocks=1, sparsity=0.5, sparsity_form=form, learning_rate=0.02)
    batch = mixed_batch(resident(dataset), 30)
    cohort.ramped = 1000
    before = {name: view.clone() for name, view in cohort.network.layout.views(cohort.flat).items()}
    shares = []
    original = sparsity.closed_share
    for _ in range(150):
        cohort.step(batch)
    weights = cohort.network.layout.views(cohort.flat)
    for part in ("neurons", "domain", "bias"):
        assert not torch.equal(weights[f"D1.pruner.{part}"], before[f"D1.pruner.{part}"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparsity, "closed_share", lambda *a: shares.append(original(*a)) or shares[-1])
        cohort.step(batch)
    # the band regulariser brings every domain's share near the wanted half
    assert bool(((shares[0] - 0.5).abs() < 0.15).all())


def test_trap_2_6_3_the_pruner_acts_on_the_same_layers_output_after_relu(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY, wiring=parallel(1), blocks=1, sparsity=0.3)])
    weights = cohort.network.layout.views(cohort.flat)
    seen: list[tuple[Tensor, Tensor]] = []
    original = sparsity.pruner_output
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sparsity, "pruner_output", lambda w, n, h, e: seen.append((h, original(w, n, h, e))) or seen[-1][1]
        )
        scored(cohort, mixed_batch(resident(dataset)))
    ((h, _),) = seen
    assert float(h.min()) == 0
    assert h.shape[-1] == weights["D1.pruner.neurons"].shape[-1]


def test_trap_2_6_4_alpha_follows_the_training_step_not_the_forwards(dataset: Dataset) -> None:
    cohort = fresh(dataset, wiring=parallel(1), blocks=1, sparsity=0.3)
    rows = resident(dataset)
    batch = mixed_batch(rows)
    assert cohort.progress == 0
    for step in range(1, 4):
        cohort.step(batch)
        assert cohort.progress == pytest.approx(step * len(batch) / 1000)
        before = (cohort.progress, cohort.logits(rows))
        for _ in range(3):
            again = cohort.logits(rows)
        assert cohort.progress == before[0]
        assert torch.equal(again, before[1])
    # and it has an end
    cohort.ramped = 5000
    assert cohort.progress == 1
    assert sparsity.alpha(7.0) == sparsity.alpha(1.0) == 5.0


def test_trap_2_6_4_the_steepness_reaches_the_network(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY, wiring=parallel(1), blocks=1, sparsity=0.3)])
    batch = mixed_batch(resident(dataset))
    soft, steep = (scored(cohort, batch, progress=progress) for progress in (0.0, 1.0))
    assert not torch.allclose(soft, steep)
    torch.testing.assert_close(scored(cohort, batch, progress=2.0), steep)


def test_trap_2_6_4_scores_take_the_steepness_that_belongs_to_the_weights(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY, wiring=parallel(1), blocks=1, sparsity=0.3)], progress=0.2)
    rows = resident(dataset)
    early = cohort.weights().copy()
    before = cohort.logits(rows)
    batch = batch_of(rows, range(len(rows)))
    order = rows.domain.argsort(stable=True)
    torch.testing.assert_close(before[:, order], scored(cohort, batch, progress=0.2), rtol=0, atol=1e-12)
    cohort.ramped = 1000
    assert not torch.allclose(cohort.logits(rows), before)
    assert torch.equal(cohort.logits(rows, early), before)


@pytest.mark.parametrize("pruner_input", ["both", "domain"])
@pytest.mark.parametrize("form", ["fusion", "binarization"])
def test_trap_2_6_5_the_scored_shares_lie_in_their_bands_after_few_passes_at_any_learning_rate(
    form: str, pruner_input: str
) -> None:
    data = fake_dataset(rows=2000)
    settings: dict[str, Any] = {"sparsity_form": form, "pruner_input": pruner_input, "embedding": 8, "width": 64}
    member = Candidate(
        **settings, wiring=parallel(1), blocks=1, batch=32, sparsity=0.3, sparsity_tilt=-1.0, learning_rate=1e-4,
        averaging=0.998,
    )  # fmt: skip
    cohort = Cohort(data.statistics, [member], frozen_tables(data), ramp=len(data.train))
    rows = ResidentRows(data.train, len(data.statistics.domains), dtype=torch.float32, device="cpu")
    for epoch in range(3):
        for batch in rows.batches(0, epoch, member.batch):
            cohort.step(batch)
    wanted = torch.tensor(sparsities(member, data.statistics.domain_rows))
    (shares,) = cohort.closed(rows).values()
    assert float(wanted.max() - wanted.min()) > 0.2
    assert float((shares - wanted).abs().max()) <= sparsity.HALF_BAND + 0.02


def test_only_pruners_and_what_steers_them_are_scored_as_they_are(dataset: Dataset) -> None:
    settings = TINY | {"wiring": parallel(1), "blocks": 1, "averaging": 0.9}
    members = [Candidate(**settings, sparsity=0.5), Candidate(**settings)]
    cohort = Cohort(dataset.statistics, members, frozen_tables(dataset), ramp=1000, dtype=torch.float64)
    batch = mixed_batch(resident(dataset), 30)
    for _ in range(5):
        cohort.step(batch)
    weights, rows = cohort.weights(), cohort.network.embedding.domain_rows
    views, present = (cohort.network.layout.views(flat) for flat in (weights.flat, cohort.flat))
    for name in views:
        assert torch.equal(views[name], present[name]) == (".pruner." in name)
    assert torch.equal(weights.table[rows, 0], cohort.table[rows, 0])
    assert not torch.equal(weights.table[rows, 1], cohort.table[rows, 1])
    assert not torch.equal(weights.table[rows.stop :, 0], cohort.table[rows.stop :, 0])


def test_trap_2_6_5_the_regulariser_reaches_the_pruners_weights(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY, wiring=parallel(1), blocks=1, sparsity=0.6)])
    batch = mixed_batch(resident(dataset), 6)
    leaf = cohort.flat.clone().requires_grad_()
    result = cohort.network.forward(leaf, cohort.table, batch.ids, batch, step=1, progress=0.5)
    assert result.penalty is not None
    assert float(result.penalty.detach()[0]) > 0
    (gradient,) = torch.autograd.grad(result.penalty.sum(), [leaf])
    views = cohort.network.layout.views(gradient)
    assert all(float(views[f"D1.pruner.{part}"].abs().max()) > 0 for part in ("neurons", "domain", "bias"))


def test_trap_2_6_5_evaluation_has_no_penalty(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY, wiring=parallel(1), blocks=1, sparsity=0.6)])
    batch = mixed_batch(resident(dataset))
    assert cohort.network.forward(cohort.flat, cohort.table, batch.ids, batch).penalty is None


def test_trap_2_6_6_a_pruner_that_reads_the_domain_only_is_one_mask_per_domain(dataset: Dataset) -> None:
    settings = TINY | {"wiring": parallel(1), "blocks": 1, "sparsity": 0.5}
    rows = resident(dataset)
    batch = mixed_batch(rows, 5)
    distinct = {}
    original = sparsity.factors
    for source in ("domain", "both"):
        cohort = random_cohort(dataset, [Candidate(**settings, pruner_input=source)])
        seen: list[Tensor] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sparsity, "factors", lambda *a, seen=seen: seen.append(original(*a)) or seen[-1])
            scored(cohort, batch)
        of_domain_0 = seen[0][0][batch.segments.domain == 0]
        distinct[source] = len(of_domain_0.unique(dim=0))
    assert distinct["domain"] == 1
    assert distinct["both"] > 1


@pytest.mark.parametrize("source", ["domain", "both"])
def test_trap_2_6_7_the_domains_embedding_learns_from_its_pruners(dataset: Dataset, source: str) -> None:
    cohort = fresh(dataset, wiring=parallel(1), blocks=1, sparsity=0.3, pruner_input=source)
    batch = mixed_batch(resident(dataset), 6)
    leaf = cohort.table.clone().requires_grad_()
    result = cohort.network.forward(cohort.flat, leaf, batch.ids, batch, step=1, progress=0.5)
    assert result.penalty is not None
    (gradient,) = torch.autograd.grad(result.penalty.sum(), [leaf])
    reached = gradient[cohort.network.embedding.domain_rows].abs().sum((1, 2)) > 0
    present = batch.segments.one_hot.sum(0) > 0
    assert torch.equal(reached[1 : 1 + len(present)], present)  # row 0 is for unknown domains


# 3.8 MLoRA


def test_trap_3_8_1_lora_starts_at_zero_but_alive(dataset: Dataset) -> None:
    settings: dict[str, Any] = {"wiring": parallel(1), "blocks": 1}
    plain, adapted = fresh(dataset, **settings), fresh(dataset, **settings, rank=2)
    rows = resident(dataset, "train")
    assert torch.equal(plain.logits(rows), adapted.logits(rows))
    weights = adapted.network.layout.views(adapted.flat)
    a = weights["D1.lora.A"].clone()
    assert float(a.abs().min()) > 0
    assert float(weights["D1.lora.B"].abs().max()) == 0
    assert float(weights["D1.lora.bias"].abs().max()) == 0
    for epoch in range(3):
        for batch in rows.batches(0, epoch, 50):
            adapted.step(batch)
    weights = adapted.network.layout.views(adapted.flat)
    for d in range(len(dataset.statistics.domains)):
        assert float(weights["D1.lora.B"][0, d].abs().max()) > 0
        assert float(weights["D1.lora.bias"][0, d].abs().max()) > 0
        assert not torch.equal(weights["D1.lora.A"][0, d], a[0, d])


def test_trap_3_8_4_mixed_batches_give_each_row_its_own_domains_adapter(dataset: Dataset) -> None:
    for rank in (2, 20):
        cohort = random_cohort(dataset, [Candidate(**TINY, wiring=parallel(2), blocks=2, rank=rank)])
        rows = resident(dataset)
        numbers = torch.cat([(rows.domain == d).nonzero()[:3, 0] for d in range(rows.domains + 1)]).tolist()
        mixed = scored(cohort, batch_of(rows, numbers))
        single = torch.cat([scored(cohort, batch_of(rows, [n])) for n in numbers], 1)
        torch.testing.assert_close(mixed, single, rtol=0, atol=1e-12)
        # and the domains' adapters differ
        views = cohort.network.layout.views(cohort.flat)
        views["D1.lora.B"].copy_(views["D1.lora.B"].roll(1, 1))
        assert not torch.allclose(scored(cohort, batch_of(rows, numbers))[:, :12], mixed[:, :12])


def test_trap_6_the_supernet_carries_adapters_and_pruners(dataset: Dataset) -> None:
    cohort = fresh(dataset, blocks=1, architecture="learn", rank=2, sparsity=0.3)
    names = cohort.network.layout.weights
    assert {"D1.lora.A", "D1.pruner.neurons"} <= set(names)
    assert not any("lora" in name or "pruner" in name for name in names if not name.startswith("D1."))


def test_an_operator_that_no_supernet_node_chose_still_learns(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**TINY, blocks=1, architecture="learn")])
    views = cohort.network.architecture.views(cohort.architecture)
    for name in consumers(1):
        views[f"{name}.operators"].copy_(torch.tensor([one_hot(ATTENTION)]) * 2)
    before = views["O.operators"].clone()
    cohort.step(mixed_batch(resident(dataset)), wire=True)
    assert int((cohort.network.architecture.views(cohort.architecture)["O.operators"] == before).sum()) == 0
