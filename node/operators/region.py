"""Region: one segment of a segmentation, by its name, on the grid of the image that is to be measured in it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from numpy.typing import NDArray

from node.operator import Mask, Refused, Remark, Segments, Volume
from node.operators.boxes import box_of
from node.operators.planes import refuse_other_frame
from node.operators.sampling import directions_of, image_of

Bools = NDArray[np.bool_]
Points = NDArray[np.floating[Any]]
ON_THE_GRID = 0.05
"""Voxels: where all voxel centres of a mask lie this near to centres of the image, its grid is the image's own."""
_BEYOND = " % of it lie outside the image"
_SHOWN = 20
"""Names that a refusal lists."""


def region(volume: Volume, segments: Segments, *, name: str) -> Mask:
    """The one segment called *name*, on the grid of *volume*.

    A segment is called by its label, by what it is (`Liver`, or its code 10200004), and where it has a side with
    that before or after it (`Left lung`); case, blanks and `_` do not count. Where the segment's grid is that of
    *volume*, or one a part of the other, each voxel is taken as it is; else a voxel of *volume* belongs to the
    region if its centre lies in a voxel of the segment (nearest neighbour). What of the segment lies outside
    *volume* is left out, and the description says how much.

    Raises Refused where no segment or several are called so, the two lie in different frames of reference, or
    nothing of the segment lies in *volume*.
    """
    found = _called(segments, name)
    return placed(volume, segments, found)


def placed(volume: Volume, segments: Segments, mask: Mask) -> Mask:
    """*mask*, one of *segments*, on the grid of *volume*. Raises Refused as `region` does.

    A part of a segment is not the segment that was received, and reports must not point at it as such.
    """
    refuse_other_frame(volume, segments, "the segmentation was made on other images")
    theirs = mask.array
    if not theirs.any():
        raise Refused(f"the segment {mask.label} is empty")
    steps = np.linalg.solve(volume.affine, mask.affine)
    aligned = _aligned(steps, theirs.shape)
    ours = _moved(theirs, aligned, volume.array.shape) if aligned else _nearest(volume, mask, theirs)
    if not ours.any():
        raise Refused(f"nothing of the segment {mask.label} lies in the image")
    lost = _outside(theirs, steps, volume.array.shape)
    said = _percent(lost) + _BEYOND if lost else ""
    description = "; ".join(filter(None, (mask.description, said)))
    return Mask(
        ours, volume.affine, mask.label, mask.category, mask.type, description, mask.laterality,
        None if lost else mask.stored,
    )  # fmt: skip


def _percent(lost: float) -> str:
    if lost >= 99:
        return "more than 99"
    return f"{lost:.2g}"


def beyond(mask: Mask) -> tuple[Remark, ...]:
    """The sentence for reports on a region of which a part lies outside the image, as `placed` describes it."""
    said = outside(mask)
    return (Remark(f"{mask.label}: {said} and were not measured.", missing=True),) if said else ()


def outside(mask: Mask) -> str:
    """How much of a region lies outside the image, as `placed` said, whatever steps came after; empty for none."""
    return next((said for said in mask.description.split("; ") if said.endswith(_BEYOND)), "")


def refuse_other_grid(volume: Volume, mask: Mask) -> None:
    """Raise Refused where *mask* is not on the grid of *volume*: which voxel is which would be a guess."""
    if not volume.same_grid(mask):
        raise Refused(
            f"the region {mask.label} lies on another grid than the volume; take it with the step region, or make "
            "both from the same step"
        )


def on_grid(volume: Volume, segments: Segments, mask: Mask) -> Mask:
    """*mask*, one of *segments*: itself where it lies on the volume's grid, so that reports point at it."""
    refuse_other_frame(volume, segments, "the segmentation was made on other images")
    return mask if volume.same_grid(mask) else placed(volume, segments, mask)


@dataclass(frozen=True, eq=False)
class Brought:
    """A segment where it is to be measured."""

    mask: Mask
    """On the volume's grid."""
    region: Mask
    """What numbers are said to be of: the segment itself where that is *mask*, so that reports point at it."""

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """What of the segment lies outside the image."""
        return () if self.region is self.mask else beyond(self.mask)


def brought(volume: Volume, segments: Segments, mask: Mask) -> Brought:
    """*mask*, one of *segments*, for a report that keeps many: what was made for it is kept no larger than it is."""
    there = on_grid(volume, segments, mask)
    return Brought(there, mask if there is mask else cut(there))


def cut(mask: Mask) -> Mask:
    """*mask* without the empty outside, so that a hundred regions need not be a hundred volumes."""
    box = box_of(mask.array)
    affine = mask.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([side.start for side in box])
    return replace(mask, array=mask.array[box].copy(), affine=affine)


