"""C-MOVE and C-GET as SCU: a series of a real PACS, and what a peer that does not behave costs."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import peers
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from query_peers import Handler, destination, finder

from node.querier import Folders, answer
from node.read.header import read_header
from node.send.link import Lost
from node.send.protocol import Destination
from node.send.queries import (
    Fetch,
    Fetched,
    Found,
    Limits,
    Search,
    answer_from_json,
    question_from_json,
    to_json,
)
from node.send.retrieve import judge_last
from node.store.files import read_arrival, receiver_runs, records_after
from node.testing import Grid, Series, sphere_volume, write_ct_series

CT, STUDY, SERIES = "1.2.840.10008.5.1.4.1.1.2", "1.2.9", "1.2.9.1"
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{n}" for n in (1, 2, 3))
SHORT = Limits(seconds=3.0, responses=50, response_size=4096)
PATIENT = replace(SHORT, seconds=60.0)


def asked(where: Destination, data: Path, way: str = "get", **changes: Any) -> Fetch:
    """A series to fetch."""
    made = Fetch(5, where, way, STUDY, SERIES, 17, "PACSNODE", 4.0, 1_000_000, str(data), 1.01)
    return replace(made, **changes)


def image(uid: str, size: int = 100, **changes: str) -> Dataset:
    """One object that a peer sends."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = CT, uid, STUDY, SERIES
    ds.PatientID, ds.PixelData = "P-7", bytes(size)
    ds["PixelData"].VR = "OW"
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


@contextlib.contextmanager
def pacs(
    get: Handler | None = None, move: Handler | None = None, objects: tuple[str, ...] = ("1.2.3.1", "1.2.3.2")
) -> Iterator[Destination]:
    """A peer that has *objects* of the series, and answers C-GET and C-MOVE in its own way."""

    def find(event: evt.Event) -> Iterator[tuple[int, Any]]:
        for uid in objects:
            found = event.identifier
            found.SOPInstanceUID, found.SOPClassUID = uid, CT
            yield 0xFF00, found

    ae = AE("CT01")
    for sop_class in (FIND, *([GET] if get else []), *([MOVE] if move else [])):
        ae.add_supported_context(sop_class)
    ae.add_supported_context(CT, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
    handlers: list[Any] = [(evt.EVT_C_FIND, find)]
    handlers += [(evt.EVT_C_GET, get)] if get else []
    handlers += [(evt.EVT_C_MOVE, move)] if move else []
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield destination(server.server_address[1])
    finally:
        server.shutdown()


def kept(data: Path) -> list[Path]:
    """The objects that lie in the data folder."""
    return [
        record.path
        for run in (receiver_runs(data) if (data / "objects").exists() else ())
        for record in records_after(data, run, 0)
    ]


def sends(*found: Dataset) -> Handler:
    """C-GET that sends these."""

    def handler(_: evt.Event) -> Iterator[tuple[Any, Any]]:
        yield len(found)
        for ds in found:
            yield 0xFF00, ds

    return handler


def test_get_keeps_what_comes_as_receivers_do(tmp_path: Path) -> None:
    """Each object is a durable record whose file meta says that it was fetched, and byte for byte what was sent."""
    with pacs(get=sends(image("1.2.3.1"), image("1.2.3.2"))) as where:
        found = answer(asked(where, tmp_path), PATIENT, Folders())
    assert found == Fetched(5, ("1.2.3.1", "1.2.3.2"))
    paths = kept(tmp_path)
    assert len(paths) == 2
    arrival, offset = read_arrival(paths[0])
    assert (arrival.origin, arrival.peer, arrival.calling, arrival.called) == (
        "get 17",
        "CT01",
        "CT01",
        "PACSNODE",
    )
    header = read_header(paths[0], arrival, offset)
    assert (header.sop_uid, header.origin, header.readable) == ("1.2.3.1", "get 17", True)
    assert not list(tmp_path.rglob("*.part"))


def endless(event: evt.Event) -> Iterator[tuple[Any, Any]]:
    """The same object for ever."""
    yield 60000
    while event.assoc.is_established:
        yield 0xFF00, image("1.2.3.1")


def hanging(event: evt.Event) -> Iterator[tuple[Any, Any]]:
    """Nothing."""
    yield 1
    while event.assoc.is_established:
        time.sleep(0.1)
    yield 0x0000, None


def failing(_: evt.Event) -> Iterator[tuple[Any, Any]]:
    """A failure."""
    yield 1
    yield 0xC000, None


@pytest.mark.parametrize(
    ("handler", "words", "files"),
    [
        (sends(image("1.2.3.1"), image("1.2.6.6")), "was not asked for", 1),
        (sends(image("1.2.3.1", 2_000_000)), "of more than 1000000 bytes", 0),
        (endless, "did not come to an end in time", None),
        (hanging, "did not answer within 1.5 s", 0),
        (failing, r"C-GET with C000 \(it cannot process that\)", 0),
    ],
    ids=["foreign", "gigantic", "endless", "hanging", "failing"],
)
def test_a_hostile_get_is_words_in_time(
    handler: Handler, words: str, files: int | None, tmp_path: Path
) -> None:
    """What was not asked for is not written down; too much, too long or nothing ends within the limits, in words."""
    began = time.monotonic()
    with pacs(get=handler) as where:
        found = answer(asked(where, tmp_path), SHORT, Folders())
    assert isinstance(found, Fetched) and found.objects == ()
    assert pytest.approx(0, abs=12) == time.monotonic() - began

    assert re.search(words, found.error), found.error
    if files is not None:
        assert len(kept(tmp_path)) == files
    assert not list(tmp_path.rglob("*.part"))


def test_a_full_disk_refuses_what_comes(tmp_path: Path) -> None:
    """Nothing is kept, the peer hears 0xA700 and says that it could not send all."""
    with pacs(get=sends(image("1.2.3.1"), image("1.2.3.2"))) as where:
        found = answer(asked(where, tmp_path, refuse=0.0), PATIENT, Folders())
    assert isinstance(found, Fetched) and "A702 (it could not send them)" in found.error
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "failed", "words"),
    [
        (0x0000, 0, ""),
        (0xA801, 0, "does not know PACSNODE as a destination of C-MOVE"),
        (0xB000, 3, "could not send 3 of the objects"),
        (0x0000, 1, "could not send 1 of the objects"),
        (0xA702, 8, "with A702"),
        (0xFE00, 0, "cancelled, by nobody here"),
    ],
)
def test_the_last_response_of_a_move(status: int, failed: int, words: str, tmp_path: Path) -> None:
    """Only success without a failed sub-operation is one; each other status says what to look at."""
    elements = {0x0900: status.to_bytes(2, "little"), 0x1022: failed.to_bytes(2, "little")}
    with pytest.raises(Lost, match=words) if words else contextlib.nullcontext():
        judge_last("C-MOVE", elements, asked(destination(4242), tmp_path, "move"))


