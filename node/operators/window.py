"""Window: real values to display values, by the equations of the standard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from node.operator import NO_UNITS, Number, Picture, Refused

Function = Literal["linear", "linear_exact", "sigmoid"]

WHITE = 255
IDENTITY = (128.0, 256.0)
"""The window under which *linear* leaves 0 … 255 as they are."""


def window(
    picture: Picture,
    *,
    center: Number | None = None,
    width: Number | None = None,
    function: Function = "linear",
    invert: bool = False,
) -> Picture:
    """Map values to what a display shows, 0 (black) to 255 (white), by window center and width.

    The functions are those of PS3.3 C.11.2.1.2 and C.11.2.1.3 (VOI LUT Function), rounded to whole numbers.
    Without *center* and *width* the picture's own window is used. A picture that shows low values bright
    (MONOCHROME1) is inverted after windowing, as the standard's presentation does; *invert* inverts once
    more. What was not measured becomes 0.

    Raises Refused for colour, for a width the function does not allow, and where a window is missing.
    """
    if picture.colour:
        raise Refused("a window is for grey pictures (PS3.3 C.11.2.1.2); this one is in colour")
    if (center is None) != (width is None):
        raise Refused("center and width belong together; give both or neither")
    if center is None or width is None:
        center, width = _own(picture)
    least = 1.0 if function == "linear" else 0.0
    if width < least or width == 0:
        limit = "at least 1" if function == "linear" else "greater than 0"
        raise Refused(f"a window of width {width:g} is too narrow: with {function} it is {limit}")
    shown = np.rint(windowed(picture.array, (center, width), function) * WHITE)
    if picture.inverted != invert:
        shown = WHITE - shown
    if picture.valid is not None:
        shown = np.where(picture.valid, shown, 0)
    facts = {**picture.facts, "window": IDENTITY}
    return replace(picture, array=shown.astype(np.uint8), unit=NO_UNITS, inverted=False, facts=facts)


def windowed(
    values: NDArray[Any], window_: tuple[float, float], function: Function = "linear"
) -> NDArray[np.float64]:
    """0 to 1 for *values* under a window (center, width); PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and .2."""
    center, width = window_
    values = np.asarray(values, np.float64)
    if function == "sigmoid":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))  # exp(710) overflows
    if function == "linear_exact":
        center, width = center + 0.5, width + 1
    low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    if width == 1:
        return (values > low).astype(np.float64)
    inner = (values - (center - 0.5)) / (width - 1) + 0.5
    return np.where(values <= low, 0.0, np.where(values > high, 1.0, inner))


def _own(picture: Picture) -> tuple[float, float]:
    stated = picture.facts.get("window")
    if stated is None:
        raise Refused("the picture states no window; give the options center and width, in its own values")
    center, width = stated
    return float(center), float(width)
