"""One object in another transfer syntax: its pixel data decoded or encoded anew, all else as it came.

What may be lost is only what a lossy syntax loses, and only `LOSSY` names those; what is compressed without
loss is decoded again and compared before anyone gets it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder, get_encoder
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import UID

from node.errors import Refused
from node.read.encoding import BIG_ENDIAN, EXPLICIT, NATIVE, Bytes, Element, Tree, changed, find, in_items
from node.settings.syntaxes import LOSSLESS, LOSSY

_LOSSY_JPEG = frozenset(("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"))
"""Baseline and Extended: always lossy, and in colour always of luminance and subsampled chrominance."""
_TRANSFORMED = {LOSSLESS["JPEG2000Lossless"]: "YBR_RCT", LOSSY["JPEG2000"]: "YBR_ICT"}
"""RGB is called so after JPEG 2000's own colour transform (PS3.5 8.2.4)."""

_PIXELS, _FLOAT, _DOUBLE = 0x7FE00010, 0x7FE00008, 0x7FE00009
_OFFSETS, _LENGTHS = 0x7FE00001, 0x7FE00002
_ICON = 0x00880200
_PER_FRAME = 0x52009230
_SAMPLES, _PHOTOMETRIC, _PLANAR, _FRAMES = 0x00280002, 0x00280004, 0x00280006, 0x00280008
_BITS, _STORED, _HIGH = 0x00280100, 0x00280101, 0x00280102
_LOST = 0x00282110
_INSTANCE = 0x00080018
"""SOP Instance UID: an icon has none, and nothing to say about loss."""
_NUMBERS = {
    _SAMPLES: "SamplesPerPixel", _PLANAR: "PlanarConfiguration", 0x00280010: "Rows", 0x00280011: "Columns",
    _BITS: "BitsAllocated", _STORED: "BitsStored", _HIGH: "HighBit", 0x00280103: "PixelRepresentation",
}  # fmt: skip

Frame = NDArray[Any]


class Undecodable(Refused):
    """The pixels cannot be had at all, whatever they were to be encoded in."""


@dataclass(frozen=True)
class Recoded:
    """An object in another transfer syntax."""

    tree: Tree
    ratio: float = 1.0
    """Bytes of its decoded pixels per byte of its encoded ones."""


def recoded(tree: Tree, syntax: str, to: str, quality: Mapping[str, Any] | None = None) -> Recoded:
    """*tree*, which came in *syntax*, as it is encoded in *to*; *quality* is the encoder's, of a lossy one.

    Raises Refused where that cannot be done, Undecodable where it cannot in any syntax.
    """
    pixels, bits = find(tree, _PIXELS), find(tree, _BITS)
    compressed = to not in NATIVE
    if syntax == BIG_ENDIAN and pixels and pixels.vr == b"OW" and bits and (bits.number or 0) > 16:
        raise Undecodable(
            "its Big Endian pixels are wider than a word; software differs in how they are stored"
        )
    if compressed and pixels is None:
        kind = "floating-point pixels" if find(tree, _FLOAT) or find(tree, _DOUBLE) else "no pixels"
        raise Refused(f"it has {kind}, so there is nothing to compress")
    icon = find(tree, _ICON)
    if icon is not None and icon.items is not None:  # an icon may be stored natively in either (PS3.5 A.4)
        natives = [_native(item.elements, syntax) for item in icon.items]
        tree = in_items(tree, _ICON, natives)
    if not compressed:
        return Recoded(_native(tree, syntax))
    if to in LOSSY.values():
        _check_lossy(tree)
    return _compressed(tree, syntax, to, quality or {})


