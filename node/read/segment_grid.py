"""Where the frames of a segmentation lie: pure, from functional groups to one regular grid or a refusal in words.

Its planes may have gaps, since empty frames are left out, so the distance between them is not what lies between
two frames: it is what Spacing Between Slices (PS3.3 C.7.6.16.2.1) says where all positions fit to it, else the
smallest distance there is, where all fit to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from node.errors import Refused
from node.read.geometry import (
    COSINE,
    SAME_PLACE_MM,
    SIDEWAYS_SHARE,
    UNEVEN_MM,
    UNEVEN_SHARE,
    directions_of,
    orientation_of,
    position_of,
    spacing_of,
)
from node.read.objects import items, number

_MOST_SLICES = 20_000
"""Of a grid; a segmentation that would need more has its positions wrong."""


@dataclass(frozen=True, eq=False)
class SegmentGrid:
    """The grid, and which of its slices each frame is."""

    slices: tuple[int, ...]
    """Per frame, from 0."""
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]


def segment_grid(header: Dataset, shared: Dataset, groups: Sequence[Dataset]) -> SegmentGrid:
    """The grid of all frames. Raises Refused where they have no place in the patient or fit on no regular grid."""
    rows, columns = (int(number(header, keyword) or 0) for keyword in ("Rows", "Columns"))
    if not rows or not columns:
        raise Refused("the segmentation has no Rows and Columns")
    names = [f"frame {n} of the segmentation" for n in range(1, len(groups) + 1)]
    row, column, normal = _directions(shared, groups, names)
    measures = _items(shared, groups, "PixelMeasuresSequence", names)
    spacing = spacing_of(measures, names)
    points = np.array(
        [
            position_of(item, name)
            for item, name in zip(_items(shared, groups, "PlanePositionSequence", names), names, strict=True)
        ]
    )
    offsets = points @ normal
    low = float(offsets.min())
    step, slices = _places(offsets - low, measures[0])
    first = points[int(offsets.argmin())]
    _refuse_sideways(points - first, np.array([column, row]), spacing)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([step * normal, column * spacing[0], row * spacing[1]])
    affine[:3, 3] = first
    return SegmentGrid(tuple(slices.tolist()), (int(slices.max()) + 1, rows, columns), affine)


def _items(shared: Dataset, groups: Sequence[Dataset], macro: str, names: Sequence[str]) -> list[Dataset]:
    """The item of *macro* that holds for each frame."""
    common = items(shared, macro)
    found = []
    for group, name in zip(groups, names, strict=True):
        own = items(group, macro) or common
        if not own:
            raise Refused(
                f"{name} has no {macro}, so where it lies in the patient is unknown; segmentations of slides "
                "and of single pictures are not read"
            )
        found.append(own[0])
    return found


def _directions(shared: Dataset, groups: Sequence[Dataset], names: Sequence[str]) -> NDArray[np.float64]:
    found = _items(shared, groups, "PlaneOrientationSequence", names)
    first = orientation_of(found[0], names[0])
    for item, name in zip(found, names, strict=True):
        if item is not found[0] and np.abs(orientation_of(item, name) - first).max() > COSINE:
            raise Refused("the frames of the segmentation have different orientations; they are no one grid")
    return directions_of(first)


def _places(offsets: NDArray[np.float64], measures: Dataset) -> tuple[float, NDArray[np.int64]]:
    """The distance between slices, and which slice lies at each offset from the first."""
    apart = np.diff(np.unique(offsets))
    apart = apart[apart > SAME_PLACE_MM]
    stated = abs(number(measures, "SpacingBetweenSlices") or 0.0)
    if not len(apart):
        step = stated or number(measures, "SliceThickness") or 0.0
        if not step > 0:
            raise Refused(
                "the segmentation has one plane only and neither SpacingBetweenSlices nor SliceThickness: how "
                "deep it is, is unknown"
            )
        return step, np.zeros(len(offsets), np.int64)
    # Planes as thin as stated, with others between them that hold nothing; else the nearest are neighbours.
    thin = 0.0 if stated else number(measures, "SliceThickness") or 0.0
    thin = thin if thin < apart.min() * (1 - UNEVEN_SHARE) else 0.0
    for asked in (stated, thin, float(apart.min())):
        fitted = _fitted(offsets, asked)
        if fitted is not None:
            return fitted
    raise Refused(
        f"the planes of the segmentation are not evenly spaced: the nearest are {apart.min():.4g} mm apart, "
        f"and others no multiple of that{f', nor of the {stated:g} mm that it states' if stated else ''}"
    )


def _fitted(offsets: NDArray[np.float64], step: float) -> tuple[float, NDArray[np.int64]] | None:
    """*step* made exact, and the slices; None where offsets lie beside its multiples."""
    if not step > 0 or offsets.max() / step > _MOST_SLICES:
        return None
    slices = np.rint(offsets / step).astype(np.int64)
    if not slices.any():
        return None
    even = float(offsets.max() / slices[int(offsets.argmax())])
    off = np.abs(offsets - slices * even)
    return (even, slices) if off.max() <= min(UNEVEN_MM, UNEVEN_SHARE * even) else None


def _refuse_sideways(apart: NDArray[Any], plane: NDArray[Any], spacing: NDArray[Any]) -> None:
    beside = np.abs(apart @ plane.T / spacing).max()
    if beside > SIDEWAYS_SHARE:
        raise Refused(
            f"the frames of the segmentation step sideways by up to {beside:.3g} pixels, as of a tilted gantry; "
            "segment the images after resampling them upright"
        )
