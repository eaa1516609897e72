"""The slow change of brightness that receive coils lay over an image, estimated and taken out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from node.operator import NO_UNITS, Mask, Refused, Volume
from node.operators.region import refuse_other_grid
from node.operators.sampling import image_of

Bools = NDArray[np.bool_]

LEAST_SIDE = 2
"""Voxels along each axis: the B-spline has no extent across a lone slice, and ITK fails on it."""
LEAST_VOXELS = 1000
"""Fewer tell shading from structure no more: the filter's histogram has 200 bins."""


def n4(
    volume: Volume,
    mask: Mask | None = None,
    *,
    shrink: int = 4,
    iterations: int = 50,
    levels: int = 4,
) -> Volume:
    """Correct the shading of an MR image by N4 (Tustison 2010, doi:10.1109/TMI.2010.2046908).

    The smooth field is fitted within *mask*, or where the image is brighter than Otsu's threshold, on every
    *shrink*-th voxel (fewer along an axis whose voxels are long already), with at most *iterations* at each of
    *levels* resolutions of its B-spline. The image is divided by the field at its full resolution, so nothing is
    interpolated. Values stay in arbitrary units, comparable within the image only.

    Raises Refused for values that have a unit (Hounsfield, Bq/ml, a quantitative map): dividing them by a field
    would make them wrong; for a single slice; and where an option is out of range or too little
    of the image is bright.
    """
    _check(volume, shrink, iterations, levels)
    array = np.ascontiguousarray(volume.array, np.float32)
    step = _steps(volume, shrink)
    seen = image_of(
        _where(volume, mask).view(np.uint8), volume
    )  # for its grid, too: a quarter of the image's size
    to = sitk.N4BiasFieldCorrectionImageFilter()
    to.SetMaximumNumberOfIterations([iterations] * levels)
    with _one_thread():
        to.Execute(sitk.Shrink(image_of(array, volume), step), sitk.Shrink(seen, step))
        field: NDArray[np.float32] = sitk.GetArrayFromImage(to.GetLogBiasFieldAsImage(seen))
    for k in range(len(field)):  # slice by slice: no third array of the volume's size
        np.divide(array[k], np.exp(field[k]), out=field[k])
    facts = {k: v for k, v in volume.facts.items() if k != "window"}  # what was bright is so no more
    return replace(volume, array=field, facts=facts)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let ITK add in one order: the spline's sums depend on how many threads share them, bit by bit.

    Only the process's default reaches the filters inside the filter.
    """
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _check(volume: Volume, shrink: int, iterations: int, levels: int) -> None:
    if volume.unit.value != NO_UNITS.value:
        raise Refused(
            f"the values are in {volume.unit.value}: shading is corrected in MR images of arbitrary units only, "
            "since measured values would be wrong after it"
        )
    if min(volume.array.shape) < LEAST_SIDE:
        sides = " x ".join(str(n) for n in volume.array.shape)
        raise Refused(
            f"the volume has {sides} voxels (slices, rows, columns): a field in space needs {LEAST_SIDE} or more along "
            "each; send the whole series rather than one slice of it"
        )
    for name, value, most in (
        ("shrink", shrink, 16),
        ("iterations", iterations, 1000),
        ("levels", levels, 8),
    ):
        if not 1 <= value <= most:
            raise Refused(f"{name} {value} is out of range: 1 to {most}")


def _where(volume: Volume, mask: Mask | None) -> Bools:
    """The voxels that the field is fitted to: measured, above 0 (their logarithm is taken), and asked for."""
    usable = volume.array > 0
    if volume.valid is not None:
        usable &= volume.valid
    if mask is not None:
        refuse_other_grid(volume, mask)
        usable &= mask.array
    elif usable.any():
        usable &= volume.array > _otsu(volume.array, volume.valid)
    count = int(usable.sum())
    if count < LEAST_VOXELS:
        source = "the mask" if mask is not None else "Otsu's threshold"
        raise Refused(
            f"{count} voxels above 0 lie within {source}; at least {LEAST_VOXELS} are needed to fit a field"
        )
    return usable


def _otsu(array: NDArray[Any], valid: Bools | None) -> float:
    values = array if valid is None else array[valid]
    return float(threshold_otsu(values)) if values.min() < values.max() else float(values.min())


def _steps(volume: Volume, shrink: int) -> list[int]:
    """How many voxels are taken as one along (column, row, slice): no longer together than *shrink* of the finest."""
    longest = shrink * float(volume.spacing.min())
    room = [max(1, size // 2) for size in volume.array.shape]  # two points are the least that has a slope
    steps = [
        max(1, min(shrink, int(longest / s + 1e-6), r)) for s, r in zip(volume.spacing, room, strict=True)
    ]
    return steps[::-1]
