"""The listening socket, inherited from the supervisor and shared with the other receivers.

One thread per connection follows its association to the end, so that every way an association can end
leads through one place.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from dataclasses import dataclass
from functools import partial

import structlog
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, _config
from pynetdicom.sop_class import Verification

from node.receive.admission import Secured, plain
from node.receive.association import Desk, Route, authority
from node.receive.census import LastWords
from node.receive.crew import Crew
from node.receive.lane import Lane
from node.receive.limits import Pace
from node.receive.negotiation import Negotiator
from node.receive.reasons import Reason
from node.receive.securing import HandshakeError, Keys, SecureWire, names_in, secure
from node.receive.wire import Wire

MAXIMUM_PDU = 131072
"""Bytes of a P-DATA-TF we announce and enforce: the most DCMTK sends; larger ones are slower."""

_NO_ROOM = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PAUSE = 0.1
"""Seconds until it is tried again, where the machine gives no descriptor for a connection."""

log = structlog.get_logger()


def configure() -> None:
    """Set pynetdicom's process-wide switches, before a listener is made.

    Every storage, private or unknown SOP class is accepted in the transfer syntax first proposed; UIDs are
    taken however illegal, since they never become a name; no log of PDUs, which would quote patient data.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    _config.VALIDATORS["UI"] = lambda _uid: (True, "")


def application_entity(ae_title: str, implementation: tuple[str, str]) -> AE:
    """Return the AE that accepts: *implementation* is our class UID and version name (PS3.7 D.3.3.2)."""
    ae = AE(ae_title=ae_title)
    ae.implementation_class_uid, ae.implementation_version_name = implementation
    ae.maximum_pdu_size = MAXIMUM_PDU
    ae.maximum_associations = 1_000_000  # admission counts associations; pynetdicom would count connections
    ae.add_supported_context(
        Verification,
        [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    )
    return ae


@dataclass(frozen=True)
class Door:
    """A listening socket; with *keys*, those who come there come by TLS."""

    listening: socket.socket
    keys: Keys | None = None


class Listener:
    """Accepts on listening sockets that other receivers accept on, too; each connection has a thread."""

    def __init__(
        self, ae: AE, listening: socket.socket, desk: Desk, pace: Pace, keys: Keys | None = None
    ) -> None:
        """Adopt *listening*; `start` begins to accept. With *keys*, by TLS only."""
        self.desk = desk
        self.pace = pace
        self._negotiator = Negotiator(ae)
        self._crew = Crew()
        self._doors = [Door(listening, keys)]
        self._stop = os.eventfd(0)
        self._thread: threading.Thread | None = None

    def by_tls(self, listening: socket.socket, keys: Keys) -> None:
        """Accept on *listening* as well, by TLS."""
        self._doors.append(Door(listening, keys))

    def start(self) -> None:
        """Accept, in a thread of its own."""
        for door in self._doors:
            door.listening.setblocking(False)  # another receiver may have been faster
        self._thread = threading.Thread(target=self._accept, name="accept", daemon=True)
        self._thread.start()
        self.desk.census.accepting()

    def shutdown(self) -> None:
        """Stop accepting; associations go on, and so do the other receivers at the same sockets."""
        if self._thread is not None:
            os.eventfd_write(self._stop, 1)
            self._thread.join()
            self._thread = None
            os.close(self._stop)
        for door in self._doors:
            door.listening.close()

    def drain(self, patience: float) -> None:
        """Accept no more, let each C-STORE in hand finish within *patience* seconds, and A-ABORT the rest."""
        self.shutdown()
        self.desk.stopping.set()
        deadline = time.monotonic() + patience
        while (waiting := self.desk.sessions()) and time.monotonic() < deadline:
            for session in waiting:
                session.stop(at_once=False)
            time.sleep(0.02)
        for session in waiting:
            session.stop(at_once=True)
        end = time.monotonic() + 1.0
        while self.desk.sessions() and time.monotonic() < end:
            time.sleep(0.02)

    def _accept(self) -> None:
        doors = {door.listening.fileno(): door for door in self._doors}
        coming = select.poll()
        for fd in (*doors, self._stop):
            coming.register(fd, select.POLLIN)
        while True:
            for fd, _ in coming.poll():
                if fd == self._stop:
                    return
                self._take(doors[fd])

    def _take(self, door: Door) -> None:
        """Take one connection, bounded in all and per host: those that never ask to associate count here only."""
        try:
            connection, address = door.listening.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:  # it waits in the kernel, for us or for another receiver
                time.sleep(_PAUSE)
            return
        host, policy, census = plain(address[0]), self.desk.policy, self.desk.census
        reason = census.connect(host, policy.connections, policy.connections_per_address)
        if reason is not None:
            connection.close()
            self._refuse(reason, host)
            return
        try:
            self._crew.hand(partial(self.serve, connection, (host, address[1]), door.keys))
        except RuntimeError:  # no thread to be had
            connection.close()
            census.disconnect(host)
            self.broke(host)

    def broke(self, host: str) -> None:
        """Log the exception that broke a connection; the listener goes on."""
        log.exception("connection_broke", address=host)

    def _refuse(self, reason: Reason, host: str) -> None:
        """Count and say that a connection from *host* is not served."""
        self._count(reason, host)
        log.warning("connection_refused", reason=reason.words, address=host)

    def _count(self, reason: Reason, host: str, why: str = "") -> None:
        self.desk.census.count(reason, LastWords(self.desk.clock().timestamp(), host, why=why))

    def serve(self, connection: socket.socket, remote: tuple[str, int], keys: Keys | None = None) -> None:
        """Serve one connection, which counts until it is closed. What breaks it breaks nothing else."""
        try:
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if keys is None:
                    self._follow(connection, remote, Wire(connection, MAXIMUM_PDU, self.pace))
                else:
                    self._follow_by_tls(connection, remote, keys)
        except Exception:  # noqa: BLE001 - it is logged
            self.broke(remote[0])
        finally:
            self.desk.census.disconnect(remote[0])

    def _follow_by_tls(self, connection: socket.socket, remote: tuple[str, int], keys: Keys) -> None:
        """Shake hands first; a handshake that never began is no event: monitors make them."""
        try:
            secured = secure(connection, keys, self.pace)
        except HandshakeError as error:
            if why := str(error):
                self._count(Reason.TLS_HANDSHAKE, remote[0], why)
                log.warning("tls_handshake_failed", reason=why, address=authority(*remote))
            return
        with secured:  # it has taken the descriptor of the other
            wire = SecureWire(secured, MAXIMUM_PDU, self.pace)
            self._follow(secured, remote, wire, names_in(secured.getpeercert()))

    def _follow(
        self, connection: socket.socket, remote: tuple[str, int], wire: Wire, secured: Secured | None = None
    ) -> None:
        """Follow the association on a connection until it is over: every way it can end leads through here."""
        local = connection.getsockname()
        session = self.desk.open(wire, Route(*remote, authority(plain(local[0]), local[1]), secured))
        released = False
        try:
            released = Lane(session, wire, self._negotiator, self.pace).run()
        finally:
            session.finish(released)
        wire.linger()
