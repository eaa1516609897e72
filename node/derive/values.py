"""What a Value Representation allows (PS3.5 6.2), judged on the bytes as they stand in a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from node.vr import CHARSET_VRS, SINGLE_VRS, TEXT_VRS, count_defect, size_defect, text_defect

__all__ = [
    "CHARSET_VRS",
    "SINGLE_VRS",
    "TEXT_VRS",
    "count_defect",
    "declared",
    "decoded",
    "defect",
    "encodable",
    "encodings_of",
    "octets",
    "size_defect",
    "vr_of",
]


def vr_of(element: DataElement | RawDataElement) -> str:
    """Return the dictionary's VR, else the element's own: a wrong explicit VR is not inherited."""
    try:
        vr: str = dictionary_VR(element.tag)
    except KeyError:
        return element.VR or "UN"
    return vr if " " not in vr else (element.VR or "UN")


def octets(element: DataElement | RawDataElement, encodings: Sequence[str] = ("utf-8",)) -> bytes:
    """Return the bytes of a text element as its file had them, unpadded; of others, a stable stand-in.

    *encodings* serve text that somebody has converted already, so that its bytes are gone.
    """
    value: Any = element.value
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value.rstrip(b" \0") if vr_of(element) in TEXT_VRS else value
    many = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    return b"\\".join(_one(item, encodings) for item in many).rstrip(b" \0")


def _one(value: Any, encodings: Sequence[str]) -> bytes:
    if isinstance(value, bytes):
        return value
    original = getattr(value, "original_string", None)
    if isinstance(original, bytes) and original:
        return original
    text = str(original if isinstance(original, str) and original else value)
    data: bytes = text.encode("ascii") if text.isascii() else encode_string(text, encodings)
    return data


def encodings_of(dataset: Dataset, inherited: Sequence[str] = ("iso8859",)) -> Sequence[str]:
    """Python codecs for the dataset's Specific Character Set; ASCII where it names an unknown one."""
    element = dataset.get_item("SpecificCharacterSet")
    if element is None:
        return inherited
    names = [name.strip() for name in octets(element).decode("ascii", "replace").split("\\")]
    try:
        found: list[str] = convert_encodings(names if len(names) > 1 else names[0])
    except (LookupError, ValueError):
        return ("ascii",)
    return found


def decoded(data: bytes, encodings: Sequence[str]) -> str | None:
    """Return the text of *data*, None where the bytes are not text in these encodings."""
    if len(encodings) == 1 and b"\x1b" not in data:
        try:
            return data.decode(encodings[0])
        except (UnicodeDecodeError, LookupError):
            return None
    text: str = decode_bytes(data, encodings, {"\\", "^", "=", "\r", "\n", "\f", "\t"})
    return None if "�" in text or "\x1b" in text else text


def declared(encodings: Sequence[str]) -> list[str]:
    """Return *encodings* with the default repertoire as the ASCII it is; pydicom reads it as Latin-1."""
    return ["ascii" if encoding == "iso8859" else encoding for encoding in encodings]


def encodable(text: str, encodings: Sequence[str]) -> bool:
    """Whether one of *encodings* can say all of *text*."""
    if text.isascii():
        return True
    for encoding in declared(encodings):
        try:
            text.encode(encoding)
        except (UnicodeEncodeError, LookupError):
            continue
        return True
    return False


def defect(tag: BaseTag, vr: str, data: bytes, encodings: Sequence[str]) -> str:
    """Say what is wrong with a text value in a few words, empty when nothing is; never quotes the value."""
    if not data.strip():
        return ""
    text = decoded(data, encodings if vr in CHARSET_VRS else ("ascii",))
    if text is None:
        return "has bytes outside its character set" if vr in CHARSET_VRS else "has characters beyond ASCII"
    return text_defect(tag, vr, text)
