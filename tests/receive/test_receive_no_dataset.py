"""Claims about requests that lack what they must have: answered where that can be, else the association ends."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest
from peers import wait_for
from pynetdicom.sop_class import CTImageStorage, Verification
from receive.receive_house import Node, associate, node, send_bytes
from receive.scripted_peer import EXPLICIT, raw, read_pdu

__all__ = ["node"]

STORE, ECHO, STORE_RESPONSE = 0x0001, 0x0030, 0x8001
NO_DATASET = 0x0101


def command_pdu(field: int, left_out: tuple[int, ...] = ()) -> bytes:
    """Return a P-DATA-TF with a command that announces no dataset, without the elements *left_out*."""
    elements = {
        0x0002: CTImageStorage.encode() + b"\0", 0x0100: struct.pack("<H", field), 0x0110: b"\7\0",
        0x0700: b"\2\0", 0x0800: struct.pack("<H", NO_DATASET), 0x1000: b"1.2.3\0",
    }  # fmt: skip
    command = b"".join(
        struct.pack("<HHI", 0, number, len(value)) + value
        for number, value in elements.items()
        if number not in left_out
    )
    command = struct.pack("<HHII", 0, 0, 4, len(command)) + command
    return struct.pack(">BBIIBB", 4, 0, len(command) + 6, len(command) + 2, 1, 3) + command


@pytest.mark.parametrize(
    ("field", "left_out"),
    [
        (STORE, (0x0110,)),
        (STORE, (0x0110, 0x1000)),
        (ECHO, (0x0110,)),
        (ECHO, (0x0002,)),
        (STORE_RESPONSE, ()),
    ],
)
def test_a_command_nobody_can_answer_ends_the_association(
    node: Callable[..., Node], capsys: pytest.CaptureFixture[str], field: int, left_out: tuple[int, ...]
) -> None:
    """No Message ID, no class, an answer to nothing: A-ABORT at once and said; the next is served."""
    receiver = node()
    connection = raw(receiver)
    before = time.monotonic()
    connection.sendall(command_pdu(field, left_out))
    assert read_pdu(connection)[0] == 7
    assert time.monotonic() - before < 10  # an idle one would wait for a minute
    connection.close()
    wait_for(receiver.idle, "the end")
    assert "command_invalid" in capsys.readouterr().out
    following = associate(receiver, CTImageStorage, EXPLICIT)
    assert send_bytes(following, "1.2.3", b"data") == 0x0000
    following.release()
    assert len(receiver.objects()) == 1


@pytest.mark.parametrize("left_out", [(), (0x0002,), (0x0700,), (0x1000,)])
def test_a_store_without_a_dataset_is_answered_each_time(
    node: Callable[..., Node], left_out: tuple[int, ...]
) -> None:
    """Whatever else it lacks, it gets 0xC000 and nothing is kept; the association goes on."""
    receiver = node()
    connection = raw(receiver)
    for _ in range(3):
        connection.sendall(command_pdu(STORE, left_out))
        kind, answer = read_pdu(connection)
        assert kind == 4
        assert struct.pack("<HHIH", 0, 0x900, 2, 0xC000) in answer
    connection.close()
    assert receiver.objects() == []
    assert associate(receiver, Verification, EXPLICIT).is_established
