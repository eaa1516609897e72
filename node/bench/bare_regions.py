"""The bare calls for what is found and measured in regions: SciPy's labels, ITK's distances, NumPy's sums."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)
from numpy.typing import NDArray
from scipy import ndimage

from node.bench.bare_stack import Bools, Floats, Stack, segment_body


def _values(stack: Stack) -> Floats:
    values: Floats = stack.array if stack.mask is None else stack.array[stack.mask]
    return values


def statistics(stack: Stack) -> None:
    """Five numbers of the masked values, in double precision."""
    values = _values(stack).astype(np.float64)
    _ = values.mean(), values.std(), values.min(), values.max(), np.median(values)


def first_order(stack: Stack) -> None:
    """What the 18 features need: percentiles, and sums over the masked values in double precision."""
    values = _values(stack).astype(np.float64)
    mean = values.mean()
    p10, _, median, _, p90 = np.percentile(values, (10, 25, 50, 75, 90))
    off = values - mean
    square = off * off
    _ = square.sum(), (square * off).sum(), (square * square).sum(), np.abs(off).sum()
    _ = np.abs(values - median).sum(), (values * values).sum(), values.min(), values.max()
    kept = values[(values >= p10) & (values <= p90)]
    _ = np.abs(kept - kept.mean()).sum()


def histogram(stack: Stack) -> None:
    """Percentiles for the axis, a hundred steps, and the graph as pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (only here is it drawn)
    from matplotlib.figure import Figure  # noqa: PLC0415

    values = _values(stack)
    low, high = np.percentile(values, (0.1, 99.9))
    counted, edges = np.histogram(values, 100, (low, high))
    figure = Figure(figsize=(10.24, 7.68), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.stairs(100 * counted / values.size, edges, label="region")
    axes.legend()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    np.asarray(canvas.buffer_rgba())[..., :3].copy()


def segment_lungs(stack: Stack) -> None:
    """Air in the body, followed down the airways and without them, its two largest pieces, closed by 4 mm."""
    segment_body(stack)
    assert stack.mask is not None  # noqa: S101 (the line above)
    air = (stack.array < -400) & stack.mask
    _without_airway(air, stack)
    pieces, count = ndimage.label(air)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    left, right = (pieces == n for n in np.argsort(-sizes)[:2])
    stack.lungs = tuple(_closed(one, stack) & stack.mask for one in (left, right))


def _without_airway(air: Bools, stack: Stack) -> None:
    """From the head on, the round piece near the middle, and what lies below it and is no lung."""
    area = stack.spacing[1] * stack.spacing[2]
    middle, piece, first = air.shape[2] / 2, None, 0.0
    for k in reversed(range(len(air))):
        layer = air[k]
        labels, count = ndimage.label(layer)
        sizes = np.bincount(labels.ravel(), minlength=count + 1) * area
        if piece is None:
            for n, box in enumerate(ndimage.find_objects(labels), 1):
                near = abs((box[1].start + box[1].stop) / 2 - middle) * stack.spacing[2] < 45
                if near and 40 <= sizes[n] <= 700:
                    piece, first = labels == n, sizes[n]
        else:
            touched = np.unique(labels[piece])
            piece = np.isin(labels, touched[(touched > 0) & (sizes[touched] <= 3 * first)])
        if piece is not None:
            air[k] = layer & ~piece


def _closed(lung: Bools, stack: Stack) -> Bools:
    """A closing by a ball of 4 mm, in the box around it."""
    (box,) = ndimage.find_objects(lung.view(np.uint8))
    reach = [math.ceil(4.0 / s) + 1 for s in stack.spacing]
    part = np.pad(lung[box], [(r, r) for r in reach])
    for _ in range(2):
        image = sitk.GetImageFromArray(part.view(np.uint8))
        image.SetSpacing(stack.spacing[::-1])
        away = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
        distance = sitk.GetArrayViewFromImage(away)
        part = distance > 4.0  # at first what is not grown, then what of the grown is kept
    out = lung.copy()
    out[box] |= part[tuple(slice(r, -r) for r in reach)]
    return out


def emphysema(stack: Stack) -> None:
    """Share below -950 HU, 15th percentile and mean of both lungs and of each."""
    each = [stack.array[lung] for lung in stack.lungs]
    for values in (np.concatenate(each), *each):
        _ = np.count_nonzero(values < -950), np.percentile(values, 15), values.mean(dtype=np.float64)


def segment_threshold(stack: Stack) -> None:
    """One comparison."""
    stack.mask = stack.array >= LEVEL


LEVEL = 12000.0
"""Bq/ml: vertebrae and ribs of the phantom."""


def uptake(stack: Stack) -> None:
    """Maximum and mean, the mean over 41 % of the maximum, and the highest mean in a sphere of 1 ml around a voxel."""
    assert stack.mask is not None  # noqa: S101 (a step before this one made it)
    values = stack.array[stack.mask]
    top = values.max()
    _ = values.mean(dtype=np.float64), values[values >= 0.41 * top].mean(dtype=np.float64)
    (box,) = ndimage.find_objects(stack.mask.view(np.uint8))
    means = ndimage.correlate(stack.array[box].astype(np.float64), _sphere(stack.spacing), mode="constant")
    means[stack.mask[box]].max()


def _sphere(spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """The share of each voxel in a sphere of 1 ml, at 12 x 12 x 12 points of it."""
    radius = 10 * (3 / (4 * math.pi)) ** (1 / 3)
    parts = (np.arange(12) + 0.5) / 12 - 0.5
    reach = [math.ceil(radius / s + 0.5) for s in spacing]
    squares = [
        (((np.arange(-n, n + 1)[:, None] + parts) * s) ** 2).ravel()
        for n, s in zip(reach, spacing, strict=True)
    ]
    inside = squares[0][:, None, None] + squares[1][:, None] + squares[2] <= radius**2
    share = inside.reshape([v for n in reach for v in (2 * n + 1, 12)]).sum(axis=(1, 3, 5), dtype=np.float64)
    return share / share.sum()
