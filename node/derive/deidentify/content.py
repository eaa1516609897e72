"""Content items of structured reports and their like (PS3.15 E.3.4), each by its row of Table E.3.4-1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag

from node.derive import values
from node.derive.deidentify.decide import (
    CLEAN,
    DUMMY,
    KEEP,
    REMOVE,
    UNLISTED_MOMENT,
    Decision,
    decide,
    resolve,
)
from node.derive.deidentify.dummy import dummy
from node.derive.deidentify.elements import Encodings, ascii_of, items_of, place, plain, text_of
from node.derive.deidentify.profile import SHIFTED_DATES, UIDS
from node.derive.deidentify.table import Row, content_items
from node.derive.deidentify.words import cleaned
from node.derive.standard import Path

if TYPE_CHECKING:
    from node.derive.deidentify.walk import Walk

_VALUES = {
    "TEXT": "TextValue", "PNAME": "PersonName", "DATE": "Date", "TIME": "Time", "DATETIME": "DateTime", "UIDREF": "UID",
}  # fmt: skip
"""Value type → where its value stands (PS3.3 C.17.3)."""
_REFERENCES = frozenset({"IMAGE", "COMPOSITE", "WAVEFORM"})
_HARMLESS = frozenset({("DCM", "111001"), ("DCM", "111002"), ("DCM", "111003")})
"""Algorithm Name, Parameters and Version (DCM): texts of a software about itself."""


def sequence(walk: Walk, source: Dataset, tag: BaseTag, path: Path, encodings: Encodings) -> DataElement:
    """A sequence of content items, or of items that hold such (Specimen Preparation Step Content Item)."""
    made = [
        found for item in items_of(source, tag) if (found := _item(walk, item, path, encodings)) is not None
    ]
    return DataElement(tag, "SQ", Items(made))


def references(walk: Walk, source: Dataset, tag: BaseTag, path: Path, encodings: Encodings) -> list[Dataset]:
    """Of content that is removed, the items that only refer to objects, to what these became."""
    only = (item for item in items_of(source, tag) if ascii_of(item, "ValueType") in _REFERENCES)
    return [walk.dataset(item, path, encodings) for item in only]


def _item(walk: Walk, source: Dataset, path: Path, inherited: Encodings) -> Dataset | None:
    """One item without its children as the table of attributes leaves it, its value and children by that of items."""
    encodings = values.encodings_of(source, inherited)
    kind, concept = ascii_of(source, "ValueType"), _concept(source)
    row = content_items().get((*concept, kind))
    decision = decide(row, walk.profile.options) if row else _unlisted(walk, kind)
    action = decision.code if decision.code in (KEEP, CLEAN) else resolve(decision.code, "")
    if action == REMOVE:
        walk.removed()
        return None
    keyword = _VALUES.get(kind, "")
    held = (*_VALUES.values(), "ContentSequence")  # a value that its type does not announce goes
    rest = Dataset()
    for tag in source.keys() - _tags(held):
        place(rest, source.get_item(tag))
    made = walk.dataset(rest, path, inherited)
    if keyword and keyword in source:
        _put(walk, source, made, keyword, action, decision, concept, encodings)
    if "ContentSequence" in source:
        made["ContentSequence"] = sequence(
            walk, source, Tag("ContentSequence"), (*path, "ContentSequence"), encodings
        )
        if not len(made["ContentSequence"].value):
            del made["ContentSequence"]
    return made


def _unlisted(walk: Walk, kind: str) -> Decision:
    """A concept that the table does not name: names go, dates as their option says, texts are cleaned."""
    if kind in ("DATE", "TIME", "DATETIME"):
        return decide(Row("", DUMMY, UNLISTED_MOMENT.options), walk.profile.options)
    return Decision(DUMMY if kind in ("PNAME", "UIDREF") else CLEAN if kind == "TEXT" else KEEP)


def _put(
    walk: Walk, source: Dataset, made: Dataset, keyword: str, action: str, decision: Decision,
    concept: tuple[str, str], encodings: Encodings,
) -> None:  # fmt: skip
    tag = Tag(keyword)
    vr = values.vr_of(source.get_item(tag))
    text = text_of(source, tag, encodings)
    if keyword == "UID":
        kept = action == KEEP or UIDS in walk.profile.retain
        made[tag] = DataElement(tag, "UI", text if kept else walk.secrets.uid(text))
        walk.done["uids"] += not kept
    elif action == KEEP or (concept in _HARMLESS and not walk.known.within(text)):
        place(made, plain(source, tag))
        walk.done["kept"] += 1
    else:
        found = _cleaned(walk, source, tag, vr, decision, text, encodings) if action == CLEAN else None
        made[tag] = found or DataElement(tag, vr, dummy(vr, "", "", walk.secrets))
        walk.done["cleaned" if found else "replaced"] += 1


def _cleaned(
    walk: Walk, source: Dataset, tag: BaseTag, vr: str, decision: Decision, text: str, encodings: Encodings
) -> DataElement | None:
    if decision.option == SHIFTED_DATES:
        return walk.moved(source, tag, vr, encodings)
    safe = "" if walk.known.within(text) else cleaned(text, walk.words)
    return DataElement(tag, vr, safe) if safe else None


def _concept(item: Dataset) -> tuple[str, str]:
    names = items_of(item, Tag("ConceptNameCodeSequence")) if "ConceptNameCodeSequence" in item else ()
    first = next(iter(names), Dataset())
    return ascii_of(first, "CodingSchemeDesignator"), ascii_of(first, "CodeValue")


def _tags(keywords: Sequence[str]) -> set[int]:
    return {int(Tag(keyword)) for keyword in keywords if keyword}
