from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from fake_data import fake_dataset
from reference import fusion

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import (
    ADD,
    CONCAT,
    FIXED,
    OPERATORS,
    PRODUCT,
    Architecture,
    Node,
    consumers,
    full,
    inputs,
    one_hot,
    parallel,
    producers,
    stacked,
)
from autoctr.model.candidate import Candidate
from autoctr.training.cohort import Cohort, frozen_tables
from model.networks import TINY, mixed_batch, random_cohort, random_wiring, resident, scored


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(rows=200, unseen=0.15)


@pytest.mark.parametrize(("blocks", "connections", "operators"), [(1, 9, 3), (2, 19, 5), (3, 33, 7), (4, 51, 9)])
def test_the_space_has_the_size_of_table_1_2(blocks: int, connections: int, operators: int) -> None:
    assert sum(inputs(blocks)) + 1 == connections == 2 * blocks**2 + 4 * blocks + 3  # C0's one input is no choice
    assert len(consumers(blocks)) == len(inputs(blocks)) == operators
    assert len(producers(blocks)) == 2 * blocks + 2


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_nodes_and_their_inputs_are_named_as_in_the_reference(blocks: int) -> None:
    for name, count in zip(consumers(blocks), inputs(blocks), strict=True):
        assert producers(blocks)[:count] == fusion.candidates(name, blocks)


def changes(first: Architecture, second: Architecture) -> int:
    count = 0
    for one, two in zip(first.nodes, second.nodes, strict=True):
        count += sum(a != b for a, b in zip(one.open, two.open, strict=True))
        count += one.operators != two.operators
    return count


@pytest.mark.parametrize("wiring", [parallel(1), parallel(3), stacked(2), full(2), random_wiring(3, 1)], ids=str)
def test_neighbours_change_exactly_one_thing_and_leave_no_node_empty(wiring: Architecture) -> None:
    around = list(wiring.neighbours())
    assert len(set(around)) == len(around)
    alive = wiring.live()
    expected = 0
    for position, node in enumerate(wiring.nodes):
        if position == len(wiring.nodes) - 1 or position + 2 in alive:
            expected += 3 + len(node.open) - (sum(node.open) == 1)
    assert len(around) == expected
    for other in around:
        assert changes(wiring, other) == 1
        assert all(any(node.open) and node.hard for node in other.nodes)


def test_a_neighbours_change_is_in_a_live_node() -> None:
    wiring = stacked(3)
    for other in wiring.neighbours():
        (position,) = [p for p, pair in enumerate(zip(wiring.nodes, other.nodes, strict=True)) if pair[0] != pair[1]]
        assert position == 6 or position + 2 in wiring.live()


def test_live_producers_are_those_that_reach_the_output() -> None:
    assert parallel(2).live() == {0, 1, 2, 3, 4, 5}
    assert stacked(2).live() == {1, 2, 5}
    assert full(2).live() == set(range(6))
    last = Node((True, False, False, False), one_hot(ADD))
    wiring = Architecture((Node((True, True), one_hot(ADD)), Node((True, True), one_hot(CONCAT)), last))
    assert wiring.live() == {0}


@pytest.mark.parametrize("seed", range(8))
def test_dead_nodes_do_not_change_the_output(dataset: Dataset, seed: int) -> None:
    wiring = random_wiring(3, seed, seed % 2 == 1)
    cohort = random_cohort(dataset, [Candidate(**TINY, blocks=3, wiring=wiring)])
    other = Cohort(
        dataset.statistics,
        [Candidate(**TINY, blocks=3, wiring=wiring.effective())],
        frozen_tables(dataset),
        ramp=1000,
        dtype=torch.float64,
        start=cohort,
    )
    assert other.network.layout.weights.keys() == cohort.network.layout.weights.keys()
    batch = mixed_batch(resident(dataset))
    assert torch.equal(scored(cohort, batch), scored(other, batch))


def test_networks_that_differ_in_dead_nodes_are_effectively_equal() -> None:
    wiring = stacked(3)
    dead = [p for p in range(6) if p + 2 not in wiring.live()]
    assert dead
    for position in dead:
        count = len(wiring.nodes[position].open)
        other = wiring.with_node(position, Node((False,) * (count - 1) + (True,), one_hot(PRODUCT)))
        assert other != wiring
        assert other.effective() == wiring.effective()
        assert other.effective().live() == wiring.live()
    assert full(3).effective() == full(3)
    one = Node((True, False), (0.1, 0.2, 0.3, 0.4))
    assert full(3).with_node(0, one).effective().nodes[0].operators == pytest.approx((0.3, 0.0, 0.3, 0.4))
    two = Node((True, True), one_hot(PRODUCT))
    assert full(3).with_node(0, two).effective().nodes[0] == two


@pytest.mark.parametrize(
    ("wiring", "lines"),
    [
        (parallel(1), ["C1 = add(C0)", "D1 = add(E)", "O = concat(C1, D1)"]),
        (parallel(2), ["C1 = add(C0)", "D1 = add(E)", "C2 = add(C1)", "D2 = add(D1)", "O = concat(C2, D2)"]),
        (stacked(1), ["D1 = add(C0)", "O = add(D1)"]),
        (stacked(2), ["C1 = add(C0)", "D2 = add(C1)", "O = add(D2)"]),
        (stacked(3), ["C1 = add(C0)", "D2 = add(C1)", "D3 = add(D2)", "O = add(D3)"]),
        (stacked(4), ["C1 = add(C0)", "C2 = add(C1)", "D3 = add(C2)", "D4 = add(D3)", "O = add(D4)"]),
        (full(1), ["C1 = add(E, C0)", "D1 = add(E, C0)", "O = add(E, C0, C1, D1)"]),
    ],
    ids=str,
)
def test_fixed_wirings_read_as_they_should(wiring: Architecture, lines: list[str]) -> None:
    assert wiring.describe() == lines


