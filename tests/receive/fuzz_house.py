"""A receiver that is told one conversation after another, and a second opinion on what it must make of each."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from receive.receive_house import Making, Node, kept_dataset

from node.model import AssociationEnd
from node.receive.commitment import Speakers
from node.receive.limits import Pace
from node.store.files import Disk, read_end, records_after

LONGEST = 150_000
"""Bytes of a conversation: it must fit into the kernel's buffer, since nobody reads while it is written."""
MOST_SECONDS = 10.0
_OBJECT_SIZE, _MESSAGE_SIZE = 60_000, 30_000


class Cut(socket.socket):
    """The receiver's end of a pair: reads at most so many bytes at a time, and notes what is sent."""

    cuts: Iterator[int] = iter(())
    answers: bytearray

    def recv_into(self, buffer: Any, *_: Any) -> int:  # type: ignore[override]
        """Receive what is there, but not more than the next cut."""
        return super().recv_into(buffer[: next(self.cuts)])

    def sendall(self, data: Any, *_: Any) -> None:  # type: ignore[override]
        """Note it: the peer reads everything at once."""
        self.answers += data

    def setsockopt(self, level: int, *rest: Any) -> None:  # type: ignore[override]
        """Set an option, unless it is one that only TCP has."""
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *rest)

    def getsockname(self) -> tuple[str, int]:
        """Return the address a TCP socket would have."""
        return "127.0.0.1", 104


class Scarce(Disk):
    """A disk with so much room, for each conversation anew."""

    room = 1 << 40

    def write(self, fd: int, *data: bytes | bytearray | memoryview) -> None:
        """Write what there is room for."""
        self.room -= sum(map(len, data))
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(fd, *data)


@dataclass
class Heard:
    """What became of one conversation."""

    answers: list[tuple[int, bytes]]
    """The PDUs that the receiver sent: type and content."""
    kept: list[bytes]
    """The datasets that it kept."""
    ends: list[AssociationEnd]
    seconds: float


@dataclass
class Arena:
    """One receiver, told conversations in this thread."""

    node: Node
    disk: Scarce
    broken: list[BaseException] = field(default_factory=list)
    _seen: int = 0

    @classmethod
    def open(cls, folder: Path) -> Arena:
        """Make the receiver in *folder*."""
        pace = Pace(linger=0.0, object_size=_OBJECT_SIZE, message_size=_MESSAGE_SIZE)
        disk = Scarce("process")
        arena = cls(Making(folder)(disk, pace=pace), disk)
        arena.node.listener.desk.speakers = Speakers(frozenset({"CT01"}), frozenset({"CT01"}))
        listener: Any = arena.node.listener

        def note(*_: object) -> None:
            error = sys.exception()
            if error is not None:
                arena.broken.append(error)

        listener.broke = note
        return arena

    def close(self) -> None:
        """End the receiver."""
        self.node.listener.drain(0.1)

    def tell(self, stream: bytes, cuts: Sequence[int] = (), room: int = Scarce.room) -> Heard:
        """Say *stream* and hang up; the receiver reads it in pieces of *cuts* bytes, over and over.

        Its disk has *room* for so many bytes.
        """
        peer, theirs = socket.socketpair()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LONGEST)
        receiving = Cut(theirs.family, theirs.type, theirs.proto, fileno=theirs.detach())
        receiving.cuts, receiving.answers = cycle(cuts or (1 << 20,)), bytearray()
        peer.sendall(stream[:LONGEST])
        peer.shutdown(socket.SHUT_WR)
        receiving.settimeout(MOST_SECONDS)
        begun, self.disk.room = time.monotonic(), room
        self.node.listener.serve(receiving, ("127.0.0.1", 50_000))
        spent, self.disk.room = time.monotonic() - begun, Scarce.room
        self.node.listener.desk.settle()  # an end that the disk refused is owed
        peer.close()
        return Heard(list(_pdus(bytes(receiving.answers))), *self._records(), spent)

    def _records(self) -> tuple[list[bytes], list[AssociationEnd]]:
        kept, ends = [], []
        for record in records_after(self.node.data, self.node.keeper.run, self._seen):
            self._seen = record.sequence
            if record.is_object:
                kept.append(kept_dataset(record.path))
            elif record.path.suffix == ".end":
                ends.append(read_end(record.path))
            record.path.unlink()
        return kept, ends

    def judge(self, stream: bytes, heard: Heard) -> None:
        """Fail where the receiver did anything that it must never do, whatever it was told."""
        if self.broken:
            raise self.broken.pop()
        assert heard.seconds < MOST_SECONDS, f"{heard.seconds:.1f} s for {len(stream)} bytes"
        _judge_answers(heard.answers)
        offered = list(offered_objects(stream[:LONGEST]))
        statuses = [status for field_, status in _responses(heard.answers) if field_ == 0x8001]
        assert len(statuses) <= len(offered), "more answers than objects"
        stored = [data for data, status in zip(offered, statuses, strict=False) if status == 0]
        assert heard.kept == stored, "what was answered with success is not what was kept"
        assert all(len(data) <= _OBJECT_SIZE for data in heard.kept)
        assert len(heard.ends) <= 1
        assert sum(end.objects for end in heard.ends) == len(stored)
        desk = self.node.listener.desk
        assert (desk.sessions(), desk.census.total()) == ([], 0)
        assert [path.name for path in self.node.data.rglob("*.part")] == []


def _judge_answers(answers: list[tuple[int, bytes]]) -> None:
    """What is sent is an association's: accepted or rejected once, then answers, then one end at most."""
    kinds = [kind for kind, _ in answers]
    if kinds and kinds[0] == 2:
        assert all(kind == 4 for kind in kinds[1:-1]), kinds
        assert kinds[-1] in (2, 4, 6, 7), kinds
    else:
        assert kinds in ([], [3], [7]), kinds


