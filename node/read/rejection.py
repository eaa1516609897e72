"""Rejection notes: Key Object Selection Documents by which a PACS or a modality takes objects back (IHE RAD IOCM)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydicom.dataset import Dataset

from node.model import REJECTIONS, Cell
from node.read.elements import first, items_of, text_of

_KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
_TITLE = "ConceptNameCodeSequence[0]."
_EVIDENCE = (0x0040A375, 0x00081115, 0x00081199)
"""Current Requested Procedure Evidence → Referenced Series → Referenced SOP Sequence (PS3.3 C.17.2)."""
_REFERENCED = 0x00081155


def rejection_of(attributes: Mapping[str, Cell]) -> str:
    """The code of the title that makes an object a rejection note; empty where it is none."""
    if first(attributes, "SOPClassUID") != _KEY_OBJECT:
        return ""
    if first(attributes, f"{_TITLE}CodingSchemeDesignator") != "DCM":
        return ""
    code = first(attributes, f"{_TITLE}CodeValue")
    return code if code in REJECTIONS else ""


def rejected_by(dataset: Dataset) -> tuple[str, ...]:
    """Every SOP Instance UID in the evidence of a note, each once; there may be thousands.

    What the content tree shows is a choice of these at most, so the evidence counts.
    """
    return tuple(dict.fromkeys(filter(None, (text_of(item, _REFERENCED) for item in _referenced(dataset)))))


def _referenced(dataset: Dataset) -> Iterator[Dataset]:
    found = [dataset]
    for tag in _EVIDENCE:
        found = [item for owner in found for item in items_of(owner, tag)]
    yield from found
