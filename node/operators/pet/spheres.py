"""Means in a sphere of one cubic centimetre, and shapes that fit into a region."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.operator import Mask, Volume
from node.operators.boxes import box_of

PEAK_RADIUS = 10 * (3 / (4 * math.pi)) ** (1 / 3)
"""mm: of a sphere of 1 cm³."""
_PARTS = 12
"""A voxel on the sphere's surface is cut into so many parts along each axis."""
_AT_ONCE = 1 << 21
"""Centres looked at in one go, so that a large region needs no copies of itself."""

Weights = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Peak:
    """Where the mean over a sphere is highest."""

    value: float
    index: tuple[int, int, int]
    position: tuple[float, float, float]
    """mm, in the patient: x to the left, y to posterior, z to superior."""


def weights(spacing: NDArray[Any], radius: float) -> Weights:
    """The share of the sphere's volume in each voxel around its centre; they add to 1.

    A voxel counts by the part of it that lies in the sphere, found at 12³ points of it, so that the sphere has its
    volume whatever the voxels' size, and a voxel no whole or no weight at all.
    """
    reach = [math.ceil(radius / s + 0.5) for s in spacing]
    offsets = (np.arange(_PARTS) + 0.5) / _PARTS - 0.5
    squares = [
        (((np.arange(-n, n + 1)[:, None] + offsets) * s) ** 2).reshape(-1)
        for n, s in zip(reach, spacing, strict=True)
    ]
    k, j, i = squares
    inside = k[:, None, None] + j[None, :, None] + i[None, None, :] <= radius**2
    shape = [v for n in reach for v in (2 * n + 1, _PARTS)]
    share = inside.reshape(shape).sum(axis=(1, 3, 5), dtype=np.float64)
    return share / share.sum()


def peak(volume: Volume, mask: Mask, radius: float = PEAK_RADIUS) -> Peak | None:
    """The highest mean over a sphere whose centre is the centre of a voxel of the region.

    The sphere may reach out of the region, never out of what was measured. None where it does so everywhere. Of
    equal means the first in the volume counts.
    """
    kernel = weights(volume.spacing, radius)
    box = box_of(mask.array)
    low, high = [side.start for side in box], [side.stop for side in box]
    count = max(1, _AT_ONCE // ((high[1] - low[1]) * (high[2] - low[2])))
    best: tuple[float, tuple[int, ...]] | None = None
    for first in range(low[0], high[0], count):
        slab = (slice(first, min(first + count, high[0])), slice(low[1], high[1]), slice(low[2], high[2]))
        one = _highest(volume, mask, kernel, slab)
        if one is not None and (best is None or one[0] > best[0]):
            best = one
    if best is None:
        return None
    value, (k, j, i) = best
    x, y, z = (float(v) for v in (volume.affine @ np.array([k, j, i, 1.0]))[:3])
    return Peak(value, (k, j, i), (x, y, z))


def _highest(
    volume: Volume, mask: Mask, kernel: Weights, box: tuple[slice, ...]
) -> tuple[float, tuple[int, ...]] | None:
    """The highest mean of the spheres that are centred in a box of the region, and where.

    Looked up voxel by voxel of the region, not of its box: vertebrae fill a twentieth of theirs.
    """
    reach = tuple(n // 2 for n in kernel.shape)
    values, measured = _around(volume, [b.start for b in box], [b.stop for b in box], reach)
    strides = (values.shape[1] * values.shape[2], values.shape[2], 1)
    centres = np.stack(np.nonzero(mask.array[box]))
    if not centres.size:
        return None
    first = strides @ centres  # where the sphere's own box begins, as `values` lies in memory
    sums, allowed = np.zeros(first.size), np.ones(first.size, bool)
    everywhere = bool(measured.all())
    for at in np.ndindex(*kernel.shape):
        if kernel[at]:
            there = first + int(np.dot(strides, at))
            sums += kernel[at] * values.take(there)
            if not everywhere:
                allowed &= measured.take(there)
    if not allowed.any():
        return None
    best = int(np.where(allowed, sums, -np.inf).argmax())
    k, j, i = (int(a) + b.start for a, b in zip(centres[:, best], box, strict=True))
    return float(sums[best]), (k, j, i)


def _around(
    volume: Volume, low: list[int], high: list[int], reach: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The values of a box and *reach* voxels around it, 0 outside the volume, and where there is one."""
    shape = [h - b + 2 * r for b, h, r in zip(low, high, reach, strict=True)]
    values, measured = np.zeros(shape), np.zeros(shape, bool)
    into, out_of = [], []
    for b, h, r, n in zip(low, high, reach, volume.array.shape, strict=True):
        first, last = max(b - r, 0), min(h + r, n)
        out_of.append(slice(first, last))
        into.append(slice(first - b + r, last - b + r))
    values[tuple(into)] = volume.array[tuple(out_of)]
    measured[tuple(into)] = True if volume.valid is None else volume.valid[tuple(out_of)]
    return values, measured
