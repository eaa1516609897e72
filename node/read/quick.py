"""The common header, quickly: Little Endian, parsed from one buffer, and each element's meaning worked out once.

Slices of a series say much the same, byte for byte, so nearly every element is found by its bytes among those
that were met before. What is not plain (another byte order, an unknown VR, a value beyond the end, functional
groups, bytes where no element can be) is left to the long way of `elements`, which says the same in more time.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from io import BytesIO

from pydicom.filereader import ENCODED_VR, read_dataset
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from node.model import Cell, Value
from node.read.elements import NO_VALUE, PER_FRAME, SHARED, name_of, pairs_of, vr_of
from node.read.values import LONGEST, encodings_of, values_of

_VRS = {vr: vr.decode() for vr in ENCODED_VR}
_LONG = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
_EXPLICIT, _IMPLICIT, _FOUR = struct.Struct("<HH2sH"), struct.Struct("<HHI"), struct.Struct("<I")
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_CHARACTER_SET = 0x00080005
_DEEPEST = 16
_REMEMBERED = 16 << 10
"""Bytes of a sequence up to which what it says is remembered."""

_Span = tuple[str, int, int, int]
"""VR as it stands there, empty where none does; where the element and its value begin; where it ends."""


class UnusualError(Exception):
    """Go the long way."""


def quick_attributes(
    data: memoryview, at: int, implicit: bool, until: frozenset[int]
) -> tuple[dict[str, Cell], int]:
    """Attributes as `elements.attributes_of` gives them, and where the first element of *until* begins, else -1.

    Raises UnusualError for what is not plain.
    """
    spans, stopped = _walk(data, at, implicit, until)
    if SHARED in spans or PER_FRAME in spans or not spans:
        raise UnusualError
    encodings = _encodings(data, spans)
    found: dict[str, Cell] = {}
    for tag, (stated, start, value, end) in spans.items():
        private = tag & 0x10000
        creator = _creator(data, tag, spans) if private else ""
        name, vr = _meaning(tag, stated, creator)
        if not name:
            continue
        if vr == "SQ" or stated == "UN":
            owner = _owner(tag, spans) if private else None
            before = bytes(data[owner[1] : owner[3]]) if owner else b""
            found.update(_nested(before + bytes(data[start:end]), encodings, implicit))
        elif value == end:
            if vr not in NO_VALUE:
                found[name] = ((),)
        elif end - value <= LONGEST:
            said = _cell(vr, bytes(data[value:end]), encodings)
            if said is not None:
                found[name] = said
    return found, stopped


def _walk(data: memoryview, at: int, implicit: bool, until: frozenset[int]) -> tuple[dict[int, _Span], int]:
    """Tag → span of each element, as far as the first one of *until*."""
    spans: dict[int, _Span] = {}
    size = len(data)
    if implicit and bytes(data[at + 4 : at + 6]).isalpha():
        raise UnusualError  # Explicit VR, whatever the transfer syntax says
    while at + 8 <= size:
        tag, vr, value, length = _head(data, at, implicit)
        if tag in until:
            return spans, at
        if tag >= _ITEM:
            raise UnusualError
        end = value + length if length != _UNDEFINED else _end_of_sequence(data, value, tag, vr, implicit)
        if end > size:
            raise UnusualError
        spans[tag] = vr, at, value, end
        at = end
    return spans, -1


def _head(data: memoryview, at: int, implicit: bool) -> tuple[int, str, int, int]:
    """Tag, VR, where the value begins, and its length (PS3.5 7.1)."""
    if implicit:
        group, element, length = _IMPLICIT.unpack_from(data, at)
        return group << 16 | element, "", at + 8, length
    group, element, code, length = _EXPLICIT.unpack_from(data, at)
    vr = _VRS.get(code)
    if vr is None:
        raise UnusualError
    if code not in _LONG:
        return group << 16 | element, vr, at + 8, length
    if at + 12 > len(data):
        raise UnusualError
    return group << 16 | element, vr, at + 12, _FOUR.unpack_from(data, at + 8)[0]


def _end_of_sequence(data: memoryview, at: int, tag: int, vr: str, implicit: bool, depth: int = 0) -> int:
    """Behind the delimiter of a sequence of undefined length (PS3.5 7.5.2)."""
    if depth > _DEEPEST or not (vr in ("SQ", "UN") or (not vr and _meaning(tag, "", "")[1] == "SQ")):
        raise UnusualError
    implicit = implicit or vr == "UN"  # PS3.5 6.2.2 note 2
    size = len(data)
    while at + 8 <= size:
        item, length = _item(data, at)
        at += 8
        if item == _SEQUENCE_END:
            return at
        if item != _ITEM:
            raise UnusualError
        at = at + length if length != _UNDEFINED else _end_of_item(data, at, implicit, depth)
    raise UnusualError


def _end_of_item(data: memoryview, at: int, implicit: bool, depth: int) -> int:
    """Behind the delimiter of an item of undefined length."""
    size = len(data)
    while at + 8 <= size:
        if _item(data, at)[0] == _ITEM_END:
            return at + 8
        tag, vr, value, length = _head(data, at, implicit)
        at = value + length if length != _UNDEFINED else (
            _end_of_sequence(data, value, tag, vr, implicit, depth + 1)
        )  # fmt: skip
    raise UnusualError


def _item(data: memoryview, at: int) -> tuple[int, int]:
    group, element, length = _IMPLICIT.unpack_from(data, at)
    return group << 16 | element, length


def _encodings(data: memoryview, spans: dict[int, _Span]) -> tuple[str, ...]:
    span = spans.get(_CHARACTER_SET)
    if span is None or span[2] == span[3]:
        return encodings_of(())
    said = _cell(_meaning(_CHARACTER_SET, span[0], "")[1], bytes(data[span[2] : span[3]]), ("latin-1",))
    return encodings_of(said[0] if said else ())


def _owner(tag: int, spans: dict[int, _Span]) -> _Span | None:
    """The element that says whose a private element is (PS3.5 7.8.1)."""
    return spans.get((tag & 0xFFFF0000) | ((tag & 0xFFFF) >> 8))


def _creator(data: memoryview, tag: int, spans: dict[int, _Span]) -> str:
    owner = _owner(tag, spans)
    if owner is None or owner[2] == owner[3] or owner[3] - owner[2] > LONGEST:
        return ""
    said = _cell(_meaning(0x00090010, owner[0], "")[1], bytes(data[owner[2] : owner[3]]), ("latin-1",))
    return said[0][0] if said and said[0] else ""


@lru_cache(maxsize=8192)
def _meaning(tag: int, stated: str, creator: str) -> tuple[str, str]:
    """The name a rule may use, empty where there is none, and the VR by which its value is read."""
    return name_of(tag, creator) if tag & 0xFFFF else "", vr_of(tag, stated, creator)


def _cell(vr: str, raw: bytes, encodings: tuple[str, ...]) -> tuple[Value] | None:
    said = values_of(vr, raw, encodings, True)
    return None if said is None else (said,)


def _nested(raw: bytes, encodings: tuple[str, ...], implicit: bool) -> tuple[tuple[str, Cell], ...]:
    """What a sequence, or what may be one, says; *raw* begins with the element that says whose it is."""
    if len(raw) > _REMEMBERED:
        return _nested_anew(raw, encodings, implicit)
    return _nested_once(raw, encodings, implicit)


def _nested_anew(raw: bytes, encodings: tuple[str, ...], implicit: bool) -> tuple[tuple[str, Cell], ...]:
    dataset = read_dataset(BytesIO(raw), is_implicit_VR=implicit, is_little_endian=True)
    return tuple((name, (value,)) for name, value in pairs_of(dataset, encodings))


_nested_once = lru_cache(maxsize=1024)(_nested_anew)
