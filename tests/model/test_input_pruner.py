"""The pruner on the input, constants that differ between members, and shares that are told as they are counted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import VECTOR_WIDTH, fake_dataset
from reference import adasparse, adasparse_input
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.model import sparsity
from autoctr.model.architecture import ATTENTION, FIXED, Node, full, one_hot, parallel, stacked
from autoctr.model.candidate import Candidate, sparsities
from autoctr.model.fusion import FusionNetwork, open_multiply_adds
from autoctr.model.network import field_widths
from autoctr.training.cohort import Cohort, frozen_tables
from model.networks import TINY, mixed_batch, random_cohort, resident, scored

PRUNED: dict[str, Any] = TINY | {"blocks": 2, "wiring": full(2), "sparsity": 0.4, "input_pruner": True}
CONSTANTS: list[dict[str, float]] = [
    {},
    {"sparsity_alpha": 2.0, "sparsity_epsilon": 0.05, "sparsity_beta": 4.0},
    {"sparsity_alpha": 10.0, "sparsity_epsilon": 0.45, "sparsity_beta": 1.3},
]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=160, unseen=0.15)


class Spy:
    """What every pruner of a forward pass saw and gave: name -> (neurons or fields, e_d, factors)."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self.selected: list[tuple[Tensor, Tensor]] = []
        inner, select = FusionNetwork._factors, FusionNetwork.select

        def factors(network: FusionNetwork, weights: Any, name: str, h: Tensor, inputs: Any) -> Tensor:
            factor = inner(network, weights, name, h, inputs)
            self.seen[name] = (h, inputs.domain, factor)
            return factor

        def selecting(network: FusionNetwork, weights: Any, fields: Tensor, inputs: Any) -> Tensor:
            self.selected.append((fields, select(network, weights, fields, inputs)))
            return self.selected[-1][1]

        patch.setattr(FusionNetwork, "_factors", factors)
        patch.setattr(FusionNetwork, "select", selecting)


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    return Spy(monkeypatch)


def reference_factors(cohort: Cohort, k: int, name: str, neurons: Tensor, e: Tensor) -> Any:
    """π of one member by the reference."""
    member, weights = cohort.network.candidates[k], cohort.network.layout.views(cohort.flat)
    w, bias = weights[f"{name}.pruner.domain"][k].numpy(), weights[f"{name}.pruner.bias"][k].numpy()
    alpha = adasparse.alpha_schedule(cohort.progress, 1.0, end=member.sparsity_alpha)
    constants = {"alpha": alpha, "beta": member.sparsity_beta, "eps": member.sparsity_epsilon}
    if name == "x0":
        return adasparse_input.field_factors(e[k].numpy(), w, bias, member.sparsity_form, **constants)
    own = weights[f"{name}.pruner.neurons"][k].numpy()
    v = adasparse.pruner_input(neurons[k].numpy(), e[k].numpy(), np.concatenate([own, w]), bias)
    if member.sparsity_form == "fusion":
        return adasparse.fusion(v, alpha, member.sparsity_beta, member.sparsity_epsilon)
    if member.sparsity_form == "binarization":
        return adasparse.binarization(v, alpha, member.sparsity_epsilon)
    return adasparse.scaling(v, member.sparsity_beta)


