"""KeyImages → Key Object Selection Document (PS3.3 A.35.4, TID 2010)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydicom.dataset import Dataset

from node.derive.composite import begun, ended
from node.derive.identity import CREATOR
from node.derive.inherit import empty
from node.derive.making import MANUFACTURER, Making, code_item
from node.derive.references import by_series, is_image, items
from node.errors import Broken, Refused
from node.model import REJECTIONS, Code
from node.operator import KeyImages

KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
_NEEDS_REASON = frozenset({"113010", "113013"})
"""Titles that have to be modified by a further code (TID 2010 row 2), which a KeyImages cannot say."""


def key_images(making: Making, selection: KeyImages) -> Iterator[Dataset]:
    """Make the one key object of *selection*, ready to be written.

    Raises Refused where nothing was selected, Broken where an index names no image or the title rejects.
    """
    indices = _checked(making, selection)
    study = Dataset()
    study.StudyInstanceUID = making.sources.text("StudyInstanceUID")
    study.ReferencedSeriesSequence = by_series(making.sources, indices, "ReferencedSOPSequence")
    for series in study.ReferencedSeriesSequence:  # the evidence lists objects, not frames (C.17.2)
        for item in series.ReferencedSOPSequence:
            item.pop("ReferencedFrameNumber", None)
    yield key_object(making, selection.title, [study], _content(making, selection, indices))


def key_object(making: Making, title: Code, evidence: list[Dataset], content: Iterable[Dataset]) -> Dataset:
    """Make the document titled *title* whose *content* items point at what *evidence* lists, ready to be written."""
    dataset = begun(making, KEY_OBJECT, "KO")
    dataset.add(empty("ReferencedPerformedProcedureStepSequence"))
    dataset.CurrentRequestedProcedureEvidenceSequence = evidence
    dataset.ValueType = "CONTAINER"
    dataset.ConceptNameCodeSequence = [code_item(title)]
    dataset.ContinuityOfContent = "SEPARATE"
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    dataset.ContentTemplateSequence = [template]
    dataset.ContentSequence = [*_observer(making), *content]
    return ended(making, dataset)


def description(text: str) -> Dataset:
    """Say why in words (TID 2010 row 5)."""
    return _item("CONTAINS", "TEXT", Code("113012", "DCM", "Key Object Description"), text=text)


def _checked(making: Making, selection: KeyImages) -> list[int]:
    """The selected indices, each once, in their order."""
    name, count = making.output.name, len(making.sources.headers)
    if not selection.images:
        raise Refused(f"output {name}: no image was selected, so there is no key object to send")
    wrong = [i for i in selection.images if not 0 <= i < count]
    if wrong:
        raise Broken(f"output {name}: image {wrong[0]} was selected, the operator got {count} (from 0)")
    code = selection.title
    if code.scheme == "DCM" and code.value in REJECTIONS:
        raise Broken(f"output {name}: the title {code.meaning} ({code.value}, DCM) rejects images; an "
                     "operator may only point at them, use e.g. Of Interest (113000, DCM)")  # fmt: skip
    if code.scheme == "DCM" and code.value in _NEEDS_REASON:
        raise Broken(f"output {name}: the title {code.meaning} ({code.value}, DCM) asks for a reason code "
                     "that key images cannot say (TID 2010); use e.g. Of Interest (113000, DCM)")  # fmt: skip
    return list(dict.fromkeys(selection.images))


def _content(making: Making, selection: KeyImages, indices: Sequence[int]) -> Iterator[Dataset]:
    if selection.text:
        yield description(selection.text)
    sources = making.sources
    for referenced in items(sources, indices):
        index = next(i for i in indices if _names(making, i, referenced))
        item = Dataset()
        item.RelationshipType = "CONTAINS"
        item.ValueType = "IMAGE" if is_image(sources, index) else _other(sources.text("SOPClassUID", index))
        if item.ValueType != "IMAGE":
            referenced.pop("ReferencedFrameNumber", None)  # only images have them (PS3.3 C.17.4)
        item.ReferencedSOPSequence = [referenced]
        yield item


def _names(making: Making, index: int, item: Dataset) -> bool:
    stated = str(item["ReferencedSOPInstanceUID"].value)
    return making.sources.text("SOPInstanceUID", index) == stated.rstrip("\0 ")


def _other(sop_class: str) -> str:
    return "WAVEFORM" if sop_class.startswith("1.2.840.10008.5.1.4.1.1.9.") else "COMPOSITE"


def _observer(making: Making) -> Iterator[Dataset]:
    """A device, not a person (TID 1002, TID 1004)."""
    provenance = making.job.provenance
    yield _item(
        "HAS OBS CONTEXT",
        "CODE",
        Code("121005", "DCM", "Observer Type"),
        code=Code("121007", "DCM", "Device"),
    )
    yield _item("HAS OBS CONTEXT", "UIDREF", Code("121012", "DCM", "Device Observer UID"), uid=CREATOR)
    for concept, text in (
        (Code("121013", "DCM", "Device Observer Name"), provenance.device),
        (Code("121014", "DCM", "Device Observer Manufacturer"), MANUFACTURER),
        (Code("121015", "DCM", "Device Observer Model Name"), provenance.software),
    ):
        yield _item("HAS OBS CONTEXT", "TEXT", concept, text=text)


def _item(
    relation: str, kind: str, concept: Code, *, text: str = "", code: Code | None = None, uid: str = ""
) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relation, kind
    item.ConceptNameCodeSequence = [code_item(concept)]
    if text:
        item.TextValue = text
    if code is not None:
        item.ConceptCodeSequence = [code_item(code)]
    if uid:
        item.UID = uid
    return item
