"""Private attributes: removed, except those that Table E.3.10-1 calls safe, where the profile retains these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from node.derive import values
from node.derive.deidentify.elements import AnyElement, Encodings, ascii_of, plain, text_of, with_vr
from node.derive.deidentify.profile import SAFE_PRIVATE
from node.derive.deidentify.table import Private, safe_private
from node.derive.standard import Path

if TYPE_CHECKING:
    from node.derive.deidentify.walk import Walk

_OPAQUE = frozenset({"OB", "OW", "UN", ""})
"""What is bytes to everybody but the vendor: a row that calls it safe says so of a text or number."""


def kept(walk: Walk, source: Dataset, tag: BaseTag, path: Path, encodings: Encodings) -> list[AnyElement]:
    """The private element, or nothing."""
    if SAFE_PRIVATE not in walk.profile.retain:
        return walk.removed()
    if 0x10 <= tag.element <= 0xFF:
        needed = any(_safe(source, other) for other in source.keys() if _in_block(other, tag))  # noqa: SIM118
        creator = ascii_of(source, tag)
        return [DataElement(tag, "LO", creator)] if needed else walk.removed()
    row = _safe(source, tag)
    if row is None:
        return walk.removed()
    return _by_value(walk, row, source, tag, (*path, str(tag)), encodings)


def _by_value(
    walk: Walk, row: Private, source: Dataset, tag: BaseTag, path: Path, encodings: Encodings
) -> list[AnyElement]:
    said = source.get_item(tag).VR
    vr = row.vr if said in (None, "UN") and len(row.vr) == 2 else (said or "UN")
    if vr != row.vr and row.vr not in ("", "OW/OB"):
        return walk.removed()
    if vr == "SQ":
        readable = source.get_item(tag).VR == "SQ"
        return [walk.recursed(source, tag, path, encodings)] if readable else walk.removed()
    if vr == "UI":
        return [walk.mapped(source, tag, vr, path, encodings)]
    if vr in _OPAQUE or vr in ("DA", "DT", "TM", "PN"):
        return walk.removed()
    if vr in values.TEXT_VRS and walk.known.within(text_of(source, tag, encodings)):
        return walk.removed()
    walk.done["kept"] += 1
    return [with_vr(plain(source, tag), vr)]


def _in_block(other: BaseTag, creator: BaseTag) -> bool:
    return other.group == creator.group and other.element >> 8 == creator.element


def _safe(source: Dataset, tag: BaseTag) -> Private | None:
    block = Tag(tag.group, tag.element >> 8)
    key = (tag.group, tag.element & 0xFF, ascii_of(source, block))
    return safe_private().get(key)
