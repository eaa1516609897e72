"""A peer made of bytes, for what polite ones never do (PS3.8 9.3, Annex E)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from pynetdicom.sop_class import CTImageStorage

from node.receive.command import encode

EXPLICIT = "1.2.840.10008.1.2.1"

RELEASE = struct.pack(">BBII", 5, 0, 4, 0)
STATUS = 0x0900


def pdv(control: int, payload: bytes, context: int = 1) -> bytes:
    """Return one fragment (PS3.8 Annex E): control 1 is a command, 2 the last."""
    return struct.pack(">IBB", len(payload) + 2, context, control) + payload


def pdu(*fragments: bytes) -> bytes:
    """Return a P-DATA-TF."""
    body = b"".join(fragments)
    return struct.pack(">BBI", 4, 0, len(body)) + body


def request(
    field: int,
    message: int = 7,
    uid: bytes = b"1.2.3\0",
    dataset: bool = True,
    further: Mapping[int, bytes] | None = None,
) -> bytes:
    """Return the command set of a request, with *further* elements."""
    return encode(
        {
            0x0002: CTImageStorage.encode() + b"\0", 0x0100: struct.pack("<H", field),
            0x0110: struct.pack("<H", message), 0x0700: b"\2\0",
            0x0800: struct.pack("<H", 1 if dataset else 0x0101), 0x1000: uid, **(further or {}),
        }
    )  # fmt: skip


STORE, FIND, ECHO, N_EVENT_REPORT, N_ACTION, CANCEL = 0x0001, 0x0020, 0x0030, 0x0100, 0x0130, 0x0FFF


class Reachable(Protocol):
    """Something that listens on loopback."""

    port: int


def item(kind: int, content: bytes, length: int | None = None) -> bytes:
    """Return an item or sub-item of an A-ASSOCIATE-RQ (PS3.8 9.3.2); *length* may lie."""
    return struct.pack(">BBH", kind, 0, len(content) if length is None else length) + content


CT_CONTEXT = (1, CTImageStorage, (EXPLICIT,))


def proposal(number: int, abstract: str, syntaxes: Sequence[str]) -> bytes:
    """Return a Presentation Context Item (PS3.8 9.3.2.2)."""
    names = item(0x30, abstract.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
    return item(0x20, bytes([number, 0, 0, 0]) + names)


def associate_pdu(
    contexts: Sequence[tuple[int, str, Sequence[str]]] = (CT_CONTEXT,),
    further: bytes = b"",
    calling: bytes = b"CT01",
    called: bytes = b"PACSNODE",
    most: int = 16384,
) -> bytes:
    """Return an A-ASSOCIATE-RQ; *further* are sub-items of its user information (PS3.7 D.3.3)."""
    body = struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + b"".join(proposal(*context) for context in contexts)
    body += item(0x50, item(0x51, struct.pack(">I", most)) + item(0x52, b"1.2.3") + further)
    return struct.pack(">BBI", 1, 0, len(body)) + body


def request_pdu(calling: str = "CT01", called: str = "PACSNODE", length: int | None = None) -> bytes:
    """Return an A-ASSOCIATE-RQ for CT in Explicit VR Little Endian, on context 1; *length* may lie."""
    whole = associate_pdu(calling=calling.encode(), called=called.encode())
    return whole if length is None else whole[:2] + struct.pack(">I", length) + whole[6:]


def accepted(body: bytes) -> dict[int, tuple[int, str]]:
    """Return context number → result and transfer syntax, of the content of an A-ASSOCIATE-AC (PS3.8 9.3.3)."""
    found = {}
    for kind, content in items(body[68:]):
        if kind == 0x21:
            syntaxes = [value.decode() for inner, value in items(content[4:]) if inner == 0x40]
            found[content[0]] = content[2], syntaxes[0] if syntaxes else ""
    return found


def user_items(body: bytes) -> dict[int, list[bytes]]:
    """Return the sub-items of the user information of an A-ASSOCIATE-AC, by their type (PS3.7 D.3.3)."""
    found: dict[int, list[bytes]] = {}
    for kind, content in items(body[68:]):
        for inner, value in items(content) if kind == 0x50 else ():
            found.setdefault(inner, []).append(value)
    return found


def items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each item."""
    while data:
        kind, _, length = struct.unpack_from(">BBH", data)
        assert len(data) >= 4 + length, "an item of ours goes on behind the end"
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


def store_pdu(dataset_part: bytes) -> bytes:
    """Return a P-DATA-TF with a C-STORE-RQ and the first part of its dataset."""

    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHI", 0, number, len(value)) + value

    uid = CTImageStorage.encode() + b"\0"
    command = element(0x0002, uid) + element(0x0100, b"\1\0") + element(0x0110, b"\7\0")
    command += element(0x0700, b"\2\0") + element(0x0800, b"\1\0") + element(0x1000, b"1.2.3\0")
    command = element(0x0000, struct.pack("<I", len(command))) + command
    body = struct.pack(">IBB", len(command) + 2, 1, 3) + command
    body += struct.pack(">IBB", len(dataset_part) + 2, 1, 0) + dataset_part
    return struct.pack(">BBI", 4, 0, len(body)) + body


def dataset_pdu(fragment: bytes, last: bool = False) -> bytes:
    """Return a P-DATA-TF with one fragment of a dataset."""
    head = struct.pack(">BBIIBB", 4, 0, len(fragment) + 6, len(fragment) + 2, 1, 2 if last else 0)
    return head + fragment


def read_command(connection: socket.socket) -> dict[int, bytes]:
    """Read one response that has a PDU to itself; its elements."""
    kind, body = read_pdu(connection)
    assert kind == 4, f"expected a response, found a PDU of type {kind}"
    elements, offset = {}, 6
    while offset < len(body):
        _, number, length = struct.unpack_from("<HHI", body, offset)
        elements[number] = body[offset + 8 : offset + 8 + length]
        offset += 8 + length
    return elements


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Read one PDU; type 0 when the connection ended instead."""
    connection.settimeout(60)
    try:
        head = connection.recv(6, socket.MSG_PEEK)
        while head and len(head) < 6:
            head = connection.recv(6, socket.MSG_PEEK)
        size = 6 + int.from_bytes(head[2:], "big")
        data = b""
        while head and len(data) < size:
            more = connection.recv(size - len(data))
            if not more:
                return 0, b""
            data += more
    except ConnectionResetError:
        return 0, b""
    return (data[0], data[6:]) if data else (0, b"")


def raw(node: Reachable, associate: bytes = b"") -> socket.socket:
    """Associate by hand, for CT unless *associate* is another A-ASSOCIATE-RQ."""
    connection = socket.create_connection(("127.0.0.1", node.port))
    connection.sendall(associate or request_pdu())
    assert read_pdu(connection)[0] == 2
    return connection


ONE = pdu(pdv(3, request(STORE)), pdv(2, b"data"))


def status_of_one(connection: socket.socket) -> bytes:
    """Send one small object; return the status."""
    connection.sendall(ONE)
    return read_command(connection)[STATUS]
