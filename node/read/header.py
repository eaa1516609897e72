"""One received file → its `Header`: identity, digests and every attribute, whatever a peer sent.

Pixels are hashed, never decoded. What cannot be parsed at all comes back as `readable=False` with
the reason; a wrong charset, an odd VR or an illegal UID does not make an object unreadable.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.digest import Content, pixel_digest, whole_digest
from node.model import Arrival, Cell, Header
from node.read.elements import attributes_of, first
from node.read.quick import UnusualError, quick_attributes
from node.read.rejection import rejected_by, rejection_of
from node.read.vendor import own_facts

_BULK = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010, 0x54000100, 0x00420011))
"""Float, Double and integer Pixel Data, Waveform Sequence, Encapsulated Document: content, not header."""
_MOST_INFLATED = 256 << 20
"""A deflated dataset is inflated to at most so many bytes; beyond it is taken for a bomb."""
ROOM = _MOST_AT_ONCE = 4 << 20
"""Bytes of a file up to which it is read whole before it is looked at."""


def read_header(path: Path, arrival: Arrival, offset: int, room: bytearray | None = None) -> Header:
    """The header of the Part 10 file at *path* whose dataset begins at *offset*. Never raises for its content.

    Whoever reads many lends the same *room* of `ROOM` bytes for each. Raises OSError when the file itself cannot
    be read.
    """
    syntax = arrival.transfer_syntax
    with path.open("rb", buffering=0) as on_disk:
        size = os.fstat(on_disk.fileno()).st_size
        file: Content = on_disk
        if size <= _MOST_AT_ONCE:
            file = _whole(on_disk, size, bytearray(size) if room is None else room)
        try:
            parsed = _parse(file, offset, syntax)
            why = _why_ungrouped(parsed.attributes)
            readable = True
        except Exception as error:  # noqa: BLE001 - any peer's bytes may be here
            parsed, readable = _Parsed({}), False
            why = f"the dataset cannot be parsed ({type(error).__name__})"
        digest = whole_digest(file, offset, syntax, parsed.pixels_at, parsed.pixel_digest)
    attributes = parsed.attributes
    own: dict[str, Cell] = {
        "from": ((arrival.peer,),),
        "called": ((arrival.called,),),
        "sop_class": ((first(attributes, "SOPClassUID") or arrival.sop_class,),),
        "transfer_syntax": ((arrival.transfer_syntax,),),
    }
    return Header(
        readable=readable,
        why=why,
        sop_uid=first(attributes, "SOPInstanceUID") or arrival.sop_uid,
        sop_class=first(attributes, "SOPClassUID") or arrival.sop_class,
        transfer_syntax=arrival.transfer_syntax,
        study_uid=first(attributes, "StudyInstanceUID"),
        series_uid=first(attributes, "SeriesInstanceUID"),
        peer=arrival.peer,
        calling=arrival.calling,
        called=arrival.called,
        association=arrival.association,
        received_at=arrival.received_at,
        size=size,
        digest=digest,
        pixel_digest=parsed.pixel_digest,
        pixels_at=parsed.pixels_at,
        frames=_frames(attributes),
        attributes={**attributes, **own_facts(attributes), **own},
        rejection=rejection_of(attributes),
        rejects=parsed.rejects,
        origin=arrival.origin,
    )


def _whole(file: BinaryIO, size: int, room: bytearray) -> memoryview:
    """Read the file at once: the kernel is asked once, not per element, and no memory is asked of it each time."""
    view = memoryview(room)[:size]
    got = 0
    while got < size and (more := file.readinto(view[got:])):  # type: ignore[attr-defined]
        got += more
    return view[:got]


def arrival_of_file(path: Path) -> tuple[Arrival, int]:
    """What a plain Part 10 file says of itself, for files that came over no network, and its dataset's offset.

    Raises ValueError where the file is not DICOM Part 10.
    """
    with path.open("rb") as file:
        preamble = file.read(132)
        if preamble[128:] != b"DICM":
            raise ValueError("not a DICOM file")
        file.seek(132)
        meta: Any = read_file_meta_info_at(file)
        offset = file.tell()
    return (
        Arrival(
            sop_class=str(meta.get("MediaStorageSOPClassUID", "")),
            sop_uid=str(meta.get("MediaStorageSOPInstanceUID", "")),
            transfer_syntax=str(meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)),
            calling=str(meta.get("SourceApplicationEntityTitle", "") or ""),
            called=str(meta.get("ReceivingApplicationEntityTitle", "") or ""),
            peer=str(meta.get("SourceApplicationEntityTitle", "") or ""),
            address="",
            local_address="",
            association="",
            received_at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        ),
        offset,
    )


def read_file_meta_info_at(file: BinaryIO) -> Dataset:
    """The file meta group from the current position on; leaves *file* at the dataset (PS3.10 7.1)."""
    return read_dataset(
        file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, _vr, _length: tag.group != 2
    )


@dataclass(frozen=True, slots=True)
class _Parsed:
    """What stands in a dataset."""

    attributes: dict[str, Cell]
    pixels_at: int = 0
    """As in `Header`."""
    pixel_digest: str = ""
    rejects: tuple[str, ...] = ()


def _parse(content: Content, offset: int, syntax: str) -> _Parsed:
    """Attributes, the digest of the pixels, and what the object rejects if it is a rejection note."""
    if syntax == DeflatedExplicitVRLittleEndian:
        inflated = _parse_plain(memoryview(_inflated(content, offset)), 0, syntax)
        return replace(inflated, pixels_at=0)  # in the file they stand deflated
    return _parse_plain(content, offset, syntax)


def _parse_plain(content: Content, offset: int, syntax: str) -> _Parsed:
    """As `_parse`, of a dataset that is not deflated, whatever *syntax* says."""
    if isinstance(content, memoryview) and syntax != ExplicitVRBigEndian:
        try:
            attributes, at = quick_attributes(content, offset, syntax == ImplicitVRLittleEndian, _BULK)
            if not rejection_of(attributes):
                digest = pixel_digest(content, at, syntax) if at >= 0 else ""
                return _Parsed(attributes, max(0, at - offset), digest)
        except UnusualError:
            pass
    return _parse_slowly(BytesIO(content) if isinstance(content, memoryview) else content, offset, syntax)


def _inflated(content: Content, offset: int) -> bytes:
    if isinstance(content, memoryview):
        deflated: bytes | memoryview = content[offset:]
    else:
        content.seek(offset)
        deflated = content.read()
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(deflated, _MOST_INFLATED)
    if inflater.unconsumed_tail:
        raise ValueError("inflates to more than the limit")
    return data


def _parse_slowly(file: BinaryIO, offset: int, syntax: str) -> _Parsed:
    """As `_parse_plain`, whatever stands there."""
    file.seek(offset)
    seen: list[int] = []

    def at_bulk(tag: int, _vr: str | None, _length: int) -> bool:
        seen[:] = [int(tag)]
        return tag in _BULK

    dataset = read_dataset(
        file,
        is_implicit_VR=UID(syntax) == ImplicitVRLittleEndian,
        is_little_endian=syntax != ExplicitVRBigEndian,
        stop_when=at_bulk,
    )
    dataset.set_original_encoding(UID(syntax) == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    if not len(dataset):
        raise ValueError("no data elements")
    at = file.tell() if seen and seen[0] in _BULK else -1
    attributes = attributes_of(dataset)
    digest = pixel_digest(file, at, syntax) if at >= 0 else ""
    rejects = rejected_by(dataset) if rejection_of(attributes) else ()
    return _Parsed(attributes, max(0, at - offset), digest, rejects)


def _why_ungrouped(attributes: Mapping[str, Cell]) -> str:
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        uid = first(attributes, keyword)
        if not uid:
            return f"{keyword} is missing, so it belongs to no series"
        if len(uid) > 64:
            return f"{keyword} is longer than 64 characters, so it belongs to no series"
    return ""


def _frames(attributes: Mapping[str, Cell]) -> int:
    text = first(attributes, "NumberOfFrames")
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) and int(text) else 1
