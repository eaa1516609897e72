"""The same input gives the same result to the bit, however many threads a run may use: every shipped operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from operator_cases import CASES

from node.process import registry
from node.testing import run_operator
from node.testing.golden import flattened


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """How many threads ITK may use; as before afterwards."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    yield sitk.ProcessObject.SetGlobalDefaultNumberOfThreads
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def test_every_shipped_operator_is_asked() -> None:
    """An operator that is shipped and not tried here, or tried and not shipped, is named."""
    ours = {name for name, spec in registry.specs().items() if spec.distribution == registry.OURS}
    assert ours == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_twice_the_same_with_one_thread_or_several(name: str, threads: Callable[[int], None]) -> None:
    """Arrays, geometry, codes, numbers and sentences are equal to the last bit, twice and with 1 and 4 threads."""
    inputs, options = CASES[name]
    given = inputs()
    given = given if isinstance(given, tuple) else (given,)
    results = []
    for count in (1, 4, 1):
        threads(count)
        results.append(flattened(run_operator(registry.load(name), *given, **options)))
    first, *others = results
    for other in others:
        assert first.keys() == other.keys()
        apart = [key for key in first if first[key].tobytes() != other[key].tobytes()]
        assert apart == []
