"""The PDUs and messages that the load generator speaks, with nothing but `struct` (PS3.8 9.3, PS3.7 9.3.1)."""

from __future__ import annotations

import socket
import struct

RELEASE_RQ, RELEASE_RP = struct.pack(">BxIxxxx", 5, 4), struct.pack(">BxIxxxx", 6, 4)
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_IMPLEMENTATION = b"2.25.247886483705718482922515328742037929370"
_C_STORE_RQ, _C_STORE_RSP, _DATASET, _MEDIUM = 0x0001, 0x8001, 0x0001, 0x0000
_FIELD, _ABOUT, _STATUS = 0x0100, 0x0120, 0x0900


class WrongError(Exception):
    """The other side did not do what a Storage SCP does; the words say what it did."""


def associate_request(called: str, calling: str, sop_class: bytes, syntax: bytes) -> bytes:
    """A-ASSOCIATE-RQ with one presentation context, number 1 (PS3.8 9.3.2)."""
    context = _item(0x20, b"\1\0\0\0" + _item(0x30, sop_class) + _item(0x40, syntax))
    user = _item(0x50, _item(0x51, struct.pack(">I", 1 << 17)) + _item(0x52, _IMPLEMENTATION))
    titles = called.encode().ljust(16) + calling.encode().ljust(16)
    body = struct.pack(">Hxx", 1) + titles + bytes(32) + _item(0x10, _APPLICATION_CONTEXT) + context + user
    return struct.pack(">BxI", 1, len(body)) + body


def associate_accept(request: memoryview) -> bytes:
    """A-ASSOCIATE-AC for a request with one presentation context and one transfer syntax (PS3.8 9.3.3)."""
    context = next(content for kind, content in _items(request, 68) if kind == 0x20)
    syntax = next(bytes(content) for kind, content in _items(context, 4) if kind == 0x40)
    accepted = _item(0x21, bytes(context[:1]) + b"\0\0\0" + _item(0x40, syntax))
    user = _item(0x50, _item(0x51, struct.pack(">I", 1 << 17)) + _item(0x52, _IMPLEMENTATION))
    body = bytes(request[:68]) + _item(0x10, _APPLICATION_CONTEXT) + accepted + user
    return struct.pack(">BxI", 2, len(body)) + body


def read_accept(body: memoryview) -> int:
    """The longest P-DATA-TF that an A-ASSOCIATE-AC announces, 0 = any (PS3.8 9.3.3, D.1).

    Raises WrongError where our presentation context was not accepted.
    """
    most = 0
    for kind, content in _items(body, 68):
        if kind == 0x21 and content[2] != 0:
            raise WrongError(f"the presentation context was refused with {content[2]}")
        if kind == 0x50:
            for part, value in _items(content, 0):
                if part == 0x51:
                    (most,) = struct.unpack(">I", value)
    return int(most)


def store_request(message_id: int, sop_class: bytes, uid: bytes) -> bytes:
    """C-STORE-RQ (PS3.7 9.3.1.1)."""
    elements = b"".join((
        _element(0x0002, sop_class + b"\0" * (len(sop_class) % 2)),
        _element(_FIELD, struct.pack("<H", _C_STORE_RQ)),
        _element(0x0110, struct.pack("<H", message_id)),
        _element(0x0700, struct.pack("<H", _MEDIUM)),
        _element(0x0800, struct.pack("<H", _DATASET)),
        _element(0x1000, uid + b"\0" * (len(uid) % 2)),
    ))  # fmt: skip
    return _element(0x0000, struct.pack("<I", len(elements))) + elements


def place_of(command: bytes, uid: bytes) -> int:
    """Where the Affected SOP Instance UID stands in a command that `store_request` made."""
    return command.rindex(uid)


def read_pdu(connection: socket.socket, into: memoryview) -> tuple[int, memoryview]:
    """The type and the content of the next PDU; nothing may follow it. Raises WrongError, OSError."""
    got, wanted = 0, 6
    while got < wanted:
        more = connection.recv_into(into[got:])
        if not more:
            raise WrongError("the other side closed the connection")
        got += more
        if got >= 6:
            wanted = 6 + int.from_bytes(into[2:6], "big")
            if wanted > len(into):
                raise WrongError(f"an answer of {wanted} bytes")
    return into[0], into[6:wanted]


def read_response(connection: socket.socket, into: memoryview, message_id: int) -> None:
    """Wait for the C-STORE-RSP of a request. Raises WrongError unless it says success."""
    kind, body = read_pdu(connection, into)
    if kind != 4:
        raise WrongError(f"C-STORE-RQ was answered with PDU type {kind}: {bytes(body[:4]).hex()}")
    about = status = field = -1
    position, end = 6, len(body)
    while position + 8 <= end:
        _, element, length = struct.unpack_from("<HHI", body, position)
        if element in (_FIELD, _ABOUT, _STATUS):
            (value,) = struct.unpack_from("<H", body, position + 8)
            if element == _FIELD:
                field = value
            elif element == _ABOUT:
                about = value
            else:
                status = value
        position += 8 + length
    if field != _C_STORE_RSP or about != message_id:
        raise WrongError(f"message {message_id} was answered by {field:04X} about message {about}")
    if status != 0:
        raise WrongError(f"message {message_id} was answered with status {status:04X}")


def store_response(context: int, message_id: bytes) -> bytes:
    """C-STORE-RSP with success, as a PDU (PS3.7 9.3.1.2)."""
    elements = b"".join((
        _element(_FIELD, struct.pack("<H", _C_STORE_RSP)),
        _element(_ABOUT, message_id),
        _element(0x0800, struct.pack("<H", 0x0101)),
        _element(_STATUS, b"\0\0"),
    ))  # fmt: skip
    whole = _element(0x0000, struct.pack("<I", len(elements))) + elements
    return struct.pack(">BxIIBB", 4, len(whole) + 6, len(whole) + 2, context, 3) + whole


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def _items(data: memoryview, position: int) -> list[tuple[int, memoryview]]:
    found = []
    while position + 4 <= len(data):
        kind, length = struct.unpack_from(">BxH", data, position)
        found.append((kind, data[position + 4 : position + 4 + length]))
        position += 4 + length
    return found


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value
