"""Values between voxels: a source sampled at the points of a lattice, and means over the boxes of a grid.

Interpolation goes between measured voxels only, by normalised convolution (Knutsson and Westin 1993,
doi:10.1109/CVPR.1993.341081): what is interpolated is value times measured, over measured. An output voxel
that is larger than the source's is the mean over its box, at midpoints no farther apart than the source's
voxels: that is what a detector of this size would have seen, it keeps the mean of the whole, and it is
what keeps detail finer than the grid from coming back as a false pattern (aliasing).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from numpy.typing import NDArray
from scipy import ndimage

from node.operator import Mask, Refused, Volume, affine_of

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Points = NDArray[np.float64]
Interpolation = Literal["linear", "nearest", "bspline"]

ENOUGH = 0.5
"""The share of an output voxel that must have been measured."""
SLACK = 1e-3
"""Relative: lengths in headers are decimal texts."""
MOST_ROWS = 65535
"""Rows and Columns are 16-bit numbers (PS3.3 C.7.6.3.1)."""
MOST_VOXELS = 1 << 30
"""4 GiB of float32: what is larger was asked for by mistake."""
AT_ONCE = 1 << 24
"""Points sampled in one go for a sum along lines, whose last bits it decides."""
FEW_AT_ONCE = 1 << 22
"""The same where the order decides nothing: 16 MB of values."""
_SUMMED = 1 << 19
"""Points whose blocks are summed in one go, in double precision; the order decides nothing, too."""
_ITK = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "bspline": sitk.sitkBSpline3}


@dataclass(frozen=True, eq=False)
class Lattice:
    """Points in rows, columns and slices."""

    origin: Points
    """The first point, mm."""
    axes: Points
    """3 x 3: unit directions of slice, row and column index."""
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]

    @property
    def affine(self) -> Points:
        """Index → millimetres."""
        return affine_of(self.origin, self.axes, np.array(self.spacing))

    def slices(self, first: int, count: int) -> Lattice:
        """*count* of its slices, from *first* on."""
        origin = self.origin + self.axes[:, 0] * self.spacing[0] * first
        return Lattice(origin, self.axes, self.spacing, (count, *self.shape[1:]))

    def split(self, parts: tuple[int, int, int]) -> Lattice:
        """The midpoints of each point's box cut into *parts* along the axes."""
        fine = tuple(s / p for s, p in zip(self.spacing, parts, strict=True))
        back = (np.array(fine) - np.array(self.spacing)) / 2
        shape = tuple(n * p for n, p in zip(self.shape, parts, strict=True))
        return Lattice(self.origin + self.axes @ back, self.axes, _three(fine), _three(shape))


def _three(values: Any) -> Any:
    first, second, third = values
    return first, second, third


def lattice_of(volume: Volume) -> Lattice:
    """The voxel centres of *volume*."""
    return Lattice(volume.origin, volume.axes, _three(map(float, volume.spacing)), _three(volume.array.shape))


def covering(low: Points, size: Points, axes: Points, spacing: tuple[float, float, float]) -> Lattice:
    """Boxes of *spacing* over *size* mm from *low* along *axes*; what does not fit hangs out on both sides.

    Raises Refused where that is more than an image may have.
    """
    steps = np.array(spacing)
    counts = np.maximum(1, np.ceil(size / steps - SLACK)).astype(int)
    if counts[1:].max() > MOST_ROWS or math.prod(int(n) for n in counts) > MOST_VOXELS:
        asked = " x ".join(str(n) for n in counts)
        raise Refused(f"a grid of {asked} voxels is larger than any image may be; ask for a coarser spacing")
    start = low + (size - (counts - 1) * steps) / 2
    return Lattice(axes @ start, axes, spacing, _three(int(n) for n in counts))


