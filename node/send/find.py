"""C-FIND as SCU, Study Root (PS3.4 C.4.1): questions with limits on everything that an answer may cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue
from pydicom.uid import ImplicitVRLittleEndian

from node.send import command
from node.send.association import Association, open_association
from node.send.link import Lost
from node.send.protocol import Destination
from node.send.queries import Limits, Search

FIND = ("1.2.840.10008.5.1.4.1.2.2.1", str(ImplicitVRLittleEndian))
"""Study Root Query/Retrieve Information Model - FIND; every SCP takes the syntax (PS3.5 10.1)."""
_PENDING = (0xFF00, 0xFF01)
_CANCELLED = 0xFE00
_CANCEL_PATIENCE = 5.0
"""Seconds a peer may go on after C-CANCEL; then the association is aborted."""
MOST_OBJECTS = 1_000_000
"""A count beyond it is taken for a mistake."""


def find(
    association: Association, level: str, keys: Mapping[str, str], limits: Limits, until: float
) -> list[Dataset]:
    """Ask at *level* (STUDY, SERIES, IMAGE) with *keys*, keyword → value, empty to be told; what matches.

    Raises Lost where the peer fails, or exceeds a limit: then it is cancelled first.
    """
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    if not all(value.isascii() for value in keys.values()):
        asked.SpecificCharacterSet = "ISO_IR 192"  # else a letter would become a `?`, which matches any
    for keyword, value in keys.items():
        setattr(asked, keyword, value)
    message_id = association.next_id()
    request = command.query_request(message_id, command.C_FIND_RQ, FIND[0])
    association.say(association.accepted[FIND], request, encoded(asked))
    found: list[Dataset] = []
    while True:
        elements, dataset = response(association, command.C_FIND_RSP, message_id, until)
        status = command.number(elements, command.STATUS)
        if status not in _PENDING:
            break
        if len(found) == limits.responses:
            _cancel(association, message_id)
            raise Lost(f"answered C-FIND with more than {limits.responses} matches")
        if len(dataset) > limits.response_size:
            _cancel(association, message_id)
            raise Lost(f"answered C-FIND with a match of {len(dataset)} bytes")
        found.append(decoded(dataset))
    if status != 0x0000:
        raise Lost(f"answered C-FIND with {failure(status, elements)}; see its log")
    return found


def response(
    association: Association, field: int, message_id: int, until: float
) -> tuple[Mapping[int, bytes], bytes]:
    """The next response to our request: command set and dataset. Raises Lost."""
    _, elements, dataset = association.message(association.patience, until)
    about = command.number(elements, command.MESSAGE_ID_BEING_RESPONDED_TO)
    if command.number(elements, command.COMMAND_FIELD) != field or about != message_id:
        raise Lost("answered something that was not asked; see its log")
    return elements, dataset


def failure(status: int | None, elements: Mapping[int, bytes]) -> str:
    """A status in words; the peer's own comment may name a patient and stays with it."""
    if status is None:
        return "no status"
    if status == _CANCELLED:
        return "FE00 (cancelled, by nobody here)"
    words = {
        0xA700: "out of resources",
        0xA900: "it does not understand the question",
        0xA701: "out of resources",
        0xA702: "it could not send them",
        0xA801: "it does not know where to send to",
    }
    words |= {0x0122: "SOP class not supported", 0x0124: "not authorised", 0x0211: "unrecognised operation"}
    said = words.get(status) or ("it cannot process that" if status >> 12 == 0xC else "a failure")
    where = command.offending(elements)
    return f"{status:04X} ({said})" + (f", about {where}" if where else "")


def _cancel(association: Association, message_id: int) -> None:
    """C-CANCEL, and let pass what is still under way; who does not end then is aborted by the caller's Lost."""
    with suppress(Lost):
        association.say(association.accepted[FIND], command.cancel_request(message_id))
        until = time.monotonic() + _CANCEL_PATIENCE
        while True:
            elements, _ = response(association, command.C_FIND_RSP, message_id, until)
            if command.number(elements, command.STATUS) not in _PENDING:
                return


def encoded(asked: Dataset) -> bytes:
    """A dataset in Implicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = True, True
    write_dataset(buffer, asked)
    return buffer.getvalue()


def decoded(dataset: bytes) -> Dataset:
    """A peer's dataset. Raises Lost where it cannot be read."""
    try:
        return read_dataset(BytesIO(dataset), is_implicit_VR=True, is_little_endian=True)
    except Exception as error:  # pydicom raises whatever a peer's bytes lead it to
        raise Lost(f"answered with a dataset that cannot be read ({type(error).__name__})") from error


