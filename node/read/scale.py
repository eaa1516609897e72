"""From stored values to real-world values: which unit a stack is in, and how each frame gets there.

PS3.3 C.11.1 (Modality LUT), C.7.6.16.2.9 (Pixel Value Transformation), C.7.6.16.2.11 (Real World Value
Mapping), C.8.9.1 (PET Units), C.8.8.3 (RT Dose), C.7.5.1.1.2 (Pixel Padding Value and Range Limit).

Who is asked first: Units of PET and Dose Units of RT Dose always hold; a CT's Rescale Type holds unless
it is unspecified (US); everywhere else, MR above all, a Real World Value Mapping is what the maker meant
the numbers to be. Where several mappings are offered, none is chosen for the reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from node.errors import Refused
from node.model import Code
from node.operator import NO_UNITS
from node.read.realworld import Scale, mappings_of, table_of

HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
COUNTS = Code("{counts}", "UCUM", "Counts")

_RESCALE_TYPES = {  # PS3.3 C.11.1.1.2
    "HU": HOUNSFIELD,
    "US": NO_UNITS,
    "MGML": Code("mg/ml", "UCUM", "milligram per milliliter"),
    "ED": Code("10*23/ml", "UCUM", "10^23 electrons per milliliter"),
    "PCT": Code("%", "UCUM", "percent"),
}
_PET_UNITS = {  # PS3.3 C.8.9.1.1.3; codes of CID 84
    "BQML": Code("Bq/ml", "UCUM", "Becquerels/milliliter"),
    "CM2ML": Code("cm2/ml{SUVbsa}", "UCUM", "Standardized Uptake Value body surface area"),
    "CNTS": COUNTS,
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
_DOSE_UNITS = {"GY": Code("Gy", "UCUM", "Gray"), "RELATIVE": NO_UNITS}  # PS3.3 C.8.8.3


@dataclass(frozen=True, eq=False)
class Measured:
    """What the numbers of a stack are."""

    unit: Code
    scales: tuple[Scale, ...]
    """One per frame."""
    quantity: Code | None = None
    """What was measured, where a Real World Value Mapping says it."""


def measured(headers: Sequence[Dataset], modality: str) -> Measured:
    """Unit and scale of each frame of one stack. Raises Refused where they are mixed or unknown."""
    unit = _classic_unit(headers, modality)
    if unit is None:
        mapped = _mapped(headers, modality)
        if mapped is not None:
            return mapped
        unit = _unit_without_mapping(headers, modality)
    return Measured(unit, tuple(_classic_scale(header, modality) for header in headers))


def _classic_unit(headers: Sequence[Dataset], modality: str) -> Code | None:
    """The unit that the modality's own attributes state; None where a mapping may say it better."""
    kind = _one_text(headers, "RescaleType")
    if modality == "RTDOSE":
        return _known(_DOSE_UNITS, "DoseUnits", _one_text(headers, "DoseUnits"))
    if modality == "CT":
        kind = _ct_type(headers)
        return _RESCALE_TYPES.get(kind) if kind != "US" else None
    if modality in ("PT", "NM"):
        return _emission_unit(headers)
    return HOUNSFIELD if kind == "HU" and modality != "MR" else None


def _emission_unit(headers: Sequence[Dataset]) -> Code | None:
    units = _one_text(headers, "Units")
    if units == "GML":
        return _known(_SUV_TYPES, "SUVType", _one_text(headers, "SUVType") or "BW")
    return _known(_PET_UNITS, "Units", units) if units else None


def _unit_without_mapping(headers: Sequence[Dataset], modality: str) -> Code:
    if modality == "PM":
        raise Refused(
            "the parametric map has no single RealWorldValueMappingSequence, so what its values are is unknown"
        )
    if modality == "PT":
        raise Refused("Units is absent, so the unit of the pixel values is unknown")
    if modality == "CT":
        return _known(_RESCALE_TYPES, "RescaleType", _ct_type(headers))
    if modality == "NM":  # what a gamma camera stores are counts (PS3.3 C.8.4.1), reconstructed or not
        return COUNTS
    return NO_UNITS


