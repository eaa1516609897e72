"""A TCP (or TLS) connection on which nothing waits longer than it was told to.

pynetdicom's own socket blocks without a limit in both directions: a peer that stops reading, or sends
half a header, holds its threads for ever. Here every wait has a deadline, and there are no threads.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import suppress

from node import tls
from node.errors import Misconfigured, Retryable
from node.model import Trouble
from node.send.protocol import Destination

_MOST_PDU = 1 << 20
"""Longest answer we take, bytes; what an SCP says to an SCU is short."""


class Lost(Retryable):
    """The connection is of no more use; the sentence, put after the destination's name, says why."""

    def __init__(self, what: str, trouble: Trouble = Trouble.UNREACHABLE) -> None:
        super().__init__(what)
        self.trouble = trouble


class Alerted(Lost):
    """The peer ended TLS, and said why: with 1.3 it judges our certificate when our half of the handshake is done."""


class Link:
    """One connection; PDUs (PS3.8 9.3) in and out, each wait bounded."""

    def __init__(self, sock: socket.socket, transfer: float) -> None:
        self._sock = sock
        self._transfer = transfer
        self._waiting = bytearray()
        self._cut = False  # a PDU was sent in part: nothing that follows would be understood

    def send(self, data: bytes | memoryview) -> None:
        """Send all of *data*; raises Lost when the peer takes no byte for `transfer` seconds."""
        view = memoryview(data)
        self._sock.settimeout(self._transfer)
        self._cut = True
        try:
            while view:
                view = view[self._sock.send(view) :]
            self._cut = False
        except TimeoutError as error:
            idle = f"took no data for {self._transfer:g} s; look whether it is overloaded or its disk is full"
            raise Lost(self._last_words() or idle) from error
        except OSError as error:
            raise Lost(
                self._last_words() or f"closed the connection ({_reason(error)}); see its log"
            ) from error

    def ready(self, within: float) -> bool:
        """Whether something came, or comes *within* seconds. Raises Lost when the peer has hung up."""
        if self._waiting:
            return True
        try:
            self._sock.settimeout(max(within, 0.001))
            got = self._sock.recv(65536)
        except TimeoutError:
            return False
        except OSError as error:
            raise Lost(f"closed the connection ({_reason(error)}); see its log") from error
        if not got:
            raise Lost("closed the connection; see its log")
        self._waiting += got
        return True

    def receive(self, within: float) -> tuple[int, bytes]:
        """Wait for a PDU: its type and what follows its length. Raises Lost when it is not whole in time."""
        deadline = time.monotonic() + within
        self._fill(6, deadline, within)
        kind, length = struct.unpack_from(">BxI", self._waiting)
        if not 1 <= kind <= 7 or length > _MOST_PDU:
            raise Lost("does not speak DICOM there; check its address and port")
        self._fill(6 + length, deadline, within)
        body = bytes(self._waiting[6 : 6 + length])
        del self._waiting[: 6 + length]
        return kind, body

    def _fill(self, size: int, deadline: float, within: float) -> None:
        while len(self._waiting) < size:
            try:
                self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
                # A peer with Nagle on (DCMTK's default) sends an answer's second segment only when its
                # first is acknowledged; the kernel would take 40 ms for that, and forgets this option.
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                got = self._sock.recv(65536)
            except TimeoutError as error:
                raise Lost(f"did not answer within {within:g} s; look whether it is overloaded") from error
            except OSError as error:
                if "ALERT" in str(getattr(error, "reason", "")):
                    raise Alerted(
                        f"ended TLS: {tls.in_words(error)}; check its log, and tls of the peer"
                    ) from error
                raise Lost(f"closed the connection ({_reason(error)}); see its log") from error
            if not got:
                raise Lost("closed the connection; see its log")
            self._waiting += got

    def _last_words(self) -> str:
        """Why the peer hung up, where it said so before it did (A-ABORT, or an alert of TLS)."""
        try:
            kind, body = self.receive(0.2)
        except Alerted as alerted:
            return str(alerted)
        except Lost:
            return ""
        return abort_words(body) if kind == 7 else ""

    def close(self) -> None:
        """Close it; what was sent still arrives."""
        if isinstance(self._sock, ssl.SSLSocket):
            with suppress(OSError, ValueError):
                self._sock.settimeout(0)
                self._sock.unwrap()  # sends close_notify; the peer's is not waited for
        with suppress(OSError):  # the peer may have been faster
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def abort(self) -> None:
        """A-ABORT (PS3.8 9.3.8) and close; a reset where a PDU was cut short, so that nothing lingers."""
        if not self._cut:
            try:
                self._sock.settimeout(0.2)
                self._sock.send(struct.pack(">BxIxxBB", 7, 4, 0, 0))
            except OSError:
                self._cut = True
        if self._cut:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


def abort_words(body: bytes) -> str:
    """Say what an A-ABORT means (PS3.8 Table 9-26)."""
    source, reason = (body[2], body[3]) if len(body) >= 4 else (0, 0)
    reasons = {
        1: "unrecognised PDU",
        2: "unexpected PDU",
        4: "unrecognised PDU parameter",
        5: "unexpected PDU parameter",
        6: "invalid PDU parameter value",
    }
    why = f": {reasons.get(reason, 'no reason given')}" if source == 2 else ""
    return f"aborted the association{why}; see its log"


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLEOFError):
        return "it was cut"
    return tls.in_words(error) if isinstance(error, ssl.SSLError) else error.strerror or type(error).__name__


def connect(destination: Destination) -> Link:
    """Connect, with TLS where the destination asks for it. Raises Lost with what to check."""
    within = destination.timeouts.connect
    check = f"check address of peer {destination.name}"
    try:
        sock = socket.create_connection((destination.host, destination.port), timeout=within)
    except TimeoutError as error:
        raise Lost(f"did not answer within {within:g} s; {check}, and firewalls on the way") from error
    except socket.gaierror as error:
        raise Lost(f"cannot be found: its host name is unknown; {check}") from error
    except ConnectionRefusedError as error:
        raise Lost(f"refused the connection: nothing listens there; start it, or {check}") from error
    except OSError as error:
        raise Lost(f"cannot be reached ({_reason(error)}); {check}") from error
    try:
        _tune(sock)
        return Link(_secured(sock, destination), destination.timeouts.transfer)
    except Lost:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise Lost(f"closed the connection ({_reason(error)}); see its log") from error


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a peer that lost its power sends no FIN
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def _secured(sock: socket.socket, destination: Destination) -> socket.socket:
    """Shake hands, with files read anew: one that was replaced counts from the next association on."""
    wanted = destination.tls
    if wanted is None:
        return sock
    try:
        files = tls.Files(wanted.certificate, wanted.key, wanted.trusted)
        context = tls.for_client(files, wanted.minimum, check_name=wanted.check_name)
    except Misconfigured as error:
        raise Lost(f"needs TLS files that cannot be used: {'; '.join(error.mistakes)}") from error
    check = f"check tls of peer {destination.name}"
    try:
        return context.wrap_socket(sock, server_hostname=wanted.server_name or destination.host)
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message.rstrip(".")
        advice = f"{check} (server_name, check_name)" if "mismatch" in why else f"{check} (trusted)"
        raise Lost(f"showed a certificate we do not trust ({why}); {advice}") from error
    except OSError as error:
        raise Lost(f"did not agree on TLS: {tls.in_words(error)}; {check}") from error
