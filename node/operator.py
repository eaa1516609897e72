"""The one module a plugin imports: what operators take and give.

An operator is a typed function. Positional parameters are inputs (an earlier step's result or the
received series), keyword-only ones are options with a unit and a default:

    def emphysema_index(volume: Volume, mask: Mask, *, below: HU = -950) -> list[Measurement]:
        \"\"\"Share of lung voxels darker than *below*.\"\"\"

Axes are (slice, row, column) everywhere; *affine* maps array indices (k, j, i, 1) to millimetres in
DICOM's patient coordinates: x to the Left, y to Posterior, z to the Superior (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from node.errors import Broken, Refused
from node.model import Code

__all__ = [
    "HU", "Broken", "Code", "Mask", "Measurement", "Mm", "Number", "Refused", "Unit", "Volume", "affine_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unit:
    """Annotation of an option: the UCUM unit its number is in, whatever unit the rule wrote."""

    ucum: str


HU = Annotated[float, Unit("[hnsf'U]")]
"""CT number (UCUM `[hnsf'U]`)."""
Mm = Annotated[float, Unit("mm")]
"""Millimetres."""
Number = float
"""A number in the unit of the volume it is compared with."""


def affine_of(origin: NDArray[Any], axes: NDArray[Any], spacing: NDArray[Any]) -> NDArray[np.float64]:
    """The 4 x 4 index-to-patient matrix from the first voxel's centre, unit axes (columns), mm per index."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(axes, float) * np.asarray(spacing, float)
    affine[:3, 3] = origin
    return affine


SAME_PLACE_MM = 1e-3
"""Grids whose corners agree this well are one grid, geometry having gone through decimal text (DS)."""


class _Grid:
    """Geometry shared by everything that lives on a voxel grid."""

    array: NDArray[Any]
    affine: NDArray[np.float64]

    def same_grid(self, other: Volume | Mask) -> bool:
        """Whether voxel (k, j, i) is at the same place in both, and both have as many."""
        if self.array.shape != other.array.shape:
            return False
        ends = np.array([[0, n - 1] for n in self.array.shape])
        corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
        apart = (self.affine - other.affine)[:3] @ np.c_[corners, np.ones(len(corners))].T
        return bool(np.abs(apart).max() < SAME_PLACE_MM)

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Millimetres between neighbours along (slice, row, column) indices."""
        spacing: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return spacing

    @property
    def axes(self) -> NDArray[np.float64]:
        """3 x 3: column *a* is the unit vector of array axis *a* in patient coordinates."""
        return self.affine[:3, :3] / self.spacing

    @property
    def origin(self) -> NDArray[np.float64]:
        """Centre of voxel (0, 0, 0), mm."""
        return self.affine[:3, 3]

    @property
    def voxel_volume(self) -> float:
        """mm³ of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


@dataclass(frozen=True, eq=False)
class Volume(_Grid):
    """A scalar image on a regular grid, already rescaled to *unit*."""

    array: NDArray[Any]
    """(slices, rows, columns), real-world values."""
    affine: NDArray[np.float64]
    """4 x 4, array index → LPS millimetres; its upper 3 x 3 has orthogonal columns."""
    unit: Code
    """UCUM unit of the values; `1` (no units) for arbitrary MR intensities."""
    valid: NDArray[np.bool_] | None = None
    """False where the scanner padded (outside the field of view); None when every voxel was measured."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Named facts an operator may ask for: `modality` (CT, MR, PT), `slice_thickness` (mm), `b_value` …"""


@dataclass(frozen=True, eq=False)
class Mask(_Grid):
    """One segment: which voxels belong to it, and what it is."""

    array: NDArray[np.bool_]
    affine: NDArray[np.float64]
    label: str
    """Shown to people: Segment Label."""
    category: Code
    """Segmented Property Category (CID 7150)."""
    type: Code
    """Segmented Property Type (CID 7151 …)."""
    description: str = ""
    """How it was made: Segment Algorithm Name or Description."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """One number with its meaning: a NUM content item of TID 300 / 1419."""

    name: Code
    """The quantity, e.g. Volume (118565006, SCT)."""
    value: float
    unit: Code
    """UCUM."""
    derivation: Code | None = None
    """Mean, Maximum …: TID 1419 Derivation (121401, DCM)."""
    method: Code | None = None
    region: Mask | None = None
    """What was measured; None for the whole volume."""
