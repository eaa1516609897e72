"""Encapsulated PDF: the bytes come back, the header is valid, what is no PDF does not leave."""

import subprocess
from pathlib import Path

import peers
import pytest
from derive_material import affine, complaints, ct_headers, job
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.derive.sources import Sources
from node.derive.write import write
from node.errors import Broken
from node.model import Code
from node.operator import Document

PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n%%EOF"
REPORT = Code("18748-4", "LN", "Diagnostic imaging study")


def written(tmp_path: Path, document: Document) -> Dataset:
    """Write *document* as the only output and read the file back."""
    headers = tuple(ct_headers(2, 6, 5, affine((2.0, 0.7, 0.5))))
    (product,) = write({"paper": document}, job("paper"), Sources(headers), tmp_path)
    assert product.kind == "document"
    assert complaints(tmp_path / product.path) == set()
    return dcmread(tmp_path / product.path)


@pytest.mark.parametrize("pdf", [PDF, PDF + b"\n"])
def test_the_pdf_comes_back(tmp_path: Path, pdf: bytes) -> None:
    """DCMTK's dcm2pdf and the stated length give the same bytes, of odd and of even number."""
    made = written(tmp_path, Document(pdf, "Größe der Lunge", REPORT))
    assert (len(made.EncapsulatedDocument) % 2, made.EncapsulatedDocumentLength) == (0, len(pdf))
    assert made.EncapsulatedDocument[: made.EncapsulatedDocumentLength] == pdf
    out = tmp_path / "out.pdf"
    subprocess.run([peers.need("dcm2pdf"), str(made.filename), str(out)], check=True, capture_output=True)
    assert out.read_bytes()[: len(pdf)] == pdf


def test_the_header_says_what_it_is(tmp_path: Path) -> None:
    """Title, kind, sources and status; nobody has looked whether the pages name the patient."""
    made = written(tmp_path, Document(PDF, "Größe der Lunge", REPORT))
    assert (made.DocumentTitle, made.Modality, made.VerificationFlag) == (
        "Größe der Lunge",
        "DOC",
        "UNVERIFIED",
    )
    assert made.ConceptNameCodeSequence[0].CodeValue == "18748-4"
    assert made.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert made.BurnedInAnnotation == "YES"
    assert [i.ReferencedSOPInstanceUID for i in made.SourceInstanceSequence] == ["1.2.3.4.1", "1.2.3.4.2"]
    assert written(tmp_path / "x", Document(PDF, "")).ConceptNameCodeSequence == []


def test_what_is_no_pdf_is_broken(tmp_path: Path) -> None:
    """An operator that returns other bytes is told so, and nothing leaves."""
    with pytest.raises(Broken, match="output paper: what the operator returned is no PDF"):
        written(tmp_path, Document(b"<html></html>", "Report"))


def test_a_second_run_is_the_same_bytes(tmp_path: Path) -> None:
    """The same document gives the same file."""
    for folder in ("a", "b"):
        written(tmp_path / folder, Document(PDF, "Report", REPORT))
    assert (tmp_path / "a/paper/00001.dcm").read_bytes() == (tmp_path / "b/paper/00001.dcm").read_bytes()
