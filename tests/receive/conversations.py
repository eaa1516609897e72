"""Conversations with a receiver as bytes: what the fuzzers begin with, and a regression corpus by itself."""

from __future__ import annotations

import struct
from pathlib import Path

from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification
from receive.scripted_peer import (
    CANCEL,
    CT_CONTEXT,
    ECHO,
    EXPLICIT,
    FIND,
    N_ACTION,
    N_EVENT_REPORT,
    RELEASE,
    STORE,
    associate_pdu,
    dataset_pdu,
    item,
    pdu,
    pdv,
    request,
)

IMPLICIT = "1.2.840.10008.1.2"
PUSH_MODEL = "1.2.840.10008.1.20.1"
ABORT = struct.pack(">BBIBBBB", 7, 0, 4, 0, 0, 0, 0)
FOUND = Path(__file__).with_name("seeds")
"""What fuzzing found, one conversation in hexadecimal digits per file."""

_ONE = pdu(pdv(3, request(STORE)), pdv(2, b"data"))
_NAME = item(0x30, CTImageStorage.encode())[4:]
_FURTHER = {
    "user identity": b"".join(
        item(0x58, struct.pack(">BBH", kind, 1, 4) + b"user" + struct.pack(">H", 4) + b"pass")
        for kind in range(1, 6)
    ),
    "role selection": item(0x54, struct.pack(">H", len(_NAME)) + _NAME + b"\1\1"),
    "extended negotiation": item(0x56, struct.pack(">H", len(_NAME)) + _NAME + b"\2\1\0\1\0\0"),
    "common extended negotiation": item(
        0x57,
        (struct.pack(">H", len(_NAME)) + _NAME) * 2 + struct.pack(">HH", len(_NAME) + 2, len(_NAME)) + _NAME,
    ),
    "asynchronous operations": item(0x53, bytes(4)),
    "long version": item(0x55, b"V" * 40),
    "unknown item": item(0x5F, b"what?"),
}
_SEVERAL = (
    CT_CONTEXT,
    (3, MRImageStorage, (IMPLICIT, EXPLICIT)),
    (5, Verification, (IMPLICIT,)),
    (7, PUSH_MODEL, (IMPLICIT,)),
    (9, "1.2.826.0.1.3680043.9.9999.1", ("1.2.826.0.1.3680043.9.9999.2",)),
)


def conversations() -> dict[str, bytes]:
    """Return what may be said, by a name for each."""
    begin, several = associate_pdu(), associate_pdu(_SEVERAL)
    command = request(STORE)
    return {
        "nothing": b"",
        "plain text": b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n",
        "release": begin + RELEASE,
        "abort": begin + ABORT,
        "wrong title": associate_pdu(called=b"OTHER") + _ONE,
        "stranger": associate_pdu(calling=b"NOBODY") + _ONE,
        "other version": begin[:6] + b"\0\2" + begin[8:] + _ONE,
        "one object": begin + _ONE + RELEASE,
        "three objects": begin + _ONE * 3 + RELEASE,
        "object and silence": begin + pdu(pdv(3, command), pdv(0, b"half")),
        "object and abort": begin + pdu(pdv(3, command), pdv(0, b"half")) + ABORT,
        "object and release": begin + pdu(pdv(3, command), pdv(0, b"half")) + RELEASE,
        "command in bytes": begin
        + b"".join(pdu(pdv(1, command[at : at + 1])) for at in range(len(command) - 1))
        + pdu(pdv(3, command[-1:]), pdv(0, b"da"))
        + dataset_pdu(b"ta", last=True)
        + RELEASE,
        "long object": begin + pdu(pdv(3, command)) + dataset_pdu(bytes(9000)) * 3 + dataset_pdu(b"", True),
        "too long an object": begin
        + pdu(pdv(3, command))
        + dataset_pdu(bytes(20_000)) * 4
        + dataset_pdu(b"", True)
        + _ONE,
        "fragments of nothing": begin + pdu(pdv(3, command), *[pdv(0, b"")] * 1100),
        "a short request": struct.pack(">BBI", 1, 0, 40) + bytes(40),
        "no dataset": begin + pdu(pdv(3, request(STORE, dataset=False))) + _ONE + RELEASE,
        "move originator": begin
        + pdu(pdv(3, request(STORE, further={0x1030: b"WHO ", 0x1031: b"\5\0"})), pdv(2, b"data")),
        "echo": several
        + pdu(pdv(3, request(ECHO, dataset=False), 5))
        + pdu(pdv(3, command, 3), pdv(2, b"data", 3))
        + pdu(pdv(3, request(ECHO, dataset=False), 5))
        + RELEASE,
        "private": several + pdu(pdv(3, command, 9), pdv(2, b"data", 9)) + RELEASE,
        "two contexts": several + pdu(pdv(3, command, 1), pdv(2, b"data", 3)),
        "commitment": several
        + pdu(pdv(3, request(N_ACTION, further={0x1008: b"\1\0"}), 7), pdv(2, b"data", 7))
        + pdu(pdv(3, request(N_EVENT_REPORT, further={0x1002: b"\1\0"}), 7), pdv(2, b"data", 7)),
        "commitment on both sides": associate_pdu(
            _SEVERAL, item(0x54, struct.pack(">H", 20) + PUSH_MODEL.encode() + b"\1\1")
        )
        + pdu(pdv(3, request(N_ACTION, further={0x1008: b"\1\0"}), 7), *[pdv(0, bytes(10_000), 7)] * 4),
        "find": begin + pdu(pdv(3, request(FIND)), pdv(2, b"\x08\0\x60\0CS\2\0CT")),
        "cancel": begin + pdu(pdv(3, request(CANCEL, dataset=False))) + _ONE + RELEASE,
        "an answer": begin + pdu(pdv(3, request(0x8001, dataset=False))),
        "small answers": associate_pdu(most=40) + _ONE + RELEASE,
        "no room for answers": associate_pdu(most=6) + _ONE + RELEASE,
        "many contexts": associate_pdu([(n, CTImageStorage, (EXPLICIT, IMPLICIT)) for n in range(1, 256, 2)])
        + _ONE,
        "odd contexts": associate_pdu([(n, CTImageStorage, (EXPLICIT,)) for n in (0, 1, 1, 2)]) + _ONE,
        **{name: associate_pdu(further=further) + _ONE + RELEASE for name, further in _FURTHER.items()},
    }


def findings() -> dict[str, bytes]:
    """Return the conversations that once broke something, by the names of their files."""
    return {path.stem: bytes.fromhex(path.read_text("ascii")) for path in sorted(FOUND.glob("*.hex"))}
