"""How large a pixel of a projection, an ultrasound image or a photograph is, and where that holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydicom import Dataset

from node.model import Code
from node.operator import NO_UNITS, Region
from node.read.objects import items, number, numbers, text

Plane = Literal["", "patient", "detector"]
Spacing = tuple[float, float]

_FORMATS = {1: "2D", 2: "M_MODE", 3: "SPECTRAL", 4: "WAVEFORM", 5: "GRAPHICS"}
"""Region Spatial Format (PS3.3 C.8.5.5.1.1)."""
_CM = Code("cm", "UCUM", "centimeter")
_UNITS = {
    1: Code("%", "UCUM", "percent"),
    2: Code("dB", "UCUM", "decibel"),
    3: _CM,
    4: Code("s", "UCUM", "second"),
    5: Code("Hz", "UCUM", "hertz"),
    6: Code("dB/s", "UCUM", "decibel per second"),
    7: Code("cm/s", "UCUM", "centimeter per second"),
    8: Code("cm2", "UCUM", "square centimeter"),
    9: Code("cm2/s", "UCUM", "square centimeter per second"),
    10: Code("cm3", "UCUM", "cubic centimeter"),
    11: Code("cm3/s", "UCUM", "cubic centimeter per second"),
    12: Code("deg", "UCUM", "degree"),
}
"""Physical Units X and Y Direction (C.8.5.5.1.15); 0 is none."""
_PROJECTIONS = frozenset({"CR", "DX", "MG", "IO", "PX", "XA", "RF", "RG", "BMD"})
_SECTIONS = frozenset({"CT", "MR", "PT", "NM", "ST", "OPT"})
"""What has its Pixel Spacing in the patient by definition: slices and parallel-hole scintigrams (C.7.6.2.1.1)."""


def regions_of(header: Dataset) -> tuple[Region, ...]:
    """The calibrated regions of an ultrasound image in file order (C.8.5.5), deltas signed as written."""
    return tuple(
        region for item in items(header, "SequenceOfUltrasoundRegions") for region in _region(item, header)
    )


def _region(item: Dataset, header: Dataset) -> Sequence[Region]:
    edges = [number(item, f"RegionLocation{edge}") for edge in ("MinY0", "MinX0", "MaxY1", "MaxX1")]
    deltas = number(item, "PhysicalDeltaY"), number(item, "PhysicalDeltaX")
    if None in edges or None in deltas:
        return ()
    top, left, bottom, right = (int(v or 0) for v in edges)
    # The corners are pixels of the region; some scanners write one past the last column of the image.
    box = (top, left, min(bottom + 1, int(header.Rows)), min(right + 1, int(header.Columns)))
    reference = number(item, "ReferencePixelY0"), number(item, "ReferencePixelX0")
    known = None not in reference
    return (
        Region(
            box=box,
            kind=_FORMATS.get(int(number(item, "RegionSpatialFormat") or 0), "OTHER"),
            delta=(float(deltas[0] or 0), float(deltas[1] or 0)),
            units=(_unit(item, "PhysicalUnitsYDirection"), _unit(item, "PhysicalUnitsXDirection")),
            reference=(int(reference[0] or 0), int(reference[1] or 0)) if known else None,
            reference_value=(
                number(item, "ReferencePixelPhysicalValueY") or 0.0,
                number(item, "ReferencePixelPhysicalValueX") or 0.0,
            ),
        ),
    )


def _unit(item: Dataset, keyword: str) -> Code:
    return _UNITS.get(int(number(item, keyword) or 0), NO_UNITS)


def calibrated(
    headers: Sequence[Dataset], regions: Sequence[Region]
) -> tuple[Spacing | None, Plane, dict[str, Any]]:
    """Spacing of rows and columns in mm, where that holds, and `spacing_from`; None where nothing says it.

    Frames that differ have no common spacing. Nothing is inferred: PS3.3 10.7.1.3 (Pixel Spacing
    Calibration Type), C.8.5.5 (ultrasound regions).
    """
    found = [_one(header, regions) for header in ([headers[0]] if _same(headers) else headers)]
    spacing, plane, source = found[0]
    if any(other != found[0] for other in found):
        spacing, plane, source = None, "", "differs between frames"
    facts: dict[str, Any] = {"spacing_from": source} if source else {}
    aspect = numbers(headers[0], "PixelAspectRatio")
    if spacing is None and len(aspect) == 2 and min(aspect) > 0 and aspect[0] != aspect[1]:
        facts["pixel_aspect_ratio"] = aspect  # vertical : horizontal (C.7.6.3.1.7)
    kind = text(headers[0], "PixelSpacingCalibrationType")
    if kind:
        facts["calibration"] = kind
    return spacing, plane, facts


def _same(headers: Sequence[Dataset]) -> bool:
    return all(header is headers[0] for header in headers)


def _one(header: Dataset, regions: Sequence[Region]) -> tuple[Spacing | None, Plane, str]:
    if regions:
        return _of_regions(regions)
    modality = text(header, "Modality")
    stated = _pair(header, "PixelSpacing")
    detector = _pair(header, "ImagerPixelSpacing") or _pair(header, "NominalScannedPixelSpacing")
    if stated and (text(header, "PixelSpacingCalibrationType") or modality in _SECTIONS):
        return stated, "patient", "PixelSpacing"
    if modality in _PROJECTIONS or detector:
        return _projected(header, stated, detector)
    return stated, "", "PixelSpacing" if stated else ""


def _of_regions(regions: Sequence[Region]) -> tuple[Spacing | None, Plane, str]:
    """Of the image where one region of tissue tells it; two of them have nothing in common but by chance."""
    flat = [r for r in regions if r.kind == "2D" and r.units == (_CM, _CM) and 0 not in r.delta]
    if len(flat) != 1:
        return None, "", ""
    rows, columns = (abs(v) * 10 for v in flat[0].delta)
    return (rows, columns), "patient", "SequenceOfUltrasoundRegions"


def _projected(
    header: Dataset, stated: Spacing | None, detector: Spacing | None
) -> tuple[Spacing | None, Plane, str]:
    """10.7.1.3: on the detector, or corrected for magnification, or nobody knows."""
    where = "ImagerPixelSpacing" if "ImagerPixelSpacing" in header else "NominalScannedPixelSpacing"
    if detector is None:
        return stated, "", "PixelSpacing" if stated else ""
    if stated and not np.allclose(stated, detector, rtol=1e-4, atol=0):
        return stated, "", "PixelSpacing"  # corrected in a way that the object does not say
    magnified = number(header, "EstimatedRadiographicMagnificationFactor")
    if magnified and magnified >= 1 and where == "ImagerPixelSpacing":
        rows, columns = (value / magnified for value in detector)
        return (rows, columns), "patient", f"{where} / EstimatedRadiographicMagnificationFactor"
    return detector, "detector", where


def _pair(header: Dataset, keyword: str) -> Spacing | None:
    found = numbers(header, keyword)
    return (found[0], found[1]) if len(found) == 2 and min(found) > 0 else None
