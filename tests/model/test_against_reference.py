"""The network in float64 against the independent numpy statement of the equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fake_data import TASKS, fake_dataset
from reference import adasparse, fusion, lora
from torch import Tensor

from autoctr.data.dataset import Dataset
from autoctr.data.statistics import Kind
from autoctr.model import sparsity
from autoctr.model.architecture import OPERATORS
from autoctr.model.candidate import Candidate, ranks, sparsities, spread
from autoctr.model.components import CROSS
from autoctr.model.gates import open_gates, straight_through
from autoctr.model.lora import Adapters, segment_form, wide_form
from autoctr.model.norm import BatchNorm
from autoctr.model.operators import FUSION_OPERATORS, Edge
from autoctr.model.segments import Segments
from model.networks import TINY, batch_of, mixed_batch, random_cohort, random_wiring, reference_logits, resident, scored

K, B, H, D = 2, 5, 4, 3


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual: Tensor, expected: Any) -> None:
    np.testing.assert_allclose(actual.numpy(), np.asarray(expected), rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=120, tasks=TASKS, unseen=0.15)


# one part at a time


def operator_weights(operator: str, sources: list[str]) -> dict[str, Tensor]:
    weights = {}
    for number, source in enumerate(sources):
        for part, shape in (("hidden.weight", (K, H, H)), ("score.weight", (K, H, H)), ("hidden.bias", (K, H))):
            weights[f"N.attention.{source}.{part}"] = drawn(*shape, seed=10 * number + len(part))
        weights[f"N.attention.{source}.score.bias"] = drawn(K, H, seed=10 * number + 1)
        weights[f"N.concat.{source}.weight"] = drawn(K, H, H, seed=10 * number + 2)
    weights["N.concat.bias"] = drawn(K, H, seed=99)
    return weights


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("gates", [(1, 1, 1), (1, 0, 1), (0, 1, 0), None], ids=str)
def test_an_operator_equals_the_reference(operator: str, gates: tuple[int, ...] | None) -> None:
    sources = ["E", "C0", "D1"]
    weights, x = operator_weights(operator, sources), drawn(3, K, B, H, seed=5)
    per_member = [(1, 1, 1)] * K if gates is None else [gates, gates[::-1]]
    g = torch.tensor(per_member, dtype=torch.float64)
    edges = [Edge(x[u], None if gates is None else g[:, u, None, None]) for u in range(len(sources))]
    joins = FUSION_OPERATORS[operator]
    out, _ = joins.forward([weights[name] for name in joins.names("N", sources)], edges)
    for k in range(K):
        values, numbers = list(x[:, k].numpy()), list(per_member[k])

        def every(part: str, k: int = k) -> list[Any]:
            return [weights[f"N.{part.replace('*', source)}"][k].numpy() for source in sources]

        if operator == "add":
            expected = fusion.add(values, numbers)
        elif operator == "product":
            expected = fusion.product(values, numbers)
        elif operator == "concat":
            expected = fusion.concat(values, numbers, every("concat.*.weight"), weights["N.concat.bias"][k].numpy())
        else:
            parts = ("hidden.weight", "hidden.bias", "score.weight", "score.bias")
            expected = fusion.attention(values, numbers, *(every(f"attention.*.{part}") for part in parts))
        close(out[k], expected)


@pytest.mark.parametrize("kind", ["vector", "matrix"])
def test_a_cross_component_equals_the_reference(kind: str) -> None:
    x, anchor, w, b = drawn(K, B, H), drawn(K, B, H, seed=1), drawn(K, H, H, seed=2), drawn(K, H, seed=3)
    w = w[:, :, :1] if kind == "vector" else w
    out = CROSS[kind].forward({"C.weight": w, "C.bias": b}, "C", x, anchor, 1)
    for k in range(K):
        if kind == "vector":
            expected = fusion.cross_vector(x[k], anchor[k], w[k, :, 0], b[k])
        else:
            expected = fusion.cross_matrix(x[k], anchor[k], w[k], b[k])
        close(out[k], expected)


@pytest.mark.parametrize("form", [segment_form, wide_form])
@pytest.mark.parametrize("domains", [[0, 0, 1, 2, 2], [1, 1, 1, 1, 1], [0, 2, 2, 3, 3], [3, 3, 3, 3, 3]], ids=str)
def test_both_forms_of_lora_equal_the_reference(form: Any, domains: list[int]) -> None:
    counts = [[2, 0, 1], [1, 2, 2]]
    adapters = Adapters(counts, torch.float64, torch.device("cpu"))
    x, a, b, bias = drawn(K, B, H), drawn(K, D, H, 2, seed=1), drawn(K, D, 2, 6, seed=2), drawn(K, D, 6, seed=3)
    segments = Segments(torch.tensor(domains), D, torch.float64)
    low, shift = a * adapters.mask, bias * adapters.used
    out = form(x, low, b, shift, segments)
    weights = {"D1.lora.A": a, "D1.lora.B": b, "D1.lora.bias": bias}
    chosen = adapters.forward(weights, "D1", x, segments)
    for k in range(K):
        nothing = np.zeros((H, 6)), np.zeros(6)
        expected = lora.lora_layer(x[k], domains, *nothing, a[k], b[k], bias[k], counts[k])
        close(out[k], expected)
        close(chosen[k], expected)


@pytest.mark.parametrize("rank", [1, 7])
def test_adapters_choose_between_their_forms_without_changing_the_numbers(rank: int) -> None:
    adapters = Adapters([[rank] * D], torch.float64, torch.device("cpu"))
    x, a, b, bias = drawn(1, B, H), drawn(1, D, H, rank, seed=1), drawn(1, D, rank, H, seed=2), drawn(1, D, H, seed=3)
    segments = Segments(torch.tensor([0, 0, 1, 2, 3]), D, torch.float64)
    out = adapters.forward({"N.lora.A": a, "N.lora.B": b, "N.lora.bias": bias}, "N", x, segments)
    close(out, wide_form(x, a, b, bias, segments))
    close(out, segment_form(x, a, b, bias, segments))


def test_batch_norm_in_evaluation_equals_the_reference() -> None:
    h, scale, shift, mean, variance = drawn(K, B, H), *(drawn(K, H, seed=s) for s in range(1, 4)), drawn(K, H) ** 2
    running = torch.cat([mean, variance], 1)
    kept = running.clone()
    out = BatchNorm().forward({"N.norm.scale": scale, "N.norm.shift": shift}, "N", h, running, training=False)
    for k in range(K):
        close(out[k], fusion.batch_norm(h[k], mean[k], variance[k], scale[k], shift[k]))
    assert torch.equal(running, kept)


def test_batch_norm_in_training_uses_the_batch_and_moves_the_running_statistics_by_a_tenth() -> None:
    h, scale, shift = drawn(K, B, H), drawn(K, H, seed=1), drawn(K, H, seed=2)
    running = torch.cat([drawn(K, H, seed=3), drawn(K, H, seed=4) ** 2], 1)
    before = running.clone()
    out = BatchNorm().forward({"N.norm.scale": scale, "N.norm.shift": shift}, "N", h, running, training=True)
    for k in range(K):
        values = h[k].numpy()
        close(out[k], fusion.batch_norm(values, values.mean(0), values.var(0), scale[k], shift[k]))
        batch = np.concatenate([values.mean(0), values.var(0, ddof=1)])
        close(running[k], 0.9 * before[k].numpy() + 0.1 * batch)


@pytest.mark.parametrize("form", sparsity.FORMS)
@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0, 3.0])
@pytest.mark.parametrize("source", ["both", "domain"])
def test_the_pruners_factors_equal_the_reference(form: str, progress: float, source: str) -> None:
    h, e = drawn(K, B, H).abs(), drawn(K, B, 3, seed=1)
    weights = {"N.pruner.domain": 3 * drawn(K, 3, H, seed=2), "N.pruner.bias": drawn(K, H, seed=3)}
    if source == "both":
        weights["N.pruner.neurons"] = 3 * drawn(K, H, H, seed=4)
    v = sparsity.pruner_output(weights, "N", h, e)
    steepness = sparsity.alpha(progress)
    alpha = adasparse.alpha_schedule(progress, 1.0)
    assert steepness == pytest.approx(alpha, abs=1e-12)
    factors = sparsity.factors(form, v, steepness)
    for k in range(K):
        neurons = weights["N.pruner.neurons"][k].numpy() if source == "both" else np.zeros((H, H))
        w = np.concatenate([neurons, weights["N.pruner.domain"][k].numpy()])
        v_in = adasparse.pruner_input(h[k], e[k], w, weights["N.pruner.bias"][k])
        close(v[k], v_in)
        expected = {
            "scaling": adasparse.scaling(v_in, 2.0),
            "binarization": adasparse.binarization(v_in, alpha, 0.25),
            "fusion": adasparse.fusion(v_in, alpha, 2.0, 0.25),
        }[form]
        close(factors[k], expected)


@pytest.mark.parametrize("form", ["fusion", "binarization"])
def test_the_share_of_closed_neurons_equals_the_reference(form: str) -> None:
    v, domains = 3 * drawn(K, 7, H), torch.tensor([0, 0, 0, 1, 1, 3, 3])
    one_hot = Segments(domains, D, torch.float64).one_hot
    shares = sparsity.closed_share(form, v, 2.5, one_hot)
    factors = sparsity.factors(form, v, 2.5).numpy()
    for k in range(K):
        for d in (0, 1):
            assert shares[k, d] == pytest.approx(adasparse.sparsity_ratio(factors[k, (domains == d).numpy()]))
        assert shares[k, 2] == 0
    assert 0 < shares[:, :2].mean() < 1


@pytest.mark.parametrize("domains", [[0, 1, 2], [0, 0, 2], [3, 3, 3], [1, 3, 3]], ids=str)
def test_the_band_penalty_equals_the_reference(domains: list[int]) -> None:
    targets = torch.tensor([[0.2, 0.5, 0.1], [0.3, 0.3, 0.3]], dtype=torch.float64)
    shares = [
        torch.tensor([[0.24, 0.9, 0.0], [0.36, 0.1, 0.3]], dtype=torch.float64),
        torch.tensor([[0.26, 0.5, 0.7], [0.2, 0.251, 1.0]], dtype=torch.float64),
    ]
    penalty = sparsity.band_penalty(shares, targets, Segments(torch.tensor(domains), D, torch.float64).one_hot.sum(0))
    for k in range(K):
        ratios = np.array([share[k].numpy() for share in shares])
        present = [d in domains for d in range(D)]
        expected = adasparse.regulariser(ratios, targets[k].tolist(), strength=1.0, present=present)
        assert float(penalty[k]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "logits",
    [[0.5, -0.1, 1e-9], [0.0, 0.3, 0.0], [-3.0, -1.0, -2.0], [0.0, 0.0, 0.0], [-1.0, -1.0, -5.0], [1.0, 2.0, 3.0]],
    ids=str,
)
def test_gates_and_their_repair_equal_the_reference(logits: list[float]) -> None:
    a = torch.tensor([logits], dtype=torch.float64)
    assert open_gates(a)[0].tolist() == [bool(g) for g in fusion.gates(logits)]
    assert straight_through(a)[0].tolist() == [float(g) for g in fusion.gates(logits)]


@pytest.mark.parametrize("rows", [[100, 10, 1000, 50], [7, 7, 7], [1], [3, 30_000], [1, 1, 2]], ids=str)
@pytest.mark.parametrize(("level", "tilt"), [(4, 0.0), (4, 1.0), (3, -2.0), (0, 3.0), (40, 5.0), (1, -1.0)])
def test_spread_ranks_and_sparsities_equal_the_reference(rows: list[int], level: int, tilt: float) -> None:
    assert spread(rows) == pytest.approx(lora.domain_size_score(rows), abs=1e-12)
    member = Candidate(rank=level, rank_tilt=tilt, sparsity=min(level / 50, 0.9), sparsity_tilt=tilt)
    assert ranks(member, rows) == lora.ranks(level, tilt, rows, 64)
    assert sparsities(member, rows) == pytest.approx(adasparse.targets(member.sparsity, tilt, rows), abs=1e-12)


# the whole network

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "vector cross": {"cross": "vector"},
    "without projection": {"width": 0, "embedding": 2},
    "batch norm": {"norm": "batch"},
    "adapters": {"rank": 2, "rank_tilt": 1.5},
    "wide adapters": {"rank": 20, "rank_tilt": 0.5},
    **{
        f"{form}, reads {source}": {"sparsity": 0.3, "sparsity_form": form, "pruner_input": source}
        for form in sparsity.FORMS
        for source in ("both", "domain")
    },
    "everything": {"norm": "batch", "rank": 2, "rank_tilt": -2.0, "sparsity": 0.4, "cross": "vector"},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("kind", ["hard", "soft", "relaxed"])
def test_the_network_equals_the_reference(dataset: Dataset, name: str, kind: str) -> None:
    settings = TINY | CONFIGURATIONS[name]
    candidates = []
    for seed in range(2):
        blocks = 2
        wiring = None if kind == "relaxed" else random_wiring(blocks, seed, kind == "soft")
        candidates.append(Candidate(**settings, blocks=blocks, wiring=wiring, seed=seed))
    cohort = random_cohort(dataset, candidates)
    batch = mixed_batch(resident(dataset))
    actual = scored(cohort, batch)
    for k in range(len(candidates)):
        expected = reference_logits(cohort, k, batch)
        np.testing.assert_allclose(actual[k].numpy(), expected, rtol=1e-9, atol=1e-9)
    assert actual.std() > 1e-3


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("kind", ["hard", "soft", "relaxed"])
def test_random_architectures_equal_the_reference(dataset: Dataset, blocks: int, kind: str) -> None:
    settings = TINY | CONFIGURATIONS["everything"] | {"blocks": blocks}
    wirings = [None if kind == "relaxed" else random_wiring(blocks, seed, kind == "soft") for seed in range(6)]
    # a cohort computes the union of what its members need; a member on its own computes less
    cohort = random_cohort(dataset, [Candidate(**settings, wiring=wiring, seed=n) for n, wiring in enumerate(wirings)])
    batch = mixed_batch(resident(dataset), 1)
    actual = scored(cohort, batch)
    for k in range(len(wirings)):
        expected = reference_logits(cohort, k, batch)
        np.testing.assert_allclose(actual[k].numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kinds", [(), (Kind.MULTI,), (Kind.NUMERIC,), (Kind.VECTOR,)], ids=str)
def test_the_embedding_of_every_kind_of_field_equals_the_reference(kinds: tuple[Kind, ...]) -> None:
    dataset = fake_dataset(rows=60, kinds=kinds, unseen=0.2)
    cohort = random_cohort(dataset, [Candidate(**TINY, blocks=1, wiring=random_wiring(1, 3))])
    batch = batch_of(resident(dataset), range(20))
    np.testing.assert_allclose(scored(cohort, batch)[0].numpy(), reference_logits(cohort, 0, batch), atol=1e-9)