def text(found: Dataset, keyword: str) -> str:
    """One value as text, empty where there is none or it cannot be read."""
    return (*texts(found, keyword), "")[0]


def texts(found: Dataset, keyword: str) -> tuple[str, ...]:
    """All values as text."""
    try:
        value: Any = found.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom converts a peer's bytes here
        return ()
    several = value if isinstance(value, MultiValue) else () if value is None else (value,)
    return tuple(str(one).strip("\0 ") for one in several)


def search(asked: Search, limits: Limits) -> list[tuple[Dataset, Dataset]]:
    """The series of a patient's studies, each with what its study says. Raises Lost.

    What is said of another patient, or of another study than was asked for, ends it: who answers so is not believed.
    """
    until = time.monotonic() + limits.seconds
    found: list[tuple[Dataset, Dataset]] = []
    with open_association(asked.destination, [FIND]) as association:
        if why := association.refused.get(FIND):
            raise Lost(f"does not accept C-FIND (Study Root): {why}; see its settings")
        key = {"PatientID": asked.patient_id, "IssuerOfPatientID": asked.issuer, "StudyDate": asked.dates}
        wanted = dict.fromkeys(asked.study_keys, "") | key
        studies = find(association, "STUDY", wanted, limits, until)
        for study in studies:
            if (said := text(study, "PatientID")) and said != asked.patient_id:
                raise Lost("answered C-FIND for one patient with another; see its log")
        for study in _likely(studies, asked):
            of = {"StudyInstanceUID": text(study, "StudyInstanceUID")}
            wanted = dict.fromkeys(asked.series_keys, "") | of
            if len(asked.modalities) == 1:
                wanted["Modality"] = asked.modalities[0]
            there = _ours(find(association, "SERIES", wanted, limits, until), of)
            found += [(study, series) for series in there if text(series, "SeriesInstanceUID")]
            if len(found) > limits.responses:
                raise Lost(f"offers more than {limits.responses} series of one patient")
    return found


def _likely(studies: Sequence[Dataset], asked: Search) -> Iterator[Dataset]:
    """The studies to look into: not the one that asks, nor those that lack the modality by their own word."""
    seen = {"", asked.not_study}
    for study in studies:
        uid = text(study, "StudyInstanceUID")
        if uid in seen:
            continue
        seen.add(uid)
        there = {one.upper() for one in texts(study, "ModalitiesInStudy")} - {""}
        if not there or not asked.modalities or there & set(asked.modalities):
            yield study


def objects_of(
    association: Association, study_uid: str, series_uid: str, limits: Limits, until: float
) -> dict[str, str]:
    """SOP Instance UID → SOP Class UID of the objects that a peer has of a series. Raises Lost."""
    key = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
    there = find(association, "IMAGE", {**key, "SOPInstanceUID": "", "SOPClassUID": ""}, limits, until)
    found = {text(one, "SOPInstanceUID"): text(one, "SOPClassUID") for one in _ours(there, key)}
    found.pop("", None)
    return found


def count(destination: Destination, study_uid: str, series_uid: str, limits: Limits) -> int:
    """How many objects a peer has of a series. Raises Lost, also where it does not say."""
    until = time.monotonic() + limits.seconds
    with open_association(destination, [FIND]) as association:
        if why := association.refused.get(FIND):
            raise Lost(f"does not accept C-FIND (Study Root): {why}; see its settings")
        key = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        known = find(association, "SERIES", {**key, "NumberOfSeriesRelatedInstances": ""}, limits, until)
        if not known:
            raise Lost("does not know the series")
        numbers = [text(one, "NumberOfSeriesRelatedInstances") for one in _ours(known, key)]
        said = [int(number) for number in numbers if number.isascii() and number.isdigit()]
        if said and 0 < max(said) <= MOST_OBJECTS:
            return max(said)
        images = find(association, "IMAGE", {**key, "SOPInstanceUID": ""}, limits, until)
        counted = {text(one, "SOPInstanceUID") for one in _ours(images, key)} - {""}
        if not counted:
            raise Lost("does not say how many objects the series has")
        return len(counted)


def _ours(found: list[Dataset], key: Mapping[str, str]) -> list[Dataset]:
    """All of *found*, where each is about what was asked for. Raises Lost where one is about something else."""
    for one in found:
        if any((said := text(one, name)) and said != asked for name, asked in key.items()):
            raise Lost("answered C-FIND for one series with another; see its log")
    return found
