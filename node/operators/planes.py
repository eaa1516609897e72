"""Planes of the patient: which way a picture's axes run, and sources turned into them without interpolation.

Axes are 3 x 3 arrays, their columns the directions of (slice, row, column) in patient coordinates
(PS3.3 C.7.6.2.1.1); slices advance along the cross product of its row and column cosines, as readers sort.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from node.operator import Refused, Segments, Volume

Axes = NDArray[np.float64]
Plane = Literal["axial", "coronal", "sagittal", "oblique", "acquired"]

AXIAL: Axes = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Slices to the head (z), rows to the back (y), columns to the left (x)."""
CORONAL: Axes = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Slices to the back, rows to the foot, columns to the left."""
SAGITTAL: Axes = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""Slices to the right, rows to the foot, columns to the back."""
FIXED = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL}

ALIGNED = 1e-3
"""Direction cosines this near count as one direction (0.06°): over 360 mm of field a quarter of a pixel."""


def turned(degrees: float) -> Axes:
    """The rotation by *degrees* about the axis to the head; positive brings the front to the left."""
    angle = np.radians(degrees)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def tilted(degrees: float) -> Axes:
    """The rotation by *degrees* about the axis to the left; positive raises the back."""
    angle = np.radians(degrees)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])


def axes_of(plane: Plane, volume: Volume, tilt: float = 0.0, turn: float = 0.0) -> Axes:
    """The axes of *plane*. Raises Refused where angles are given for a plane that has none, or too large."""
    if plane != "oblique":
        if tilt or turn:
            raise Refused(f"tilt and turn belong to plane: oblique, not to {plane}; leave them out")
        return FIXED.get(plane, volume.axes)
    if abs(tilt) > 90 or abs(turn) > 180:
        raise Refused(
            f"a tilt of {tilt:g}° and a turn of {turn:g}° are out of range: at most 90° and 180° either way"
        )
    found: Axes = turned(turn) @ tilted(tilt) @ AXIAL
    return found


def aligned(volume: Volume, axes: Axes, *, exchange: bool = True) -> Volume | None:
    """*volume* with its axes flipped, and exchanged if allowed, to *axes*; None where that is not enough."""
    order = np.abs(axes.T @ volume.axes).argmax(axis=1) if exchange else np.arange(3)
    if sorted(order) != [0, 1, 2]:
        return None
    affine = volume.affine[:, [*order, 3]].copy()
    place = _exchanged(volume, affine, order)
    signs = np.sign(np.diag(axes.T @ place.axes))
    if np.abs(place.axes * signs - axes).max() > ALIGNED:
        return None
    flips = tuple(slice(None, None, int(s)) for s in signs)
    for axis, sign in enumerate(signs):
        if sign < 0:
            affine[:3, 3] += affine[:3, axis] * (place.array.shape[axis] - 1)
            affine[:3, axis] *= -1
    valid = None if place.valid is None else place.valid[flips]
    return replace(place, array=place.array[flips], affine=affine, valid=valid)


def _exchanged(volume: Volume, affine: Axes, order: NDArray[Any]) -> Volume:
    valid = None if volume.valid is None else volume.valid.transpose(order)
    return replace(volume, array=volume.array.transpose(order), affine=affine.copy(), valid=valid)


def extent(volume: Volume, axes: Axes) -> tuple[Axes, Axes]:
    """Lowest coordinate along each of *axes* that the volume's boxes reach, and how far they reach, mm."""
    ends = np.array([[-0.5, n - 0.5] for n in volume.array.shape])
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    placed = (corners @ volume.affine[:3, :3].T + volume.origin) @ axes
    return placed.min(axis=0), np.ptp(placed, axis=0)


def refuse_other_frame(volume: Volume, other: Volume | Segments, what_next: str) -> None:
    """Refuse two volumes unless both say that they lie in one frame of reference (PS3.3 C.7.4.1)."""
    what = "volume" if isinstance(other, Volume) else "volume or its segmentation"
    ours, theirs = (v.facts.get("frame_of_reference") for v in (volume, other))
    if not ours or not theirs:
        raise Refused(
            f"a {what} has no frame of reference, so where one lies in the other is unknown; {what_next}"
        )
    if ours != theirs:
        pair = "two volumes" if isinstance(other, Volume) else "volume and the segmentation"
        raise Refused(f"the {pair} have different frames of reference; {what_next}")
