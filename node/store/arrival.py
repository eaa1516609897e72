"""The head of a received file: preamble and File Meta Information with the facts of its arrival (PS3.10 7.1).

Written and read as bytes, because a peer's UIDs and titles are kept as sent, however illegal, and because a
receiver decodes nothing.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from node import __version__
from node.errors import Broken
from node.model import Arrival

IMPLEMENTATION_UID = "2.25.106882989033558261250005168925090581538"
"""Our Implementation Class UID (0002,0012); also announced in associations (PS3.7 D.3.3.2)."""
IMPLEMENTATION_VERSION = f"PACSNODE_{__version__}"[:16]
"""Our Implementation Version Name (0002,0013), at most 16 characters."""
PRIVATE_CREATOR_UID = "2.25.119826626112753757206189396069961201739"
"""Private Information Creator UID (0002,0100): says how to read our (0002,0102)."""

_LONG = frozenset({b"OB", b"UR", b"UN", b"UT", b"OW", b"UC", b"SQ", b"OF", b"OD", b"OL", b"OV"})
_CAP = 0xFFFE  # the longest value a 16-bit length can name
_HEAD = 132  # preamble and prefix
_GROUP_LENGTH = 12


def encode_head(arrival: Arrival) -> bytes:
    """Return preamble, prefix and File Meta Information, Explicit VR Little Endian."""
    ours = {
        "peer": arrival.peer,
        "association": arrival.association,
        "received_at": arrival.received_at.isoformat(),
    }
    if arrival.origin:
        ours["origin"] = arrival.origin
    elements = b"".join(
        (
            _ABOUT_US[0],
            _element(0x0002, b"UI", _bytes(arrival.sop_class)),
            _element(0x0003, b"UI", _bytes(arrival.sop_uid)),
            _element(0x0010, b"UI", _bytes(arrival.transfer_syntax)),
            _ABOUT_US[1],
            _both_ends(arrival.calling, arrival.called, arrival.address, arrival.local_address),
            _ABOUT_US[2],
            _element(0x0102, b"OB", json.dumps(ours).encode()),
        )
    )
    return bytes(128) + b"DICM" + _element(0x0000, b"UL", struct.pack("<I", len(elements))) + elements


def read_arrival(path: Path) -> tuple[Arrival, int]:
    """Return what is known of the arrival of *path*, and the offset of its dataset in bytes.

    A missing element reads as an empty text; without our private information the file's own time counts as
    the arrival. Raises Broken where the file is not Part 10, OSError where it cannot be read.
    """
    with path.open("rb") as file:
        values, offset = _read_meta(file, path)
        modified = path.stat().st_mtime
    text = {tag: _text(value) for tag, value in values.items()}
    ours = _private(values, text)
    return (
        Arrival(
            sop_class=text.get(0x0002, ""),
            sop_uid=text.get(0x0003, ""),
            transfer_syntax=text.get(0x0010, ""),
            calling=text.get(0x0017) or text.get(0x0016, ""),
            called=text.get(0x0018, ""),
            peer=ours.get("peer", ""),
            address=text.get(0x0027, "").removeprefix("dicom:"),
            local_address=text.get(0x0028, "").removeprefix("dicom:"),
            association=ours.get("association", ""),
            received_at=_time(ours.get("received_at", ""), modified),
            origin=ours.get("origin", ""),
        ),
        offset,
    )


@lru_cache(maxsize=64)
def _both_ends(calling: str, called: str, address: str, local_address: str) -> bytes:
    """Encode what is the same for all objects of an association."""
    return b"".join(
        (
            _element(0x0016, b"AE", _bytes(calling)),
            _element(0x0017, b"AE", _bytes(calling)),
            _element(0x0018, b"AE", _bytes(called)),
            # Scheme, colon, host, colon, port (PS3.10 7.1.1.1).
            _element(0x0026, b"UR", _bytes(f"dicom:{address}")),
            _element(0x0027, b"UR", _bytes(f"dicom:{address}")),
            _element(0x0028, b"UR", _bytes(f"dicom:{local_address}")),
        )
    )


def _bytes(text: str) -> bytes:
    return text.encode("latin-1", "replace")


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """Encode one element of group 0002; the value is padded to even length as its VR asks (PS3.5 6.2)."""
    if vr not in _LONG:
        value = value[:_CAP]
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    tag = struct.pack("<HH", 0x0002, number)
    if vr in _LONG:
        return tag + vr + b"\0\0" + struct.pack("<I", len(value)) + value
    return tag + vr + struct.pack("<H", len(value)) + value


_ABOUT_US = (
    _element(0x0001, b"OB", b"\x00\x01"),
    _element(0x0012, b"UI", _bytes(IMPLEMENTATION_UID))
    + _element(0x0013, b"SH", _bytes(IMPLEMENTATION_VERSION)),
    _element(0x0100, b"UI", _bytes(PRIVATE_CREATOR_UID)),
)
"""The same in every file: meta information version, implementation, and whose (0002,0102) is."""


def _read_meta(file: BinaryIO, path: Path) -> tuple[dict[int, bytes], int]:
    head = file.read(_HEAD)
    if len(head) < _HEAD or head[128:] != b"DICM":
        raise Broken(f"{path}: not a DICOM Part 10 file: no DICM after the preamble")
    values: dict[int, bytes] = {}
    offset = end = _HEAD
    for number, value, after in _elements(file):
        if number == 0 and len(value) == 4 and not values:
            end = _HEAD + _GROUP_LENGTH + int(struct.unpack("<I", value)[0])
        elif end > _HEAD and after > end:
            break  # the dataset itself begins with elements of group 0002, which is illegal and seen
        values[number] = value
        offset = after
    return values, offset


def _elements(file: BinaryIO) -> Iterator[tuple[int, bytes, int]]:
    """Element number, value and the offset behind it, as long as group 0002 lasts."""
    offset = _HEAD
    while True:
        start = file.read(8)
        if len(start) < 8:
            return
        group, number = struct.unpack("<HH", start[:4])
        if group != 0x0002:
            return
        length = int(struct.unpack("<H", start[6:])[0])
        if start[4:6] in _LONG:
            long = file.read(4)
            if len(long) < 4:
                return
            length = int(struct.unpack("<I", long)[0])
            offset += 4
        value = file.read(length)
        if len(value) < length:
            return
        offset += 8 + length
        yield number, value, offset


def _text(value: bytes) -> str:
    return value.decode("latin-1").rstrip("\0 ")


def _private(values: dict[int, bytes], text: dict[int, str]) -> dict[str, str]:
    if text.get(0x0100) != PRIVATE_CREATOR_UID:
        return {}
    try:
        found = json.loads(values.get(0x0102, b""))
    except ValueError:
        return {}
    return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _time(text: str, modified: float) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromtimestamp(modified, UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
