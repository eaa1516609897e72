"""Segment: masks by threshold, and the outline of the body."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from node.operator import NO_UNITS, Mask, Number, Refused, Volume
from node.operators.codes import ANATOMY, ENTIRE_BODY, TISSUE
from node.operators.components import largest_piece

Bools = NDArray[np.bool_]

SKIN_HU = -300.0
"""Between air (-1000) and skin and fat (-120), nearer to fat: half-filled voxels at the skin count as body."""
OPENING_MM = 4.0
"""Radius that parts the body from what touches it thinly: table tops, blankets, tubes."""
BRIGHT_PERCENTILE = 99.0
"""Otsu's threshold is sought below this: a hot bladder is no class of its own."""


def segment_threshold(
    volume: Volume, *, at_least: Number, at_most: Number | None = None, label: str = "Threshold"
) -> Mask:
    """Mark every measured voxel from *at_least* to *at_most*, both included, in the volume's unit.

    Raises Refused where no voxel is in the range.
    """
    array = volume.array >= at_least
    if at_most is not None:
        array &= volume.array <= at_most
    if volume.valid is not None:
        array &= volume.valid
    upper = "" if at_most is None else f" and at most {at_most:g}"
    unit = "" if volume.unit.value == NO_UNITS.value else f" {volume.unit.value}"
    rule = f"at least {at_least:g}{upper}{unit}"
    if not array.any():
        raise Refused(f"no measured voxel is {rule}")
    return Mask(array, volume.affine, label, TISSUE, TISSUE, f"Threshold: {rule}")


def segment_body(volume: Volume, *, above: Number | None = None) -> Mask:
    """Mark the patient's body, with everything inside it (lungs and bowel gas too), without the table.

    Voxels *above* a level (default: -300 HU for CT, Otsu's threshold otherwise; Otsu 1979,
    doi:10.1109/TSMC.1979.4310076) are parted by an opening of 4 mm radius in each slice, the largest
    connected piece is kept, its own rim is given back, and its holes are filled slice by slice.
    Raises Refused where no body can be told from the background.
    """
    level, how = _level(volume, above)
    radius = OPENING_MM / volume.spacing[1:]
    core = largest_piece(_opened(_bright(volume, level), radius))
    if core is None:
        raise Refused(f"nothing above {level:.4g} {volume.unit.value} is as large as a body")
    reach = max(1, math.floor(radius.min()))  # geodesic: what an air gap parts from the core stays out
    near = ndimage.generate_binary_structure(2, 1)[None]
    body = ndimage.binary_dilation(core, near, reach, mask=_bright(volume, level))
    for k in range(len(body)):
        body[k] = _filled(body[k])
    description = f"Largest piece above {level:.4g} {volume.unit.value} ({how}), holes filled"
    return Mask(body, volume.affine, "Body", ANATOMY, ENTIRE_BODY, description)


def _bright(volume: Volume, level: float) -> Bools:
    """What is above *level*; made twice and not kept, since the pieces in between need the memory."""
    bright: Bools = volume.array > level
    if volume.valid is not None:
        bright &= volume.valid
    return bright


def _level(volume: Volume, above: float | None) -> tuple[float, str]:
    if above is not None:
        return float(above), "given"
    if volume.unit.value == "[hnsf'U]":
        return SKIN_HU, "between air and skin"
    values = volume.array if volume.valid is None else volume.array[volume.valid]
    capped = np.minimum(values, np.percentile(values, BRIGHT_PERCENTILE)) if values.size else values
    if not values.size or capped.min() == capped.max():
        raise Refused("the volume holds one value only; a body cannot be told from the background")
    return float(threshold_otsu(capped)), "Otsu"


def _opened(mask: Bools, radius: NDArray[np.float64]) -> Bools:
    """Open each slice with a disk of *radius* (rows, columns), in voxels."""
    tall, wide = math.floor(radius[0]), math.floor(radius[1])
    widths = [math.floor(radius[1] * math.sqrt(1 - (dy / radius[0]) ** 2) + 1e-9) for dy in range(tall + 1)]
    pad = 2 * max(tall, wide) + 1  # the body may leave the image: its cut edge is no outer edge
    out = np.empty_like(mask)
    for k, layer in enumerate(mask):
        eroded = _eroded(np.pad(layer, pad, mode="edge"), widths)
        out[k] = ~_eroded(~eroded, widths)[pad:-pad, pad:-pad]
    return out


def _eroded(layer: Bools, widths: Sequence[int]) -> Bools:
    """Erode a slice by a disk given as the half-width of each of its rows, from the middle one on.

    Row by row with whole-array shifts: thirty times faster than trying every voxel of the disk.
    """
    runs = [layer]
    for shift in range(1, widths[0] + 1):
        runs.append(runs[-1] & np.roll(layer, shift, 1) & np.roll(layer, -shift, 1))
    out: Bools = runs[widths[0]].copy()
    for dy, width in enumerate(widths[1:], 1):
        out &= np.roll(runs[width], dy, 0) & np.roll(runs[width], -dy, 0)
    return out


def _filled(layer: Bools) -> Bools:
    """Fill what the background cannot reach from the slice's edge."""
    outside, _ = ndimage.label(np.pad(~layer, 1, constant_values=True))
    return (outside != outside[0, 0])[1:-1, 1:-1]
