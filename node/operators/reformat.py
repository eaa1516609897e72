"""Reformat: slabs of a chosen thickness, in a plane of the patient, from any acquisition.

Every source voxel is taken as the mean over its box, and the source as ending half a voxel beyond its
outer centres. Three rules follow:
- *mean* weighs each slice by the share of it that lies in the slab, so partial slices count partly and
  a slab of whole slices is their plain mean;
- *max* and *min* take the slices of which at least half lies in the slab;
- an output voxel is valid if at least half of its slab was measured there; elsewhere it holds the
  source's lowest value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from node.operator import Degrees, Mm, Refused, Volume
from node.operators.planes import Axes, Plane, aligned, axes_of, extent
from node.operators.sampling import (
    ENOUGH,
    SLACK,
    Floats,
    Lattice,
    Source,
    block_means,
    covering,
    settled,
    square,
)

Combine = Literal["mean", "max", "min"]


@dataclass(frozen=True, slots=True)
class Slabs:
    """Where the output slices lie along one axis, in mm."""

    first: float
    """Where the first slab begins."""
    every: float
    thickness: float
    count: int

    def __iter__(self) -> Iterator[tuple[float, float]]:
        """Begin and end of each slab."""
        for n in range(self.count):
            begin = self.first + n * self.every
            yield begin, begin + self.thickness


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the rule wants, in mm."""

    thickness: float
    every: float
    combine: Combine
    spacing: float | None


def reformat(
    volume: Volume,
    *,
    plane: Plane,
    thickness: Mm,
    every: Mm | None = None,
    combine: Combine = "mean",
    spacing: Mm | None = None,
    tilt: Degrees = 0.0,
    turn: Degrees = 0.0,
) -> Volume:
    """Reformat into slabs of *thickness* every *every* mm, combined as mean, max or min.

    Axial: columns to the left, rows to the back, slices to the head. Coronal: columns to the left, rows to
    the foot, slices to the back. Sagittal: columns to the back, rows to the foot, slices to the right.
    Oblique: the axial plane tilted by *tilt* about the axis to the left (positive raises its back edge and
    lowers its front), then turned by *turn* about the axis to the head (positive brings its front edge to
    the left); both are right-handed. Acquired: the source's own slices.

    A source in that plane keeps its pixels: they are combined across it only. One that lies square to it is
    combined over whole and partial voxels, then brought to square pixels by linear interpolation (an axial
    reformat of it is interpolated within each slab instead). Any other is interpolated linearly and covers
    the source. Pixels are *spacing* wide, by default the source's finest in-plane spacing; wider ones are
    means over their box. Slabs begin at the first slice; what is left over when they do not fit is shared
    by both ends in whole slices, so nothing is cut.

    Raises Refused where the slab is thinner than the source resolves, or thicker than the source, and
    where an option does not belong to the plane.
    """
    every = thickness if every is None else every
    if thickness <= 0 or every <= 0:
        raise Refused(f"thickness {thickness:g} mm and every {every:g} mm must be greater than 0")
    if spacing is not None and spacing <= 0:
        raise Refused(f"spacing {spacing:g} mm must be greater than 0")
    axes = axes_of(plane, volume, tilt, turn)
    resolved = float(np.max(np.abs(axes[:, 0] @ volume.axes) * volume.spacing))
    if thickness < resolved * (1 - SLACK):
        raise Refused(
            f"slabs of {thickness:g} mm are thinner than the {resolved:.3g} mm that the source resolves "
            f"along {_across(plane)}; ask for thicker slabs or select a thinner series"
        )
    made = _made(volume, axes, _Asked(thickness, every, combine, spacing), exact=plane != "axial")
    facts = {**volume.facts, "slice_thickness": float(thickness), "combined": combine}
    return replace(made, facts=facts if combine == "mean" else {**facts, "projection": combine})


def _across(plane: Plane) -> str:
    return "the patient's axis" if plane == "axial" else f"the normal of the {plane} plane"


def _made(volume: Volume, axes: Axes, asked: _Asked, *, exact: bool) -> Volume:
    """The slabs; *exact* says that a source square to the plane is combined before it is interpolated.

    Axial reformats of such sources have been interpolated since the first version, and still are: same
    rule, same pixels.
    """
    own = aligned(volume, axes, exchange=False)
    if own is not None:
        made = _combine_slices(own, asked)
        return made if asked.spacing is None else square(made, asked.spacing)
    inplane = float(volume.spacing[1:].min()) if asked.spacing is None else asked.spacing
    other = aligned(volume, axes) if exact else None
    if other is not None:
        return square(_combine_slices(other, asked), inplane)
    return _sample(volume, axes, asked, inplane)


def place_slabs(length: float, thickness: float, every: float, grain: float) -> Slabs:
    """Slabs over 0 … *length* mm; one more than fits overhangs both ends, by whole *grain*s if it can."""
    if thickness > length * (1 + SLACK):
        raise Refused(f"slabs of {thickness:g} mm are thicker than the source, which is {length:.4g} mm deep")
    count = math.floor((length - thickness) / every + SLACK) + 1
    left = length - ((count - 1) * every + thickness)
    if left <= SLACK * length or every > thickness:  # slabs apart skip tissue anyway: none is added
        return Slabs(0.0, every, thickness, count)
    over = every - left
    before = round(over / 2 / grain) * grain
    if max(before, over - before) > thickness * (1 - ENOUGH):
        before = over / 2
    return Slabs(-before, every, thickness, count + 1)


