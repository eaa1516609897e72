"""What an image that was compressed with loss says of itself: it is another image now (PS3.3 C.7.6.1.1.5)."""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from node.derive.identity import LOSSY_QUALITY
from node.derive.inherit import put, text_element
from node.derive.making import MANUFACTURER, code_item
from node.derive.values import octets
from node.model import Code

READ = (
    "ImageType", "SOPClassUID", "SOPInstanceUID", "DerivationDescription", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod", "DerivationCodeSequence", "SourceImageSequence", "ContributingEquipmentSequence",
)  # fmt: skip
"""What of the source's header `marks` looks at; the rest need not be given."""
_COMPRESSED = Code("113040", "DCM", "Lossy Compression")
_PREDECESSOR = Code("121320", "DCM", "Uncompressed predecessor")
_METHODS = {"1.2.840.10008.1.2.4.81": "ISO_14495_1", "1.2.840.10008.1.2.4.91": "ISO_15444_1"}
_LONGEST = 1024  # characters of ST


def marks(header: Dataset, uids: tuple[str, str], syntax: str, ratio: float) -> Dataset:
    """The elements that differ between an image with *header* and its copy with loss, as the copy has them.

    *uids* are the copy's SOP and Series Instance UID. What the source says is quoted as bytes, since it may be in
    any character set.
    """
    made = Dataset()
    made.SOPInstanceUID, made.SeriesInstanceUID = uids
    kind = _said(header, "ImageType").split(b"\\")
    _text(made, "ImageType", "CS", b"\\".join((b"DERIVED", *(kind[1:] or [b"SECONDARY"]))))
    made.LossyImageCompression = "01"
    _text(
        made,
        "LossyImageCompressionRatio",
        "DS",
        _listed(header, "LossyImageCompressionRatio", f"{ratio:.4g}"),
    )
    method = _METHODS[syntax]
    _text(made, "LossyImageCompressionMethod", "CS", _listed(header, "LossyImageCompressionMethod", method))
    ours = f"compressed with loss: {method}, {LOSSY_QUALITY[syntax][0]}, {ratio:.4g}:1".encode()
    before = _said(header, "DerivationDescription")
    both = before + b"; " + ours if before else ours
    _text(made, "DerivationDescription", "ST", both if len(both) <= _LONGEST else ours)
    made.DerivationCodeSequence = [*header.get("DerivationCodeSequence", ()), code_item(_COMPRESSED)]
    made.SourceImageSequence = [*header.get("SourceImageSequence", ()), _predecessor(header)]
    made.ContributingEquipmentSequence = [*header.get("ContributingEquipmentSequence", ()), _equipment()]
    return made


def _predecessor(header: Dataset) -> Dataset:
    item = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        _text(item, f"Referenced{keyword}", "UI", _said(header, keyword))
    item.PurposeOfReferenceCodeSequence = [code_item(_PREDECESSOR)]
    return item


def _equipment() -> Dataset:
    """By it a node knows its own work and does not process it again (C.12.1.1.5)."""
    item = Dataset()
    item.Manufacturer = MANUFACTURER
    item.PurposeOfReferenceCodeSequence = [code_item(Code("109102", "DCM", "Processing Equipment"))]
    return item


def _listed(header: Dataset, keyword: str, value: str) -> bytes:
    """One more value: an image may have been compressed with loss before."""
    before = _said(header, keyword)
    return before + b"\\" + value.encode() if before else value.encode()


def _said(header: Dataset, keyword: str) -> bytes:
    element = header.get_item(tag_for_keyword(keyword))
    return b"" if element is None else octets(element).rstrip(b" \0")


def _text(dataset: Dataset, keyword: str, vr: str, data: bytes) -> None:
    put(dataset, keyword, text_element(tag_for_keyword(keyword), vr, data))
