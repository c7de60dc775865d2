"""The reference itself, against numbers worked out by hand, other libraries and finite differences."""

import ast
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import (
    adasparse,
    adasparse_input,
    calibration,
    components,
    fusion,
    lora,
    metrics,
    multidomain,
    optim,
    tickets,
    transfer,
    truncation,
)

LOG3 = math.log(3.0)


def approx(value: Any) -> Any:
    return pytest.approx(np.asarray(value, dtype=float), rel=1e-12, abs=1e-12)


def test_the_reference_imports_neither_torch_nor_the_implementation() -> None:
    for path in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & {"torch", "autoctr"}


# ----------------------------------------------------------------------------------------------------- fusion


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([0.5, -0.1, 1e-9], [1, 0, 1]),
        ([0.0, 0.3], [0, 1]),  # 0 is closed
        ([-3.0, -1.0, -2.0], [0, 1, 0]),  # repaired
        ([0.0, 0.0], [1, 0]),  # repaired, first of equals
    ],
)
def test_gates(logits: list[float], expected: list[int]) -> None:
    assert fusion.gates(logits) == expected


def test_add_and_product_by_hand() -> None:
    x = [[1.0, 2.0], [3.0, -4.0], [10.0, 0.5]]
    assert fusion.add(x, [1, 1, 1]) == approx([14.0, -1.5])
    assert fusion.add(x, [1, 0, 1]) == approx([11.0, 2.5])
    assert fusion.product(x, [1, 1, 1]) == approx([30.0, -4.0])
    assert fusion.product(x, [1, 0, 1]) == approx([10.0, 1.0])  # a closed input is the factor 1
    assert fusion.product(x, [0, 1, 0]) == approx([3.0, -4.0])


def test_concat_by_hand_and_as_one_stacked_matrix() -> None:
    x = [[1.0, 2.0], [3.0, -1.0]]
    weights = [[[1.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [1.0, 1.0]]]
    # [1, 2] W_1 = [1, 4];  [3, -1] W_2 = [-1, 3 - 1];  bias [10, 20]
    assert fusion.concat(x, [1, 1], weights, [10.0, 20.0]) == approx([10.0, 26.0])
    assert fusion.concat(x, [1, 0], weights, [10.0, 20.0]) == approx([11.0, 24.0])
    stacked = np.concatenate([x[0], [0.0, 0.0]]) @ np.concatenate(weights) + [10.0, 20.0]
    assert fusion.concat(x, [1, 0], weights, [10.0, 20.0]) == approx(stacked)


def test_attention_by_hand() -> None:
    x = [[2.0, 1.0], [5.0, 7.0]]
    w1, b1 = [[[1.0], [-1.0]], [[1.0], [1.0]]], [[0.0], [-20.0]]
    w2, b2 = [[[LOG3, 0.0]], [[9.0, -9.0]]], [[0.0, 0.0], [0.0, LOG3]]
    # input 1: relu(2 - 1) = 1, scores [log 3, 0], shares [3/4, 1/4], output [1.5, 0.25]
    # input 2: relu(12 - 20) = 0, scores [0, log 3], shares [1/4, 3/4], output [1.25, 5.25]
    assert fusion.attention(x, [1, 0], w1, b1, w2, b2) == approx([3.0, 0.5])  # times h = 2
    assert fusion.attention(x, [0, 1], w1, b1, w2, b2) == approx([2.5, 10.5])
    assert fusion.attention(x, [1, 1], w1, b1, w2, b2) == approx([5.5, 11.0])


def test_attention_keeps_the_scale_when_all_features_are_equal_to_the_nets() -> None:
    n, h = 3, 5
    x = list(np.random.default_rng(0).normal(size=(n, h)))
    zero = ([np.zeros((h, 2))] * n, [np.zeros(2)] * n, [np.zeros((2, h))] * n, [np.zeros(h)] * n)
    assert fusion.attention(x, [1, 1, 1], *zero) == approx(np.sum(x, axis=0))


def test_mixture_and_selection() -> None:
    outputs = [[4.0, 0.0], [0.0, 8.0]]
    assert fusion.mix([LOG3, 0.0], outputs) == approx([3.0, 2.0])
    assert fusion.mix([LOG3 + 1000.0, 1000.0], outputs) == approx([3.0, 2.0])
    assert fusion.one_hot([0.1, 0.7, 0.7, -1.0]) == [0.0, 1.0, 0.0, 0.0]
    assert fusion.select(1, outputs) == approx([0.0, 8.0])
    assert fusion.weighted(fusion.one_hot([0.0, 1.0]), outputs) == approx(fusion.select(1, outputs))


def test_cross_layers_by_hand() -> None:
    f, x0 = [3.0, 7.0], [1.0, 2.0]
    # f . w = 3 - 3.5 = -0.5
    assert fusion.cross_vector(f, x0, [1.0, -0.5], [0.25, 0.0]) == approx([2.75, 6.0])
    # f W + b = [3, 3 - 14] + [1, 5] = [4, -6]; times x0 = [4, -12]; plus f
    assert fusion.cross_matrix(f, x0, [[1.0, 1.0], [0.0, -2.0]], [1.0, 5.0]) == approx([7.0, -5.0])


def test_cross_vector_has_the_jacobian_w_x0_plus_identity() -> None:
    rng = np.random.default_rng(1)
    x0, w, b, f, seed = rng.normal(size=(5, 4))
    gradient = optim.numerical_gradient(lambda v: float(fusion.cross_vector(v, x0, w, b) @ seed), f)
    assert gradient == pytest.approx(w * (x0 @ seed) + seed, rel=1e-6)


def test_deep_by_hand_step_by_step() -> None:
    f, w, b = [1.0, 2.0], [[1.0, 5.0], [-1.0, 1.0]], [0.5, -1.0]
    # f W = [1 - 2, 5 + 2]
    assert fusion.deep(f, w, b) == approx([0.0, 6.0])
    # mask removes W[1][0]: f W = [1, 7]
    mask = [[1.0, 1.0], [0.0, 1.0]]
    assert fusion.deep(f, w, b, mask=mask) == approx([1.5, 6.0])
    # f A = 3, times B = [6, -3]: the adapter ignores the mask
    adapter = ([[1.0], [1.0]], [[2.0, -1.0]])
    assert fusion.deep(f, w, b, mask=mask, lora=adapter) == approx([7.5, 3.0])
    assert fusion.deep(f, w, b, mask=mask, lora=adapter, domain_bias=[-8.0, 1.0]) == approx([0.0, 4.0])
    # the norm comes before ReLU, the pruner after
    full: dict[str, Any] = {"mask": mask, "lora": adapter, "domain_bias": [-8.0, 1.0]}
    assert fusion.deep(f, w, b, **full, norm=lambda z: -z) == approx([0.5, 0.0])
    assert fusion.deep(f, w, b, **full, norm=lambda z: -z, pruner=[3.0, 1.0]) == approx([1.5, 0.0])
    assert fusion.deep(f, w, b, **full, pruner=lambda neurons: neurons / 2.0) == approx([0.0, 8.0])


def test_norms_by_hand() -> None:
    assert fusion.layer_norm([1.0, 5.0], [2.0, 2.0], [0.0, 1.0], eps=0.0) == approx([-2.0, 3.0])
    assert fusion.layer_norm([1.0, 5.0], 1.0, 0.0, eps=12.0) == approx([-0.5, 0.5])  # variance 4
    assert fusion.batch_norm([1.0, 5.0], [0.0, 1.0], [3.0, 15.0], [1.0, 2.0], [0.0, 1.0], eps=1.0) == approx([0.5, 3.0])


def test_candidate_order() -> None:
    assert fusion.candidates("C1", 3) == fusion.candidates("D1", 3) == ["E", "C0"]
    assert fusion.candidates("D3", 3) == ["E", "C0", "C1", "D1", "C2", "D2"]
    assert fusion.candidates("O", 2) == ["E", "C0", "C1", "D1", "C2", "D2"]
    for blocks in (1, 2, 3, 4):  # connections of the paper's space: 2 K^2 + 4 K + 3, C0's own included
        fusing = ["O"] + [f"{kind}{i}" for kind in "CD" for i in range(1, blocks + 1)]
        count = 1 + sum(len(fusion.candidates(node, blocks)) for node in fusing)
        assert count == 2 * blocks**2 + 4 * blocks + 3


ONE_BLOCK: dict[str, dict[str, Any]] = {
    "C0": {"cross": ([1.0, 0.0], [0.0, 1.0])},
    "C1": {"cross": ([1.0, -0.5], [0.0, 0.0])},
    "D1": {"deep": {"W": [[1.0, 0.0], [-1.0, 1.0]], "b": [1.0, 1.0]}},
    "O": {"output": ([2.0, -1.0], 0.25)},
}
ADD, PRODUCT = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)


