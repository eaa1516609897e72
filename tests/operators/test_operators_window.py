"""Window against the pseudo-code of the standard, pydicom, and its own corner values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.pixels import apply_windowing

from node.operator import NO_UNITS, Picture, Refused
from node.operators.window import window
from node.testing import run_operator


def picture(values: Any, **more: Any) -> Picture:
    """One row of values."""
    return Picture(np.asarray(values, np.float64).reshape(1, 1, -1), **more)


def linear(x: float, c: float, w: float) -> float:
    """The pseudo-code of PS3.3 C.11.2.1.2.1, output 0 to 255, as it is printed."""
    if x <= c - 0.5 - (w - 1) / 2:
        return 0
    if x > c - 0.5 + (w - 1) / 2:
        return 255
    return ((x - (c - 0.5)) / (w - 1) + 0.5) * (255 - 0) + 0


def linear_exact(x: float, c: float, w: float) -> float:
    """The pseudo-code of PS3.3 C.11.2.1.3.2, output 0 to 255, as it is printed."""
    if x <= c - w / 2:
        return 0
    if x > c + w / 2:
        return 255
    return ((x - c) / w + 0.5) * (255 - 0) + 0


@pytest.mark.parametrize("center_width", [(40.0, 400.0), (2048.0, 4096.0), (0.0, 100.0), (127.5, 1.0)])
@pytest.mark.parametrize(("function", "truth"), [("linear", linear), ("linear_exact", linear_exact)])
def test_values_are_those_of_the_standard(
    function: Any, truth: Any, center_width: tuple[float, float]
) -> None:
    """Every whole and half value around the window is what the standard's pseudo-code gives, rounded."""
    center, width = center_width
    values = np.arange(center - width, center + width + 2, 0.5)
    made = run_operator(window, picture(values), center=center, width=width, function=function)
    assert made.array.dtype == np.uint8
    assert made.array.ravel().tolist() == [int(np.rint(truth(x, center, width))) for x in values]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=30),
    st.floats(-50, 300),
    st.floats(1, 500),
    st.sampled_from(["linear", "linear_exact", "sigmoid"]),
)
def test_values_are_those_of_pydicom(values: list[int], center: float, width: float, function: Any) -> None:
    """What pydicom makes of 8-bit values, which it maps to 0 … 255, agrees to a rounding of half a step."""
    header = Dataset()
    header.WindowCenter, header.WindowWidth = center, width
    header.VOILUTFunction = function.upper()
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsStored, header.PixelRepresentation = 8, 0
    peer = apply_windowing(np.array(values, np.uint8), header)
    made = window(picture(values), center=center, width=width, function=function).array.ravel()
    assert np.abs(made - peer).max() <= 0.5 + 1e-9


def test_the_standards_own_examples() -> None:
    """The three notes of C.11.2.1.2.1: c=2048, w=4096 · c=2048, w=1 · c=0, w=100."""
    values = [0, 2047, 2048, 4095]
    assert window(picture(values), center=2048, width=4096).array.ravel().tolist()[::3] == [0, 255]
    assert window(picture(values), center=2048, width=1).array.ravel().tolist() == [0, 0, 255, 255]
    values = [-50, -49, 48, 49]
    assert window(picture(values), center=0, width=100).array.ravel()[[0, 3]].tolist() == [0, 255]


@pytest.mark.parametrize(("inverted", "invert", "bright_high"), [(0, 0, 1), (1, 0, 0), (0, 1, 0), (1, 1, 1)])
def test_low_values_are_bright_where_they_should_be(inverted: int, invert: int, bright_high: int) -> None:
    """A MONOCHROME1 picture comes out inverted, and `invert` turns either way; values are then as shown."""
    source = picture([0, 100], inverted=bool(inverted))
    made = window(source, center=50, width=100, function="linear_exact", invert=bool(invert))
    assert made.array.ravel().tolist() == ([0, 255] if bright_high else [255, 0])
    assert made.inverted is False


def test_the_own_window_is_used_and_then_is_the_identity() -> None:
    """Without options the picture's window counts; what comes out can be windowed again and stays."""
    source = picture(
        np.arange(0, 1000, 3), facts={"window": (500.0, 800.0), "modality": "CR"}, spacing=(0.1, 0.1)
    )
    made = window(source)
    assert np.array_equal(made.array, window(source, center=500, width=800).array)
    assert np.array_equal(window(made).array, made.array)
    assert (made.unit, made.spacing, made.facts["modality"]) == (NO_UNITS, (0.1, 0.1), "CR")


def test_padding_is_black() -> None:
    """What was not measured is 0, inverted or not."""
    valid = np.array([[[True, False]]])
    for invert in (False, True):
        made = window(picture([10, 10], valid=valid), center=50, width=100, invert=invert)
        assert made.array[0, 0, 1] == 0


@pytest.mark.parametrize("center_width", [(0.0, 1e-300), (1e6, 0.5)])
def test_a_steep_sigmoid_does_not_overflow(center_width: tuple[float, float]) -> None:
    """Far from the center of a narrow sigmoid values are 0 and 255, without a warning."""
    center, width = center_width
    with np.errstate(over="raise"):
        made = window(picture([-1e7, 1e7]), center=center, width=max(width, 1e-9), function="sigmoid")
    assert made.array.ravel().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (picture([1]), {}, "states no window"),
        (picture([1]), {"center": 1.0}, "belong together"),
        (picture([1]), {"center": 1.0, "width": 0.5}, "at least 1"),
        (picture([1]), {"center": 1.0, "width": 0.0, "function": "sigmoid"}, "greater than 0"),
        (Picture(np.zeros((1, 2, 2, 3), np.uint8)), {"center": 1.0, "width": 2.0}, "in colour"),
    ],
)
def test_what_cannot_be_windowed_is_refused(source: Picture, options: dict[str, Any], words: str) -> None:
    """A missing, halved or impossible window, or a colour picture: refused in words."""
    with pytest.raises(Refused, match=words):
        run_operator(window, replace(source), **options)
