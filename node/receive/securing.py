"""TLS for whoever comes: our files, read again when they change, the handshake with its deadline, and the wire.

All of it happens on the connection's own thread, so that a peer that idles in its handshake holds up nobody.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from node import tls
from node.errors import Misconfigured
from node.receive.admission import Secured
from node.receive.limits import Pace
from node.receive.wire import Wire, linger

_EVERY = 1.0  # s between two looks at the files
_SESSIONS = (
    500  # of TLS 1.2 that one context may remember: OpenSSL keeps up to 20 480, with their certificates
)
_MOST_NAMES = 100  # of a certificate

log = structlog.get_logger()


class HandshakeError(Exception):
    """The connection is closed; the words say why, and are empty where the peer said nothing at all."""


class Keys:
    """What we show and whom we believe; files that change are read again at the next handshake."""

    def __init__(
        self, files: tls.Files, minimum: str, *, certificate_needed: bool, clock: Callable[[], float]
    ) -> None:
        """Read *files*; broken ones are said in the log, and let nobody in until they are mended."""
        self._files = files
        self._minimum = minimum
        self._certificate_needed = certificate_needed
        self._clock = clock
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._seen: tuple[object, ...] = ()
        self._next = float("-inf")
        self._given = 0
        self.context()

    def context(self) -> ssl.SSLContext | None:
        """Return the context of now; None while the files were broken from the start."""
        with self._lock:
            now = self._clock()
            if now >= self._next:
                self._next = now + _EVERY
                self._look()
            self._given += 1
            if self._given > _SESSIONS and self._context is not None:
                self._given = 1
                with contextlib.suppress(Misconfigured):  # about which the next look says more
                    self._context = self._made()
            return self._context

    def _look(self) -> None:
        seen = tuple(map(_stamp, self._files.all()))
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._context = self._made()
        except Misconfigured as error:
            log.error(  # noqa: TRY400 - sentences for people
                "tls_files_broken",
                reason="; ".join(error.mistakes),
                state="the older ones are used" if self._context else "nobody can come by TLS",
            )
        else:
            log.info("tls_files_read")

    def _made(self) -> ssl.SSLContext:
        return tls.for_server(self._files, self._minimum, certificate_needed=self._certificate_needed)


def _stamp(file: str) -> object:
    """What changes with the content of *file*."""
    try:
        found = os.stat(file)  # noqa: PTH116 - a Path brings nothing here
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_size, found.st_mtime_ns


def secure(connection: socket.socket, keys: Keys, pace: Pace) -> ssl.SSLSocket:
    """Shake hands within `pace.negotiate`, on a connection that is closed where that fails. Raises HandshakeError."""
    deadline = time.monotonic() + pace.negotiate
    try:
        connection.settimeout(pace.negotiate)
        first = connection.recv(1, socket.MSG_PEEK)
    except OSError:
        first = b""
    context = keys.context()
    if not first or context is None:
        connection.close()
        raise HandshakeError("our own files cannot be used, see tls_files_broken" if first else "")
    try:
        secured = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    except OSError as error:  # it was reset meanwhile; then the socket is closed already
        raise HandshakeError(tls.in_words(error)) from error
    try:
        secured.settimeout(max(0.001, deadline - time.monotonic()))  # of the whole handshake
        secured.do_handshake()
        secured.settimeout(pace.pdu)
    except (OSError, ValueError) as error:
        words = tls.in_words(error) if isinstance(error, OSError) else str(error)
        linger(secured, pace.linger, memoryview(bytearray(4096)))  # or a reset takes our alert from the peer
        secured.close()
        raise HandshakeError("it speaks DICOM without TLS" if first == b"\x01" else words) from error
    return secured


def names_in(certificate: Mapping[str, Any] | None) -> Secured:
    """Return the names in a verified certificate: its DNS names, IP addresses, URIs, and the common name."""
    if not certificate:
        return Secured()
    found = [_plain(kind, text) for kind, text in certificate.get("subjectAltName", ()) if kind in _KINDS]
    parts = [pair for part in certificate.get("subject", ()) for pair in part]
    found += [text for kind, text in parts if kind == "commonName"]
    return Secured(tuple(dict.fromkeys(found[:_MOST_NAMES])))


_KINDS = ("DNS", "IP Address", "URI")


def _plain(kind: str, text: str) -> str:
    """An IP address as people write it."""
    if kind == "IP Address":
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(text.strip()))
    return text


class SecureWire(Wire):
    """The same over TLS, whose layer holds bytes that the socket does not show."""

    _socket: ssl.SSLSocket

    def has_more(self) -> bool:
        """Whether something that the peer sent waits to be read."""
        return bool(self._socket.pending()) or super().has_more()

    def linger(self) -> None:
        """Say that no more follows (close_notify), and wait a moment for the peer to close."""
        with contextlib.suppress(OSError, ValueError):
            self._socket.settimeout(0)
            self._socket.unwrap()  # sends; whether the peer answers is not waited for
        super().linger()

    def _set_up(self) -> None:
        """The layer minds Python's timeout only; the handshake has set it."""

    def _be_patient(self, seconds: float) -> None:
        """Wait so long for bytes of the peer's: a new key of the layer's is no message."""
        if seconds != self._patience:
            self._socket.settimeout(seconds)
            self._patience = seconds