def test_one_block_network_by_hand() -> None:
    architecture = {"C1": ([1, 1], ADD), "D1": ([0, 1], PRODUCT), "O": ([1, 0, 1, 1], ADD)}
    outputs = fusion.nodes([1.0, 2.0], ONE_BLOCK, architecture)
    assert outputs["C0"] == approx([2.0, 5.0])  # 1 * E + [0, 1] + E
    assert outputs["C1"] == approx([2.5, 6.0])  # f = [3, 7], f . w = -0.5
    assert outputs["D1"] == approx([0.0, 6.0])  # f = C0, f W + b = [-2, 6]
    assert outputs["O"] == approx([3.5, 14.0])
    assert float(fusion.network([1.0, 2.0], ONE_BLOCK, architecture)) == approx(-6.75)  # 7 - 14 + 0.25
    # O: 0.75 * [3.5, 14] + 0.25 * [1 * 2.5 * 0, 2 * 6 * 6] = [2.625, 28.5]
    architecture["O"] = ([1, 0, 1, 1], (0.75, 0.25, 0.0, 0.0))
    assert float(fusion.network([1.0, 2.0], ONE_BLOCK, architecture)) == approx(5.25 - 28.5 + 0.25)


def test_network_of_a_batch_is_the_network_of_its_rows() -> None:
    rng = np.random.default_rng(2)
    h, blocks = 4, 2
    parameters: dict[str, dict[str, Any]] = {"C0": {"cross": (rng.normal(size=(h, h)), rng.normal(size=h))}}
    architecture: dict[str, Any] = {}
    for node in ["C1", "D1", "C2", "D2", "O"]:
        n = len(fusion.candidates(node, blocks))
        parameters[node] = {
            "concat": (rng.normal(size=(n, h, h)), rng.normal(size=h)),
            "attention": tuple(rng.normal(size=s) for s in [(n, h, 3), (n, 3), (n, 3, h), (n, h)]),
            "cross": (rng.normal(size=h), rng.normal(size=h)),
            "deep": {"W": rng.normal(size=(h, h)), "b": rng.normal(size=h), "norm": lambda z: z / 2.0},
            "output": (rng.normal(size=(h, 1)), rng.normal(size=1)),
        }
        architecture[node] = (fusion.gates(rng.normal(size=n)), fusion.softmax(rng.normal(size=4)))
    batch = rng.normal(size=(5, h))
    together = fusion.network(batch, parameters, architecture)
    assert together.shape == (5,)
    assert together == approx([float(fusion.network(row, parameters, architecture)) for row in batch])
    assert fusion.network(batch[:0], parameters, architecture).shape == (0,)


def test_two_block_network_reads_the_right_nodes() -> None:
    identity = {"deep": {"W": np.eye(2), "b": [0.0, 0.0]}}
    plain = {"cross": ([0.0, 0.0], [10.0, 10.0])}  # f + 10
    parameters: dict[str, Any] = {
        "C0": plain,
        "C1": plain,
        "D1": identity,
        "C2": plain,
        "D2": identity,
        "O": ONE_BLOCK["O"],
    }
    architecture: dict[str, Any] = {
        "C1": ([1, 0], ADD),  # [1, 2] + 10
        "D1": ([0, 1], ADD),  # C0 = [11, 12]
        "C2": ([0, 0, 1, 1], ADD),  # [22, 24] + 10
        "D2": ([1, 0, 1, 0], PRODUCT),  # [1 * 11, 2 * 12]
        "O": ([0, 0, 0, 0, 1, 1], ADD),
    }
    outputs = fusion.nodes([1.0, 2.0], parameters, architecture)
    assert outputs["C1"] == approx([11.0, 12.0])
    assert outputs["D1"] == approx([11.0, 12.0])
    assert outputs["C2"] == approx([32.0, 34.0])
    assert outputs["D2"] == approx([11.0, 24.0])
    assert outputs["O"] == approx([43.0, 58.0])


@pytest.mark.parametrize(
    "broken",
    [
        {"C1": ([1, 1], ADD), "O": ([1, 1, 1, 1], ADD)},
        {"C1": ([1, 1, 1], ADD), "D1": ([1, 1], ADD), "O": ([1, 1, 1, 1], ADD)},
        {"C1": ([0, 0], ADD), "D1": ([1, 1], ADD), "O": ([1, 1, 1, 1], ADD)},
    ],
)
def test_an_impossible_architecture_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"architecture|gates"):
        fusion.network([1.0, 2.0], ONE_BLOCK, broken)


