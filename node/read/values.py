"""One raw data element → its values as text, without ever raising.

A header holds some two hundred elements of which nearly all are the same in every slice, so the
conversion is remembered by its raw bytes: it costs once per series instead of once per object.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.valuerep import TEXT_VR_DELIMS

from node.model import Value

_BINARY = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d",
}  # fmt: skip
_CHARSET_TEXT = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_SINGLE_TEXT = frozenset(("LT", "ST", "UT", "UR"))  # a backslash is part of the text (PS3.5 6.2)
_ASCII_TEXT = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"))
LONGEST = 4096
"""Bytes: longer values are bulk data, not facts."""


@lru_cache(maxsize=256)
def encodings_of(declared: Value) -> tuple[str, ...]:
    """Python codecs for a Specific Character Set (0008,0005); unknown terms fall back to Latin-1."""
    try:
        return tuple(convert_encodings(list(declared) or [""]))
    except (LookupError, ValueError, TypeError):
        return ("latin-1",)


@lru_cache(maxsize=8192)
def values_of(vr: str, raw: bytes, encodings: tuple[str, ...], little_endian: bool) -> Value | None:
    """The element's values, `()` when it is empty, None when it holds no text or number to judge."""
    if vr in _BINARY:
        return _numbers(_BINARY[vr], raw, little_endian)
    if vr == "AT":
        numbers = _numbers("H", raw, little_endian) or ()
        return tuple(f"{int(a):04X}{int(b):04X}" for a, b in zip(numbers[::2], numbers[1::2], strict=False))
    if vr in _CHARSET_TEXT:
        text = _decode(raw, encodings)
    elif vr in _ASCII_TEXT:
        text = raw.decode("latin-1")
    elif vr == "UN" and raw.rstrip(b"\0 ").isascii() and raw.rstrip(b"\0 ").decode("ascii").isprintable():
        text = raw.decode("ascii")
    else:
        return None
    text = text.replace("\0", "")  # padding (PS3.5 6.2), and never a character of a text
    if not text.strip():
        return ()
    if vr in _SINGLE_TEXT:
        return (text.rstrip(),)
    return tuple(part.strip() for part in text.split("\\"))


def _decode(raw: bytes, encodings: tuple[str, ...]) -> str:
    try:
        # The codec of ISO 2022 IR 58 leaves the escape sequence (PS3.3 C.12.1.1.2) that chose it in the text.
        return str(decode_bytes(raw, list(encodings), TEXT_VR_DELIMS)).replace("\x1b$)A", "")
    except (LookupError, UnicodeError, ValueError):
        return raw.decode("latin-1")


def _numbers(code: str, raw: bytes, little_endian: bool) -> Value | None:
    count = len(raw) // struct.calcsize(code)
    if count > LONGEST // 8:
        return None
    order = "<" if little_endian else ">"
    numbers = struct.unpack(f"{order}{count}{code}", raw[: count * struct.calcsize(code)])
    return tuple(format(n, ".7g") if code == "f" else repr(n) for n in numbers)
