"""A dataset as a tree of elements whose values stay bytes, so that it can be encoded anew without being understood.

Transfer syntaxes differ in how an element's header is written, in the byte order, and in the pixel data
(PS3.5 A). Whoever only changes those has no need to decode a name or a number, and so an illegal value, an
unknown character set or a private element is passed on as it came. Values in the tree are Little Endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydicom.datadict import dictionary_VR

from node.errors import Broken

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE = frozenset((IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN))
"""Transfer syntaxes whose pixel data is not compressed (PS3.5 A.1 to A.3, A.5)."""


def kept_syntax(syntax: str) -> str:
    """What a dataset in *syntax* is written in here where nothing is to be transcoded (PS3.5 A)."""
    return EXPLICIT if syntax in (DEFLATED, BIG_ENDIAN) else syntax


_LONG = frozenset((
    b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV",
))  # fmt: skip
_WORD = {
    b"US": 2, b"SS": 2, b"OW": 2, b"AT": 2, b"UL": 4, b"SL": 4, b"FL": 4, b"OF": 4, b"OL": 4,
    b"FD": 8, b"OD": 8, b"SV": 8, b"UV": 8, b"OV": 8,
}  # fmt: skip
"""VR → bytes that change places between the byte orders (PS3.5 7.3)."""
_VRS = _LONG | frozenset(_WORD) | frozenset((
    b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"LT", b"PN", b"SH", b"ST", b"TM", b"UI",
))  # fmt: skip
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_BITS_ALLOCATED, _PIXEL_REPRESENTATION, _WAVEFORM_BITS = 0x00280100, 0x00280103, 0x54001004
_LUT_DESCRIPTOR = 0x00283002
_DEEPEST = 100

Bytes = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a sequence."""

    elements: tuple[Element, ...]
    undefined: bool = True


@dataclass(frozen=True, slots=True)
class Element:
    """One element: *value*, or what stands in its place."""

    tag: int
    vr: bytes
    """Empty where the file does not say (Implicit VR)."""
    value: Bytes = b""
    items: tuple[Item, ...] | None = None
    """Of a sequence."""
    fragments: tuple[Bytes, ...] | None = None
    """Of encapsulated pixel data, the Basic Offset Table first (PS3.5 A.4)."""
    undefined: bool = False
    """It is written with undefined length."""

    @property
    def number(self) -> int | None:
        """The first 16 bits as an unsigned number."""
        return struct.unpack_from("<H", self.value)[0] if len(self.value) >= 2 else None

    @property
    def text(self) -> str:
        """The value as ASCII, without padding; empty where it is none."""
        return bytes(self.value).decode("ascii", "replace").strip(" \0")


Tree = tuple[Element, ...]


def read_tree(data: Bytes, syntax: str) -> Tree:
    """Parse a dataset in *syntax*. Raises Broken where it cannot be followed."""
    if syntax == DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data)
        except zlib.error as error:
            raise Broken(f"the dataset says that it is deflated and cannot be inflated: {error}") from error
    parser = _Parser(memoryview(data), big=syntax == BIG_ENDIAN)
    try:  # some writers lie about it; the first element tells, for its length would be 16 448 or more
        return parser.elements(0, len(data), implicit=bytes(data[4:6]) not in _VRS)[0]
    except (struct.error, IndexError) as error:
        raise Broken("the dataset ends inside an element") from error


