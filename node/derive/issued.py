"""Results that left earlier: the note that takes them back, and the reports that a report replaces (design §6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from node.derive.key_images import description, key_object
from node.derive.making import Making
from node.derive.sources import Sources
from node.errors import Broken
from node.model import REJECTIONS, Code, Issued

_QUALITY = "113001"
_IMAGES = frozenset({"image", "picture", "tiles", "segmentation", "parametric_map"})


def rejection_note(making: Making) -> Iterator[Dataset]:
    """Make the note that rejects what the job withdraws under the name of this output (IHE RAD IOCM)."""
    named = [one for one in making.job.withdraws if one.output == making.output.name]
    title = Code(_QUALITY, "DCM", REJECTIONS[_QUALITY])
    yield key_object(making, title, evidence_of(named), _content(making, named))


def evidence_of(named: Sequence[Issued]) -> list[Dataset]:
    """List objects by study and series, as the evidence of a document does (PS3.3 C.17.2)."""
    studies: dict[str, dict[str, list[Issued]]] = {}
    for one in named:
        studies.setdefault(one.study_uid, {}).setdefault(one.series_uid, []).append(one)
    return [_study(uid, series) for uid, series in studies.items()]


def _study(uid: str, series: dict[str, list[Issued]]) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = uid
    item.ReferencedSeriesSequence = []
    for series_uid, members in series.items():
        one = Dataset()
        one.SeriesInstanceUID = series_uid
        one.ReferencedSOPSequence = [_reference(member) for member in members]
        item.ReferencedSeriesSequence.append(one)
    return item


def _reference(one: Issued) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class, one.sop_uid
    return item


def _content(making: Making, named: Sequence[Issued]) -> Iterator[Dataset]:
    if making.job.why:
        yield description(making.job.why)
    for one in named:
        item = Dataset()
        item.RelationshipType = "CONTAINS"
        item.ValueType = _value_type(one)
        item.ReferencedSOPSequence = [_reference(one)]
        yield item


def _value_type(one: Issued) -> str:
    if one.kind in _IMAGES:
        return "IMAGE"
    return "WAVEFORM" if one.kind == "recording" else "COMPOSITE"


def source_of(files: Sequence[str]) -> Sources:
    """The first of *files* that can be read: whose the results are stands there. Raises Broken where none is left."""
    for file in files:
        with suppress(OSError, InvalidDicomError):
            return Sources((dcmread(Path(file), stop_before_pixels=True),))
    raise Broken(
        "neither the results nor what they were made from are kept any more, so nobody knows whose they are"
    )
