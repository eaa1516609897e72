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
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from numpy.typing import NDArray

from node.operator import Mm, Refused, Volume, affine_of

Combine = Literal["mean", "max", "min"]
Floats = NDArray[np.float32]

AXIAL = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""An axial image's axes, as columns: slices to the head (z), rows to the back (y), columns left (x)."""
ALIGNED = 1e-3
"""Direction cosines this near count as axial (0.06°): over 360 mm of field a quarter of a pixel."""
ENOUGH = 0.5
"""The share of an output voxel that must have been measured."""
SLACK = 1e-3
"""Relative: lengths in headers are decimal texts."""


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


def reformat(
    volume: Volume,
    *,
    plane: Literal["axial"],
    thickness: Mm,
    every: Mm | None = None,
    combine: Combine = "mean",
) -> Volume:
    """Reformat into slabs of *thickness* every *every* mm, combined as mean, max or min.

    The output is axial in the patient: columns to the left, rows to the back, slices to the head. An
    axial source keeps its pixels: they are combined along z only. Any other is interpolated linearly,
    with the source's finest in-plane spacing, and covers the source. Slabs begin at the foot end; what
    is left over when they do not fit is shared by both ends in whole slices, so nothing is cut.

    Raises Refused where the slab is thinner than the source resolves, or thicker than the source.
    """
    del plane  # one choice today; the signature is what rules are checked against
    every = thickness if every is None else every
    if thickness <= 0 or every <= 0:
        raise Refused(f"thickness {thickness:g} mm and every {every:g} mm must be greater than 0")
    resolved = float(np.max(np.abs(volume.axes[2]) * volume.spacing))
    if thickness < resolved * (1 - SLACK):
        raise Refused(
            f"slabs of {thickness:g} mm are thinner than the {resolved:.3g} mm that the source resolves "
            "along the patient's axis; ask for thicker slabs or select a thinner series"
        )
    axial = _as_axial(volume)
    asked = (thickness, every, combine)
    made = _combine_slices(axial, *asked) if axial else _sample(volume, *asked)
    return replace(made, facts={**volume.facts, "slice_thickness": float(thickness), "combined": combine})


def _as_axial(volume: Volume) -> Volume | None:
    """*volume* with axes flipped to the axial directions; None where that needs interpolation."""
    signs = np.sign(np.diag(AXIAL.T @ volume.axes))
    if np.abs(volume.axes * signs - AXIAL).max() > ALIGNED:
        return None
    affine, turned = volume.affine.copy(), tuple(slice(None, None, int(s)) for s in signs)
    for axis, sign in enumerate(signs):
        if sign < 0:
            affine[:3, 3] += affine[:3, axis] * (volume.array.shape[axis] - 1)
            affine[:3, axis] *= -1
    valid = None if volume.valid is None else volume.valid[turned]
    return replace(volume, array=volume.array[turned], affine=affine, valid=valid)


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


def _combine_slices(volume: Volume, thickness: float, every: float, combine: Combine) -> Volume:
    """Slabs of whole and partial slices of an axial volume; in-plane the pixels stay as they are."""
    step = float(volume.spacing[0])
    slabs = place_slabs(step * len(volume.array), thickness, every, step)
    shape = (slabs.count, *volume.array.shape[1:])
    array, share = np.empty(shape, np.float32), np.empty(shape, np.float32)
    low = float(volume.array.min())
    for n, (begin, end) in enumerate(slabs):
        edges = np.clip(np.arange(len(volume.array) + 1) * step, begin, end)
        weights = np.diff(edges).astype(np.float32) / np.float32(step)
        used = np.flatnonzero(weights > SLACK)
        block = slice(used[0], used[-1] + 1)
        valid = None if volume.valid is None else volume.valid[block]
        array[n], share[n] = _reduce(volume.array[block], weights[block], valid, combine, low)
        share[n] *= np.float32(step / thickness)
    affine = volume.affine.copy()
    affine[:3, 0] *= every / step
    affine[:3, 3] += volume.axes[:, 0] * (slabs.first + thickness / 2 - step / 2)
    return Volume(array, affine, volume.unit, _valid(array, share, low))


