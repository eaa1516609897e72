"""What is corrected after it was sent: late images, rejection notes in both directions, and UIDs that are none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers
import pydicom
import pytest
from crash.crash_house import (
    MEASURE_CT,
    ROUTE_ALL,
    House,
    Pacs,
    Scanner,
    assert_delivered,
    ball,
    changed,
    house,
)
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom import AE, _config
from read.test_read_rejection import KEY_OBJECT, note

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # pydicom's, about UIDs that are meant to be wrong
RULES = {"all": ROUTE_ALL, "measure": MEASURE_CT}
AT_ONCE = "  CT02: {sends_as: [CT02], seal: {on_release: yes, quiet_for: 30 s}}"
"""A peer whose association is its series: however slow this machine is, a pause does not cut one in two."""
COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Pacs]]:
    """Run a node and a PACS that takes rejection notes for all tests here, and stop the node at the end."""
    folder = tmp_path_factory.mktemp("corrections")
    environ = {"PACSNODE__PEERS__PACS__IOCM": "yes"}
    made = house(folder / "site", RULES, environ=environ, destinations=AT_ONCE)
    with made as site, Pacs(site.pacs_port).open() as pacs:
        site.start()
        yield site, pacs
        site.stop()


def of_study(pacs: Pacs, uid: str) -> list[str]:
    """The SOP Instance UIDs of a study in the order they came."""
    return [sop for sop, _ in pacs.got if pacs.read(sop).get("StudyInstanceUID") == uid]


def kind(pacs: Pacs, uid: str) -> str:
    """The class of one object at the PACS."""
    return str(pacs.read(uid).SOPClassUID)


def named(dataset: Dataset) -> set[str]:
    """What the evidence of a document lists."""
    return {
        str(item.ReferencedSOPInstanceUID)
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def study_of(files: list[Path]) -> str:
    """The Study Instance UID of some files."""
    return str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def test_a_late_image_replaces_results_in_order(running: tuple[House, Pacs], tmp_path: Path) -> None:
    """New results first; after them a note that names exactly the old ones; the new report names its predecessor."""
    site, pacs = running
    files = ball(tmp_path, "late")
    study, scanner = study_of(files), Scanner(site.port)
    scanner.send(files[:-1])
    site.wait_idle()
    first = [uid for uid in of_study(pacs, study) if uid not in scanner.acknowledged]
    assert len(first) >= 5 and KEY_OBJECT not in {kind(pacs, uid) for uid in first}
    (old_report,) = (uid for uid in first if kind(pacs, uid) == COMPREHENSIVE_3D)
    assert "PredecessorDocumentsSequence" not in pacs.read(old_report)

    scanner.send(files[-1:])
    site.wait_idle()
    later = [uid for uid in of_study(pacs, study) if uid not in {*scanner.acknowledged, *first}]
    *second, note_uid = later
    assert [kind(pacs, uid) == KEY_OBJECT for uid in later] == [False] * len(second) + [True]
    assert len(second) >= 5
    rejecting = pacs.read(note_uid)
    assert rejecting.ConceptNameCodeSequence[0].CodeValue == "113001"
    assert named(rejecting) == set(first)
    (report,) = (uid for uid in second if kind(pacs, uid) == COMPREHENSIVE_3D)
    (replaced,) = (
        pacs.read(report).PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    )
    assert replaced.ReferencedSOPInstanceUID == old_report
    assert pacs.read(report).SeriesDescription.endswith("(rev 2)")
    for uid in (note_uid, report):
        path = tmp_path / f"{uid}.dcm"
        with path.open("wb") as file:
            pydicom.dcmwrite(file, with_meta(pacs.read(uid)), enforce_file_format=True)
        assert not peers.dciodvfy(path) and peers.pixelmed_sr(path) == []
    assert all(pacs.times(uid) == 1 for uid in later)
    assert_delivered(scanner, pacs)


def with_meta(dataset: Dataset) -> Dataset:
    """The same with the file meta that a file needs."""
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def test_a_note_from_the_scanner_takes_everything_back(running: tuple[House, Pacs], tmp_path: Path) -> None:
    """All images are rejected: results are withdrawn, the note reaches the PACS, the same image again is rejected."""
    site, pacs = running
    files = ball(tmp_path, "rejected")
    study, scanner = study_of(files), Scanner(site.port)
    scanner.send(files)
    site.wait_idle()
    results = {uid for uid in of_study(pacs, study) if uid not in scanner.acknowledged}
    assert len(results) >= 5

    uids = list(scanner.acknowledged)
    rejecting = changed(files[0], tmp_path / "note.dcm", lambda ds: into_note(ds, uids))
    scanner.send([rejecting])
    site.wait_idle()
    received_note = str(pydicom.dcmread(rejecting).SOPInstanceUID)
    notes = {uid for uid in of_study(pacs, study) if kind(pacs, uid) == KEY_OBJECT}
    (own,) = notes - {received_note}
    assert received_note in notes and named(pacs.read(own)) == results
    (row,) = (r for r in site.table("series", study_uid=study) if r["modality"] == "CT")
    assert row["state"] == "rejected" and "113037" in row["reason"]
    assert [r["state"] for r in site.table("run", series_id=row["id"])] == ["cancelled", "done"]

    before = len(pacs.got)
    Scanner(site.port).send(files[:1])
    site.wait_for(lambda: len(site.table("instance", sop_uid=uids[0])) == 2, "the image once more")
    site.wait_idle()
    assert {r["state"] for r in site.table("instance", sop_uid=uids[0])} == {"rejected"}
    assert len(pacs.got) == before
    events = {event["name"] for event in site.table("event", series_id=row["id"])}
    assert {
        "objects_rejected",
        "series_rejected",
        "run_cancelled",
        "withdrawal_opened",
        "instance_rejected",
    } <= events


def into_note(ds: Dataset, uids: list[str]) -> None:
    """Turn an image into a note that rejects these, in the same study."""
    made = note(uids, code="113037")
    study = ds.StudyInstanceUID
    made.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = study
    patient = {k: ds.get(k) for k in ("PatientID", "PatientName", "AccessionNumber") if k in ds}
    meta = ds.file_meta
    ds.clear()
    ds.update(made)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, f"{study}.77"
    ds.SOPInstanceUID = f"{study}.77.1"[-64:].lstrip(".")
    for keyword, value in patient.items():
        setattr(ds, keyword, value)
    meta.MediaStorageSOPClassUID = KEY_OBJECT


# --- UIDs that are none


@dataclass(frozen=True)
class Odd:
    """What a sender wrote, and what is to become of it here."""

    uids: Mapping[str, str | None]
    """Keyword → what stands there as it is; None: nothing, not even the element."""
    why: str = ""
    """Why it belongs to no series; empty where it does."""


LONG = "1.2." + "3" * 70
ODD: Mapping[str, Odd] = {
    "no-series": Odd({"SeriesInstanceUID": None}, "SeriesInstanceUID is missing"),
    "empty-series": Odd({"SeriesInstanceUID": ""}, "SeriesInstanceUID is missing"),
    "no-study": Odd({"StudyInstanceUID": None}, "StudyInstanceUID is missing"),
    "no-sop": Odd({"SOPInstanceUID": None}, "SOPInstanceUID is missing"),
    "long-series": Odd({"SeriesInstanceUID": LONG}, "SeriesInstanceUID is longer than 64"),
    "long-sop": Odd({"SOPInstanceUID": LONG}, "SOPInstanceUID is longer than 64"),
    "dots": Odd({"SeriesInstanceUID": "..", "StudyInstanceUID": "../.."}),
    "letters": Odd({"SOPInstanceUID": "CT.1.2.X", "SeriesInstanceUID": "series-one"}),
    "nul": Odd({"SOPInstanceUID": "1.2.826.9.7\0\0\0", "SeriesInstanceUID": "1.2.826.9.8\0"}),
    "equal": Odd({
        "SOPInstanceUID": "1.2.826.9.9", "SeriesInstanceUID": "1.2.826.9.9", "StudyInstanceUID": "1.2.826.9.9",
    }),
}  # fmt: skip


def write_odd(path: Path, odd: Odd, affected: str, source: Path) -> bytes:
    """A file whose dataset says what *odd* wants; the bytes of that dataset."""
    ds = pydicom.dcmread(source)
    for keyword, text in odd.uids.items():
        tag = Tag(keyword)
        ds.pop(tag, None)
        if text is not None:
            data = text.encode() + b"\0" * (len(text) % 2)
            ds._dict[tag] = RawDataElement(tag, "UI", len(data), data, 0, False, True)
    ds._dict = {tag: ds._dict[tag] for tag in sorted(ds._dict)}
    ds.file_meta.MediaStorageSOPInstanceUID = affected
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    meta = pydicom.filereader.read_file_meta_info(path)
    return path.read_bytes()[132 + 12 + int(meta.FileMetaInformationGroupLength) :]


@pytest.mark.parametrize("name", ODD)
def test_uids_that_are_none(
    running: tuple[House, Pacs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Kept byte for byte, visible with the reason, and at the PACS byte for byte; grouped where that is possible."""
    site, pacs = running
    odd = ODD[name]
    take_any_uid(monkeypatch)
    source = ball(tmp_path, f"odd-{name}")[0]
    own = str(pydicom.dcmread(source, stop_before_pixels=True).SOPInstanceUID)
    affected = (odd.uids.get("SOPInstanceUID") or own).rstrip("\0")
    data = write_odd(tmp_path / "odd.dcm", odd, affected, source)
    before = {row["id"] for row in site.table("instance")}
    send_as_they_are(site.port, [tmp_path / "odd.dcm"], "CT01")
    site.wait_for(lambda: len(site.table("instance")) == len(before) + 1, "the object")
    site.wait_idle()
    (row,) = (r for r in site.table("instance") if r["id"] not in before)
    kept = site.data / "objects" / f"{row['receiver_run']:08d}" / "0000" / f"{row['sequence']:08d}.dcm"
    assert kept.read_bytes().endswith(data), "the dataset is kept byte for byte"
    assert row["state"] == "kept" and row["reason"].startswith(odd.why)
    assert (row["series_id"] is None) == bool(odd.why)
    if odd.why:
        assert [e["name"] for e in site.table("event", instance_id=row["id"])] == ["instance_ungrouped"]
    else:
        (series,) = site.table("series", id=row["series_id"])
        assert series["state"] == "routed"
    sent = pacs.datasets[affected][0]
    assert sent == data, "and sent byte for byte"


