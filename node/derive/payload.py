"""Pixels, waveforms and documents of a file, against what its header says of them (PS3.3 C.7.6.3, C.10.9, C.24.2).

What the module tables call conditional (1C) is judged here, because only the data show the condition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from pydicom.dataset import Dataset

from node.derive import values

_PIXELS = {"PixelData": (1, 8, 16, 32), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}
"""Attribute → Bits Allocated that go with it (C.7.6.3, C.7.6.24, C.7.6.25)."""
_STORED = ("BitsStored", "HighBit", "PixelRepresentation")
_PALETTE = tuple(f"{colour}PaletteColorLookupTable{what}" for colour in ("Red", "Green", "Blue")
                 for what in ("Descriptor", "Data"))  # fmt: skip


def payload_defects(dataset: Dataset, roots: Collection[str]) -> Iterator[tuple[str, str]]:
    """Attribute and fault of what *dataset*, of a class whose attributes are *roots*, carries."""
    if "PixelData" in roots:
        yield from _pixels(dataset)
    if "WaveformSequence" in roots:
        for item in dataset.get("WaveformSequence") or ():
            yield from _waveform(item)
    if "EncapsulatedDocument" in roots:
        yield from _document(dataset)


def _pixels(dataset: Dataset) -> Iterator[tuple[str, str]]:
    present = [keyword for keyword in _PIXELS if keyword in dataset]
    if len(present) != 1:
        yield "PixelData", "is missing" if not present else f"stands beside {present[1]}"
        return
    (keyword,) = present
    bits = int(dataset.get("BitsAllocated") or 0)
    if bits not in _PIXELS[keyword]:
        yield "BitsAllocated", f"is {bits}, which {keyword} cannot have"
    yield from _length(dataset, keyword, bits)
    yield from _samples(dataset, keyword, bits)
    yield from _frames(dataset)


def _length(dataset: Dataset, keyword: str, bits: int) -> Iterator[tuple[str, str]]:
    samples = (
        int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0) * _number(dataset, "SamplesPerPixel")
    )
    expected = (samples * _number(dataset, "NumberOfFrames") * bits + 7) // 8
    found = len(dataset.get_item(keyword).value or b"")
    if found != expected + expected % 2 or not expected:
        yield keyword, f"has {found} bytes, rows, columns and frames ask for {expected}"


def _samples(dataset: Dataset, keyword: str, bits: int) -> Iterator[tuple[str, str]]:
    if keyword != "PixelData":
        yield from ((name, f"does not go with {keyword}") for name in _STORED if name in dataset)
        return
    stored = int(dataset.get("BitsStored") or 0)
    if not 0 < stored <= bits or dataset.get("HighBit") != stored - 1:
        yield "BitsStored", "does not fit Bits Allocated and High Bit"
    colour = str(dataset.get("PhotometricInterpretation", ""))
    grey = colour in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    if _number(dataset, "SamplesPerPixel") != (1 if grey else 3):
        yield "SamplesPerPixel", f"does not fit {colour or 'an absent Photometric Interpretation'}"
    if ("PlanarConfiguration" in dataset) == grey:
        yield (
            "PlanarConfiguration",
            "goes with three samples per pixel only" if grey else "is missing (type 1C)",
        )
    if colour == "PALETTE COLOR":
        yield from ((name, "is missing (type 1C)") for name in _PALETTE if name not in dataset)


def _frames(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """One item, or one value of what the frames are counted by, per frame (C.7.6.5, C.7.6.16)."""
    frames = _number(dataset, "NumberOfFrames")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if per_frame is not None and len(per_frame) != frames:
        yield "PerFrameFunctionalGroupsSequence", f"has {len(per_frame)} items for {frames} frames"
    pointer: Any = dataset.get("FrameIncrementPointer")
    for tag in [] if pointer is None else [pointer] if isinstance(pointer, int) else pointer:
        if tag not in dataset:
            yield "FrameIncrementPointer", "points at an attribute that is absent"
        elif dataset[tag].VM not in (1, frames):
            yield dataset[tag].keyword, f"has {dataset[tag].VM} values for {frames} frames"


def _waveform(item: Dataset) -> Iterator[tuple[str, str]]:
    channels = int(item.get("NumberOfWaveformChannels") or 0)
    samples = int(item.get("NumberOfWaveformSamples") or 0)
    expected = channels * samples * int(item.get("WaveformBitsAllocated") or 0) // 8
    data = item.get_item("WaveformData")
    found = 0 if data is None else len(data.value or b"")
    if found != expected + expected % 2 or not expected:
        yield "WaveformSequence.WaveformData", f"has {found} bytes, channels and samples ask for {expected}"
    if len(item.get("ChannelDefinitionSequence") or ()) != channels:
        yield "WaveformSequence.ChannelDefinitionSequence", f"does not describe {channels} channels"


def _document(dataset: Dataset) -> Iterator[tuple[str, str]]:
    data = (
        values.octets(dataset.get_item("EncapsulatedDocument")) if "EncapsulatedDocument" in dataset else b""
    )
    if dataset.get("MIMETypeOfEncapsulatedDocument") == "application/pdf" and not data.startswith(b"%PDF-"):
        yield "EncapsulatedDocument", "is no PDF, as its MIME type says"
    length = dataset.get("EncapsulatedDocumentLength")
    if length is not None and not len(data) - 1 <= int(length) <= len(data):
        yield "EncapsulatedDocumentLength", f"says {length}, the document has {len(data)} bytes"


def _number(dataset: Dataset, keyword: str) -> int:
    return int(dataset.get(keyword) or 1)
