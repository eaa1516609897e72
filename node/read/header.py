"""One received file → its `Header`: identity, digests and every attribute, whatever a peer sent.

Pixels are hashed, never decoded. What cannot be parsed at all comes back as `readable=False` with
the reason; a wrong charset, an odd VR or an illegal UID does not make an object unreadable.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.model import Arrival, Cell, Header
from node.read.elements import attributes_of, first
from node.read.rejection import rejected_by, rejection_of
from node.read.vendor import own_facts

_BULK = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010, 0x54000100, 0x00420011))
"""Float, Double and integer Pixel Data, Waveform Sequence, Encapsulated Document: content, not header."""
_MOST_INFLATED = 256 << 20
"""A deflated dataset is inflated to at most so many bytes; beyond it is taken for a bomb."""
_BLOCK = 1 << 20
_MOST_AT_ONCE = 4 << 20
"""Bytes of a file that is read whole before it is looked at."""


def read_header(path: Path, arrival: Arrival, offset: int) -> Header:
    """The header of the Part 10 file at *path* whose dataset begins at *offset*. Never raises for its content.

    Raises OSError when the file itself cannot be read.
    """
    with path.open("rb") as on_disk:
        file = _in_memory(on_disk)
        file.seek(offset)
        digest = hashlib.sha256(arrival.transfer_syntax.encode("latin-1", "replace"))
        _hash_rest(file, digest)
        size = file.tell()
        try:
            attributes, pixel_digest, named = _parse(file, offset, arrival.transfer_syntax)
            why = _why_ungrouped(attributes)
            readable = True
        except Exception as error:  # noqa: BLE001 - any peer's bytes may be here
            attributes, pixel_digest, named, readable = {}, "", (), False
            why = f"the dataset cannot be parsed ({type(error).__name__})"
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
        digest=digest.hexdigest(),
        pixel_digest=pixel_digest,
        frames=_frames(attributes),
        attributes={**attributes, **own_facts(attributes), **own},
        rejection=rejection_of(attributes),
        rejects=named,
    )


def _in_memory(file: BinaryIO) -> BinaryIO:
    """The same content read at once, where it is small: the disk and the kernel are asked once, not per element."""
    small = os.fstat(file.fileno()).st_size <= _MOST_AT_ONCE
    return BytesIO(file.read()) if small else file


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


def _hash_rest(file: BinaryIO, digest: Any) -> None:
    while block := file.read(_BLOCK):
        digest.update(block)


def _parse(file: BinaryIO, offset: int, syntax: str) -> tuple[dict[str, Cell], str, tuple[str, ...]]:
    """Attributes, the digest of the pixels, and what the object rejects if it is a rejection note."""
    if syntax == DeflatedExplicitVRLittleEndian:
        file.seek(offset)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        data = inflater.decompress(file.read(), _MOST_INFLATED)
        if inflater.unconsumed_tail:
            raise ValueError("inflates to more than the limit")
        file, offset = BytesIO(data), 0
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
    pixels = ""
    if seen and seen[0] in _BULK:
        digest = hashlib.sha256(syntax.encode("latin-1", "replace"))
        _hash_rest(file, digest)
        pixels = digest.hexdigest()
    attributes = attributes_of(dataset)
    return attributes, pixels, rejected_by(dataset) if rejection_of(attributes) else ()


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
