"""Reference tissue: the uptake of liver or blood pool, by which foci are judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from node.operator import Mask, Measurement, Refused, Remark, Report, Volume
from node.operators.boxes import box_of
from node.operators.codes import MEAN, MEASURABLE, STANDARD_DEVIATION
from node.operators.pet.measuring import (
    method_of,
    origin_of,
    quantity_of,
    refuse_elsewhere,
)
from node.operators.region import beyond

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

LIVER_RADIUS, POOL_RADIUS, POOL_LENGTH = 15.0, 5.0, 20.0
"""mm: a sphere of 3 cm in the liver, a cylinder 1 cm wide and 2 cm long in the descending aorta."""
_ROUNDING = 1e-6


def reference_uptake(
    volume: Volume, mask: Mask, *, tissue: Literal["liver", "blood_pool"] = "liver"
) -> Report:
    """Measure mean and standard deviation of a reference volume that lies in a region, as PERCIST 1.0 wants it.

    In the liver a sphere of 3 cm diameter, around the point that lies deepest in the region; in the blood pool a
    cylinder of 1 cm diameter and 2 cm length along the axis of the body, where the region (the descending aorta) is
    widest for so long; of several places the first in the volume. A voxel counts where its centre does. Where the
    values are SUVs of lean body mass, the least peak of a measurable focus is a measurement as well: 1.5 x mean + 2
    SD of the liver, 2 x mean + 2 SD of the blood pool (Wahl et al. 2009, J Nucl Med 50:122S). The standard deviation
    is that of the population. Where the shape does not fit into the region a remark says so, and there is no number;
    one more says how much of the region lies outside the image, if any does.

    Raises Refused where the region is empty or on another grid, or the volume is in another unit than SUV or Bq/ml.
    """
    name = quantity_of(volume)
    refuse_elsewhere(volume, mask)
    inside = mask.array if volume.valid is None else mask.array & volume.valid
    if not inside.any():
        raise Refused(f"nothing in the region {mask.label} was measured")
    found = _found(volume, inside, _sphere if tissue == "liver" else _cylinder)
    what, times = ("sphere of 3 cm diameter", 1.5) if tissue == "liver" else ("cylinder of 1 x 2 cm", 2.0)
    if found.inside is None:
        said = (
            f"{mask.label}: no reference value, since a {what} does not fit into the region ({found.reason})."
        )
        return Report((), (*beyond(mask), Remark(said, missing=True)))
    region = Mask(
        found.inside, volume.affine, f"{mask.label} reference"[:64], mask.category, mask.type,
        f"{what.capitalize()} in {mask.label}",
        mask.laterality,
    )  # fmt: skip
    values = volume.array[found.inside].astype(np.float64)
    mean, deviation = float(values.mean()), float(values.std())
    method = method_of(volume)
    numbers = [
        Measurement(name, mean, volume.unit, MEAN, method, region),
        Measurement(name, deviation, volume.unit, STANDARD_DEVIATION, method, region),
    ]
    if "SUVlbm" in volume.unit.value:
        numbers.append(
            Measurement(MEASURABLE, times * mean + 2 * deviation, volume.unit, method=method, region=region)
        )
    x, y, z = found.centre
    place = f"x {x:.1f}, y {y:.1f}, z {z:.1f} mm"
    return Report(
        tuple(numbers),
        (*beyond(mask), Remark(f"{mask.label}: the {what} is centred at {place}."), *origin_of(volume)),
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """A shape in a region, or why it does not fit."""

    inside: Bools | None
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    reason: str = ""


def _found(volume: Volume, inside: Bools, shape: Callable[[Volume, Bools], _Found]) -> _Found:
    """A shape in the box that holds the region; all around the box is outside."""
    box = box_of(inside)
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ np.array([*(b.start for b in box), 1.0]))[:3]
    found = shape(replace(volume, array=volume.array[box], affine=affine, valid=None), inside[box])
    if found.inside is None:
        return found
    whole = np.zeros(inside.shape, bool)
    whole[box] = found.inside
    return replace(found, inside=whole)


def _sphere(volume: Volume, inside: Bools) -> _Found:
    """The sphere around the deepest voxel."""
    depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=volume.spacing)[1:-1, 1:-1, 1:-1]
    at = tuple(int(n) for n in np.unravel_index(int(depth.argmax()), depth.shape))
    room = _room(inside, at, volume.spacing)
    if room < LIVER_RADIUS - _ROUNDING:
        return _Found(None, reason=f"around its deepest voxel there is room for {2 * room:.0f} mm")
    return _Found(_away(inside.shape, at, volume.spacing) <= LIVER_RADIUS**2, _position(volume, at))


def _cylinder(volume: Volume, inside: Bools) -> _Found:
    """The cylinder, along the slices' normal, where the region is widest over its length."""
    if abs(volume.axes[2, 0]) < 0.9:
        raise Refused("the slices do not follow each other along the body; reformat them to axial first")
    count = math.ceil(POOL_LENGTH / float(volume.spacing[0]) - _ROUNDING)
    if len(inside) < count:
        return _Found(None, reason=f"it is {len(inside) * volume.spacing[0]:.0f} mm long")
    wide = np.stack(
        [
            ndimage.distance_transform_edt(np.pad(layer, 1), sampling=volume.spacing[1:])[1:-1, 1:-1]
            for layer in inside
        ]
    )
    least = np.lib.stride_tricks.sliding_window_view(wide, count, axis=0).min(axis=-1)
    first, j, i = (int(n) for n in np.unravel_index(int(least.argmax()), least.shape))
    along = slice(first, first + count)
    room = _room(np.asarray(inside[along].all(axis=0)), (j, i), volume.spacing[1:])
    if room < POOL_RADIUS - _ROUNDING:
        return _Found(
            None, reason=f"where it is widest over {POOL_LENGTH:g} mm there is room for {2 * room:.0f} mm"
        )
    shape = np.zeros(inside.shape, bool)
    shape[along] = _away(inside.shape[1:], (j, i), volume.spacing[1:]) <= POOL_RADIUS**2
    return _Found(shape, _position(volume, (first + (count - 1) / 2, float(j), float(i))))


def _room(inside: Bools, at: tuple[int, ...], spacing: Floats) -> float:
    """How far (mm) it is from the centre of a voxel to the nearest point outside the region, or outside the image.

    A voxel is a box here, and not its centre: else a region of one voxel would have room for what is larger than it.
    """
    outside = ~np.pad(inside, 1)
    away = _away(outside.shape, tuple(a + 1 for a in at), spacing, less=0.5)
    return float(np.sqrt(away[outside].min()))


def _away(shape: tuple[int, ...], at: tuple[int, ...], spacing: Floats, less: float = 0.0) -> Floats:
    """Squared distance (mm²) of each voxel from the one *at*, along each axis *less* voxels."""
    found = np.zeros(shape)
    for axis, (n, a, step) in enumerate(zip(shape, at, spacing, strict=True)):
        one = (np.maximum(np.abs(np.arange(n) - a) - less, 0) * step) ** 2
        found += one.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    return found


def _position(volume: Volume, at: tuple[float, ...]) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in (volume.affine @ np.array([*at, 1.0]))[:3])
    return (x, y, z)
