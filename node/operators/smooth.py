"""Smooth: noise out, with a width in millimetres whatever the voxels.

Both ways look at measured voxels inside the volume only (normalised convolution), so that neither its
border nor padding pulls values down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ive

from node.operator import Mm, Refused, Volume

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian over its standard deviation: 2.355."""
_TAILS = 5.0
"""Standard deviations after which a Gaussian kernel ends, and a voxel more: its variance loses 1e-4."""
_SMOOTHED_AT_ONCE = 1 << 22
"""Voxels in double precision, and as many again beside them."""
_AT_ONCE = 1 << 22
"""Neighbours gathered in one go."""


def smooth(volume: Volume, *, width: Mm, method: Literal["gaussian", "median"] = "gaussian") -> Volume:
    """Smooth with a Gaussian of full width at half maximum *width*, or the median of a ball that wide.

    The Gaussian is the discrete one (Lindeberg 1990, doi:10.1109/34.49051), whose variance is exactly
    (*width* / 2.355)² in mm² along each axis, also where it is narrower than a voxel; an image that has
    itself a width w comes out with sqrt(w² + *width*²). The median takes voxels whose centre lies within
    *width* / 2, and keeps edges. What was not measured stays so and does not count.

    Raises Refused where *width* is not positive, wider than the volume, or a ball of it holds one voxel only.
    """
    if width <= 0:
        raise Refused(f"width {width:g} mm must be greater than 0")
    if width > float(np.max(volume.spacing * volume.array.shape)):
        raise Refused(f"a width of {width:g} mm is wider than the whole volume; ask for less")
    array = _gaussian(volume, width) if method == "gaussian" else _median(volume, width)
    if volume.valid is not None:
        array[~volume.valid] = volume.array.min()
    return replace(volume, array=array, facts={**volume.facts, "smoothed": f"{method} {width:g} mm"})


def _gaussian(volume: Volume, width: float) -> NDArray[np.float32]:
    """Value times measured, smoothed, over measured, smoothed: some slices at a time, with those that reach in."""
    kernels = [kernel_of(width / FWHM_PER_SIGMA / float(spacing)) for spacing in volume.spacing]
    reach = len(kernels[0]) // 2
    depth = len(volume.array)
    out = np.empty(volume.array.shape, np.float32)
    count = max(2 * reach, _SMOOTHED_AT_ONCE // math.prod(out.shape[1:]), 1)
    for first in range(0, depth, count):
        last = min(first + count, depth)
        around = slice(max(0, first - reach), min(depth, last + reach))
        kept = slice(first - around.start, last - around.start)
        block = volume.array[around]
        if volume.valid is None:
            weight = _weights(out.shape, kernels, slice(first, last))
        else:
            block = np.where(volume.valid[around], block, 0)
            weight = _convolved(volume.valid[around].astype(np.float64), kernels, kept)
        total = _convolved(block, kernels, kept)
        weight[weight <= 0] = np.inf  # nothing was measured near: 0
        total /= weight
        out[first:last] = total
    return out


def _convolved(
    block: NDArray[Any], kernels: Sequence[NDArray[np.float64]], kept: slice
) -> NDArray[np.float64]:
    """*block* smoothed along its slices, of which those *kept* go on, then along rows and columns."""
    found = ndimage.convolve1d(block, kernels[0], 0, output=np.float64, mode="constant")[kept]
    for axis in (1, 2):
        ndimage.convolve1d(found, kernels[axis], axis, output=found, mode="constant")
    return found


def _weights(
    shape: tuple[int, ...], kernels: Sequence[NDArray[np.float64]], kept: slice
) -> NDArray[np.float64]:
    """What a volume of ones becomes, slices *kept*: it differs along an axis only where that was smoothed."""
    weight = ndimage.convolve1d(np.ones((shape[0], 1, 1)), kernels[0], 0, mode="constant")[kept]
    for axis in (1, 2):
        wide = list(weight.shape)
        wide[axis] = shape[axis]
        weight = ndimage.convolve1d(np.broadcast_to(weight, wide), kernels[axis], axis, mode="constant")
    return weight


def kernel_of(sigma: float) -> NDArray[np.float64]:
    """The discrete Gaussian exp(-t) I_n(t) of variance t = *sigma*² in voxels², its sum 1."""
    reach = math.ceil(_TAILS * sigma) + 1
    kernel: NDArray[np.float64] = ive(np.abs(np.arange(-reach, reach + 1)), sigma**2)
    return kernel / kernel.sum()


def _median(volume: Volume, width: float) -> NDArray[np.float32]:
    ball = _ball(width / 2, volume.spacing)
    if np.count_nonzero(ball) == 1:
        raise Refused(
            f"a ball of {width:g} mm holds no neighbour of a voxel ({_sides(volume)} mm); ask for a wider one"
        )
    array = volume.array.astype(np.float32)
    out: NDArray[np.float32] = ndimage.median_filter(array, footprint=ball, mode="nearest")
    whole = np.ones(array.shape, bool) if volume.valid is None else volume.valid
    partial = ~ndimage.binary_erosion(whole, ball) & whole  # outside counts as not measured
    padded = np.pad(
        np.where(whole, array, np.nan), [(n // 2, n // 2) for n in ball.shape], constant_values=np.nan
    )
    steps = np.argwhere(ball)
    places = np.argwhere(partial)
    count = max(1, _AT_ONCE // len(steps))
    for first in range(0, len(places), count):
        some = places[first : first + count]
        around = (some[:, None] + steps[None]).reshape(-1, 3)
        found = padded[tuple(around.T)].reshape(len(some), len(steps))
        out[tuple(some.T)] = np.nanmedian(found, axis=1)
    return out


def _ball(radius: float, spacing: NDArray[Any]) -> NDArray[np.bool_]:
    """Which neighbours' centres lie within *radius* mm."""
    reach = [math.floor(radius / s + 1e-9) for s in spacing]
    ball = np.zeros([2 * n + 1 for n in reach], bool)
    for step in product(*(range(-n, n + 1) for n in reach)):
        inside = math.hypot(*(s * n for s, n in zip(spacing, step, strict=True))) <= radius * (1 + 1e-9)
        ball[tuple(s + n for s, n in zip(step, reach, strict=True))] = inside
    return ball


def _sides(volume: Volume) -> str:
    return " x ".join(f"{s:.3g}" for s in volume.spacing)
