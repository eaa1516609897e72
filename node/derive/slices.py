"""Slices and frames as a reader sees them: true proportions, directions, a scale, and what was found on top."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from node.derive.drawing import (
    FAINT,
    GROUND,
    INK,
    PALETTE,
    Colour,
    Pixels,
    colour_bar,
    fitted,
    legend,
    outlined,
    scale_bar,
    scaled,
    write,
)

MOST = 32
"""Frames of one rendition: enough to leaf through, 50 MB at most."""
_SIDE, _HEAD, _PANEL, _GAP = 640, 64, 200, 12


@dataclass(frozen=True)
class Look:
    """What all frames of one rendition share."""

    title: str
    spacing: tuple[float, float] = (1.0, 1.0)
    """Between rows and between columns: proportions are kept."""
    calibrated: bool = False
    """*spacing* is millimetres in the patient, so that a scale can be drawn."""
    left: str = ""
    """Letters of the patient directions at the left edge and at the top."""
    top: str = ""
    bar: tuple[tuple[float, float], str] | None = None
    """Ends and title of a colour bar."""
    legend: tuple[tuple[Colour, str], ...] = field(default=())
    smooth: bool = True


def chosen(indices: Sequence[int], most: int = MOST) -> list[int]:
    """At most *most* of *indices*, evenly, always with the first and the last."""
    if len(indices) <= most:
        return list(indices)
    picked = np.rint(np.linspace(0, len(indices) - 1, most)).astype(int)
    return [indices[i] for i in picked]


@dataclass(frozen=True)
class Mark:
    """One mark on a frame: (row, column) in pixels, 0 at the centre of the first."""

    kind: str
    """POINT, POLYLINE, CIRCLE (centre and a point on it) or ELLIPSE (the ends of both its axes)."""
    points: tuple[tuple[float, float], ...]
    text: str = ""


def frames(
    look: Look,
    indices: Sequence[int],
    draw: Callable[[int], Pixels],
    label: Callable[[int], str],
    marks: Callable[[int], Sequence[Mark]] = lambda _: (),
) -> Pixels:
    """Draw one frame per index, (frames, rows, columns, 3): *draw* gives its pixels, *label* what it is."""
    return np.stack([_frame(look, draw(i), label(i), marks(i)) for i in indices])


def _frame(look: Look, pixels: Pixels, label: str, marks: Sequence[Mark]) -> Pixels:
    width, height = _size(pixels.shape[0], pixels.shape[1], look.spacing)
    panel = _PANEL if look.bar or look.legend else 0
    whole = Image.new("RGB", (_SIDE + panel, _HEAD + _SIDE), GROUND)
    write(whole, (_GAP, 8), fitted(look.title, 20, _SIDE + panel - 2 * _GAP, bold=True), 20, INK, bold=True)
    write(whole, (_GAP, 37), fitted(label, 17, _SIDE + panel - 2 * _GAP), 17, FAINT)
    x, y = (_SIDE - width) // 2, _HEAD + (_SIDE - height) // 2
    whole.paste(scaled(pixels, (width, height), smooth=look.smooth), (x, y))
    zoom = (height / pixels.shape[0], width / pixels.shape[1])
    for mark in marks:
        _draw_mark(whole, mark, [(x + (c + 0.5) * zoom[1], y + (r + 0.5) * zoom[0]) for r, c in mark.points])
    if look.left:
        outlined(whole, (x + 8, y + height // 2), look.left, 24, "lm")
    if look.top:
        outlined(whole, (x + width // 2, y + 8), look.top, 24, "mt")
    if look.calibrated:
        scale_bar(whole, (x, y, width, height), look.spacing[1] * pixels.shape[1] / width)
    if look.bar:
        ends, title = look.bar
        colour_bar(whole, (_SIDE + _GAP, _HEAD, _PANEL - 2 * _GAP, 420), ends, title)
    if look.legend:
        below = _HEAD + (440 if look.bar else 0)
        legend(whole, (_SIDE + _GAP, below), _PANEL - 2 * _GAP, look.legend)
    return np.asarray(whole)


def _draw_mark(image: Image.Image, mark: Mark, at: list[tuple[float, float]]) -> None:
    """Draw *mark* through the places *at* (x, y), with a dark rim so that it shows on any ground."""
    draw = ImageDraw.Draw(image)
    for colour, width in ((GROUND, 5), (PALETTE[0], 2)):
        if mark.kind == "POINT":
            ((x, y),) = at
            draw.line([(x - 9, y), (x + 9, y)], colour, width)
            draw.line([(x, y - 9), (x, y + 9)], colour, width)
        else:
            draw.line(_outline(mark.kind, at), colour, width, joint="curve")
    if mark.text:
        x, y = max(at)
        outlined(image, (min(x + 8, image.width - 8), y), mark.text, 16, "lm" if x < _SIDE * 0.7 else "rm")


def _outline(kind: str, at: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The line to draw: as it is, or 72 chords of a circle or an ellipse."""
    if kind == "POLYLINE":
        return at
    places = np.array(at)
    if kind == "CIRCLE":
        centre, first = places[0], places[1] - places[0]
        second = np.array([-first[1], first[0]])
    else:
        centre, first, second = (
            places.mean(axis=0),
            (places[1] - places[0]) / 2,
            (places[3] - places[2]) / 2,
        )
    turn = np.linspace(0, 2 * np.pi, 73)
    round_ = centre + np.outer(np.cos(turn), first) + np.outer(np.sin(turn), second)
    return [(float(x), float(y)) for x, y in round_]


def _size(rows: int, columns: int, spacing: tuple[float, float]) -> tuple[int, int]:
    """Width and height in true proportions, the longer one as long as there is room."""
    wide, tall = columns * spacing[1], rows * spacing[0]
    scale = _SIDE / max(wide, tall)
    return max(1, round(wide * scale)), max(1, round(tall * scale))
