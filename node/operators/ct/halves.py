"""Two lungs that hang together, parted at their neck; and gaps closed by a ball of a radius in millimetres."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

COARSE_MM = 2.5
"""Voxels in which the neck is sought: the sheet between two lungs that touch is 1 to 4 mm thin."""
WIDEST_NECK_MM = 40.0
LEAST_SHARE = 0.15
"""Of both lungs that a half has at least."""


def halves(lungs: Bools, spacing: Floats, side: Floats) -> tuple[Bools, Bools] | None:
    """Two parts of *lungs* on either side of the middle; None where there is no neck narrower than 40 mm.

    *side* says of each column how far (mm) it lies to the patient's left of the middle. The part on the left
    comes first. What is farther than r from the outside falls into two for some r; each voxel belongs to
    the core that water rising from both reaches it first (watershed on the distance).
    """
    steps = [max(1, round(COARSE_MM / s)) for s in spacing]
    coarse = _coarser(lungs, steps)
    size = spacing * steps
    far = ndimage.distance_transform_edt(np.pad(coarse, 1), sampling=size)[1:-1, 1:-1, 1:-1]
    columns = side[:: steps[2]][: coarse.shape[2]] + (steps[2] - 1) / 2 * (side[1] - side[0])
    for radius in np.arange(size.min() * 0.9, WIDEST_NECK_MM / 2, 0.5):
        cores = _cores(far > radius, columns)
        if cores is not None:
            owner = watershed(-far, cores, mask=coarse)
            return _finer(owner, lungs, steps)
    return None


def _coarser(mask: Bools, steps: list[int]) -> Bools:
    """Blocks of which at least half is in the mask."""
    pads = [(0, -n % step) for n, step in zip(mask.shape, steps, strict=True)]
    padded = np.pad(mask, pads)
    a, b, c = (n // step for n, step in zip(padded.shape, steps, strict=True))
    blocks = padded.reshape(a, steps[0], b, steps[1], c, steps[2])
    found: Bools = 2 * blocks.sum(axis=(1, 3, 5), dtype=np.int32) >= math.prod(steps)
    return found


def _cores(inner: Bools, columns: Floats) -> NDArray[np.int32] | None:
    """The left (1) and the right core (2), None where the two largest pieces are no such pair."""
    pieces, count = ndimage.label(inner)
    if count < 2:
        return None
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    first, second = (int(n) for n in np.argsort(-sizes, kind="stable")[:2])
    if sizes[second] < LEAST_SHARE * (sizes[first] + sizes[second]):
        return None
    weights = np.broadcast_to(columns, pieces.shape)
    places = ndimage.sum(weights, pieces, [first, second]) / sizes[[first, second]]
    if places[0] * places[1] >= 0:
        return None
    left, right = (first, second) if places[0] > 0 else (second, first)
    cores = np.zeros(pieces.shape, np.int32)
    cores[pieces == left], cores[pieces == right] = 1, 2
    return cores


def _finer(owner: NDArray[np.int32], lungs: Bools, steps: list[int]) -> tuple[Bools, Bools]:
    """Coarse owners for every voxel of *lungs*: its block's, or that of the nearest block that has one."""
    _, nearest = ndimage.distance_transform_edt(owner == 0, return_indices=True)
    whole = owner[tuple(nearest)]
    for axis, step in enumerate(steps):
        whole = np.repeat(whole, step, axis=axis)
    of_left = whole[tuple(slice(0, n) for n in lungs.shape)] == 1
    return lungs & of_left, lungs & ~of_left


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


def box_of(mask: Bools) -> tuple[slice, ...]:
    """The smallest box that holds all of a mask that is not empty."""
    seen: list[Bools] = [np.any(mask, axis=tuple({0, 1, 2} - {axis})) for axis in (0, 1, 2)]
    ends = [np.flatnonzero(line)[[0, -1]] for line in seen]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)


def _distance(mask: Bools, spacing: Floats) -> NDArray[np.float32]:
    """How far (mm) each voxel is from the nearest one of *mask*; 0 or less within it (Maurer 2003)."""
    image = sitk.GetImageFromArray(mask.view(np.uint8))
    image.SetSpacing([float(s) for s in spacing[::-1]])
    made = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    found: NDArray[np.float32] = sitk.GetArrayFromImage(made)
    return found