# ------------------------------------------------------------------------------------------------------- lora


def test_lora_layer_by_hand() -> None:
    w, b = [[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5]
    a = [[[1.0, 100.0], [1.0, 100.0]], [[7.0, 7.0], [7.0, 7.0]]]
    b_low = [[[1.0, 2.0], [100.0, 100.0]], [[7.0, 7.0], [7.0, 7.0]]]
    bias = [[10.0, 20.0], [7.0, 7.0]]
    x = [[1.0, 2.0]] * 3
    out = lora.lora_layer(x, [0, 1, 2], w, b, a, b_low, bias, [1, 0])
    assert out[0] == approx([14.5, 28.5])  # [1.5, 2.5] + 3 * [1, 2] + [10, 20]: one column, one row
    assert out[1] == approx([1.5, 2.5])  # rank 0: not even the bias
    assert out[2] == approx([1.5, 2.5])  # unknown domain
    full = lora.lora_layer(x[:1], [0], w, b, a, b_low, bias, [2, 0])
    assert full[0] == approx([14.5 + 30000.0, 28.5 + 30000.0])
    with pytest.raises(ValueError, match="outside"):
        lora.lora_layer(x[:1], [3], w, b, a, b_low, bias, [1, 0])
    assert lora.lora_layer(np.zeros((0, 2)), [], w, b, a, b_low, bias, [1, 0]).shape == (0, 2)


def test_lora_layer_agrees_with_deep() -> None:
    rng = np.random.default_rng(3)
    w, b, x = rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=(6, 4))
    a, b_low, bias = rng.normal(size=(2, 4, 5)), rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 3))
    domain, ranks = [0, 1, 2, 1, 0, 0], [2, 5]
    out = lora.lora_layer(x, domain, w, b, list(a), list(b_low), list(bias), ranks)
    for row, d, y in zip(x, domain, out, strict=True):
        known: dict[str, Any] = {}
        if d < 2:
            known = {"lora": (a[d][:, : ranks[d]], b_low[d][: ranks[d]]), "domain_bias": bias[d]}
        assert fusion.deep(row, w, b, **known) == approx(np.maximum(y, 0.0))


def test_domain_size_score_and_ranks_by_hand() -> None:
    rows = [100, 1000, 10000]
    assert lora.domain_size_score(rows) == approx([-1.0, 0.0, 1.0])
    # logs 0, log 2, 3 log 2 (mean 4/3 log 2): gaps -4/3, -1/3, 5/3
    assert lora.domain_size_score([1, 2, 8]) == approx([-0.8, -0.2, 1.0])
    assert lora.domain_size_score([8, 4, 1]) == approx([0.8, 0.2, -1.0])  # gaps 4/3, 1/3, -5/3
    assert lora.ranks(4, 1.0, rows, 16) == [2, 4, 8]
    assert lora.ranks(4, 1.0, rows, 6) == [2, 4, 6]
    assert lora.ranks(4, -1.0, rows, 16) == [8, 4, 2]
    assert lora.ranks(3, 1.0, rows, 16) == [2, 3, 6]  # 1.5 rounds up
    assert lora.ranks(1, 2.0, rows, 16) == [0, 1, 4]  # 0.25 rounds down
    assert lora.ranks(0, 3.0, rows, 16) == [0, 0, 0]


def test_equally_large_domains_score_zero_in_spite_of_rounding() -> None:
    fragile = [(n, d) for n in range(2, 60) for d in (3, 5, 6, 7) if sum([math.log(n)] * d) / d != math.log(n)]
    assert fragile  # here the obvious formula divides a rounding error by itself
    for n, d in fragile:
        assert lora.domain_size_score([n] * d) == [0.0] * d


# -------------------------------------------------------------------------------------------------- adasparse


def test_pruner_forms_by_hand() -> None:
    v = [-LOG3, 0.0, LOG3]  # sigmoid 1/4, 1/2, 3/4; with alpha 2: 1/10, 1/2, 9/10
    assert adasparse.sigmoid(v) == approx([0.25, 0.5, 0.75])
    assert adasparse.sigmoid([-1000.0, 1000.0]) == approx([0.0, 1.0])
    assert adasparse.binarization(v, alpha=1.0, eps=0.2) == approx([1.0, 1.0, 1.0])
    assert adasparse.binarization(v, alpha=2.0, eps=0.2) == approx([0.0, 1.0, 1.0])
    assert adasparse.binarization([0.0], alpha=1.0, eps=0.5) == approx([0.0])  # at the threshold: zero
    assert adasparse.scaling(v, beta=2.0) == approx([0.5, 1.0, 1.5])
    assert adasparse.fusion(v, alpha=1.0, beta=2.0, eps=0.25) == approx([0.5, 1.0, 1.5])
    assert adasparse.fusion(v, alpha=2.0, beta=2.0, eps=0.25) == approx([0.0, 1.0, 1.8])
    assert adasparse.hard_threshold([-3.0, 0.25, 0.3], 0.25) == approx([0.0, 0.0, 0.3])
    assert adasparse.pruner_input([1.0, 2.0], [3.0], [[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]]) == approx([4.0, -1.0])


@pytest.mark.parametrize(("alpha", "eps", "edge"), [(0.1, 0.25, -19.459), (5.0, 0.25, -0.389), (5.0, 0.01, -1.059)])
def test_fusion_cuts_where_the_paper_notes_say(alpha: float, eps: float, edge: float) -> None:
    cut, kept = adasparse.fusion([edge - 0.002, edge + 0.002], alpha, 2.0, eps)
    assert cut == 0.0
    assert kept > eps


def test_schedule_ratio_and_targets() -> None:
    assert [adasparse.alpha_schedule(s, 10) for s in (0, 5, 10, 20)] == approx([0.1, 2.55, 5.0, 5.0])
    assert adasparse.alpha_schedule(1, 4, start=1.0, end=3.0) == 1.5
    assert adasparse.sparsity_ratio([[0.0, 1.0], [0.0, 0.0]]) == 0.75
    assert adasparse.targets(0.2, 1.0, [100, 1000, 10000]) == approx([0.1, 0.2, 0.4])
    assert adasparse.targets(0.8, -1.0, [100, 1000, 10000]) == approx([0.9, 0.8, 0.4])
    assert adasparse.targets(0.0, 2.0, [1, 5]) == [0.0, 0.0]


