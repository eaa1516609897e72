"""Siemens' CSA headers: named values inside one private element. Pure, and wary of every length.

Layout as nibabel's documentation describes it ("Siemens format DICOM with CSA header"); type 2 begins
with `SV10`, type 1 does not. Siemens publishes none of it.
"""

from __future__ import annotations

import re
import struct

_MOST_TAGS, _MOST_ITEMS = 1000, 10_000
_NAME = re.compile(rb"[A-Za-z0-9_]+")


def csa(data: bytes) -> dict[str, tuple[str, ...]]:
    """Every named element of a CSA header with its values as text. Raises ValueError where it is none."""
    second = data[:4] == b"SV10"
    try:
        count, _check = struct.unpack_from("<2I", data, 8 if second else 0)
        if not 0 < count <= _MOST_TAGS:
            raise ValueError(f"a CSA header with {count} elements")
        return _elements(data, 16 if second else 8, count, second)
    except struct.error:
        raise ValueError("a CSA header that ends early") from None


def _elements(data: bytes, at: int, count: int, second: bool) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    base = 0  # what type 1 adds to every length: the number of items of its first element
    for n in range(count):
        raw, _vm, _vr, _type, items, _check = struct.unpack_from("<64si4s3i", data, at)
        name = raw.partition(b"\0")[0]
        if not _NAME.fullmatch(name) or not 0 <= items <= _MOST_ITEMS:
            raise ValueError("a CSA header with a broken element")
        at, base = at + 84, items if n == 0 else base
        values = []
        for _ in range(items):
            lengths = struct.unpack_from("<4i", data, at)
            length = lengths[1] if second else lengths[0] - base
            if length < 0 or at + 16 + length > len(data):
                if second:
                    raise ValueError("a CSA header with a length beyond its end")
                at += 16
                break  # as nibabel does: the rest of this element's items is empty
            values.append(data[at + 16 : at + 16 + length].partition(b"\0")[0].decode("latin-1").strip())
            at += 16 + (length + 3) // 4 * 4
        found[name.decode("ascii")] = tuple(value for value in values if value)
    return found


def protocol(text: str) -> dict[str, str]:
    """The assignments of the ASCII protocol in a CSA series header: `sSliceArray.lSize` → `32`."""
    _, _, rest = text.partition("### ASCCONV BEGIN")
    body, _, _ = rest.partition("### ASCCONV END ###")
    found = re.findall(r"^\s*([\w.\[\]]+)\s*=\s*(.*?)\s*$", body, re.MULTILINE)
    return {name: value.strip('"') for name, value in found}
