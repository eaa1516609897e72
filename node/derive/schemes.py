"""Which private coding schemes an object uses, said in its header (PS3.3 C.12.1, Coding Scheme Identification).

Designators that begin with 99 are private (PS3.3 8.2): a reader can tell two that happen to be
called alike only by what the object says of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from node.derive.making import MANUFACTURER

OURS = "99PACSNODE"
_NAMES = {OURS: ("PACSNode private codes", MANUFACTURER)}
_PER_FRAME = "PerFrameFunctionalGroupsSequence"
"""Refers to sources and says where frames lie: no codes of ours, in hundreds of items."""


def declare(dataset: Dataset) -> None:
    """Name every private scheme that the codes of *dataset* use; nothing where there is none."""
    used = sorted(set(_designators(dataset)))
    if used:
        dataset.CodingSchemeIdentificationSequence = [_item(designator) for designator in used]


def _item(designator: str) -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator = designator
    if designator in _NAMES:
        item.CodingSchemeName, item.CodingSchemeResponsibleOrganization = _NAMES[designator]
    return item


def _designators(dataset: Dataset) -> Iterator[str]:
    for element in dataset:
        if element.VR == "SQ" and element.keyword != _PER_FRAME:
            for item in element.value:
                yield from _designators(item)
        elif element.keyword == "CodingSchemeDesignator" and str(element.value).startswith("99"):
            yield str(element.value)
