"""Registration: where one image lies in the other, as a rotation and a translation.

The metric is evaluated at all voxels of a coarse copy of the fixed image, none drawn at random, by one
thread: the same images give the same transform on every machine of one kind, however many cores it has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813 (the name its documentation uses)

from node.operator import Degrees, Mm, Refused, Volume
from node.operators.planes import refuse_other_frame
from node.operators.sampling import SLACK, Source, image_of, lattice_of, means, settled

Metric = Literal["mutual_information", "mean_squares"]

VOXELS = 200_000
"""Of the fixed image's coarse copy, about: 58 along each side, which finds a head to a tenth of a voxel."""
BINS = 32
"""Of the joint histogram along each axis (Mattes et al. 2003, doi:10.1109/TMI.2003.809072)."""
LEVELS = (4, 2, 1)
"""Coarse to fine, by how much; each smoothed by a Gaussian of half as many voxels."""
FEWEST = 8
"""Slices, rows or columns that a coarse copy must have to be worth a search."""
STEPS = 200
"""Of gradient descent, per coarse copy."""
ROUNDS = 30
"""Through all six parameters; a search that is still moving after so many has found nothing."""
OVERLAP = 0.25
"""The share of the fixed image that the moving one must cover in the end."""
_NAMES = {"mutual_information": "mutual information", "mean_squares": "mean squared difference"}


@dataclass(frozen=True, eq=False)
class _Pair:
    """What is compared: coarse copies, and where they were measured."""

    fixed: sitk.Image
    moving: sitk.Image
    fixed_mask: sitk.Image
    moving_mask: sitk.Image


def register_rigid(
    volume: Volume,
    other: Volume,
    *,
    metric: Metric = "mutual_information",
    start: Literal["frame_of_reference", "centers"] = "frame_of_reference",
    farthest: Mm = 50.0,
    largest_turn: Degrees = 30.0,
) -> Volume:
    """Move *other* rigidly onto *volume* and give it on the grid of *volume*.

    Found by gradient descent in three resolutions from where the frame of reference puts *other*, or from
    both centers on each other, by the *metric*: mutual information (Mattes et al. 2003) for any two
    images, mean squares for two of the same kind. Then *other* is interpolated linearly; it is valid where
    at least half of what a voxel is made from was measured. `subtract` and `fuse` take the result as
    any series on *volume*'s grid. The fact `registration` tells `rotation` (degrees
    about the axes to the left, back and head through the center of *volume*, applied in the order back,
    left, head) and `translation` (mm along them) that take *volume*'s points to *other*'s, and the metric
    before and after.

    Raises Refused where the frames of reference differ (unless *start* is centers) or the units, for mean
    squares; where the search does not settle, makes the metric worse, leaves less than a quarter of *volume*
    covered, or goes beyond *farthest* or *largest_turn*: the images are then too different to be trusted.
    """
    if start == "frame_of_reference":
        refuse_other_frame(volume, other, "start: centers lays them on each other")
    if metric == "mean_squares" and volume.unit.value != other.unit.value:
        raise Refused("mean_squares compares like with like, and the units differ; use mutual_information")
    if min(min(v.array.shape) for v in (volume, other)) < 4:
        raise Refused("fewer than 4 slices, rows or columns hold no rigid motion; register whole volumes")
    pair = _pair(volume, other)
    found = _first(volume, other, start)
    before = _value(metric, pair, found)
    _search(metric, pair, found)
    after = _value(metric, pair, found)
    if after > before:
        raise Refused(f"registration made the {_NAMES[metric]} worse; the two images are too different")
    _refuse_far(found, farthest, largest_turn)
    return _moved(volume, other, found, {"metric": metric, "before": before, "after": after})


def _pair(volume: Volume, other: Volume) -> _Pair:
    """Both images in voxels of about one size, so that neither shows detail that the other cannot."""
    side = float(volume.voxel_volume * volume.array.size / VOXELS) ** (1 / 3)
    fixed, fixed_mask = _coarse(volume, side)
    moving, moving_mask = _coarse(other, side)
    return _Pair(fixed, moving, fixed_mask, moving_mask)


