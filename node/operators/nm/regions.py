"""Regions of planar images, as a rule writes them: named rectangles and ellipses.

    left lung: 30,70,98,106; right lung: ellipse 30,22,98,58; background: 100,60,110,68

Four numbers are the top, left, bottom and right edge; 0,0 is the upper left corner of the image, and 0,0,1,1 its first
pixel. A pixel belongs to a region where its centre lies in it. `left lung background` is the background of `left lung`,
`background` that of all others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from node.operator import Code, Picture, Refused, Remark
from node.operators.codes import private_value
from node.operators.nm.codes import site_of

Measure = Literal["pixel", "mm"]
BACKGROUND = "background"
_REGION = re.compile(r"\s*([^:;]{1,64}?)\s*:\s*(?:(ellipse|rectangle)\s+)?([-+0-9.,\s]+)\s*")


@dataclass(frozen=True, eq=False)
class Roi:
    """One named region of the pixels of a frame."""

    name: str
    inside: NDArray[np.bool_]
    said: str
    """Where it lies, for the report."""

    @property
    def pixels(self) -> int:
        """How many there are."""
        return int(np.count_nonzero(self.inside))

    @property
    def site(self) -> Code:
        """What lies there, as far as the name says it."""
        return site_of(self.name)[0]

    @property
    def laterality(self) -> Code | None:
        """Left or right, as far as the name says it."""
        return site_of(self.name)[1]

    def mirrored(self) -> Roi:
        """The same region in a view from the other side."""
        return Roi(self.name, self.inside[:, ::-1], self.said)


def rois_of(text: str, picture: Picture, measure: Measure) -> tuple[Roi, ...]:
    """The regions of *text* in the frames of *picture*. Raises Refused naming what is wrong with which."""
    step = (1.0, 1.0)
    if measure == "mm":
        if picture.spacing is None:
            raise Refused(
                "the regions are in mm, and the image states no pixel spacing; write them in pixels"
            )
        step = picture.spacing
    shape: tuple[int, int] = picture.array.shape[1:3]
    found = [_roi(part, shape, step, measure) for part in text.split(";") if part.strip()]
    if not found:
        raise Refused("no region is given; write them as name: top,left,bottom,right; …")
    keys = [private_value(roi.name) for roi in found]
    twice = sorted({roi.name for roi, key in zip(found, keys, strict=True) if keys.count(key) > 1})
    if twice:
        raise Refused(f"the regions {', '.join(twice)} cannot be told apart; give each a name of its own")
    return tuple(found)


def said_of(rois: tuple[Roi, ...], seen: str = "") -> list[Remark]:
    """Where each region lies, one sentence for each."""
    return [Remark(f"Region {roi.said}{f', {seen}' if seen else ''}.") for roi in rois]


def background_of(roi: Roi, rois: tuple[Roi, ...]) -> Roi | None:
    """The background that belongs to *roi*: its own, else the common one; none where there is neither."""
    named = {other.name.lower(): other for other in rois}
    return named.get(f"{roi.name.lower()} {BACKGROUND}") or named.get(BACKGROUND)


def measured_rois(rois: tuple[Roi, ...]) -> tuple[Roi, ...]:
    """The regions that are no background."""
    return tuple(roi for roi in rois if not is_background(roi))


def is_background(roi: Roi) -> bool:
    """Whether it is there to be subtracted from others."""
    return roi.name.lower() == BACKGROUND or roi.name.lower().endswith(f" {BACKGROUND}")


def counts_in(frames: NDArray[Any], roi: Roi, background: Roi | None = None) -> NDArray[np.float64]:
    """Counts of each frame in *roi*, less what as many pixels of *background* have."""
    total = frames[:, roi.inside].sum(axis=1, dtype=np.float64)
    if background is None:
        return np.asarray(total)
    below = frames[:, background.inside].mean(axis=1, dtype=np.float64)
    return np.asarray(total - below * roi.pixels)


def _roi(part: str, shape: tuple[int, int], step: tuple[float, float], measure: Measure) -> Roi:
    match = _REGION.fullmatch(part)
    try:
        edges = [float(number) for number in match[3].split(",")] if match else []
    except ValueError:
        edges = []
    if match is None or len(edges) != 4:
        raise Refused(f"{part.strip()!r} is no region; write name: top,left,bottom,right")
    name, form = " ".join(match[1].split()), match[2] or "rectangle"
    top, left, bottom, right = edges
    height, width = (n * s for n, s in zip(shape, step, strict=True))
    if not (0 <= top < bottom <= height + 1e-6 and 0 <= left < right <= width + 1e-6):
        raise Refused(
            f"the region {name} ({match[3].strip()}) does not lie in the image, which is {height:g} x "
            f"{width:g} {measure} (rows, columns); edges are top, left, bottom, right"
        )
    rows = (np.arange(shape[0])[:, None] + 0.5) * step[0]
    columns = (np.arange(shape[1])[None, :] + 0.5) * step[1]
    if form == "ellipse":
        across = (rows - (top + bottom) / 2) / ((bottom - top) / 2)
        along = (columns - (left + right) / 2) / ((right - left) / 2)
        inside = across**2 + along**2 <= 1
    else:
        inside = (rows > top) & (rows < bottom) & (columns > left) & (columns < right)
    if not inside.any():
        raise Refused(f"the region {name} ({match[3].strip()}) holds the centre of no pixel; make it larger")
    unit = "px" if measure == "pixel" else "mm"
    said = f"{name}: {form} from {top:g}, {left:g} to {bottom:g}, {right:g} {unit} (row, column)"
    return Roi(name, inside, said)
