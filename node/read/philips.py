"""What Philips did to the numbers of an image before it stored them, undone where volumes are to be compared.

A scanner of Philips fits each image's values (FP) to 12 bits: SV = FP · SS + SI, and shows DV = SV · RS + RI. SS and
SI are private (Scale Slope (2005,100E), Scale Intercept (2005,100D)), RS and RI the rescale of PS3.3 C.11.1. Where
they differ between volumes, as from phase to phase of a contrast series, the shown values cannot be compared, and
FP = (SV - SI) / SS can (Chenevert 2014, doi:10.1593/tlo.13811).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom import Dataset

from node.operator import NO_UNITS, Volume
from node.read.private import private_element
from node.read.realworld import mappings_of

Scaling = tuple[float, float, float, float]
"""RS, RI, SS, SI."""

_CREATOR = "Philips MR Imaging DD 001"
_SEQUENCE = 0x2005140F
_TAGS = (0x20050010, 0x2005100D, 0x2005100E)
_SAME = 1e-6


def lift_scaling(header: Dataset, group: Dataset) -> None:
    """Put a frame's private scaling, which stands in a private macro, to the top of its *header*."""
    items = group[_SEQUENCE].value if _SEQUENCE in group else ()
    if isinstance(items, Sequence) and len(items) == 1:
        for tag in _TAGS:
            if tag in items[0] and tag not in header:
                header.add(items[0][tag])


def comparable(volumes: Sequence[tuple[Volume, Sequence[Dataset]]]) -> list[Volume]:
    """The volumes of one series, each with its slices' headers, in values that can be compared with each other.

    Unchanged where they are of another maker, have a unit, or were all scaled alike. Where they were not, each is in
    the scanner's own floating point values, and the fact `scaling` says so; where the scanner does not say how to
    get there, `scaling` is `unknown`.
    """
    as_read = [volume for volume, _ in volumes]
    first = volumes[0][1][0]
    if not _text(first, "Manufacturer").startswith("PHILIPS") or as_read[0].unit.value != NO_UNITS.value:
        return as_read
    found = [[scaling_of(header) for header in headers] for _, headers in volumes]
    every = [one for of_volume in found for one in of_volume]
    if any(one is None for one in every):
        alike = len({_rescale(header) for _, headers in volumes for header in headers}) == 1
        return as_read if alike else [_saying(volume, "unknown") for volume in as_read]
    known = np.array(every, float)
    if np.allclose(known, known[0], rtol=_SAME, atol=0):
        return as_read
    return [_undone(volume, of_volume) for volume, of_volume in zip(as_read, found, strict=True)]


def scaling_of(header: Dataset) -> Scaling | None:
    """RS, RI, SS and SI of one image; None where the private ones are not stated."""
    slope, intercept = (private_element(header, 0x2005, _CREATOR, n, "f") for n in (0x0E, 0x0D))
    try:
        numbers = (*_rescale(header), float(slope), float(0 if intercept is None else intercept))
    except (TypeError, ValueError):
        return None
    return numbers if all(np.isfinite(numbers)) and numbers[0] and numbers[2] else None


def _rescale(header: Dataset) -> tuple[float, float]:
    """What made the values as they were read: the one Real World Value Mapping where there is one, else the rescale."""
    mappings = mappings_of(header)
    if len(mappings) == 1:
        scale = mappings[0].scale
        return (scale.slope, scale.intercept) if scale.table is None else (np.nan, np.nan)
    return float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)


def _undone(volume: Volume, scalings: Sequence[Any]) -> Volume:
    array = np.empty(volume.array.shape, np.float32)
    for k, (slope, intercept, scale, shift) in enumerate(scalings):
        stored = (volume.array[k].astype(np.float64) - intercept) / slope
        array[k] = (stored - shift) / scale
    facts = {**volume.facts, "scaling": "floating point values by Scale Slope (2005,100E)"}
    return replace(volume, array=array, facts={k: v for k, v in facts.items() if k != "window"})


def _saying(volume: Volume, scaling: str) -> Volume:
    return replace(volume, facts={**volume.facts, "scaling": scaling})


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").strip().upper()