def _native(tree: Tree, syntax: str) -> Tree:
    """*tree* with its pixel data uncompressed."""
    pixels = find(tree, _PIXELS)
    if pixels is None or pixels.fragments is None:
        return tree
    frames, meta = _as_shown(tree, syntax)
    put = _described(tree, meta, meta["photometric_interpretation"])
    data = b"".join(frame.tobytes() for frame in frames)
    vr = b"OW" if meta["bits_allocated"] > 8 else b"OB"
    put.append(Element(_PIXELS, vr, data))
    if syntax in _LOSSY_JPEG and find(tree, _INSTANCE) is not None:
        put += _lossy_for_ever(tree)
    return changed(tree, put, (_OFFSETS, _LENGTHS))


def _lossy_for_ever(tree: Tree) -> list[Element]:
    """Lossy Image Compression 01 where the scanner forgot to say it (PS3.3 C.7.6.1.1.5)."""
    said = find(tree, _LOST)
    return [] if said is not None and said.text == "01" else [Element(_LOST, b"CS", b"01")]


def _compressed(tree: Tree, syntax: str, to: str, quality: Mapping[str, Any]) -> Recoded:
    frames, meta = _as_shown(tree, syntax)
    photometric = str(meta["photometric_interpretation"])
    if photometric == "RGB":
        photometric = _TRANSFORMED.get(to, photometric)
    encoded = [_encode(frame, meta, photometric, (to, quality)) for frame in frames]
    table, *fragments = _fragments(encoded)
    put = _described(tree, meta, photometric, planar=1 if to == LOSSLESS["RLELossless"] else 0)
    put.append(Element(_PIXELS, b"OB", fragments=(table, *fragments), undefined=True))
    if syntax in _LOSSY_JPEG:
        put += _lossy_for_ever(tree)
    made = changed(tree, put, (_OFFSETS, _LENGTHS))
    if to not in LOSSY.values():
        _prove(made, to, frames)
    plain = sum(frame.nbytes for frame in frames)
    return Recoded(made, plain / max(1, sum(map(len, encoded))))


def _decoded(tree: Tree, syntax: str) -> tuple[list[Frame], dict[str, Any]]:
    """Every frame as it is stored, colour by pixel, and what describes them."""
    pixels = find(tree, _PIXELS)
    native = pixels is not None and pixels.fragments is None
    uid = UID(EXPLICIT if native else syntax)
    dataset = _image(tree)
    try:
        # Bits beyond those stored may hold an overlay of old: they are kept, or no encoder takes the pixels.
        found = list(get_decoder(uid).iter_array(dataset, raw=True, correct_unused_bits=False))
    except (MemoryError, OSError):
        raise
    except Exception as error:  # pydicom and its plugins raise whatever a damaged image leads them to
        raise Undecodable(f"its pixels ({_name(syntax)}) cannot be decoded: {_said(error)}") from error
    wanted = int(dataset.get("NumberOfFrames") or 1)
    if len(found) != wanted:
        raise Undecodable(f"it says {wanted} frames and holds {len(found)}")
    return [np.ascontiguousarray(frame) for frame, _ in found], dict(found[0][1])


def _image(tree: Tree) -> Dataset:
    """What a decoder needs to know, as pydicom takes it."""
    made = Dataset()
    for tag, keyword in _NUMBERS.items():
        element = find(tree, tag)
        if element is not None and element.number is not None:
            setattr(made, keyword, element.number)
    photometric, frames = find(tree, _PHOTOMETRIC), find(tree, _FRAMES)
    if photometric is not None:
        made.PhotometricInterpretation = photometric.text
    if frames is not None and frames.text.isdigit():
        made.NumberOfFrames = frames.text
    for tag, keyword in ((_OFFSETS, "ExtendedOffsetTable"), (_LENGTHS, "ExtendedOffsetTableLengths")):
        element = find(tree, tag)
        if element is not None:
            setattr(made, keyword, bytes(element.value))
    pixels = find(tree, _PIXELS)
    if pixels is not None:
        made.PixelData = _payload(pixels)
        made["PixelData"].VR = (
            "OB" if pixels.fragments is not None or made.get("BitsAllocated") == 8 else "OW"
        )
    return made


