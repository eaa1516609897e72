"""Where single-frame slices lie in the patient: pure, from headers to one grid or a refusal in words.

A series may become a volume only if its slices are parallel, stacked along their common normal and
evenly spaced (PS3.3 C.7.6.2.1.1). Whatever is bent to fit here would be measured wrong later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from node.errors import Refused

Points = NDArray[np.float64]

COSINE = 5e-4
"""How far direction cosines may differ: three-decimal headers pass; over 360 mm it is ¼ pixel."""
SPACING = 1e-4
"""Relative difference of Pixel Spacing: headers repeat the same text, so this only forgives its rounding."""
UNEVEN_MM = 0.1
"""Farthest a slice may lie from its even place: positions written with one decimal are 0.05 mm off each."""
UNEVEN_SHARE = 0.1
"""The same as a share of the spacing, for thin slices; a missing slice is off by half a spacing or more."""
SIDEWAYS_SHARE = 0.25
"""Farthest a slice may lie beside the stack's axis, in pixels: less than interpolation blurs."""
SAME_PLACE_MM = 0.01
"""Nearer than this along the normal, two images show the same slice."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The slices in order and the matrix from their indices to the patient."""

    order: tuple[int, ...]
    """Which header is slice 0, 1, …: along the normal, row × column."""
    affine: Points
    """4 x 4: (slice, row, column, 1) → LPS millimetres."""


def _numbers(header: Dataset, keyword: str, length: int) -> Points:
    value = header.get(keyword)
    try:
        numbers = np.array([float(v) for v in value], float)
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if numbers.size != length or not np.isfinite(numbers).all():
        raise Refused(
            f"image {header.get('InstanceNumber', '?')} has no usable {keyword}, so where it lies is unknown"
        )
    return numbers


def _directions(headers: Sequence[Dataset]) -> Points:
    """Unit row and column direction as rows of a 2 x 3 array, the same for all slices."""
    found = np.array([_numbers(h, "ImageOrientationPatient", 6) for h in headers])
    spread = float(np.abs(found - found[0]).max())
    if spread > COSINE:
        raise Refused(
            f"the images have different orientations (ImageOrientationPatient differs by {spread:.3g}); "
            "they are not one stack, e.g. localizers or several stacks in one series; narrow the rule with "
            "`use` or `split: [orientation]`"
        )
    row, column = found[0, :3], found[0, 3:]
    lengths = np.linalg.norm(found[0].reshape(2, 3), axis=1)
    if np.abs(lengths - 1).max() > 1e-2 or abs(row @ column) > 1e-2:
        raise Refused("ImageOrientationPatient does not hold two perpendicular directions of length 1")
    row = row / lengths[0]
    column = column - (column @ row) * row
    return np.array([row, column / np.linalg.norm(column)])


def _in_plane(headers: Sequence[Dataset]) -> Points:
    """Millimetres between rows and between columns (PS3.3 10.7.1.3), the same for all slices."""
    found = np.array([_numbers(h, "PixelSpacing", 2) for h in headers])
    if found.min() <= 0:
        raise Refused("PixelSpacing is not greater than 0, so sizes are unknown")
    if np.abs(found / found[0] - 1).max() > SPACING:
        values = sorted({" x ".join(f"{v:g}" for v in pair) for pair in found})
        raise Refused(f"the images have different PixelSpacing ({', '.join(values[:4])} mm)")
    return np.asarray(found[0])


def _one(headers: Sequence[Dataset], keyword: str, what: str) -> Any:
    """The one value of *keyword*, None where all lack it."""
    values = {str(h.get(keyword, "")) for h in headers}
    if len(values) > 1:
        raise Refused(f"the images do not share {what}: {len(values)} different {keyword}")
    return headers[0].get(keyword)


def _thickness(header: Dataset) -> float:
    """The extent of a lone slice across its plane; nothing else tells it."""
    try:
        thickness = float(header.get("SliceThickness"))
    except (TypeError, ValueError):
        thickness = 0.0
    if not thickness > 0:
        raise Refused("there is one image only and it has no SliceThickness: how deep it is, is unknown")
    return thickness


def _check_distinct(offsets: Points) -> None:
    same = int((np.diff(offsets) < SAME_PLACE_MM).sum())
    if same:
        raise Refused(
            f"{same + 1 if same == 1 else same} of {len(offsets)} images lie where another image lies: the "
            "series holds several acquisitions, echoes, b-values or time points; narrow the rule with `use` "
            "or `split`"
        )


def _check_even(offsets: Points) -> float:
    """The distance between slices; refuses gaps and uneven spacing."""
    steps = np.diff(offsets)
    even = float((offsets[-1] - offsets[0]) / len(steps))
    off = np.abs(offsets - (offsets[0] + even * np.arange(len(offsets))))
    if off.max() <= min(UNEVEN_MM, UNEVEN_SHARE * even):
        return even
    usual = float(np.median(steps))
    worst = int(np.abs(steps - usual).argmax())
    raise Refused(
        f"the slices are not evenly spaced: mostly {usual:.4g} mm apart, but {steps[worst]:.4g} mm between "
        f"slices {worst + 1} and {worst + 2} of {len(offsets)}; an image may be missing"
    )


def _check_straight(points: Points, normal: Points, pixel: float) -> None:
    """Refuses a sheared stack: its slices step sideways, as with a tilted gantry."""
    steps = points - points[0]
    along = steps @ normal
    sideways = np.linalg.norm(steps - np.outer(along, normal), axis=1)
    if sideways.max() > SIDEWAYS_SHARE * pixel:
        tilt = np.degrees(np.arctan2(sideways[-1], along[-1]))
        raise Refused(
            f"the stack is sheared: its slices step sideways by {sideways.max():.3g} mm, {abs(tilt):.1f}° "
            "from their normal, as with a tilted gantry; this version does not resample such stacks"
        )


def grid(headers: Sequence[Dataset]) -> Grid:
    """The grid of the slices in *headers*.

    Raises Refused where they are no regular stack, with the reason in words. Source of the mapping:
    PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1.
    """
    _one(headers, "FrameOfReferenceUID", "one frame of reference")
    rows, columns = _one(headers, "Rows", "one matrix"), _one(headers, "Columns", "one matrix")
    if not rows or not columns:
        raise Refused("the images have no Rows and Columns")
    row, column = _directions(headers)
    between_rows, between_columns = _in_plane(headers)
    normal = np.cross(row, column)
    points = np.array([_numbers(h, "ImagePositionPatient", 3) for h in headers])
    order = np.argsort(points @ normal, kind="stable")
    points = points[order]
    if len(points) == 1:
        step = _thickness(headers[0]) * normal
    else:
        _check_distinct(points @ normal)
        _check_straight(points, normal, float(min(between_rows, between_columns)))
        step = _check_even(points @ normal) * normal
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([step, column * between_rows, row * between_columns])
    affine[:3, 3] = points[0]
    return Grid(tuple(int(i) for i in order), affine)
