"""Destinations that misbehave in named ways, on bare sockets: what polite libraries never do on the wire.

One `Peer` is a storage SCP of two hundred lines; `Manners` say what it does otherwise than it should. Manners may
be changed while it runs: that is how a destination is mended.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ

from node.send import command

_DATA, _RELEASE = 4, 5
_ABORT = struct.pack(">BxIxxBB", 7, 4, 0, 0)


@dataclass(frozen=True)
class Manners:
    """What a peer does otherwise than it should; as it stands here, nothing."""

    rejects: tuple[int, int, int] | None = None
    """Result, source and reason of A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    refuses: Callable[[str], bool] = lambda _sop_class: False
    """SOP class → its presentation contexts are not accepted; Verification is asked about as the others."""
    silent: bool = False
    """Takes the connection and says nothing more."""
    stops_reading: bool = False
    """Accepts the association, and takes no byte after that."""
    rate: int = 0
    """Bytes per second that it reads; 0 = all that comes."""
    answer: Callable[[str, int], int] = lambda _uid, _nth: 0x0000
    """SOP Instance UID, how often it was asked before → the C-STORE status."""
    shift: Callable[[str, int], int] = lambda _uid, _nth: 0
    """The same → what is added to the Message ID it answers for."""
    aborts: Callable[[str, int], bool] = lambda _uid, _nth: False
    """The same → it aborts when it has read the command, before the dataset."""
    hangs_up: Callable[[int], bool] = lambda _nth: False
    """How many connections there were before → it closes this one at once."""


