"""Claims about what is hard within an association, about many at once, and about the end: part of the hard cases."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from peers import wait_for
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification
from receive.conversations import ABORT
from receive.receive_house import Node, Process, associate, kept_dataset, node, process, written
from receive.scripted_peer import (
    ECHO,
    EXPLICIT,
    ONE,
    RELEASE,
    STATUS,
    STORE,
    associate_pdu,
    dataset_pdu,
    pdu,
    pdv,
    raw,
    read_command,
    read_pdu,
    request,
    request_pdu,
    status_of_one,
    store_pdu,
)

from node.receive.limits import Pace
from node.store.files import read_arrival, records_after

__all__ = ["node", "process", "written"]

# --- PDUs and fragments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [1, 4])
def test_a_length_of_4_gib_is_aborted_and_not_buffered(process: Process, kind: int) -> None:
    """The receiver does not grow by 2 MB, whoever announces it, and A-ABORT comes at once."""
    status_of_one(raw(process))
    before = process.memory("VmHWM")
    connection = raw(process) if kind == 4 else socket.create_connection(("127.0.0.1", process.port))
    begun = time.monotonic()
    connection.sendall(struct.pack(">BBI", kind, 0, 0xFFFFFFFF))
    with contextlib.suppress(OSError):
        for _ in range(200):
            connection.sendall(bytes(100_000))
    assert read_pdu(connection)[0] in (7, 0)  # 0: a reset, for what was sent in vain
    assert time.monotonic() - begun < 20
    assert process.memory("VmHWM") - before < 2048


FRAGMENTS = {
    "of 0 bytes": struct.pack(">IBB", 0, 1, 3),
    "of 1 byte": struct.pack(">IBB", 1, 1, 3),
    "longer than the PDU": struct.pack(">IBB", 100, 1, 3) + b"short",
    "of nearly 4 GiB": struct.pack(">IBB", 0xFFFFFFFC, 1, 3) + bytes(10),
    "one without its header": pdv(1, request(STORE)) + b"\0\0\0\7\1",
    "data on another context": pdv(3, request(STORE)) + pdv(2, b"data", 3),
    "data on a context nobody proposed": pdv(3, request(STORE)) + pdv(2, b"data", 77),
    "a command on a context nobody proposed": pdv(3, request(STORE), 77) + pdv(2, b"data", 77),
    "data before its command": pdv(2, b"data"),
    "a command within a dataset": pdv(3, request(STORE)) + pdv(0, b"da") + pdv(3, request(STORE)),
    "more data behind the last": pdv(3, request(STORE)) + pdv(2, b"data") + pdv(2, b"more"),
    "none at all": b"",
    "a command of 70 kB": pdv(1, bytes(70_000)),
    "more than was announced": pdv(3, request(STORE)) + pdv(0, bytes(131_072)),
}
TWO_CONTEXTS = associate_pdu(((1, CTImageStorage, (EXPLICIT,)), (3, MRImageStorage, (EXPLICIT,))))


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments_that_cannot_be_end_in_an_abort(node: Callable[..., Node], name: str) -> None:
    """PS3.8 Annex E: A-ABORT; what was whole before is kept, nothing else; no thread and no place is left."""
    receiver = node()
    threads = threading.active_count()
    connection = raw(receiver, TWO_CONTEXTS)
    assert status_of_one(connection) == b"\0\0"
    body = FRAGMENTS[name]
    connection.sendall(struct.pack(">BBI", 4, 0, len(body)) + body)
    kind = read_pdu(connection)[0]
    whole = name == "more data behind the last"
    if whole:
        assert kind == 4
        kind = read_pdu(connection)[0]
    assert kind == 7
    connection.close()
    wait_for(receiver.idle, "the end")
    wait_for(lambda: threading.active_count() <= threads, "the thread to end")
    assert [kept_dataset(path) for path in receiver.objects()] == [b"data"] * (2 if whole else 1)
    assert receiver.listener.desk.census.total() == 0


@pytest.mark.parametrize(
    ("command", "answers"),
    [
        (request(STORE)[12:], {4}),  # no group length: nothing here needs it
        (struct.pack("<HHII", 0, 0, 4, 0xFFFFFFFF) + request(STORE)[12:], {4}),
        (request(STORE).replace(struct.pack("<HHIH", 0, 0x100, 2, 1), b""), {7}),
        (request(0xFFFF), {7}),
        (request(0x8030), {7}),
        (request(STORE)[:-9], {4, 7}),
        (bytes(40), {7}),
        (b"\xff" * 40, {7}),
    ],
)
def test_a_command_that_makes_no_sense_is_answered_or_aborted(
    node: Callable[..., Node], command: bytes, answers: set[int]
) -> None:
    """Without a field, of none that exists, with a wrong length: an answer or A-ABORT, and no thread is left."""
    receiver = node()
    threads = threading.active_count()
    connection = raw(receiver)
    connection.sendall(pdu(pdv(3, command), pdv(2, b"data")))
    assert read_pdu(connection)[0] in answers
    connection.close()
    wait_for(receiver.idle, "the end")
    wait_for(lambda: threading.active_count() <= threads, "the thread to end")


def test_tiny_fragments_are_stored_and_cost_no_more_than_their_number(node: Callable[..., Node]) -> None:
    """A command in three fragments, 100 000 bytes one by one, some of nothing between them: kept, within seconds."""
    receiver = node()
    connection = raw(receiver)
    command, data = request(STORE), bytes(range(256)) * 390
    connection.sendall(pdu(pdv(1, command[:20]), pdv(1, command[20:50])) + pdu(pdv(3, command[50:])))
    pieces = [pdv(0, data[at : at + 1]) + (pdv(0, b"") if at % 1000 == 0 else b"") for at in range(len(data))]
    before = time.process_time()
    for at in range(0, len(pieces), 10_000):
        connection.sendall(pdu(*pieces[at : at + 10_000]))
    connection.sendall(dataset_pdu(b"", last=True))
    assert read_command(connection)[STATUS] == b"\0\0"
    assert time.process_time() - before < 20
    assert [kept_dataset(path) for path in receiver.objects()] == [data]


def test_fragments_of_nothing_do_not_go_on_for_ever(node: Callable[..., Node]) -> None:
    """A message of empty fragments only, one after the other at full speed, is a fault of its sender."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(pdu(pdv(3, request(STORE)), pdv(0, b"da")))
    with pytest.raises(OSError):
        for _ in range(100):
            connection.sendall(pdu(*[pdv(0, b"")] * 20_000))
    wait_for(receiver.idle, "the end")
    assert receiver.objects() == []