@pytest.mark.parametrize("form", sparsity.FORMS)
@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("width", [6, 0])
def test_the_pruned_input_equals_the_reference(
    dataset: Dataset, spy: Spy, form: str, progress: float, width: int
) -> None:
    members = [Candidate(**PRUNED | own | {"width": width, "sparsity_form": form}) for own in CONSTANTS]
    cohort = random_cohort(dataset, members, progress=progress)
    scored(cohort, mixed_batch(resident(dataset)))
    ((fields, given),) = spy.selected
    _, e, factors = spy.seen["x0"]
    widths = cohort.network.embedding.widths
    assert sum(widths) == cohort.network.embedding.width == fields.shape[2]
    assert VECTOR_WIDTH in widths
    for k in range(len(members)):
        expected = reference_factors(cohort, k, "x0", fields, e)
        np.testing.assert_allclose(factors[k].numpy(), expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(
            given[k].numpy(), adasparse_input.prune_fields(fields[k].numpy(), expected, widths), rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("form", sparsity.FORMS)
@pytest.mark.parametrize("progress", [0.0, 0.6, 1.0])
def test_each_member_has_its_own_alpha_epsilon_and_beta(dataset: Dataset, spy: Spy, form: str, progress: float) -> None:
    members = [Candidate(**PRUNED | own | {"sparsity_form": form}, seed=n) for n, own in enumerate(CONSTANTS)]
    cohort = random_cohort(dataset, members, progress=progress)
    together = scored(cohort, mixed_batch(resident(dataset)))
    assert list(spy.seen) == ["x0", "D1", "D2"]
    for name, (neurons, e, factors) in dict(spy.seen).items():
        for k in range(len(members)):
            np.testing.assert_allclose(
                factors[k].numpy(), reference_factors(cohort, k, name, neurons, e), rtol=0, atol=1e-9
            )
    for k, member in enumerate(members):
        alone = random_cohort(dataset, [member], progress=progress)
        alone.flat.copy_(cohort.flat[k : k + 1])
        alone.table.copy_(cohort.table[:, k : k + 1])
        torch.testing.assert_close(scored(alone, mixed_batch(resident(dataset)))[0], together[k], rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", ["fusion", "binarization"])
@pytest.mark.parametrize("progress", [0.1, 1.0])
def test_the_share_that_is_told_is_counted_with_each_members_own_threshold(
    dataset: Dataset, spy: Spy, form: str, progress: float
) -> None:
    members = [Candidate(**PRUNED | own | {"sparsity_form": form}, seed=n) for n, own in enumerate(CONSTANTS)]
    cohort = random_cohort(dataset, members, progress=progress)
    network, batch = cohort.network, mixed_batch(resident(dataset), 4)
    result = network.forward(cohort.flat, cohort.table, batch.ids, batch, progress=cohort.progress, measure=True)
    shares = []
    for name, (_, _, factors) in spy.seen.items():
        for k in range(len(members)):
            for d in range(len(dataset.statistics.domains)):
                rows = factors[k, batch.segments.domain == d].numpy()
                assert float(result.closed[name][k, d]) == pytest.approx(adasparse.sparsity_ratio(rows), abs=1e-12)
                shares.append(float(result.closed[name][k, d]))
    assert 0 < np.mean(shares) < 1
    assert result.penalty is None


@pytest.mark.parametrize("wiring", [full(2), parallel(2)], ids=["full", "parallel"])
def test_the_penalty_counts_the_input_as_one_layer(dataset: Dataset, wiring: Any) -> None:
    members = [Candidate(**PRUNED | own | {"wiring": wiring}, seed=n) for n, own in enumerate(CONSTANTS)]
    cohort = random_cohort(dataset, members, progress=0.5)
    rows = resident(dataset)
    batch = rows.batch((rows.domain != 1).nonzero()[:, 0][rows.domain[rows.domain != 1].argsort(stable=True)])
    result = cohort.network.forward(cohort.flat, cohort.table, batch.ids, batch, step=1, progress=cohort.progress)
    assert result.penalty is not None
    assert list(result.closed) == ["x0", "D1", "D2"]
    present = [bool((batch.segments.domain == d).any()) for d in range(rows.domains)]
    assert present == [True, False, True, True]
    for k, member in enumerate(members):
        ratios = np.array([share[k].numpy() for share in result.closed.values()])
        targets = sparsities(member, dataset.statistics.domain_rows)
        strength = 0.01 + (10 - 0.01) * 0.5
        expected = adasparse.regulariser(ratios, targets, strength=strength, present=present)
        assert expected > 0
        assert float(result.penalty[k]) == pytest.approx(expected, rel=1e-9)


def test_the_penalty_counts_the_input_and_a_members_own_components(dataset: Dataset) -> None:
    """In a cohort of both, the stacked member has no D1: its penalty is the mean over the input and D2."""
    own = {"stacked": ["x0", "D2"], "parallel": ["x0", "D1", "D2"]}
    members = [Candidate(**PRUNED | {"wiring": wiring(2)}) for wiring in (stacked, parallel)]
    cohort = random_cohort(dataset, members, progress=0.5)
    rows = resident(dataset)
    batch = rows.batch(rows.domain.argsort(stable=True))
    result = cohort.network.forward(cohort.flat, cohort.table, batch.ids, batch, step=1, progress=cohort.progress)
    assert result.penalty is not None
    targets = sparsities(members[0], dataset.statistics.domain_rows)
    for k, layers in enumerate(own.values()):
        ratios = np.array([result.closed[name][k].numpy() for name in layers])
        expected = adasparse.regulariser(ratios, targets, strength=0.01 + 9.99 * 0.5, present=[True] * 4)
        assert float(result.penalty[k]) == pytest.approx(expected, rel=1e-9)


def test_trap_2_6_3_the_input_pruner_reads_the_domain_alone(dataset: Dataset, spy: Spy) -> None:
    cohort = random_cohort(dataset, [Candidate(**PRUNED)])
    batch = mixed_batch(resident(dataset), 6)
    assert "x0.pruner.neurons" not in cohort.network.layout.weights
    fields = len(cohort.network.embedding.widths)
    e = cohort.network.embedding.embedding
    assert cohort.network.layout.weights["x0.pruner.domain"].shape == (e, fields)
    scored(cohort, batch)
    first = spy.seen["x0"][2][0]
    patterns = set()
    for d in range(len(dataset.statistics.domains)):
        of_domain = first[batch.segments.domain == d]
        assert bool((of_domain == of_domain[0]).all())
        patterns.add(tuple(of_domain[0].tolist()))
    assert len(patterns) == len(dataset.statistics.domains)
    # whatever the fields hold: move every embedding row but the domains'
    _, e_d, _ = spy.seen["x0"]
    offset = dataset.statistics.offsets["market"]
    size = next(field.size for field in dataset.statistics.embedded if field.name == "market")
    moved = torch.ones(len(cohort.table), dtype=torch.bool)
    moved[offset : offset + size] = False
    cohort.table[moved] += 5.0
    scored(cohort, batch)
    assert torch.equal(spy.seen["x0"][1], e_d)
    assert torch.equal(spy.seen["x0"][2][0], first)


def test_a_closed_field_is_out_of_the_whole_network(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**PRUNED)])
    weights = cohort.network.layout.views(cohort.flat)
    names = cohort.network.embedding.names
    weights["x0.pruner.domain"].zero_()
    weights["x0.pruner.bias"].fill_(5.0)
    weights["x0.pruner.bias"][0, names.index("user")] = -5.0
    batch = mixed_batch(resident(dataset), 4)
    before = scored(cohort, batch)
    sizes = {field.name: field.size for field in dataset.statistics.embedded}

    def shifted(name: str) -> Tensor:
        start = dataset.statistics.offsets[name]
        kept = cohort.table.clone()
        cohort.table[start : start + sizes[name]] += 3.0
        logits = scored(cohort, batch)
        cohort.table.copy_(kept)
        return logits

    assert torch.equal(shifted("user"), before)
    assert not torch.allclose(shifted("item"), before)


@pytest.mark.parametrize("form", sparsity.FORMS)
def test_the_input_pruner_learns_from_its_start(dataset: Dataset, form: str) -> None:
    member = Candidate(**PRUNED | {"sparsity_form": form, "learning_rate": 0.01})
    cohort = Cohort(dataset.statistics, [member], frozen_tables(dataset), ramp=1000, dtype=torch.float64)
    before = {n: v.clone() for n, v in cohort.network.layout.views(cohort.flat).items() if n.startswith("x0.")}
    assert set(before) == {"x0.pruner.domain", "x0.pruner.bias"}
    for batch in resident(dataset, "train").batches(0, 0, 40):
        cohort.step(batch)
    after = cohort.network.layout.views(cohort.flat)
    assert all(not torch.equal(after[name], old) for name, old in before.items())


@pytest.mark.parametrize("form", ["fusion", "binarization"])
@pytest.mark.parametrize("source", ["both", "domain"])
def test_closed_shares_over_a_split_are_the_counted_ones(
    dataset: Dataset, spy: Spy, form: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = random_cohort(dataset, [Candidate(**PRUNED | {"sparsity_form": form, "pruner_input": source})])
    rows = resident(dataset)
    counted: dict[str, Tensor] = {}
    order = rows.domain.argsort(stable=True)
    scored(cohort, rows.batch(order))
    for name, (_, _, factors) in spy.seen.items():
        open_or_not = (factors[0] == 0).double()
        means = [open_or_not[rows.domain[order] == d].mean() for d in range(rows.domains)]
        counted[name] = torch.stack(means)
    assert float(torch.stack(list(counted.values())).std()) > 0.05
    for pieces in (16_384, 7):
        monkeypatch.setattr("autoctr.training.cohort.SCORING_ROWS", pieces)
        told = cohort.closed(rows)
        assert list(told) == ["x0", "D1", "D2"]
        for name, share in told.items():
            torch.testing.assert_close(share[0], counted[name], rtol=0, atol=1e-9)


def test_a_domain_without_rows_has_no_share(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**PRUNED)])
    rows = resident(dataset)
    few = rows.head(4)
    shares = cohort.closed(few)["D1"][0]
    has_rows = [bool((few.domain == d).any()) for d in range(rows.domains)]
    assert 0 < sum(has_rows) < len(has_rows)
    assert [not value for value in shares.isnan().tolist()] == has_rows