def test_a_mixture_is_described_with_its_shares() -> None:
    node = Node((True, False), (0.25, 0.0, 0.75, 0.0))
    wiring = full(1).with_node(0, node)
    assert wiring.describe()[0] == "C1 = 0.25 add + 0.75 concat(E)"
    assert not node.hard


@pytest.mark.parametrize("wiring", [*(make(3) for make in FIXED.values()), random_wiring(2, 4, True)], ids=str)
def test_an_architecture_survives_json(wiring: Architecture) -> None:
    assert Architecture.from_dict(json.loads(json.dumps(wiring.to_dict()))) == wiring


@pytest.mark.parametrize(
    "nodes",
    [
        full(1).nodes[:2],
        full(1).nodes[:1],
        (*full(1).nodes[:2], Node((False,) * 4, one_hot(ADD))),
        (*full(1).nodes[:2], Node((True,) * 3, one_hot(ADD))),
        (*full(1).nodes[:2], Node((True,) * 4, (0.5, 0.0, 0.0, 0.0))),
        (*full(1).nodes[:2], Node((True,) * 4, (1.5, -0.5, 0.0, 0.0))),
    ],
    ids=["2 nodes", "no block", "no input", "3 flags", "half", "negative"],
)
def test_an_illegal_architecture_is_refused(nodes: tuple[Node, ...]) -> None:
    with pytest.raises(ValueError, match="node"):
        Architecture(nodes)


# the discrete network computes nothing that is closed


def expected_weights(wiring: Architecture, settings: dict[str, Any]) -> set[str]:
    names = {"numbers", "projection.weight", "projection.bias", "head.click.weight", "head.click.bias"}
    sources = producers(wiring.blocks)
    used = [*((p, sources[p]) for p in sorted(wiring.live()) if p > 0), (len(sources), "O")]
    for position, name in used:
        if name != "O":
            names.add(f"{name}.weight")
        if name.startswith("C") or (name.startswith("D") and settings.get("norm") != "batch"):
            names.add(f"{name}.bias")
        if name.startswith("D") and settings.get("norm") == "batch":
            names |= {f"{name}.norm.scale", f"{name}.norm.shift"}
        if name.startswith("D") and settings.get("rank"):
            names |= {f"{name}.lora.A", f"{name}.lora.B", f"{name}.lora.bias"}
        if name.startswith("D") and settings.get("sparsity"):
            parts = ["domain", "bias"] + ["neurons"] * (settings["pruner_input"] == "both")
            names |= {f"{name}.pruner.{part}" for part in parts}
        if position < 2:
            continue
        node = wiring.nodes[position - 2]
        open_sources = [sources[u] for u, is_open in enumerate(node.open) if is_open]
        if node.operators[OPERATORS.index("concat")] > 0:
            names |= {f"{name}.concat.bias"} | {f"{name}.concat.{u}.weight" for u in open_sources}
        if node.operators[OPERATORS.index("attention")] > 0:
            for u in open_sources:
                names |= {f"{name}.attention.{u}.{a}.{b}" for a in ("hidden", "score") for b in ("weight", "bias")}
    return names


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"norm": "batch", "rank": 2},
        {"sparsity": 0.2, "pruner_input": "both"},
        {"sparsity": 0.2, "pruner_input": "domain"},
    ],
    ids=str,
)
def test_the_discrete_network_has_no_weights_of_what_is_closed(
    dataset: Dataset, seed: int, settings: dict[str, Any]
) -> None:
    wiring = random_wiring(3, seed, seed % 2 == 1)
    cohort = random_cohort(dataset, [Candidate(**TINY, blocks=3, wiring=wiring, **settings)])
    # C0 and E may be dead too
    assert set(cohort.network.layout.weights) == expected_weights(wiring, settings)
    deep = [p for p in wiring.live() if p > 1 and p % 2 == 1]
    assert cohort.network.normalisation.size == (2 * 6 * len(deep) if settings.get("norm") else 0)


def test_the_discrete_network_does_not_compute_closed_operators(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoctr.model.operators import FUSION_OPERATORS

    # C1 and D1 pass their only input on, C2 adds two of four, D2 multiplies three, O joins two of six
    opens = [(1,), (0,), (1, 2), (0, 1, 3), (4, 5)]
    operators = [ADD, ADD, ADD, PRODUCT, CONCAT]
    nodes = [
        Node(tuple(u in chosen for u in range(count)), one_hot(operator))
        for count, chosen, operator in zip(inputs(2), opens, operators, strict=True)
    ]
    cohort = random_cohort(dataset, [Candidate(**TINY, blocks=2, wiring=Architecture(tuple(nodes)))])
    calls: list[tuple[str, int]] = []
    for name, operator in FUSION_OPERATORS.items():
        original = operator.forward

        def spy(weights: Any, edges: Any, original: Any = original, name: str = name) -> Any:
            calls.append((name, len(edges)))
            assert all(edge.gate is None for edge in edges)
            return original(weights, edges)

        monkeypatch.setattr(operator, "forward", spy)
    scored(cohort, mixed_batch(resident(dataset)))
    assert calls == [("add", 2), ("product", 3), ("concat", 2)]
