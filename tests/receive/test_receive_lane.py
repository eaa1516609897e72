"""Claims about how C-STORE goes from the socket into a file, and what else may come on the same association."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest
from peers import wait_for
from pynetdicom import AE, build_context
from pynetdicom.sop_class import CTImageStorage, Verification
from receive.receive_house import Node, Process, kept_dataset, node, process, send_bytes
from receive.scripted_peer import (
    CANCEL,
    EXPLICIT,
    FIND,
    N_ACTION,
    N_EVENT_REPORT,
    RELEASE,
    STATUS,
    STORE,
    dataset_pdu,
    pdu,
    pdv,
    raw,
    read_command,
    read_pdu,
    request,
    request_pdu,
    store_pdu,
)

from node.receive.command import Elements, encode, response
from node.receive.limits import Pace
from node.receive.services import Answer, Context
from node.store.files import Disk, records_after

__all__ = ["node", "process"]


# --- C-STORE, however it is cut ---------------------------------------------------------------------------


def test_a_message_may_begin_in_the_pdu_that_ends_another(node: Callable[..., Node]) -> None:
    """Three objects in two P-DATA-TF are kept apart and answered in order."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(
        pdu(
            pdv(3, request(STORE, 1)),
            pdv(0, b"one,"),
            pdv(2, b"first"),
            pdv(3, request(STORE, 2)),
            pdv(0, b"tw"),
        )
        + pdu(pdv(2, b"o"), pdv(3, request(STORE, 3)), pdv(2, b"three"))
    )
    answers = [read_command(connection) for _ in range(3)]
    assert [answer[0x0120] for answer in answers] == [b"\1\0", b"\2\0", b"\3\0"]
    assert {answer[STATUS] for answer in answers} == {b"\0\0"}
    assert [kept_dataset(path) for path in receiver.objects()] == [b"one,first", b"two", b"three"]


def test_a_command_may_come_byte_by_byte(node: Callable[..., Node]) -> None:
    """A command set in one-byte fragments over many PDUs is the same command."""
    receiver = node()
    connection = raw(receiver)
    command = request(STORE)
    pieces = [pdv(3 if at == len(command) - 1 else 1, command[at : at + 1]) for at in range(len(command))]
    for at in range(0, len(pieces), 10):
        connection.sendall(pdu(*pieces[at : at + 10]))
    connection.sendall(dataset_pdu(b"da") + dataset_pdu(b"", last=False) + dataset_pdu(b"ta", last=True))
    answer = read_command(connection)
    assert (answer[STATUS], answer[0x0100], answer[0x0120]) == (b"\0\0", b"\1\x80", b"\7\0")
    assert (answer[0x0002], answer[0x1000]) == (CTImageStorage.encode() + b"\0", b"1.2.3\0")
    (path,) = receiver.objects()
    assert kept_dataset(path) == b"data"


def test_an_answer_keeps_to_the_length_that_the_peer_takes(node: Callable[..., Node]) -> None:
    """A peer that takes 40 bytes in a PDU gets its response in several."""
    receiver = node()
    usual, small = (struct.pack(">BBHI", 0x51, 0, 4, most) for most in (16384, 40))
    connection = socket.create_connection(("127.0.0.1", receiver.port))
    connection.sendall(request_pdu().replace(usual, small))
    assert read_pdu(connection)[0] == 2
    connection.sendall(pdu(pdv(3, request(STORE)), pdv(2, b"data")))
    command, last = b"", False
    while not last:
        kind, body = read_pdu(connection)
        assert kind == 4
        assert len(body) <= 40
        last = bool(body[5] & 2)
        command += body[6:]
    asked = {0x0002: CTImageStorage.encode() + b"\0", 0x0100: b"\1\0", 0x0110: b"\7\0", 0x1000: b"1.2.3\0"}
    assert command == response(asked, 0x0000)


def test_an_echo_between_objects_is_answered_in_its_turn(node: Callable[..., Node]) -> None:
    """C-STORE, C-ECHO and C-STORE on one association all succeed."""
    receiver = node()
    contexts = [build_context(CTImageStorage, EXPLICIT), build_context(Verification, EXPLICIT)]
    assoc = AE(ae_title="CT01").associate("127.0.0.1", receiver.port, contexts=contexts, ae_title="PACSNODE")
    assert send_bytes(assoc, "1.2.3", b"one") == 0x0000
    assert assoc.send_c_echo().Status == 0x0000
    assert send_bytes(assoc, "1.2.4", b"two") == 0x0000
    assoc.release()
    assert assoc.is_released
    assert [kept_dataset(path) for path in receiver.objects()] == [b"one", b"two"]
    assert (receiver.end().objects, receiver.end().aborted) == (2, False)


# --- when the disk fills up -------------------------------------------------------------------------------