@pytest.mark.parametrize("most", [0, 1, 6, 7, 8, 4096, 131_072, 0xFFFFFFFF])
def test_an_answer_fits_what_the_peer_takes(node: Callable[..., Node], most: int) -> None:
    """Fragments of one byte where there is room for no more; where there is room for none, any length is taken."""
    receiver = node()
    connection = raw(receiver, associate_pdu(most=most))
    connection.sendall(ONE)
    command, last = b"", False
    while not last:
        kind, body = read_pdu(connection)
        assert kind == 4
        assert len(body) <= most or most < 7
        last = bool(body[5] & 2)
        command += body[6:]
    assert struct.pack("<HHIH", 0, 0x0900, 2, 0) in command
    connection.sendall(RELEASE)
    assert read_pdu(connection)[0] == 6


# --- how it goes on, and ends -----------------------------------------------------------------------------


def test_an_object_of_a_move_is_kept_and_others_may_come_between(node: Callable[..., Node]) -> None:
    """Move Originator title and message are taken (PS3.7 9.1.1.1), and C-ECHO is answered in its turn."""
    receiver = node()
    connection = raw(
        receiver, associate_pdu(((1, CTImageStorage, (EXPLICIT,)), (3, Verification, (EXPLICIT,))))
    )
    moved = request(STORE, 9, further={0x1030: b"ELSEWHERE ", 0x1031: b"\5\0"})
    echo = request(ECHO, 10, dataset=False, further={0x0002: Verification.encode() + b"\0"})
    connection.sendall(pdu(pdv(3, moved), pdv(2, b"data")) + pdu(pdv(3, echo, 3)) + ONE)
    answers = [read_command(connection) for _ in range(3)]
    assert [answer[0x0100] for answer in answers] == [b"\1\x80", b"\x30\x80", b"\1\x80"]
    assert [answer[0x0120] for answer in answers] == [b"\x09\0", b"\x0a\0", b"\7\0"]
    assert {answer[STATUS] for answer in answers} == {b"\0\0"}
    assert len(receiver.objects()) == 2