class Source:
    """A volume that can be asked for its values anywhere."""

    def __init__(
        self, volume: Volume, interpolation: Interpolation = "linear", transform: sitk.Transform | None = None
    ) -> None:
        """*transform* takes a point that is asked for to where it lies in *volume* (mm to mm)."""
        self.interpolation = interpolation
        self.transform = transform
        self.axes, self.spacing = volume.axes, volume.spacing
        self.low = lowest(volume)
        self.measured: sitk.Image | None = None
        """None where every voxel was measured: whether a point lies inside is then all there is to ask."""
        if volume.valid is None and not np.isnan(volume.array.min()):
            self.values = image_of(volume.array.astype(np.float32, copy=False), volume)
            return
        measured = np.ones(volume.array.shape, bool) if volume.valid is None else volume.valid
        if interpolation == "bspline" and not measured.all():
            filled = _nearest_measured(volume.array, measured)
        else:
            filled = np.where(measured, volume.array, 0)
        self.values = image_of(filled.astype(np.float32, copy=False), volume)
        del filled
        self.measured = image_of(measured.view(np.uint8), volume)

    def sample(self, lattice: Lattice) -> tuple[Floats, Bools]:
        """Values at the points, and whether at least half of what each is made from was measured."""
        to = self._onto(lattice)
        if self.measured is None:
            to.SetDefaultPixelValue(math.nan)
            values = pixels_of(to.Execute(self.values))
            inside: Bools = np.isnan(values)
            np.logical_not(inside, out=inside)
            if not inside.all():
                values[~inside] = 0
            return values, inside
        values = pixels_of(to.Execute(self.values))
        smooth = self.interpolation == "bspline"  # its weights may be negative: their sum says nothing
        to.SetInterpolator(sitk.sitkLinear if smooth else _ITK[self.interpolation])
        share = pixels_of(to.Execute(self.measured))
        if not smooth:
            np.divide(values, share, out=values, where=share > 0)
        return values, share >= ENOUGH - SLACK

    def _onto(self, lattice: Lattice) -> sitk.ResampleImageFilter:
        to = sitk.ResampleImageFilter()
        to.SetOutputPixelType(sitk.sitkFloat32)
        to.SetOutputOrigin([float(o) for o in lattice.origin])
        to.SetOutputDirection(directions_of(lattice.axes))
        to.SetOutputSpacing([float(s) for s in lattice.spacing[::-1]])
        to.SetSize([int(n) for n in lattice.shape[::-1]])
        to.SetDefaultPixelValue(0)
        if self.transform is not None:
            to.SetTransform(self.transform)
        to.SetInterpolator(_ITK[self.interpolation])
        return to

    def parts_for(self, lattice: Lattice) -> tuple[int, int, int]:
        """Into how many parts each box must be cut so that its midpoints miss no voxel of the source."""
        if self.interpolation == "nearest":
            return 1, 1, 1
        reach = np.abs(self.axes.T @ lattice.axes)  # source axis × lattice axis
        step = 1 / np.max(reach / self.spacing[:, None], axis=0)
        return _three(max(1, math.ceil(s / f - SLACK)) for s, f in zip(lattice.spacing, step, strict=True))


def lowest(volume: Volume) -> float:
    """The lowest value of a source, which stands where nothing was measured; NaN is none, and 0 if nothing else is."""
    low = float(volume.array.min())
    if math.isnan(low):
        numbers = volume.array[~np.isnan(volume.array)]
        low = float(numbers.min()) if numbers.size else 0.0
    return low


