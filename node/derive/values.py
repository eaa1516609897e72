"""What a Value Representation allows (PS3.5 6.2), judged on the bytes as they stand in a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

CHARSET_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Text whose bytes depend on Specific Character Set (PS3.5 6.1.2.2)."""
TEXT_VRS = CHARSET_VRS | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
SINGLE_VRS = frozenset({"LT", "ST", "UT", "UR"})
"""VRs in which a backslash is no separator."""
_LENGTHS = {"AE": 16, "CS": 16, "LO": 64, "SH": 16, "DS": 16, "IS": 12, "DT": 26, "TM": 14, "UI": 64,
            "LT": 10240, "ST": 1024}  # fmt: skip
_SIZES = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 4, "SV": 8, "UV": 8, "OW": 2}
_FORMS = {
    "AS": (re.compile(r"\d{3}[DWMY]"), "is no age such as 045Y"),
    "CS": (re.compile(r"[A-Z0-9 _]*"), "has characters a code string may not have"),
    "DS": (re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *"), "is no decimal number"),
    "IS": (re.compile(r" *[+-]?\d+ *"), "is no whole number"),
    "TM": (re.compile(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?"), "is no time"),
    "UI": (re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+"), "is no UID"),
    "DT": (re.compile(r"\d{4}(\d{2}(\d{2}(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?"),
           "is no date and time"),
}  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
"""Control characters beside TAB, LF, FF, CR and ESC."""
_LINE_BREAK = re.compile(r"[\x09\x0a\x0c\x0d]")


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
    parts = [text] if vr in SINGLE_VRS else text.split("\\")
    wrong = count_defect(tag, len(parts))
    return wrong or next(filter(None, (_part_defect(vr, part) for part in parts)), "")


def _part_defect(vr: str, part: str) -> str:
    text = part if vr in ("LT", "ST", "UT", "DS", "IS") else part.strip(" ")
    return (_length_defect(vr, text) or _form_defect(vr, text)) if text else ""


def _length_defect(vr: str, text: str) -> str:
    groups = text.split("=") if vr == "PN" else []
    if len(groups) > 3 or any(len(group) > 64 or group.count("^") > 4 for group in groups):
        return "is longer than a person name may be"
    if len(text) > _LENGTHS.get(vr, len(text)):
        return f"has {len(text)} characters, {vr} allows {_LENGTHS[vr]}"
    return ""


def _form_defect(vr: str, text: str) -> str:
    if _CONTROL.search(text) or (vr not in ("LT", "ST", "UT") and _LINE_BREAK.search(text)):
        return "has control characters"
    form = _FORMS.get(vr)
    if form and not form[0].fullmatch(text):
        return form[1]
    if vr == "IS" and not -(2**31) <= int(text) < 2**31:
        return "is too large for an integer string"
    return "is no date" if vr == "DA" and not _is_date(text) else ""


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"\d{8}", text):
        return False
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True


def count_defect(tag: BaseTag, count: int) -> str:
    """Say what is wrong with a number of values (PS3.6 VM), empty when nothing is or the tag is unknown."""
    try:
        vm = dictionary_VM(tag)
    except KeyError:
        return ""
    low, _, high = vm.partition("-")
    step = high.removesuffix("n") if high.endswith("n") else ""
    least = int(low)
    fits = count >= least
    if not high:
        fits = count == least
    elif not high.endswith("n"):
        fits = fits and count <= int(high)
    elif step:
        fits = fits and count % int(step) == 0
    return "" if fits else f"has {count} values, the standard asks for {vm}"


def size_defect(vr: str, length: int) -> str:
    """Say what is wrong with the byte length of a binary value."""
    size = _SIZES.get(vr, 1)
    return "" if length % size == 0 else f"has {length} bytes, no multiple of {size}"
