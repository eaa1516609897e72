"""Claims about the wire: DCMTK and pynetdicom as senders, raw PDUs for what polite ones never do."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from peers import need, wait_for
from pydicom.data import get_testdata_file
from pynetdicom.sop_class import CTImageStorage, Verification
from receive.receive_house import Node, associate, kept_dataset, node, send_bytes
from receive.scripted_peer import EXPLICIT, dataset_pdu, raw, read_command, read_pdu, request_pdu, store_pdu

from node.receive.limits import Pace
from node.store.files import Disk, read_arrival, records_after

__all__ = ["Node", "node"]

# --- what is kept -----------------------------------------------------------------------------------------

FILES = {
    "CT_small.dcm": "-xe",
    "MR_small_implicit.dcm": "-xi",
    "MR_small_bigendian.dcm": "-xb",
    "JPEG2000.dcm": "-xw",
    "MR_small_RLE.dcm": "-xr",
    "SC_rgb_jpeg_dcmtk.dcm": "-xy",
    "image_dfl.dcm": "-xd",
}


@pytest.mark.parametrize("name", FILES)
def test_what_dcmtk_sends_is_kept_byte_for_byte(node: Callable[..., Node], name: str) -> None:
    """Compressed, deflated and big endian datasets are kept as sent, in the transfer syntax they came in."""
    source = Path(str(get_testdata_file(name)))
    receiver = node()
    log: list[bytes] = []
    tap, wire = tapped(receiver.port, log)
    with tap:
        titles = ["-aet", "CT01", "-aec", "PACSNODE"]
        done = subprocess.run(
            [need("storescu"), FILES[name], *titles, "127.0.0.1", str(wire), str(source)],
            capture_output=True, text=True, check=False, env={**os.environ, "TCP_NODELAY": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        wait_for(receiver.idle, "the end")
    (path,) = receiver.objects()
    facts, _ = read_arrival(path)
    original = pydicom.dcmread(source)
    assert facts.sop_uid == original.SOPInstanceUID
    assert facts.transfer_syntax == original.file_meta.TransferSyntaxUID
    assert (facts.peer, facts.calling, facts.called) == ("CT01", "CT01", "PACSNODE")
    assert facts.address.startswith("127.0.0.1:")
    assert kept_dataset(path) == sent_dataset(b"".join(log))
    end = receiver.end()
    assert (end.objects, end.aborted, end.association) == (1, False, facts.association)


def tapped(port: int, log: list[bytes]) -> tuple[socket.socket, int]:
    """Listen on a port that passes one connection on to *port* and notes what the client sent."""
    listening = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, target: socket.socket, note: list[bytes] | None) -> None:
        while data := source.recv(65536):
            if note is not None:
                note.append(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        client, _ = listening.accept()
        server = socket.create_connection(("127.0.0.1", port))
        back = threading.Thread(target=carry, args=(server, client, None), daemon=True)
        back.start()
        carry(client, server, log)
        back.join(60)
        client.close()
        server.close()

    threading.Thread(target=serve, daemon=True).start()
    return listening, listening.getsockname()[1]


def sent_dataset(stream: bytes) -> bytes:
    """Return the dataset in a recorded stream of PDUs (PS3.8 9.3)."""
    found, offset = b"", 0
    while offset < len(stream):
        kind, _, length = struct.unpack_from(">BBI", stream, offset)
        body, offset = stream[offset + 6 : offset + 6 + length], offset + 6 + length
        while kind == 4 and body:
            size, _, control = struct.unpack_from(">IBB", body)
            found += body[6 : 4 + size] if not control & 1 else b""
            body = body[4 + size :]
    return found


@pytest.mark.parametrize(
    ("abstract", "transfer"),
    [
        ("1.2.826.0.1.3680043.9.9999.1", EXPLICIT),  # a private SOP class
        ("1.2.840.10008.5.1.4.1.1.999", EXPLICIT),  # a standard one from the future
        (CTImageStorage, "1.3.6.1.4.1.9590.1.1"),  # a private transfer syntax
        (CTImageStorage, "1.2.840.10008.1.2.4.205"),  # HTJ2K
    ],
)
def test_private_and_unknown_classes_and_syntaxes_are_kept_as_sent(
    node: Callable[..., Node], abstract: str, transfer: str
) -> None:
    """Whatever calls itself storage is taken, and its bytes are never looked at."""
    receiver = node()
    assoc = associate(receiver, abstract, transfer)
    garbage = bytes(range(256)) * 1200  # several PDUs, nothing DICOM about it
    assert send_bytes(assoc, "1.2.3", garbage, abstract) == 0x0000
    assoc.release()
    (path,) = receiver.objects()
    facts, _ = read_arrival(path)
    assert (facts.sop_class, facts.transfer_syntax) == (abstract, transfer)
    assert kept_dataset(path) == garbage


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")  # meant: illegal UIDs
@pytest.mark.filterwarnings("ignore:The value length .* exceeds:UserWarning")
@pytest.mark.parametrize("uid", ["../../../etc/passwd", "..", "1." + "2" * 90, "not a uid", "/", None])
def test_an_illegal_instance_uid_is_kept_and_never_becomes_a_name(
    node: Callable[..., Node], uid: str | None
) -> None:
    """Paths, 90 characters, letters and nothing at all are kept with success, inside the bucket."""
    receiver = node()
    assoc = associate(receiver, CTImageStorage, EXPLICIT)
    assert send_bytes(assoc, uid, b"\x08\x00\x60\x00CS\x02\x00CT") == 0x0000
    assoc.release()
    (path,) = receiver.objects()
    assert path == receiver.data / "objects" / "00000001" / "0000" / "00000001.dcm"
    assert read_arrival(path)[0].sop_uid == (uid or "")


def test_an_echo_is_answered_and_leaves_no_record(node: Callable[..., Node]) -> None:
    """C-ECHO works with DCMTK, and a monitor that asks every few seconds does not fill the disk."""
    receiver = node()
    command = [need("echoscu"), "-aet", "CT01", "-aec", "PACSNODE", "127.0.0.1", str(receiver.port)]
    assert subprocess.run(command, check=False).returncode == 0
    wait_for(receiver.idle, "the end")
    assert list(records_after(receiver.data, 1, 0)) == []


# --- who gets in ------------------------------------------------------------------------------------------


def rejection(node: Node, calling: str, called: str) -> tuple[int, ...]:
    """Ask to associate; the result, source and reason of the A-ASSOCIATE-RJ.

    By hand: a requestor of pynetdicom 3.0.4 takes an answer that comes at once for a failed connection.
    """
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(request_pdu(calling, called))
        kind, body = read_pdu(connection)
        assert kind == 3
        assert read_pdu(connection)[0] == 0  # and closes
        return tuple(body[1:])


@pytest.mark.parametrize(
    ("calling", "called", "numbers"),
    [
        ("CT01", "OTHER", (1, 1, 7)),
        ("STRANGER", "PACSNODE", (1, 1, 3)),
        ("FAR", "PACSNODE", (1, 1, 3)),
    ],
)
def test_the_wrong_title_or_address_is_rejected_on_the_wire(
    node: Callable[..., Node], calling: str, called: str, numbers: tuple[int, int, int]
) -> None:
    """The A-ASSOCIATE-RJ reaches the sender with result, source and reason of PS3.8 9.3.4."""
    receiver = node()
    assert rejection(receiver, calling, called) == numbers
    wait_for(receiver.idle, "the end")
    assert receiver.listener.desk.census.total() == 0


def test_the_limit_counts_associations_and_not_idle_connections(node: Callable[..., Node]) -> None:
    """With two allowed, three silent connections take no place, a third association is told to come again."""
    receiver = node(associations=2)
    silent = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(3)]
    first, second = (associate(receiver, Verification, EXPLICIT) for _ in range(2))
    assert first.is_established
    assert second.is_established
    assert rejection(receiver, "CT01", "PACSNODE") == (2, 3, 2)
    first.release()
    wait_for(lambda: receiver.listener.desk.census.total() == 1, "the place to be free")
    fourth = associate(receiver, Verification, EXPLICIT)
    assert fourth.is_established
    for assoc in (second, fourth):
        assoc.release()
    for connection in silent:
        connection.close()


# --- when the disk fails ----------------------------------------------------------------------------------


class FullDisk(Disk):
    """Has no room while told so."""

    full = True

    def write(self, fd: int, *data: bytes | bytearray | memoryview) -> None:
        """Write, or not."""
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(fd, *data)


def test_a_full_disk_is_answered_a700_and_recovers_by_itself(node: Callable[..., Node]) -> None:
    """ENOSPC refuses the object, leaves nothing, keeps the association, and the next object is kept."""
    disk = FullDisk("process")
    receiver = node(disk)
    assoc = associate(receiver, CTImageStorage, EXPLICIT)
    assert send_bytes(assoc, "1.2.3", b"data") == 0xA700
    assert not [p for p in receiver.data.rglob("*") if p.suffix]
    disk.full = False
    assert send_bytes(assoc, "1.2.3", b"data") == 0x0000
    assoc.release()
    wait_for(receiver.idle, "the end")
    assert (receiver.end().objects, len(receiver.objects())) == (1, 1)


def test_the_end_of_an_association_that_the_disk_refused_is_recorded_later(
    node: Callable[..., Node],
) -> None:
    """An owed end is written as soon as the disk takes it."""
    disk = FullDisk("process")
    receiver = node(disk)
    assoc = associate(receiver, CTImageStorage, EXPLICIT)
    assert send_bytes(assoc, "1.2.3", b"data") == 0xA700
    assoc.release()
    wait_for(receiver.idle, "the end")
    assert receiver.ends() == []
    disk.full = False
    receiver.listener.desk.settle()
    receiver.listener.desk.settle()
    assert receiver.end().objects == 0


def test_above_the_watermark_objects_are_refused(node: Callable[..., Node]) -> None:
    """`disk.refuse` answers 0xA700 before a byte is written."""
    receiver = node(refuse=0.0)
    assoc = associate(receiver, CTImageStorage, EXPLICIT)
    assert send_bytes(assoc, "1.2.3", b"data") == 0xA700
    assoc.release()
    assert receiver.objects() == []


def test_an_error_nobody_expected_is_answered_and_the_association_goes_on(node: Callable[..., Node]) -> None:
    """A fault of ours in one object is 0xC211 for that object, and leaves no part."""

    class BrokenDisk(Disk):
        broken = True

        def sync(self, fd: int) -> None:
            """Break once."""
            if self.broken:
                self.broken = False
                raise ZeroDivisionError
            super().sync(fd)

    receiver = node(BrokenDisk("process"))
    assoc = associate(receiver, CTImageStorage, EXPLICIT)
    assert send_bytes(assoc, "1.2.3", b"data") == 0xC211
    assert not list(receiver.data.rglob("*.part"))
    assert send_bytes(assoc, "1.2.4", b"data") == 0x0000
    assoc.release()


def test_a_store_without_a_dataset_is_answered(node: Callable[..., Node]) -> None:
    """A C-STORE-RQ that announces no dataset gets 0xC000, and nothing is kept."""
    receiver = node()
    connection = raw(receiver)
    body = store_pdu(b"")[6:]
    size = struct.unpack_from(">I", body)[0] + 4
    command = body[:size].replace(
        struct.pack("<HHIH", 0, 0x800, 2, 1), struct.pack("<HHIH", 0, 0x800, 2, 0x101)
    )
    connection.sendall(struct.pack(">BBI", 4, 0, size) + command)
    kind, answer = read_pdu(connection)
    assert kind == 4
    assert struct.pack("<HHIH", 0, 0x900, 2, 0xC000) in answer
    connection.close()
    assert receiver.objects() == []


# --- how it can end ---------------------------------------------------------------------------------------


def test_an_abort_is_recorded_once_with_what_was_stored_before_it(node: Callable[..., Node]) -> None:
    """A-ABORT after one object: one `.end`, aborted, one object; nothing half-written."""
    receiver = node()
    assoc = associate(receiver, CTImageStorage, EXPLICIT)
    assert send_bytes(assoc, "1.2.3", b"data") == 0x0000
    assoc.abort()
    end = receiver.end()
    assert (end.objects, end.aborted, end.peer) == (1, True, "CT01")
    wait_for(receiver.idle, "the end")
    assert len(receiver.ends()) == 1


@pytest.mark.parametrize("how", ["abort", "close", "reset"])
def test_an_object_that_never_ended_leaves_nothing(node: Callable[..., Node], how: str) -> None:
    """A-ABORT, FIN and RST in the middle of a dataset: no object, no part, no thread, no place taken."""
    receiver = node()
    connection = raw(receiver)
    connection.sendall(store_pdu(b"half"))
    if how == "abort":
        connection.sendall(struct.pack(">BBIBBBB", 7, 0, 4, 0, 0, 0, 0))
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    wait_for(receiver.idle, "the end")
    assert receiver.objects() == []
    assert receiver.listener.desk.census.total() == 0


@pytest.mark.parametrize(
    "pdu",
    [
        struct.pack(">BBI", 4, 0, 0xFFFFFFFF),
        struct.pack(">BBI", 4, 0, 131073) + bytes(20),
        struct.pack(">BBI", 5, 0, 5000),
        struct.pack(">BBI", 9, 0, 4) + bytes(4),
        struct.pack(">BBI", 4, 0, 6) + struct.pack(">IBB", 0xFFFFFFFC, 1, 3),
        struct.pack(">BBI", 4, 0, 8) + struct.pack(">IBB", 4, 1, 2) + b"xx",
        struct.pack(">BBIIBB", 4, 0, 16, 12, 1, 3) + struct.pack("<HHIH", 0, 0x100, 2, 1),
        struct.pack(">BBIIBB", 4, 0, 16, 12, 1, 3) + struct.pack("<HHIH", 0, 0x800, 2, 0x101),
    ],
)  # fmt: skip
def test_a_broken_pdu_is_answered_with_an_abort_at_once(node: Callable[..., Node], pdu: bytes) -> None:
    """Impossible lengths, unknown types, stray datasets and commands without fields: A-ABORT, and over."""
    receiver = node()
    connection = raw(receiver)
    before = time.monotonic()
    connection.sendall(pdu)
    assert read_pdu(connection)[0] in (7, 0)
    assert time.monotonic() - before < 10
    connection.close()
    wait_for(receiver.idle, "the end")
    assert associate(receiver, Verification, EXPLICIT).is_established


def test_an_announced_length_is_not_buffered(node: Callable[..., Node]) -> None:
    """4 GiB of A-ASSOCIATE-RQ from a stranger cost no memory and end at once."""
    receiver = node()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection = socket.create_connection(("127.0.0.1", receiver.port))
    with pytest.raises(OSError):
        connection.sendall(request_pdu(length=0xFFFFFFFF))
        for _ in range(640):
            connection.sendall(bytes(100_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024
    connection.close()
    wait_for(receiver.idle, "the end")


@pytest.mark.parametrize("sent", [b"", b"\1\0\0", b"\1\0\0\0\0\xff\0"])
def test_a_silent_peer_is_closed_by_a_deadline(node: Callable[..., Node], sent: bytes) -> None:
    """Nothing, half a header and half a PDU all end when their time is over."""
    receiver = node(pace=Pace(negotiate=0.5, pdu=0.5))
    connection = socket.create_connection(("127.0.0.1", receiver.port))
    connection.sendall(sent)
    connection.settimeout(10)
    while connection.recv(100):  # an A-ABORT may come first
        pass
    wait_for(receiver.idle, "the end")


def test_a_dripping_peer_is_closed_by_a_deadline(node: Callable[..., Node]) -> None:
    """One byte at a time within a PDU does not renew its time; others are served meanwhile."""
    receiver = node(pace=Pace(pdu=1.0))
    connection = raw(receiver)
    pdu = store_pdu(b"slow")
    with pytest.raises(OSError):
        for i in range(60):
            connection.sendall(pdu[i : i + 1])
            time.sleep(0.05)
            if i == 5:
                assert associate(receiver, Verification, EXPLICIT).is_established
    wait_for(lambda: len(receiver.listener.desk.sessions()) == 1, "the end")


def test_pipelined_objects_are_all_stored_and_held_back_by_tcp(node: Callable[..., Node]) -> None:
    """A sender that does not wait gets one answer for each object, in order; what is not read, TCP holds back."""

    class SlowDisk(Disk):
        open = threading.Event()

        def rename(self, source: Path, target: Path) -> None:
            """Wait until told to go on."""
            self.open.wait(60)
            super().rename(source, target)

    disk = SlowDisk("process")
    receiver = node(disk)
    connection = raw(receiver)
    bulk = bytes(100_000)
    one = store_pdu(bulk) + dataset_pdu(b"!!", last=True)
    connection.settimeout(1.0)
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            sent += connection.send((one * 400)[sent:])
    assert len(list(receiver.data.rglob("*.part"))) == 1
    disk.open.set()
    connection.settimeout(20)
    rest = threading.Thread(target=connection.sendall, args=((one * 400)[sent:],))
    rest.start()
    answers = [read_command(connection) for _ in range(400)]
    rest.join(60)
    assert [answer[0x0900] for answer in answers] == [b"\0\0"] * 400
    assert len(receiver.objects()) == 400
    assert {kept_dataset(path) for path in receiver.objects()} == {bulk + b"!!"}
    connection.sendall(struct.pack(">BBII", 5, 0, 4, 0))
    end = receiver.end()
    assert (end.objects, end.aborted) == (400, False)


# --- stopping ---------------------------------------------------------------------------------------------


def test_a_stopping_receiver_finishes_the_object_in_hand_and_aborts_the_rest(
    node: Callable[..., Node],
) -> None:
    """The C-STORE in hand is answered with success and kept, an idle association aborted; then it is over."""

    class SlowDisk(Disk):
        started = threading.Event()

        def rename(self, source: Path, target: Path) -> None:
            """Take a while."""
            self.started.set()
            time.sleep(0.5)
            super().rename(source, target)

    disk = SlowDisk("process")
    receiver = node(disk)
    idle, busy = (associate(receiver, CTImageStorage, EXPLICIT) for _ in range(2))
    statuses: list[int | None] = []
    sender = threading.Thread(target=lambda: statuses.append(send_bytes(busy, "1.2.3", b"data" * 100)))
    sender.start()
    disk.started.wait(60)
    receiver.listener.drain(10)
    sender.join(60)
    assert statuses == [0x0000]
    wait_for(lambda: idle.is_aborted and busy.is_aborted, "the aborts")
    assert len(receiver.objects()) == 1
    assert (receiver.end().objects, receiver.end().aborted) == (1, True)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", receiver.port), timeout=1)