def _coarse(volume: Volume, side: float) -> tuple[sitk.Image, sitk.Image]:
    """Means over whole voxels, up to about *side* mm wide, and which of them were measured entirely."""
    room = [max(1, n // FEWEST) for n in volume.array.shape]
    wanted = [max(1, round(side / float(s))) for s in volume.spacing]
    factors = [min(pair) for pair in zip(wanted, room, strict=True)][::-1]
    measured = np.ones(volume.array.shape, bool) if volume.valid is None else volume.valid
    if not measured.any():
        raise Refused("a volume holds no measured voxel; there is nothing to register")
    if volume.array[measured].min() == volume.array[measured].max():
        raise Refused("a volume holds one value only; there is nothing to register")
    values = np.where(measured, volume.array, volume.array[measured].min()).astype(np.float32, copy=False)
    image = sitk.BinShrink(image_of(values, volume), factors)
    share = sitk.BinShrink(image_of(measured.astype(np.float32), volume), factors)
    return image, sitk.Cast(share > 1 - SLACK, sitk.sitkUInt8)


def _first(volume: Volume, other: Volume, start: str) -> sitk.Euler3DTransform:
    """No rotation, about the center of *volume*; no translation either, or from center to center."""
    centers = [v.origin + v.affine[:3, :3] @ ((np.array(v.array.shape) - 1) / 2) for v in (volume, other)]
    transform = sitk.Euler3DTransform()
    transform.SetCenter([float(c) for c in centers[0]])
    if start == "centers":
        transform.SetTranslation([float(c) for c in centers[1] - centers[0]])
    return transform


def _method(metric: Metric, pair: _Pair) -> sitk.ImageRegistrationMethod:
    """The metric over all voxels, by one thread."""
    method = sitk.ImageRegistrationMethod()
    if metric == "mean_squares":
        method.SetMetricAsMeanSquares()
    else:
        method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetMetricFixedMask(pair.fixed_mask)
    method.SetMetricMovingMask(pair.moving_mask)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetNumberOfThreads(1)
    method.SetNumberOfWorkUnits(1)
    return method


def _value(metric: Metric, pair: _Pair, transform: sitk.Euler3DTransform) -> float:
    """The metric at *transform*; less is better. Raises Refused where the images do not overlap enough."""
    if _overlap(pair, transform) < OVERLAP:
        raise Refused(
            f"less than {OVERLAP:.0%} of the one volume is covered by the other; they do not show the same region"
        )
    method = _method(metric, pair)
    method.SetInitialTransform(transform)
    return float(method.MetricEvaluate(pair.fixed, pair.moving))


def _overlap(pair: _Pair, transform: sitk.Euler3DTransform) -> float:
    """The share of the fixed image's measured voxels on which the moving image has one."""
    lying = sitk.Resample(pair.moving_mask, pair.fixed_mask, transform, sitk.sitkNearestNeighbor, 0)
    theirs, ours = (sitk.GetArrayViewFromImage(image) > 0 for image in (lying, pair.fixed_mask))
    inside, whole = int((theirs & ours).sum()), int(ours.sum())
    return inside / whole if whole else 0.0


def _search(metric: Metric, pair: _Pair, transform: sitk.Euler3DTransform) -> None:
    """Move *transform* to where the metric is least. Raises Refused where the search does not settle.

    Gradient descent brings it near in coarse copies; Powell's method (1964, doi:10.1093/comjnl/7.2.155),
    which asks each direction in turn, then follows flat valleys that gradient descent gives up in.
    """
    side = max(pair.fixed.GetSpacing())
    for factor in LEVELS:
        if factor > 1 and min(pair.fixed.GetSize()) // factor < FEWEST:
            continue
        method = _method(metric, pair)
        method.SetInitialTransform(transform, True)
        method.SetShrinkFactorsPerLevel([factor])
        method.SetSmoothingSigmasPerLevel([side * factor / 2 if factor > 1 else 0.0])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        method.SetOptimizerScalesFromPhysicalShift()
        if factor > 1:
            method.SetOptimizerAsRegularStepGradientDescent(
                2 * side, side / 1000, STEPS, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-10
            )
        else:
            method.SetOptimizerAsPowell(
                ROUNDS, 100, stepLength=side / 4, stepTolerance=side / 400, valueTolerance=1e-6
            )
        try:
            method.Execute(pair.fixed, pair.moving)
        except RuntimeError as error:  # all samples left the moving image
            raise Refused("the registration lost the image: the two do not show the same region") from error
        if factor == 1 and method.GetOptimizerIteration() >= ROUNDS:
            raise Refused(
                f"the registration did not settle in {ROUNDS} rounds; the two images are too different"
            )


def _refuse_far(found: sitk.Euler3DTransform, farthest: float, largest_turn: float) -> None:
    far, turn = math.hypot(*found.GetTranslation()), _whole_turn(found)
    if far > farthest or turn > largest_turn:
        raise Refused(
            f"registration moved the image by {far:.3g} mm and {turn:.3g}°, beyond the {farthest:g} mm and "
            f"{largest_turn:g}° allowed (farthest, largest_turn); it is not to be trusted"
        )


def _whole_turn(transform: sitk.Euler3DTransform) -> float:
    """Degrees of the one rotation that the three make."""
    trace = float(np.trace(np.array(transform.GetMatrix()).reshape(3, 3)))
    return math.degrees(math.acos(min(1.0, max(-1.0, (trace - 1) / 2))))


def _moved(volume: Volume, other: Volume, found: sitk.Euler3DTransform, told: dict[str, Any]) -> Volume:
    """*other* on the grid, and in the frame of reference, of *volume*."""
    source = Source(other, transform=found)
    array, share = means(source, lattice_of(volume))
    angles = (found.GetAngleX(), found.GetAngleY(), found.GetAngleZ())
    registration = {
        **told,
        "rotation": tuple(math.degrees(angle) for angle in angles),
        "translation": tuple(found.GetTranslation()),
    }
    facts = {**other.facts, "registration": registration, "slice_thickness": float(volume.spacing[0])}
    facts.pop("frame_of_reference", None)
    if volume.facts.get("frame_of_reference"):
        facts["frame_of_reference"] = volume.facts["frame_of_reference"]
    valid = settled(array, share, source.low)
    return replace(other, array=array, affine=volume.affine, valid=valid, facts=facts)
