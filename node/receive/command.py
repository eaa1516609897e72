"""Command sets as bytes (PS3.7 6.3.1, Annex E): Implicit VR Little Endian, whatever the context's syntax is."""

from __future__ import annotations

import struct
from collections.abc import Mapping

Elements = Mapping[int, bytes]
"""Element number of group 0000 → value as on the wire, padding included."""

SOP_CLASS, FIELD, MESSAGE_ID, ANSWERED_ID = 0x0002, 0x0100, 0x0110, 0x0120
DATA_SET_TYPE, STATUS, SOP_INSTANCE = 0x0800, 0x0900, 0x1000
MOVE_ORIGINATOR, MOVE_ORIGINATOR_ID = 0x1030, 0x1031
"""Element numbers (PS3.7 Table E.1-1)."""
C_STORE, C_ECHO, C_CANCEL = 0x0001, 0x0030, 0x0FFF
"""Command Fields of requests."""
NO_DATASET = 0x0101

_RESPONSE = 0x8000
_LONGEST_TITLE = 16


def decode(command: bytes | bytearray | memoryview) -> dict[int, bytes]:
    """Return the elements of a command set but its group length.

    An element that claims to go on behind the end is left out: whether it is missed, its reader knows.
    """
    elements, offset, view = {}, 0, memoryview(command)
    while offset + 8 <= len(view):
        group, number, length = struct.unpack_from("<HHI", view, offset)
        offset += 8
        if group == 0 and number and offset + length <= len(view):
            elements[number] = bytes(view[offset : offset + length])
        offset += length
    return elements


def encode(elements: Elements) -> bytes:
    """Return a command set with its group length; values are padded to even length with NUL."""
    parts = []
    for number in sorted(elements):
        value = elements[number]
        value += b"\0" * (len(value) % 2)
        parts.append(struct.pack("<HHI", 0, number, len(value)) + value)
    body = b"".join(parts)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def integer(elements: Elements, number: int) -> int | None:
    """Return a value of VR US; None where it is absent or too short."""
    value = elements.get(number, b"")
    return int(struct.unpack_from("<H", value)[0]) if len(value) >= 2 else None


def text(elements: Elements, number: int) -> str:
    """Return a UID as sent, without its padding; empty where it is absent."""
    return elements.get(number, b"").decode("latin-1").rstrip("\0 ")


def origin(elements: Elements) -> str:
    """Return whose C-MOVE a C-STORE is part of: `move <Message ID> <AE title>`; empty where it is of none."""
    if MOVE_ORIGINATOR not in elements:
        return ""
    title = elements[MOVE_ORIGINATOR][:_LONGEST_TITLE].decode("latin-1").strip("\0 ")
    return f"move {integer(elements, MOVE_ORIGINATOR_ID) or 0} {title}"


def response(request: Elements, status: int) -> bytes:
    """Return the command set that answers *request*, without a dataset (PS3.7 9.3.1.2, 9.3.5.2)."""
    field = (integer(request, FIELD) or 0) | _RESPONSE
    elements = {number: request[number] for number in (SOP_CLASS, SOP_INSTANCE) if number in request}
    elements[FIELD] = struct.pack("<H", field)
    elements[ANSWERED_ID] = request[MESSAGE_ID]
    elements[DATA_SET_TYPE] = struct.pack("<H", NO_DATASET)
    elements[STATUS] = struct.pack("<H", status)
    return encode(elements)