def test_regulariser_by_hand() -> None:
    ratios = [[0.5, 0.22, 0.9], [0.2, 0.0, 0.9]]
    wanted = [0.2, 0.2, 0.2]
    # layer 1: 0.09 and (in the band) 0; layer 2: 0 and 0.04; domain 3 is not in the batch
    value = adasparse.regulariser(ratios, wanted, strength=2.0, present=[True, True, False])
    assert value == approx(2.0 * (0.09 / 2 + 0.04 / 2) / 2)
    everyone = adasparse.regulariser(ratios, wanted, strength=1.0, present=[True] * 3)
    assert everyone == approx(((0.09 + 0.49) / 3 + (0.04 + 0.49) / 3) / 2)
    wide = adasparse.regulariser(ratios, wanted, 0.25, strength=1.0, present=[True, True, False])
    assert wide == approx(0.09 / 4)
    assert adasparse.regulariser(ratios, wanted, strength=1.0, present=[False] * 3) == 0.0


# ------------------------------------------------------------------------------------------------------ optim


def test_adamw_two_steps_by_hand() -> None:
    p, m, v = optim.adamw_step([1.0], [0.5], [0.0], [0.0], 1, lr=0.1, weight_decay=0.01, eps=0.0)
    assert (p[0], m[0], v[0]) == (approx(0.899), approx(0.05), approx(0.00025))  # 0.999 - 0.1 * sign
    p, m, v = optim.adamw_step(p, [-1.0], m, v, 2, lr=0.1, weight_decay=0.01, eps=0.0)
    assert (m[0], v[0]) == (approx(-0.055), approx(0.00124975))
    ratio = (-0.055 / 0.19) / math.sqrt(0.00124975 / 0.001999)
    assert p[0] == approx(0.899 - 0.000899 - 0.1 * ratio)
    assert p[0] == pytest.approx(0.934711, abs=1e-5)


def test_adamw_epsilon_is_added_after_the_root_and_decay_is_decoupled() -> None:
    p, _, _ = optim.adamw_step([0.0], [3.0], [0.0], [0.0], 1, lr=1.0, eps=1.0)
    assert p[0] == approx(-0.75)  # 3 / (3 + 1)
    p, m, v = optim.adamw_step([2.0], [0.0], [0.0], [0.0], 1, lr=0.1, weight_decay=0.5)
    assert (p[0], m[0], v[0]) == (approx(1.9), 0.0, 0.0)


def test_row_adam_touches_only_the_rows_of_the_batch() -> None:
    table = np.array([[1.0], [2.0], [3.0]])
    m, v = np.array([[0.0], [0.3], [0.0]]), np.array([[0.0], [0.2], [0.0]])
    before = table.copy(), m.copy(), v.copy()
    new, new_m, new_v = optim.row_adam_step(table, [2, 0, 2], [[1.0], [0.0], [3.0]], m, v, 5, lr=0.1, eps=0.0, l2=0.5)
    assert (new[1, 0], new_m[1, 0], new_v[1, 0]) == (2.0, 0.3, 0.2)  # not there: frozen
    # row 0: gradient 0 + 0.5 * 1; row 2: 1 + 3 + 0.5 * 3, the penalty once; global step 5 corrects both
    assert new_m[[0, 2], 0] == approx([0.05, 0.55])
    assert new_v[[0, 2], 0] == approx([0.00025, 0.03025])
    stride = 0.1 * (0.1 / 0.40951) / math.sqrt(0.001 / 0.004990009995001)
    assert new[[0, 2], 0] == approx([1.0 - stride, 3.0 - stride])
    for given, kept in zip((table, m, v), before, strict=True):
        assert (given == kept).all()  # arguments are not changed


def test_row_adam_on_every_row_is_adam() -> None:
    rng = np.random.default_rng(4)
    table, g, m = rng.normal(size=(3, 4, 2))
    v = rng.uniform(size=(4, 2))
    rows = optim.row_adam_step(table, range(4), g, m, v, 7, lr=0.01)
    dense = optim.adamw_step(table, g, m, v, 7, lr=0.01)
    for one, other in zip(rows, dense, strict=True):
        assert one == approx(other)


# ---------------------------------------------------------------------------------------------------- metrics


def test_bce_by_hand_and_by_finite_difference() -> None:
    assert metrics.bce(LOG3, 1.0) == approx(math.log(4 / 3))
    assert metrics.bce([LOG3, 0.0], [0.0, 1.0]) == approx((math.log(4) + math.log(2)) / 2)
    assert metrics.bce([1000.0, -1000.0], [1.0, 1.0]) == approx(500.0)
    z, y = np.array([-1.5, 0.3, 2.0]), np.array([0.0, 1.0, 0.0])
    gradient = optim.numerical_gradient(lambda v: metrics.bce(v, y), z)
    assert gradient == pytest.approx((adasparse.sigmoid(z) - y) / 3, rel=1e-6)


