"""The sentences of a report: Qualitative Evaluations of TID 1500, each a TEXT item (PS3.16 TID 1500 rows 12, 14)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from node.derive.making import Making, code_item
from node.model import Code
from node.operator import Remark, Report

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


def remarks_of(making: Making, report: Report) -> tuple[Remark, ...]:
    """What is said of *report*: its own sentences, and what was decided when its sources were read."""
    return (*report.remarks, *(Remark(text) for text in making.sources.remarks))


def _text(remark: Remark) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.ConceptNameCodeSequence = [code_item(remark.name)]
    item.TextValue = remark.text
    return item
