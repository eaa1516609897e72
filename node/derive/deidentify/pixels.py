"""Native pixels: rectangles blacked out, and what hides beyond the image removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from node.derive.deidentify.burned import Rectangle
from node.derive.deidentify.elements import ascii_of
from node.errors import Refused

_DEPTHS = {8: np.uint8, 16: np.uint16, 32: np.uint32}


def has_hidden_planes(source: Dataset) -> bool:
    """Whether overlays of old stand in bits of the pixels that the image does not use (PS3.5 8.1.2, retired)."""
    return bool(_hidden_bits(source))


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixel data of an object, beside its header."""

    native: bytes | memoryview | None = None
    """Little Endian; None: it has none, or it is compressed."""
    fragments: Sequence[bytes | memoryview] = ()
    """Of compressed pixel data (PS3.5 A.4)."""


def bared(source: Dataset, data: bytes | memoryview) -> bytes | memoryview:
    """Clear the bits in which overlays hid, and cut what follows the last pixel."""
    length, bits = _length(source), _hidden_bits(source)
    if length and len(data) > length + length % 2:
        data = data[:length]
    if bits:
        depth = _number(source, "BitsAllocated")
        if depth not in _DEPTHS:
            raise Refused(
                f"overlays stand in the bits of its pixels, and pixels of {depth} bits are not understood"
            )
        mask = ~sum(1 << bit for bit in bits) & (1 << depth) - 1
        whole = len(data) // (depth // 8) * (depth // 8)
        cleared = np.frombuffer(data[:whole], _DEPTHS[depth]) & _DEPTHS[depth](mask)
        data = cleared.tobytes() + bytes(data[whole:])
    return data


def blacked(source: Dataset, data: bytes | memoryview, rectangles: Sequence[Rectangle]) -> bytes:
    """Black out *rectangles* in every frame of native pixels. Raises Refused where that cannot be done."""
    rows, columns = _number(source, "Rows"), _number(source, "Columns")
    samples, depth = _number(source, "SamplesPerPixel") or 1, _number(source, "BitsAllocated")
    photometric = ascii_of(source, "PhotometricInterpretation")
    if depth not in _DEPTHS or photometric.endswith(("_422", "_420")) or not rows or not columns:
        raise Refused(f"its pixels ({photometric or 'undescribed'}, {depth} bits) cannot be blacked out")
    size = rows * columns * samples
    frames = len(data) // (depth // 8) // size
    if not frames:
        raise Refused("it has fewer pixels than it says, so that nothing can be blacked out")
    flat = np.frombuffer(data, _DEPTHS[depth], frames * size).copy()
    by_plane = samples > 1 and _number(source, "PlanarConfiguration") == 1
    shape = (frames, samples, rows, columns) if by_plane else (frames, rows, columns, samples)
    pixels = flat.reshape(shape)
    for channel, black in enumerate(_black(source, photometric, samples)):
        for left, top, width, height in rectangles:
            across, down = slice(left, left + width), slice(top, top + height)
            where: Any = (
                (slice(None), channel, down, across) if by_plane else (slice(None), down, across, channel)
            )
            pixels[where] = black
    return flat.tobytes() + bytes(data[flat.nbytes :])


def _black(made: Dataset, photometric: str, samples: int) -> list[int]:
    stored = _number(made, "BitsStored") or _number(made, "BitsAllocated")
    signed = _number(made, "PixelRepresentation") == 1
    darkest, brightest = (1 << stored - 1, (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    if photometric == "MONOCHROME1":
        return [brightest] * samples
    if photometric.startswith("YBR") and samples == 3:
        return [0, 1 << stored - 1, 1 << stored - 1]
    if signed:  # the most negative number, in all allocated bits (PS3.5 8.1.1)
        darkest = (1 << _number(made, "BitsAllocated")) - (1 << stored - 1)
    return [darkest] * samples


def _hidden_bits(source: Dataset) -> set[int]:
    stored, high = _number(source, "BitsStored"), _number(source, "HighBit")
    found = set()
    for group in range(0x6000, 0x6020, 2):
        if Tag(group, 0x0010) in source and Tag(group, 0x3000) not in source:
            found.add(_number(source, Tag(group, 0x0102)))
    return {bit for bit in found if not high - stored < bit <= high}


def _length(source: Dataset) -> int:
    """Bytes of the pixels that the header describes; 0 where it does not."""
    numbers = [_number(source, keyword) for keyword in ("Rows", "Columns", "BitsAllocated")]
    if not all(numbers):
        return 0
    frames = ascii_of(source, "NumberOfFrames") or "1"
    if not frames.isdecimal():
        raise Refused("Number of Frames is no number, so that nobody can tell where its pixels end")
    bits = numbers[0] * numbers[1] * numbers[2] * (_number(source, "SamplesPerPixel") or 1) * int(frames)
    if ascii_of(source, "PhotometricInterpretation").endswith("_422"):
        bits = bits * 2 // 3
    return (bits + 7) // 8


def _number(dataset: Dataset, keyword: str | int) -> int:
    if keyword not in dataset:
        return 0
    value = dataset[keyword].value
    return value if isinstance(value, int) else 0
