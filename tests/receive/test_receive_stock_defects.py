"""Claims about attacks that pynetdicom alone does not withstand, and this receiver does: each is made on both.

Where a test finds the stock one well, pynetdicom has mended it: then the node may have less to do.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from peers import wait_for
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification
from receive.receive_house import Node, Process, node, process
from receive.scripted_peer import (
    EXPLICIT,
    STATUS,
    STORE,
    Reachable,
    associate_pdu,
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
from send.sending_peers import Reports, Wire, make_items, scripted
from test_receive_tls import Making as SecureMaking
from tls_material import LOOPBACK, Papers, trusting

from node.receive.limits import Pace
from node.send.scu import send_objects
from node.store.files import Disk

__all__ = ["node", "process"]

PROGRAM = Path(__file__).with_name("stock_peer.py")
CONTEXTS = (
    (1, CTImageStorage, (EXPLICIT,)),
    (3, MRImageStorage, (EXPLICIT,)),
    (5, Verification, (EXPLICIT,)),
)

pytestmark = pytest.mark.long


@dataclass
class Stock:
    """pynetdicom's own receiver in a process of its own."""

    pid: int
    port: int

    def _status(self, line: str) -> int:
        found = re.search(rf"{line}:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text("ascii"))
        assert found
        return int(found[1])

    @property
    def kilobytes(self) -> int:
        """Memory in use now."""
        return self._status("VmRSS")

    @property
    def threads(self) -> int:
        """Threads that it has now."""
        return self._status("Threads")


@contextlib.contextmanager
def stock_receiver(*pair: Path) -> Iterator[Stock]:
    """Run it with timeouts of a second, by TLS with a certificate and its key."""
    command = [sys.executable, str(PROGRAM), "scp", "1", *map(str, pair)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout
        yield Stock(running.pid, int(running.stdout.readline()))
        running.kill()


@pytest.fixture
def stock() -> Iterator[Stock]:
    """Run it without TLS."""
    with stock_receiver() as running:
        yield running


def ends(connection: socket.socket, seconds: float) -> bool:
    """Whether the peer closes the connection within *seconds*, with or without a last word."""
    connection.settimeout(seconds)
    end = time.monotonic() + seconds
    try:
        while connection.recv(65536):
            if time.monotonic() > end:
                return False
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_a_peer_that_stops_in_the_middle(stock: Stock, node: Callable[..., Node]) -> None:
    """Stock: timeouts of one second fire, yet the threads are held for as long as the peer likes; here: closed."""
    ours = node(pace=Pace(negotiate=1.0, pdu=1.0))

    def stop(receiver: Reachable) -> list[socket.socket]:
        """One stops in the header of its request, one in an object."""
        header = socket.create_connection(("127.0.0.1", receiver.port))
        header.sendall(b"\1\0\0")
        within = raw(receiver)
        within.sendall(store_pdu(b"half") + dataset_pdu(bytes(1000))[:500])
        return [header, within]

    base = stock.threads
    held, freed = stop(stock), stop(ours)
    assert all(ends(connection, 4) for connection in freed)
    wait_for(ours.idle, "the end")
    time.sleep(2)
    assert not any(ends(connection, 0.2) for connection in held)
    assert stock.threads >= base + 4  # two of each association
    for connection in held:
        connection.close()


def test_a_peer_that_stops_reading(tmp_path: Path) -> None:
    """Stock: `send_c_store` never comes back, timeouts or not; our sender gives up in its time."""
    (item,) = make_items(tmp_path, 1, size=30_000_000)

    over = threading.Event()

    def stop(wire: Wire) -> None:
        wire.accept()
        over.wait(60)

    with scripted(stop) as pacs:
        begun = time.monotonic()
        assert send_objects(pacs, [item], Reports().append) is not None
        assert time.monotonic() - begun < 30
        over.set()
    over.clear()
    with scripted(stop) as pacs:
        command = [sys.executable, str(PROGRAM), "scu", str(pacs.port), str(item.path), "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as sending:
            assert sending.stdout
            assert sending.stdout.readline() == b"associated\n"
            came_back = select.select([sending.stdout], [], [], 4)[0]  # its timeouts are of one second
            sending.kill()
        over.set()
        assert not came_back


@pytest.mark.usefixtures("node")  # puts back what a receiver switches
def test_a_client_that_never_begins_its_handshake(tmp_path: Path) -> None:
    """Stock: one idle connection to the TLS port and nobody else gets in; here others shake hands at once."""
    papers = Papers(tmp_path / "tls")
    pair, shown = papers.pair("node", *LOOPBACK), papers.pair("ct01")
    context = trusting(papers.ca.certificate, shown)

    def shakes_hands(port: int, seconds: float) -> bool:
        idle = socket.create_connection(("127.0.0.1", port))
        time.sleep(0.5)
        with idle, socket.create_connection(("127.0.0.1", port), timeout=seconds) as plain:
            try:
                context.wrap_socket(plain, server_hostname="localhost").close()
            except TimeoutError:
                return False
        return True

    making = SecureMaking(tmp_path, papers)
    ours = making()
    with stock_receiver(pair.certificate, pair.key) as theirs:
        with socket.create_connection(("127.0.0.1", theirs.port), timeout=30) as plain:
            context.wrap_socket(plain, server_hostname="localhost").close()  # alone it gets in
        assert [shakes_hands(theirs.port, 3), shakes_hands(ours.port, 30)] == [False, True]
    ours.listener.drain(0.1)


def test_a_length_nobody_means(stock: Stock, process: Process) -> None:
    """Stock: 40 MB of a request of 4 GiB, from anybody, are kept in memory; here: A-ABORT, and nothing grows."""

    def announce(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            connection.sendall(request_pdu(length=0xFFFFFFFF))
            for _ in range(400):
                connection.sendall(bytes(100_000))
            wait_for(lambda: stock.kilobytes - before > 30_000, "stock to have taken it")

    raw(process).close()
    before, ours = stock.kilobytes, process.memory("VmHWM")
    announce(stock.port)
    assert stock.kilobytes - before > 30_000
    announce_to_us = socket.create_connection(("127.0.0.1", process.port))
    announce_to_us.sendall(request_pdu(length=0xFFFFFFFF))
    with contextlib.suppress(OSError):
        for _ in range(400):
            announce_to_us.sendall(bytes(100_000))
    assert ends(announce_to_us, 5)
    assert process.memory("VmHWM") - ours < 2048


def test_a_pdu_longer_than_was_announced(stock: Stock, node: Callable[..., Node]) -> None:
    """Stock announces a maximum and does not keep to it; here it is the end of the association."""
    long = pdu(pdv(3, request(STORE)), pdv(2, bytes(400_000)))
    theirs, ours = raw(stock, associate_pdu(CONTEXTS)), raw(node(), associate_pdu(CONTEXTS))
    theirs.sendall(long)
    assert read_command(theirs)[STATUS] == b"\0\0"
    with contextlib.suppress(OSError):
        ours.sendall(long)
    assert read_pdu(ours)[0] in (7, 0)


def test_connections_that_say_nothing(stock: Stock, node: Callable[..., Node]) -> None:
    """Stock: three idle sockets take the two places there are, a real peer is rejected; here they take none."""
    ours = node(associations=2)
    answers = []
    for receiver in (stock, ours):
        silent = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(3)]
        time.sleep(0.3)
        with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
            connection.sendall(associate_pdu(CONTEXTS))
            answers.append(read_pdu(connection)[0])
        for connection in silent:
            connection.close()
    assert answers == [3, 2]


def test_data_on_another_context(stock: Stock, node: Callable[..., Node]) -> None:
    """Stock: an object whose data come on the context of another class is taken; here: A-ABORT, nothing kept."""
    ours = node()
    mixed = pdu(pdv(3, request(STORE), 1), pdv(2, b"data", 3))
    theirs, connection = raw(stock, associate_pdu(CONTEXTS)), raw(ours, associate_pdu(CONTEXTS))
    theirs.sendall(mixed)
    assert read_command(theirs)[STATUS] == b"\0\0"
    connection.sendall(mixed)
    assert read_pdu(connection)[0] == 7
    wait_for(ours.idle, "the end")
    assert ours.objects() == []


def test_a_command_that_is_none(stock: Stock, node: Callable[..., Node]) -> None:
    """Stock: its thread dies and the connection is closed, or held, without A-ABORT; here A-ABORT says it."""
    nonsense = pdu(pdv(3, b"\0\0\2\0\xff\xff\xff\xff" + b"\xff" * 40))
    theirs, ours = raw(stock, associate_pdu(CONTEXTS)), raw(node(), associate_pdu(CONTEXTS))
    for connection in (theirs, ours):
        connection.sendall(nonsense)
    theirs.settimeout(3)
    try:
        said = theirs.recv(1)
    except OSError:
        said = b""
    assert said == b""
    assert read_pdu(ours)[0] == 7


@pytest.mark.parametrize("most", [1, 6])
def test_a_peer_that_takes_nothing(stock: Stock, node: Callable[..., Node], most: int) -> None:
    """Stock accepts a maximum in which no fragment fits and fails at the first answer; here it is answered."""
    asked = associate_pdu(CONTEXTS, most=most)
    theirs, ours = raw(stock, asked), raw(node(), asked)
    for connection in (theirs, ours):
        connection.sendall(pdu(pdv(3, request(STORE)), pdv(2, b"data")))
    assert read_pdu(theirs)[0] in (7, 0)
    assert read_command(ours)[STATUS] == b"\0\0"


def test_a_sender_that_does_not_wait(stock: Stock, node: Callable[..., Node]) -> None:
    """Stock: objects that are not answered yet pile up in memory; here TCP holds the sender back."""

    class SlowDisk(Disk):
        def rename(self, source: Path, target: Path) -> None:
            """Take as long as stock's handler does."""
            time.sleep(0.2)
            super().rename(source, target)

    ours = node(SlowDisk("process"))
    one = pdu(pdv(3, request(STORE))) + b"".join(
        dataset_pdu(bytes(16_000), last=not left) for left in reversed(range(62))
    )

    def pour(receiver: Reachable) -> int:
        """Send a megabyte at a time for 3 s; the megabytes that were taken."""
        connection = raw(receiver, associate_pdu(CONTEXTS))
        reading = threading.Thread(target=_read_on, args=(connection.dup(),), daemon=True)
        reading.start()
        connection.settimeout(1.0)
        taken, end = 0, time.monotonic() + 3
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < end:
                connection.sendall(one)
                taken += 1
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        return taken

    before = stock.kilobytes
    taken = pour(stock)
    assert stock.kilobytes - before > 30_000, taken
    assert taken > 50
    assert pour(ours) < 40  # five each second, and what the kernel's buffers hold


def _read_on(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            pass