@pytest.mark.parametrize("how", ["abort", "close", "reset"])
@pytest.mark.parametrize(
    "where", ["before its data", "in its first fragment", "in the middle", "before its last fragment"]
)
def test_an_object_cut_short_is_never_visible(node: Callable[..., Node], how: str, where: str) -> None:
    """Wherever it is cut, and however: the object before it is kept, nothing of it is, and the place is free."""
    receiver = node()
    connection = raw(receiver)
    assert status_of_one(connection) == b"\0\0"
    begin, more = pdu(pdv(3, request(STORE))), dataset_pdu(bytes(50_000))
    connection.sendall(
        {
            "before its data": begin,
            "in its first fragment": begin + more[:20_000],
            "in the middle": begin + more * 3 + more[:7],
            "before its last fragment": begin + more * 3,
        }[where]
    )
    if how == "abort" and where in ("before its data", "before its last fragment"):
        connection.sendall(ABORT)
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    wait_for(receiver.idle, "the end")
    assert [kept_dataset(path) for path in receiver.objects()] == [b"data"]
    assert (receiver.end().objects, receiver.end().aborted) == (1, True)
    assert receiver.listener.desk.census.total() == 0


def test_a_release_is_answered_once_and_behind_all_that_came_before(node: Callable[..., Node]) -> None:
    """Pipelined behind two objects it waits for them; what follows a release is not read any more."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(ONE + ONE + RELEASE + RELEASE + ONE)
    assert [read_pdu(connection)[0] for _ in range(3)] == [4, 4, 6]
    assert read_pdu(connection)[0] == 0
    wait_for(receiver.idle, "the end")
    assert (receiver.end().objects, receiver.end().aborted) == (2, False)


@pytest.mark.parametrize(
    "answer", [struct.pack(">BBII", 6, 0, 4, 0), request_pdu(), struct.pack(">BBII", 3, 0, 4, 0)]
)
def test_a_release_we_never_asked_for_is_an_abort(node: Callable[..., Node], answer: bytes) -> None:
    """We accept and never ask for release, so no two can cross (PS3.8 9.2, Sta9 to Sta12): an answer to nothing."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(answer)
    assert read_pdu(connection)[0] == 7
    wait_for(receiver.idle, "the end")


