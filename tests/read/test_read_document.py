"""Reading encapsulated PDFs: the pages as they were put in, or a refusal in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EncapsulatedCDAStorage, EncapsulatedPDFStorage, ExplicitVRLittleEndian, generate_uid

from node.errors import Broken, Refused
from node.model import Code
from node.read.document import documents

PDF = b"%PDF-1.4\n1 0 obj << >> endobj\ntrailer << >>\n%%EOF\n"
ODD = PDF + b"\n" * (1 - len(PDF) % 2)


def encapsulated(folder: Path, number: int = 1, data: bytes = ODD, **changed: object) -> Path:
    """An Encapsulated PDF object around *data*, padded to even length; None removes an attribute."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = (
        "18748-4",
        "LN",
        "Diagnostic imaging report",
    )
    for keyword, value in {
        "SOPClassUID": EncapsulatedPDFStorage, "SOPInstanceUID": generate_uid(), "InstanceNumber": number,
        "DocumentTitle": "Report", "ConceptNameCodeSequence": [code],
        "MIMETypeOfEncapsulatedDocument": "application/pdf",
        "EncapsulatedDocument": data + b"\0" * (len(data) % 2), "EncapsulatedDocumentLength": len(data), **changed,
    }.items():  # fmt: skip
        if value is not None:
            setattr(ds, keyword, value)
    path = folder / f"{9 - number}.dcm"  # file order is not instance order
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("length", [len(ODD), None])
def test_a_document_is_the_bytes_that_went_in(tmp_path: Path, length: int | None) -> None:
    """The pad byte is no part of the PDF, whether the object states its length (PS3.3 C.24.2) or not."""
    loaded = next(documents([encapsulated(tmp_path, EncapsulatedDocumentLength=length)]))
    assert len(ODD) % 2 == 1
    assert loaded.value.pdf == ODD
    assert loaded.value.title == "Report"
    assert loaded.value.concept == Code("18748-4", "LN", "Diagnostic imaging report")
    assert "EncapsulatedDocument" not in loaded.headers[0]
    assert loaded.frames == (0,)


def test_documents_come_by_instance_number_and_survive_a_bad_neighbour(tmp_path: Path) -> None:
    """A refused object raises when its turn comes, and the next one is still read."""
    paths = [
        encapsulated(tmp_path, 3, DocumentTitle="third"),
        encapsulated(tmp_path, 2, SOPClassUID=EncapsulatedCDAStorage),
        encapsulated(tmp_path, 1, DocumentTitle="first"),
    ]
    found = documents(paths)
    assert next(found).value.title == "first"
    with pytest.raises(Refused, match="no encapsulated PDF"):
        next(found)
    assert next(found).value.title == "third"
    with pytest.raises(StopIteration):
        next(found)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": b"<html></html>"}, "no PDF"),
        ({"EncapsulatedDocument": None}, "no document"),
        ({"EncapsulatedDocumentLength": 4}, "EncapsulatedDocumentLength says 4"),
    ],
)
def test_what_is_no_document_is_refused_in_words(
    tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    """Another content, none, or a length that is not the content's is refused and said."""
    with pytest.raises(Refused, match=words):
        next(documents([encapsulated(tmp_path, **changed)]))  # type: ignore[arg-type]


def test_a_lost_file_is_broken_and_nothing_is_refused(tmp_path: Path) -> None:
    """A file that is gone needs a person; no file at all is nothing to process."""
    with pytest.raises(Broken, match=r"gone\.dcm"):
        next(documents([tmp_path / "gone.dcm"]))
    with pytest.raises(Refused, match="no object"):
        documents([])