class _Parser:
    """One pass over the bytes of a dataset; positions are where the next thing begins."""

    def __init__(self, data: memoryview, *, big: bool) -> None:
        self._data, self._big = data, big
        order = ">" if big else "<"
        self._tag, self._short, self._four = (struct.Struct(order + code) for code in ("HH", "H", "I"))

    def elements(self, at: int, end: int, *, implicit: bool, depth: int = 0) -> tuple[Tree, int]:
        """Parse up to *end*, or to the delimiter of an item of undefined length."""
        if depth > _DEEPEST:
            raise Broken(f"sequences are nested deeper than {_DEEPEST}")
        found: list[Element] = []
        while at < end:
            tag = self._tag_at(at)
            if tag in (_ITEM_END, _SEQUENCE_END):
                at += 8
                if depth:
                    return tuple(found), at
                continue  # one too many, as some writers leave behind the last element
            vr, length, at = self._header(at, implicit)
            element, at = self._element(tag, vr, length, (at, end), implicit, depth)
            found.append(element)
        return tuple(found), at

    def _tag_at(self, at: int) -> int:
        group, element = self._tag.unpack_from(self._data, at)
        return int(group) << 16 | int(element)

    def _header(self, at: int, implicit: bool) -> tuple[bytes, int, int]:
        """VR, length, and where the value begins."""
        if implicit:
            return b"", self._four.unpack_from(self._data, at + 4)[0], at + 8
        vr = bytes(self._data[at + 4 : at + 6])
        if not (vr.isalpha() and vr.isupper()):
            raise Broken(f"element ({self._tag_at(at):08X}) has no value representation")
        if vr in _LONG:
            return vr, self._four.unpack_from(self._data, at + 8)[0], at + 12
        return vr, self._short.unpack_from(self._data, at + 6)[0], at + 8

    def _element(
        self, tag: int, vr: bytes, length: int, span: tuple[int, int], implicit: bool, depth: int
    ) -> tuple[Element, int]:
        at, end = span
        undefined = length == _UNDEFINED
        stop = end if undefined else at + length
        if stop > end:
            raise Broken(f"element ({tag:08X}) is longer than what is left")
        if undefined and (tag == 0x7FE00010 or vr in (b"OB", b"OW")):
            fragments, at = self._fragments(at)
            return Element(tag, vr or b"OB", fragments=fragments, undefined=True), at
        if undefined or vr == b"SQ" or (not vr and dictionary(tag) == "SQ"):
            implicit = implicit or vr == b"UN"  # PS3.5 6.2.2 note 2
            items, at = self._items((at, stop), undefined, implicit, depth)
            return Element(tag, b"SQ", items=items, undefined=undefined), at
        value: Bytes = self._data[at:stop]
        word = _WORD.get(vr, 1)
        if self._big and word > 1 and len(value) % word == 0:
            value = _swapped(value, word)
        return Element(tag, vr, value), stop

    def _items(
        self, span: tuple[int, int], undefined: bool, implicit: bool, depth: int
    ) -> tuple[tuple[Item, ...], int]:
        at, end = span
        items: list[Item] = []
        while at < end:
            tag = self._tag_at(at)
            length = self._four.unpack_from(self._data, at + 4)[0]
            at += 8
            if tag == _SEQUENCE_END and undefined:
                return tuple(items), at
            if tag != _ITEM:
                raise Broken(f"a sequence holds ({tag:08X}), which is no item")
            open_end = length == _UNDEFINED
            stop = end if open_end else at + length
            if stop > end:
                raise Broken("an item is longer than its sequence")
            elements, at = self.elements(at, stop, implicit=implicit, depth=depth + 1)
            items.append(Item(elements, open_end))
        return tuple(items), at

    def _fragments(self, at: int) -> tuple[tuple[Bytes, ...], int]:
        found: list[Bytes] = []
        while True:
            tag, length = self._tag_at(at), self._four.unpack_from(self._data, at + 4)[0]
            at += 8
            if tag == _SEQUENCE_END:
                return tuple(found), at
            if tag != _ITEM or at + length > len(self._data):
                raise Broken("the fragments of the pixel data do not end")
            found.append(self._data[at : at + length])
            at += length


def _swapped(value: Bytes, word: int) -> bytes:
    count = len(value) // word
    code = {2: "H", 4: "I", 8: "Q"}[word]
    return struct.pack(f"<{count}{code}", *struct.unpack(f">{count}{code}", value)) if count < 1024 else (
        _swapped_long(value, word)
    )  # fmt: skip


def _swapped_long(value: Bytes, word: int) -> bytes:
    whole = bytearray(len(value))
    for n in range(word):
        whole[n::word] = value[word - 1 - n :: word]
    return bytes(whole)


# --- the way back


def chunks(tree: Iterable[Element], *, implicit: bool) -> Iterator[Bytes]:
    """Encode *tree* as Explicit or Implicit VR Little Endian; values are handed on, not copied."""
    yield from _encoded(tree, implicit, {})


