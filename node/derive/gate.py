"""The gate: no derived object leaves that a strict reader would find fault with (design, promise 6).

Judges a file re-read from disk by the module tables of PS3.3, the value rules of PS3.5 and the
object's relation to its sources. A defect that the sources have in the same attribute is *inherited*
and only reported; any other is *introduced* and blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path as File
from typing import TypeAlias

from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian

from node.derive import values
from node.derive.classic import single_frame_class
from node.derive.payload import payload_defects
from node.derive.standard import COMPREHENSIVE_3D_SR, Path, attributes, roots

_SAME = ("PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID")
_NEW = ("SOPInstanceUID", "SeriesInstanceUID")
_QUOTED = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
_EITHER = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
"""A macro stands in one of the two (C.7.6.16), so its absence from one says nothing."""

_UNSAID = frozenset(
    {"ScanningSequence", "SequenceVariant", "CountsSource", "DecayCorrection", "FrameReferenceTime"}
)


@dataclass(frozen=True, slots=True)
class Defect:
    """One fault: the attribute's path, what is wrong, and whether we made it."""

    keyword: str
    what: str
    introduced: bool

    def __str__(self) -> str:
        return f"{self.keyword} {self.what}"


@dataclass(frozen=True)
class Origin:
    """The sources of a series of files, with their own defects found once."""

    sources: Sequence[Dataset]

    @cached_property
    def _known(self) -> dict[tuple[str, int], frozenset[tuple[str, str]]]:
        return {}

    @cached_property
    def uids(self) -> frozenset[str]:
        """The UIDs that an object derived from these quotes, legal or not."""
        return frozenset(_text(source, keyword) for source in self.sources for keyword in _QUOTED)

    @cached_property
    def owner(self) -> Mapping[str, str | bytes]:
        """Whose the sources are: patient, order and study, in which they all agree."""
        return {keyword: _said(source, keyword) for source in self.sources[:1] for keyword in _SAME}

    def excuses(self, defect: Defect, sop_class: str) -> bool:
        """Whether a source has the same defect in the same attribute; the first is asked first."""
        return any(
            (defect.keyword, defect.what) in self._defects(sop_class, i) for i in range(len(self.sources))
        )

    def _defects(self, sop_class: str, index: int) -> frozenset[tuple[str, str]]:
        key = (sop_class, index)
        if key not in self._known:
            source = self.sources[index]
            found = [
                *_presence_defects(source, _demanded(sop_class, _text(source, "SOPClassUID"))),
                *_value_defects(source, (), ("iso8859",)),
            ]
            self._known[key] = frozenset((defect.keyword, defect.what) for defect in found)
        return self._known[key]


def gate(path: File, sources: Sequence[Dataset]) -> list[Defect]:
    """Find every defect of the file at *path*, derived from *sources* (headers are enough)."""
    return judge(path, Origin(sources))


def judge(path: File, origin: Origin) -> list[Defect]:
    """Find what `gate` finds, for one of many files of the same origin."""
    try:
        dataset = dcmread(path)
    except (InvalidDicomError, OSError, ValueError, EOFError, AttributeError) as error:
        return [_introduced("file", f"cannot be read back ({type(error).__name__})")]
    sop_class = _text(dataset, "SOPClassUID")
    if not attributes(sop_class):
        return [_introduced("SOPClassUID", "names no object class of the standard")]
    found = [
        *_presence_defects(dataset, _demanded(sop_class)),
        *_value_defects(dataset, (), ("iso8859",), origin.uids),
    ]
    return [
        *(replace(d, introduced=d.introduced and not origin.excuses(d, sop_class)) for d in found),
        *_meta_defects(dataset),
        *(_introduced(*found) for found in payload_defects(dataset, roots(sop_class))),
        *_reference_defects(dataset, sop_class),
        *_kinship_defects(dataset, origin),
    ]


def copy_defects(before: Dataset, after: Dataset) -> list[Defect]:
    """Find what is wrong with the header of a derived object that was changed on its way, and was not before."""
    sop_class = _text(after, "SOPClassUID")
    known, found = ([*_header_defects(one, sop_class)] for one in (before, after))
    same = {(defect.keyword, defect.what) for defect in known}
    return [defect for defect in found if (defect.keyword, defect.what) not in same]


def _header_defects(dataset: Dataset, sop_class: str) -> Iterator[Defect]:
    yield from _presence_defects(dataset, _demanded(sop_class))
    yield from _value_defects(dataset, (), ("iso8859",))
    yield from _reference_defects(dataset, sop_class)


_Demand: TypeAlias = tuple[tuple[Path, tuple[tuple[BaseTag, str, str], ...]], ...]
"""Path of the owner → tag, dotted path and type (1 or 2) of what each owner must have."""


@cache
def _demanded(ours: str, source: str = "") -> _Demand:
    """What an object of class *ours* must have; or what of it a *source* can have on its conscience.

    That is what its own class demands as well; and, where *ours* is its class in classic form, the few
    type 1 attributes that no macro has to state: they can be neither left empty nor made up.
    """
    theirs, classic = attributes(source), single_frame_class(source) == ours != source
    owners: dict[Path, list[tuple[BaseTag, str, str]]] = {}
    for path, row in attributes(ours).items():
        top = len(path) == 1
        if (
            row.type not in ("1", "2")
            or (top and not row.required)
            or (len(path) == 2 and path[0] in _EITHER)
        ):
            continue
        known = path in theirs and theirs[path].required
        if not source or not top or known or (classic and path[0] in _UNSAID):
            owners.setdefault(path[:-1], []).append((Tag(path[-1]), ".".join(path), row.type))
    return tuple((path, tuple(rows)) for path, rows in owners.items())


