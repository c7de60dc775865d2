"""Tickets at several k beside the same masks on fresh weights."""

from __future__ import annotations

import pytest
import torch
from fake_data import fake_dataset

from autoctr.data.dataset import Dataset
from autoctr.errors import UserError
from autoctr.model.architecture import FIXED
from autoctr.model.candidate import Candidate
from autoctr.report.rewinding import rewinding_text
from autoctr.search import rewinding as module
from autoctr.search.rewinding import Rewind, Rewinding, rewinding
from autoctr.training.cohort import Cohort

SMALL = Candidate(
    embedding=4, width=8, blocks=1, batch=128, epochs=2, keep_rate=0.5, ticket_rounds=2, ticket_epochs=0.5,
    averaging=0.0, wiring=FIXED["parallel"](1),
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset()


def test_both_starts_share_masks_and_order_and_differ_in_their_weights(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Candidate, bool, torch.Tensor | None, int]] = []
    original = module.fit

    def spied(cohort: Cohort, *arguments: object, seed: int, **options: object) -> object:
        seen.append((cohort.network.candidates[0], cohort.ramped > 0, cohort.masks, seed))
        return original(cohort, *arguments, seed=seed, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "fit", spied)
    result = rewinding(dataset, SMALL, [0, 1], seeds=2, barrier_epochs=0.5)
    assert result.rewinds == [0, 1]
    assert len(result.dense) == 2
    assert len(seen) == 2 * (1 + 2 * 2)  # per seed the dense network, and for every k a ticket and its masks anew
    for start in (0, 5):
        dense, *pairs = seen[start : start + 5]
        assert dense[2] is None
        assert {order for *_, order in pairs} == {dense[3]}
        for ticket, fresh in (pairs[:2], pairs[2:]):
            assert ticket[2] is not None
            assert fresh[2] is not None
            assert torch.equal(ticket[2], fresh[2])
            assert ticket[0].seed == dense[0].seed != fresh[0].seed
    assert [ticket[1] for ticket in (seen[1], seen[3])] == [False, True]  # θ_0 is fresh, θ_k is not
    assert seen[1][0].seed != seen[6][0].seed
    for run in result.runs:
        assert run.kept == pytest.approx(0.5, abs=0.01)
        assert run.barrier is not None
        assert run.barrier >= 0
        assert run.overlap is not None
        assert 0 < run.overlap <= 1


def test_the_best_k_is_chosen_by_validation_and_judged_on_test() -> None:
    def run(passes: float, seed: int, valid: float, test: float, fresh: float) -> Rewind:
        return Rewind(passes, seed, valid, test, fresh, None, 0.2, None)

    runs = [run(0, 0, 0.6, 0.9, 0.5), run(1, 0, 0.7, 0.65, 0.6), run(0, 1, 0.6, 0.9, 0.5), run(1, 1, 0.7, 0.67, 0.6)]
    result = Rewinding("wauc", runs, [0.7, 0.7])
    assert result.best == 1
    gain = result.gain(1)
    assert gain.mean == pytest.approx(0.06)
    assert gain.half == pytest.approx(12.706 * 0.01, rel=1e-3)
    assert Rewinding("logloss", runs, [0.7]).best == 0
    text = rewinding_text(result)
    assert "best k by validation: 1 passes" in text
    assert "+0.06000 ± 0.12706 over 2 seeds" in text


@pytest.mark.parametrize(
    ("candidate", "rewinds", "seeds", "message"),
    [
        (SMALL.replace(keep_rate=1.0), [0], 1, "keep rate is 1"),
        (SMALL, [], 1, "at least one seed and one k"),
        (SMALL, [-1], 1, "at least one seed and one k"),
        (SMALL, [0], 0, "at least one seed and one k"),
    ],
)
def test_what_cannot_be_run_is_refused(
    dataset: Dataset, candidate: Candidate, rewinds: list[float], seeds: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        rewinding(dataset, candidate, rewinds, seeds=seeds)
