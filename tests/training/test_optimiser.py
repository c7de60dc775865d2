from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import optim
from torch import Tensor

from autoctr.training.averaging import Average
from autoctr.training.optimiser import DenseAdam, RowAdam
from autoctr.training.touched import Touched

K, P, V, E = 2, 5, 6, 3


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("decays", [[0.0, 0.0], [0.1, 0.0], [0.3, 0.5]], ids=str)
def test_dense_adam_equals_the_reference(decays: list[float]) -> None:
    flat, decayed = drawn(K, P, seed=0), torch.tensor([1, 0, 1, 1, 0]).double()
    rates = drawn(K, P, seed=9).abs() / 10
    optimiser = DenseAdam(flat, rates, torch.tensor(decays, dtype=torch.float64)[:, None], decayed)
    p = flat.numpy().copy()
    m, v = np.zeros((K, P)), np.zeros((K, P))
    for step in range(1, 8):
        gradient = drawn(K, P, seed=step) * 10.0 ** (step - 4)
        optimiser.step(flat, gradient, step)
        for k in range(K):
            for n in range(P):
                decay = decays[k] * float(decayed[n])
                p[k, n], m[k, n], v[k, n] = optim.adamw_step(
                    p[k, n], float(gradient[k, n]), m[k, n], v[k, n], step, float(rates[k, n]), decay
                )
        np.testing.assert_allclose(flat.numpy(), p, rtol=0, atol=1e-9)


@pytest.mark.parametrize("l2", [[0.0, 0.0], [0.1, 0.0]], ids=str)
def test_row_adam_equals_the_reference(l2: list[float]) -> None:
    table, rates = drawn(V, K, E, seed=0), [1e-2, 3e-1]
    optimiser = RowAdam(table, torch.tensor(rates, dtype=torch.float64), torch.tensor(l2, dtype=torch.float64))
    expected = [table[:, k].numpy().copy() for k in range(K)]
    moments = [(np.zeros((V, E)), np.zeros((V, E))) for _ in range(K)]
    for step, ids in enumerate([[1, 4], [0], [4, 2, 1], [3], [1]], start=1):
        rows, gradient = torch.tensor(ids), drawn(len(ids), K, E, seed=step)
        optimiser.step(table, Touched(rows, rows), table[rows], gradient, step)
        for k in range(K):
            expected[k], *new = optim.row_adam_step(
                expected[k], ids, gradient[:, k].numpy(), *moments[k], step, rates[k], l2[k]
            )
            moments[k] = (new[0], new[1])
            np.testing.assert_allclose(table[:, k].numpy(), expected[k], rtol=0, atol=1e-9)
    assert np.array_equal(expected[0][5], drawn(V, K, E, seed=0)[5, 0].numpy())


def test_row_adam_leaves_the_moments_of_other_rows_frozen() -> None:
    table = drawn(V, K, E, seed=0)
    optimiser = RowAdam(table, torch.full((K,), 0.1).double(), torch.full((K,), 0.1).double())
    rows = torch.tensor([2, 3])
    optimiser.step(table, Touched(rows, rows), table[rows], drawn(2, K, E, seed=1), 1)
    before = (table.clone(), optimiser.first.clone(), optimiser.second.clone())
    rows = torch.tensor([3])
    optimiser.step(table, Touched(rows, rows), table[rows], drawn(1, K, E, seed=2), 2)
    for old, new in zip(before, (table, optimiser.first, optimiser.second), strict=True):
        assert torch.equal(old[2], new[2])
        assert not torch.equal(old[3], new[3])


@pytest.mark.parametrize("decays", [[0.9, 0.5], [0.0, 0.99]], ids=str)
def test_an_average_equals_its_sum_for_rows_that_come_and_go(decays: list[float]) -> None:
    flat, table = drawn(K, P, seed=0), drawn(V, K, E, seed=1)
    average = Average(flat, table, torch.tensor(decays, dtype=torch.float64))
    history: list[tuple[Tensor, Tensor]] = []
    for step, ids in enumerate([[1, 4], [0], [4, 2, 1], [3], [1], [1, 0]], start=1):
        rows = torch.tensor(ids)
        before = table[rows]
        flat = flat + drawn(K, P, seed=10 + step)
        table = table.index_copy(0, rows, before + drawn(len(ids), K, E, seed=20 + step))
        average.step(flat, rows, before, table[rows])
        history.append((flat, table))
        dense, whole = average.read(table)
        for k, decay in enumerate(decays):
            weights = [(1 - decay) * decay ** (step - s) / (1 - decay**step) for s in range(1, step + 1)]
            assert sum(weights) == pytest.approx(1)
            pairs = list(zip(weights, history, strict=True))
            torch.testing.assert_close(dense[k], sum(w * f[k] for w, (f, _) in pairs), rtol=0, atol=1e-12)
            torch.testing.assert_close(whole[:, k], sum(w * t[:, k] for w, (_, t) in pairs), rtol=0, atol=1e-12)