def _reduce(
    block: NDArray[Any], weights: Floats, valid: NDArray[np.bool_] | None, combine: Combine, low: float
) -> tuple[Floats, Floats]:
    """One slab from its slices: values, and the weight (in slices) that was measured in each pixel."""
    counted = weights[:, None, None] if valid is None else valid * weights[:, None, None]
    share = np.broadcast_to(counted.sum(axis=0), block.shape[1:]).astype(np.float32)
    if combine == "mean":
        total = np.einsum("kji,kji->ji", block, np.broadcast_to(counted, block.shape), dtype=np.float64)
        mean = np.divide(total, share, out=np.full(share.shape, low), where=share > 0)
        return mean.astype(np.float32), share
    inside = weights >= ENOUGH * (1 - SLACK)
    if not inside.any():
        inside = weights == weights.max()
    block, valid = block[inside], None if valid is None else valid[inside]
    empty = -np.inf if combine == "max" else np.inf
    kept = block if valid is None else np.where(valid, block, np.float32(empty))
    found = kept.max(axis=0) if combine == "max" else kept.min(axis=0)
    return np.where(np.isfinite(found), found, np.float32(low)).astype(np.float32), share


def _valid(array: Floats, share: Floats, low: float) -> NDArray[np.bool_] | None:
    """Where enough was measured; sets *array* to *low* elsewhere. None when that is everywhere."""
    valid = share >= ENOUGH - SLACK
    if valid.all():
        return None
    array[~valid] = low
    return valid


def _sample(volume: Volume, thickness: float, every: float, combine: Combine) -> Volume:
    """Slabs of a volume that is not axial: planes interpolated within each slab, then combined."""
    inplane = float(volume.spacing[1:].min())
    ends = np.array([[-0.5, n - 0.5] for n in volume.array.shape])
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    placed = corners @ volume.affine[:3, :3].T + volume.origin
    low_corner, size = placed.min(axis=0), np.ptp(placed, axis=0)
    counts = np.maximum(1, np.ceil(size[:2] / inplane - SLACK)).astype(int)
    start = low_corner[:2] + (size[:2] - (counts - 1) * inplane) / 2
    slabs = place_slabs(float(size[2]), thickness, every, inplane)
    planes = max(1, math.ceil(thickness / float(volume.spacing.min()) - SLACK))
    source = _Source(volume)
    low = float(volume.array.min())
    array = np.empty((slabs.count, counts[1], counts[0]), np.float32)
    share = np.empty_like(array)
    weights = np.full(planes, 1, np.float32)
    for n, (begin, _) in enumerate(slabs):
        first = low_corner[2] + begin + thickness / planes / 2  # midpoints: exact for a linear course
        origin = (float(start[0]), float(start[1]), float(first))
        values, measured = source.planes(origin, (inplane, thickness / planes), (*counts[::-1], planes))
        array[n], share[n] = _reduce(values, weights, measured, combine, low)
    share /= planes
    valid = _valid(array, share, low)
    centre = low_corner[2] + slabs.first + thickness / 2
    affine = affine_of(np.array([*start, centre]), AXIAL, np.array([every, inplane, inplane]))
    return _without_empty_ends(Volume(array, affine, volume.unit, valid))


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


class _Source:
    """A volume as ITK images: its values (0 where not measured) and the share measured."""

    def __init__(self, volume: Volume) -> None:
        """ITK orders axes (column, row, slice); its geometry is LPS as ours."""
        measured = np.ones(volume.array.shape, bool) if volume.valid is None else volume.valid
        self.values = _image(np.where(measured, volume.array, 0).astype(np.float32, copy=False), volume)
        self.measured = _image(measured.astype(np.float32), volume)

    def planes(
        self, origin: tuple[float, float, float], spacing: tuple[float, float], shape: tuple[int, int, int]
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Axial planes from *origin*, *spacing* (in-plane, along z), *shape* (rows, columns, planes).

        Interpolates between measured voxels only; a point counts as measured if at least half of what
        it is interpolated from was.
        """
        to = sitk.ResampleImageFilter()
        to.SetInterpolator(sitk.sitkLinear)
        to.SetOutputOrigin(origin)
        to.SetOutputSpacing((spacing[0], spacing[0], spacing[1]))
        to.SetSize((int(shape[1]), int(shape[0]), int(shape[2])))
        to.SetDefaultPixelValue(0)
        values: Floats = sitk.GetArrayFromImage(to.Execute(self.values))
        share: Floats = sitk.GetArrayFromImage(to.Execute(self.measured))
        np.divide(values, share, out=values, where=share > 0)
        return values, share >= ENOUGH - SLACK


def _image(array: Floats, volume: Volume) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in volume.spacing[::-1]])
    image.SetOrigin([float(o) for o in volume.origin])
    image.SetDirection([float(d) for d in volume.axes[:, ::-1].ravel()])
    return image
