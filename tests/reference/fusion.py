"""OptFusion: fusion operators, cross and deep components, and the whole discrete or relaxed network.

Paper: OptFusion, arXiv 2411.15731. Deep components may carry the ticket mask of LT4REC (arXiv 2008.09872),
the adapter of MLoRA (arXiv 2408.08913) and the pruner of AdaSparse (arXiv 2206.13108).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

OPERATORS = ("add", "product", "concat", "attention")


def softmax(values: npt.ArrayLike) -> Array:
    """``exp(v_j) / sum_k exp(v_k)`` over the last dimension."""
    v = np.asarray(values, dtype=np.float64)
    e = np.exp(v - v.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def relu(values: npt.ArrayLike) -> Array:
    """``max(v, 0)``."""
    return np.maximum(np.asarray(values, dtype=np.float64), 0.0)


# ------------------------------------------------------------------------------------------------ connections


def gates(logits: npt.ArrayLike) -> list[int]:
    """``g_u = 1[a_u > 0]``; if every ``a_u <= 0`` the (first) largest one is open all the same.

    OptFusion, arXiv 2411.15731; the repair is autoctr's, the paper lets a node end up without inputs.
    """
    a = [float(v) for v in np.asarray(logits, dtype=np.float64)]
    if not a:
        raise ValueError("a node needs at least one candidate input")
    result = [1 if v > 0 else 0 for v in a]
    if sum(result) == 0:
        result[a.index(max(a))] = 1
    return result


# -------------------------------------------------------------------------------------------------- operators


def add(inputs: Sequence[npt.ArrayLike], gates: Sequence[float]) -> Array:
    """``sum_u g_u x_u``. OptFusion, arXiv 2411.15731."""
    total = np.zeros_like(np.asarray(inputs[0], dtype=np.float64))
    for x, g in zip(inputs, gates, strict=True):
        total = total + g * np.asarray(x, dtype=np.float64)
    return total


def product(inputs: Sequence[npt.ArrayLike], gates: Sequence[float]) -> Array:
    """``prod_u (g_u x_u + (1 - g_u))``: a closed input is the factor 1.

    OptFusion, arXiv 2411.15731, whose code feeds 0 for a closed input, which kills the whole product.
    """
    total = np.ones_like(np.asarray(inputs[0], dtype=np.float64))
    for x, g in zip(inputs, gates, strict=True):
        total = total * (g * np.asarray(x, dtype=np.float64) + (1.0 - g))
    return total


def concat(
    inputs: Sequence[npt.ArrayLike],
    gates: Sequence[float],
    weights: Sequence[npt.ArrayLike],
    bias: npt.ArrayLike,
) -> Array:
    """``sum_u (g_u x_u) W_u + b``, which equals ``[z_1; ...; z_n] W + b`` with the ``W_u`` stacked.

    ``weights``: n matrices ``[h, h]``; ``bias``: ``[h]``. OptFusion, arXiv 2411.15731.
    """
    total = np.zeros_like(np.asarray(inputs[0], dtype=np.float64))
    for x, g, w in zip(inputs, gates, weights, strict=True):
        total = total + (g * np.asarray(x, dtype=np.float64)) @ np.asarray(w, dtype=np.float64)
    return np.asarray(total + np.asarray(bias, dtype=np.float64))


def attention(
    inputs: Sequence[npt.ArrayLike],
    gates: Sequence[float],
    w1: Sequence[npt.ArrayLike],
    b1: Sequence[npt.ArrayLike],
    w2: Sequence[npt.ArrayLike],
    b2: Sequence[npt.ArrayLike],
) -> Array:
    """``h * sum_u g_u softmax_h(relu(x_u W1_u + b1_u) W2_u + b2_u) * x_u``, softmax over the h features.

    One two-layer net per input u: ``w1[u]`` is ``[h, r]`` and ``w2[u]`` is ``[r, h]``; a closed input
    contributes nothing. OptFusion, arXiv 2411.15731; the factor h is autoctr's (without it the result is h
    times smaller than its inputs).
    """
    total = np.zeros_like(np.asarray(inputs[0], dtype=np.float64))
    h = total.shape[-1]
    for u, g in enumerate(gates):
        x = np.asarray(inputs[u], dtype=np.float64)
        hidden = relu(x @ np.asarray(w1[u], dtype=np.float64) + np.asarray(b1[u], dtype=np.float64))
        scores = hidden @ np.asarray(w2[u], dtype=np.float64) + np.asarray(b2[u], dtype=np.float64)
        total = total + g * softmax(scores) * x
    return np.asarray(h * total)


def weighted(weights: Sequence[float], outputs: Sequence[npt.ArrayLike]) -> Array:
    """``sum_o weight_o output_o``."""
    total = np.zeros_like(np.asarray(outputs[0], dtype=np.float64))
    for weight, output in zip(weights, outputs, strict=True):
        total = total + weight * np.asarray(output, dtype=np.float64)
    return total


def mix(betas: npt.ArrayLike, outputs: Sequence[npt.ArrayLike]) -> Array:
    """``sum_o softmax(beta)_o output_o``: the operator mixture of the supernet.

    OptFusion, arXiv 2411.15731.
    """
    return weighted([float(v) for v in softmax(betas)], outputs)


def one_hot(betas: npt.ArrayLike) -> list[float]:
    """1 at the (first) largest beta, 0 elsewhere: the hard read-out. OptFusion, arXiv 2411.15731."""
    b = [float(v) for v in np.asarray(betas, dtype=np.float64)]
    best = b.index(max(b))
    return [1.0 if o == best else 0.0 for o in range(len(b))]


def select(index: int, outputs: Sequence[npt.ArrayLike]) -> Array:
    """``output_index``: one operator after discretisation. OptFusion, arXiv 2411.15731."""
    return np.asarray(outputs[index], dtype=np.float64)


# ------------------------------------------------------------------------------------------------- components


def cross_vector(f: npt.ArrayLike, x0: npt.ArrayLike, w: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """``(f . w) x0 + b + f``, w and b in ``R^h``. DCN (arXiv 1708.05123), as used by OptFusion."""
    f_, x0_, w_, b_ = (np.asarray(v, dtype=np.float64) for v in (f, x0, w, b))
    scale = np.sum(f_ * w_, axis=-1, keepdims=True)
    return np.asarray(scale * x0_ + b_ + f_)


def cross_matrix(f: npt.ArrayLike, x0: npt.ArrayLike, w: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """``x0 * (f W + b) + f``, elementwise product. DCN-v2, arXiv 2008.13535."""
    f_, x0_, w_, b_ = (np.asarray(v, dtype=np.float64) for v in (f, x0, w, b))
    return np.asarray(x0_ * (f_ @ w_ + b_) + f_)


def layer_norm(values: npt.ArrayLike, gamma: npt.ArrayLike, beta: npt.ArrayLike, eps: float = 1e-5) -> Array:
    """``gamma (v - mean) / sqrt(var + eps) + beta``, mean and var over the features of a row.

    Layer normalisation, arXiv 1607.06450; the variance divides by h.
    """
    v = np.asarray(values, dtype=np.float64)
    mean = v.mean(axis=-1, keepdims=True)
    var = ((v - mean) ** 2).mean(axis=-1, keepdims=True)
    return np.asarray(np.asarray(gamma) * (v - mean) / np.sqrt(var + eps) + np.asarray(beta))


def batch_norm(
    values: npt.ArrayLike,
    mean: npt.ArrayLike,
    var: npt.ArrayLike,
    gamma: npt.ArrayLike,
    beta: npt.ArrayLike,
    eps: float = 1e-5,
) -> Array:
    """``gamma (v - mean) / sqrt(var + eps) + beta`` with given mean and var per feature.

    Batch normalisation, arXiv 1502.03167; in evaluation these are the running statistics.
    """
    v = np.asarray(values, dtype=np.float64)
    scaled = (v - np.asarray(mean)) / np.sqrt(np.asarray(var, dtype=np.float64) + eps)
    return np.asarray(np.asarray(gamma) * scaled + np.asarray(beta))


def deep(
    f: npt.ArrayLike,
    W: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    lora: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    domain_bias: npt.ArrayLike | None = None,
    norm: Callable[[Array], Array] | None = None,
    pruner: npt.ArrayLike | Callable[[Array], Array] | None = None,
    mask: npt.ArrayLike | None = None,
) -> Array:
    """``pi * relu(norm(f (m * W) + b + f A B + b_d))`` in evaluation, where dropout does nothing.

    The mask m (LT4REC, arXiv 2008.09872) touches the shared W only; ``lora = (A, B)`` and ``domain_bias`` are
    those of the rows' domain (MLoRA, arXiv 2408.08913), already cut to its rank; ``pruner`` is pi itself or a
    function from the neurons after ReLU to pi (AdaSparse, arXiv 2206.13108).
    """
    f_ = np.asarray(f, dtype=np.float64)
    w = np.asarray(W, dtype=np.float64)
    if mask is not None:
        w = np.asarray(mask, dtype=np.float64) * w
    z = f_ @ w + np.asarray(b, dtype=np.float64)
    if lora is not None:
        z = z + (f_ @ np.asarray(lora[0], dtype=np.float64)) @ np.asarray(lora[1], dtype=np.float64)
    if domain_bias is not None:
        z = z + np.asarray(domain_bias, dtype=np.float64)
    if norm is not None:
        z = norm(z)
    neurons = relu(z)
    if pruner is None:
        return neurons
    pi = pruner(neurons) if callable(pruner) else pruner
    return np.asarray(np.asarray(pi, dtype=np.float64) * neurons)


# ---------------------------------------------------------------------------------------------------- network


def candidates(node: str, blocks: int) -> list[str]:
    """Names of a fusing node's candidate inputs, in order.

    ``C_i`` and ``D_i``: ``E, C0, C1, D1, ..., C_{i-1}, D_{i-1}``; ``O``: ``E, C0, C1, D1, ..., C_K, D_K``.
    OptFusion, arXiv 2411.15731.
    """
    earlier = blocks if node == "O" else int(node[1:]) - 1
    names = ["E", "C0"]
    for i in range(1, earlier + 1):
        names += [f"C{i}", f"D{i}"]
    return names


def fuse(
    inputs: Sequence[npt.ArrayLike],
    gates: Sequence[float],
    operator_weights: Sequence[float],
    parameters: Mapping[str, Any],
) -> Array:
    """``sum_o weight_o op_o(inputs, gates)``, operators in the order add, product, concat, attention.

    The weights are used as given: ``softmax(beta)`` for the supernet, one-hot for a discrete network. An
    operator of weight 0 is not computed and needs no parameters. ``parameters["concat"] = (weights, bias)``,
    ``parameters["attention"] = (w1, b1, w2, b2)``. OptFusion, arXiv 2411.15731.
    """
    if len(operator_weights) != len(OPERATORS):
        raise ValueError(f"expected {len(OPERATORS)} operator weights, got {len(operator_weights)}")
    if len(gates) != len(inputs):
        raise ValueError(f"expected {len(inputs)} gates, got {len(gates)}")
    if any(g not in (0, 1) for g in gates) or sum(gates) == 0:
        raise ValueError("gates are 0 or 1 and at least one is open (repair them first)")
    total = np.zeros_like(np.asarray(inputs[0], dtype=np.float64))
    for name, weight in zip(OPERATORS, operator_weights, strict=True):
        if weight == 0:
            continue
        if name == "add":
            output = add(inputs, gates)
        elif name == "product":
            output = product(inputs, gates)
        elif name == "concat":
            output = concat(inputs, gates, *parameters["concat"])
        else:
            output = attention(inputs, gates, *parameters["attention"])
        total = total + weight * output
    return total


def nodes(
    x0: npt.ArrayLike,
    parameters: Mapping[str, Mapping[str, Any]],
    architecture: Mapping[str, tuple[Sequence[int], Sequence[float]]],
) -> dict[str, Array]:
    """Output of every node: ``E, C0, C1, D1, ..., C_K, D_K`` and the fused vector at ``O``.

    ``E = x0``; ``C0 = cross(E, E)``; ``C_i = cross(fuse(...), E)``; ``D_i = deep(fuse(...))``: the anchor of
    every cross layer is E. ``architecture[node] = (gates, operator weights)`` for ``C1, D1, ..., O``.

    ``parameters[node]`` is a dict with "concat" and "attention" as in `fuse`, and

    - a cross node: "cross" = ``(w, b)``, w a vector for `cross_vector` or a matrix for `cross_matrix`;
    - a deep node: "deep" = the keyword arguments of `deep` (``W``, ``b``, ...);
    - ``O``: "output" = ``(w_o, b_o)``.

    OptFusion, arXiv 2411.15731.
    """
    blocks = (len(architecture) - 1) // 2
    expected = {"O"} | {f"{kind}{i}" for kind in "CD" for i in range(1, blocks + 1)}
    if set(architecture) != expected:
        raise ValueError(f"architecture must name {sorted(expected)}, not {sorted(architecture)}")

    def cross(node: str, f: Array) -> Array:
        w, b = parameters[node]["cross"]
        layer = cross_vector if np.ndim(w) == 1 else cross_matrix
        return layer(f, result["E"], w, b)

    def fused(node: str) -> Array:
        inputs = [result[name] for name in candidates(node, blocks)]
        node_gates, operator_weights = architecture[node]
        return fuse(inputs, node_gates, operator_weights, parameters.get(node, {}))

    result: dict[str, Array] = {"E": np.asarray(x0, dtype=np.float64)}
    result["C0"] = cross("C0", result["E"])
    for i in range(1, blocks + 1):
        c = cross(f"C{i}", fused(f"C{i}"))
        d = deep(fused(f"D{i}"), **parameters[f"D{i}"]["deep"])
        result[f"C{i}"], result[f"D{i}"] = c, d  # the two of a block never see each other
    result["O"] = fused("O")
    return result


def network(
    x0: npt.ArrayLike,
    parameters: Mapping[str, Mapping[str, Any]],
    architecture: Mapping[str, tuple[Sequence[int], Sequence[float]]],
) -> Array:
    """``logit = f_O w_o + b_o``: a number for one row, ``[B]`` for a batch. See `nodes` for the arguments.

    Rows of several domains: call once per row with that domain's ``lora``, ``domain_bias`` and ``pruner``.
    OptFusion, arXiv 2411.15731.
    """
    f = nodes(x0, parameters, architecture)["O"]
    w, b = parameters["O"]["output"]
    return np.asarray(f @ np.reshape(np.asarray(w, dtype=np.float64), -1) + float(np.reshape(b, -1)[0]))