def test_scaling_closes_nothing_and_tells_nothing(dataset: Dataset) -> None:
    cohort = random_cohort(dataset, [Candidate(**PRUNED | {"sparsity_form": "scaling"})])
    batch = mixed_batch(resident(dataset))
    result = cohort.network.forward(cohort.flat, cohort.table, batch.ids, batch, step=1, progress=0.5)
    assert (result.closed, result.penalty) == ({}, None)
    assert cohort.closed(resident(dataset)) == {}


def test_without_sparsity_nothing_prunes_the_input(dataset: Dataset) -> None:
    plain = Candidate(**PRUNED | {"sparsity": 0.0})
    cohort = random_cohort(dataset, [plain])
    assert not any("pruner" in name for name in cohort.network.layout.weights)
    assert plain.effective().input_pruner is False
    # beside a member with pruners, it keeps every field and every neuron
    pair = random_cohort(dataset, [plain, Candidate(**PRUNED)])
    views = pair.network.layout.views(pair.flat)
    for name, view in cohort.network.layout.views(cohort.flat).items():
        view[0].copy_(views[name][0])
    cohort.table[:, 0].copy_(pair.table[:, 0])
    batch = mixed_batch(resident(dataset))
    torch.testing.assert_close(scored(pair, batch)[0], scored(cohort, batch)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["fusion", "binarization"])
