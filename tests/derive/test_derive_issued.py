"""Rejection notes and predecessor documents: objects that speak of results that left earlier."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import peers
import pytest
from derive_material import affine, complaints, ct_headers, job, mask, numbers, volume
from pydicom import dcmread

from node.derive.sources import Sources
from node.derive.write import write, write_notes
from node.errors import Broken
from node.model import Issued, Job, Product
from node.read.header import arrival_of_file, read_header
from node.testing import Grid, Series, sphere_volume, write_ct_series

PLACE = affine((2.0, 0.7, 0.5))
SR = "1.2.840.10008.5.1.4.1.1.88.34"


def made(folder: Path, revision: int = 1, **more: object) -> tuple[Job, list[Product]]:
    """A thick series, a segmentation and a report on it, as a run makes them."""
    headers = tuple(ct_headers(6, 6, 5, PLACE))
    region = mask((6, 6, 5), PLACE)
    results = {"thick": volume((6, 6, 5), PLACE), "body": region, "stats": numbers(region)}
    wanted = replace(job("thick", "body", "stats", **more), revision=revision)
    return wanted, write(results, wanted, Sources(headers), folder)


def withdrawal(folder: Path, products: list[Product], study: str = "1.2.3", **changes: object) -> Job:
    """The job that takes these back."""
    return replace(
        job("note_1", attributes={"SeriesDescription": "Rejection Note"}),
        files=tuple(str(folder / product.path) for product in products),
        withdraws=tuple(
            Issued("note_1", p.kind, p.sop_uid, p.sop_class, p.series_uid, study) for p in products
        ),
        why="the results of run 7 over a later revision or replay replace these",
        **changes,
    )


@pytest.fixture
def note(tmp_path: Path) -> tuple[Path, list[Product]]:
    """A note over everything that a run made."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    _, products = made(tmp_path / "old")
    (written,) = write_notes(withdrawal(tmp_path / "old", products), tmp_path / "new")
    assert written.kind == "rejection" and written.output == "note_1"
    return tmp_path / "new" / written.path, products


def test_a_note_names_exactly_what_is_withdrawn(note: tuple[Path, list[Product]]) -> None:
    """Title 113001; evidence and content list the old results, each once, under their series and study."""
    path, products = note
    dataset = dcmread(path)
    document = hd.ko.KeyObjectSelectionDocument.from_dataset(dataset)
    title = dataset.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
    uids = {product.sop_uid: product.series_uid for product in products}
    assert len(uids) == 8
    assert {i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in dataset.ContentSequence
            if "ReferencedSOPSequence" in i} == set(uids)  # fmt: skip
    assert {uid: document.resolve_reference(uid)[:2] for uid in uids} == {
        uid: ("1.2.3", series) for uid, series in uids.items()
    }
    (text,) = (item.TextValue for item in dataset.ContentSequence if item.ValueType == "TEXT" and "113012" in str(
        item.ConceptNameCodeSequence[0].CodeValue))  # fmt: skip
    assert "run 7" in text
    assert dataset.SeriesDescription == "Rejection Note" and dataset.Modality == "KO"
    assert dataset.PatientID == "P-1" and dataset.StudyInstanceUID == "1.2.3"
    assert str(dataset.PatientName) == "Müller^Jürgen"


def test_validators_and_readers_take_a_note(note: tuple[Path, list[Product]]) -> None:
    """Dciodvfy and PixelMed find no error, DCMTK reads it."""
    path, _ = note
    assert complaints(path) == set()
    assert peers.pixelmed_sr(path) == []
    subprocess.run([peers.need("dsrdump"), "-q", str(path)], check=True, capture_output=True)


def test_our_own_reader_understands_a_note_of_ours(note: tuple[Path, list[Product]]) -> None:
    """What we write as a rejection note we take for one."""
    path, products = note
    header = read_header(path, *arrival_of_file(path))
    assert header.rejection == "113001"
    assert set(header.rejects) == {product.sop_uid for product in products}


def test_a_retry_makes_the_same_bytes(tmp_path: Path) -> None:
    """The same withdrawal gives the same note, from whichever of the old files it learns the patient."""
    for name in ("old", "one", "two"):
        (tmp_path / name).mkdir()
    _, products = made(tmp_path / "old")
    job_of = withdrawal(tmp_path / "old", products)
    (first,) = write_notes(job_of, tmp_path / "one")
    (second,) = write_notes(job_of, tmp_path / "two")
    assert first == second
    assert (tmp_path / "one" / first.path).read_bytes() == (tmp_path / "two" / second.path).read_bytes()


def test_received_images_stand_in_for_results_that_are_gone(tmp_path: Path) -> None:
    """Retention removed the results: patient and study are taken from what they were made from; else it says so."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    _, products = made(tmp_path / "old")
    images = write_ct_series(
        tmp_path / "source", sphere_volume(Grid((3, 8, 8), (2.0, 1.0, 1.0)), radius=3), series=Series("ball")
    )
    study = str(dcmread(images[0]).StudyInstanceUID)
    gone = withdrawal(tmp_path / "old", products, study)
    there = replace(gone, files=(str(tmp_path / "gone.dcm"), str(images[0])))
    (written,) = write_notes(there, tmp_path / "new")
    assert dcmread(tmp_path / "new" / written.path).StudyInstanceUID == study
    assert complaints(tmp_path / "new" / written.path) == set()
    with pytest.raises(Broken, match="nobody knows whose they are"):
        write_notes(replace(gone, files=(str(tmp_path / "gone.dcm"),)), tmp_path / "new")


def test_a_report_names_what_it_replaces(tmp_path: Path) -> None:
    """Predecessor Documents Sequence, a sentence and (rev 2); the validators find no error; the bytes are fixed."""
    for name in ("old", "new", "again"):
        (tmp_path / name).mkdir()
    _, products = made(tmp_path / "old")
    (old,) = (p for p in products if p.kind == "report")
    before = (Issued("stats", "report", old.sop_uid, old.sop_class, old.series_uid, "1.2.3"),)
    other = Issued("elsewhere", "report", "1.2.3.99", SR, "1.2.3.98", "1.2.3")

    def later(folder: Path) -> Path:
        region = mask((6, 6, 5), PLACE)
        results = {"thick": volume((6, 6, 5), PLACE), "body": region, "stats": numbers(region)}
        wanted = replace(
            job("thick", "body", "stats", identity="cd" * 32), revision=2, predecessors=(*before, other)
        )
        written = write(results, wanted, Sources(tuple(ct_headers(6, 6, 5, PLACE))), folder)
        (report,) = (p for p in written if p.kind == "report")
        return folder / report.path

    path = later(tmp_path / "new")
    dataset = dcmread(path)
    (study,) = dataset.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (named,) = series.ReferencedSOPSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == ("1.2.3", old.series_uid)
    assert (named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID) == (SR, old.sop_uid)
    assert dataset.SeriesDescription.endswith("(rev 2)")
    said = [item.TextValue for item in dataset.ContentSequence if item.ValueType == "TEXT"]
    assert any(f"replaces report {old.sop_uid}" in text for text in said)
    assert complaints(path) == set()
    assert peers.pixelmed_sr(path) == []
    subprocess.run([peers.need("dsrdump"), "-q", str(path)], check=True, capture_output=True)
    assert later(tmp_path / "again").read_bytes() == path.read_bytes()
