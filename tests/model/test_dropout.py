from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from autoctr.model.dropout import dropout

ROWS, WIDTH = 400, 100


def kept(rates: list[float], seeds: list[int], step: int = 1, place: int = 3, rows: int = ROWS) -> Tensor:
    """Which numbers stay: bool [K, rows, width]."""
    x = torch.ones(len(rates), rows, WIDTH, dtype=torch.float64)
    return dropout(x, torch.tensor(rates).double(), torch.tensor(seeds, dtype=torch.int32), step, place) > 0


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.8, 0.95])
def test_the_share_that_stays_is_right(rate: float) -> None:
    share = float(kept([rate], [7]).double().mean())
    assert share == pytest.approx(1 - rate, abs=5 * math.sqrt(rate * (1 - rate) / (ROWS * WIDTH)))


def test_the_expectation_is_preserved_and_every_number_is_scaled_or_zero() -> None:
    x = torch.rand(2, ROWS, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    rates = torch.tensor([0.3, 0.6], dtype=torch.float64)
    out = dropout(x, rates, torch.tensor([1, 2], dtype=torch.int32), 5, 1)
    for k in range(2):
        assert float(out[k].mean()) == pytest.approx(float(x[k].mean()), rel=0.03)
        alive = out[k] > 0
        torch.testing.assert_close(out[k][alive], x[k][alive] / (1 - rates[k]), rtol=1e-12, atol=0)


def test_rate_zero_changes_nothing_beside_a_member_that_drops() -> None:
    x = torch.randn(2, 50, 9, generator=torch.Generator().manual_seed(0))
    out = dropout(x, torch.tensor([0.0, 0.5]), torch.tensor([1, 2], dtype=torch.int32), 5, 1)
    assert torch.equal(out[0], x[0])
    assert not torch.equal(out[1], x[1])


def test_a_members_mask_is_independent_of_its_cohort() -> None:
    together = kept([0.1, 0.4, 0.7], [5, 6, 7])
    for k, (rate, seed) in enumerate([(0.1, 5), (0.4, 6), (0.7, 7)]):
        assert torch.equal(kept([rate], [seed])[0], together[k])


def test_a_mask_is_independent_of_how_many_rows_follow() -> None:
    assert torch.equal(kept([0.4], [5], rows=30)[0], kept([0.4], [5])[0, :30])


@pytest.mark.parametrize(
    "change", [{"seeds": [6]}, {"step": 2}, {"step": 1 + (1 << 20)}, {"place": 4}, {"place": 0}], ids=str
)
def test_masks_of_other_seeds_steps_and_places_are_unrelated(change: dict[str, object]) -> None:
    arguments: dict[str, object] = {"rates": [0.5], "seeds": [5]}
    first, second = kept(**arguments)[0].double(), kept(**arguments | change)[0].double()  # type: ignore[arg-type]
    assert abs(correlation(first, second)) < 5 / math.sqrt(ROWS * WIDTH)


def test_the_same_seed_step_and_place_give_the_same_mask() -> None:
    assert torch.equal(kept([0.4], [5]), kept([0.4], [5]))


def correlation(first: Tensor, second: Tensor) -> float:
    a, b = first.reshape(-1) - first.mean(), second.reshape(-1) - second.mean()
    return float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt())


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("distance", [1, 2, 3, 4, 8, 16, 64])
def test_neighbouring_rows_and_columns_are_unrelated(rate: float, distance: int) -> None:
    mask = kept([rate], [11])[0].double()
    bound = 5 / math.sqrt(ROWS * WIDTH)
    assert abs(correlation(mask[distance:], mask[:-distance])) < bound
    assert abs(correlation(mask[:, distance:], mask[:, :-distance])) < bound
    flipped = mask[: ROWS - ROWS % 2].view(-1, 2, WIDTH)
    assert abs(correlation(flipped[:, 0], flipped[:, 1])) < 2 * bound


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.7])
def test_rows_and_columns_keep_their_share(rate: float) -> None:
    mask = kept([rate], [13])[0].double()
    for axis, count in ((0, ROWS), (1, WIDTH)):
        spread = math.sqrt(rate * (1 - rate) / count)
        shares = mask.mean(axis)
        assert float((shares - (1 - rate)).abs().max()) < 5 * spread
        # neither too even nor too uneven: a binomial's spread
        assert float(shares.std()) == pytest.approx(spread, rel=0.35)


@pytest.mark.parametrize("rate", [0.3, 0.7])
def test_every_neuron_of_every_row_drops_as_often_as_it_should(rate: float) -> None:
    steps = 300
    x = torch.ones(1, 6, 5, dtype=torch.float64)
    rates, seeds = torch.tensor([rate], dtype=torch.float64), torch.tensor([3], dtype=torch.int32)
    share = sum((dropout(x, rates, seeds, step, 1) > 0).double() for step in range(steps)) / steps
    worst = float((share - (1 - rate)).abs().max())
    assert worst < 5 * math.sqrt(rate * (1 - rate) / steps)


def test_the_four_corners_of_a_rectangle_are_unrelated() -> None:
    mask = kept([0.5], [17])[0]
    draw = torch.Generator().manual_seed(0)
    rows, columns = (torch.randint(n, (20_000, 2), generator=draw) for n in (ROWS, WIDTH))
    odd = mask[rows[:, 0], columns[:, 0]] ^ mask[rows[:, 0], columns[:, 1]]
    odd = odd ^ mask[rows[:, 1], columns[:, 0]] ^ mask[rows[:, 1], columns[:, 1]]
    real = (rows[:, 0] != rows[:, 1]) & (columns[:, 0] != columns[:, 1])
    assert float(odd[real].double().mean()) == pytest.approx(0.5, abs=0.02)
