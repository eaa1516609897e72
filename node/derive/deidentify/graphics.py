"""Overlays, curves and graphic annotations: gone under the Basic Profile; cleaned where an option asks (E.3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag

from node.derive import values
from node.derive.deidentify.dummy import REMOVED
from node.derive.deidentify.elements import AnyElement, Encodings, ascii_of, items_of, plain, text_of
from node.derive.deidentify.profile import GRAPHICS
from node.derive.deidentify.words import cleaned
from node.derive.standard import Path

if TYPE_CHECKING:
    from node.derive.deidentify.walk import Walk

_TYPE, _DATA = 0x0040, 0x3000
_TEXTS = frozenset({0x0022, 0x1500, 0x4000})
"""Overlay Description, Label and Comments (PS3.3 C.9.2)."""


def plane(walk: Walk, source: Dataset, tag: BaseTag, encodings: Encodings) -> list[AnyElement]:
    """An element of a curve or an overlay: the whole plane goes, since the rest says nothing without it.

    With the option a region of interest stays (Overlay Type R), for it is a shape; what was drawn or written
    (G) may be a text in pixels, and curves (retired) may be anything.
    """
    shape = ascii_of(source, Tag(tag.group, _TYPE)) == "R" and Tag(tag.group, _DATA) in source
    if GRAPHICS not in walk.profile.clean or tag.group >> 8 == 0x50 or not shape:
        return walk.removed()
    if tag.element in _TEXTS:
        text = text_of(source, tag, encodings)
        made = "" if walk.known.within(text) else cleaned(text, walk.words)
        walk.done["cleaned"] += 1
        return [DataElement(tag, values.vr_of(source.get_item(tag)), made)] if made else []
    walk.done["kept"] += 1
    return [plain(source, tag)]


def drawn(walk: Walk, source: Dataset, tag: BaseTag, path: Path, encodings: Encodings) -> DataElement:
    """Graphic Annotation Sequence: what was drawn stays, and of what was written the words that are safe."""
    made = walk.recursed(source, tag, path, encodings)
    for old, new in zip(items_of(source, tag), made.value, strict=True):
        texts = new.get("TextObjectSequence") or ()
        for was, now in zip(old.get("TextObjectSequence") or (), texts, strict=True):
            text = str(was.get("UnformattedTextValue") or "")
            safe = "" if walk.known.within(text) else cleaned(text, walk.words)
            now.UnformattedTextValue = safe or REMOVED
    return DataElement(tag, "SQ", Items(made.value))
