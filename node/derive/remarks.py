"""The sentences of a report: Qualitative Evaluations of TID 1500, each a TEXT item (PS3.16 TID 1500 rows 12, 14)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from node.derive.making import code_item
from node.model import Code
from node.operator import Remark

_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")


def evaluations(remarks: Sequence[Remark], notice: str) -> list[Dataset]:
    """The container with *remarks*, and last the site's *notice* on what results are for; none without either."""
    said = [*remarks, *([Remark(notice)] if notice else [])]
    if not said:
        return []
    container = Dataset()
    container.RelationshipType, container.ValueType = "CONTAINS", "CONTAINER"
    container.ConceptNameCodeSequence = [code_item(_EVALUATIONS)]
    container.ContinuityOfContent = "SEPARATE"
    container.ContentSequence = [_text(remark) for remark in said]
    return [container]


def _text(remark: Remark) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.ConceptNameCodeSequence = [code_item(remark.name)]
    item.TextValue = remark.text
    return item
