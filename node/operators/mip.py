"""Projections: what lies behind each other in the patient as one picture, from one side or all around.

Parallel projection, so lengths across the line of sight are true (no magnification). A pixel is valid
where anything on its line was measured; elsewhere it holds the source's lowest value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from node.operator import Code, Mm, Picture, Refused, Volume
from node.operators.planes import AXIAL, CORONAL, FIXED, aligned, extent, turned
from node.operators.reformat import Combine, reduced, reformat
from node.operators.resample import resample
from node.operators.sampling import (
    AT_ONCE,
    FEW_AT_ONCE,
    SLACK,
    Bools,
    Floats,
    Lattice,
    Source,
    covering,
    lowest,
    settled,
    square,
)
from node.operators.turntable import Turntable

_NOTHING = "no voxel of the volume was measured; there is nothing to project"
_NAMES = {"max": "maximum", "min": "minimum", "mean": "mean"}


def mip(
    volume: Volume,
    *,
    plane: Literal["axial", "coronal", "sagittal"] = "coronal",
    combine: Combine = "max",
    thickness: Mm | None = None,
) -> Volume:
    """Project the whole volume onto a plane of the patient as its maximum, minimum or mean, or slabs of it.

    One slice, as thick as the volume is deep, in the directions that `reformat` gives this plane. A volume
    whose axes are the patient's is combined voxel for voxel, any other along interpolated lines no farther
    apart than its voxels. The pixels are square, as wide as the source's finest in-plane spacing; where
    the source's voxels are longer, the projection is interpolated linearly. With *thickness* the volume is
    cut into slabs first, each projected as `reformat` does it. Mean leaves out what was not measured.

    Raises Refused where nothing was measured, and with *thickness* what `reformat` does.
    """
    if thickness is not None:
        made = reformat(volume, plane=plane, thickness=thickness, combine=combine)
        return replace(made, facts={**made.facts, "projection": combine})
    axes, inplane = FIXED[plane], float(volume.spacing[1:].min())
    low, size = extent(volume, axes)
    own = aligned(volume, axes)
    if own is not None:
        made = _through(own, combine)
    else:
        step = float(volume.spacing.min())
        points = covering(low, size, axes, (step, inplane, inplane))
        made = _project(Source(volume), points, combine, volume.unit)
    if made.valid is not None and not made.valid.any():
        raise Refused(_NOTHING)
    facts = {**volume.facts, "slice_thickness": float(size[0]), "combined": combine, "projection": combine}
    return replace(square(made, inplane), facts=facts)


def mip_rotating(
    volume: Volume, *, views: int = 36, combine: Combine = "max", spacing: Mm | None = None
) -> Picture:
    """Project the volume from *views* directions around the patient, as frames of a rotating display.

    Frame 1 is seen from the front; then the observer walks around the patient, first to the patient's left
    side, so that a quarter of the frames later the left lateral view is seen, and so on for 360°. The
    patient stays upright: rows run to the foot, and in frame 1 columns to the left. Pixels are square,
    *spacing* wide (default: the source's finest in-plane spacing); a coarser one brings the volume to voxels
    of that size first, as `resample` does, which is quicker and quietens the noise that a maximum collects.

    Raises Refused where *views* or *spacing* are out of range or nothing was measured.
    """
    if not 2 <= views <= 720:
        raise Refused(f"{views} views are out of range; ask for 2 to 720")
    if spacing is not None and spacing <= 0:
        raise Refused(f"spacing {spacing:g} mm must be greater than 0")
    pixel = float(volume.spacing[1:].min()) if spacing is None else spacing
    seen = _coarser(volume, pixel) if spacing else volume
    step = _row_step(seen, pixel)
    points = [_view(seen, 360.0 * n / views, (pixel, step)) for n in range(views)]
    array, valid = _stacked((square(frame, pixel) for frame in _views(seen, points, combine)), views)
    if not valid.any():
        raise Refused(_NOTHING)
    facts = {k: v for k, v in volume.facts.items() if k not in ("slice_thickness", "frame_of_reference")}
    angles = tuple(360.0 * n / views for n in range(views))
    return Picture(
        array,
        volume.unit,
        (pixel, pixel),
        "patient",
        None if valid.all() else valid,
        title=f"Rotating {_NAMES[combine]} projection, {views} views",
        facts={**facts, "combined": combine, "projection": combine, "angles": angles},
    )


def _stacked(frames: Iterator[Volume], count: int) -> tuple[NDArray[np.float32], Bools]:
    """The *count* frames of one size in one array, each put there as it comes, and where they were measured."""
    first = next(frames)
    array = np.empty((count, *first.array.shape[1:]), np.float32)
    valid = np.empty(array.shape, bool)
    for n, frame in enumerate(chain((first,), frames)):
        array[n], valid[n] = frame.array[0], _measured(frame)[0]
    return array, valid


def _views(volume: Volume, points: Sequence[Lattice], combine: Combine) -> Iterator[Volume]:
    """Each view as one slice: slice by slice where they are axial, else from points in space."""
    table = Turntable(volume) if aligned(volume, AXIAL, exchange=False) else None
    if table is None or not all(table.sees(view) for view in points):
        source = Source(volume)
        yield from (_project(source, view, combine, volume.unit) for view in points)
        return
    low = lowest(volume)
    for view in points:
        best, share = table.project(view, combine)
        yield _settled(view, best, share, combine, low, volume.unit)


def _coarser(volume: Volume, spacing: float) -> Volume:
    """*volume* with no voxel side shorter than *spacing*."""
    sides = [max(float(s), spacing) for s in volume.spacing]
    return resample(volume, between_slices=sides[0], between_rows=sides[1], between_columns=sides[2])


def _row_step(volume: Volume, pixel: float) -> float:
    """How far rows are apart, mm: axial slices are seen edge on, and interpolated once projected."""
    return float(volume.spacing[0]) if aligned(volume, AXIAL, exchange=False) else pixel


def _view(volume: Volume, degrees: float, steps: tuple[float, float]) -> Lattice:
    """Points behind each other in the slices, *degrees* from the front; *steps* across and down, mm."""
    axes = turned(degrees) @ CORONAL
    low, size = extent(volume, AXIAL)  # along z, y, x
    across = math.hypot(size[1], size[2])  # the circle in which the patient turns
    centre = axes.T @ AXIAL @ (low + size / 2)
    deep, wide = (_as_centred(across, steps[0], float(side)) for side in size[1:])
    box = np.array([deep, size[0], wide])
    return covering(centre - box / 2, box, axes, (steps[0], steps[1], steps[0]))


def _as_centred(length: float, step: float, side: float) -> float:
    """*length* made a whole number of steps, as odd or even as those of *side*.

    Lines through a voxel grid about the same centre then go through its voxels' centres in the front view, and in the
    lateral ones where rows and columns are alike: between them a maximum would be a mean of neighbours.
    """
    count = math.ceil(length / step - SLACK)
    return step * (count + (count - round(side / step)) % 2)


def _through(volume: Volume, combine: Combine) -> Volume:
    """All slices of a volume as one, pixel by pixel."""
    array, share, low = _deep(volume, combine)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (len(volume.array) - 1) / 2
    affine[:3, 0] *= len(volume.array)
    valid = settled(array, share, low)  # a share of one voxel is more than enough
    return Volume(array[None], affine, volume.unit, None if valid is None else valid[None])


def _deep(volume: Volume, combine: Combine) -> tuple[Floats, Floats, float]:
    """Values, how many slices were measured, and what stands where none was."""
    if volume.valid is None and combine != "mean":
        found = volume.array.max(axis=0) if combine == "max" else volume.array.min(axis=0)
        if np.isfinite(found).all():
            return found.astype(np.float32), np.full(found.shape, len(volume.array), np.float32), 0.0
    low = lowest(volume)
    array, share = reduced(volume.array, np.ones(len(volume.array), np.float32), volume.valid, combine, low)
    return array, share, low


def _project(source: Source, points: Lattice, combine: Combine, unit: Code) -> Volume:
    """All slices of *points* as one: the extreme or the mean of what was measured on each line."""
    depth, rows, columns = points.shape
    count = max(1, (AT_ONCE if combine == "mean" else FEW_AT_ONCE) // (rows * columns))
    empty = {"max": -np.inf, "min": np.inf, "mean": 0.0}[combine]
    best = np.full((rows, columns), empty, np.float64)
    share = np.zeros((rows, columns), np.float32)
    for first in range(0, depth, count):
        values, measured = source.sample(points.slices(first, min(count, depth - first)))
        values = np.where(measured, values, np.float32(empty))
        share += measured.sum(axis=0, dtype=np.float32)
        if combine == "mean":
            best += values.sum(axis=0, dtype=np.float64)
        else:
            extreme = np.maximum if combine == "max" else np.minimum
            extreme(best, extreme.reduce(values, axis=0), out=best)
    return _settled(points, best, share, combine, source.low, unit)


def _settled(
    points: Lattice, best: NDArray[np.float64], share: Floats, combine: Combine, low: float, unit: Code
) -> Volume:
    """The extremes or sums over the depth of *points*, *share* of them each, as one slice."""
    depth, rows, columns = points.shape
    if combine == "mean":
        np.divide(best, share, out=best, where=share > 0)
    array = np.where(share > 0, best, low).astype(np.float32)[None]
    thick = points.spacing[0] * depth
    origin = points.origin + points.axes[:, 0] * (thick - points.spacing[0]) / 2
    affine = Lattice(origin, points.axes, (thick, *points.spacing[1:]), (1, rows, columns)).affine
    return Volume(array, affine, unit, settled(array, share[None], low))


def _measured(volume: Volume) -> Bools:
    return np.ones(volume.array.shape, bool) if volume.valid is None else volume.valid
