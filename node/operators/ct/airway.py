"""The air of trachea and main bronchi, followed from slice to slice down from the neck.

In axial slices the airway is a round piece of air with a wall of its own; the lungs beside it are pieces ten
times as large. So it is followed by overlap, from the first piece that looks like a trachea, through the
carina into the bronchi, until its wall is lost and it becomes one with a lung. Where a wall has a gap, the lumen may
still be told from the lung around it, which holds tissue and is not as dark.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]

AREA = (40.0, 700.0)
"""mm² that a trachea's lumen may have: from a small child's to a dilated one; adults' diameters are 10 to 27 mm
(Breatnach 1984, doi:10.2214/ajr.142.5.903)."""
NEAR_MM = 45.0
"""Farthest from the middle of the body."""
LONG_MM = 25.0
"""How far it must be followed to be a trachea."""
MARGIN_MM = 25.0
"""Around a piece, where it is looked for in the next slices."""
ASPECT = 2.5
"""Longest side of its box over the shortest."""
LEAK = 3.0
"""A piece this many times as large as the trachea is a lung."""
LEAST_MM2 = 8.0
"""Smaller pieces are bronchi within the lung, and are not followed."""
LUMEN_HU = (-700.0, -800.0, -900.0, -940.0)
"""Where a piece is lung, the lumen in it is sought below these levels, one after the other."""
LUMEN_MM2 = 30.0
LUMEN_FILLED = 0.4
"""Share of its box that such a lumen fills at least: lung between vessels is ragged."""
LUMEN_SEEN = 0.2
"""Share of it that lies below the piece it goes on from."""


@dataclass(frozen=True, slots=True)
class Pixel:
    """Sizes of a voxel in mm, and the column in the middle of the body."""

    slice: float
    row: float
    column: float
    middle: float

    @property
    def area(self) -> float:
        """mm²."""
        return self.row * self.column


def airway(air: Bools, values: Floats, pixel: Pixel) -> Bools | None:
    """Which voxels of *air* (slices from head to foot, HU *values*) are trachea and main bronchi; None for none."""
    found = _trachea(air, pixel)
    if found is None:
        return None
    first, piece, area = found
    out = np.zeros_like(air)
    for k in range(first, len(air)):
        out[k] = piece
        if k + 1 == len(air):
            break
        below = _next(air[k + 1], piece, LEAK * area, pixel)
        piece = below | _lumen(air[k + 1] & ~below, values[k + 1], piece, LEAK * area, pixel)
        if not piece.any():
            break
    return out


def _trachea(air: Bools, pixel: Pixel) -> tuple[int, Bools, float] | None:
    """First slice, its piece and its median area: the first piece that is long and round enough."""
    count = max(2, round(LONG_MM / pixel.slice))
    for k in range(len(air) - count):
        labels, _ = ndimage.label(air[k])
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            piece = labels[box] == number
            if not _like(piece, box, pixel):
                continue
            near = _window(box, pixel)
            areas = _followed(air[(slice(k, k + count + 1), *near)], labels[near] == number, pixel)
            if len(areas) > count:
                return k, labels == number, float(np.median(areas))
    return None


def _window(box: tuple[slice, slice], pixel: Pixel) -> tuple[slice, slice]:
    """A piece's box with a margin: wide enough that a lung in it is too large for a trachea."""
    margins = (round(MARGIN_MM / pixel.row), round(MARGIN_MM / pixel.column))
    rows, columns = (slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margins, strict=True))
    return rows, columns


def _like(piece: Bools, box: tuple[slice, slice], pixel: Pixel) -> bool:
    """Whether a piece has the size, the form and the place of a trachea."""
    area = np.count_nonzero(piece) * pixel.area
    tall, wide = piece.shape[0] * pixel.row, piece.shape[1] * pixel.column
    off = abs((box[1].start + box[1].stop - 1) / 2 - pixel.middle) * pixel.column
    round_enough = max(tall, wide) <= ASPECT * min(tall, wide) and area >= 0.5 * tall * wide
    return bool(AREA[0] <= area <= AREA[1] and round_enough and off <= NEAR_MM)


def _followed(air: Bools, piece: Bools, pixel: Pixel) -> list[float]:
    """Areas of the piece from slice to slice, as long as it goes on and does not grow into something else."""
    areas = [float(np.count_nonzero(piece)) * pixel.area]
    for layer in air[1:]:
        piece = _next(layer, piece, min(LEAK * areas[0], AREA[1]), pixel)
        if not piece.any():
            break
        areas.append(float(np.count_nonzero(piece)) * pixel.area)
    return areas


def _next(layer: Bools, piece: Bools, most: float, pixel: Pixel) -> Bools:
    """The pieces of *layer* that overlap *piece*, but those that are lung or too small."""
    labels, count = ndimage.label(layer)
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * pixel.area
    touched = np.unique(labels[piece])
    kept = np.zeros(count + 1, bool)
    kept[touched] = (sizes[touched] <= most) & (sizes[touched] >= LEAST_MM2)
    kept[0] = False
    return kept[labels]


def _lumen(layer: Bools, values: Floats, piece: Bools, most: float, pixel: Pixel) -> Bools:
    """What goes on from *piece* within a lung: the darkest part that is a round or oval piece of its own."""
    none = np.zeros_like(layer)
    if not (layer & piece).any():
        return none
    for level in LUMEN_HU:
        labels, _ = ndimage.label(layer & (values < level))
        boxes = ndimage.find_objects(labels)
        found = none.copy()
        for number in np.unique(labels[piece]):
            if number:
                box = boxes[int(number) - 1]
                found[box] |= _as_lumen(labels[box] == number, piece[box], most / pixel.area, pixel)
        if found.any():
            return found
    return none


def _as_lumen(part: Bools, above: Bools, most: float, pixel: Pixel) -> Bools:
    """*part*, or nothing where it is too large, too small, too ragged, or lies elsewhere than the piece *above*."""
    count = np.count_nonzero(part)
    fits = LUMEN_MM2 / pixel.area <= count <= most and count >= LUMEN_FILLED * part.size
    seen = np.count_nonzero(part & above) >= LUMEN_SEEN * count
    return part if fits and seen else np.zeros_like(part)
