"""Facts of ours about one object, where vendors differ: orientation, b-value, time position, age."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from node.model import Cell, Value
from node.read.elements import first

_PLANES = ("sagittal", "coronal", "axial")  # normal along x, y, z of the patient
_OBLIQUE_ABOVE = 0.06  # 1 - cos(20°): as far as radiologists still call a plane by its name

# Where a b-value (s/mm²) stands: PS3.3 C.8.13.5.9 first, then GE, Siemens and Philips (their conformance statements).
_B_VALUES = (
    "DiffusionBValue",
    "(0043,xx39) GEMS_PARM_01",
    "(0019,xx0C) SIEMENS MR HEADER",
    "(2001,xx03) Philips Imaging DD 001",
)
_UNOWNED_B_VALUES = {"GE": "(0043,1039)", "SIEMENS": "(0019,100C)", "PHILIPS": "(2001,1003)"}
"""Where an anonymiser took the private creators away (which PS3.5 7.8.1 forbids, and many do)."""
_TIMES = ("TemporalPositionIdentifier", "TemporalPositionIndex")


def own_facts(attributes: Mapping[str, Cell]) -> dict[str, Cell]:
    """orientation, b_value, temporal_position, age and frames, as far as the object says them."""
    found: dict[str, Cell] = {"frames": ((first(attributes, "NumberOfFrames") or "1",),)}
    planes = _distinct(_plane(v) for v in attributes.get("ImageOrientationPatient", ()))
    if planes:
        found["orientation"] = planes
    places = (*_B_VALUES, *_unowned(attributes))
    b_values = next((attributes[name] for name in places if attributes.get(name, ((),))[0]), ())
    if b_values:
        found["b_value"] = _distinct(_b_value(v[0]) for v in b_values if v)
    times = next((attributes[name] for name in _TIMES if attributes.get(name, ((),))[0]), ())
    if times:
        found["temporal_position"] = times
    age = _age(attributes)
    if age:
        found["age"] = ((age,),)
    return found


def _unowned(attributes: Mapping[str, Cell]) -> list[str]:
    maker = first(attributes, "Manufacturer").upper()
    return [name for begins, name in _UNOWNED_B_VALUES.items() if maker.startswith(begins)]


def _distinct(values: object) -> Cell:
    return tuple(dict.fromkeys((v,) for v in values if v))  # type: ignore[attr-defined]


def _plane(orientation: Value) -> str:
    try:
        r, c = ([float(v) for v in part] for part in (orientation[:3], orientation[3:6]))
        normal = (r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0])
    except (ValueError, IndexError):
        return ""
    axis = max(range(3), key=lambda i: abs(normal[i]))
    return _PLANES[axis] if 1 - abs(normal[axis]) <= _OBLIQUE_ABOVE else "oblique"


def _b_value(text: str) -> str:
    """GE adds multiples of 10⁹ to the b-value it stores (0043,1039)."""
    try:
        return format(float(text) % 1e9, "g")
    except ValueError:
        return ""


def _age(attributes: Mapping[str, Cell]) -> str:
    """Years: Patient's Age (0010,1010), else from the birth date to the study date."""
    text = first(attributes, "PatientAge")
    per_year = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
    if re.fullmatch(r"[0-9]{3}[DWMY]", text):
        return format(int(text[:3]) / per_year[text[3]], ".4g")
    born, studied = (_date(first(attributes, k)) for k in ("PatientBirthDate", "StudyDate"))
    if born and studied and studied >= born:
        return format((studied - born).days / 365.25, ".4g")
    return ""


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
