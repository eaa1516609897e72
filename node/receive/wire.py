"""One connection as PDUs: bounded lengths, deadlines, and nothing copied twice (PS3.8 9.3)."""

from __future__ import annotations

import contextlib
import mmap
import select
import socket
import struct
import time

from node.receive.limits import Pace

ASSOCIATE_RQ, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, ABORT = 0x01, 0x03, 0x04, 0x05, 0x07
"""PDU types (PS3.8 9.3.1)."""
BY_USER, BY_PROVIDER = 0, 2
"""Who aborts (PS3.8 Table 9-26)."""
RELEASE_RP = struct.pack(">BBII", 0x06, 0, 4, 0)

_HEADER = struct.Struct(">BBI")  # type, reserved, length of the rest (PS3.8 9.3.1)
_SHORT_PDU = 1024  # A-RELEASE and A-ABORT have 4 bytes; answers to requests we never make do not come here
_WINDOW = 384 * 1024  # the part of the buffer in use: small enough to stay in the processor's cache
_TOO_LONG = "a PDU took longer than `limits.pdu`"
_LATE = 1 << 20  # bytes a peer may still have on their way when it is told that it is over


class FaultError(Exception):
    """The peer broke the protocol; the words say how. Only A-ABORT is left."""


class CommandError(FaultError):
    """The same, by a message: nobody can answer it."""


class QuietError(TimeoutError):
    """The peer began no PDU for too long; the words say where."""


class SlowError(TimeoutError):
    """The peer lets a message drip; the words say how."""


class EndOfStreamError(ConnectionError):
    """The peer closed the connection."""