@dataclass
class Peer:
    """A storage SCP that remembers what came; *manners* may be changed at any time."""

    port: int
    ae_title: str = "PEER"
    manners: Manners = field(default_factory=Manners)
    got: list[tuple[str, str]] = field(default_factory=list)
    """(SOP Instance UID, digest of the dataset) of each that it took, in order."""
    at: list[float] = field(default_factory=list)
    """The moments of these, on the monotonic clock."""
    asked: Counter[str] = field(default_factory=Counter)
    """SOP Instance UID → how often C-STORE was asked for it, whatever was answered."""
    connections: list[float] = field(default_factory=list)
    """When each connection came."""
    echoes: int = 0
    after_a_lie: int = 0
    """PDUs other than A-ABORT that came on an association after an answer with a wrong Message ID."""
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def held(self) -> dict[str, set[str]]:
        """SOP Instance UID → the different digests that came under it."""
        found: dict[str, set[str]] = {}
        for uid, digest in list(self.got):
            found.setdefault(uid, set()).add(digest)
        return found

    @property
    def order(self) -> list[str]:
        """The SOP Instance UIDs in the order they came first."""
        return list(dict.fromkeys(uid for uid, _ in list(self.got)))

    @contextlib.contextmanager
    def open(self) -> Iterator[Peer]:
        """Listen as long as the block lasts."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 4096
        )  # what it does not read, the sender keeps
        listener.bind(("127.0.0.1", self.port))
        listener.listen(16)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        try:
            yield self
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            self.hang_up()

    def behave(self) -> None:
        """Mend it: from now on it is a good peer, and what it has kept waiting is cut off."""
        self.manners = Manners()
        self.hang_up()

    def hang_up(self) -> None:
        """Close every connection without a word."""
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with self._lock:
                    self._open.add(sock)
                    self.connections.append(time.monotonic())
                    nth = len(self.connections) - 1
                threading.Thread(target=self._serve, args=(sock, nth), daemon=True).start()

    def _serve(self, sock: socket.socket, nth: int) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, EOFError):
            if not self.manners.hangs_up(nth):
                _Talk(self, sock).hold()
        with self._lock:
            self._open.discard(sock)
        sock.close()

    def took(self, uid: str, digest: str) -> None:
        """It has this object."""
        with self._lock:
            self.got.append((uid, digest))
            self.at.append(time.monotonic())


class _Talk:
    """One connection."""

    def __init__(self, peer: Peer, sock: socket.socket) -> None:
        self.peer = peer
        self.manners = peer.manners
        self.sock = sock
        self.buffer = bytearray()

    def hold(self) -> None:
        """Speak until the other side has had enough; EOFError when it hangs up."""
        if self.manners.silent:
            self._wait()
        if not self._associate(self._pdu()[1]):
            return
        if self.manners.stops_reading:
            self._wait()
        while True:
            kind, context, data = self._command()
            if kind == _RELEASE:
                self.sock.sendall(struct.pack(">BxIxxxx", 6, 4))
                return
            if kind != _DATA or not self._answer(context, command.parse(data)):
                return

    def _wait(self) -> None:
        """Say nothing and read nothing until this side closes the connection."""
        while self.sock in self.peer._open and self.peer.manners is self.manners:
            time.sleep(0.05)
        raise EOFError

    def _associate(self, raw: bytes) -> bool:
        request = A_ASSOCIATE_RQ()
        request.decode(raw)
        answer = request.to_primitive()
        if self.manners.rejects:
            answer.result, answer.result_source, answer.diagnostic = self.manners.rejects
            self.sock.sendall(A_ASSOCIATE_RJ(answer).encode())
            return False
        contexts = answer.presentation_context_definition_list
        for context in contexts:
            context.result = 3 if self.manners.refuses(str(context.abstract_syntax)) else 0
        answer.presentation_context_definition_results_list = contexts
        answer.maximum_length_received = 16384
        answer.result = 0
        self.sock.sendall(A_ASSOCIATE_AC(answer).encode())
        return True

    def _answer(self, context: int, asked: dict[int, bytes]) -> bool:
        number = command.number(asked, command.MESSAGE_ID) or 0
        if command.number(asked, command.COMMAND_FIELD) == command.C_ECHO_RQ:
            self.peer.echoes += 1
            self._respond(context, command.C_ECHO_RSP, number, 0)
            return True
        uid = asked[command.AFFECTED_SOP_INSTANCE_UID].rstrip(b"\0").decode("ascii")
        nth = self.peer.asked[uid]
        self.peer.asked[uid] += 1
        if self.manners.aborts(uid, nth):
            self.sock.sendall(_ABORT)
            return False
        data = self._dataset()
        status, shift = self.manners.answer(uid, nth), self.manners.shift(uid, nth)
        if shift == 0 and status & 0xF000 in (0x0000, 0xB000) and status & 0xFF00 != 0x0100:
            self.peer.took(uid, hashlib.sha256(data).hexdigest())
        self._respond(context, command.C_STORE_RSP, number + shift, status)
        if shift:
            self._watch_for_more()
            return False
        return True

    def _watch_for_more(self) -> None:
        """After an answer to something that was not asked the association must be left."""
        while self._pdu()[0] != 7:
            self.peer.after_a_lie += 1

    def _respond(self, context: int, kind: int, number: int, status: int) -> None:
        values = ((0x100, kind), (0x120, number & 0xFFFF), (0x800, 0x101), (0x900, status))
        body = b"".join(struct.pack("<HHIH", 0, tag, 2, value) for tag, value in values)
        whole = struct.pack("<HHII", 0, 0, 4, len(body)) + body
        self.sock.sendall(struct.pack(">BxIIBB", 4, len(whole) + 6, len(whole) + 2, context, 3) + whole)

    def _command(self) -> tuple[int, int, bytes]:
        """The next command set and its context, or the kind of a PDU that is none."""
        data = b""
        while True:
            kind, raw = self._pdu()
            if kind != _DATA:
                return kind, 0, b""
            data += raw[12:]
            if raw[11] & 2:
                return kind, raw[10], data

    def _dataset(self) -> bytes:
        parts = []
        while True:
            kind, raw = self._pdu()
            if kind != _DATA:
                raise EOFError
            parts.append(raw[12:])
            if raw[11] & 2:
                return b"".join(parts)

    def _pdu(self) -> tuple[int, bytes]:
        """The next PDU; each holds one PDV, as this node sends them."""
        head = self._exactly(6)
        return head[0], head + self._exactly(int.from_bytes(head[2:], "big"))

    def _exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            rate = self.manners.rate
            got = self.sock.recv(min(rate, 1024) if rate else 65536)
            if not got:
                raise EOFError
            self.buffer += got
            if rate:
                time.sleep(len(got) / rate)
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data
