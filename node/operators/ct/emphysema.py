"""Emphysema in numbers: the lungs' volume, and how much of them is too dark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.operator import Mask, Measurement, Refused, Remark, Report, Segments, Volume
from node.operators.codes import (
    ATTENUATION,
    BOTH,
    HOUNSFIELD,
    LAA,
    LEFT,
    LUNG,
    MEAN,
    MILLILITER,
    PERC15,
    PERCENT,
    RIGHT,
    SHARE_OF_VOXELS,
    VOLUME,
    VOXEL_SUM,
)
from node.operators.ct.common import (
    AGENT,
    acquired_as,
    contrast_of,
    is_axial,
    kernel_of,
    refuse_other_units,
    thickness_of,
)
from node.operators.ct.kernels import SHARP, SMOOTH, matching
from node.operators.region import beyond, on_grid

DARK = -950.0
"""HU: what is below is emphysema (Gevenois 1996, doi:10.1164/ajrccm.154.1.8680679), on 1 mm slices in inspiration."""
THINNEST_NEEDED = 1.5
"""mm: thicker slices average emphysema away."""
_SLACK = 1e-6
CUT_CM2 = 10.0
"""Of lung in the first or last slice: more, and the lungs were not imaged as a whole."""
GAP = 1.01
"""Slices farther apart than this times their thickness leave lung out between them."""


@dataclass(frozen=True, eq=False)
class _Lungs:
    left: Mask
    right: Mask


def emphysema(
    volume: Volume, segments: Segments, *, sharp_kernels: str = SHARP, smooth_kernels: str = SMOOTH
) -> Report:
    """Measure LAA-950, Perc15, mean density and volume of both lungs and of each, from a thin native CT.

    LAA-950 is the share of lung voxels below -950 HU, in percent; Perc15 the CT number that 15 % of them lie below
    (linear between voxels). Both count measured voxels of *segments*: a left and a right lung, as `segment_lungs`
    gives them. The two lists are patterns with commas between them; kernels are the vendors' names.
    Kernel, slice thickness and tube voltage stand in the report.

    Raises Refused where the numbers would not be comparable: contrast was given or may have been, slices
    thicker than 1.5 mm or with gaps, a kernel that sharpens or is on neither list, lungs not wholly imaged;
    and where there is not one left and one right lung.
    """
    refuse_other_units(volume, "emphysema")
    _refuse_contrast(volume)
    _refuse_thick(volume)
    _refuse_kernel(volume, sharp_kernels, smooth_kernels)
    lungs = _lungs(volume, segments)
    remarks = [*acquired_as(volume), Remark("No contrast agent.", AGENT), *_refuse_cut(volume, lungs)]
    if segments.facts.get("airways") == "not found":
        remarks.append(
            Remark("Trachea and main bronchi were not found: their air may count as lung, and as emphysema.")
        )
    remarks += [*beyond(lungs.left), *beyond(lungs.right)]
    each = [_values(volume, lung) for lung in (lungs.left, lungs.right)]
    found = _numbers(np.concatenate(each), volume, None)
    for lung, values in zip((lungs.left, lungs.right), each, strict=True):
        found += _numbers(values, volume, lung)
    return Report(tuple(found), tuple(remarks))


def _refuse_contrast(volume: Volume) -> None:
    agent = contrast_of(volume)
    if agent is None:
        raise Refused(
            "whether contrast was given is unknown: Contrast/Bolus Agent is there, but empty (PS3.3 C.7.6.4). "
            "Lung density needs a native scan; have the scanner write NONE, or no such attribute, for native ones"
        )
    if agent:
        raise Refused(f"contrast was given ({agent}), which raises lung density; use the native series")


def _refuse_thick(volume: Volume) -> None:
    thickness, step = thickness_of(volume), float(volume.spacing[0])
    if thickness is None:
        raise Refused("Slice Thickness is not stated, or not one; LAA-950 holds for slices of 1.5 mm or less")
    if thickness > THINNEST_NEEDED + _SLACK:
        raise Refused(
            f"slices of {thickness:g} mm are too thick: LAA-950 holds for {THINNEST_NEEDED:g} mm or less; "
            "use the thin series"
        )
    if step > GAP * thickness:
        raise Refused(
            f"slices of {thickness:g} mm every {step:.4g} mm leave gaps: the lungs are sampled, not imaged as a "
            "whole; use a contiguous series"
        )
    if not is_axial(volume):
        raise Refused("slices must lie across the patient; use the axial series")


def _refuse_kernel(volume: Volume, sharp: str, smooth: str) -> None:
    kernel = kernel_of(volume)
    if not kernel:
        raise Refused(
            "Convolution Kernel is not stated, or not one for all slices; sharp kernels change LAA-950"
        )
    pattern = matching(kernel, sharp)
    if pattern:
        raise Refused(
            f"kernel {kernel} is a sharp one ({pattern} in sharp_kernels), which raises LAA-950; use the series with "
            "a smooth kernel"
        )
    if not matching(kernel, smooth):
        raise Refused(
            f"kernel {kernel} is on neither list; once somebody knows whether it sharpens, name it in "
            "smooth_kernels or sharp_kernels of the rule"
        )


def _lungs(volume: Volume, segments: Segments) -> _Lungs:
    found = {}
    for side in (LEFT, RIGHT):
        same = [m for m in segments.masks if m.type.value == LUNG.value and _side(m) == side.value]
        if len(same) != 1:
            raise Refused(
                f"the segmentation has {len(same) or 'no'} segments that are {side.meaning.lower()} lung "
                f"({', '.join(m.label for m in segments.masks) or 'it is empty'}); one is needed, as segment_lungs "
                "gives it"
            )
        found[side.value] = on_grid(volume, segments, same[0])
    return _Lungs(found[LEFT.value], found[RIGHT.value])


def _side(mask: Mask) -> str:
    return mask.laterality.value if mask.laterality else ""


def _refuse_cut(volume: Volume, lungs: _Lungs) -> list[Remark]:
    """Refuse lungs that go on beyond the images; a sentence where they just touch the end."""
    pixel = float(volume.spacing[1] * volume.spacing[2]) / 100
    said = []
    for end, which in ((0, "first"), (-1, "last")):
        area = sum(np.count_nonzero(lung.array[end]) for lung in (lungs.left, lungs.right)) * pixel
        if area > CUT_CM2:
            raise Refused(
                f"the lungs are not imaged as a whole: {area:.3g} cm² of them lie in the {which} slice of "
                f"{len(volume.array)}; neither their volume nor a share of it would be theirs"
            )
        if area:
            said.append(Remark(f"The lungs reach the {which} slice, with {area:.2g} cm²."))
    return said


def _values(volume: Volume, lung: Mask) -> NDArray[np.floating]:
    inside = lung.array if volume.valid is None else lung.array & volume.valid
    values: NDArray[np.floating] = volume.array[inside]
    if not values.size:
        raise Refused(f"the segment {lung.label} holds no measured voxel")
    return values


def _numbers(values: NDArray[np.floating], volume: Volume, lung: Mask | None) -> list[Measurement]:
    """Of one lung, or of both where *lung* is None; the order of *values*, of which no copy is made, is lost."""
    dark = 100 * np.count_nonzero(values < DARK) / values.size
    mean = float(values.mean(dtype=np.float64))
    tenths = float(np.percentile(values, 15, overwrite_input=True))
    site = {"region": lung} if lung is not None else {"site": LUNG, "laterality": BOTH}
    return [
        Measurement(VOLUME, values.size * volume.voxel_volume / 1000, MILLILITER, method=VOXEL_SUM, **site),
        Measurement(LAA, dark, PERCENT, method=SHARE_OF_VOXELS, **site),
        Measurement(PERC15, tenths, HOUNSFIELD, **site),
        Measurement(ATTENUATION, mean, HOUNSFIELD, MEAN, **site),
    ]