def means(source: Source, lattice: Lattice) -> tuple[Floats, Floats]:
    """The mean of *source* over the box of each point of *lattice*, and the share of it that was measured."""
    parts = source.parts_for(lattice)
    array = np.empty(lattice.shape, np.float32)
    share: Floats = np.broadcast_to(np.float32(1), lattice.shape)  # takes no memory, and is nearly always so
    per_slice = math.prod(lattice.shape[1:]) * math.prod(parts)
    count = max(1, FEW_AT_ONCE // per_slice)
    for first in range(0, lattice.shape[0], count):
        some = lattice.slices(first, min(count, lattice.shape[0] - first))
        values, measured = source.sample(some.split(parts))
        block = slice(first, first + some.shape[0])
        array[block], found = block_means(values, _shares(measured), parts)
        del values, measured  # before the next ones are made: they are as large as half a scan of a PET
        if not share.flags.writeable and found.min() < 1:
            share = np.ones(lattice.shape, np.float32)
        if share.flags.writeable:
            share[block] = found
    return array, share


def _shares(measured: Bools) -> Floats:
    """1 where something was measured, else 0; without memory of its own where that is everywhere, as nearly always."""
    return np.broadcast_to(np.float32(1), measured.shape) if measured.all() else measured.astype(np.float32)


def block_means(values: Floats, share: Floats, parts: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Means over blocks of *parts* points, each weighed by its *share*, and the mean share.

    Some at a time: sums in double precision are twice as large as what they are of.
    """
    if max(parts) == 1:
        return values, share
    shape = tuple(n // p for n, p in zip(values.shape, parts, strict=True))
    array = np.empty(shape, np.float32)
    mean = _shares(np.broadcast_to(share.min() == 1, shape))
    step = max(1, _SUMMED // (parts[0] * math.prod(values.shape[1:])))
    for n in range(0, shape[0], step):
        some, made = slice(n * parts[0], (n + step) * parts[0]), slice(n, n + step)
        array[made], found = _means_of(values[some], share[some], parts)
        if mean.flags.writeable:
            mean[made] = found
    return array, mean


def _means_of(values: Floats, share: Floats, parts: tuple[int, ...]) -> tuple[Floats, Floats]:
    count = math.prod(parts)
    if share.min() == 1:  # as nearly always: nothing is to be weighed
        total = _block_sums(values, parts)
        total /= count
        return total.astype(np.float32), np.ones(total.shape, np.float32)
    weight, total = _block_sums(share, parts), _block_sums(values * share, parts)
    mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    return mean.astype(np.float32), (weight / count).astype(np.float32)


def _block_sums(array: Floats, parts: tuple[int, ...]) -> NDArray[np.float64]:
    """Sums over blocks of *parts* points in double precision; axis by axis, which reads everything once."""
    total: NDArray[Any] = array
    for axis in reversed(range(array.ndim)):
        if parts[axis] > 1 or total.dtype != np.float64:
            ahead = (slice(None),) * axis
            first = total[(*ahead, slice(0, None, parts[axis]))].astype(np.float64)
            for n in range(1, parts[axis]):
                first += total[(*ahead, slice(n, None, parts[axis]))]
            total = first
    return total


def settled(array: Floats, share: Floats, low: float, enough: float = ENOUGH) -> Bools | None:
    """Where enough was measured; sets *array* to *low* elsewhere. None when that is everywhere."""
    valid = share >= enough - SLACK
    if valid.all():
        return None
    array[~valid] = low
    return valid


def square(volume: Volume, spacing: float) -> Volume:
    """*volume* with pixels of *spacing* x *spacing* mm in its own slices; itself where they are so already."""
    if np.abs(volume.spacing[1:] / spacing - 1).max() < SLACK:
        return volume
    low, size = extent_of(volume)
    lattice = covering(low, size, volume.axes, (float(volume.spacing[0]), spacing, spacing))
    source = Source(volume)
    array, share = means(source, lattice)
    return Volume(array, lattice.affine, volume.unit, settled(array, share, source.low), volume.facts)


def extent_of(volume: Volume) -> tuple[Points, Points]:
    """Where the volume's boxes begin along its own axes, and how far they reach, mm."""
    size = np.array(volume.array.shape) * volume.spacing
    return volume.axes.T @ volume.origin - volume.spacing / 2, size


def _nearest_measured(array: NDArray[Any], measured: Bools) -> NDArray[Any]:
    """*array* with the value of the nearest measured voxel where there is none."""
    if not measured.any():
        return np.zeros_like(array)
    where = ndimage.distance_transform_edt(~measured, return_distances=False, return_indices=True)
    found: NDArray[Any] = array[tuple(where)]
    return found


def image_of(array: NDArray[Any], volume: Volume | Mask) -> sitk.Image:
    """*array* on the grid of *volume*; ITK orders axes (column, row, slice), its geometry is LPS as ours."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in volume.spacing[::-1]])
    image.SetOrigin([float(o) for o in volume.origin])
    image.SetDirection(directions_of(volume.axes))
    return image


class _Kept:
    """The pixels of an image that nobody else holds, as numpy asks for them (its array interface, version 3)."""

    def __init__(self, image: sitk.Image) -> None:
        self._image = image  # while an array is made of these pixels, they must not go
        seen = sitk.GetArrayViewFromImage(image).__array_interface__
        self.__array_interface__ = {**seen, "data": (seen["data"][0], False)}


def pixels_of(image: sitk.Image) -> Floats:
    """The pixels of an image that was just made, without a copy of them; they can be written to."""
    found: Floats = np.asarray(_Kept(image))
    return found


def directions_of(axes: Points) -> list[float]:
    """*axes* as ITK writes them, without cosines so small (1e-160) that its matrix inversion fails on them."""
    return [float(d) if abs(d) > 1e-30 else 0.0 for d in axes[:, ::-1].ravel()]