def test_auc_by_hand() -> None:
    assert metrics.average_ranks([3.0, 1.0, 3.0, 2.0, 3.0]) == [4.0, 1.0, 4.0, 2.0, 4.0]
    assert metrics.auc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8]) == 0.875  # 3 of 4 pairs right, one tie
    assert metrics.auc([0, 1], [0.5, 0.5]) == 0.5
    assert metrics.auc([1, 1], [0.1, 0.2]) is None
    assert metrics.auc([], []) is None
    with pytest.raises(ValueError, match="number"):
        metrics.auc([0, 1], [0.1, math.nan])


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_auc_and_logloss_agree_with_scikit_learn(levels: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(levels)
    y = rng.integers(0, 2, 200)
    p = rng.integers(0, levels, 200) / levels
    assert metrics.auc(y, p) == approx(sklearn.roc_auc_score(y, p))
    assert metrics.logloss(y, p) == approx(sklearn.log_loss(y, np.clip(p, 1e-7, 1 - 1e-7)))


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_auc_is_the_share_of_pairs_in_order(levels: int) -> None:
    rng = np.random.default_rng(levels + 1)
    y = rng.integers(0, 2, 200)
    p = rng.integers(0, levels, 200) / levels
    pairs = [(a > b) + 0.5 * (a == b) for a in p[y == 1] for b in p[y == 0]]
    assert metrics.auc(y, p) == approx(np.mean(pairs))


def test_logloss_clips() -> None:
    expected = (-math.log(1e-7) - math.log(1 - 1e-7)) / 2
    assert metrics.logloss([1, 0], [0.0, 0.0]) == pytest.approx(expected, rel=1e-9)
    assert metrics.logloss([1, 0], [1.0, 1.0]) == pytest.approx(expected, rel=1e-9)


def test_grouped_metrics_by_hand() -> None:
    # group a: 1.0 on 2 rows; b: 0.5 on 4 rows; c: one class only, left out
    y = [0, 1, 1, 0, 1, 0, 1]
    p = [0.2, 0.3, 0.9, 0.8, 0.1, 0.5, 0.6]
    groups = ["a", "a", "b", "b", "b", "b", "c"]
    # b: positives 0.9, 0.1; negatives 0.8, 0.5: 2 of 4 pairs
    assert metrics.group_aucs(y, p, groups) == {"a": (2, 1.0), "b": (4, 0.5), "c": (1, None)}
    assert metrics.wauc(y, p, groups) == approx((2 * 1.0 + 4 * 0.5) / 6)
    assert metrics.mean_auc(y, p, groups) == approx(0.75)
    assert metrics.gauc(y, p, groups) == approx(2 / 3)
    assert metrics.wauc([1, 1], [0.1, 0.2], [0, 1]) is None
    assert metrics.mean_auc([1, 1], [0.1, 0.2], [0, 1]) is None
    assert metrics.calibration_ratio(y, p) == approx(3.4 / 4)
    assert metrics.calibration_ratio([0, 0], [0.5, 0.5]) is None


# ------------------------------------------------------------------------------------------------- components


def test_token_width_divides_both() -> None:
    assert [components.token_width(h, 16) for h in (64, 60, 7)] == [16, 4, 1]
    assert components.tokens([1.0, 2.0, 3.0, 4.0], 2) == approx([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match="whole number"):
        components.tokens([1.0, 2.0, 3.0], 2)


def test_lowrank_cross_by_hand() -> None:
    f, x0 = [3.0, 7.0], [1.0, 2.0]
    # f U = -4; times V = [-8, -2]; plus b = [-7, 3]; times x0 = [-7, 6]; plus f
    u, v, b = [[1.0], [-1.0]], [[2.0, 0.5]], [1.0, 5.0]
    assert components.lowrank_cross(f, x0, u, v, b) == approx([-4.0, 13.0])
    assert components.lowrank_cross([f], [x0], u, v, b) == approx(fusion.cross_matrix([f], [x0], np.matmul(u, v), b))


def test_field_attention_by_hand() -> None:
    f = [1.0, 0.0, 0.0, 1.0]  # two tokens
    q, k, v, res = [[LOG3, 0.0], [0.0, 0.0]], np.eye(2), [[4.0, 2.0], [8.0, -6.0]], [[1.0, 1.0], [0.0, 3.0]]
    # head 1: token 1 has the weights 3/4, 1/4 on the values 4, 8, token 2 equal weights; head 2: always the mean -2
    assert components.field_attention(f, q, k, v, res, heads=2) == approx([6.0, 0.0, 6.0, 1.0])
    # one head: token 1 has 3/4 [4, 2] + 1/4 [8, -6] = [5, 0], token 2 the mean [6, -2]
    assert components.field_attention(f, q, k, v, res, heads=1, scale=False) == approx([6.0, 1.0, 6.0, 1.0])
    wider = np.asarray(q) * math.sqrt(2.0)  # e / H = 2
    assert components.field_attention(f, wider, k, v, res, heads=1) == approx([6.0, 1.0, 6.0, 1.0])
    with pytest.raises(ValueError, match="heads"):
        components.field_attention(f, q, k, v, res, heads=3)


def test_fm_and_bilinear_by_hand() -> None:
    f, x0 = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 1.0, 2.0, 0.0, 1.0, -1.0]
    # the other tokens' sums: [8, 10], [6, 8], [4, 6]
    assert components.fm(f, x0, 2) == approx([9.0, 12.0, 15.0, 4.0, 9.0, 0.0])
    # [a, b] W = [2 b, a]: [20, 8], [16, 6], [12, 4]
    assert components.bilinear(f, x0, [[0.0, 1.0], [2.0, 0.0]]) == approx([21.0, 10.0, 35.0, 4.0, 17.0, 2.0])
    assert components.fm(f, x0, 6) == approx(f)  # one token: nothing to pair with


def test_token_components_of_a_batch_are_those_of_its_rows() -> None:
    rng = np.random.default_rng(5)
    f, x0 = rng.normal(size=(2, 5, 12))
    q, k, v, res, w = rng.normal(size=(5, 4, 4))
    for one, rows in (
        (components.field_attention(f, q, k, v, res, 2), [components.field_attention(r, q, k, v, res, 2) for r in f]),
        (components.fm(f, x0, 4), [components.fm(r, a, 4) for r, a in zip(f, x0, strict=True)]),
        (components.bilinear(f, x0, w), [components.bilinear(r, a, w) for r, a in zip(f, x0, strict=True)]),
    ):
        assert one.shape == (5, 12)
        assert one == approx(rows)
    # with x0 = f the tokens' sum is the factorisation machine's (sum f)^2 - sum f^2
    parts = f.reshape(5, 3, 4)
    pairs = (components.fm(f, f, 4) - f).reshape(5, 3, 4).sum(axis=1)
    assert pairs == approx(parts.sum(axis=1) ** 2 - (parts**2).sum(axis=1))


# ---------------------------------------------------------------------------------------------------- tickets


def test_round_rate_by_hand() -> None:
    assert tickets.round_rate(0.25, 2) == approx(0.5)
    assert tickets.round_rate(0.2, 1) == approx(0.8)
    assert tickets.round_rate(1.0, 5) == 0.0


def masks_of(*layers: Any) -> list[Any]:
    return [np.asarray(layer, dtype=float).tolist() for layer in layers]


def test_prune_by_hand() -> None:
    weights = [[[3.0, -1.0], [0.5, 2.0]], [[0.1, -0.2]]]
    full = [np.ones((2, 2)), np.ones((1, 2))]
    first = tickets.prune(weights, full, 0.5, "global")  # 3 of 6
    assert masks_of(*first) == [[[1.0, 1.0], [0.0, 1.0]], [[0.0, 0.0]]]
    assert masks_of(*tickets.prune(weights, full, 0.5, "layer")) == [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0]]]
    # 3 survive, 1.5 rounds to 2; what is pruned already does not count, however large
    weights[1] = [[100.0, 0.0]]
    assert masks_of(*tickets.prune(weights, first, 0.5, "global")) == [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0]]]
    assert masks_of(*tickets.prune(weights, first, 0.1, "global")) == masks_of(*first)  # 0.3 rounds to 0
    assert masks_of(*full) == [[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0]]]  # arguments are not changed
    with pytest.raises(ValueError, match="ranking"):
        tickets.prune(weights, full, 0.5, "row")