def _payload(pixels: Element) -> bytes:
    if pixels.fragments is None:
        return bytes(pixels.value)
    item = b"\xfe\xff\x00\xe0"
    parts: Iterator[Bytes] = (
        part for f in pixels.fragments for part in (item, len(f).to_bytes(4, "little"), f)
    )
    return b"".join(parts)


def _as_shown(tree: Tree, syntax: str) -> tuple[list[Frame], dict[str, Any]]:
    """`_decoded`, with the colour of lossy JPEG as everyone shows it.

    What was not lossy stays in its own colour space, exact.
    """
    frames, meta = _decoded(tree, syntax)
    if syntax in _LOSSY_JPEG and meta["photometric_interpretation"] in ("YBR_FULL", "YBR_FULL_422"):
        frames = [np.ascontiguousarray(convert_color_space(f, "YBR_FULL", "RGB")) for f in frames]
        meta["photometric_interpretation"] = "RGB"
    return frames, meta


def _described(tree: Tree, meta: dict[str, Any], photometric: str, planar: int = 0) -> list[Element]:
    """The elements that say how the pixels are stored now, of those that change."""
    put = [Element(_PHOTOMETRIC, b"CS", _even(photometric.encode()))]
    if meta["samples_per_pixel"] > 1:
        put.append(_short(_PLANAR, planar))
    bits = find(tree, _BITS)
    if bits is None or bits.number != meta["bits_allocated"]:
        put.append(_short(_BITS, meta["bits_allocated"]))
    return put


def _short(tag: int, number: int) -> Element:
    return Element(tag, b"US", int(number).to_bytes(2, "little"))


def _even(text: bytes) -> bytes:
    return text + b" " * (len(text) % 2)


def _encode(
    frame: Frame, meta: dict[str, Any], photometric: str, how: tuple[str, Mapping[str, Any]]
) -> bytes:
    options = {
        "rows": frame.shape[0], "columns": frame.shape[1], "number_of_frames": 1,
        "samples_per_pixel": meta["samples_per_pixel"], "bits_allocated": meta["bits_allocated"],
        "bits_stored": meta["bits_stored"], "pixel_representation": meta["pixel_representation"],
        "photometric_interpretation": photometric, "pixel_keyword": "PixelData", "planar_configuration": 0,
    }  # fmt: skip
    try:
        return bytes(get_encoder(UID(how[0])).encode(frame, **options, **how[1]))
    except MemoryError:
        raise
    except Exception as error:  # the encoders raise whatever an image they do not suit leads them to
        raise Refused(f"its pixels cannot be encoded so: {_said(error)}") from error


def _fragments(frames: list[bytes]) -> tuple[Bytes, ...]:
    """The Basic Offset Table, and one fragment per frame."""
    data = memoryview(encapsulate(frames, has_bot=True))
    found: list[Bytes] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        found.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return tuple(found)


def _said(error: Exception) -> str:
    """What a plugin said, without the words that pydicom puts before it."""
    said = " ".join(str(error).split("available plugins:")[-1].split())[:200]
    # MemoryError has no text, and of a plugin's failures pydicom keeps the text alone.
    return f"{said} out of memory, or another failure without words" if said.endswith(":") else said


def _prove(made: Tree, to: str, frames: list[Frame]) -> None:
    """What is called lossless is looked at: bits beyond Bits Stored, for one, do not survive every encoder."""
    again, _ = _decoded(made, to)
    if any(
        one.shape != two.shape or not np.array_equal(one, two) for one, two in zip(again, frames, strict=True)
    ):
        raise Refused("its pixels would not come back as they were")


def _check_lossy(tree: Tree) -> None:
    photometric = find(tree, _PHOTOMETRIC)
    if photometric is not None and photometric.text == "PALETTE COLOR":
        raise Refused("its pixels are indices of a palette, of which nothing may be lost")
    if find(tree, _PER_FRAME) is not None:
        raise Refused("each of its frames says how it was derived, so it is not compressed with loss here")


def _name(syntax: str) -> str:
    return UID(syntax).name