def _introduced(keyword: str, what: str) -> Defect:
    return Defect(keyword, what, introduced=True)


def _text(dataset: Dataset, keyword: str) -> str:
    element = dataset.get_item(keyword)
    return "" if element is None else values.octets(element).decode("ascii", "replace")


def _meta_defects(dataset: Dataset) -> Iterator[Defect]:
    meta = dataset.file_meta
    for inner, outer in (
        ("SOPClassUID", "MediaStorageSOPClassUID"),
        ("SOPInstanceUID", "MediaStorageSOPInstanceUID"),
    ):
        if _text(dataset, inner) != str(meta.get(outer, "")):
            yield _introduced(outer, f"differs from {inner}")
    if meta.get("TransferSyntaxUID") != ExplicitVRLittleEndian:
        yield _introduced("TransferSyntaxUID", "is not Explicit VR Little Endian")


def _presence_defects(dataset: Dataset, demanded: _Demand) -> Iterator[Defect]:
    """Type 1 absent or empty, type 2 absent; what depends on a condition is left to the condition."""
    present = {keyword_for_tag(tag) for tag in dataset.keys()}  # noqa: SIM118 - no conversion
    for path, rows in demanded:
        if path and path[0] not in present:
            continue
        for owner in _owners(dataset, path):
            for tag, name, kind in rows:
                element = owner.get_item(tag)
                if element is None:
                    yield _introduced(name, f"is missing (type {kind})")
                elif kind == "1" and _is_empty(owner, tag):
                    yield _introduced(name, "is empty (type 1)")


def _owners(dataset: Dataset, path: Path) -> Iterable[Dataset]:
    owners = [dataset]
    for keyword in path:
        owners = [
            item
            for owner in owners
            if keyword in owner and owner[keyword].VR == "SQ"
            for item in owner[keyword]
        ]
    return owners


def _is_empty(owner: Dataset, tag: BaseTag) -> bool:
    element = owner.get_item(tag)
    if values.vr_of(element) == "SQ":
        return len(owner[tag].value or ()) == 0
    value = element.value
    return value is None or (isinstance(value, bytes | str | list) and not value)


def _value_defects(
    dataset: Dataset, path: Path, inherited: Sequence[str], quoted: frozenset[str] = frozenset()
) -> Iterator[Defect]:
    """What is wrong with values; a bad UID of the source that is *quoted* to refer to it is not our doing."""
    encodings = values.encodings_of(dataset, inherited)
    for tag in dataset.keys():  # noqa: SIM118 - iterating a Dataset converts its values
        keyword = keyword_for_tag(tag)
        name = ".".join((*path, keyword or str(tag)))
        if tag.group % 2 or not keyword:
            yield _introduced(name, "is private or unknown")
            continue
        element = dataset.get_item(tag)
        vr = values.vr_of(element)
        if vr == "SQ":
            for item in dataset[tag].value or ():
                yield from _value_defects(item, (*path, keyword), encodings, quoted)
        elif vr in values.TEXT_VRS:
            data = values.octets(element, encodings)
            wrong = values.defect(tag, vr, data, encodings)
            if wrong:
                ours = vr != "UI" or data.decode("ascii", "replace") not in quoted
                yield Defect(name, wrong, introduced=ours)
        elif isinstance(element.value, bytes):
            wrong = values.size_defect(vr, len(element.value))
            if wrong:
                yield _introduced(name, wrong)


def _reference_defects(dataset: Dataset, sop_class: str) -> Iterator[Defect]:
    named = {uid for path, uid in _references(dataset, ()) if "ReferencedSeriesSequence" in path}
    for path, uid in _references(dataset, ()):
        if not uid:
            yield _introduced(".".join(path), "refers to nothing")
        elif sop_class == COMPREHENSIVE_3D_SR and path[0] == "ContentSequence" and uid not in named:
            yield _introduced(".".join(path), "refers to an object that the evidence does not list (C.17.2)")


def _references(dataset: Dataset, path: Path) -> Iterator[tuple[Path, str]]:
    if "ReferencedSOPInstanceUID" in dataset or "ReferencedSOPClassUID" in dataset:
        both = _text(dataset, "ReferencedSOPInstanceUID"), _text(dataset, "ReferencedSOPClassUID")
        yield (*path, "ReferencedSOPInstanceUID"), both[0] if all(both) else ""
    for element in dataset.elements():
        if values.vr_of(element) == "SQ":
            for item in dataset[element.tag].value or ():
                yield from _references(item, (*path, keyword_for_tag(element.tag)))


def _kinship_defects(dataset: Dataset, origin: Origin) -> Iterator[Defect]:
    """Ours is new, and belongs to the same patient, order and study as every source."""
    for keyword in _NEW:
        if _text(dataset, keyword) in origin.uids:
            yield _introduced(keyword, "is the one of a source")
    for keyword, said in origin.owner.items():
        if _said(dataset, keyword) != said:
            yield _introduced(keyword, "is not the source's")


def _said(dataset: Dataset, keyword: str) -> str | bytes:
    element = dataset.get_item(keyword)
    if element is None:
        return ""
    encodings = values.encodings_of(dataset)
    data = values.octets(element, encodings)
    text = values.decoded(data, encodings)
    return data if text is None else text
