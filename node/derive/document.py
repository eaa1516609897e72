"""Document → Encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from node.derive.composite import begun, ended
from node.derive.making import Making, code_item
from node.derive.references import PROCESSED, items
from node.errors import Broken
from node.operator import Document

ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_HEADER_WITHIN = 1024
"""Bytes among which readers look for `%PDF-` (ISO 32000-1 Annex H, implementation note 13)."""
_MOST_BYTES = 0xFFFFFFFE
"""Length of an explicit OB element (PS3.5 7.1.2)."""


def documents(making: Making, document: Document) -> Iterator[Dataset]:
    """Make the Encapsulated PDF of *document*, ready to be written. Raises Broken where it is no PDF."""
    name, pdf = making.output.name, bytes(document.pdf)
    if b"%PDF-" not in pdf[:_HEADER_WITHIN]:
        raise Broken(f"output {name}: what the operator returned is no PDF, it does not begin with %PDF")
    if len(pdf) > _MOST_BYTES:
        raise Broken(f"output {name}: a PDF of {len(pdf)} bytes does not fit into one object")
    dataset = begun(making, ENCAPSULATED_PDF, "DOC")
    dataset.ConversionType = "WSD"
    dataset.AcquisitionDateTime = None  # type 2: several images have no one moment
    # Whether the pages name the patient is the operator's knowledge; NO would promise what nobody looked at.
    dataset.BurnedInAnnotation = "YES"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.DocumentTitle = document.title[:1024]
    dataset.ConceptNameCodeSequence = [code_item(document.concept)] if document.concept else []
    sources = making.sources
    dataset.SourceInstanceSequence = items(sources, range(len(sources.headers)), PROCESSED)
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(pdf)
    dataset.add_new("EncapsulatedDocument", "OB", pdf + b"\0" * (len(pdf) % 2))
    yield ended(making, dataset)