class Wire:
    """Reads the PDUs of a peer we do not trust, and writes to it; used by one thread, but for *hang_up*."""

    def __init__(self, connection: socket.socket, pdu_size: int, pace: Pace) -> None:
        """Take a connected socket; how long it may wait is ours from here on."""
        self.idle = False
        """Whether it waits, between two messages, for the peer to say something."""
        self._socket = connection
        self._pace = pace
        self._limits = {ASSOCIATE_RQ: pace.associate_size, P_DATA: pdu_size}
        # Mapped and not allocated, since pages of it that are never used then cost nothing: few use more than
        # the window, a connection that says nothing uses none.
        self._buffer = memoryview(mmap.mmap(-1, _HEADER.size + max(_WINDOW, pdu_size, pace.associate_size)))
        self._start = self._end = 0
        self._aborted = self._hung_up = False
        self._patience = 0.0
        self._set_up()

    def pdu(self, patience: float, *, idle: bool) -> tuple[int, memoryview]:
        """Return the type and the content of the next PDU; the content is valid until the next call.

        The peer may take *patience* seconds to begin it. Raises FaultError for what no peer may send, OSError
        where the connection ends or the peer is too slow.
        """
        if self._hung_up:
            raise EndOfStreamError
        if self._start == self._end:
            self._start = self._end = 0
            self._wait(patience, idle)
        if self._end - self._start < _HEADER.size:
            self._fetch(_HEADER.size)
        kind, _, length = _HEADER.unpack_from(self._buffer, self._start)
        if not 1 <= kind <= 7:
            raise FaultError(f"unknown PDU type {kind}{_guess(kind)}")
        if length > self._limits.get(kind, _SHORT_PDU):
            raise FaultError(f"PDU type {kind} of {length} bytes")
        if self._end - self._start < _HEADER.size + length:
            self._fetch(_HEADER.size + length)
        begin = self._start + _HEADER.size
        self._start = begin + length
        return kind, self._buffer[begin : self._start]

    def has_more(self) -> bool:
        """Whether something that the peer sent waits to be read."""
        if self._start < self._end:
            return True
        readable = select.poll()
        readable.register(self._socket, select.POLLIN)
        return bool(readable.poll(0))

    def send(self, data: bytes) -> None:
        """Write all of *data*. Raises OSError, TimeoutError where the peer does not read."""
        try:
            self._socket.sendall(data)
        except (BlockingIOError, TimeoutError) as error:  # TLS has the other
            raise TimeoutError("it did not take our answer within `limits.pdu`") from error

    def abort(self, source: int) -> None:
        """Send A-ABORT, once; a peer that is gone need not be told."""
        if self._aborted:
            return
        self._aborted = True
        with contextlib.suppress(OSError):
            self._socket.sendall(struct.pack(">BBIBBBB", ABORT, 0, 4, 0, 0, source, 0))

    def hang_up(self) -> None:
        """Make the thread that reads go on with EndOfStreamError, at once or after the PDU at hand."""
        self._hung_up = True
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RD)  # of TLS, the layer stays: we answer yet

    def linger(self) -> None:
        """Wait a moment for the peer to close: a close with unread bytes would take our last PDU from it."""
        linger(self._socket, self._pace.linger, self._buffer)

    def _set_up(self) -> None:
        """Let the kernel watch the time: Python's own timeouts cost a poll before each call."""
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self._pace.pdu))

    def _be_patient(self, seconds: float) -> None:
        """Wait so long for the next bytes, from now on."""
        if seconds != self._patience:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))
            self._patience = seconds

    def _receive(self, into: memoryview) -> int:
        """Return how many bytes came. Raises TimeoutError where none does for too long."""
        try:
            return self._socket.recv_into(into)
        except (BlockingIOError, TimeoutError) as error:
            raise TimeoutError(_TOO_LONG) from error

    def _wait(self, patience: float, idle: bool) -> None:
        """Have the first bytes of a PDU. Raises QuietError where there are none."""
        self.idle = idle
        if not idle:
            self._acknowledge()
        self._be_patient(patience)
        try:
            self._end = self._receive(self._buffer[:_WINDOW])
        except TimeoutError as error:
            why = (
                "nothing came for `limits.idle`" if idle else "nothing came for `limits.pdu` within a message"
            )
            raise QuietError(why) from error
        finally:
            self.idle = False
        if not self._end:
            raise EndOfStreamError

    def _acknowledge(self) -> None:
        """Acknowledge at once what came, while more of the message is to come.

        A sender with Nagle's algorithm keeps its last bytes back until then, which would be 40 ms; the kernel
        forgets what it was told, so it is told each time.
        """
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _fetch(self, size: int) -> None:
        """Have at least *size* bytes from the start of the PDU on. Raises OSError when that takes too long."""
        if self._start + size > _WINDOW:
            kept = self._end - self._start
            self._buffer[:kept] = self._buffer[self._start : self._end]
            self._start, self._end = 0, kept
        self._be_patient(self._pace.pdu)
        deadline = time.monotonic() + self._pace.pdu
        wanted, most = self._start + size, max(self._start + size, _WINDOW)
        while self._end < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(_TOO_LONG)
            if self._end > self._start:
                self._acknowledge()
            got = self._receive(self._buffer[self._end : most])
            if not got:
                raise EndOfStreamError
            self._end += got


def _timeval(seconds: float) -> bytes:
    """A struct timeval, which of zero would mean for ever."""
    microseconds = max(1, round(seconds * 1e6))
    return struct.pack("@ll", *divmod(microseconds, 1_000_000))


def linger(connection: socket.socket, seconds: float, buffer: memoryview) -> None:
    """Close our half, and read into *buffer* what still comes; of TLS, below its layer."""
    end, left = time.monotonic() + seconds, _LATE
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_WR)
        connection.settimeout(seconds)
        while left > 0 and time.monotonic() < end and (got := socket.socket.recv_into(connection, buffer)):
            left -= got


def _guess(kind: int) -> str:
    """What a first byte that is no PDU type may be."""
    if kind == 0x16:
        return ": a TLS handshake on the port without TLS"
    return ": text, such as HTTP" if 0x41 <= kind <= 0x5A else ""