def _pdus(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the whole PDUs at the start of *stream*."""
    while len(stream) >= 6:
        kind, _, length = struct.unpack_from(">BBI", stream)
        if len(stream) < 6 + length:
            return
        yield kind, stream[6 : 6 + length]
        stream = stream[6 + length :]


def _fragments(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    while len(body) >= 6:
        length, context, control = struct.unpack_from(">IBB", body)
        if length < 2 or length > len(body) - 4:
            return
        yield context, control, body[6 : 4 + length]
        body = body[4 + length :]


def _elements(command: bytes) -> dict[int, bytes]:
    found = {}
    while len(command) >= 8:
        group, number, length = struct.unpack_from("<HHI", command)
        if group == 0 and 8 + length <= len(command):
            found[number] = command[8 : 8 + length]
        command = command[8 + length :]
    return found


def _us(value: bytes) -> int | None:
    return int.from_bytes(value[:2], "little") if len(value) >= 2 else None


def offered_objects(stream: bytes) -> Iterator[bytes]:
    """Yield the dataset of each whole C-STORE, by a simple reading that forgives much: no fewer than there are."""
    command, dataset = b"", None
    for kind, body in _pdus(stream):
        for _, control, payload in _fragments(body) if kind == 4 else ():
            if control & 1:
                command += payload
                if control & 2:
                    elements, command = _elements(command), b""
                    is_store = _us(elements.get(0x0100, b"")) == 1
                    dataset = b"" if is_store else None
                    if is_store and _us(elements.get(0x0800, b"")) == 0x0101:
                        yield b""
                        dataset = None
            elif dataset is not None:
                dataset += payload
                if control & 2:
                    yield dataset
                    dataset = None


def _responses(answers: list[tuple[int, bytes]]) -> Iterator[tuple[int, int]]:
    """Yield Command Field and Status of each response."""
    command = b""
    for kind, body in answers:
        for _, control, payload in _fragments(body) if kind == 4 else ():
            if control & 1:
                command += payload
                if control & 2:
                    elements, command = _elements(command), b""
                    yield _us(elements[0x0100]) or 0, _us(elements.get(0x0900, b"")) or 0


# --- what grows -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """What this process holds."""

    descriptors: int
    threads: int
    kilobytes: int

    @classmethod
    def now(cls) -> Size:
        """Look."""
        status = Path("/proc/self/status").read_text("ascii")
        (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
        return cls(len(os.listdir("/proc/self/fd")), threading.active_count(), int(resident))  # noqa: PTH208


# --- mutations --------------------------------------------------------------------------------------------

_NUMBERS = (
    0,
    1,
    2,
    3,
    5,
    6,
    7,
    127,
    128,
    255,
    256,
    32767,
    65535,
    131072,
    131073,
    0x7FFFFFFF,
    0xFFFFFFFC,
    0xFFFFFFFF,
)


def mutate(stream: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Return *stream* with one to six things wrong."""
    data = bytearray(stream)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        chance.choice(_MUTATIONS)(data, others, chance)
    return bytes(data[:LONGEST])


def _place(data: bytearray, chance: random.Random) -> int:
    return chance.randrange(len(data) + 1)


def _flip(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _byte(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.randrange(256)


def _number(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    size, at = chance.choice((1, 2, 4)), _place(data, chance)
    order = chance.choice(("big", "little"))
    number = chance.choice(_NUMBERS) % (1 << 8 * size)
    data[at : at + size] = number.to_bytes(size, order)  # type: ignore[arg-type]


def _cut(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    at = _place(data, chance)
    del data[at : at + chance.choice((1, 2, 4, 6, 16, 200, len(data)))]


def _insert(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    at = _place(data, chance)
    data[at:at] = chance.randbytes(chance.choice((1, 2, 4, 16, 300)))


def _repeat(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    at, size = _place(data, chance), chance.choice((1, 6, 12, 100, 1000))
    data[at:at] = data[at : at + size] * chance.choice((1, 2, 20))


def _splice(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    other = chance.choice(others)
    data[_place(data, chance) :] = other[chance.randrange(len(other) + 1) :]


def _shuffle(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    """Put whole PDUs into another order, repeat or drop one, or put in one of another conversation."""
    pdus = list(_pdus(bytes(data))) + list(_pdus(chance.choice(others)))[-2:]
    if pdus:
        first, rest = pdus[:1], pdus[1:]
        chance.shuffle(rest)
        data[:] = b"".join(struct.pack(">BBI", kind, 0, len(b)) + b for kind, b in first + rest)


def _resize(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    """Change the content of one PDU and have its length say so: what is behind a parser's first door."""
    pdus = list(_pdus(bytes(data)))
    if not pdus:
        return
    at = chance.randrange(len(pdus))
    body = bytearray(pdus[at][1])
    chance.choice((_number, _cut, _insert, _repeat))(body, others, chance)
    pdus[at] = pdus[at][0], bytes(body)
    data[:] = b"".join(struct.pack(">BBI", kind, 0, len(b)) + b for kind, b in pdus)


_MUTATIONS = (
    _flip,
    _byte,
    _number,
    _number,
    _cut,
    _insert,
    _repeat,
    _splice,
    _shuffle,
    _resize,
    _resize,
    _resize,
)


@contextlib.contextmanager
def arena(folder: Path) -> Iterator[Arena]:
    """Make an arena and close it."""
    made = Arena.open(folder)
    try:
        yield made
    finally:
        made.close()
