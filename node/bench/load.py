"""`python -m node.bench.load JOB`: one association's load, sent as fast as the other side takes it.

Not a client for anybody: a Storage SCU that shall never be what is measured. It holds every PDU it will send in
memory before the clock starts, then writes, reads the answer with `struct`, and does nothing else. It imports no
DICOM library, so that many of them start at once. Says so as a line of JSON when its association is there, then
for each line `COUNT` on standard input what sending so many objects took. The end of standard input ends it.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from node.bench.wire import (
    RELEASE_RQ,
    WrongError,
    associate_request,
    place_of,
    read_accept,
    read_pdu,
    read_response,
    store_request,
)

_PATIENCE = 120.0
"""Seconds of silence after which the other side counts as gone."""
_FIRST = 10**38
"""The numbers of our UIDs below 2.25 have 39 digits, as have the largest UUIDs (PS3.5 B.2)."""


@dataclass(frozen=True)
class Job:
    """What one association is for."""

    port: int
    called: str
    calling: str
    folder: str
    """Part 10 files; sent in the order of their names, with a SOP Instance UID of their own each time."""
    count: int
    """Objects to hold ready; a burst has at most so many."""
    nagle: bool = False
    """Written as DCMTK's storescu writes, each PDU's header by itself, and Nagle's algorithm left on."""
    one_each: bool = False
    """An association of its own for each object."""
    big: int = 0
    """Bytes of pixels that follow the one file in *folder*, made up while they are sent."""
    most: int = 131072
    """Longest PDU, where the other side takes any."""


@dataclass(frozen=True)
class Told:
    """What one burst was."""

    began: float
    """Monotonic, as *ended*: the same clock in every process of this machine."""
    ended: float
    acknowledged: int
    """Objects answered with status 0000."""
    cpu: float = 0.0
    wrong: str = ""


class Object:
    """One object as PDUs; its UID can be changed, so that it is another one in the next burst."""

    def __init__(self, path: Path, message_id: int, most: int) -> None:
        meta, dataset = read_file(path)
        self.message_id = message_id
        self.sop_class = meta[0x0002]
        uid = new_uid(0)
        dataset, in_dataset = with_uid(dataset, meta[0x0003], uid)
        command = store_request(message_id, self.sop_class, uid)
        self.pdus = bytearray()
        self._pieces: list[tuple[int, int]] = []
        self._append(command, control=3, most=most)
        self._uids = [12 + place_of(command, uid)]
        self.command_length = len(self.pdus)
        self._append(dataset, control=0, most=most)
        if in_dataset + len(uid) > most - 6:
            raise WrongError(f"a PDU of {most} bytes is too short for the start of {path.name}")
        self._uids.append(self.command_length + 12 + in_dataset)

    def _append(self, data: bytes, control: int, most: int) -> None:
        """Cut *data* into P-DATA-TF PDUs of one PDV each (PS3.8 9.3.5); bit 1 says that it is the last one."""
        step = most - 6
        for at in range(0, len(data), step):
            fragment = data[at : at + step]
            last = 2 if at + step >= len(data) else 0
            size = len(fragment)
            start = len(self.pdus)
            self.pdus += struct.pack(">BxIIBB", 4, size + 6, size + 2, 1, (control & 1) | last)
            self.pdus += fragment
            self._pieces += [(start, start + 12), (start + 12, start + 12 + size)]

    def rename(self, number: int) -> None:
        """Make it another object."""
        uid = new_uid(number)
        for at in self._uids:
            self.pdus[at : at + len(uid)] = uid

    def pieces(self) -> list[memoryview]:
        """What DCMTK's storescu gives to `write`: 12 bytes of header, then the body, PDU by PDU."""
        whole = memoryview(self.pdus)
        return [whole[start:end] for start, end in self._pieces]


_OURS = secrets.randbelow(10**20)


def new_uid(number: int) -> bytes:
    """A UID that nobody else in this run gives; always of the same length."""
    return b"2.25.%d" % (_FIRST + _OURS * 10**12 + number)


def read_file(path: Path) -> tuple[dict[int, bytes], bytes]:
    """File meta elements, without their padding, and the dataset as it stands in a Part 10 file (PS3.10 7.1)."""
    data = path.read_bytes()
    if data[128:132] != b"DICM":
        raise WrongError(f"{path} is no Part 10 file")
    (length,) = struct.unpack_from("<I", data, 140)
    meta, position, end = {}, 144, 144 + length
    while position < end:
        _, element, vr, size = struct.unpack_from("<HH2sH", data, position)
        position += 8
        if vr in (b"OB", b"UN"):
            (size,) = struct.unpack_from("<I", data, position)
            position += 4
        meta[element] = data[position : position + size].rstrip(b"\0")
        position += size
    return meta, data[end:]


