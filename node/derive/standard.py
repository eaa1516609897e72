"""PS3.3 as tables: which attributes an object class has, of which type, in which entity.

The tables come with highdicom (made from the standard's DocBook); conditions (1C, 2C) are not in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map
from pydicom.datadict import tag_for_keyword

Path = tuple[str, ...]
"""Keywords from the top of the dataset down to an attribute."""

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
PT = "1.2.840.10008.5.1.4.1.1.128"
NM = "1.2.840.10008.5.1.4.1.1.20"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"

_STRICTNESS = ("1", "1C", "2", "2C", "3")
_CHOICES = frozenset({"sr-document-content", "overlay-plane", "overlay-activation", "multi-frame-overlay"})
"""Modules whose rows exclude one another (a content item is a number or a text …) or repeat by group."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One row of a module table, merged over the modules of an IOD."""

    keyword: str
    type: str
    """1, 1C, 2, 2C or 3: the strictest among the mandatory modules that have it."""
    entity: str
    """Patient, Study, Series, Frame of Reference, Equipment, Acquisition, Image …"""
    required: bool
    """Type 1 or 2 of a mandatory module: present in every conformant object."""


@cache
def attributes(sop_class: str) -> Mapping[Path, Attribute]:
    """Every attribute of the object class by path; empty for a class the tables do not know."""
    found: dict[Path, Attribute] = {}
    for module in get_iod_module_map().get(get_sop_class_iod_map().get(sop_class, ""), ()):
        if module["key"] in _CHOICES:
            continue
        mandatory = module["usage"] == "M"
        for row in get_module_attribute_map()[module["key"]]:
            path = (*row["path"], row["keyword"])
            if tag_for_keyword(path[-1]) is None:  # of a repeating group, such as overlays
                continue
            required = mandatory and row["type"] in ("1", "2")
            new = Attribute(row["keyword"], row["type"], module["ie"], required)
            found[path] = _stricter(found.get(path), new)
    return found


def prepare() -> None:
    """Read the tables of the classes that are made most; a process that waits for work does it before there is any."""
    for sop_class in (CT, MR, PT, SEG, COMPREHENSIVE_3D_SR):
        roots(sop_class)


@cache
def roots(sop_class: str) -> Mapping[str, Attribute]:
    """Return the attributes at the top of a dataset, by keyword."""
    return {path[0]: row for path, row in attributes(sop_class).items() if len(path) == 1}


def _stricter(old: Attribute | None, new: Attribute) -> Attribute:
    if old is None or (new.required and not old.required):
        return new
    if old.required and not new.required:
        return old
    return min(old, new, key=lambda row: _STRICTNESS.index(row.type))
