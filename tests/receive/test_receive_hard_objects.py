"""Claims about objects that are hard to take: whatever a dataset is, it is kept byte for byte and never looked at."""

from __future__ import annotations

import shutil
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable

import pydicom
import pytest
from pynetdicom.sop_class import CTImageStorage
from receive.receive_house import Node, Process, kept_dataset, node, process
from receive.scripted_peer import (
    EXPLICIT,
    STATUS,
    STORE,
    accepted,
    associate_pdu,
    dataset_pdu,
    pdu,
    pdv,
    raw,
    read_command,
    read_pdu,
    request,
)

from node.store.files import read_arrival

__all__ = ["node", "process"]

IMPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
LIMIT = 200_000
"""Kilobytes that a receiver may take at most."""


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Encode one element, Explicit VR Little Endian; *length* may lie."""
    size = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    long = vr in (b"OB", b"OW", b"OV", b"SQ", b"UN", b"UT")
    return head + (b"\0\0" + struct.pack("<I", size) if long else struct.pack("<H", size)) + value


def uid(tag: int, value: bytes) -> bytes:
    """Encode a UID."""
    return element(tag, b"UI", value + b"\0" * (len(value) % 2))


IDENTITY = uid(0x0008_0016, CTImageStorage.encode()) + uid(0x0008_0018, b"1.2.3")
SERIES = uid(0x0020_000D, b"1.2") + uid(0x0020_000E, b"1.2.1")
TINY = element(0x0028_0002, b"US", b"\1\0") + element(0x7FE0_0010, b"OW", b"\1\2")


def store(connection: socket.socket, dataset: bytes, sop_uid: bytes = b"1.2.3\0", context: int = 1) -> bytes:
    """Send one object; return the status."""
    connection.sendall(pdu(pdv(3, request(STORE, uid=sop_uid), context)))
    for at in range(0, max(1, len(dataset)), 100_000):
        piece = dataset[at : at + 100_000]
        connection.sendall(pdu(pdv(2 if at + 100_000 >= len(dataset) else 0, piece, context)))
    return read_command(connection)[STATUS]


# --- what it says of itself -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")  # meant: illegal UIDs
@pytest.mark.parametrize(
    "sop_uid",
    [
        b"..", b"../../x", b"/etc/x\0", b"1.02.003\0", b"1.2.3\0\0\0", b"1.2.3 ", b"", b"abc\0", b"1." + b"9" * 80,
        b"1.2\0.3", b"%s", b"$(id)", b"\xff\xfe",
    ],
)  # fmt: skip
def test_uids_are_kept_as_sent(node: Callable[..., Node], sop_uid: bytes) -> None:
    """Paths, padding of any kind, leading zeros, 82 characters, none: a name of ours, and the UID in the file meta."""
    receiver = node()
    connection = raw(receiver)
    assert store(connection, IDENTITY + SERIES + TINY, sop_uid) == b"\0\0"
    (path,) = receiver.objects()
    assert path == receiver.data / "objects" / "00000001" / "0000" / "00000001.dcm"
    assert read_arrival(path)[0].sop_uid == sop_uid.decode("latin-1").rstrip("\0 ")
    assert kept_dataset(path) == IDENTITY + SERIES + TINY
    assert pydicom.dcmread(path).PixelData == b"\1\2"


def test_an_object_that_contradicts_its_command_is_kept(node: Callable[..., Node]) -> None:
    """Other UIDs in the dataset than in the command: success, both are there, and whoever reads it says so."""
    receiver = node()
    dataset = uid(0x0008_0016, b"1.2.840.10008.5.1.4.1.1.4") + uid(0x0008_0018, b"9.9.9") + SERIES
    assert store(raw(receiver), dataset) == b"\0\0"
    (path,) = receiver.objects()
    assert (read_arrival(path)[0].sop_uid, read_arrival(path)[0].sop_class) == ("1.2.3", CTImageStorage)
    assert pydicom.dcmread(path).SOPInstanceUID == "9.9.9"


@pytest.mark.parametrize(
    "dataset", [TINY, IDENTITY, SERIES, IDENTITY + uid(0x0020_000D, b"1.2"), b"\0", b"no DICOM"]
)
def test_an_object_without_identity_is_kept(node: Callable[..., Node], dataset: bytes) -> None:
    """Without study, series or instance UID, or no dataset at all by its looks: kept; grouping is not reception's."""
    receiver = node()
    assert store(raw(receiver), dataset) == b"\0\0"
    assert [kept_dataset(path) for path in receiver.objects()] == [dataset]


