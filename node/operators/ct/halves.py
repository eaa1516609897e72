"""Two lungs that hang together, cut apart where they touch; and gaps closed by a ball of a radius in millimetres."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from numpy.typing import NDArray
from scipy import ndimage

from node.operators.boxes import box_of
from node.operators.components import largest_piece

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]

CORRIDOR_MM = 50.0
"""Farthest from the middle of the body where lungs touch: junction lines lie within it, also shifted ones."""
_MEMBRANE_HU = (-900.0, -300.0)
"""From lung to tissue: what is left of the pleura between two lungs is brighter than both."""
_LEAST = 0.1
"""What a voxel of lung costs at least, however bright."""
_OFF = 0.02
"""What it costs, per row, to be as far from the middle as the corridor is wide: a tie goes to the middle."""
_STEPS = (0, -1, 1, -2, 2)
"""Columns by which the cut may move from row to row."""


def halves(lungs: Bools, values: Floats, side: Floats) -> tuple[Bools, Bools]:
    """*lungs* left and right of the cheapest cut from front to back, slice by slice; either may be empty.

    *side* says of each column how far (mm) it lies to the patient's left of the middle. A cut costs nothing outside the
    lungs and the less within them the brighter the voxel is, so that it follows the mediastinum, then the
    membrane between two lungs that touch (by dynamic programming, as Hu 2001, doi:10.1109/42.929615, along junction
    lines). A piece that the cut left on the wrong side goes to the lung it touches.
    """
    inside = np.flatnonzero(np.abs(side) <= CORRIDOR_MM)
    box = slice(int(inside[0]), int(inside[-1]) + 1)
    cut = _cheapest(_costs(lungs[:, :, box], values[:, :, box], side[box])) + box.start
    beyond = np.arange(lungs.shape[2]) > cut[:, :, None]
    first, second = lungs & ~beyond, lungs & beyond
    left, right = (second, first) if side[-1] > side[0] else (first, second)
    return _settled(left, right)


def _costs(lungs: Bools, values: Floats, side: Floats) -> NDArray[np.float32]:
    """What a cut through each voxel costs, softened between slices so that it does not jump."""
    low, high = _MEMBRANE_HU
    cost = np.clip((high - values) / (high - low), _LEAST, 1).astype(np.float32)
    cost[~lungs] = 0
    cost = ndimage.convolve1d(cost, [0.25, 0.5, 0.25], axis=0, mode="nearest")
    return cost + (_OFF * np.abs(side) / CORRIDOR_MM).astype(np.float32)


def _cheapest(cost: NDArray[np.float32]) -> NDArray[np.intp]:
    """For each slice and row the column of the cheapest path from the first to the last row."""
    slices, rows, columns = cost.shape
    came = np.zeros((rows, slices, columns), np.int8)
    total = cost[:, 0].astype(np.float64)
    for row in range(1, rows):
        best = total
        for step in _STEPS[1:]:
            other = np.full_like(total, np.inf)
            if step > 0:
                other[:, step:] = total[:, :-step]
            else:
                other[:, :step] = total[:, -step:]
            nearer = other < best
            came[row][nearer] = -step
            best = np.where(nearer, other, best)
        total = best + cost[:, row]
    cut = np.empty((slices, rows), np.intp)
    cut[:, -1] = total.argmin(axis=1)
    every = np.arange(slices)
    for row in range(rows - 1, 0, -1):
        cut[:, row - 1] = cut[:, row] + came[row][every, cut[:, row]]
    return cut


def _settled(left: Bools, right: Bools) -> tuple[Bools, Bools]:
    """The largest piece of either half, with the pieces of the other that touch it and not their own."""
    mains, rests = zip(*(_largest(half) for half in (left, right)), strict=True)
    out = []
    for main, rest in zip(mains, reversed(rests), strict=True):
        pieces, count = ndimage.label(rest)
        touching = np.zeros(count + 1, bool)
        touching[np.unique(pieces[ndimage.binary_dilation(main)])] = True
        touching[0] = False
        out.append(main | touching[pieces])
    return out[0], out[1]


def _largest(half: Bools) -> tuple[Bools, Bools]:
    """The largest piece, and all others."""
    main = largest_piece(half)
    return (half, np.zeros_like(half)) if main is None else (main, half & ~main)


def closed(mask: Bools, radius: float, spacing: Floats) -> Bools:
    """*mask* closed by a ball of *radius* mm: gaps filled that the ball does not fit into. 0 leaves it as it is."""
    if radius <= 0 or not mask.any():
        return mask
    boxes = box_of(mask)
    reach = [math.ceil(radius / s) + 1 for s in spacing]
    part = np.pad(mask[boxes], [(r, r) for r in reach])
    grown = _distance(part, spacing) <= radius
    kept = _distance(~grown, spacing) > radius
    out = mask.copy()
    inner = tuple(slice(r, -r) for r in reach)
    out[boxes] |= kept[inner]
    return out


def _distance(mask: Bools, spacing: Floats) -> NDArray[np.float32]:
    """How far (mm) each voxel is from the nearest one of *mask*; 0 or less within it (Maurer 2003)."""
    image = sitk.GetImageFromArray(mask.view(np.uint8))
    image.SetSpacing([float(s) for s in spacing[::-1]])
    made = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    found: NDArray[np.float32] = sitk.GetArrayFromImage(made)
    return found
