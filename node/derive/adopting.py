"""Headers of one series as if they were of another study: for results that descend from several series.

A result belongs to the patient and the study of the input that stands for the run (PS3.3 C.7.1, C.7.2), whatever
series its images resemble. Text of another character set would be misread in the new company: it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from node.derive.inherit import put, text_element
from node.derive.standard import roots
from node.derive.values import CHARSET_VRS, octets, vr_of

_PLACED = ("ImagePositionPatient", "ImageOrientationPatient")
_UTC = "TimezoneOffsetFromUTC"


def adopted(
    headers: Sequence[Dataset], owner: Dataset, sop_class: str, frame: str = ""
) -> tuple[Dataset, ...]:
    """*headers* with patient and study of *owner*, the character set included.

    With *frame*, the Frame of Reference UID in which the result lies instead of theirs: where it is another one,
    their places say nothing any more, and are left out.
    """
    rows = roots(sop_class)
    owned = [keyword for keyword, row in rows.items() if row.entity in ("Patient", "Study")]
    owned += [keyword for keyword in ("SpecificCharacterSet", _UTC) if keyword not in owned]
    foreign = _set(owner) != _set(headers[0])
    return tuple(_one(header, owner, owned, foreign, frame) for header in headers)


def _set(header: Dataset) -> bytes:
    element = header.get_item("SpecificCharacterSet")
    return b"" if element is None else octets(element).strip()


def _one(header: Dataset, owner: Dataset, owned: Iterable[str], foreign: bool, frame: str) -> Dataset:
    made = Dataset()
    made._dict = dict(header._dict)
    made.file_meta = getattr(header, "file_meta", None)
    if foreign:
        for tag in [tag for tag in made._dict if _misread(header, tag)]:
            del made._dict[tag]
    for keyword in owned:
        made._dict.pop(Tag(tag_for_keyword(keyword)), None)
        put(made, keyword, owner.get_item(keyword))
    stated = header.get_item("FrameOfReferenceUID")
    if frame and (stated is None or octets(stated).rstrip(b"\0 ") != frame.encode()):
        for keyword in _PLACED:
            made._dict.pop(Tag(tag_for_keyword(keyword)), None)
        tag = tag_for_keyword("FrameOfReferenceUID")
        put(made, "FrameOfReferenceUID", text_element(tag, "UI", frame.encode()))
    return made


def _misread(header: Dataset, tag: BaseTag) -> bool:
    """Text that is not plain ASCII, at any depth."""
    element = header.get_item(tag)
    vr = vr_of(element)
    if vr == "SQ":
        return any(_misread(item, inner) for item in header[tag].value for inner in list(item._dict))
    return vr in CHARSET_VRS and any(byte > 0x7E or byte == 0x1B for byte in octets(element))
