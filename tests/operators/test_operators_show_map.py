"""The same map in the colours asked for."""

from __future__ import annotations

import numpy as np
import pytest

from node.errors import Refused
from node.operator import Code, Map
from node.operators.show_map import show_map
from node.testing import run_operator

MAP = Map(
    np.arange(24.0).reshape(2, 3, 4), np.eye(4), Code("1", "X", "x"), Code("ms", "UCUM", "ms"), facts={"a": 1}
)


def test_numbers_stay_and_colours_are_fixed() -> None:
    """Only the range of colours is added; without it nothing is."""
    shown = run_operator(show_map, MAP, low=-10.0, high=30.0)
    assert np.array_equal(shown.array, MAP.array)
    assert shown.facts == {"a": 1, "window": (10, 40)}
    assert run_operator(show_map, MAP).facts == {"a": 1}


@pytest.mark.parametrize(
    ("options", "words"),
    [({"low": 1.0}, "belong together"), ({"low": 3.0, "high": 3.0}, "high 3 must be above low 3")],
)
def test_an_impossible_range_is_refused(options: dict[str, float], words: str) -> None:
    """One end alone, or ends that are turned round, are refused."""
    with pytest.raises(Refused, match=words):
        run_operator(show_map, MAP, **options)
