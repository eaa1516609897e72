"""Original Attributes Sequence: what an object said before it was changed on its way (PS3.3 C.12.1.1.9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag

from node.derive import values
from node.derive.inherit import AnyElement, empty, put, text_element

SEQUENCE = "OriginalAttributesSequence"
_ISSUER = Tag("IssuerOfPatientID")
_PATIENT = Tag("PatientID")


@dataclass(frozen=True, slots=True)
class Coercion:
    """Who changed an object, when and why: the same whenever the same object is changed again."""

    at: datetime
    """Aware: when the object was received, so that the same object gives the same bytes."""
    system: str
    source: str = ""
    """Where the object came from with the values that were replaced."""
    reason: str = "COERCE"
    """COERCE or CORRECT."""


def record(dataset: Dataset, before: Mapping[BaseTag, AnyElement | None], why: Coercion) -> None:
    """Add to *dataset* an item about the attributes of *before*, which hold what they said; earlier items stay."""
    earlier = _items(dataset)
    encodings = values.encodings_of(dataset)
    item = Dataset()
    _text(item, "SourceOfPreviousValues", _plain(why.source))
    _text(item, "AttributeModificationDateTime", why.at.strftime("%Y%m%d%H%M%S.%f%z"))
    _text(item, "ModifyingSystem", _plain(why.system))
    _text(item, "ReasonForTheAttributeModification", why.reason)
    replaced = Dataset()
    for tag in sorted(before):
        replaced._dict[tag] = _prior(tag, before[tag], encodings)
    if _PATIENT in before and _ISSUER not in before:  # it tells whose number that was
        issuer = dataset.get_item(_ISSUER)
        replaced._dict[_ISSUER] = _prior(_ISSUER, issuer, encodings)
    item.ModifiedAttributesSequence = [replaced]
    put(dataset, SEQUENCE, DataElement(Tag(tag_for_keyword(SEQUENCE)), "SQ", Items([*earlier, item])))
    _text(dataset, "InstanceCoercionDateTime", why.at.strftime("%Y%m%d%H%M%S.%f%z"))


def _items(dataset: Dataset) -> Sequence[Dataset]:
    tag = Tag(tag_for_keyword(SEQUENCE))
    return list(dataset[tag].value or ()) if tag in dataset and dataset[tag].VR == "SQ" else []


def _prior(tag: BaseTag, element: AnyElement | None, encodings: Sequence[str]) -> AnyElement:
    """What the attribute held; empty where it was not there, or what it held is none of its VR."""
    keyword = keyword_for_tag(tag)
    if element is None:
        return empty(keyword)
    vr = values.vr_of(element)
    if vr == "SQ":
        return deepcopy(element)
    if vr in values.TEXT_VRS:
        data = values.octets(element, encodings)
        return empty(keyword) if values.defect(tag, vr, data, encodings) else text_element(tag, vr, data)
    return element


def _plain(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() and c != "\\" else "_" for c in text)[:64]


def _text(dataset: Dataset, keyword: str, text: str) -> None:
    tag = Tag(tag_for_keyword(keyword))
    vr = values.vr_of(DataElement(tag, "LO", None))
    put(dataset, keyword, text_element(tag, vr, text.encode("ascii")))


def tags_written() -> Iterable[BaseTag]:
    """What `record` puts into the object itself."""
    return (Tag(tag_for_keyword(SEQUENCE)), Tag("InstanceCoercionDateTime"))
