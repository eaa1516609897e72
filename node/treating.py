"""What rules change in objects on their way to a destination: one object as a tree in, another out.

Each kind of change is one stage, which gets its part of the delivery's `treatment`. They come in a fixed
order, whatever the order in which a rule names them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node.deidentifying import deidentified_tree, read_key, site_of
from node.derive.deidentify import Profile
from node.derive.edit import edited
from node.derive.gate import copy_defects
from node.derive.inherit import writable
from node.derive.original import Coercion
from node.errors import Refused
from node.read import encoding
from node.read.encoding import Element, Tree

_BULK = 1 << 16
"""Bytes of a value beyond which no stage that looks at the header is shown it."""
_SIGNATURES = (0x4FFE0001, 0xFFFAFFFA)
"""MAC Parameters and Digital Signatures Sequence (PS3.3 C.12.1.1.3): they are over what is not so any more."""
_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))


@dataclass(frozen=True, slots=True)
class Treated:
    """An object under treatment."""

    tree: Tree
    syntax: str
    """The transfer syntax its pixel data is in."""
    sop_uid: str
    """Its SOP Instance UID: another one where it became another object."""
    pseudonym: Mapping[str, str] = field(default_factory=dict)
    """Who stands behind the name that it carries now; empty where it carries its own."""


Stage = Callable[[Treated, Any, Mapping[str, Any]], Treated]
"""What it is given, its part of the treatment, and the whole request of the transcoder."""


def treated(source: Treated, asked: Mapping[str, Any]) -> Treated:
    """What goes in *source*'s place; *asked* is the request. Raises Refused, or Broken, where nothing may go."""
    treatment = asked["treatment"]
    if unknown := set(treatment) - set(STAGES) - {"lookups"}:
        raise Refused(f"this version cannot do what its rule asked for: {', '.join(sorted(unknown))}")
    made = source
    for name, stage in STAGES.items():
        if name in treatment:
            made = stage(made, treatment[name], asked)
    if not asked["about"]["received"]:
        _gate(source.tree, made.tree)
    return made


def _edit(source: Treated, edit: Mapping[str, Any], asked: Mapping[str, Any]) -> Treated:
    """`edit:`; a received object says what it said before, a derived one is ours to word."""
    about = asked["about"]
    why = None
    if about["received"]:
        at = datetime.fromisoformat(about["at"])
        why = Coercion(at, about["system"], about["from"], edit.get("reason", "COERCE"))
    tables = {name: _table(path) for name, path in asked.get("lookups", {}).items()}
    found = edited(header_of(source.tree), edit["changes"], tables, why)
    put = Dataset()
    put._dict = {tag: e for tag in found.changed if (e := found.dataset.get_item(tag)) is not None}
    charset = found.dataset.get_item("SpecificCharacterSet")
    if charset is not None:  # without it no text in *put* can be encoded
        put._dict[charset.tag] = charset
    gone = [int(tag) for tag in found.changed if tag not in put._dict]
    gone += _SIGNATURES if found.changed else ()
    return replace(source, tree=encoding.changed(source.tree, tree_of(put), gone))


@lru_cache(maxsize=8)
def _table(path: str) -> Mapping[str, str]:
    """A table as the conductor left it: its name is its digest, so that it never changes."""
    found: dict[str, str] = json.loads(Path(path).read_text(encoding="utf-8"))
    return found


def _deidentify(source: Treated, profile: Mapping[str, Any], asked: Mapping[str, Any]) -> Treated:
    """`deidentify:`, after `edit:`, so that nothing an edit wrote goes unseen."""
    how = asked["deidentify"]
    copy = deidentified_tree(
        source.tree, source.syntax, Profile.of(profile), read_key(Path(how["key"])), site_of(how["site"])
    )
    made = copy.made
    said = {
        "pseudonym": made.pseudonym,
        "patient_id": made.patient[0],
        "issuer": made.patient[1],
        "study_uid": made.study_uid,
    }
    return Treated(copy.tree, copy.syntax, made.sop_uid, said)


STAGES: Mapping[str, Stage] = {"edit": _edit, "deidentify": _deidentify}
"""Key in the treatment → what it does, in the order in which they are done."""


def header_of(tree: Tree) -> Dataset:
    """*tree* without pixels and other bulk data, as pydicom takes it."""
    few = b"".join(encoding.chunks((e for e in tree if not _is_bulk(e)), implicit=False))
    try:
        return dcmread(BytesIO(few), force=True) if few else Dataset()
    except OSError as error:  # pydicom's word for bytes that end too early; the disk has no part in it
        raise Refused("its header cannot be read as a dataset") from error


def _is_bulk(element: Element) -> bool:
    return element.tag in _PIXELS or element.fragments is not None or len(element.value) > _BULK


def tree_of(dataset: Dataset) -> Tree:
    """The elements of *dataset* as a tree."""
    with DicomBytesIO() as buffer:
        buffer.is_implicit_VR, buffer.is_little_endian = False, True
        write_dataset(buffer, writable(dataset))
        return encoding.read_tree(buffer.getvalue(), encoding.EXPLICIT)


def _gate(before: Tree, after: Tree) -> None:
    """A derived object passed the gate; so does what becomes of it (design, promise 6)."""
    if found := copy_defects(header_of(before), header_of(after)):
        raise Refused(f"it would be no valid DICOM any more: {'; '.join(map(str, found[:5]))}")
