"""One volume of several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from node.errors import Refused
from node.operators.mr.diffusion import trace
from node.operators.mr.slices import choose_volume, slices
from node.testing import run_operator
from node.testing.relaxing import diffusion_stack

STACK = diffusion_stack((0.0, 800.0))


def test_slices_stay_as_they_are() -> None:
    """Nothing is changed: places, values and facts are those acquired."""
    made = run_operator(slices, STACK)
    assert all(np.array_equal(a.array, b.array) and a.facts == b.facts
               for a, b in zip(made.volumes, STACK.volumes, strict=True))  # fmt: skip


@pytest.mark.parametrize(("number", "index"), [(1, 0), (4, 3), (-1, 3)])
def test_a_volume_is_chosen_by_number(number: int, index: int) -> None:
    """From 1, or from the end."""
    assert run_operator(choose_volume, STACK, number=number).facts["part"] == index


def test_a_volume_is_chosen_by_b_value() -> None:
    """The one with that b-value, and nearly so where scanners write what they reached."""
    assert run_operator(choose_volume, STACK, b_value=0.0).facts["part"] == 0
    made = run_operator(trace, STACK)
    assert run_operator(choose_volume, made, b_value=805.0).facts["directionality"] == "ISOTROPIC"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either `number` or `b_value`"),
        ({"number": 1, "b_value": 0.0}, "either `number` or `b_value`"),
        ({"number": 5}, r"number 5 is out of range: there are 4 volumes, 1 to 4, or -1 from the end"),
        ({"number": 0}, "number 0 is out of range"),
        (
            {"b_value": 800.0},
            r"3 of 4 volumes have b 800 s/mm² \(b-values: 0, 800\); combine them first \(trace\)",
        ),
        ({"b_value": 500.0}, r"0 of 4 volumes have b 500 s/mm².*ask for another"),
    ],
)
def test_what_is_not_there_is_refused(options: dict[str, Any], words: str) -> None:
    """No volume, several, or a question that is none: refused in words."""
    with pytest.raises(Refused, match=words):
        run_operator(choose_volume, STACK, **options)
