"""From stored values to real-world values: units, rescale and padding, pure over headers.

PS3.3 C.11.1 (Modality LUT), C.8.9.1 (PET Units), C.7.5.1.1.2 (Pixel Padding Value and Range Limit).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage

from node.errors import Refused
from node.model import Code

STACKS = {
    CTImageStorage: "CT",
    MRImageStorage: "MR",
    PositronEmissionTomographyImageStorage: "PT",
}
"""The storage classes whose single-frame images make a volume."""

NO_UNITS = Code("1", "UCUM", "no units")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")

_RESCALE_TYPES = {  # PS3.3 C.11.1.1.2
    "HU": HOUNSFIELD,
    "US": NO_UNITS,
    "MGML": Code("mg/ml", "UCUM", "milligram per milliliter"),
    "PCT": Code("%", "UCUM", "percent"),
}
_PET_UNITS = {  # PS3.3 C.8.9.1.1.3; codes of CID 84
    "BQML": Code("Bq/ml", "UCUM", "Becquerels/milliliter"),
    "CM2ML": Code("cm2/ml{SUVbsa}", "UCUM", "Standardized Uptake Value body surface area"),
    "CNTS": Code("{counts}", "UCUM", "Counts"),
    "CPS": Code("{counts}/s", "UCUM", "Counts per second"),
    "PROPCNTS": Code("{propcounts}", "UCUM", "Proportional to counts"),
    "PROPCPS": Code("{propcounts}/s", "UCUM", "Proportional to counts per second"),
    "PCNT": Code("%", "UCUM", "Percent"),
    "NONE": NO_UNITS,
}
_SUV_TYPES = {  # SUV Type (0054,1006); BW where absent
    "BW": Code("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight"),
    "IBW": Code("g/ml{SUVibw}", "UCUM", "Standardized Uptake Value ideal body weight"),
    "LBM": Code("g/ml{SUVlbm}", "UCUM", "Standardized Uptake Value lean body mass (James)"),
    "LBMJAMES128": Code(
        "g/ml{SUVlbm(James128)}", "UCUM", "Standardized Uptake Value lean body mass (James 128 multiplier)"
    ),
    "LBMJANMA": Code("g/ml{SUVlbm(Janma)}", "UCUM", "Standardized Uptake Value lean body mass (Janma)"),
    "BSA": Code("cm2/ml{SUVbsa}", "UCUM", "Standardized Uptake Value body surface area"),
}


def _one_text(headers: Sequence[Dataset], keyword: str) -> str:
    values = {str(h.get(keyword) or "").strip().upper() for h in headers}
    if len(values) > 1:
        shown = ", ".join(sorted(v or "absent" for v in values))
        raise Refused(f"the images hold different quantities: {keyword} is {shown}")
    return values.pop()


def unit_of(headers: Sequence[Dataset], modality: str) -> Code:
    """The UCUM unit of the rescaled values of *headers*, of one modality; Refused when mixed or unknown."""
    rescale_type = _one_text(headers, "RescaleType")
    if modality == "MR":
        return NO_UNITS
    if modality == "CT":  # absent means HU: PS3.3 C.8.2.1, Rescale Type is type 1C
        kind, known = rescale_type or "HU", _RESCALE_TYPES
        keyword = "RescaleType"
    else:
        keyword, known = "Units", _PET_UNITS
        kind = _one_text(headers, "Units")
        if kind == "GML":
            keyword, known = "SUVType", _SUV_TYPES
            kind = _one_text(headers, "SUVType") or "BW"
    if kind not in known:
        raise Refused(f"{keyword} is {kind or 'absent'}, so the unit of the pixel values is unknown")
    return known[kind]


def rescale_of(header: Dataset) -> tuple[float, float]:
    """Slope and intercept of one image; (1, 0) where it has neither. Raises Refused for a lookup table."""
    if "ModalityLUTSequence" in header:
        raise Refused("pixel values go through a ModalityLUTSequence, which this version does not apply")
    try:
        slope = float(header.get("RescaleSlope", 1))
        intercept = float(header.get("RescaleIntercept", 0))
    except (TypeError, ValueError):
        raise Refused("RescaleSlope or RescaleIntercept is present but empty: values are unknown") from None
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise Refused(f"RescaleSlope {slope:g} and RescaleIntercept {intercept:g} give no values")
    return slope, intercept


def padded(stored: NDArray[np.integer], header: Dataset) -> NDArray[np.bool_] | None:
    """Where *stored* is padding, not measured; None when nothing is."""
    value = _stored(header, "PixelPaddingValue")
    if value is None:
        return None
    limit = _stored(header, "PixelPaddingRangeLimit")
    low, high = sorted((value, value if limit is None else limit))
    found = stored == value if low == high else (stored >= low) & (stored <= high)
    return found if found.any() else None


def _stored(header: Dataset, keyword: str) -> int | None:
    """A padding attribute as the pixels hold it: its VR (US or SS) is often not that of the pixels."""
    value = header.get(keyword)
    if not isinstance(value, int):
        return None
    bits = int(header.get("BitsAllocated", 16))
    value %= 1 << bits
    signed = bool(header.get("PixelRepresentation", 0))
    return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value
