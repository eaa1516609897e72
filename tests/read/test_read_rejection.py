"""Rejection notes as others send them: which objects they name, however many and however badly written."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.model import REJECTIONS, Header
from node.read.header import arrival_of_file, read_header
from node.reader import header_from_json, header_to_json

KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"


def note(*series: list[str], code: str = "113001", scheme: str = "DCM", **changes: object) -> Dataset:
    """A note over these lists of SOP Instance UIDs, each a series of its own."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = KEY_OBJECT, "1.2.77.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "1.2.9", "1.2.77", "KO"
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = code, scheme, "said so"
    dataset.ConceptNameCodeSequence = [title]
    study = Dataset()
    study.StudyInstanceUID = "1.2.9"
    study.ReferencedSeriesSequence = [_series(i, uids) for i, uids in enumerate(series, 1)]
    dataset.CurrentRequestedProcedureEvidenceSequence = [study]
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def _series(number: int, uids: list[str]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = f"1.2.9.{number}"
    item.ReferencedSOPSequence = []
    for uid in uids:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", UID(uid)
        item.ReferencedSOPSequence.append(one)
    return item


def read(folder: Path, dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Header:
    """The header of the file of *dataset*, as it crosses the pipe of the reader."""
    path = folder / "note.dcm"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.save_as(path, enforce_file_format=True)
    return header_from_json(header_to_json(read_header(path, *arrival_of_file(path))))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("code", REJECTIONS)
def test_a_note_names_objects_of_several_series(tmp_path: Path, code: str, syntax: str) -> None:
    """Every title that rejects, in both uncompressed syntaxes: all references of all series, each once."""
    header = read(tmp_path, note(["1.2.3.1", "1.2.3.2"], ["1.2.3.3", "1.2.3.1"], code=code), syntax)
    assert (header.rejection, header.rejects) == (code, ("1.2.3.1", "1.2.3.2", "1.2.3.3"))
    assert header.readable and not header.why


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "113000"},
        {"code": "113001", "scheme": "99ACME"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"},
        {"ConceptNameCodeSequence": []},
    ],
)
def test_other_key_objects_reject_nothing(tmp_path: Path, changes: dict[str, object]) -> None:
    """Of interest, another scheme's code, a report with that title, no title at all."""
    header = read(tmp_path, note(["1.2.3.1"], **changes))  # type: ignore[arg-type]
    assert (header.rejection, header.rejects) == ("", ())


def test_a_note_over_two_thousand_objects(tmp_path: Path) -> None:
    """None of them is lost, and the reader is far from its ten seconds."""
    uids = [f"1.2.826.0.1.3680043.2.1125.{n}" for n in range(2000)]
    before = time.process_time()
    header = read(tmp_path, note(uids[:1500], uids[1500:]))
    assert header.rejects == tuple(uids)
    assert time.process_time() - before < 10


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"CurrentRequestedProcedureEvidenceSequence": []}, ()),
        ({"CurrentRequestedProcedureEvidenceSequence": [Dataset(), _series(1, ["1.2.3.1"])]}, ()),
    ],
)
def test_a_note_with_damaged_evidence_is_an_object_like_any(
    tmp_path: Path, changes: dict[str, object], named: tuple[str, ...]
) -> None:
    """Empty evidence, or items at the wrong level: readable, a note, and it names nothing."""
    header = read(tmp_path, note(["1.2.3.1"], **changes))  # type: ignore[arg-type]
    assert header.readable and header.rejection == "113001" and header.rejects == named


def test_an_illegal_uid_is_named_as_it_stands(tmp_path: Path) -> None:
    """A note may reject an object whose UID is no UID; an empty reference names nothing."""
    header = read(tmp_path, note(["1.2.3.x", "", "..", "1.2.3.4"]))
    assert header.rejects == ("1.2.3.x", "..", "1.2.3.4")