def test_prune_breaks_ties_by_position_and_rounds_halves_to_even() -> None:
    weights = [[[1.0, -1.0], [1.0, 1.0]], [[1.0]]]
    full = [np.ones((2, 2)), np.ones((1, 1))]
    for rate in (0.4, 0.5):  # 2 and 2.5 of 5
        assert masks_of(*tickets.prune(weights, full, rate, "global")) == [[[0.0, 0.0], [1.0, 1.0]], [[1.0]]]
    assert masks_of(*tickets.prune(weights, full, 0.7, "global")) == [[[0.0, 0.0], [0.0, 0.0]], [[1.0]]]


def test_overlap_by_hand() -> None:
    a, b = [[1, 1], [0, 0]], [[0, 1], [1, 0]]
    assert tickets.overlap(a, b) == approx(1 / 3)
    assert tickets.overlap([a, [[1]]], [b, [[1]]]) == approx(2 / 4)  # layers pooled, not averaged
    assert tickets.overlap(np.zeros((2, 2)), np.zeros((2, 2))) == 1.0
    assert tickets.overlap(a, np.zeros((2, 2))) == 0.0


UNIT_MASKS = [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]]


def test_masked_linear_by_hand() -> None:
    w = [[1.0, 10.0], [100.0, 1000.0]]
    out = tickets.masked_linear([[1.0, 2.0]] * 3, w, UNIT_MASKS, [0, 1, 2], [0.5, -0.5])
    assert out == approx([[1.5, 1999.5], [1.5, 9.5], [1.5, 2009.5]])  # the last one: union
    with pytest.raises(ValueError, match="outside"):
        tickets.masked_linear([[1.0, 2.0]], w, UNIT_MASKS, [3], [0.0, 0.0])


@pytest.mark.parametrize(
    ("unit", "moves"),
    [
        ([1, 1], [[True, True], [False, False]]),
        ([0], [[True, False], [False, True]]),
        ([1, 0], [[True, True], [False, True]]),
        ([2], [[True, True], [False, True]]),
        ([], [[False, False], [False, False]]),
    ],
)
def test_masked_adam_freezes_what_no_unit_of_the_batch_keeps(unit: list[int], moves: list[list[bool]]) -> None:
    one = np.ones((2, 2))
    p, m, v = tickets.masked_adam(
        one, one, 0.3 * one, 0.2 * one, 1, 0.1, UNIT_MASKS, unit, weight_decay=0.5, betas=(0.5, 0.5), eps=0.0
    )
    # m = 0.65, v = 0.6, corrected 1.3 and 1.2; decay takes 0.05
    moved = np.asarray(moves)
    assert p == approx(np.where(moved, 0.95 - 0.1 * 1.3 / math.sqrt(1.2), 1.0))
    assert m == approx(np.where(moved, 0.65, 0.3))
    assert v == approx(np.where(moved, 0.6, 0.2))


def test_error_barrier_by_hand() -> None:
    assert tickets.error_barrier({0.0: 1.0, 0.5: 3.0, 1.0: 2.0}, (1.0, 2.0)) == approx(1.5)
    assert tickets.error_barrier({0.25: 1.0, 0.75: 2.0}, (1.0, 2.0)) == approx(0.25)  # not the largest loss less 1.5
    assert tickets.error_barrier({0.5: 1.0}, (1.0, 2.0)) == 0.0


# ------------------------------------------------------------------------------------------------- truncation


def test_truncate_by_hand() -> None:
    a, b = [[2.0, 0.0], [0.0, 3.0]], np.eye(2)
    new_a, new_b = truncation.truncate(a, b, 1)
    assert new_a @ new_b == approx([[0.0, 0.0], [0.0, 3.0]])  # the larger one, not the first
    assert np.abs(new_a) == approx([[0.0], [math.sqrt(3.0)]])
    assert np.abs(new_b) == approx([[0.0, math.sqrt(3.0)]])
    with pytest.raises(ValueError, match="outside"):
        truncation.truncate(a, b, 3)


def test_truncate_is_the_best_approximation() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(5, 4)), rng.normal(size=(4, 3))
    whole = a @ b
    squares = np.linalg.eigvalsh(whole.T @ whole)[::-1]  # of the singular values, falling
    for r in range(5):  # rank 4 of a 5 x 3 matrix: one pair of columns is idle
        new_a, new_b = truncation.truncate(a, b, r)
        assert (new_a.shape, new_b.shape) == ((5, r), (r, 3))
        error = ((whole - new_a @ new_b) ** 2).sum()
        assert error == pytest.approx(squares[r:].sum(), rel=1e-9, abs=1e-9)
        assert (new_a**2).sum(axis=0) == approx((new_b**2).sum(axis=1))  # the weight is shared evenly


def test_rank_rule_and_smallest_rank() -> None:
    assert [truncation.rank_rule(width, 16) for width in (64, 63, 8)] == [4, 3, 1]
    losses = [0.7, 0.6, 0.55, 0.57, 0.5]
    assert truncation.smallest_rank(losses, 0.06) == 2
    assert truncation.smallest_rank(losses, 0.0) == 4
    assert truncation.smallest_rank([0.4, 0.6, 0.5], 0.0) == 0
    with pytest.raises(ValueError, match="negative"):
        truncation.smallest_rank([0.5], -0.1)


# -------------------------------------------------------------------------------------------- adasparse input


def test_field_factors_by_hand() -> None:
    e, w, b = [1.0, 2.0], [[-LOG3, 0.0, -LOG3], [0.0, 0.0, LOG3 / 2]], [0.0, 0.0, LOG3]  # v = [-log 3, 0, log 3]
    forms: dict[str, list[float]] = {"fusion": [0.0, 1.0, 1.8], "binarization": [0.0, 1.0, 1.0]}
    forms["scaling"] = [0.5, 1.0, 1.5]
    for form, expected in forms.items():
        assert adasparse_input.field_factors(e, w, b, form, alpha=2.0, beta=2.0, eps=0.25) == approx(expected)
        both = adasparse_input.field_factors([e, e], w, b, form, alpha=2.0, beta=2.0, eps=0.25)
        assert both == approx([expected, expected])
    with pytest.raises(ValueError, match="form"):
        adasparse_input.field_factors(e, w, b, "hard", alpha=2.0, beta=2.0, eps=0.25)


def test_prune_fields_of_different_widths() -> None:
    x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    expected = [0.0, 2.0, 3.0, 8.0, 10.0, 12.0]
    assert adasparse_input.prune_fields(x, [0.0, 1.0, 2.0], [1, 2, 3]) == approx(expected)
    assert adasparse_input.prune_fields([x, x], [0.0, 1.0, 2.0], [1, 2, 3]) == approx([expected, expected])
    rows = adasparse_input.prune_fields([x, x], [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0]], [1, 2, 3])
    assert rows == approx([expected, [1.0, 0.0, 0.0, 4.0, 5.0, 6.0]])
    with pytest.raises(ValueError, match="widths"):
        adasparse_input.prune_fields(x, [0.0, 1.0, 2.0], [1, 2, 2])


