"""Relative uptake of SPECT: the mean of every region of a segmentation against that of a reference region."""

from __future__ import annotations

import numpy as np

from node.operator import Mask, Measurement, Refused, Remark, Report, Segments, Volume
from node.operators.codes import BINDING, MEAN, RATIO, RELATIVE_MEAN, TOMOGRAPHIC
from node.operators.region import brought, region

_PROPORTIONAL = ("{counts}", "{counts}/s", "{propcounts}", "{propcounts}/s", "Bq/ml")
"""Units of what doubles where there is twice as much."""


def uptake_ratios(volume: Volume, segments: Segments, *, reference: str) -> Report:
    """Divide the mean of each region by that of the *reference* region, a segment called as in `region`.

    Beside the ratio stands the specific binding ratio, (mean - reference) / reference, as brain receptor SPECT reports
    it. Voxels that were not measured are left out. A region in which nothing was measured is left out, with a sentence.

    Raises Refused where the volume holds neither counts nor activity, where the reference is no segment or holds
    nothing, and where there is no region beside it.
    """
    if volume.unit.value not in _PROPORTIONAL:
        raise Refused(f"ratios of means need counts or activity; the volume is in {volume.unit.value}")
    against = region(volume, segments, name=reference)
    divisor = _mean(volume, against)
    if divisor is None or divisor <= 0:
        raise Refused(
            f"the reference {reference} has a mean of {divisor or 0:g} {volume.unit.value}; no ratio is told"
        )
    measurements, remarks = list[Measurement](), list[Remark]()
    others = 0
    for segment in segments.masks:
        try:
            there = brought(volume, segments, segment)
        except Refused as refusal:
            remarks.append(Remark(f"Nothing was measured in {segment.label}: {refusal}.", missing=True))
            continue
        mean = _mean(volume, there.mask)
        if mean is None:
            remarks.append(Remark(f"Nothing was measured in {segment.label}.", missing=True))
            continue
        remarks += there.remarks
        measurements.append(Measurement(TOMOGRAPHIC, mean, volume.unit, MEAN, region=there.region))
        if _same(there.mask, against):
            continue
        others += 1
        measurements.append(Measurement(RELATIVE_MEAN, mean / divisor, RATIO, region=there.region))
        measurements.append(Measurement(BINDING, (mean - divisor) / divisor, RATIO, region=there.region))
    if not others:
        raise Refused(f"there is no region beside the reference {reference}")
    remarks.append(Remark(f"Ratios are of mean values, against {against.label}."))
    return Report(tuple(measurements), tuple(remarks))


def _mean(volume: Volume, mask: Mask) -> float | None:
    inside = mask.array if volume.valid is None else mask.array & volume.valid
    return float(volume.array[inside].mean(dtype=np.float64)) if inside.any() else None


def _same(mask: Mask, other: Mask) -> bool:
    return mask is other or (
        (mask.label, mask.type, mask.laterality) == (other.label, other.type, other.laterality)
        and np.array_equal(mask.array, other.array)
    )
