"""Reading elements of a source that may hold anything: as they are, as text, as items; refused where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag

from node.derive import values
from node.derive.deidentify.table import attributes
from node.errors import Refused

Encodings: TypeAlias = Sequence[str]
AnyElement: TypeAlias = "DataElement | RawDataElement"


def vr_in(source: Dataset, tag: BaseTag) -> str:
    """The VR an element is treated by: the dictionary's, the file's where that leaves a choice; else as it stands."""
    element = source.get_item(tag)
    found = values.vr_of(element)
    if found == "UN" and dictionary_has_tag(tag):
        return str(dictionary_VR(tag))  # "US or SS": settled when it is written, by what stands around it
    return found


def plain(source: Dataset, tag: BaseTag) -> AnyElement:
    """The element as it is; its bytes, where they are as they will be written."""
    element = source.get_item(tag)
    if isinstance(element, RawDataElement) and element.is_little_endian:
        vr = vr_in(source, tag)
        return with_vr(element, vr) if len(vr) == 2 else source[tag]
    return source[tag]


def with_vr(element: AnyElement, vr: str) -> AnyElement:
    """The element under another VR, its bytes as they are."""
    return element._replace(VR=vr) if isinstance(element, RawDataElement) else element


def place(dataset: Dataset, element: AnyElement) -> None:
    """Set *element* as it is, without conversion or validation."""
    dataset._dict[Tag(element.tag)] = element


def text_of(source: Dataset, tag: BaseTag, encodings: Encodings) -> str:
    """A text in the dataset's character set. Raises Refused where its bytes are none of that."""
    element = source.get_item(tag)
    data = values.octets(element, encodings)
    text = values.decoded(data, encodings if values.vr_of(element) in values.CHARSET_VRS else ("latin-1",))
    if text is None:
        raise Refused(
            f"{name_of(tag)} has bytes outside its character set, so that nobody can tell what it says"
        )
    return text


def items_of(source: Dataset, tag: BaseTag) -> Iterable[Dataset]:
    """The items of a sequence. Raises Refused where it is none."""
    value: Any = source[tag].value
    if value is None or value in ("", b""):
        return ()
    if not isinstance(value, Items):
        raise Refused(f"{name_of(tag)} should be a sequence and cannot be read as one")
    return value


def ascii_of(source: Dataset, tag: BaseTag | int | str) -> str:
    """A short text of the basic repertoire, unpadded; empty where there is none."""
    element = source.get_item(tag)
    return "" if element is None else values.octets(element).decode("ascii", "replace").strip()


def name_of(tag: BaseTag | int) -> str:
    """What an attribute is called in a sentence: its keyword, else its name in the table, else its number."""
    tag = Tag(tag)
    row = attributes().get(int(tag))
    return keyword_for_tag(tag) or (row.name if row else f"({tag.group:04X},{tag.element:04X})")