def take_any_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sender and PACS of this process take UIDs as they are, and send a file's bytes unseen."""
    monkeypatch.setitem(_config.VALIDATORS, "UI", lambda _uid: (True, ""))
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


def send_as_they_are(port: int, paths: list[Path], sender: str) -> None:
    """One association that sends the bytes in each file, which pynetdicom does not look into."""
    ds = pydicom.dcmread(paths[0], stop_before_pixels=True)
    ae = AE(sender)
    ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", port, ae_title="PACSNODE")
    assert assoc.is_established
    for path in paths:
        status: Any = assoc.send_c_store(path)
        assert status.Status == 0x0000
    assoc.release()


def test_illegal_uids_of_a_whole_series_are_processed(
    running: tuple[House, Pacs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight slices with letters in every UID: the results refer to them as they are (inherited, not introduced)."""
    site, pacs = running
    take_any_uid(monkeypatch)
    files = [tmp_path / f"{number}.dcm" for number in range(8)]
    for number, source in enumerate(ball(tmp_path, "illegal")):
        odd = Odd(
            {
                "SOPInstanceUID": f"1.2.bad.{number}",
                "SeriesInstanceUID": "1.2.bad",
                "StudyInstanceUID": "1..2",
            }
        )
        write_odd(files[number], odd, f"1.2.bad.{number}", source)
    send_as_they_are(site.port, files, "CT02")
    site.wait_idle()
    (series,) = site.table("series", series_uid="1.2.bad")
    assert (series["state"], series["instances"]) == ("routed", 8)
    (run,) = site.table("run", series_id=series["id"])
    results = [p["sop_uid"] for p in site.table("product", run_id=run["id"])]
    assert (run["state"] == "done" and results) or (
        run["state"] in ("refused", "quarantined") and run["reason"]
    )
    for uid in results:
        assert pacs.read(uid).StudyInstanceUID == "1..2"


def test_two_patients_in_one_series_are_not_mixed(running: tuple[House, Pacs], tmp_path: Path) -> None:
    """A scanner used one Series Instance UID for two patients: all images go on, and the run refuses in words."""
    site, pacs = running
    files = ball(tmp_path, "mixed")

    def another(ds: Dataset) -> None:
        ds.PatientID = "SOMEBODY-ELSE"

    mixed = [changed(path, tmp_path / "other" / path.name, another) for path in files[4:]]
    scanner = Scanner(site.port, "CT02")
    scanner.send([*files[:4], *mixed])
    site.wait_idle()
    (row,) = site.table("series", study_uid=study_of(files))
    (run,) = site.table("run", series_id=row["id"])
    assert run["state"] == "refused" and "differ in PatientID" in run["reason"]
    assert set(of_study(pacs, study_of(files))) == set(scanner.acknowledged)
    assert_delivered(scanner, pacs)
