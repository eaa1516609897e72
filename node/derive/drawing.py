"""What every rendition is drawn with: text, colours, windows, a bar beside a map, marks on a slice.

Pure functions over numpy arrays and Pillow images. The fonts come with the package, so that a rendition
made again on another machine has the same letters, and so that µ, ², umlauts and Greek are there:
Pillow's built-in font has ASCII only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from node.model import Code
from node.viridis import viridis

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

GROUND: Colour = (16, 16, 20)
"""Dark, because it is read in a dark room."""
INK: Colour = (235, 235, 235)
FAINT: Colour = (165, 165, 175)
RULE: Colour = (70, 70, 80)
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip
"""Told apart by colour-blind readers, too: Okabe and Ito 2008 (Wong, Nature Methods 8:441, 2011)."""
_WRITTEN = {
    "1": "",
    "[hnsf'U]": "HU",
    "[hnsf'U]2": "HU²",
    "Cel": "°C",
    "deg": "°",
    "[degF]": "°F",
    "mm[Hg]": "mmHg",
    "m[H2O]": "mH₂O",
}
"""UCUM codes that do not read like the unit."""
_SMALL, _LINE = 17, 21
"""Height of the letters beside an image, and of their lines."""
_RAISED = str.maketrans("-123", "⁻¹²³")
_FONTS = Path(__file__).parent / "fonts"
_MISSING = "\ufffd"
"""Stands, visibly, for a character that the font does not have."""
_ABSENT = "\U0010fffd"
"""A character that no font has: what it looks like is how a font shows that it lacks one."""


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans at *size* pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(_FONTS / name, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _has(character: str) -> bool:
    probe = font(16)
    return bytes(probe.getmask(character)) != bytes(probe.getmask(_ABSENT))


def drawable(text: str) -> str:
    """*text* on one line, composed, with `�` for what the font lacks."""
    plain = " ".join(unicodedata.normalize("NFC", text).split())
    return "".join(c if c == " " or _has(c) else _MISSING for c in plain if c.isprintable())


def width_of(text: str, size: int, *, bold: bool = False) -> int:
    """Pixels that *text* takes."""
    return int(np.ceil(font(size, bold=bold).getlength(drawable(text))))


def fitted(text: str, size: int, width: int, *, bold: bool = False) -> str:
    """*text*, cut with `…` where it is wider than *width* pixels."""
    shown = drawable(text)
    if width_of(shown, size, bold=bold) <= width:
        return shown
    return shown[: _count(shown, size, width - width_of("…", size, bold=bold), bold=bold)].rstrip() + "…"


def wrapped(text: str, size: int, width: int, *, bold: bool = False, lines: int = 0) -> list[str]:
    """*text* in lines of at most *width* pixels; a word too long is broken, what exceeds *lines* cut with `…`."""
    made: list[str] = []
    rest = drawable(text)
    while rest:
        cut = _break(rest, size, width, bold=bold)
        made.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
        if lines and len(made) == lines and rest:
            made[-1] = fitted(made[-1] + " " + rest, size, width, bold=bold)
            break
    return made or [""]


def _break(text: str, size: int, width: int, *, bold: bool) -> int:
    """Find how many characters fit into one line, at least one, up to a blank where there is one."""
    if width_of(text, size, bold=bold) <= width:
        return len(text)
    low = _count(text, size, width, bold=bold)
    blank = text.rfind(" ", 0, low + 1)
    return blank if blank > 0 else low


def write(
    image: Image.Image,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: Colour = INK,
    *,
    bold: bool = False,
) -> None:
    """Draw one line of *text* with its upper left corner *at* (x, y)."""
    ImageDraw.Draw(image).text(at, drawable(text), colour, font(size, bold=bold))


def _count(text: str, size: int, width: int, *, bold: bool) -> int:
    """Count the characters from the first on that fit into *width* pixels, at least one."""
    low, high = 1, max(2, len(text))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if width_of(text[:middle], size, bold=bold) <= width else (low, middle)
    return low


def outlined(image: Image.Image, at: tuple[float, float], text: str, size: int, anchor: str) -> None:
    """Draw *text* that stays legible on bright and on dark ground."""
    ImageDraw.Draw(image).text(
        at, drawable(text), INK, font(size, bold=True), anchor=anchor, stroke_width=2, stroke_fill=GROUND
    )


def grey(values: NDArray[Any], low: float, high: float, *, inverted: bool = False) -> Pixels:
    """Map *low* … *high* to black … white as (…, 3); what is not a number is black."""
    share = _share(values, low, high)
    levels = np.rint((1 - share if inverted else share) * 255).astype(np.uint8)
    levels[~np.isfinite(values)] = 0
    return np.repeat(levels[..., None], 3, axis=-1)


def coloured(values: NDArray[Any], low: float, high: float, valid: NDArray[np.bool_] | None = None) -> Pixels:
    """Map *low* … *high* to viridis as (…, 3); what is not valid or not a number shows the ground."""
    pixels = viridis()[np.rint(_share(values, low, high) * 255).astype(np.uint8)]
    pixels[~np.isfinite(values) if valid is None else ~(valid & np.isfinite(values))] = GROUND
    return pixels


def _share(values: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    share = (np.nan_to_num(values.astype(np.float32)) - low) / max(high - low, 1e-12)
    return share.clip(0, 1).astype(np.float32)


def shown_range(values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> tuple[float, float]:
    """1 % to 99 % of what was measured; (0, 1) where nothing was, one apart where all is equal."""
    measured = values[np.isfinite(values) if valid is None else valid & np.isfinite(values)]
    if not measured.size:
        return 0.0, 1.0
    low, high = np.percentile(measured[:: max(1, measured.size // 1_000_000)], [1, 99])
    if high <= low:
        low, high = measured.min(), measured.max()
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def tinted(pixels: Pixels, share: NDArray[Any], colour: Colour, strength: float = 0.35) -> Pixels:
    """Colour *pixels* where *share* (0 to 1) is, and draw a firm line along its edge at one half."""
    weight = np.asarray(share, np.float32)[..., None] * strength
    made = pixels * (1 - weight) + np.array(colour, np.float32) * weight
    inside = np.asarray(share) >= 0.5
    thick = 1 + min(inside.shape) // 400
    edge = inside & ~ndimage.binary_erosion(inside, iterations=thick, border_value=1)
    made[edge] = colour
    return np.rint(made).astype(np.uint8)


def scaled(pixels: Pixels, size: tuple[int, int], *, smooth: bool = True) -> Image.Image:
    """Resize (rows, columns, 3) to *size* (width, height)."""
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(
        size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    )


def number(value: float, span: float = 0.0) -> str:
    """Write a number as people read it: four significant digits, or as many as tell *span* apart.

    From 10 000 on the whole part stands in groups of three; exponents come with 10⁹ and below 1/1000 only.
    """
    if not np.isfinite(value):
        return "–"
    if 1e-4 < span < 1e7:
        return _grouped(f"{value:.{int(np.clip(2 - np.floor(np.log10(span)), 0, 6))}f}")
    if value != 0 and not 1e-3 <= abs(value) < 1e9:
        return f"{value:.3e}".replace("-", "−")
    digits = int(np.clip(3 - np.floor(np.log10(abs(value))), 0, 6)) if value else 0
    text = f"{value:.{digits}f}"
    return _grouped(text.rstrip("0").rstrip(".") if "." in text else text)


def _grouped(text: str) -> str:
    """*text*, a decimal number, with a true minus, none before a zero, and blanks between thousands."""
    whole, point, rest = text.lstrip("-").partition(".")
    if len(whole) > 4:
        whole = f"{int(whole):,}".replace(",", " ")
    minus = "−" if text.startswith("-") and float(text) else ""
    return f"{minus}{whole}{point}{rest}"


def unit_text(unit: Code) -> str:
    """A UCUM unit as people write it: mm³, °C, HU; its meaning where the code is no unit of the SI."""
    if unit.value in _WRITTEN:
        return _WRITTEN[unit.value]
    if unit.value.startswith(("[", "{")):
        return unit.meaning
    plain = re.sub(r"\{[^}]*\}", "", unit.value)
    plain = re.sub(r"\bu(?=[a-zA-Z])", "µ", plain)
    return re.sub(r"(?<=[a-zA-Z])-?[123](?![0-9])", lambda m: m[0].translate(_RAISED), plain)


def colour_bar(
    image: Image.Image, box: tuple[int, int, int, int], ends: tuple[float, float], title: str
) -> None:
    """Draw the viridis bar into *box* (x, y, width, height), its title above and five ticks beside it."""
    x, y, width, height = box
    head = wrapped(title, _SMALL, width, lines=3)
    for k, line in enumerate(head):
        write(image, (x, y + _LINE * k), line, _SMALL, FAINT)
    top = y + _LINE * len(head) + 14
    tall = height - (top - y) - 10
    strip = np.repeat(viridis()[::-1][:, None], 24, axis=1)
    image.paste(scaled(strip, (24, tall)), (x, top))
    low, high = ends
    draw = ImageDraw.Draw(image)
    for k in range(5):
        at = top + round(tall * (1 - k / 4))
        draw.line([(x + 24, at), (x + 29, at)], INK, 1)
        text = fitted(number(low + (high - low) * k / 4, high - low), _SMALL, width - 36)
        draw.text((x + 37, at), text, INK, font(_SMALL), anchor="lm")


def legend(
    image: Image.Image, at: tuple[int, int], width: int, entries: Iterable[tuple[Colour, str]]
) -> None:
    """Draw a patch of colour and a label of at most three lines per entry, downwards from *at*."""
    x, y = at
    draw = ImageDraw.Draw(image)
    for colour, label in entries:
        draw.rectangle([x, y + 3, x + 15, y + 18], colour)
        lines = wrapped(label, _SMALL, width - 24, lines=3)
        for k, line in enumerate(lines):
            write(image, (x + 24, y + 1 + _LINE * k), line, _SMALL)
        y += _LINE * len(lines) + 10


def scale_bar(image: Image.Image, box: tuple[int, int, int, int], mm_per_pixel: float) -> None:
    """Draw a bar of a round length, at most a quarter of *box* (x, y, width, height), into its lower left."""
    x, y, width, height = box
    fits = [mm for mm in (1, 2, 5, 10, 20, 50, 100, 200) if mm / mm_per_pixel <= width / 4]
    if not fits:
        return
    long = round(fits[-1] / mm_per_pixel)
    text = f"{fits[-1]} mm" if fits[-1] < 10 else f"{fits[-1] // 10} cm"
    bottom = y + height - 14
    draw = ImageDraw.Draw(image)
    draw.rectangle([x + 12, bottom - 4, x + 12 + long, bottom], INK, GROUND)
    outlined(image, (x + 12, bottom - 8), text, 20, "ls")


def directions(axis: NDArray[np.float64]) -> str:
    """Letters of the patient direction *axis* points to (LPS): the largest first, a second where it leans."""
    letters = [("R", "L"), ("A", "P"), ("F", "H")]
    order = sorted(range(3), key=lambda i: -abs(axis[i]))
    return "".join(letters[i][int(axis[i] > 0)] for i in order[:2] if abs(axis[i]) > 0.25)
