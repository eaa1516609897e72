"""What the PACS holds in the end, read from its files alone, and whether it is what it has to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import UID
from pynetdicom.dsutils import split_dataset

from node.demo.pacs import Held
from node.demo.studies import Sent
from node.words import unit_words

_GROUP, _TRACKING, _FINDING, _DERIVATION = "125007", "112039", "121071", "121401"  # DCM, TID 1411 and 300


@dataclass(frozen=True, slots=True)
class Returned:
    """One series at the PACS."""

    series_uid: str
    modality: str
    description: str
    sop_class: str
    files: tuple[Path, ...]
    derived: bool
    title: str
    """What was sent: of an original itself, of a result its source."""
    source_uid: str
    """Series Instance UID of a result's source; its own for an original."""


@dataclass(frozen=True, slots=True)
class Number:
    """One measurement of a report."""

    source: str
    region: str
    name: str
    value: str
    unit: str


def returned(series: Sequence[Sent], held: Mapping[str, Held]) -> tuple[tuple[Returned, ...], list[str]]:
    """The series at the PACS, originals first; and one sentence for everything that is not as it must be."""
    problems = list(_changed_originals(series, held))
    of_sent = {uid: one for one in series for uid in map(_sop_uid, one.files)}
    found: dict[str, list[Held]] = {}
    for one in held.values():
        found.setdefault(one.series_uid, []).append(one)
    rows = []
    for uid, objects in found.items():
        if objects[0].sop_uid in of_sent:
            source = of_sent[objects[0].sop_uid]
        else:
            known, wrong = _sources(objects, of_sent, held)
            problems += wrong
            if known is None:
                continue
            source = known
        rows.append(_described(uid, objects, source))
    return tuple(sorted(rows, key=lambda row: (row.derived, str(row.files[0])))), problems


def _changed_originals(series: Sequence[Sent], held: Mapping[str, Held]) -> Iterator[str]:
    """Promise 2: what was received goes out byte for byte."""
    for one in series:
        for file in one.files:
            back = held.get(_sop_uid(file))
            if back is None:
                yield f"{one.title}: {file.name} is not at the PACS"
            elif _dataset_bytes(back.path) != _dataset_bytes(file):
                yield f"{one.title}: {back.path} is not byte for byte what was sent ({file})"


def _sources(
    objects: Sequence[Held], of_sent: Mapping[str, Sent], held: Mapping[str, Held]
) -> tuple[Sent | None, list[str]]:
    """What a derived series was made from, by its own references; all of them must be at the PACS."""
    source, wrong = None, []
    for one in objects:
        named = set(_references(dcmread(one.path, stop_before_pixels=True)))
        lost = named - held.keys()
        if lost:
            wrong.append(f"{one.path} refers to {len(lost)} objects that are not at the PACS")
        sent = {of_sent[uid].series_uid: of_sent[uid] for uid in named if uid in of_sent}
        if len(sent) != 1:
            wrong.append(
                f"{one.path} refers to {len(sent)} of the series that were sent, not to its one source"
            )
        source = source or next(iter(sent.values()), None)
    return source, wrong


def _references(dataset: Dataset) -> Iterator[str]:
    """Every SOP Instance UID that *dataset* refers to, at any depth."""
    for element in dataset:
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)
        elif element.VR == "SQ":
            for item in element.value:
                yield from _references(item)


def _described(series_uid: str, objects: Sequence[Held], source: Sent) -> Returned:
    first = dcmread(objects[0].path, stop_before_pixels=True)
    return Returned(
        series_uid=series_uid,
        modality=str(first.get("Modality", "")),
        description=str(first.get("SeriesDescription", "") or ""),
        sop_class=UID(first.SOPClassUID).name.removesuffix(" Storage"),
        files=tuple(one.path for one in objects),
        derived=series_uid != source.series_uid,
        title=source.title,
        source_uid=source.series_uid,
    )


def _sop_uid(file: Path) -> str:
    return str(split_dataset(file)[0].MediaStorageSOPInstanceUID)


def _dataset_bytes(file: Path) -> bytes:
    offset = split_dataset(file)[1]
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read()


def numbers(series: Sequence[Returned]) -> tuple[Number, ...]:
    """The measurements of every report at the PACS (TID 1500)."""
    reports = [
        (one.title, file) for one in series if one.derived and one.modality == "SR" for file in one.files
    ]
    return tuple(number for title, file in reports for number in _numbers(dcmread(file), title))


def _numbers(node: Dataset, source: str) -> Iterator[Number]:
    """The numbers of every measurement group below *node*; those that only describe the images are left out."""
    items = node.get("ContentSequence", ())
    if _code(node, "ConceptNameCodeSequence") != _GROUP:
        for item in items:
            yield from _numbers(item, source)
        return
    region = next(iter(_labels(items)), "")
    for item in items:
        if item.ValueType == "NUM" and item.MeasuredValueSequence:
            measured = item.MeasuredValueSequence[0]
            name = item.ConceptNameCodeSequence[0].CodeMeaning
            how = [
                part.ConceptCodeSequence[0].CodeMeaning
                for part in item.get("ContentSequence", ())
                if _code(part, "ConceptNameCodeSequence") == _DERIVATION
            ]
            unit = measured.MeasurementUnitsCodeSequence[0]
            yield Number(source, region, ", ".join([name, *how]), str(measured.NumericValue), _unit(unit))


def _labels(items: Sequence[Dataset]) -> Iterator[str]:
    for concept in (_TRACKING, _FINDING):
        for item in items:
            if _code(item, "ConceptNameCodeSequence") == concept:
                if item.ValueType == "TEXT":
                    yield str(item.TextValue)
                elif item.ValueType == "CODE":
                    yield str(item.ConceptCodeSequence[0].CodeMeaning)


def _unit(unit: Dataset) -> str:
    """A unit as people write it: UCUM's code, except where only its meaning can be read."""
    return "" if unit.CodeValue == "1" else unit_words(str(unit.CodeValue))


def _code(item: Dataset, keyword: str) -> str:
    sequence = item.get(keyword)
    return str(sequence[0].CodeValue) if sequence and "CodeValue" in sequence[0] else ""