class SmallDisk(Disk):
    """Takes only so many bytes."""

    room = 1_000_000

    def write(self, fd: int, *data: bytes | bytearray | memoryview) -> None:
        """Write what there is room for."""
        whole = b"".join(data)
        fits = min(self.room, len(whole))
        self.room -= fits
        super().write(fd, whole[:fits])
        if fits < len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_in_mid_object_refuses_that_object_only(node: Callable[..., Node]) -> None:
    """The rest of it is read and dropped, A700 answered, nothing left of it; earlier and later objects are kept."""
    disk = SmallDisk("process")
    receiver = node(disk)
    connection = raw(receiver)
    bulk = bytes(100_000)

    def store(fragments: int) -> bytes:
        connection.sendall(pdu(pdv(3, request(STORE))))
        for left in reversed(range(fragments)):
            connection.sendall(dataset_pdu(bulk, last=not left))
        return read_command(connection)[STATUS]

    assert store(5) == b"\0\0"
    assert store(20) == b"\0\xa7"
    assert not list(receiver.data.rglob("*.part"))
    disk.room = 1_000_000
    assert store(5) == b"\0\0"
    connection.sendall(RELEASE)
    assert read_pdu(connection)[0] == 6
    assert [kept_dataset(path) for path in receiver.objects()] == [bulk * 5] * 2
    assert (receiver.end().objects, receiver.end().aborted) == (2, False)


# --- messages of other kinds ------------------------------------------------------------------------------


def test_another_request_is_served_by_what_the_desk_holds_for_it(node: Callable[..., Node]) -> None:
    """An N-ACTION goes to its service with context, elements and dataset; what it answers goes out, cut to size."""
    receiver = node()
    seen: list[tuple[Context, Elements, bytes]] = []

    def serve(context: Context, command: Elements, dataset: bytes) -> Answer:
        seen.append((context, command, dataset))
        return Answer(response(command, 0x0112), dataset[::-1])

    receiver.listener.desk.services[N_ACTION] = serve
    connection = raw(receiver)
    data = bytes(range(256)) * 200
    connection.sendall(pdu(pdv(3, request(N_ACTION))))
    for at in range(0, len(data), 1000):
        connection.sendall(dataset_pdu(data[at : at + 1000], last=at + 1000 >= len(data)))
    answer = read_command(connection)
    assert (answer[0x0100], answer[STATUS]) == (b"\x30\x81", b"\x12\x01")
    returned = b""
    while len(returned) < len(data):
        kind, body = read_pdu(connection)
        assert (kind, body[5] & 1) == (4, 0)
        assert len(body) <= 16384
        returned += body[6:]
    assert returned == data[::-1]
    ((context, command, dataset),) = seen
    assert (context, dataset) == (Context(1, CTImageStorage, EXPLICIT), data)
    assert command[0x1000] == b"1.2.3\0"
    connection.sendall(pdu(pdv(3, request(STORE)), pdv(2, b"data")))
    assert read_command(connection)[STATUS] == b"\0\0"


@pytest.mark.parametrize("field", [FIND, N_ACTION, N_EVENT_REPORT, 0x0002])
def test_a_request_that_nothing_here_serves_is_answered_so(
    node: Callable[..., Node], capsys: pytest.CaptureFixture[str], field: int
) -> None:
    """Whatever it asks for on a storage context: its own response with 0211, one line, and the next is served."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(pdu(pdv(3, request(field)), pdv(2, b"\x08\0\x60\0CS\2\0CT")))
    answer = read_command(connection)
    assert answer[STATUS] == struct.pack("<H", 0x0211)
    assert answer[0x0100] == struct.pack("<H", field | 0x8000)
    assert (answer[0x0120], answer[0x0002], answer[0x1000]) == (
        b"\7\0",
        CTImageStorage.encode() + b"\0",
        b"1.2.3\0",
    )
    assert capsys.readouterr().out.count("request_unserved") == 1
    connection.sendall(pdu(pdv(3, request(STORE)), pdv(2, b"data")))
    assert read_command(connection)[STATUS] == b"\0\0"


def test_what_nobody_serves_is_not_gathered(node: Callable[..., Node]) -> None:
    """The dataset of a request that will be refused takes no memory, however long it is."""
    receiver = node(pace=Pace(message_size=1000))
    connection = raw(receiver)
    connection.sendall(pdu(pdv(3, request(FIND))))
    for left in reversed(range(100)):
        connection.sendall(dataset_pdu(bytes(100_000), last=not left))
    assert read_command(connection)[STATUS] == struct.pack("<H", 0x0211)


def test_a_cancel_of_what_is_answered_is_passed_over(node: Callable[..., Node]) -> None:
    """C-CANCEL-RQ has no response (PS3.7 9.3.2.3); the next object is kept."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(
        pdu(pdv(3, encode({0x0100: struct.pack("<H", CANCEL), 0x0120: b"\7\0", 0x0800: b"\1\1"})))
    )
    connection.sendall(pdu(pdv(3, request(STORE)), pdv(2, b"data")))
    assert read_command(connection)[0x0100] == b"\1\x80"