def _encoded(tree: Iterable[Element], implicit: bool, around: Mapping[int, int]) -> Iterator[Bytes]:
    tree = tuple(tree)
    here = {**around, **{e.tag: e.number for e in tree if e.tag in _DECIDING and e.number is not None}}
    for element in tree:
        if element.tag & 0xFFFF == 0 and element.tag >> 16 > 6:
            continue  # a retired group length, which would be wrong now (PS3.5 7.2)
        yield from _one(element, implicit, here)


_DECIDING = (_BITS_ALLOCATED, _PIXEL_REPRESENTATION, _WAVEFORM_BITS)


def _one(element: Element, implicit: bool, around: Mapping[int, int]) -> Iterator[Bytes]:
    vr = element.vr or _vr(element.tag, around)
    if element.fragments is not None:
        yield _head(element.tag, vr, _UNDEFINED, implicit)
        for fragment in element.fragments:
            odd = len(fragment) % 2
            yield struct.pack("<HHI", 0xFFFE, 0xE000, len(fragment) + odd)
            yield fragment
            yield b"\0" * odd
        yield struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    elif element.items is not None:
        yield from _sequence(element, implicit, around)
    else:
        length = len(element.value)
        padding = b"" if length % 2 == 0 else b"\0" if vr in _LONG - _TEXT or vr == b"UI" else b" "
        yield _head(element.tag, vr, length + len(padding), implicit)
        yield element.value
        yield padding


_TEXT = frozenset((b"UC", b"UR", b"UT"))


def _sequence(element: Element, implicit: bool, around: Mapping[int, int]) -> Iterator[Bytes]:
    body: list[Bytes] = []
    for item in element.items or ():
        inner = b"".join(_encoded(item.elements, implicit, around))
        body.append(struct.pack("<HHI", 0xFFFE, 0xE000, _UNDEFINED if item.undefined else len(inner)))
        body.append(inner)
        if item.undefined:
            body.append(struct.pack("<HHI", 0xFFFE, 0xE00D, 0))
    length = _UNDEFINED if element.undefined else sum(map(len, body))
    yield _head(element.tag, b"SQ", length, implicit)
    yield from body
    if element.undefined:
        yield struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _head(tag: int, vr: bytes, length: int, implicit: bool) -> bytes:
    group, number = tag >> 16, tag & 0xFFFF
    if implicit:
        return struct.pack("<HHI", group, number, length)
    if vr not in _LONG and length > 0xFFFE:
        vr = b"UN"  # PS3.5 6.2.2: a value too long for its VR's length field
    if vr in _LONG:
        return struct.pack("<HH2sHI", group, number, vr, 0, length)
    return struct.pack("<HH2sH", group, number, vr, length)


def dictionary(tag: int) -> str:
    """The VR of PS3.6 for a standard element, `LO` for a private creator, else `UN`."""
    if (tag >> 16) % 2:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _vr(tag: int, around: Mapping[int, int]) -> bytes:
    """The VR that Explicit VR needs of an element that came without (PS3.5 A.1, A.2; PS3.6)."""
    found = dictionary(tag)
    if " or " not in found:
        return found.encode() if len(found) == 2 else b"UN"
    if "OW" in found:
        of_bytes = tag >> 16 == 0x5400 and around.get(_WAVEFORM_BITS) == 8
        return b"OB" if of_bytes else b"OW"
    signed = around.get(_PIXEL_REPRESENTATION) == 1 and tag != _LUT_DESCRIPTOR
    return b"SS" if signed else b"US"


# --- looking and changing


def find(tree: Sequence[Element], tag: int) -> Element | None:
    """The element of that tag at the top of *tree*."""
    return next((element for element in tree if element.tag == tag), None)


def changed(tree: Tree, put: Iterable[Element] = (), drop: Iterable[int] = ()) -> Tree:
    """*tree* with the elements of *put* in their places, and without those of *drop*."""
    kept = {element.tag: element for element in tree if element.tag not in set(drop)}
    kept |= {element.tag: element for element in put}
    return tuple(kept[tag] for tag in sorted(kept))


def in_items(tree: Tree, tag: int, change: Iterator[Tree] | Sequence[Tree]) -> Tree:
    """*tree* with the items of the sequence *tag* replaced, each by the next of *change*."""
    element = find(tree, tag)
    if element is None or element.items is None:
        return tree
    items = tuple(replace(item, elements=inner) for item, inner in zip(element.items, change, strict=True))
    return changed(tree, [replace(element, items=items)])
