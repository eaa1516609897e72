"""Facts of ours about one object or frame, where vendors differ: orientation, b-value, time position, age."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag

from node.model import Cell, Value
from node.read.csa import csa
from node.read.diffusion import b_share
from node.read.elements import attributes_of, first

_PLANES = ("sagittal", "coronal", "axial")  # normal along x, y, z of the patient
_OBLIQUE_ABOVE = 0.06  # 1 - cos(20°): as far as radiologists still call a plane by its name

# Where a b-value (s/mm²) stands: PS3.3 C.8.13.5.9 first, then GE, Siemens, Philips (their conformance statements)
# and United Imaging (as dcm2niix reads it).
_B_VALUES = (
    "DiffusionBValue",
    "(0043,xx39) GEMS_PARM_01",
    "(0019,xx0C) SIEMENS MR HEADER",
    "(2001,xx03) Philips Imaging DD 001",
    "(0065,xx09) Image Private Header",
)
_UNOWNED_B_VALUES = {
    "GE": "(0043,1039)",
    "SIEMENS": "(0019,100C)",
    "PHILIPS": "(2001,1003)",
    "UIH": "(0065,1009)",
}
"""Where an anonymiser took the private creators away (which PS3.5 7.8.1 forbids, and many do)."""
_TIMES = ("TemporalPositionIdentifier", "TemporalPositionIndex")
_STATED = frozenset(
    tag_for_keyword(keyword)
    for keyword in ("ImageOrientationPatient", "DiffusionBValue", "Manufacturer", *_TIMES)
)
_PRIVATE = {0x0043: 0x39, 0x0019: 0x0C, 0x2001: 0x03, 0x0065: 0x09}
"""Group → last byte of the private elements above."""


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


def frame_facts(header: Dataset) -> dict[str, str]:
    """orientation, b_value and temporal_position of one frame, as far as its header says them.

    Beside what `own_facts` knows, a b-value may stand in Siemens' CSA header (images before about 2005), and GE may
    scale it by the length of the gradient: where whether it does is unknown, there is no b-value.
    """
    narrow = Dataset()
    narrow._dict.update({tag: header._dict[tag] for tag in header._dict if _says_something(tag)})
    narrow.set_original_encoding(*header.original_encoding, header.original_character_set)
    facts = {name: cell[0][0] for name, cell in own_facts(attributes_of(narrow)).items() if cell and cell[0]}
    if "b_value" not in facts:
        facts |= _b_value_of_csa(header)
    elif header.get("DiffusionBValue") is None and (share := b_share(header)) != 1:
        stated = float(facts.pop("b_value"))
        facts |= {} if share is None else {"b_value": format(round(stated * share, 3), "g")}
    return facts


def _says_something(tag: BaseTag) -> bool:
    if tag.group in _PRIVATE:
        return tag.element < 0x100 or tag.element & 0xFF == _PRIVATE[tag.group]
    return tag in _STATED


def _b_value_of_csa(header: Dataset) -> dict[str, str]:
    try:
        data = header.private_block(0x0029, "SIEMENS CSA HEADER")[0x10].value
        value = _b_value((*csa(data).get("B_value", ()), "")[0])
    except (KeyError, TypeError, ValueError):
        return {}
    return {"b_value": value} if value else {}


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