def told_apart(segments: Segments) -> Iterator[Mask]:
    """The masks as they are, with their number behind a label that several have.

    A shallow copy, since the voxels of a received segment are unpacked only when they are asked for.
    """
    labels = [mask.label for mask in segments.masks]
    for number, mask in enumerate(segments.masks, 1):
        if labels.count(mask.label) == 1:
            yield mask
            continue
        named = copy(mask)
        object.__setattr__(named, "label", f"{mask.label} {number}")
        yield named


def names_of(mask: Mask) -> tuple[str, ...]:
    """What a segment may be called by, as people would write it."""
    kinds = (mask.type.meaning, mask.type.value)
    if mask.laterality is None:
        return (mask.label, *kinds)
    side = mask.laterality.meaning
    sided = [f"{one} {other}" for kind in kinds for one, other in ((side, kind), (kind, side))]
    return (mask.label, *sided)


def _called(segments: Segments, name: str) -> Mask:
    found = [mask for mask in segments.masks if _plain(name) in {_plain(one) for one in names_of(mask)}]
    if len(found) == 1:
        return found[0]
    known = [" = ".join(dict.fromkeys((mask.label, names_of(mask)[1]))) for mask in segments.masks]
    told = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    what = f"{len(found)} segments are" if found else "no segment is"
    raise Refused(f"{what} called {name}; the segmentation has {told}")


def _plain(name: str) -> str:
    return "".join(name.replace("_", " ").split()).casefold()


@dataclass(frozen=True)
class _Aligned:
    """How one grid lies on another: which axis is which, in what direction, and from where."""

    order: tuple[int, ...]
    """Per axis of the image the mask's."""
    signs: tuple[int, ...]
    first: tuple[int, ...]
    """Index in the image of the mask's first voxel along each axis, as it lies there."""


def _aligned(steps: Points, shape: tuple[int, ...]) -> _Aligned | None:
    """How a grid of *shape*, whose indices *steps* takes to the image's, lies on it; None where beside it."""
    order = np.abs(steps[:3, :3]).argmax(axis=1)
    if sorted(order) != [0, 1, 2]:
        return None
    signs = np.sign(steps[range(3), order])
    whole = np.zeros((3, 4))
    whole[range(3), order] = signs
    whole[:, 3] = np.rint(steps[:3, 3])
    if max(float(np.abs((steps[:3] - whole) @ corner).max()) for corner in _corners(shape)) > ON_THE_GRID:
        return None
    lengths = np.array(shape)[order]
    first = whole[:, 3] - np.where(signs < 0, lengths - 1, 0)
    return _Aligned(tuple(int(n) for n in order), tuple(int(s) for s in signs), tuple(int(n) for n in first))


def _corners(shape: tuple[int, ...]) -> Iterator[NDArray[np.float64]]:
    for corner in np.ndindex(2, 2, 2):
        yield np.array([*(c * (n - 1) for c, n in zip(corner, shape, strict=True)), 1.0])


def _moved(theirs: Bools, aligned: _Aligned, shape: tuple[int, ...]) -> Bools:
    turned = theirs.transpose(aligned.order)[tuple(slice(None, None, s) for s in aligned.signs)]
    if turned.shape == shape and not any(aligned.first):
        return turned
    ours = np.zeros(shape, bool)
    into, out_of = [], []
    for first, length, room in zip(aligned.first, turned.shape, shape, strict=True):
        begin, end = max(first, 0), min(first + length, room)
        if begin >= end:
            return ours
        into.append(slice(begin, end))
        out_of.append(slice(begin - first, end - first))
    ours[tuple(into)] = turned[tuple(out_of)]
    return ours


def _nearest(volume: Volume, mask: Mask, theirs: Bools) -> Bools:
    image = image_of(theirs.view(np.uint8), mask)
    size = [int(n) for n in volume.array.shape[::-1]]
    found = sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkNearestNeighbor,
        [float(x) for x in volume.origin], [float(s) for s in volume.spacing[::-1]],
        directions_of(volume.axes), 0, sitk.sitkUInt8,
    )  # fmt: skip
    return sitk.GetArrayFromImage(found).view(bool)


def _outside(theirs: Bools, steps: Points, shape: tuple[int, ...]) -> float:
    """Percent of a mask's voxels whose centre lies outside an image of *shape*."""
    limit = np.array(shape) - 0.5 + ON_THE_GRID
    if all(_inside((steps @ corner)[:3], limit).all() for corner in _corners(theirs.shape)):
        return 0.0
    lost = 0
    for k in np.flatnonzero(theirs.any(axis=(1, 2))):
        rows, columns = np.nonzero(theirs[k])
        points = steps[:3] @ np.array([np.full(len(rows), float(k)), rows, columns, np.ones(len(rows))])
        lost += int(np.count_nonzero(~_inside(points, limit[:, None]).all(axis=0)))
    return 100.0 * lost / int(np.count_nonzero(theirs))


def _inside(points: Points, limit: Points) -> Bools:
    return (points >= -0.5 - ON_THE_GRID) & (points <= limit)
