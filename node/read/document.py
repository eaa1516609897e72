"""Encapsulated PDF objects → Documents: the pages as their maker wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from node.errors import Refused
from node.operator import Document
from node.read.loaded import Loaded, Part
from node.read.objects import code_of, in_order, kind_of, loaded, number, text, whole


def documents(paths: Sequence[Path]) -> Iterator[Loaded[Document]]:
    """One Document per Encapsulated PDF object (PS3.3 A.45.1), by Instance Number.

    Raises Refused for an object that is none, when its turn comes; the next one can still be read.
    """
    return map(loaded, parts(paths))


def parts(paths: Sequence[Path]) -> list[Part[Document]]:
    """The same, each still to be loaded. Raises Refused where there is none, Broken where a file is gone."""
    return [Part("", partial(_document, path)) for path in in_order(paths)]


def _document(path: Path) -> Loaded[Document]:
    header = whole(path)
    if header.get("SOPClassUID") != EncapsulatedPDFStorage:
        raise Refused(f"{kind_of(header)} is no encapsulated PDF")
    pdf = _pages(header)
    header.pop("EncapsulatedDocument", None)
    concept = code_of(header, "ConceptNameCodeSequence")
    return Loaded(Document(pdf, text(header, "DocumentTitle"), concept), (header,), (0,))


def _pages(header: Dataset) -> bytes:
    """The file without the byte that makes its length even (PS3.3 C.24.2, Encapsulated Document Length)."""
    data = header.get("EncapsulatedDocument")
    if not isinstance(data, bytes) or not data:
        raise Refused("the object holds no document")
    length = number(header, "EncapsulatedDocumentLength")
    if length is None:  # before 2018 nothing said it; a PDF ends with a line end or a letter, never with NUL
        data = data.removesuffix(b"\0")
    elif not 0 < length <= len(data) or len(data) - length > 1:
        raise Refused(f"the document has {len(data)} bytes, EncapsulatedDocumentLength says {length:.0f}")
    else:
        data = data[: int(length)]
    if b"%PDF-" not in data[:1024]:  # ISO 32000-1 annex H.3.4.1: within the first kilobyte
        raise Refused("the encapsulated document is no PDF, whatever its class says")
    return data