def test_only_an_object_may_be_long(node: Callable[..., Node]) -> None:
    """The dataset of any other message that is served is held in memory, so a long one ends the association."""
    receiver = node(pace=Pace(message_size=1_000_000))
    receiver.listener.desk.services[N_ACTION] = lambda *_: Answer(b"")
    connection = raw(receiver)
    connection.sendall(pdu(pdv(3, request(N_ACTION))))
    with pytest.raises(OSError):
        for _ in range(200):
            connection.sendall(dataset_pdu(bytes(100_000)))
    connection.close()
    wait_for(receiver.idle, "the end")


@pytest.mark.parametrize(
    "broken",
    [
        pdu(pdv(3, request(STORE), context=3)),  # not accepted
        pdu(pdv(3, request(STORE)), pdv(0, b"half")) + RELEASE,
        pdu(pdv(3, request(STORE)), pdv(0, b"half")) + request_pdu(),
    ],
)
def test_what_may_not_come_now_ends_the_association(node: Callable[..., Node], broken: bytes) -> None:
    """A context that was not accepted, a release or another request within an object: A-ABORT, nothing kept."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(broken)
    assert read_pdu(connection)[0] == 7
    wait_for(receiver.idle, "the end")
    assert receiver.objects() == []
    assert all(end.aborted for end in receiver.ends())


@pytest.mark.parametrize(
    "broken",
    [
        pdu(pdv(3, request(STORE))),
        RELEASE,
        request_pdu()[:60] + b"\xff" * (len(request_pdu()) - 60),
        request_pdu().replace(
            struct.pack(">BBH", 0x40, 0, len(EXPLICIT)), struct.pack(">BBH", 0x41, 0, len(EXPLICIT))
        ),
    ],
)
def test_what_is_no_association_request_ends_the_connection(node: Callable[..., Node], broken: bytes) -> None:
    """Data or a release before it, and one that cannot be decoded or negotiated: A-ABORT, no place taken."""
    receiver = node()
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(broken)
        assert read_pdu(connection)[0] == 7
    wait_for(receiver.idle, "the end")
    assert receiver.listener.desk.census.total() == 0


def test_another_protocol_version_is_rejected(node: Callable[..., Node]) -> None:
    """Bit 0 of the version says that 1 is spoken (PS3.8 Table 9-11); without it: rejected, version not supported."""
    receiver = node()
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(request_pdu()[:6] + b"\0\2" + request_pdu()[8:])
        kind, body = read_pdu(connection)
    assert (kind, tuple(body[1:])) == (3, (1, 2, 2))
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(request_pdu()[:6] + b"\0\3" + request_pdu()[8:])
        assert read_pdu(connection)[0] == 2


# --- stopping ---------------------------------------------------------------------------------------------


def test_an_object_half_sent_when_the_receiver_stops_may_still_come(node: Callable[..., Node]) -> None:
    """What has begun is taken to its end, answered and kept; then the association is aborted."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(store_pdu(b"first, "))
    wait_for(lambda: bool(list(receiver.data.rglob("*.part"))), "the part")
    drain = threading.Thread(target=receiver.listener.drain, args=(10,))
    drain.start()
    time.sleep(0.3)
    assert drain.is_alive()
    connection.sendall(dataset_pdu(b"then the rest", last=True))
    assert read_command(connection)[STATUS] == b"\0\0"
    assert read_pdu(connection)[0] == 7
    drain.join(60)
    assert not drain.is_alive()
    assert [kept_dataset(path) for path in receiver.objects()] == [b"first, then the rest"]


def test_an_object_that_does_not_come_holds_nobody_back(node: Callable[..., Node]) -> None:
    """A sender that stops in mid-object is aborted when the patience ends, and leaves nothing."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(store_pdu(b"first, "))
    wait_for(lambda: bool(list(receiver.data.rglob("*.part"))), "the part")
    receiver.listener.drain(0.3)
    assert read_pdu(connection)[0] == 7
    assert receiver.idle()
    assert receiver.end().aborted


# --- memory -----------------------------------------------------------------------------------------------


def test_an_object_is_never_held_in_memory(process: Process) -> None:
    """600 MB in thousands of PDUs are kept whole, and the receiver has at no moment grown by 100 MB."""
    connection = socket.create_connection(("127.0.0.1", process.port))
    connection.sendall(request_pdu())
    assert read_pdu(connection)[0] == 2
    connection.sendall(pdu(pdv(3, request(STORE, 1)), pdv(2, b"small")))
    assert read_command(connection)[STATUS] == b"\0\0"
    before = process.memory("VmRSS")
    fragment = dataset_pdu(bytes(131_066))
    connection.sendall(pdu(pdv(3, request(STORE, 2))))
    connection.settimeout(60)
    for _ in range(4600):
        connection.sendall(fragment)
    connection.sendall(dataset_pdu(b"", last=True))
    connection.settimeout(60)
    assert read_command(connection)[STATUS] == b"\0\0"
    assert process.memory("VmHWM") - before < 100_000
    connection.close()
    *_, large = [record.path for record in records_after(process.data, 1, 0) if record.is_object]
    assert large.stat().st_size > 4600 * 131_066
    large.unlink()
