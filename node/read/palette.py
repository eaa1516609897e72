"""The palettes of PALETTE COLOR images, whole or in segments, as RGB (PS3.3 C.7.6.3.1.5, C.7.9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from node.errors import Refused

_COLOURS = ("Red", "Green", "Blue")


@dataclass(frozen=True, eq=False)
class Palette:
    """Colours for stored values from *first* on; what lies outside takes the nearest end (C.7.6.3.1.5)."""

    first: int
    entries: NDArray[np.uint8]
    """(n, 3): RGB."""

    def of(self, stored: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """The colour of each stored value."""
        return self.entries[np.clip(stored.astype(np.int64) - self.first, 0, len(self.entries) - 1)]


def palette(header: Dataset) -> Palette:
    """The palette of a PALETTE COLOR image as RGB in 8 bits. Raises Refused where it is missing or odd."""
    channels = []
    for colour in _COLOURS:
        count, first, bits = _descriptor(header, f"{colour}PaletteColorLookupTableDescriptor")
        segmented = header.get(f"Segmented{colour}PaletteColorLookupTableData")
        whole = header.get(f"{colour}PaletteColorLookupTableData")
        if whole is not None:
            entries: NDArray[Any] = _words(whole, count, bits, header)
        elif segmented is not None:
            entries = _expanded(_words(segmented, 0, bits, header).tolist(), bits)
        else:
            raise Refused(f"the {colour.lower()} lookup table of this PALETTE COLOR image is missing")
        if len(entries) < count:
            raise Refused(f"the {colour.lower()} lookup table has {len(entries)} of {count} entries")
        channels.append(entries[:count])
    if len({len(channel) for channel in channels}) > 1:
        raise Refused("the lookup tables of red, green and blue differ in length")
    table = np.stack(channels, axis=-1)
    # Tables of 16 bits carry the colour in the high byte (C.7.6.3.1.5); some makers filled the low one only.
    if bits == 16 and table.max() > 255:
        table = table >> 8
    return Palette(first, table.astype(np.uint8))


def _descriptor(header: Dataset, keyword: str) -> tuple[int, int, int]:
    """Entries (0 means 65536), first stored value, bits per entry (C.7.6.3.1.5)."""
    try:
        count, first, bits = (int(v) for v in header[keyword].value)
    except (KeyError, TypeError, ValueError):
        raise Refused(f"{keyword} is missing or has not three numbers") from None
    signed = bool(header.get("PixelRepresentation", 0))
    if signed and first > 0x7FFF:  # written as US by some
        first -= 1 << 16
    if not signed and first < 0:
        first += 1 << 16
    if not 8 <= bits <= 16:
        raise Refused(f"{keyword} says {bits} bits per entry; the standard knows 8 to 16")
    return (count % (1 << 16)) or 1 << 16, first, bits


def _words(data: Any, count: int, bits: int, header: Dataset) -> NDArray[np.uint16]:
    """Table data as numbers: words in file order, or bytes packed in words where entries are 8 bits."""
    if not isinstance(data, bytes):
        many = data if isinstance(data, Sequence) or hasattr(data, "__iter__") else [data]
        return np.array([int(v) & 0xFFFF for v in many], np.uint16)
    little = header.original_encoding[1] is not False
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2")
    if bits > 8 or (count and len(data) >= 2 * count):  # 8-bit entries in 16 bits allocated occur, too
        return words.astype(np.uint16)
    if little:
        return np.frombuffer(data, np.uint8).astype(np.uint16)
    return words.astype("<u2").view(np.uint8).astype(np.uint16)


def _expanded(words: list[int], bits: int) -> NDArray[np.uint16]:
    """Segmented Palette Color LUT Data (C.7.9.2): discrete (0), linear (1) and indirect (2) segments."""
    found: list[int] = []
    _expand(words, (0, len(words)), found, bits)
    return np.array(found, np.uint16)


def _expand(words: list[int], part: tuple[int, int], found: list[int], bits: int) -> None:
    """Append what the segments of *part* (first word, how many segments at most) stand for."""
    at, segments = part
    while segments and at + 1 < len(words):
        code, length, more = words[at], words[at + 1], words[at + 2 : at + 4]
        if code == 0:
            found.extend(words[at + 2 : at + 2 + length])
            at += 2 + length
        elif code == 1 and found and length and more:
            steps = np.arange(1, length + 1) / length
            start = found[-1]
            found.extend(int(v) for v in np.rint(start + (more[0] - start) * steps))
            at += 3
        elif code == 2 and found and len(more) == 2 and bits > 8:
            offset = more[0] | more[1] << 16
            if offset >= at:
                raise Refused("an indirect segment of the palette refers to what follows it (C.7.9.2.3)")
            _expand(words, (offset, length), found, bits)
            at += 4
        else:
            raise Refused(f"a segment of the palette (code {code}) is none that PS3.3 C.7.9.2 knows")
        segments -= 1
