"""`python tests/receive/rough_sender.py JOB`: a scanner behind a bad cable, that never gives up.

It sends small CT objects, each under a UID of its own, breaks off its associations at random points in every way a
connection can end, and sends again what was not acknowledged. It writes a line for each acknowledgement into a
file, and says once in a while on standard output, as JSON, how far it is. It imports no DICOM library.
"""

from __future__ import annotations

import hashlib
import json
import random
import select
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from node.bench.load import read_file
from node.bench.wire import (
    RELEASE_RQ,
    WrongError,
    associate_request,
    read_accept,
    read_pdu,
    read_response,
    store_request,
)

ROOT = "1.2.826.0.1.3680043.10.9999"
CT, EXPLICIT = b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.1.2.1"
A_ABORT = struct.pack(">BxIxxBB", 7, 4, 0, 0)
PATIENCE = 60.0
"""Seconds of silence after which the node counts as gone."""


def study_uid(series: int) -> str:
    """A study for each series; as the others, always of the same length."""
    return f"{ROOT}.1{series:06d}.1"


def series_uid(series: int) -> str:
    """The UID of a series, by its number."""
    return f"{ROOT}.1{series:06d}.2"


def sop_uid(series: int, number: int) -> str:
    """The UID of an object of a series."""
    return f"{ROOT}.1{series:06d}.3.1{number:06d}"


def instance_number(number: int) -> bytes:
    """Instance Number, and the whole millimetres of the position."""
    return b"%06d" % number