# --- how it is encoded ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
        "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.203", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.100",
        "1.2.840.10008.1.2.4.103", "1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.112",
        "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.7.1", BIG_ENDIAN, DEFLATED,
    ],
)  # fmt: skip
def test_encapsulated_objects_are_taken_without_transcoding(node: Callable[..., Node], syntax: str) -> None:
    """JPEG, JPEG-LS, JPEG 2000, HTJ2K, RLE, MPEG, JPEG XL, deflated frames, SMPTE: as sent, and named so."""
    receiver = node()
    connection = raw(receiver, associate_pdu(((1, CTImageStorage, (syntax,)),)))
    frame = (
        struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"\xff\xd8\xff\xd9" + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )
    dataset = IDENTITY + SERIES + element(0x7FE0_0010, b"OB", frame, length=0xFFFFFFFF)
    assert store(connection, dataset) == b"\0\0"
    (path,) = receiver.objects()
    assert kept_dataset(path) == dataset
    assert read_arrival(path)[0].transfer_syntax == syntax


def test_the_syntax_that_was_chosen_is_recorded(node: Callable[..., Node]) -> None:
    """Of three in one context the first is chosen; of three contexts each object has that of its own."""
    receiver = node()
    three = (DEFLATED, EXPLICIT, IMPLICIT)
    asked = associate_pdu(
        [(1, CTImageStorage, three), *((3 + 2 * i, CTImageStorage, (s,)) for i, s in enumerate(three))]
    )
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(asked)
        _, body = read_pdu(connection)
        assert accepted(body) == {1: (0, DEFLATED), 3: (0, DEFLATED), 5: (0, EXPLICIT), 7: (0, IMPLICIT)}
        for context in (1, 3, 5, 7):
            assert store(connection, b"data", context=context) == b"\0\0"
    noted = [read_arrival(path)[0].transfer_syntax for path in receiver.objects()]
    assert noted == [DEFLATED, DEFLATED, EXPLICIT, IMPLICIT]


def bomb() -> bytes:
    """Return 4 MB that inflate to 4 GB: one block of zeros, flushed, over and over."""
    deflating = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = deflating.compress(bytes(1 << 24)) + deflating.flush(zlib.Z_FULL_FLUSH)
    again = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = again.compress(bytes(1 << 24)) + again.flush(zlib.Z_FULL_FLUSH)
    return first + block * 255 + b"\x03\0"


def test_a_bomb_is_kept_as_small_as_it_is(process: Process) -> None:
    """4 MB that would inflate to 4 GB are stored raw, and nothing inflates them here."""
    explosive = bomb()
    assert len(explosive) < 5_000_000
    assert len(zlib.decompressobj(-15).decompress(explosive, 10_000_000)) == 10_000_000
    connection = raw(process, associate_pdu(((1, CTImageStorage, (DEFLATED,)),)))
    assert store(connection, b"small") == b"\0\0"
    before = process.memory("VmHWM")
    assert store(connection, explosive) == b"\0\0"
    assert process.memory("VmHWM") - before < 20_000
    assert kept_dataset(process.data / "objects/00000001/0000/00000002.dcm") == explosive


def sequences(depth: int) -> bytes:
    """Return nested sequences of undefined length."""
    begin = element(0x0040_A730, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF), length=0xFFFFFFFF)
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return begin * depth + end * depth


ODD = {
    "group lengths": element(0x0008_0000, b"UL", b"\x10\0\0\0")
    + IDENTITY
    + element(0x0020_0000, b"UL", bytes(4)),
    "file meta within": element(0x0002_0010, b"UI", b"1.2\0") + IDENTITY,
    "values of odd length": IDENTITY
    + element(0x0010_0010, b"PN", b"ABC")
    + element(0x0010_0020, b"LO", b"1"),
    "an unknown VR": IDENTITY + element(0x0010_0010, b"??", b"ABCD") + element(0x0011_0010, b"UN", b"x"),
    "tags out of order": SERIES + TINY + IDENTITY,
    "trailing padding": IDENTITY + SERIES + element(0xFFFC_FFFC, b"OB", bytes(126)),
    "a lying length": IDENTITY + element(0x0010_0010, b"PN", b"AB", length=0xFFFF),
    "no end": IDENTITY + element(0x7FE0_0010, b"OB", b"\0", length=0xFFFFFFFF),
    "no pixels": IDENTITY + SERIES,
    "tags behind the pixels": IDENTITY + TINY + element(0xFFFA_FFFA, b"SQ", b""),
    "64 sequences in each other": IDENTITY + sequences(64),
    "10 000 sequences in each other": IDENTITY + sequences(10_000),
    "sequences without end": IDENTITY + sequences(500)[: 500 * 20],
}