# --------------------------------------------------------------------------------------------------- transfer


def test_poolings_by_hand() -> None:
    snapshots = [[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]]
    query = [2 * LOG3, 0.0, 0.0, 0.0]  # scores log 3 and 0 after division by sqrt(4)
    known = [True, True, False]
    assert transfer.attention_pool(snapshots, known, query) == approx([0.75, 0.5, 0.0, 0.0])
    assert transfer.mean_pool(snapshots, known) == approx([0.5, 1.0, 0.0, 0.0])
    assert transfer.last_pool(snapshots, known) == approx([0.0, 2.0, 0.0, 0.0])
    assert transfer.last_pool(snapshots, [True, False, False]) == approx([1.0, 0.0, 0.0, 0.0])
    nothing = [False, False, False]
    assert transfer.attention_pool(snapshots, nothing, query) == approx(np.zeros(4))
    assert transfer.mean_pool(snapshots, nothing) == approx(np.zeros(4))
    assert transfer.last_pool(snapshots, nothing) == approx(np.zeros(4))


@pytest.mark.parametrize("unseen", [9.0, -9.0, math.nan])
def test_forgetting_by_hand(unseen: float) -> None:
    losses = [[0.5, unseen, unseen], [0.4, 0.6, unseen], [0.7, 0.55, 0.3]]
    assert transfer.forgetting(losses) == approx((0.3 + 0.0 + 0.0) / 3)
    assert transfer.forgetting([*losses, [0.6, 0.75, 0.4]]) == approx((0.2 + 0.2 + 0.1) / 3)
    with pytest.raises(ValueError, match="every day"):
        transfer.forgetting(losses[:2])


# ------------------------------------------------------------------------------------------------ multidomain


def times(factor: float, bias: float = 0.0) -> Any:
    """A layer of one input and one output."""
    return [[factor]], [bias]


def test_mlp_and_mean_parameters() -> None:
    layers = [([[1.0, -1.0]], [0.0, 1.0]), ([[2.0], [100.0]], [-1.0])]
    assert multidomain.mlp([3.0], layers) == approx([5.0])  # [3, 0], then 6 - 1
    assert multidomain.mlp([0.25], layers) == approx([74.5])  # [0.25, 0.75]
    assert multidomain.mlp([[-3.0], [3.0]], layers[:1]) == approx([[0.0, 4.0], [3.0, 0.0]])
    mean = multidomain.mean_parameters(
        [{"a": times(1.0, 2.0), "b": [times(0.0)]}, {"a": times(3.0), "b": [times(4.0)]}]
    )
    assert multidomain.linear([1.0], mean["a"]) == approx([3.0])
    assert multidomain.linear([1.0], mean["b"][0]) == approx([2.0])
    with pytest.raises(ValueError, match="outside"):
        multidomain.of_domain([1.0, 2.0], 3)


def test_mmoe_by_hand() -> None:
    no_bias = [0.0, 0.0]
    parameters = {
        "experts": [[(np.eye(2), no_bias)], [([[-1.0, 1.0], [0.0, 1.0]], no_bias)]],  # [1, 2] and [0, 3]
        "gates": [([[LOG3, 0.0], [0.0, 0.0]], no_bias), (np.zeros((2, 2)), [0.0, LOG3])],
        "towers": [
            {"hidden": ([[4.0, 0.0], [0.0, -1.0]], [0.0, 3.0]), "output": ([[1.0, 0.0], [2.0, 1.0]], [0.5, 0.0])},
            {"hidden": ([[0.0, 0.0], [4.0, -1.0]], [-1.0, 1.0]), "output": ([[1.0, 1.0], [1.0, 1.0]], [0.0, 1.0])},
        ],
    }
    hidden, logits = multidomain.mmoe([[1.0, 2.0]] * 3, [0, 1, 2], parameters)
    # mixtures: 3/4 and 1/4: [0.75, 2.25]; 1/4 and 3/4: [0.25, 2.75]; unknown, halves: [0.5, 2.5]
    assert hidden == approx([[3.0, 0.75], [10.0, 0.0], [5.5, 0.0]])
    # the unknown domain's tower: W = [[2, 0], [2, -1]], b = [-0.5, 2], w = [[1, 0.5], [1.5, 1]], c = [0.25, 0.5]
    assert logits == approx([[5.0, 0.75], [10.0, 11.0], [5.75, 3.25]])


def extraction_level(**more: Any) -> dict[str, Any]:
    """Own experts times 1 and times 3, a shared one times 5; gates 1/2, 1/2 and 9/10, 1/10 (own, shared)."""
    return {
        "shared": [[times(5.0)]],
        "own": [[[times(1.0)]], [[times(3.0)]]],
        "gates": [([[0.0, 0.0]], [0.0, 0.0]), ([[0.0, 0.0]], [2 * LOG3, 0.0])],
        **more,
    }


PLE_TOWERS = [{"hidden": times(1.0), "output": times(1.0)}, {"hidden": times(2.0), "output": times(1.0, 1.0)}]


def test_ple_one_level_by_hand() -> None:
    hidden, logits = multidomain.ple([[2.0]] * 3, [0, 1, 2], {"levels": [extraction_level()], "towers": PLE_TOWERS})
    # experts 2, 6 and 10: (2 + 10) / 2 = 6; 0.9 * 6 + 0.1 * 10 = 6.4; unknown: 0.75 * (2 * 2) + 0.25 * 10 = 5.5
    assert hidden == approx([[6.0], [12.8], [8.25]])
    assert logits == approx([[6.0], [13.8], [8.75]])


