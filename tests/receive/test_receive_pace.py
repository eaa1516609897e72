"""Claims about senders that are slow, and about objects that are too long."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from peers import wait_for
from receive.receive_house import Node, Process, kept_dataset, node, process
from receive.scripted_peer import (
    FIND,
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

from node.receive.limits import Pace, Progress
from node.store.files import Disk

__all__ = ["node", "process"]

PACE = Pace(slow_after=60.0, slowest=1000.0)


@pytest.mark.parametrize(
    ("pdus", "slow"),
    [
        ([(0, 12), (30, 12), (59, 12)], False),  # nobody is judged before its time
        ([(0, 12), (30, 12), (61, 12)], True),
        ([(0, 40_000), (61, 21_000)], False),  # 61 kB in 61 s
        ([(0, 40_000), (61, 20_900)], True),
        ([(0, 10**6), (61, 12), (900, 12), (1001, 12)], True),  # what came fast at first is used up one day
        ([(0, 10**6), (61, 12), (900, 12)], False),
    ],
)
def test_a_message_is_slow_by_its_average(pdus: list[tuple[float, int]], slow: bool) -> None:
    """From `slow_after` on, the bytes since the message's second PDU must be `slowest` for each second."""
    progress = Progress(PACE)
    assert [progress.is_slow(size, 5000.0 + at) for at, size in pdus][-1] is slow


def test_the_next_message_begins_afresh() -> None:
    """Neither what one message brought nor what it took counts for the next."""
    progress = Progress(PACE)
    progress.is_slow(12, 0.0)
    assert progress.is_slow(12, 100.0)
    progress.restart()
    assert not progress.is_slow(12, 101.0)
    assert not progress.is_slow(12, 161.0)
    assert progress.is_slow(12, 161.5)


def test_a_pause_within_a_message_is_shorter_than_one_between_two(
    node: Callable[..., Node], capsys: pytest.CaptureFixture[str]
) -> None:
    """Half an object and silence: A-ABORT after `pdu` seconds; an association that only waits stays open."""
    receiver = node(pace=Pace(idle=60.0, pdu=0.5))
    waiting, halting = raw(receiver), raw(receiver)
    halting.sendall(store_pdu(b"half"))
    before = time.monotonic()
    assert read_pdu(halting)[0] == 7
    assert time.monotonic() - before < 30
    wait_for(lambda: len(receiver.listener.desk.sessions()) == 1, "the end")
    assert not list(receiver.data.rglob("*.part"))
    assert "peer_silent" in capsys.readouterr().out
    waiting.sendall(pdu(pdv(3, request(STORE)), pdv(2, b"data")))
    assert read_command(waiting)[STATUS] == b"\0\0"


def test_an_object_that_drips_is_aborted_and_leaves_nothing(
    node: Callable[..., Node], capsys: pytest.CaptureFixture[str]
) -> None:
    """Tiny PDUs, none of them late, do not hold a half-written object for ever; one line says so."""
    receiver = node(pace=Pace(pdu=5.0, slow_after=0.5))
    connection = raw(receiver)
    connection.sendall(store_pdu(b"drop"))
    with pytest.raises(OSError):
        for _ in range(400):
            connection.sendall(dataset_pdu(b"."))
            time.sleep(0.05)
    wait_for(receiver.idle, "the end")
    assert receiver.objects() == []
    said = [line for line in capsys.readouterr().out.splitlines() if "peer_slow" in line]
    assert len(said) == 1
    assert "less than 1000 bytes per second" in said[0]
    assert "127.0.0.1:" in said[0]


def test_a_command_that_drips_is_aborted_too(node: Callable[..., Node]) -> None:
    """A command set in one-byte fragments, ever so slowly, is a slow message as well."""
    receiver = node(pace=Pace(pdu=5.0, slow_after=0.5))
    connection = raw(receiver)
    with pytest.raises(OSError):
        for byte in (request(STORE) * 10)[:400]:
            connection.sendall(pdu(pdv(1, bytes([byte]))))
            time.sleep(0.05)
    wait_for(receiver.idle, "the end")


def test_a_slow_line_is_fast_enough(node: Callable[..., Node]) -> None:
    """An object in small PDUs that brings more than `slowest` is kept, however long it takes."""
    receiver = node(pace=Pace(pdu=5.0, slow_after=0.2, slowest=1000.0))
    connection = raw(receiver)
    connection.sendall(store_pdu(b""))
    for _ in range(20):
        time.sleep(0.05)
        connection.sendall(dataset_pdu(bytes(200)))
    connection.sendall(dataset_pdu(b"", last=True))
    assert read_command(connection)[STATUS] == b"\0\0"
    assert [kept_dataset(path) for path in receiver.objects()] == [bytes(4000)]


