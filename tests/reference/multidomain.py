"""Multi-domain networks used for comparison: MMoE, PLE, STAR and PEPNet.

``x`` is ``[B, i]`` and ``domain`` ``[B]`` holds 0..D, D being the unknown domain. A linear layer is a pair
``(W, b)`` of ``[in, out]`` and ``[out]``, an expert a list of such layers for `mlp`. Results are the last hidden
vectors ``[B, k]`` and, but for PEPNet, the logits ``[B, tasks]``. What the parameter dicts hold:

- `mmoe`: "experts", n experts; "gates", D layers ``[i, n]``; "towers", D dicts of the layers "hidden" ``[in, k]``
  and "output" ``[k, tasks]``.
- `ple`: "levels", one or more dicts of "shared" (S experts), "own" (D lists of P experts), "gates" (D layers
  ``[in, P + S]``, own experts first) and, on all levels but the last, "shared_gate" (a layer ``[in, D P + S]``:
  the experts of domain 0, of domain 1, ..., the shared ones); "towers" as above.
- `star`: "layers" and "output", the former a list of dicts and the latter one dict of "shared" (a layer) and
  "domains" (D layers of the same shapes); "auxiliary", two layers ``[i, r]`` and ``[r, tasks]``.
- `pepnet`: "embedding_gate", two layers ``[E + i, r]`` and ``[r, i]``; "layers", dicts of "linear" (a layer) and
  "gate", two layers ``[E + i, r]`` and ``[r, out]``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .adasparse import sigmoid
from .fusion import relu, softmax

Array = npt.NDArray[np.float64]
Layer = tuple[npt.ArrayLike, npt.ArrayLike]
Domains = Sequence[int] | npt.NDArray[np.integer]
Parameters = Mapping[str, Any]


def linear(x: npt.ArrayLike, layer: Layer) -> Array:
    """``x W + b``; x ``[i]`` or ``[B, i]``."""
    w, b = (np.asarray(a, dtype=np.float64) for a in layer)
    return np.asarray(np.asarray(x, dtype=np.float64) @ w + b)


def mlp(x: npt.ArrayLike, layers: Sequence[Layer]) -> Array:
    """``relu(x W + b)`` layer after layer, the last one included."""
    h = np.asarray(x, dtype=np.float64)
    for layer in layers:
        h = relu(linear(h, layer))
    return h


def mean_parameters(items: Sequence[Any]) -> Any:
    """Entrywise mean of D equally built parameters: arrays, tuples or lists of such, dicts of such.

    autoctr's own, for rows of an unknown domain.
    """
    first = items[0]
    if isinstance(first, Mapping):
        return {key: mean_parameters([item[key] for item in items]) for key in first}
    if isinstance(first, tuple | list) and not (first and np.isscalar(first[0])):
        return [mean_parameters([item[k] for item in items]) for k in range(len(first))]
    return sum(np.asarray(item, dtype=np.float64) for item in items) / len(items)


def of_domain(items: Sequence[Any], d: int) -> Any:
    """Entry d of D domains' parameters; for d = D, the unknown domain, their mean. autoctr's own."""
    if not 0 <= d <= len(items):
        raise ValueError(f"domain {d} is outside 0..{len(items)}")
    return items[d] if d < len(items) else mean_parameters(items)


def gated_mixture(inputs: npt.ArrayLike, gate: Layer, outputs: Sequence[Array]) -> Array:
    """``sum_e softmax(x G + g)_e output_e`` for one row: x ``[i]``, G ``[i, n]``, g ``[n]``, n outputs ``[k]``.

    MMoE, Ma et al., KDD 2018.
    """
    total = np.zeros_like(outputs[0])
    for weight, output in zip(softmax(linear(inputs, gate)), outputs, strict=True):
        total = total + weight * output
    return total


def _tower(mix: Array, tower: Parameters) -> tuple[Array, Array]:
    """One ReLU layer and the logits of one row: ``t = relu(mix W + b)`` ``[k]``, ``t w + c`` ``[tasks]``."""
    hidden = mlp(mix, [tower["hidden"]])
    return hidden, linear(hidden, tower["output"])


def mmoe(x: npt.ArrayLike, domain: Domains, parameters: Parameters) -> tuple[Array, Array]:
    """``t = relu(mix W_d + b_d)`` and ``t w_d + c_d``, ``mix = sum_e softmax(x G_d + g_d)_e expert_e(x)``.

    Unknown domain: mean gate and mean tower. MMoE, Ma et al., KDD 2018, domains in the place of tasks.
    """
    hidden, logits = [], []
    for row, d in zip(np.asarray(x, dtype=np.float64), (int(v) for v in domain), strict=True):
        outputs = [mlp(row, expert) for expert in parameters["experts"]]
        mix = gated_mixture(row, of_domain(parameters["gates"], d), outputs)
        h, z = _tower(mix, of_domain(parameters["towers"], d))
        hidden.append(h)
        logits.append(z)
    return np.array(hidden), np.array(logits)


def ple(x: npt.ArrayLike, domain: Domains, parameters: Parameters) -> tuple[Array, Array]:
    """As `mmoe`, mix being the domain's output of the last level. PLE, Tang et al., RecSys 2020.

    A domain's experts and gate read its output of the level below, the shared ones the shared output; at first, x.
    Unknown domain: mean experts, gates and tower; the shared gate still mixes the D known domains' experts.
    """
    levels = parameters["levels"]
    hidden, logits = [], []
    for row, d in zip(np.asarray(x, dtype=np.float64), (int(v) for v in domain), strict=True):
        states = [row] * (len(levels[0]["own"]) + 1)  # D domains and the unknown one
        shared = row
        for number, level in enumerate(levels):
            of_shared = [mlp(shared, expert) for expert in level["shared"]]
            of_own, new_states = [], []
            for j, state in enumerate(states):
                own = [mlp(state, expert) for expert in of_domain(level["own"], j)]
                of_own.append(own)
                new_states.append(gated_mixture(state, of_domain(level["gates"], j), own + of_shared))
            if number < len(levels) - 1:
                everyone = [output for own in of_own[:-1] for output in own] + of_shared
                shared = gated_mixture(shared, level["shared_gate"], everyone)
            states = new_states
        h, z = _tower(states[d], of_domain(parameters["towers"], d))
        hidden.append(h)
        logits.append(z)
    return np.array(hidden), np.array(logits)


def star_layer(x: npt.ArrayLike, shared: Layer, domains: Sequence[Layer], d: int) -> Array:
    """``x (W_s * W_d) + b_s + b_d``, elementwise product, for one row ``[i]`` of domain d, before any activation.

    Unknown domain: ``W_d = 1``, ``b_d = 0``. STAR, Sheng et al., CIKM 2021, arXiv 2101.11427.
    """
    if not 0 <= d <= len(domains):
        raise ValueError(f"domain {d} is outside 0..{len(domains)}")
    w, b = (np.asarray(a, dtype=np.float64) for a in shared)
    if d < len(domains):
        w_d, b_d = (np.asarray(a, dtype=np.float64) for a in domains[d])
        w, b = w * w_d, b + b_d
    return linear(x, (w, b))


def star(x: npt.ArrayLike, domain: Domains, parameters: Parameters) -> tuple[Array, Array]:
    """`star_layer` after `star_layer`, ReLU between them; the logits have the auxiliary net's added.

    The auxiliary net, ``relu(x W + b) w + c``, is shared by all domains and reads x. No partitioned normalisation.
    STAR, arXiv 2101.11427.
    """
    first, second = parameters["auxiliary"]
    output = parameters["output"]
    hidden, logits = [], []
    for row, d in zip(np.asarray(x, dtype=np.float64), (int(v) for v in domain), strict=True):
        h = row
        for layer in parameters["layers"]:
            h = relu(star_layer(h, layer["shared"], layer["domains"], d))
        hidden.append(h)
        logits.append(star_layer(h, output["shared"], output["domains"], d) + linear(mlp(row, [first]), second))
    return np.array(hidden), np.array(logits)


def gate_nu(prior: npt.ArrayLike, x: npt.ArrayLike, first: Layer, second: Layer) -> Array:
    """``2 sigmoid(relu([prior; x] U + u) V + v)``: prior ``[B, E]``, x ``[B, i]``, U ``[E + i, r]``, V ``[r, k]``.

    PEPNet, Chang et al., KDD 2023, arXiv 2302.01115; no gradient runs through x.
    """
    inputs = np.concatenate([np.asarray(prior, dtype=np.float64), np.asarray(x, dtype=np.float64)], axis=-1)
    return 2.0 * sigmoid(linear(mlp(inputs, [first]), second))


def pepnet(
    x: npt.ArrayLike,
    domain_embedding: npt.ArrayLike,
    parameters: Parameters,
    frozen: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> tuple[Array, Array]:
    """``x' = gate_nu(e_d, x) * x`` ``[B, i]`` and the last of ``h_l = relu(h_{l-1} W_l + b_l) * gate_nu_l(e_d, x')``.

    ``h_0 = x'``; e_d ``[B, E]``, one per row, is the only prior. Given ``frozen`` = (x, x'), the gates read that,
    which stops the gradient in finite differences. PEPNet, arXiv 2302.01115.
    """
    rows = np.asarray(x, dtype=np.float64)
    gated = gate_nu(domain_embedding, rows if frozen is None else frozen[0], *parameters["embedding_gate"]) * rows
    read = gated if frozen is None else frozen[1]
    h = gated
    for layer in parameters["layers"]:
        h = mlp(h, [layer["linear"]]) * gate_nu(domain_embedding, read, *layer["gate"])
    return gated, h