def test_a_destination_that_the_peer_does_not_know(tmp_path: Path) -> None:
    """The most usual mistake in setting priors up says what to enter where."""

    def move(_: evt.Event) -> Iterator[tuple[Any, Any]]:
        yield None, None

    with pacs(move=move) as where:
        found = answer(asked(where, tmp_path, "move"), PATIENT, Folders())
    assert isinstance(found, Fetched)
    assert "does not know PACSNODE as a destination of C-MOVE; enter our AE title" in found.error


def test_what_a_peer_does_not_offer(tmp_path: Path) -> None:
    """Without C-GET the words name the other way, and of a series that is gone nothing is asked."""
    with pacs(move=failing) as where:
        found = answer(asked(where, tmp_path), PATIENT, Folders())
        assert isinstance(found, Fetched) and "say priors: move" in found.error
    with pacs(get=failing, objects=()) as where:
        found = answer(asked(where, tmp_path), PATIENT, Folders())
        assert isinstance(found, Fetched) and "does not know any object" in found.error


def test_what_is_said_over_the_pipe_is_what_is_read(tmp_path: Path) -> None:
    """Questions and answers survive being lines."""
    fetch = asked(destination(4242), tmp_path)
    search = Search(
        6, destination(4242), "P-7", "H", "2020-2026", STUDY, ("CT",), ("PatientID",), ("Modality",)
    )
    for question in (fetch, search):
        assert question_from_json(to_json(question)) == question
    for said in (Fetched(5, ("1.2", "1.3")), Found(6, (), "it did not answer")):
        assert answer_from_json(to_json(said)) == said
    offer = ("1.2", "1.2.1", {"Modality": (("CT",),)})
    assert answer_from_json(to_json(Found(6, (offer,)))).offers[0][2]["Modality"] == [["CT"]]


# --- searching