def _mapped(headers: Sequence[Dataset], modality: str) -> Measured | None:
    """The one mapping that all frames offer, None where some offer none or several.

    Enhanced PET offers the activity and SUVs made from it side by side (CID 84, 85): the activity is what was
    measured, and the one from which any SUV can be made by one way.
    """
    offered = [mappings_of(header) for header in headers]
    if modality == "PT" and any(len(mappings) > 1 for mappings in offered):
        offered = [tuple(m for m in mappings if m.unit.value == "Bq/ml") for mappings in offered]
    if any(len(mappings) != 1 for mappings in offered):
        return None
    mappings = [found[0] for found in offered]
    kinds = {(m.unit.value, m.quantity.value if m.quantity else "") for m in mappings}
    if len(kinds) > 1:
        shown = ", ".join(sorted(f"{quantity or 'values'} in {unit}" for unit, quantity in kinds))
        raise Refused(
            f"the images hold different quantities ({shown}); narrow the rule with `use` or `split`"
        )
    return Measured(mappings[0].unit, tuple(m.scale for m in mappings), mappings[0].quantity)


def _known(known: Mapping[str, Code], keyword: str, kind: str) -> Code:
    if kind not in known:
        raise Refused(f"{keyword} is {kind or 'absent'}, so the unit of the pixel values is unknown")
    return known[kind]


def _one_text(headers: Sequence[Dataset], keyword: str) -> str:
    values = {str(h.get(keyword) or "").strip().upper() for h in headers}
    if len(values) > 1:
        shown = ", ".join(sorted(v or "absent" for v in values))
        raise Refused(f"the images hold different quantities: {keyword} is {shown}")
    return values.pop()


def _ct_type(headers: Sequence[Dataset]) -> str:
    """Rescale Type, or the type of the Modality LUT; single-frame images without either are in HU.

    PS3.3 C.8.2.1: they shall state Rescale Type where their values are no Hounsfield units.
    """
    tables = [item for header in headers for item in header.get("ModalityLUTSequence") or ()]
    kind = _one_text(headers, "RescaleType") or (_one_text(tables, "ModalityLUTType") if tables else "")
    single = headers[0].get("SOPClassUID") == CTImageStorage
    return "HU" if single and not tables and not kind else kind


def _classic_scale(header: Dataset, modality: str) -> Scale:
    """The Modality LUT of one frame: table, or slope and intercept (PS3.3 C.11.1)."""
    tables = header.get("ModalityLUTSequence")
    if tables:
        return table_of(tables[0], header)
    if modality == "RTDOSE":
        return Scale(_finite(header, "DoseGridScaling", None))
    if modality in ("CT", "PT") and "RescaleSlope" not in header and "RescaleIntercept" not in header:
        raise Refused(
            "RescaleSlope and RescaleIntercept are absent, so what the stored values mean is unknown"
        )
    slope, intercept = _finite(header, "RescaleSlope", 1.0), _finite(header, "RescaleIntercept", 0.0)
    if slope == 0:
        raise Refused(f"RescaleSlope 0 and RescaleIntercept {intercept:g} give no values")
    return Scale(slope, intercept)


def _finite(header: Dataset, keyword: str, default: float | None) -> float:
    try:
        number = float(header.get(keyword, default))
    except (TypeError, ValueError):
        said = "absent or empty" if default is None else "present but empty"
        raise Refused(f"{keyword} is {said}: values are unknown") from None
    if not np.isfinite(number):
        raise Refused(f"{keyword} {number:g} gives no values")
    return number


_FLOAT_PADDING = (
    ("FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit"),
    ("DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit"),
)


def padded(stored: NDArray[Any], header: Dataset) -> NDArray[np.bool_] | None:
    """Where *stored* is padding, not measured (PS3.3 C.7.5.1.1.2); None when nothing is."""
    if np.issubdtype(stored.dtype, np.floating):
        pairs = ((header.get(value), header.get(limit)) for value, limit in _FLOAT_PADDING)
        value, limit = next((pair for pair in pairs if pair[0] is not None), (None, None))
    else:
        value, limit = (_stored(header, k) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        return None
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