def hello() -> bytes:
    """Return a TLS ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    talking = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="pacs")
    with contextlib.suppress(ssl.SSLWantReadError):
        talking.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", b"SSH-2.0-x\r\n", hello(), b"\r\n\r\n\r\n"]
)
def test_another_protocol_is_closed_with_one_line(
    node: Callable[..., Node], written: io.StringIO, said: bytes
) -> None:
    """HTTP, SSH, TLS on the plain port: A-ABORT at once, one line that names the address, nothing of what was said."""
    receiver = node()
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        begun = time.monotonic()
        connection.sendall(said)
        assert read_pdu(connection)[0] == 7
        assert read_pdu(connection)[0] == 0
        assert time.monotonic() - begun < 20
    wait_for(receiver.idle, "the end")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["pdu_invalid"]
    assert lines[0]["address"].startswith("127.0.0.1:")
    assert "pacs" not in written.getvalue()


# --- many of them -----------------------------------------------------------------------------------------


def test_two_hundred_dripping_connections_hold_up_nobody(
    node: Callable[..., Node], table: Callable[[str, list[str]], None]
) -> None:
    """Half drip a request, half an object: all are ended by their deadline; meanwhile an echo is answered."""
    receiver = node(associations=150, pace=Pace(negotiate=3.0, pdu=3.0))
    dripping = []
    for number in range(200):
        source = (f"127.0.0.{2 + number % 4}", 0)
        connection = socket.create_connection(("127.0.0.1", receiver.port), source_address=source)
        if number % 2:
            connection.sendall(request_pdu())
            assert read_pdu(connection)[0] == 2
        dripping.append(connection)
    slow = [store_pdu(b"slow") if number % 2 else request_pdu() for number in range(200)]
    longest, begun = 0.0, time.monotonic()
    for at in range(40):
        for connection, said in zip(dripping, slow, strict=True):
            with contextlib.suppress(OSError):
                connection.sendall(said[at : at + 1])
        if at in (2, 6):
            asked = time.monotonic()
            assoc = associate(receiver, Verification, EXPLICIT)
            assert assoc.send_c_echo().Status == 0
            assoc.release()
            longest = max(longest, time.monotonic() - asked)
        if receiver.idle():
            break
        time.sleep(0.2)
    wait_for(receiver.idle, "the end of all of them")
    assert longest < 5
    table(
        "an echo while 200 connections drip",
        [f"{1000 * longest:.0f} ms", f"all ended {time.monotonic() - begun:.0f} s"],
    )
    assert receiver.objects() == []
    assert receiver.listener.desk.census.total() == 0
    for connection in dripping:
        connection.close()


@pytest.mark.parametrize("host", ["::1", "::"])
def test_over_ipv6_as_over_ipv4(node: Callable[..., Node], host: str) -> None:
    """IPv6 alone and both families on one socket: the address that is noted is the one that people write."""
    try:
        receiver = node(host=host)
    except OSError:
        pytest.skip("this machine has no IPv6")
    for address in ("::1", *(("127.0.0.1",) if host == "::" else ())):
        with socket.create_connection((address, receiver.port)) as connection:
            connection.sendall(request_pdu())
            assert read_pdu(connection)[0] == 2
            assert status_of_one(connection) == b"\0\0"
    noted = [read_arrival(path)[0].address.rpartition(":")[0] for path in receiver.objects()]
    assert noted == ["[::1]", "127.0.0.1"][: len(noted)]


# --- time, and the end ------------------------------------------------------------------------------------


def test_a_clock_that_jumps_ends_no_association(node: Callable[..., Node]) -> None:
    """An hour forth and two back between two fragments: nothing is late, and the time noted is what the clock said."""
    receiver = node(pace=Pace(idle=5.0, pdu=5.0, slow_after=5.0))
    now = [datetime(2026, 3, 29, 0, 59, tzinfo=UTC)]
    receiver.listener.desk.clock = lambda: now[0]
    connection = raw(receiver)
    for step in (timedelta(hours=1), timedelta(hours=-2), timedelta(hours=1)):
        connection.sendall(store_pdu(b"da"))
        wait_for(lambda: bool(list(receiver.data.rglob("*.part"))), "the part")
        now[0] += step
        connection.sendall(dataset_pdu(b"ta", last=True))
        assert read_command(connection)[STATUS] == b"\0\0"
    connection.sendall(RELEASE)
    assert read_pdu(connection)[0] == 6
    assert (receiver.end().objects, receiver.end().aborted) == (3, False)
    hours = [read_arrival(path)[0].received_at.hour for path in receiver.objects()]
    assert hours == [0, 1, 23]


def test_a_stop_under_load_loses_nothing_that_was_acknowledged(process: Process) -> None:
    """SIGTERM while four peers send as fast as they can: what was answered is kept, and it is over in seconds."""
    acknowledged, lock = [0], threading.Lock()

    def send() -> None:
        connection = raw(process)
        with contextlib.suppress(OSError, AssertionError):
            while True:
                connection.sendall(pdu(pdv(3, request(STORE))) + dataset_pdu(bytes(100_000), last=True))
                if read_command(connection)[STATUS] == b"\0\0":
                    with lock:
                        acknowledged[0] += 1

    senders = [threading.Thread(target=send, daemon=True) for _ in range(4)]
    for sender in senders:
        sender.start()
    wait_for(lambda: acknowledged[0] > 50, "some objects")
    begun = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    for sender in senders:
        sender.join(60)
    assert not any(sender.is_alive() for sender in senders)
    assert time.monotonic() - begun < 15
    records = list(records_after(process.data, 1, 0))
    kept = [record for record in records if record.is_object]
    assert acknowledged[0] <= len(kept) <= acknowledged[0] + 4
    assert all(kept_dataset(record.path) == bytes(100_000) for record in kept)
    wait_for(lambda: not list(process.data.rglob("*.part")), "the last of it to be given up")


def test_a_second_sigterm_changes_nothing(process: Process) -> None:
    """While an object is still coming, the first signal lets it come and more of them do not cut it short."""
    connection = raw(process)
    connection.sendall(store_pdu(b"first, "))
    wait_for(lambda: bool(list(process.data.rglob("*.part"))), "the part")
    for _ in range(5):
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.2)
    connection.sendall(dataset_pdu(b"then the rest", last=True))
    assert read_command(connection)[STATUS] == b"\0\0"
    (record,) = [record for record in records_after(process.data, 1, 0) if record.is_object]
    assert kept_dataset(record.path) == b"first, then the rest"