def test_a_disk_that_stalls_is_no_fault_of_the_sender(node: Callable[..., Node]) -> None:
    """What waited while our disk did nothing is read before anybody is judged."""

    class Stalling(Disk):
        stalled = threading.Event()

        def write(self, fd: int, *data: bytes | bytearray | memoryview) -> None:
            """Take a second over one fragment."""
            super().write(fd, *data)
            if bytes(data[-1]) == b"stall":
                self.stalled.set()
                time.sleep(1.0)

    disk = Stalling("process")
    receiver = node(disk, pace=Pace(slow_after=0.3))
    connection = raw(receiver)
    connection.sendall(store_pdu(b"") + dataset_pdu(b"first"))
    time.sleep(0.1)
    connection.sendall(dataset_pdu(b"stall"))
    assert disk.stalled.wait(60)
    connection.sendall(dataset_pdu(b"more") * 20 + dataset_pdu(b"", last=True))
    assert read_command(connection)[STATUS] == b"\0\0"
    assert [kept_dataset(path) for path in receiver.objects()] == [b"firststall" + b"more" * 20]


def test_a_peer_that_never_reads_its_answers_is_let_go(
    node: Callable[..., Node], capsys: pytest.CaptureFixture[str]
) -> None:
    """An answer that cannot be written for `pdu` seconds ends the association, and its place is free."""
    receiver = node(pace=Pace(pdu=1.0))
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", receiver.port))
    connection.sendall(request_pdu())
    assert read_pdu(connection)[0] == 2
    connection.settimeout(5)
    with contextlib.suppress(OSError):
        connection.sendall(pdu(*[pdv(3, request(FIND, dataset=False))] * 100) * 500)
    wait_for(receiver.idle, "the end")
    assert "peer_silent" in capsys.readouterr().out
    connection.close()


# --- objects that are too long ----------------------------------------------------------------------------


def store(connection: socket.socket, data: bytes, piece: int = 400) -> bytes:
    """Send one object in fragments; return the status."""
    connection.sendall(pdu(pdv(3, request(STORE))))
    for at in range(0, len(data), piece):
        connection.sendall(dataset_pdu(data[at : at + piece], last=at + piece >= len(data)))
    return read_command(connection)[STATUS]


def test_a_longer_object_is_refused_and_the_association_goes_on(
    node: Callable[..., Node], capsys: pytest.CaptureFixture[str]
) -> None:
    """One byte too many is A700 and one line; an object of exactly that size is kept, before and after."""
    receiver = node(pace=Pace(object_size=1000))
    connection = raw(receiver)
    fits, too_long = bytes(1000), bytes(1001)
    assert [store(connection, data) for data in (fits, too_long, fits)] == [b"\0\0", b"\0\xa7", b"\0\0"]
    assert [kept_dataset(path) for path in receiver.objects()] == [fits, fits]
    said = [line for line in capsys.readouterr().out.splitlines() if "store_refused" in line]
    assert len(said) == 1
    assert "longer than `limits.object_size`, 1000 bytes" in said[0]


def test_a_part_is_removed_as_soon_as_the_limit_is_passed(node: Callable[..., Node]) -> None:
    """An object without end takes no more of the disk than the limit: the rest of it is let pass."""
    receiver = node(pace=Pace(object_size=10_000))
    connection = raw(receiver)
    connection.sendall(store_pdu(bytes(9000)))
    wait_for(lambda: bool(list(receiver.data.rglob("*.part"))), "the part")
    connection.sendall(dataset_pdu(bytes(1001)))
    wait_for(lambda: not list(receiver.data.rglob("*.part")), "the part to be gone")
    for _ in range(100):
        connection.sendall(dataset_pdu(bytes(100_000)))
    assert not list(receiver.data.rglob("*.part"))
    connection.sendall(dataset_pdu(b"", last=True))
    assert read_command(connection)[STATUS] == b"\0\xa7"


@pytest.mark.parametrize("process", ["limits: {object_size: 1 MB, pdu: 1 s}"], indirect=True)
def test_the_site_file_says_how_long_and_how_late(process: Process) -> None:
    """`limits.object_size` and `limits.pdu` reach the receiver."""
    connection = raw(process)
    assert store(connection, bytes(10**6), 100_000) == b"\0\0"
    assert store(connection, bytes(10**6 + 1), 100_000) == b"\0\xa7"
    connection.sendall(store_pdu(b"half"))
    before = time.monotonic()
    assert read_pdu(connection)[0] == 7
    assert time.monotonic() - before < 30
    wait_for(lambda: not _parts(process.data), "nothing to be left")


def _parts(data: Path) -> list[Path]:
    return list(data.rglob("*.part"))
