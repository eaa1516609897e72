"""A sheared stack, as a tilted gantry makes it, onto a straight grid: each slice is shifted in its plane."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

NEAR = 1e-3
"""Pixels: a shift as near to a whole number is one; positions are written with rounded decimals."""

Array = NDArray[np.floating]
Valid = NDArray[np.bool_] | None


@dataclass(frozen=True)
class Straight:
    """The grid on which every measured voxel of a sheared stack has a place."""

    shape: tuple[int, int, int]
    first: tuple[int, int]
    """Row and column of its first voxel, counted in pixels of slice 0."""
    shifts: tuple[tuple[float, float], ...]
    """Per slice: rows and columns by which it lies beside slice 0."""

    def affine(self, sheared: NDArray[np.float64]) -> NDArray[np.float64]:
        """The index-to-patient matrix, from that of slice 0 and the slices' normal."""
        moved = sheared.copy()
        moved[:3, 3] = (sheared @ [0, *self.first, 1])[:3]
        return moved


def straight(shape: tuple[int, int, int], sideways: tuple[float, float]) -> Straight:
    """The grid for a stack of *shape* whose slices step *sideways*, (rows, columns) each."""
    ends = [step * (shape[0] - 1) for step in sideways]
    first = [floor(min(0.0, end) + NEAR) for end in ends]
    extra = [ceil(max(0.0, end) - NEAR) for end in ends]
    size = [n + e - f for n, e, f in zip(shape[1:], extra, first, strict=True)]
    shifts = tuple((k * sideways[0], k * sideways[1]) for k in range(shape[0]))
    return Straight((shape[0], size[0], size[1]), (first[0], first[1]), shifts)


def shifted(
    plane: Array, valid: Valid, onto: Straight, k: int, fill: float
) -> tuple[Array, NDArray[np.bool_]]:
    """Slice *k* on the straight grid, linear between pixels, and where it was measured; *fill* elsewhere.

    A voxel counts as measured where every pixel that weighs in its value was.
    """
    measured = np.ones(plane.shape, bool) if valid is None else valid
    values = np.where(measured, plane, 0).astype(np.float64)
    weights = measured.astype(np.float64)
    for axis in (0, 1):
        at = onto.shifts[k][axis] - onto.first[axis]
        values = _along(values, axis, at, onto.shape[axis + 1])
        weights = _along(weights, axis, at, onto.shape[axis + 1])
    known = weights > 1 - 1e-9
    return np.where(known, values, fill).astype(plane.dtype), known


def _along(array: NDArray[np.float64], axis: int, at: float, size: int) -> NDArray[np.float64]:
    """*array* with its first element at place *at* of an axis of *size*; zero where it does not reach."""
    whole = floor(at + NEAR)
    part = at - whole if at - whole > NEAR else 0.0
    shape = list(array.shape)
    shape[axis] = size + 2
    wide = np.zeros(shape)
    view = np.moveaxis(wide, axis, 0)
    view[whole + 1 : whole + 1 + array.shape[axis]] = np.moveaxis(array, axis, 0)
    # The voxel n lies between the pixels n - whole - 1 (weight *part*) and n - whole.
    return np.moveaxis((1 - part) * view[1 : size + 1] + part * view[:size], 0, axis)