def _combine_slices(volume: Volume, asked: _Asked) -> Volume:
    """Slabs of whole and partial slices of an aligned volume; in-plane the pixels stay as they are."""
    step, thickness = float(volume.spacing[0]), asked.thickness
    slabs = place_slabs(step * len(volume.array), thickness, asked.every, step)
    shape = (slabs.count, *volume.array.shape[1:])
    array, share = np.empty(shape, np.float32), np.empty(shape, np.float32)
    low = float(volume.array.min())
    for n, (begin, end) in enumerate(slabs):
        edges = np.clip(np.arange(len(volume.array) + 1) * step, begin, end)
        weights = np.diff(edges).astype(np.float32) / np.float32(step)
        used = np.flatnonzero(weights > SLACK)
        block = slice(used[0], used[-1] + 1)
        valid = None if volume.valid is None else volume.valid[block]
        array[n], share[n] = reduced(volume.array[block], weights[block], valid, asked.combine, low)
        share[n] *= np.float32(step / thickness)
    affine = volume.affine.copy()
    affine[:3, 0] *= asked.every / step
    affine[:3, 3] += volume.axes[:, 0] * (slabs.first + thickness / 2 - step / 2)
    return Volume(array, affine, volume.unit, settled(array, share, low))


def reduced(
    block: NDArray[Any], weights: Floats, valid: NDArray[np.bool_] | None, combine: Combine, low: float
) -> tuple[Floats, Floats]:
    """One slab from its slices: values, and the weight (in slices) that was measured in each pixel."""
    counted = weights[:, None, None] if valid is None else valid * weights[:, None, None]
    share = np.broadcast_to(counted.sum(axis=0), block.shape[1:]).astype(np.float32)
    if combine == "mean":
        each = np.broadcast_to(counted, block.shape)
        total = np.einsum("kji,kji->ji", block, each, dtype=np.float64)
        if valid is not None and not np.isfinite(total).all():  # NaN times nothing is NaN
            total = np.einsum("kji,kji->ji", np.where(valid, block, 0), each, dtype=np.float64)
        mean = np.divide(total, share, out=np.full(share.shape, low), where=share > 0)
        return mean.astype(np.float32), share
    inside = weights >= ENOUGH * (1 - SLACK)
    if not inside.any():
        inside = weights == weights.max()
    if not inside.all():  # what is chosen is copied
        block, valid = block[inside], None if valid is None else valid[inside]
    empty = -np.inf if combine == "max" else np.inf
    kept = block if valid is None else np.where(valid, block, np.float32(empty))
    found = kept.max(axis=0) if combine == "max" else kept.min(axis=0)
    return np.where(np.isfinite(found), found, np.float32(low)).astype(np.float32), share


def _sample(volume: Volume, axes: Axes, asked: _Asked, inplane: float) -> Volume:
    """Slabs of a volume in any orientation: planes interpolated within each slab, then combined."""
    low_corner, size = extent(volume, axes)
    thickness, finest = asked.thickness, float(volume.spacing.min())
    slabs = place_slabs(float(size[0]), thickness, asked.every, inplane)
    planes = max(1, math.ceil(thickness / finest - SLACK))
    source = Source(volume)
    # One slab high: its first point gives where the rows and columns of all of them begin.
    flat = covering(low_corner, np.array([thickness, *size[1:]]), axes, (thickness, inplane, inplane))
    start = axes.T @ flat.origin
    parts = (1, *source.parts_for(flat)[1:]) if asked.spacing else (1, 1, 1)
    array = np.empty((slabs.count, *flat.shape[1:]), np.float32)
    share = np.empty_like(array)
    weights = np.full(planes, 1, np.float32)
    for n, (begin, _) in enumerate(slabs):
        first = low_corner[0] + begin + thickness / planes / 2  # midpoints: exact for a linear course
        origin = axes @ np.array([first, *start[1:]])
        points = Lattice(origin, axes, (thickness / planes, inplane, inplane), (planes, *flat.shape[1:]))
        values, measured = source.sample(points.split(parts))
        found, counted = reduced(values, weights, measured, asked.combine, source.low)
        array[n], share[n] = block_means(found, counted, parts[1:])
    share /= planes
    valid = settled(array, share, source.low)
    centre = axes @ np.array([low_corner[0] + slabs.first + thickness / 2, *start[1:]])
    affine = Lattice(centre, axes, (asked.every, inplane, inplane), _shape(array)).affine
    return _without_empty_ends(Volume(array, affine, volume.unit, valid))


def _shape(array: Floats) -> tuple[int, int, int]:
    slices, rows, columns = array.shape
    return slices, rows, columns


def _without_empty_ends(volume: Volume) -> Volume:
    """Without the outer slices in which nothing was measured: the corners of an oblique source."""
    if volume.valid is None:
        return volume
    filled = np.flatnonzero(volume.valid.any(axis=(1, 2)))
    if not len(filled):
        raise Refused("no slab has enough measured voxels; ask for thinner slabs")
    kept = slice(filled[0], filled[-1] + 1)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0] * filled[0]
    return replace(volume, array=volume.array[kept], affine=affine, valid=volume.valid[kept])
