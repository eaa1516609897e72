"""`python -m node.bench.bare CASE FILE…`: the library calls that an operator cannot do without, and nothing else.

What pydicom, numpy, SciPy and SimpleITK take for the same result, as somebody would write it who knows that the
images are a regular stack with nothing padded. Prints a line of JSON with the seconds of each step.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from pydicom import dcmread

from node.bench.bare_regions import (
    emphysema,
    first_order,
    histogram,
    segment_lungs,
    segment_threshold,
    statistics,
    uptake,
)
from node.bench.bare_stack import Stack, segment_body


def read(files: Sequence[str]) -> Stack:
    """Every slice by its position, rescaled."""
    slices = [dcmread(file) for file in files]
    slices.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    first = slices[0]
    array = np.empty((len(slices), first.Rows, first.Columns), np.float32)
    for k, ds in enumerate(slices):
        np.multiply(ds.pixel_array, float(ds.get("RescaleSlope", 1)), out=array[k], casting="unsafe")
        array[k] += float(ds.get("RescaleIntercept", 0))
        del ds.PixelData
    apart = float(slices[1].ImagePositionPatient[2]) - float(slices[0].ImagePositionPatient[2])
    rows, columns = map(float, first.PixelSpacing)
    return Stack(array, (apart, rows, columns))


def _image(stack: Stack) -> sitk.Image:
    image = sitk.GetImageFromArray(stack.array)
    image.SetSpacing(stack.spacing[::-1])
    return image


def _resampled(image: sitk.Image, spacing: Sequence[float]) -> sitk.Image:
    """The same box in voxels of *spacing* (column, row, slice)."""
    size = [round(n * s / t) for n, s, t in zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)]
    origin = [
        o - s / 2 + t / 2 for o, s, t in zip(image.GetOrigin(), image.GetSpacing(), spacing, strict=True)
    ]
    return sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear, origin, spacing, image.GetDirection(), 0.0
    )


def reformat(stack: Stack) -> None:
    """Coronal slabs of 5 mm: means of whole and partial rows, then square pixels."""
    turned = stack.array.transpose(1, 0, 2)
    step = stack.spacing[1]
    edges = np.arange(len(turned) + 1) * step
    slabs = []
    for begin in np.arange(0, len(turned) * step - 5, 5):
        weights = np.diff(np.clip(edges, begin, begin + 5)) / step
        used = np.flatnonzero(weights > 1e-3)
        some = weights[used]
        block = turned[used[0] : used[-1] + 1]
        whole = np.broadcast_to(some[:, None, None], block.shape)
        slabs.append(np.einsum("kji,kji->ji", block, whole, dtype=np.float64) / some.sum())
    image = sitk.GetImageFromArray(np.asarray(slabs, np.float32))
    image.SetSpacing((stack.spacing[2], stack.spacing[0], 5.0))
    sitk.GetArrayFromImage(_resampled(image, (stack.spacing[2], stack.spacing[2], 5.0)))


def mip(stack: Stack) -> None:
    """The maximum along the rows, then square pixels."""
    image = sitk.GetImageFromArray(stack.array.max(axis=1)[None])
    image.SetSpacing((stack.spacing[2], stack.spacing[0], 1.0))
    sitk.GetArrayFromImage(_resampled(image, (stack.spacing[2], stack.spacing[2], 1.0)))


def mip_rotating(stack: Stack) -> None:
    """Twelve views of 2 mm: means over voxels of 2 mm, then maxima along turned lines."""
    parts = [max(1, math.ceil(2.0 / s - 1e-3)) for s in stack.spacing[::-1]]
    fine = _resampled(_image(stack), [2.0 / part for part in parts])
    image = sitk.BinShrink(fine, parts)
    columns, rows, slices = image.GetSize()
    across = math.ceil(math.hypot(columns, rows))
    centre = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    for view in range(12):
        angle = 2 * math.pi * view / 12
        cosine, sine = math.cos(angle), math.sin(angle)
        direction = (cosine, 0.0, -sine, sine, 0.0, cosine, 0.0, -1.0, 0.0)
        half = np.array([across, slices, across]) - 1.0
        origin = np.array(centre) - np.array(direction).reshape(3, 3) @ half
        seen = sitk.Resample(
            image, (across, slices, across), sitk.Transform(), sitk.sitkLinear, origin.tolist(),
            (2.0, 2.0, 2.0), direction, -1024.0,
        )  # fmt: skip
        sitk.GetArrayViewFromImage(seen).max(axis=0)


def smooth(stack: Stack) -> None:
    """A Gaussian of 6 mm width at half maximum."""
    sigma = 6.0 / 2.3548
    sitk.GetArrayFromImage(sitk.DiscreteGaussian(_image(stack), sigma**2))


def suv(stack: Stack) -> None:
    """One multiplication."""
    stack.array = np.multiply(stack.array, np.float32(1e-4))


def n4(stack: Stack) -> None:
    """N4 within Otsu's threshold on every fourth voxel, and one division at full resolution; one thread, as it sums."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image = _image(stack)
    bright = sitk.OtsuThreshold(image, 0, 1, 200)
    to = sitk.N4BiasFieldCorrectionImageFilter()
    to.SetMaximumNumberOfIterations([50] * 4)
    to.Execute(sitk.Shrink(image, [4] * 3), sitk.Shrink(bright, [4] * 3))
    field = sitk.GetArrayFromImage(to.GetLogBiasFieldAsImage(image))
    np.divide(stack.array, np.exp(field, out=field), out=field)


CASES: dict[str, Callable[[Stack], None]] = {
    one.__name__: one
    for one in (
        reformat,
        mip,
        mip_rotating,
        segment_body,
        statistics,
        first_order,
        histogram,
        segment_lungs,
        emphysema,
        smooth,
        suv,
        segment_threshold,
        uptake,
        n4,
    )
}


def main(steps: Sequence[str], files: Sequence[str]) -> dict[str, Any]:
    """Read, and do each of *steps*; the wall and processor seconds of each."""
    marks = [_now()]
    stack = read(files)
    marks.append(_now())
    for step in steps:
        CASES[step](stack)
        marks.append(_now())
    took = [(after[0] - at[0], after[1] - at[1]) for at, after in pairwise(marks)]
    names = ["reading", *steps]
    return {
        "seconds": {name: wall for name, (wall, _) in zip(names, took, strict=True)},
        "cpu": {name: cpu for name, (_, cpu) in zip(names, took, strict=True)},
    }


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1].split(","), json.loads(sys.stdin.read()))))
