"""Colour tables, a colour bar with its numbers, and letters for the directions of the patient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from node.operator import Code
from node.viridis import viridis

Pixels = NDArray[np.uint8]
Colours = Literal["hot_iron", "viridis"]
Tables = Literal["hot_iron", "viridis", "inverse_grey"]

_GROUND, _INK = (16, 16, 20), (235, 235, 235)
_LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))
"""Where x, y, z grow to, and where they come from (PS3.3 C.7.6.1.1.1)."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What the bar beside a picture says."""

    low: float
    high: float
    unit: Code
    colours: Tables


def table(colours: Tables) -> Pixels:
    """256 x 3: the colours from the lowest to the highest value.

    Hot Iron is one of the standard's well-known palettes (PS3.6 B.1.1). Inverse grey runs from white to black, as
    projections of uptake are read.
    """
    if colours == "viridis":
        return viridis()
    ramp = np.arange(256)
    if colours == "inverse_grey":
        return np.repeat(255 - ramp[:, None], 3, axis=1).astype(np.uint8)
    channels = [2 * ramp, 2 * (ramp - 128) + (ramp == 255), 4 * (ramp - 191)]
    return np.clip(np.stack(channels, axis=1), 0, 255).astype(np.uint8)


def share_of(values: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Where *values* lie between *low* (0) and *high* (1)."""
    found: NDArray[np.float32] = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    return found


def text_size(rows: int, columns: int = 0) -> int:
    """Height of letters, in pixels, for a picture of so many rows and columns.

    As a share of the longer side, because that is what a viewer fits to its window; a flat picture keeps room.
    """
    return max(11, min(max(rows, columns) // 22, rows // 8))


def bar(rows: int, said: Bar, columns: int = 0) -> Pixels:
    """A panel *rows* high with the colours, the highest value at the top and the lowest at the bottom.

    Its letters are those of a picture of so many rows and *columns*.
    """
    size = text_size(rows, columns)
    font = ImageFont.load_default(size)
    ends, unit = (_number(said.high), _number(said.low)), unit_text(said.unit)
    wide = max(font.getlength(text) for text in (*ends, unit))
    panel = Image.new("RGB", (int(max(wide, 2 * size)) + 2 * size, rows), _GROUND)
    draw = ImageDraw.Draw(panel)
    top, bottom = 4 * size, rows - 3 * size
    colours = np.repeat(table(said.colours)[::-1][:, None], 2 * size, axis=1)
    if bottom - top > size:
        panel.paste(
            Image.fromarray(colours).resize((2 * size, bottom - top), Image.Resampling.NEAREST), (size, top)
        )
        draw.rectangle((size - 1, top - 1, 3 * size, bottom), outline=_INK)
    draw.text((size, size // 2), unit, _INK, font)
    draw.text((size, top - size // 2), ends[0], _INK, font, anchor="ls")
    draw.text((size, bottom + size // 2), ends[1], _INK, font, anchor="lt")
    return np.asarray(panel)


def lettered(pixels: Pixels, axes: NDArray[np.float64], title: str, pixel: float = 0.0) -> Pixels:
    """A frame (rows, columns, 3) with the title, and at its edges the side of the patient that lies there.

    With *pixel*, how wide a pixel is in the patient in mm, a scale stands in the lower left corner.
    """
    rows, columns = pixels.shape[:2]
    size = text_size(rows, columns)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    (left, right), (top, bottom) = sides(axes[:, 2]), sides(axes[:, 1])
    half, edge = size // 2, max(2, size // 4)
    _outlined(draw, (edge, rows / 2), left, "lm", size)
    _outlined(draw, (columns - edge, rows / 2), right, "rm", size)
    _outlined(draw, (columns / 2, edge + size + half), top, "mt", size)
    _outlined(draw, (columns / 2, rows - edge), bottom, "ms", size)
    _outlined(draw, (edge, edge), _fitting(title, columns - 2 * edge, size), "lt", size)
    if pixel > 0:
        _draw_scale(draw, (edge, rows - edge), columns, size, pixel)
    return np.asarray(image)


def scale_length(columns: int, pixel: float) -> float:
    """How long the scale of a picture is, mm: 1, 2 or 5 times a power of ten, a quarter of its width at most."""
    room = columns * pixel / 4
    power = 10.0 ** math.floor(math.log10(room))
    return next(step * power for step in (5, 2, 1) if step * power <= room)


def _draw_scale(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], columns: int, size: int, pixel: float
) -> None:
    """A bar between two ends, its length in mm above it; *corner* is its lower left (x, y)."""
    length = scale_length(columns, pixel)
    long, thick = round(length / pixel), max(2, size // 7)
    (x, y), end = corner, size // 3
    strokes = (
        (x, y - end, x + thick, y),
        (x, y - thick, x + long, y),
        (x + long - thick, y - end, x + long, y),
    )
    for rim, colour in ((1, _GROUND), (0, _INK)):  # a dark rim, so that it shows on any ground
        for left, top, right, bottom in strokes:
            draw.rectangle((left - rim, top - rim, right - 1 + rim, bottom - 1 + rim), colour)
    _outlined(draw, (x, y - end - max(3, size // 4)), f"{length:g} mm", "ls", size)


def sides(axis: NDArray[np.float64]) -> tuple[str, str]:
    """The letters where an axis comes from and goes to; those of oblique ones have two letters or three."""
    strong = [a for a in np.argsort(-np.abs(axis)) if abs(axis[a]) > 0.2]
    to = "".join(_LETTERS[a][0 if axis[a] > 0 else 1] for a in strong)
    come = "".join(_LETTERS[a][1 if axis[a] > 0 else 0] for a in strong)
    return come, to


def unit_text(unit: Code) -> str:
    """A unit as people write it: `HU`, `SUVbw`, `Bq/ml`."""
    if unit.value == "[hnsf'U]":
        return "HU"
    base, _, note = unit.value.rstrip("}").partition("{")
    return note or ("" if base == "1" else base)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3g}"


def _fitting(text: str, width: float, size: int) -> str:
    font = ImageFont.load_default(size)
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text


def _outlined(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, anchor: str, size: int) -> None:
    font = ImageFont.load_default(size)
    rim = max(1, size // 9)
    draw.text(at, text, _INK, font, anchor=anchor, stroke_width=rim, stroke_fill=_GROUND)
