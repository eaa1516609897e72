"""Resample: the same image on another grid, its values unchanged in meaning."""

from __future__ import annotations

from dataclasses import replace

from node.operator import Mm, Refused, Volume
from node.operators.planes import refuse_other_frame
from node.operators.sampling import (
    Interpolation,
    Lattice,
    Source,
    covering,
    extent_of,
    lattice_of,
    means,
    settled,
)


def resample(
    volume: Volume,
    like: Volume | None = None,
    *,
    spacing: Mm | None = None,
    between_slices: Mm | None = None,
    between_rows: Mm | None = None,
    between_columns: Mm | None = None,
    interpolation: Interpolation = "linear",
) -> Volume:
    """Resample to voxels of *spacing* in all directions, or onto the grid of *like*.

    *between_slices*, *between_rows* and *between_columns* set one direction each; what is not set stays as
    it is. The new grid has the old directions and covers the old one; what does not fit hangs out on both
    sides by less than half a voxel. *linear* and *bspline* (cubic, which may overshoot at edges; Unser 1999,
    doi:10.1109/79.799930) give voxels larger than the source's the mean over their box, so that nothing is
    missed and the mean of the image stays; *nearest* takes single values, for labels. Values are taken as
    intensities of a place: counts stay counts per source voxel. A voxel is valid if at least half of its
    box was measured; elsewhere it holds the source's lowest value.

    Raises Refused where nothing or too much is asked, the grid would be larger than an image may be, *like*
    lies in another frame of reference, or the two do not overlap.
    """
    sides = (between_slices, between_rows, between_columns)
    if (like is not None) + (spacing is not None or any(s is not None for s in sides)) != 1:
        raise Refused("give either spacing (or between_slices, between_rows, between_columns) or like")
    if like is not None:
        refuse_other_frame(volume, like, "register them first (register_rigid)")
        points = lattice_of(like)
    else:
        points = _finer(volume, [spacing if s is None else s for s in sides])
    source = Source(volume, interpolation)
    array, share = means(source, points)
    valid = settled(array, share, source.low)
    if valid is not None and not valid.any():
        raise Refused("the two volumes do not overlap; nothing of the one lies in the grid of the other")
    facts = {**volume.facts, "slice_thickness": points.spacing[0]}
    return replace(volume, array=array, affine=points.affine, valid=valid, facts=facts)


def _finer(volume: Volume, asked: list[float | None]) -> Lattice:
    """The volume's own directions with the spacings that are *asked* for."""
    if any(side is not None and side <= 0 for side in asked):
        raise Refused("a spacing must be greater than 0 mm")
    steps = [float(s) if side is None else float(side) for s, side in zip(volume.spacing, asked, strict=True)]
    return covering(*extent_of(volume), volume.axes, (steps[0], steps[1], steps[2]))
