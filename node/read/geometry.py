"""Where slices lie in the patient: pure, from headers to one grid or a refusal in words.

A series may become a volume only if its slices are parallel and evenly spaced along their common normal
(PS3.3 C.7.6.2.1.1); where they also step sideways, as with a tilted gantry, the grid says by how much.
Whatever is bent to fit here would be measured wrong later.
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
"""Farthest a slice may lie beside its even place, in pixels: less than interpolation blurs."""
STEEPEST = 45.0
"""Degrees: no gantry tilts as far; what does is no stack."""
SAME_PLACE_MM = 0.01
"""Nearer than this along the normal, two images show the same slice."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The slices in order and the matrix from their indices to the patient."""

    order: tuple[int, ...]
    """Which header is slice 0, 1, …: along the normal, row × column."""
    affine: Points
    """4 x 4: (slice, row, column, 1) → LPS millimetres, as if no slice stepped sideways."""
    sideways: tuple[float, float] = (0.0, 0.0)
    """Rows and columns by which each slice lies beside the one before."""
    tilt: float = 0.0
    """Degrees between the stack's axis and the slices' normal."""


class SamePlace(Refused):
    """Several images lie in one place: the series holds several stacks."""


def _numbers(header: Dataset, name: str, keyword: str, length: int) -> Points:
    value = header.get(keyword)
    try:
        numbers = np.array([float(v) for v in value], float)
    except (TypeError, ValueError):
        numbers = np.zeros(0)
    if numbers.size != length or not np.isfinite(numbers).all():
        raise Refused(f"{name} has no usable {keyword}, so where it lies is unknown")
    return numbers


def orientation_of(header: Dataset, name: str) -> Points:
    """Row and column direction cosines, 6 numbers. Raises Refused where *header* has none."""
    return _numbers(header, name, "ImageOrientationPatient", 6)


def position_of(header: Dataset, name: str) -> Points:
    """Centre of the first pixel, mm. Raises Refused where *header* has none."""
    return _numbers(header, name, "ImagePositionPatient", 3)


def directions_of(orientation: Points) -> Points:
    """Unit row and column direction and their normal as rows of a 3 x 3 array; Refused where they are none."""
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(orientation.reshape(2, 3), axis=1)
    if np.abs(lengths - 1).max() > 1e-2 or abs(row @ column) > 1e-2:
        raise Refused("ImageOrientationPatient does not hold two perpendicular directions of length 1")
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return np.array([row, column, np.cross(row, column)])


def _directions(headers: Sequence[Dataset], names: Sequence[str]) -> Points:
    """The directions that all slices share."""
    found = np.array([orientation_of(h, name) for h, name in zip(headers, names, strict=True)])
    spread = float(np.abs(found - found[0]).max())
    if spread > COSINE:
        raise Refused(
            f"the images have different orientations (ImageOrientationPatient differs by {spread:.3g}); "
            "they are not one stack, e.g. localizers or several stacks in one series; narrow the rule with "
            "`use` or `split: [orientation]`"
        )
    return directions_of(found[0])


def spacing_of(headers: Sequence[Dataset], names: Sequence[str]) -> Points:
    """Millimetres between rows and between columns (PS3.3 10.7.1.3), the same for all slices."""
    found = np.array([_numbers(h, name, "PixelSpacing", 2) for h, name in zip(headers, names, strict=True)])
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
        raise SamePlace(
            f"{same + 1 if same == 1 else same} of {len(offsets)} images lie where another image lies: the "
            "series holds several acquisitions, echoes, b-values or time points"
        )


def _even_step(offsets: Points) -> float:
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
        f"slices {worst + 1} and {worst + 2} of {len(offsets)}; {_what_next(float(steps[worst]) / usual)}"
    )


def _what_next(ratio: float) -> str:
    """What would make an even stack, from how the odd step compares with the usual one."""
    missing = round(ratio) - 1
    if missing >= 1 and abs(ratio - round(ratio)) <= UNEVEN_SHARE:
        images = "an image seems" if missing == 1 else f"{missing} images seem"
        return f"{images} to be missing there, send the series again"
    return "reconstruct the series with one increment"


def _sideways(points: Points, directions: Points, spacing: Points) -> tuple[float, float]:
    """Rows and columns by which each slice lies beside the one before; (0, 0) for a straight stack."""
    beside = (points - points[0]) @ directions[1::-1].T / spacing  # in rows and columns
    if np.abs(beside).max() <= SIDEWAYS_SHARE:
        return 0.0, 0.0
    count = np.arange(len(points))
    step = beside[-1] / count[-1]
    off = np.abs(beside - np.outer(count, step))
    if off.max() > SIDEWAYS_SHARE:
        worst = int(off.max(axis=1).argmax())
        raise Refused(
            "the slices step sideways, but not evenly as with a tilted gantry: "
            f"slice {worst + 1} of {len(points)} lies {off.max():.3g} pixels beside its place"
        )
    return float(step[0]), float(step[1])


def grid(headers: Sequence[Dataset], names: Sequence[str]) -> Grid:
    """The grid of the slices in *headers*, which messages call by *names*.

    Raises Refused where they are no regular stack, with the reason in words; SamePlace where they are
    several. Source of the mapping: PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1.
    """
    _one(headers, "FrameOfReferenceUID", "one frame of reference")
    rows, columns = _one(headers, "Rows", "one matrix"), _one(headers, "Columns", "one matrix")
    if not rows or not columns:
        raise Refused("the images have no Rows and Columns")
    directions = _directions(headers, names)
    spacing = spacing_of(headers, names)
    row, column, normal = directions
    points = np.array([position_of(h, name) for h, name in zip(headers, names, strict=True)])
    order = np.argsort(points @ normal, kind="stable")
    points = points[order]
    sideways, tilt = (0.0, 0.0), 0.0
    if len(points) == 1:
        step = _thickness(headers[0])
    else:
        _check_distinct(points @ normal)
        step = _even_step(points @ normal)
        sideways = _sideways(points, directions, spacing)
        tilt = float(np.degrees(np.arctan2(np.linalg.norm(np.multiply(sideways, spacing)), step)))
        if tilt > STEEPEST:
            raise Refused(f"the slices step sideways at {tilt:.0f}° from their normal; that is no stack")
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([step * normal, column * spacing[0], row * spacing[1]])
    affine[:3, 3] = points[0]
    return Grid(tuple(int(i) for i in order), affine, sideways, tilt)