@pytest.mark.parametrize(("epsilon", "beta"), [(0.25, 2.0), (0.4, 1.0), (0.6, 1.0), (0.9, 2.0)])
def test_legal_constants_start_with_every_neuron_open(dataset: Dataset, form: str, epsilon: float, beta: float) -> None:
    try:
        member = Candidate(**PRUNED | {"sparsity_form": form, "sparsity_epsilon": epsilon, "sparsity_beta": beta})
    except ValueError:
        return  # not legal
    cohort = Cohort(dataset.statistics, [member], frozen_tables(dataset), ramp=1000)
    shares = cohort.closed(resident(dataset, dtype=torch.float32))
    assert all(bool((share == 0).all()) for share in shares.values())


# multiply-adds without closed neurons


def test_multiply_adds_leave_closed_neurons_out(dataset: Dataset) -> None:
    wiring = FIXED["deep"](2)  # E -> D1 -> D2 -> O, every node adds one input
    statistics, h, e = dataset.statistics, 8, 4
    fields = sum(field_widths(Candidate(embedding=e), statistics))
    base = {"embedding": e, "width": h, "blocks": 2, "wiring": wiring, "sparsity": 0.5}
    closed = {"D1": [0.25, 0.5, 0.0, math.nan][: len(statistics.domains)], "D2": [0.5] * len(statistics.domains)}
    static = Candidate(**base, pruner_input="domain")
    assert FusionNetwork.multiply_adds(static, statistics) == fields * h + 2 * (h * h + h * e) + h
    counts = open_multiply_adds(static, statistics, closed)
    assert counts[0] == fields * h + h * h * 0.75 + h * 0.75 * h * 0.5 + h * 0.5
    assert counts[2] == fields * h + h * h + h * h * 0.5 + h * 0.5
    reads = Candidate(**base, pruner_input="both")
    assert open_multiply_adds(reads, statistics, closed)[0] == (
        fields * h + h * h + h * 0.75 * h + 2 * h * (e + h) + h * 0.5
    )


def test_multiply_adds_of_fusing_nodes_read_open_neurons_only(dataset: Dataset) -> None:
    wiring = FIXED["parallel"](1).with_node(2, Node((False, False, False, True), one_hot(ATTENTION)))
    statistics, h, e = dataset.statistics, 8, 4
    fields = sum(field_widths(Candidate(embedding=e), statistics))
    member = Candidate(embedding=e, width=h, blocks=1, wiring=wiring, sparsity=0.5, pruner_input="domain")
    closed = {"D1": [0.25] * len(statistics.domains)}
    assert open_multiply_adds(member, statistics, closed)[0] == fields * h + h * h * 0.75 + 1.75 * h * h + h + h
