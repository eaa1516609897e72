"""Panels with labels, put together to one PNG: true proportions, readable text, no DICOM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Pixels = NDArray[np.uint8]

_GAP, _TEXT, _LINE = 10, 15, 20
_GROUND, _INK, _FAINT = (18, 18, 22), (235, 235, 235), (160, 160, 170)
OUTLINE = (255, 170, 30)


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture on a sheet."""

    pixels: Pixels
    """(rows, columns, 3)."""
    label: str
    spacing: tuple[float, float] = (1.0, 1.0)
    """Between rows and between columns, in one unit: proportions are kept."""
    left: str = ""
    """What is at the left edge, e.g. R for the patient's right."""


def grey(values: NDArray[Any], low: float, high: float) -> Pixels:
    """Map *low* … *high* to black … white."""
    scaled = np.clip((values.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1) * 255
    return np.repeat(np.rint(scaled).astype(np.uint8)[..., None], 3, axis=-1)


def overlaid(pixels: Pixels, mask: NDArray[np.bool_], strength: float = 0.2) -> Pixels:
    """Colour where *mask* is, with a firm line along its edge."""
    width = 1 + len(mask) // 250  # what survives being fitted into a panel
    inner = ndimage.binary_erosion(mask, iterations=width, border_value=1)
    made = pixels.astype(np.float32)
    for where, share in ((mask, strength), (mask & ~inner, 1.0)):
        made[where] += share * (np.array(OUTLINE) - made[where])
    return made.astype(np.uint8)


def sheet(panels: Sequence[Panel], title: str, *, columns: int, size: tuple[int, int]) -> Image.Image:
    """Panels in rows of *columns*, each fitted into *size* (width, height) pixels above its label."""
    rows = [[(p, _fitted(p, size)) for p in panels[n : n + columns]] for n in range(0, len(panels), columns)]
    heights = [max(image.height for _, image in row) for row in rows]
    texts = [max(len(_wrapped(p.label, size[0])) for p, _ in row) * _LINE for row in rows]
    head = 2 * _LINE + _GAP
    tall = head + sum(heights) + sum(texts) + len(rows) * 2 * _GAP
    whole = Image.new("RGB", (_GAP + columns * (size[0] + _GAP), tall), _GROUND)
    ImageDraw.Draw(whole).text((_GAP, _GAP), title, _INK, _font(_TEXT + 3))
    y = head
    for row, height, text in zip(rows, heights, texts, strict=True):
        for n, (panel, image) in enumerate(row):
            _place(whole, panel, image, (_GAP + n * (size[0] + _GAP), y, size[0], height))
        y += height + text + 2 * _GAP
    return whole


def _place(whole: Image.Image, panel: Panel, image: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Put one panel into the middle of *box* (x, y, width, height), and its label below."""
    x, y, width, height = box
    draw = ImageDraw.Draw(whole)
    corner = (x + (width - image.width) // 2, y + (height - image.height) // 2)
    whole.paste(image, corner)
    if panel.left:
        draw.text((corner[0] + 4, y + height // 2 - _TEXT // 2), panel.left, _FAINT, _font(_TEXT))
    for k, line in enumerate(_wrapped(panel.label, width)):
        draw.text((x, y + height + 4 + k * _LINE), line, _INK if k == 0 else _FAINT, _font(_TEXT))


def save(image: Image.Image, path: Path) -> Path:
    """Write a PNG and return where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)
    return path


def text_panel(lines: Sequence[str], label: str, size: tuple[int, int]) -> Panel:
    """A panel of text, cut where it does not fit."""
    image = Image.new("RGB", size, (32, 34, 40))
    draw = ImageDraw.Draw(image)
    fitting = [part for line in lines for part in _wrapped(line, size[0] - 2 * _GAP)]
    for n, line in enumerate(fitting[: size[1] // _LINE - 1]):
        draw.text((_GAP, _GAP + n * _LINE), line, _INK, _font(_TEXT))
    return Panel(np.asarray(image), label)


def curves_panel(curves: NDArray[Any], label: str, size: tuple[int, int]) -> Panel:
    """One line per row of *curves*, below each other."""
    image = Image.new("RGB", size, (32, 34, 40))
    draw = ImageDraw.Draw(image)
    step = size[1] / len(curves)
    for n, curve in enumerate(curves):
        middle, reach = np.median(curve), max(float(np.ptp(curve)), 1e-9)
        ys = (n + 0.5) * step - (curve - middle) / reach * step * 0.8
        xs = np.linspace(0, size[0] - 1, len(curve))
        draw.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=(120, 220, 140), width=1)
    return Panel(np.asarray(image), label)


def _fitted(panel: Panel, size: tuple[int, int]) -> Image.Image:
    """As large as fits, square millimetres staying square."""
    rows, columns = panel.pixels.shape[:2]
    tall, wide = rows * panel.spacing[0], columns * panel.spacing[1]
    scale = min(size[0] / wide, size[1] / tall)
    target = max(1, round(wide * scale)), max(1, round(tall * scale))
    return Image.fromarray(panel.pixels).resize(target, Image.Resampling.BICUBIC)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrapped(text: str, width: int) -> list[str]:
    """Break *text* at its line ends and at blanks, so that every line fits into *width* pixels."""
    font, lines = _font(_TEXT), []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return lines or [""]
