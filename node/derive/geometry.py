"""Planes in patient coordinates: what a slice says, what a grid needs, who contributed to what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat, format_number_as_ds

from node.operator import FractionalMask, Map, Mask, Volume

_NEAR = 1e-3
"""mm and cosines: well above the rounding of 16-character decimals, below what a reader can see."""


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice (PS3.3 C.7.6.2): centre of its first voxel, axes and mm per row and column."""

    position: NDArray[np.float64]
    along_row: NDArray[np.float64]
    """Direction of growing column index."""
    along_column: NDArray[np.float64]
    """Direction of growing row index."""
    spacing: tuple[float, float]
    """mm between rows, mm between columns."""
    rows: int
    columns: int

    @cached_property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slice."""
        return np.cross(self.along_row, self.along_column)

    def corners(self) -> NDArray[np.float64]:
        """4 x 3: the centres of the corner voxels."""
        right = self.along_row * self.spacing[1] * (self.columns - 1)
        down = self.along_column * self.spacing[0] * (self.rows - 1)
        return np.array(
            [self.position, self.position + right, self.position + down, self.position + right + down]
        )


def plane_of(header: Dataset) -> Plane | None:
    """Read the plane a single-frame header states, None where it states none that can be used."""
    try:
        position = np.array([float(v) for v in header.ImagePositionPatient])
        axes = np.array([float(v) for v in header.ImageOrientationPatient]).reshape(2, 3)
        spacing = tuple(float(v) for v in header.PixelSpacing)
        rows, columns = int(header.Rows), int(header.Columns)
    except (AttributeError, TypeError, ValueError):
        return None
    lengths = np.linalg.norm(axes, axis=1)
    if position.shape != (3,) or len(spacing) != 2 or min(lengths) < 0.5:
        return None
    along_row, along_column = axes / lengths[:, None]
    return Plane(position, along_row, along_column, (spacing[0], spacing[1]), rows, columns)


def planes_of(grid: Volume | Mask | FractionalMask | Map) -> list[Plane]:
    """One plane per slice index of a grid."""
    _, rows, columns = grid.array.shape
    along_slice = grid.affine[:3, 0]
    spacing = (float(grid.spacing[1]), float(grid.spacing[2]))
    return [
        Plane(grid.origin + k * along_slice, grid.axes[:, 2], grid.axes[:, 1], spacing, rows, columns)
        for k in range(grid.array.shape[0])
    ]


def same_planes(ours: Sequence[Plane], theirs: Sequence[Plane | None]) -> bool:
    """Whether both stacks are voxel for voxel in the same place."""
    if len(ours) != len(theirs):
        return False
    return all(b is not None and _same(a, b) for a, b in zip(ours, theirs, strict=True))


def _same(a: Plane, b: Plane) -> bool:
    if (a.rows, a.columns) != (b.rows, b.columns):
        return False
    return bool(np.abs(a.corners() - b.corners()).max() < max(_NEAR, 0.01 * min(a.spacing)))


def contributors(plane: Plane, thickness: float, sources: Sequence[Plane | None], gap: float) -> list[int]:
    """Find the sources whose slabs meet the slab of *plane*; all of them where they state no planes.

    *gap* is the distance between neighbouring sources, taken as the thickness of theirs: a resampler
    looks no further.
    """
    known = [(i, source) for i, source in enumerate(sources) if source is not None]
    if len(known) < len(sources) or not known:
        return list(range(len(sources)))
    across = plane.normal * thickness / 2
    slab = np.concatenate([plane.corners() + across, plane.corners() - across])
    found, nearest = [], (np.inf, 0)
    for i, source in known:
        heights = (slab - source.position) @ source.normal
        distance = max(float(heights.min()), -float(heights.max()), 0.0)
        nearest = min(nearest, (distance, i))
        if distance < gap / 2 - _NEAR:
            found.append(i)
    return found or [nearest[1]]


def gap_of(planes: Sequence[Plane | None]) -> float:
    """Measure the usual distance between neighbouring planes, mm; 0 for fewer than two."""
    known = [plane for plane in planes if plane is not None]
    offsets = np.unique(np.round([float(p.position @ known[0].normal) for p in known], 3))
    return float(np.median(np.diff(offsets))) if len(offsets) > 1 else 0.0


def decimal(value: Any) -> str:
    """Write a number as a decimal string of at most 16 characters; minus zero is zero (PS3.5 6.2 DS)."""
    number = round(float(value), 12) + 0.0
    return str(DSfloat(number)) if len(repr(number)) <= 16 else str(format_number_as_ds(number))


def decimals(numbers: Any) -> list[str]:
    """Each of *numbers* as a decimal string."""
    return [decimal(number) for number in numbers]
