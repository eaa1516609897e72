"""What is known of one association, and how its events reach the Keeper.

`Desk` is what all associations of a receiver share; `Session` is one of them, from the connection to exactly
one `AssociationEnd`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

import structlog
from pynetdicom import evt

from node.model import Arrival, AssociationEnd, Keeper
from node.receive.admission import Accept, Policy, Reject, Request, admit
from node.receive.limits import Census
from node.receive.storing import SUCCESS, FullDisk, store

NOT_AUTHORISED = 0x0124
"""Refused: not authorised (PS3.7 Annex C)."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Route:
    """Both ends of a connection."""

    host: str
    port: int
    local: str
    """`host:port` of ours."""

    @property
    def remote(self) -> str:
        """`host:port` of the sender."""
        return authority(self.host, self.port)


def authority(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 address in brackets (RFC 3986 3.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(eq=False)
class Desk:
    """What the associations of one receiver share."""

    run: int
    keeper: Keeper
    policy: Policy
    census: Census
    disk: FullDisk
    clock: Callable[[], datetime]
    """Aware time of now."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the receiver is about to end: each association may finish one more message."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _sessions: set[Session] = field(default_factory=set)
    _owed: list[AssociationEnd] = field(default_factory=list)

    def open(self, assoc: Any, route: Route) -> Session:
        """Begin to follow a connection."""
        with self._lock:
            session = Session(self, f"{self.run}-{next(self._numbers)}", assoc, route)
            self._sessions.add(session)
        return session

    def sessions(self) -> list[Session]:
        """Return the connections open now."""
        with self._lock:
            return list(self._sessions)

    def admit(self, request: Request) -> Accept | Reject:
        """Decide over a request and count it in one step."""
        with self._lock:
            answer = admit(request, self.policy, self.census.total())
            if isinstance(answer, Accept):
                self.census.add(1)
            else:
                self.census.reject()
        return answer

    def forget(self, session: Session) -> None:
        """Stop following a connection that is over."""
        with self._lock:
            self._sessions.discard(session)
        if session.peer:
            self.census.add(-1)

    def record(self, end: AssociationEnd) -> None:
        """Record an end; where the disk refuses it is owed, and `settle` tries again."""
        with self._lock:
            self._owed.append(end)
        self.settle()

    def settle(self) -> None:
        """Record what is owed; what the disk still refuses stays owed."""
        with self._lock:
            owed, self._owed = self._owed, []
        for i, end in enumerate(owed):
            try:
                self.keeper.end(end)
            except OSError as error:
                log.warning("association_end_owed", count=len(owed) - i, reason=error.strerror)
                with self._lock:
                    self._owed[:0] = owed[i:]
                return


class Session:
    """One connection and the association on it."""

    def __init__(self, desk: Desk, name: str, assoc: Any, route: Route) -> None:
        self.name = name
        """Unique in the data folder: `<receiver run>-<number>`."""
        self.peer = ""
        """Set when it is admitted."""
        self._desk = desk
        self._assoc = assoc
        self._route = route
        self._calling = self._called = ""
        self._busy = False
        self._finished_last = False
        self._begun = self._objects = self._bytes = 0

    def handlers(self) -> list[tuple[Any, Callable[[Any], Any]]]:
        """Return the pynetdicom events this session answers."""
        return [
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_C_ECHO, self.on_echo),
            (evt.EVT_C_STORE, self.on_store),
        ]

    def on_requested(self, event: Any) -> None:
        """A-ASSOCIATE-RQ: admit it or answer A-ASSOCIATE-RJ."""
        try:
            answer = self._admission(event)
        except Exception as error:  # noqa: BLE001 - pynetdicom would log it and let the peer in
            answer = Reject(2, 3, 1, f"its request broke the admission: {type(error).__name__}")
        if isinstance(answer, Accept):
            self.peer = answer.peer
            return
        log.warning(
            "association_rejected",
            reason=answer.why,
            address=self._route.remote,
            status=f"{answer.result}/{answer.source}/{answer.reason}",
        )
        event.assoc.acse.send_reject(answer.result, answer.source, answer.reason)
        event.assoc.kill()  # waits until the rejection has gone out

    def _admission(self, event: Any) -> Accept | Reject:
        primitive = event.assoc.requestor.primitive
        self._calling = primitive.calling_ae_title.strip(" ")
        self._called = primitive.called_ae_title.strip(" ")
        context = str(primitive.application_context_name or "")
        return self._desk.admit(Request(self._calling, self._called, self._route.host, context))

    def on_echo(self, _event: Any) -> int:
        """C-ECHO-RQ: success."""
        return SUCCESS if self.peer else NOT_AUTHORISED

    def on_store(self, event: Any) -> int:
        """C-STORE-RQ: keep the dataset as it came; the status to answer."""
        if not self.peer:
            return NOT_AUTHORISED
        try:
            return self._store(event)
        finally:
            event.request.DataSet = None  # the bytes need not wait for the next object to be forgotten

    def _store(self, event: Any) -> int:
        request = event.request
        arrival = Arrival(
            sop_class=str(request.AffectedSOPClassUID or ""),
            sop_uid=str(request.AffectedSOPInstanceUID or ""),
            transfer_syntax=str(event.context.transfer_syntax),
            calling=self._calling,
            called=self._called,
            peer=self.peer,
            address=self._route.remote,
            local_address=self._route.local,
            association=self.name,
            received_at=self._desk.clock(),
        )
        self._begun += 1
        with request.DataSet.getbuffer() if request.DataSet else memoryview(b"") as dataset:
            status = store(arrival, dataset, self._desk.keeper, self._desk.disk)
            self._desk.census.stored(self.peer, len(dataset), status == SUCCESS)
            if status == SUCCESS:
                self._objects += 1
                self._bytes += len(dataset)
        return status

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Surround one message, from the request to its queued response."""
        self._busy = True
        try:
            yield
        finally:
            self._finished_last = self._desk.stopping.is_set()
            self._busy = False

    def stop(self) -> bool:
        """Abort unless a message is in hand; True when the association was told."""
        if self._busy or (self._assoc.dimse.message is not None and not self._finished_last):
            return False
        self.abort()
        return True

    def abort(self) -> None:
        """Send A-ABORT, without waiting; a connection that never asked to associate is just closed."""
        with contextlib.suppress(Exception):
            if self.peer:
                self._assoc._abort_nonblocking()
            else:
                self._assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)

    def finish(self, released: bool) -> None:
        """Account for the end of the connection; called once, whatever ended it.

        An association that began no C-STORE leaves no record: a C-ECHO every few seconds would fill the disk.
        """
        try:
            if self._begun:
                end = AssociationEnd(self.name, self.peer, self._objects, not released, self._desk.clock())
                self._desk.record(end)
        finally:
            self._desk.forget(self)
        if not self.peer:
            return
        log.info(
            "association_released" if released else "association_aborted",
            association=self.name,
            peer=self.peer,
            address=self._route.remote,
            objects=self._objects,
            count=self._begun,
            bytes=self._bytes,
        )
