"""The listening socket, inherited from the supervisor and shared with the other receivers.

One thread per connection follows its association to the end, so that every way an association can end
leads through one place.
"""

from __future__ import annotations

import errno
import socket
import socketserver
import threading
import time
from typing import Any

import structlog
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, _config
from pynetdicom.sop_class import Verification
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from node.receive.admission import Secured, plain
from node.receive.association import Desk, Route, authority
from node.receive.census import LastWords
from node.receive.lane import Lane
from node.receive.limits import Pace
from node.receive.negotiation import Negotiation
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


class Connection(RequestHandler):
    """One accepted connection, from its first byte to its end."""

    server: Listener
    request: socket.socket

    def handle(self) -> None:
        """Follow the association on this connection until it is over, after a handshake at the port for TLS."""
        keys, pace = self.server.keys, self.server.pace
        if keys is None:
            self._follow(Wire(self.request, MAXIMUM_PDU, pace))
            return
        try:
            self.request = secured = secure(self.request, keys, pace)
        except HandshakeError as error:
            self.server.unsecured(str(error), self.client_address[:2])
            return
        with secured:  # the socket that the server closes has lost its descriptor to this one
            self._follow(SecureWire(secured, MAXIMUM_PDU, pace), names_in(secured.getpeercert()))

    def _follow(self, wire: Wire, secured: Secured | None = None) -> None:
        local, remote = self.request.getsockname(), self.client_address
        route = Route(remote[0], remote[1], authority(plain(local[0]), local[1]), secured)
        session = self.server.desk.open(wire, route)
        released = False
        try:
            negotiation = Negotiation(self._create_association(), wire)
            released = Lane(session, wire, negotiation, self.server.pace).run()
        finally:
            session.finish(released)
        wire.linger()


class Listener(ThreadedAssociationServer):
    """Accepts on a listening socket that others accept on too."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, ae: AE, listening: socket.socket, desk: Desk, pace: Pace, keys: Keys | None = None
    ) -> None:
        """Adopt *listening*; `start` begins to accept. With *keys*, by TLS only."""
        self.desk = desk
        self.pace = pace
        self.keys = keys
        self._beside: list[Listener] = []
        self._listening = listening
        super().__init__(
            ae, listening.getsockname(), ae.ae_title, ae.supported_contexts, request_handler=Connection
        )

    def server_bind(self) -> None:
        """Take the inherited socket instead of the one socketserver made."""
        made: Any = vars(self)["socket"]
        made.close()
        self._listening.setblocking(False)  # another receiver may have been faster
        self.socket = self._listening
        self.server_address = self._listening.getsockname()

    def server_activate(self) -> None:
        """Nothing: the supervisor listens already."""

    def server_close(self) -> None:
        """Close our descriptor. No shutdown: the other receivers still accept on the same socket."""
        self._listening.close()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept one connection; writes to it, and pauses within a PDU, have a deadline."""
        try:
            connection, address = self._listening.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:  # it waits in the kernel, for us or for another receiver
                time.sleep(_PAUSE)
            raise
        connection.settimeout(self.pace.pdu)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection, (plain(address[0]), *address[1:])

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        """Bound the connections, in all and per host: those that never ask to associate count here only."""
        host, policy = client_address[0], self.desk.policy
        reason = self.desk.census.connect(host, policy.connections, policy.connections_per_address)
        if reason is not None:
            self.refuse(reason, host)
        return reason is None

    def refuse(self, reason: Reason, host: str) -> None:
        """Count and say that a connection from *host* is not served."""
        self.desk.census.count(reason, LastWords(self.desk.clock().timestamp(), host))
        log.warning("connection_refused", reason=reason.words, address=host)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection in a thread of its own; one that cannot have a thread is over."""
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.desk.census.disconnect(client_address[0])
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, which counts until it is closed."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.shutdown_request(request)
            self.desk.census.disconnect(client_address[0])

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Log what broke a connection; the listener goes on."""
        log.exception("connection_broke", address=client_address[0])

    def unsecured(self, why: str, address: tuple[str, int]) -> None:
        """Count and say that a handshake failed; one that never began is no event: monitors make them."""
        if why:
            words = LastWords(self.desk.clock().timestamp(), address[0])
            self.desk.census.count(Reason.TLS_HANDSHAKE, words)
            log.warning("tls_handshake_failed", reason=why, address=authority(*address))

    def by_tls(self, listening: socket.socket, keys: Keys) -> None:
        """Accept on *listening* as well, by TLS."""
        self._beside.append(Listener(self.ae, listening, self.desk, self.pace, keys))

    def service_actions(self) -> None:
        """Collect garbage now and then, as pynetdicom does; one of the listeners of a process is enough for that."""
        if self.keys is None:
            super().service_actions()

    def start(self) -> None:
        """Accept, in a thread of its own for each socket."""
        for one in (self, *self._beside):
            threading.Thread(target=one.serve_forever, args=(0.2,), name="accept", daemon=True).start()
        self.desk.census.accepting()

    def shutdown(self) -> None:
        """Stop accepting; associations go on."""
        for one in (self, *self._beside):
            socketserver.BaseServer.shutdown(one)
            one.server_close()

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