def test_stacked_ple_by_hand() -> None:
    # weights 1/8, 2/8, 5/8 for domain 0, domain 1 and shared; the shared output: (2 + 12 + 50) / 8 = 8
    first = extraction_level(shared_gate=([[0.0, 0.0, 0.0]], [0.0, math.log(2.0), math.log(5.0)]))
    levels = [first, extraction_level()]
    hidden, logits = multidomain.ple([[2.0]] * 3, [0, 1, 2], {"levels": levels, "towers": PLE_TOWERS})
    # (6 + 40) / 2 = 23; 0.9 * 19.2 + 0.1 * 40 = 21.28; unknown: 0.75 * 11 + 0.25 * 40 = 18.25
    assert hidden == approx([[23.0], [42.56], [27.375]])
    assert logits == approx([[23.0], [43.56], [27.875]])
    # a gate reads its domain's output of the level below, 6: weights 1/4 and 3/4 on 6 and 40
    levels[1]["gates"] = [([[0.0, LOG3 / 6]], [0.0, 0.0]), ([[0.0, 0.0]], [0.0, 0.0])]
    _, logits = multidomain.ple([[2.0]], [0], {"levels": levels, "towers": PLE_TOWERS})
    assert logits == approx([[31.5]])
    # the shared gate reads the shared output, 8: 6 / 4 + 19.2 / 4 + 40 / 2 = 26.3, times 5 = 131.5
    second = extraction_level(shared_gate=([[0.0, 0.0, math.log(2.0) / 8]], [0.0, 0.0, 0.0]))
    _, logits = multidomain.ple([[2.0]], [0], {"levels": [first, second, extraction_level()], "towers": PLE_TOWERS})
    assert logits == approx([[77.25]])  # (23 + 131.5) / 2


def test_star_by_hand() -> None:
    parameters = {
        "layers": [
            {
                "shared": ([[1.0, 2.0], [3.0, 4.0]], [1.0, -1.0]),
                "domains": [([[1.0, 0.0], [2.0, 1.0]], [0.0, -20.0])],
            }
        ],
        "output": {"shared": ([[1.0], [2.0]], [0.5]), "domains": [([[2.0], [5.0]], [1.0])]},
        "auxiliary": [([[1.0, 1.0], [-1.0, -2.0]], [2.0, 0.0]), ([[3.0], [50.0]], [0.25])],  # relu([1, -3]): 3.25
    }
    hidden, logits = multidomain.star([[1.0, 2.0]] * 2, [0, 1], parameters)
    # [13, 8] + [1, -21]; unknown: [7, 10] + [1, -1]
    assert hidden == approx([[14.0, 0.0], [8.0, 9.0]])
    assert logits == approx([[28.0 + 1.5 + 3.25], [8.0 + 18.0 + 0.5 + 3.25]])
    with pytest.raises(ValueError, match="outside"):
        multidomain.star([[1.0, 2.0]], [2], parameters)


PEPNET: dict[str, Any] = {
    "embedding_gate": [([[LOG3], [LOG3 / 2]], [-LOG3]), times(1.0)],  # log 3: 2 * 3/4
    "layers": [
        # reads x' = 3: log 3; factors 3/2 and 1/2
        {"linear": ([[2.0, -1.0]], [0.0, 5.0]), "gate": [([[0.0], [LOG3 / 3]], [0.0]), ([[1.0, -1.0]], [0.0, 0.0])]},
        {"linear": ([[1.0], [1.0]], [-4.0]), "gate": [([[-1.0], [0.0]], [0.0]), times(7.0, -LOG3)]},  # 2 * 1/4
    ],
}


def test_pepnet_by_hand() -> None:
    gated, hidden = multidomain.pepnet([[2.0]], [[1.0]], PEPNET)
    assert gated == approx([[3.0]])
    assert hidden == approx([[3.0]])  # [6, 2] * [3/2, 1/2] = [9, 1]; (10 - 4) / 2
    below = multidomain.pepnet([[2.0]], [[1.0]], {**PEPNET, "layers": PEPNET["layers"][:1]})[1]
    assert below == approx([[9.0, 1.0]])


def test_pepnet_gates_stop_the_gradient_of_what_they_read() -> None:
    x, e = np.array([[2.0]]), np.array([[1.0]])
    gated, hidden = multidomain.pepnet(x, e, PEPNET)
    frozen = (x, gated)
    assert multidomain.pepnet(x, e, PEPNET, frozen)[1] == approx(hidden)
    slope = optim.numerical_gradient(lambda v: float(multidomain.pepnet(v, e, PEPNET, frozen)[1][0, 0]), x)
    assert slope[0, 0] == pytest.approx(1.5 * (2 * 1.5 - 1 * 0.5) * 0.5, rel=1e-6)
    through = optim.numerical_gradient(lambda v: float(multidomain.pepnet(v, e, PEPNET)[1][0, 0]), x)
    assert abs(through[0, 0] - slope[0, 0]) > 0.1


# ------------------------------------------------------------------------------------------------ calibration


def test_expected_calibration_error_by_hand() -> None:
    y, p = [0, 1, 1, 0, 1], [0.1, 0.9, 0.4, 0.4, 0.8]
    # rows 0, 2 | 3, 4, 1: 2/5 |0.25 - 0.5| + 3/5 |0.7 - 2/3|
    assert calibration.expected_calibration_error(y, p, 2) == approx(0.12)
    assert calibration.expected_calibration_error(y, p, 1) == approx(0.08)
    assert calibration.expected_calibration_error(y, p, 10) == approx((0.1 + 0.1 + 0.6 + 0.4 + 0.2) / 5)
    assert calibration.expected_calibration_error([], [], 3) is None
    assert calibration.calibration_ratio(y, p) == approx(2.6 / 3)


def test_weighted_auc_by_hand() -> None:
    scores, labels, weights = [0.1, 0.4, 0.4, 0.8], [0, 1, 0, 1], [1, 2, 3, 1]
    # right: 2 * 1 + half of 2 * 3 + 1 * 1 + 1 * 3 = 9 of 3 * 4
    assert calibration.weighted_auc(scores, labels, weights) == approx(0.75)
    assert calibration.weighted_auc(scores, labels, [1, 1, 1, 1]) == approx(0.875)
    assert calibration.weighted_auc(scores, labels, [0, 1, 0, 1]) is None
    assert calibration.user_bootstrap_auc(scores, labels, [[0, 3], [1], [2]], [1, 2, 3]) == approx(0.75)
    with pytest.raises(ValueError, match="one user"):
        calibration.user_bootstrap_auc(scores, labels, [[0, 3], [1]], [1, 2])


def test_weighted_auc_is_the_auc_of_repeated_rows() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(7)
    y, p = rng.integers(0, 2, 60), rng.integers(0, 9, 60) / 9
    counts = rng.multinomial(20, [1 / 20] * 20)
    rows = [list(range(3 * u, 3 * u + 3)) for u in range(20)]
    drawn = [row for u in range(20) for _ in range(counts[u]) for row in rows[u]]
    value = calibration.user_bootstrap_auc(p, y, rows, counts.tolist())
    assert value == approx(metrics.auc(y[drawn], p[drawn]))
    assert value == approx(sklearn.roc_auc_score(y, p, sample_weight=np.repeat(counts, 3)))