def search(where: Destination) -> Search:
    """What is asked of a patient."""
    keys = ("PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "ModalitiesInStudy")
    return Search(
        6,
        where,
        "P-7",
        "HOSPITAL",
        "20210301-20260301",
        "1.1",
        ("CT",),
        keys,
        ("Modality", "SeriesInstanceUID"),
    )


@contextlib.contextmanager
def searched(
    studies: Callable[[], Iterator[Dataset]], series: Callable[[str], Iterator[Dataset]]
) -> Iterator[Destination]:
    """A peer that offers these."""

    def find(event: evt.Event) -> Iterator[tuple[int, Any]]:
        level = event.identifier.QueryRetrieveLevel
        found = studies() if level == "STUDY" else series(str(event.identifier.StudyInstanceUID))
        yield from ((0xFF00, one) for one in found)

    with finder(find) as where:
        yield where


def said(**values: Any) -> Dataset:
    """One match."""
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def test_a_search_looks_into_likely_studies_only() -> None:
    """Neither the study that asks nor one without the modality; what series and study say comes together."""
    looked: list[str] = []

    def studies() -> Iterator[Dataset]:
        for uid, there in (("1.1", ["CT"]), ("1.2", ["MR", "US"]), ("1.3", ["CT", "SR"]), ("1.4", None)):
            ds = said(PatientID="P-7", StudyInstanceUID=uid, StudyDate="20240101")
            if there:
                ds.ModalitiesInStudy = there
            yield ds

    def series(study: str) -> Iterator[Dataset]:
        looked.append(study)
        yield said(StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1", Modality="CT")

    with searched(studies, series) as where:
        found = answer(search(where), PATIENT)
    assert isinstance(found, Found) and not found.error
    assert looked == ["1.3", "1.4"]
    study_uid, series_uid, about = found.offers[0]
    assert (study_uid, series_uid) == ("1.3", "1.3.1")
    assert about["PatientID"] == (("P-7",),) and about["Modality"] == (("CT",),)
    assert about["StudyDate"] == (("20240101",),)


def test_a_letter_beyond_ascii_is_asked_for_as_it_is() -> None:
    """`Ä7` must not become `?7`, which C-FIND takes for a pattern; the answer may come in another character set."""
    asked_for: list[Dataset] = []

    def find(event: evt.Event) -> Iterator[tuple[int, Any]]:
        asked_for.append(event.identifier)
        if event.identifier.QueryRetrieveLevel == "STUDY":
            charset = {"SpecificCharacterSet": "ISO_IR 100"}
            yield 0xFF00, said(**charset, PatientID="Ä7", StudyInstanceUID="1.3", StudyDate="20240101")

    with finder(find) as where:
        found = answer(replace(search(where), patient_id="Ä7"), PATIENT)
    assert isinstance(found, Found) and not found.error, found
    assert [str(one.get("PatientID", "")) for one in asked_for] == ["Ä7", ""]


@pytest.mark.parametrize(
    ("patient", "of", "words"),
    [
        ("P-8", "1.3", "answered C-FIND for one patient with another"),
        ("P-7", "1.9", "answered C-FIND for one series with another"),
    ],
)
def test_what_is_said_of_others_is_refused(patient: str, of: str, words: str) -> None:
    """Another patient's study, or another study's series, among the answers: nothing of them is believed."""
    one = said(PatientID=patient, StudyInstanceUID="1.3", StudyDate="20240101")
    other = said(StudyInstanceUID=of, SeriesInstanceUID="1.3.1", Modality="CT")
    with searched(lambda: iter([one]), lambda _: iter([other])) as where:
        found = answer(search(where), SHORT)
    assert isinstance(found, Found) and words in found.error and found.offers == ()


def test_orthanc_finds_and_sends(tmp_path: Path) -> None:
    """A real PACS: found by the patient's ID, fetched by C-GET, byte-equal datasets' digests of what it holds."""
    changes = {"PatientID": "P-7", "IssuerOfPatientID": "HOSPITAL", "StudyDate": "20240105"}
    volume = sphere_volume(Grid((4, 16, 16), (3.0, 2.0, 2.0)), radius=9.0, inside=40.0)
    files = write_ct_series(tmp_path / "ct", volume, series=Series("held", changes=changes))
    first = pydicom.dcmread(files[0], stop_before_pixels=True)
    with peers.orthanc(tmp_path / "orthanc", {"node": ("PACSNODE", "127.0.0.1", 11112)}) as orthanc:
        for path in files:
            orthanc.put(path)
        where = destination(orthanc.port, ae_title="ORTHANC")
        found = answer(search(where), PATIENT)
        assert isinstance(found, Found) and not found.error
        ((study, series, about),) = found.offers
        assert (study, series) == (first.StudyInstanceUID, first.SeriesInstanceUID)
        assert about["IssuerOfPatientID"] == (("HOSPITAL",),)
        data = tmp_path / "data"
        data.mkdir()
        got = answer(asked(where, data, study_uid=study, series_uid=series), PATIENT, Folders())
        assert isinstance(got, Fetched) and len(got.objects) == 4, got
        for path in kept(data):
            arrival, offset = read_arrival(path)
            _, held = path.read_bytes(), orthanc.file(arrival.sop_uid)
            (tmp_path / "held.dcm").write_bytes(held)
            assert pydicom.dcmread(tmp_path / "held.dcm").PixelData in path.read_bytes()[offset:]