class Mint:
    """Makes datasets without end: each is one of the templates with other UIDs, place and pixels put in."""

    def __init__(self, folder: Path) -> None:
        self._heads = []
        for path in sorted(folder.iterdir()):
            _, dataset = read_file(path)
            at = dataset.rindex(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW")) + 12
            self._heads.append((dataset[:at], len(dataset) - at))

    def make(self, series: int, number: int) -> bytes:
        """One object; the same again for the same numbers."""
        head, size = self._heads[number % len(self._heads)]
        for uid in (study_uid, series_uid):
            head = head.replace(uid(0).encode(), uid(series).encode())
        head = head.replace(sop_uid(0, 0).encode(), sop_uid(series, number).encode())
        head = head.replace(instance_number(0), instance_number(number))
        return head + random.Random(series * 1_000_003 + number).randbytes(size)


PIXEL_DATA = b"\xe0\x7f\x10\x00OW"
"""Where pixels begin in Explicit VR Little Endian."""


def digest_of(dataset: bytes) -> str:
    """The digest under which the node indexes an object: over transfer syntax and dataset, its pixels by their own."""
    header, tag, pixels = dataset.partition(PIXEL_DATA)
    own = hashlib.sha256(EXPLICIT + tag + pixels).hexdigest() if tag else ""
    return hashlib.sha256(EXPLICIT + header + own.encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """What one sender is for."""

    port: int
    calling: str
    folder: str
    """Of the templates."""
    acks: str
    """The file that gets a line for each acknowledgement: SOP Instance UID and digest."""
    series: list[int]
    """Sent one after the other, two at a time."""
    objects: int
    """In each series."""
    seed: int
    cuts: float = 0.0
    """How likely an object, or an association, is broken off."""
    pause: float = 0.0
    """Seconds between two objects."""
    papers: str = ""
    """A folder with `ca.pem`, `sender.pem` and `sender.key`, for one that comes by TLS."""


@dataclass
class Told:
    """How far it is."""

    acknowledged: int = 0
    associations: int = 0
    cuts: Counter[str] = field(default_factory=Counter)
    """Where and how → how often."""
    lost: Counter[str] = field(default_factory=Counter)
    """What went wrong without our doing → how often."""
    done: bool = False


WAYS = ("abort", "reset", "close")
PLACES = ("first", "command", "dataset", "unread")
"""Before the first byte of an object, within its command or dataset, and after its last byte before the answer."""


class Sender:
    """The objects of one job and how they are sent."""

    def __init__(self, job: Job, acks: TextIO) -> None:
        self.told = Told()
        self._job = job
        self._acks = acks
        self._chance = random.Random(job.seed)
        self._mint = Mint(Path(job.folder))
        self._into = memoryview(bytearray(1 << 16))
        self._request = associate_request("PACSNODE", job.calling, CT, EXPLICIT)
        self._said = time.monotonic()
        self._pending = self._order()
        self._secure: ssl.SSLContext | None = None
        if job.papers:
            self._secure = ssl.create_default_context(cafile=f"{job.papers}/ca.pem")
            self._secure.load_cert_chain(f"{job.papers}/sender.pem", f"{job.papers}/sender.key")

    def _order(self) -> list[tuple[int, int]]:
        """What is left to send, the last one first: two series at a time, one object of each in turn."""
        order: list[tuple[int, int]] = []
        for at in range(0, len(self._job.series), 2):
            pair = self._job.series[at : at + 2]
            order += [(series, number) for number in range(1, self._job.objects + 1) for series in pair]
        return order[::-1]

    def run(self) -> None:
        """Send until everything is acknowledged."""
        while self._pending:
            try:
                self._association()
            except (WrongError, OSError, struct.error) as error:
                self.told.lost[_words(error)] += 1
                time.sleep(0.02)
        self.told.done = True

    def _association(self) -> None:
        """One association: some objects, and a release or a cut."""
        with self._connection() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._cuts():
                self._cut_request(connection)
                return
            connection.sendall(self._request)
            kind, body = read_pdu(connection, self._into)
            if kind != 2:
                raise WrongError(
                    f"the association was answered with PDU type {kind}: {bytes(body[:4]).hex()}"
                )
            step = min(read_accept(body) or 1 << 17, self._chance.choice((600, 2000, 16000, 131072))) - 6
            self.told.associations += 1
            for message in range(1, 1 + min(self._chance.randint(1, 400), len(self._pending))):
                if not self._object(connection, message, step):
                    return
            connection.sendall(RELEASE_RQ)
            kind, _ = read_pdu(connection, self._into)
            if kind != 6:
                raise WrongError(f"A-RELEASE-RQ was answered with PDU type {kind}")

    def _connection(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self._job.port), timeout=PATIENCE)
        if self._secure is None:
            return plain
        return self._secure.wrap_socket(plain, server_hostname="localhost")

    def _object(self, connection: socket.socket, message: int, step: int) -> bool:
        """Send the next object; False where the association was cut."""
        series, number = self._pending[-1]
        dataset, uid = self._mint.make(series, number), sop_uid(series, number)
        pieces = pdus(store_request(message, CT, uid.encode()), 3, step) + pdus(dataset, 0, step)
        if self._cuts():
            self._cut(connection, pieces)
            return False
        connection.sendall(b"".join(pieces))
        read_response(connection, self._into, message)
        self._pending.pop()
        self._acks.write(f"{uid} {digest_of(dataset)}\n")
        self.told.acknowledged += 1
        if time.monotonic() - self._said > 0.5:
            self.say()
        if self._job.pause:
            time.sleep(self._job.pause)
        return True

    def say(self) -> None:
        """Tell whoever started us, and have the file hold what was acknowledged."""
        self._said = time.monotonic()
        self._acks.flush()
        print(json.dumps(vars(self.told)), flush=True)

    # --- cuts

    def _cuts(self) -> bool:
        return self._chance.random() < self._job.cuts

    def _cut_request(self, connection: socket.socket) -> None:
        """End the connection before or within the A-ASSOCIATE-RQ."""
        way, part = self._chance.choice(WAYS[1:]), self._chance.choice((0, self._chance.randrange(200)))
        connection.sendall(self._request[:part])
        self._end(connection, way, "request" if part else "connect")

    def _cut(self, connection: socket.socket, pieces: list[bytes]) -> None:
        """Send a part of an object and end the connection; an A-ABORT can only stand between two PDUs."""
        way, place = self._chance.choice(WAYS), self._chance.choice(PLACES)
        whole, command = b"".join(pieces), len(pieces[0])
        if place == "first":
            end = 0
        elif place == "unread":
            end = len(whole)
        elif way == "abort":
            end = len(b"".join(pieces[: 1 if place == "command" else self._chance.randrange(1, len(pieces))]))
        elif place == "command":
            end = self._chance.randrange(1, command)
        else:
            end = self._chance.randrange(command, len(whole))
        connection.sendall(whole[:end])
        if place == "unread" and self._chance.random() < 0.5:
            select.select([connection], [], [], PATIENCE)  # the answer is here, and nobody will have read it
        elif self._chance.random() < 0.5:
            time.sleep(self._chance.uniform(0, 0.005))
        self._end(connection, way, place)

    def _end(self, connection: socket.socket, way: str, place: str) -> None:
        if way == "abort":
            connection.sendall(A_ABORT)
        elif way == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        self.told.cuts[f"{place} {way}"] += 1


def pdus(data: bytes, control: int, step: int) -> list[bytes]:
    """Cut *data* into P-DATA-TF PDUs of one PDV each (PS3.8 9.3.5)."""
    found = []
    for at in range(0, len(data), step):
        fragment = data[at : at + step]
        last = 2 if at + step >= len(data) else 0
        size = len(fragment)
        found.append(struct.pack(">BxIIBB", 4, size + 6, size + 2, 1, (control & 1) | last) + fragment)
    return found


def _words(error: Exception) -> str:
    """What went wrong, without what differs from time to time."""
    return str(error) if isinstance(error, WrongError) else type(error).__name__


def main(text: str) -> int:
    """Serve one job."""
    job = Job(**json.loads(text))
    with Path(job.acks).open("w") as acks:
        sender = Sender(job, acks)
        sender.run()
        sender.say()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
