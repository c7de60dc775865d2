"""A node's hand-written derivative against central differences, and what is skipped against what is not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from autoctr.model import node as node_module
from autoctr.model.architecture import OPERATORS, Architecture, inputs
from autoctr.model.architecture import Node as Choice
from autoctr.model.candidate import Candidate
from autoctr.model.node import Node
from autoctr.model.parameters import Layout

K, B, H, INPUTS = 2, 3, 4, 4
RELAXED = Candidate(blocks=1, architecture="learn")
SOURCES = ["E", "C0", "C1", "D1"]


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Case:
    """The output node of a supernet of one block: two members, four inputs, all weights drawn."""

    def __init__(self, learned: str = "both") -> None:
        self.node = Node([RELAXED.replace(learned=learned)] * K, 2, H, torch.tensor)
        self.layout = Layout()
        self.node.declare(self.layout)
        self.values = drawn(INPUTS, K, B, H, seed=1)
        self.flat = drawn(K, self.layout.size, seed=2) * 0.5
        self.gates, self.operators = drawn(K, INPUTS, seed=3), drawn(K, len(OPERATORS), seed=4)

    def forward(self, values: Tensor, flat: Tensor, gates: Tensor, operators: Tensor) -> Tensor:
        learned = {"O.gates": gates, "O.operators": operators}
        return self.node.forward(self.layout.views(flat), dict(enumerate(values)), learned)

    def only(self, operator: str) -> Tensor:
        logits = torch.full((K, len(OPERATORS)), -torch.inf, dtype=torch.float64)
        logits[:, OPERATORS.index(operator)] = 0.0
        return logits

    def leaves(self) -> list[Tensor]:
        return [part.clone().requires_grad_() for part in (self.values, self.flat, self.gates, self.operators)]


@pytest.fixture
def smooth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates as the numbers that they are given as, so that differences can be taken."""
    monkeypatch.setattr(node_module, "straight_through", lambda gates: gates)


@pytest.mark.usefixtures("smooth")
@pytest.mark.parametrize("learned", ["both", "connections", "operators"])
def test_every_gradient_of_a_node_is_the_numeric_one(learned: str) -> None:
    case = Case(learned)
    assert torch.autograd.gradcheck(case.forward, case.leaves(), atol=1e-7)


@pytest.mark.usefixtures("smooth")
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("gates", [(1, 1, 1, 1), (1, 0, 1, 0), (0.3, 1, 0, 0.8)], ids=str)
def test_every_gradient_of_an_operator_is_the_numeric_one(operator: str, gates: tuple[float, ...]) -> None:
    case = Case()
    operators = case.only(operator)
    case.gates = torch.tensor([gates, gates], dtype=torch.float64)

    def forward(values: Tensor, flat: Tensor, gates: Tensor) -> Tensor:
        return case.forward(values, flat, gates, operators)

    assert torch.autograd.gradcheck(forward, case.leaves()[:3], atol=1e-7)


def gradients(case: Case, operators: Tensor | None = None) -> tuple[Tensor, ...]:
    leaves = case.leaves()
    if operators is not None:
        leaves[3] = operators
    out = case.forward(*leaves)
    parts = torch.autograd.grad((out * drawn(K, B, H, seed=9)).sum(), [leaf for leaf in leaves if leaf.requires_grad])
    return out.detach(), *parts


@pytest.mark.parametrize("gates", [(1, 1, -1, 1), (-1, -1, 1, -1), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("operator", [*OPERATORS, None])
def test_what_is_known_to_be_open_or_closed_changes_no_number(
    operator: str | None, gates: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case()
    case.gates = torch.tensor([gates, gates], dtype=torch.float64)
    operators = None if operator is None else case.only(operator)
    known = gradients(case, operators)
    monkeypatch.setattr(node_module, "_kinds", lambda gates: [node_module._MIXED] * INPUTS)
    for mine, expected in zip(known, gradients(case, operators), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=4))[1:], ids=str)
def test_a_gradient_does_not_depend_on_which_others_are_wanted(wanted: tuple[bool, ...]) -> None:
    case = Case()
    every = gradients(case)
    leaves = [leaf.requires_grad_(is_wanted) for leaf, is_wanted in zip(case.leaves(), wanted, strict=True)]
    chosen = [leaf for leaf in leaves if leaf.requires_grad]
    found = torch.autograd.grad((case.forward(*leaves) * drawn(K, B, H, seed=9)).sum(), chosen)
    expected = [part for part, is_wanted in zip(every[1:], wanted, strict=True) if is_wanted]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_no_gradient_is_written_into_a_tensor_of_others() -> None:
    case = Case()
    leaves = case.leaves()
    arriving = drawn(K, B, H, seed=9)
    copies = [leaf.detach().clone() for leaf in leaves], arriving.clone()
    torch.autograd.grad(case.forward(*leaves), leaves, arriving)
    assert all(torch.equal(leaf, copy) for leaf, copy in zip(leaves, copies[0], strict=True))
    assert torch.equal(arriving, copies[1])


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_evaluated_node_computes_only_operators_with_a_share(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case()
    operators = case.only(operator)
    expected = case.forward(case.values, case.flat, case.gates, operators).detach()
    for other, joins in node_module.FUSION_OPERATORS.items():
        if other != operator:
            monkeypatch.setattr(type(joins), "forward", lambda *parts: pytest.fail("was computed"))
    with torch.inference_mode():
        assert torch.equal(case.forward(case.values, case.flat, case.gates, operators), expected)


def test_members_with_other_operators_and_inputs_do_not_change_a_member() -> None:
    def wiring(choice: Choice) -> Architecture:
        count = inputs(1)
        plain = [Choice((True,) * n, (1.0, 0.0, 0.0, 0.0)) for n in count[:-1]]
        return Architecture((*plain, choice))

    choices = [
        Choice((False, True, False, True), (0.0, 1.0, 0.0, 0.0)),
        Choice((True, False, False, True), (0.0, 0.0, 1.0, 0.0)),
        Choice((False, False, False, True), (0.0, 0.0, 0.5, 0.5)),
    ]
    members = [Candidate(blocks=1, wiring=wiring(choice)) for choice in choices]

    def result(chosen: list[int]) -> list[dict[str, Any]]:
        def constant(value: object) -> Tensor:
            return torch.tensor(value, dtype=torch.float64)

        node, layout = Node([members[k] for k in chosen], 2, H, constant), Layout()
        node.declare(layout)
        flat = layout.initial([10 + k for k in chosen]).double().requires_grad_()
        values = drawn(INPUTS, 3, B, H, seed=1)[:, chosen].requires_grad_()
        out = node.forward(layout.views(flat), dict(enumerate(values)), None)
        loss = (out * drawn(3, B, H, seed=9)[chosen]).sum()
        of_values, of_flat = torch.autograd.grad(loss, [values, flat], allow_unused=True, materialize_grads=True)
        views = layout.views(of_flat)
        return [
            {"out": out[k], "values": of_values[:, k], **{name: view[k] for name, view in views.items()}}
            for k in range(len(chosen))
        ]

    together = result([0, 1, 2])
    for k in range(3):
        (alone,) = result([k])
        for name, value in alone.items():
            torch.testing.assert_close(together[k][name], value, rtol=1e-12, atol=1e-12)
        assert all(not value.any() for name, value in together[k].items() if name not in alone)
