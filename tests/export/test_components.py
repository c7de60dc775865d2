"""Cross components in generated models."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
from fake_data import TASKS, fake_dataset

from autoctr.data.dataset import Dataset
from autoctr.model.architecture import OPERATORS, PRODUCT
from autoctr.model.candidate import Candidate
from export.members import check, full_wiring, member, random_wiring, source_of, state_of

COMPONENTS = get_args(get_type_hints(Candidate)["cross"])
# two tokens of four neurons; without a projection seven tokens of five, which self-attention reads with one head
SHAPES = {"projected": {"embedding": 4, "width": 8}, "fields": {"embedding": 5, "width": 0}}
WEIGHTS = {
    "vector": ["weight", "bias"],
    "matrix": ["linear.weight", "linear.bias"],
    "lowrank": ["down.weight", "up.weight", "up.bias"],
    "attention": ["maps.weight"],
    "fm": [],
    "bilinear": ["linear.weight"],
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return fake_dataset(tasks=TASKS, unseen=0.1)


@pytest.mark.parametrize("operator", range(4), ids=OPERATORS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cross", COMPONENTS)
def test_every_component_with_every_operator(cross: str, shape: str, operator: int, dataset: Dataset) -> None:
    candidate = Candidate(**SHAPES[shape], blocks=2, cross=cross, wiring=random_wiring(operator, 2, [operator]))
    check(dataset, member(dataset, candidate, scale=1.0 if operator == PRODUCT else 0.5), spread=0.001)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cross", COMPONENTS)
def test_random_architectures_with_everything_else(cross: str, shape: str, dataset: Dataset) -> None:
    candidate = Candidate(
        **SHAPES[shape], blocks=3, cross=cross, wiring=random_wiring(7, 3, range(4)), rank=2, sparsity=0.3, norm="batch"
    )
    cohort = member(dataset, candidate, scale=0.5)
    check(dataset, cohort)
    source = source_of(cohort)
    assert source.count("class Cross(") == 1
    assert max(map(len, source.splitlines())) <= 120
    assert [name for name in state_of(cohort) if name.startswith("c1.")] == [f"c1.{name}" for name in WEIGHTS[cross]]


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("cross", COMPONENTS)
def test_few_rows(cross: str, count: int, dataset: Dataset) -> None:
    candidate = Candidate(embedding=4, width=8, blocks=2, cross=cross, wiring=full_wiring((0.5, 0.0, 0.5, 0.0)))
    check(dataset, member(dataset, candidate), dataset.valid.take(slice(0, count)))


@pytest.mark.parametrize("cross", ["lowrank", "attention", "fm", "bilinear"])
def test_narrow_networks(cross: str, dataset: Dataset) -> None:
    """A rank of 1, a single token, and tokens of one neuron."""
    wiring = full_wiring((0.5, 0.0, 0.5, 0.0))
    for embedding, width in ((3, 3), (4, 4), (3, 4)):
        check(dataset, member(dataset, Candidate(embedding=embedding, width=width, cross=cross, wiring=wiring)))
