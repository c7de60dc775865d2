"""The reference itself, against numbers worked out by hand, other libraries and finite differences."""

import ast
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import adasparse, fusion, lora, metrics, optim

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