def with_uid(dataset: bytes, old: bytes, uid: bytes) -> tuple[bytes, int]:
    """The Explicit VR Little Endian *dataset* with *uid* as SOP Instance UID, and where that stands."""
    padded = old + b"\0" * (len(old) % 2)
    before = struct.pack("<HH2sH", 0x0008, 0x0018, b"UI", len(padded)) + padded
    start = dataset.find(before)
    if start < 0:
        raise WrongError("the dataset does not hold the SOP Instance UID of its file meta")
    after = struct.pack("<HH2sH", 0x0008, 0x0018, b"UI", len(uid)) + uid
    return dataset[:start] + after + dataset[start + len(before) :], start + 8


class Sender:
    """The objects of one job and the connection they go over."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._into = memoryview(bytearray(1 << 16))
        self._paths = sorted(Path(job.folder).iterdir())[: job.count]
        meta, _ = read_file(self._paths[0])
        self._request = associate_request(job.called, job.calling, meta[0x0002], meta[0x0010])
        self._connection, self._most = self._associate()
        self._number = 0
        self._objects: list[Object] = []
        if not job.big:
            self._objects = [
                Object(path, 1 if job.one_each else index % 65535 + 1, self._most)
                for index, path in enumerate(self._paths)
            ]
            self.prepare()
        if job.one_each:
            self.release()

    def prepare(self) -> None:
        """Have other objects for the next burst."""
        for item in self._objects:
            self._number += 1
            item.rename(self._number)

    def burst(self, count: int) -> Told:
        """Send *count* objects."""
        sent = self._big() if self._job.big else self._each(self._objects[:count])
        done, wrong, cpu = 0, "", time.process_time()
        began = time.monotonic()
        try:
            for _ in sent:
                done += 1
        except (WrongError, OSError, struct.error) as error:
            wrong = str(error) or type(error).__name__
        return Told(began, time.monotonic(), done, time.process_time() - cpu, wrong)

    def release(self) -> None:
        """End the association (PS3.8 7.2)."""
        self._connection.sendall(RELEASE_RQ)
        kind, _ = read_pdu(self._connection, self._into)
        if kind != 6:
            raise WrongError(f"A-RELEASE-RQ was answered with PDU type {kind}")
        self._connection.close()

    def _associate(self) -> tuple[socket.socket, int]:
        connection = socket.create_connection(("127.0.0.1", self._job.port), timeout=_PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not self._job.nagle)
        # A timeout would be a poll before each call; the kernel's own costs nothing.
        connection.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(_PATIENCE), 0))
        connection.sendall(self._request)
        kind, body = read_pdu(connection, self._into)
        if kind != 2:
            raise WrongError(f"the association was answered with PDU type {kind}: {bytes(body[:4]).hex()}")
        most = read_accept(body)
        return connection, min(most or self._job.most, self._job.most)

    def _each(self, objects: Sequence[Object]) -> Iterator[None]:
        """Send one after the other; gives something whenever one is acknowledged."""
        pieces = [item.pieces() if self._job.nagle else [memoryview(item.pdus)] for item in objects]
        try:
            for item, parts in zip(objects, pieces, strict=True):
                if self._job.one_each:
                    self._connection, _ = self._associate()
                for part in parts:
                    self._connection.sendall(part)
                read_response(self._connection, self._into, item.message_id)
                yield
                if self._job.one_each:
                    self.release()
        finally:
            for part in (part for parts in pieces for part in parts):
                part.release()  # a bytearray that is looked at cannot be changed

    def _big(self) -> Iterator[None]:
        """Send the one object whose pixels are never in memory at once."""
        self._number += 1
        meta, head = read_file(self._paths[0])
        uid, step, left = new_uid(self._number), self._most - 6, self._job.big
        head, _ = with_uid(head, meta[0x0003], uid)
        command = store_request(1, meta[0x0002], uid)
        self._connection.sendall(
            struct.pack(">BxIIBB", 4, len(command) + 6, len(command) + 2, 1, 3) + command
        )
        self._connection.sendall(struct.pack(">BxIIBB", 4, len(head) + 6, len(head) + 2, 1, 0) + head)
        full = struct.pack(">BxIIBB", 4, step + 6, step + 2, 1, 0) + os.urandom(step)
        while left > step:
            self._connection.sendall(full)
            left -= step
        self._connection.sendall(struct.pack(">BxIIBB", 4, left + 6, left + 2, 1, 2) + full[12 : 12 + left])
        read_response(self._connection, self._into, 1)
        yield


def say(what: dict[str, Any]) -> None:
    """One line for whoever started us."""
    print(json.dumps(what), flush=True)


def main(text: str) -> int:
    """Serve one job."""
    job = Job(**json.loads(text))
    try:
        sender = Sender(job)
    except (WrongError, OSError, struct.error) as error:
        say({"wrong": str(error) or type(error).__name__})
        return 1
    say({"wrong": ""})
    while line := sys.stdin.readline().strip():
        told = sender.burst(int(line))
        sender.prepare()  # before it is told: whoever hears it may start the next burst at once
        say(asdict(told))
    if not job.one_each:
        sender.release()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