@pytest.mark.parametrize("name", ODD)
def test_odd_datasets_are_kept_byte_for_byte(node: Callable[..., Node], name: str) -> None:
    """Reception reads no dataset, so none can harm it; what it holds is there for those who read."""
    receiver = node()
    connection = raw(receiver)
    assert store(connection, ODD[name]) == b"\0\0"
    assert store(connection, TINY) == b"\0\0"
    assert [kept_dataset(path) for path in receiver.objects()] == [ODD[name], TINY]


# --- at once, and very long -------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False])
def test_one_object_from_two_peers_at_once_is_kept_twice_and_whole(
    node: Callable[..., Node], same: bool
) -> None:
    """Fragment by fragment in turns, under one UID: both are answered with success, neither file is torn.

    Which of them counts is decided later, in one place: by whoever indexes.
    """
    receiver = node()
    two = [raw(receiver) for _ in range(2)]
    contents = [bytes([1]) * 150_000, bytes([1 if same else 2]) * 150_000]
    for connection in two:
        connection.sendall(pdu(pdv(3, request(STORE))))
    for at in range(0, 150_000, 10_000):
        for connection, content in zip(two, contents, strict=True):
            connection.sendall(dataset_pdu(content[at : at + 10_000], last=at + 10_000 == 150_000))
    assert [read_command(connection)[STATUS] for connection in two] == [b"\0\0", b"\0\0"]
    assert sorted(kept_dataset(path) for path in receiver.objects()) == sorted(contents)
    assert {read_arrival(path)[0].sop_uid for path in receiver.objects()} == {"1.2.3"}


def test_hundreds_of_the_same_object_at_once(node: Callable[..., Node]) -> None:
    """Six peers send one UID again and again: every success is a file of its own, and none is torn."""
    receiver = node()
    statuses: list[bytes] = []

    def send(number: int) -> None:
        connection = raw(receiver)
        for _ in range(40):
            statuses.append(store(connection, bytes([number]) * 30_000))

    senders = [threading.Thread(target=send, args=(number,)) for number in range(6)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(60)
    assert statuses == [b"\0\0"] * 240
    kept = [kept_dataset(path) for path in receiver.objects()]
    assert sorted(kept) == sorted(bytes([number]) * 30_000 for number in range(6) for _ in range(40))


@pytest.mark.long
def test_five_gigabytes_are_never_held_in_memory(
    process: Process, table: Callable[[str, list[str]], None]
) -> None:
    """A multi-frame object longer than 32 bits can count is kept whole, in less than 200 MB of memory."""
    frames, size = 4_800, 1 << 20
    if shutil.disk_usage(process.data).free < 3 * frames * size:
        pytest.skip("the disk has no room for 5 GB, and as much again")
    offsets = b"".join(struct.pack("<Q", i * (size + 8)) for i in range(frames))
    head = IDENTITY + SERIES + element(0x7FE0_0001, b"OV", offsets)
    head += element(0x7FE0_0010, b"OB", struct.pack("<HHI", 0xFFFE, 0xE000, 0), length=0xFFFFFFFF)
    connection = raw(process)
    connection.settimeout(120)
    connection.sendall(pdu(pdv(3, request(STORE))) + dataset_pdu(head))
    piece, begun = bytes(131_066), time.monotonic()
    sent = len(head)
    frame = struct.pack("<HHI", 0xFFFE, 0xE000, size) + bytes(size)
    pdus = [frame[at : at + len(piece)] for at in range(0, len(frame), len(piece))]
    packed = b"".join(dataset_pdu(part) for part in pdus)
    for _ in range(frames):
        connection.sendall(packed)
        sent += len(frame)
    connection.sendall(dataset_pdu(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), last=True))
    sent += 8
    kind = read_pdu_patiently(connection)
    seconds = time.monotonic() - begun
    peak = process.memory("VmHWM")
    path = process.data / "objects/00000001/0000/00000001.dcm"
    offset = read_arrival(path)[1]
    length = path.stat().st_size - offset
    with path.open("rb") as file:
        file.seek(offset + sent - 8 - len(frame))
        tail = file.read()
    path.unlink()
    assert kind == 4
    assert length == sent > 1 << 32
    assert tail == frame + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert peak < LIMIT
    table(
        "an object of 5 GB",
        [f"{sent / 1e9:.2f} GB in {seconds:.0f} s", f"receiver's peak {peak / 1000:.0f} MB"],
    )


def read_pdu_patiently(connection: socket.socket) -> int:
    """Return the type of the next PDU, however long the disk takes."""
    connection.settimeout(120)
    return connection.recv(1)[0]
