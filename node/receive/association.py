"""What is known of one association, and how what it brings reaches the Keeper.

`Desk` is what all associations of a receiver share; `Session` is one of them, from the connection to exactly
one `AssociationEnd`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

import structlog

from node.model import Arrival, AssociationEnd, CommitMessage, Keeper, StepMessage
from node.receive import commitment, mpps
from node.receive.admission import Accept, Policy, Reject, Request, Secured, admit
from node.receive.census import Census, LastWords
from node.receive.command import FIELD, SOP_CLASS, SOP_INSTANCE, Elements, integer, origin, text
from node.receive.reasons import Reason, cause
from node.receive.services import Answer, Context, Service
from node.receive.storing import SUCCESS, FullDisk, Storing
from node.receive.wire import FaultError, QuietError, Wire

log = structlog.get_logger()

_SAY_ALL = {Reason.CALLED_TITLE, Reason.CALLING_TITLE, Reason.LIMIT, Reason.IDLE}
"""Reasons that need no more words than their own, with titles and address."""


@dataclass(frozen=True, slots=True)
class Route:
    """Both ends of a connection."""

    host: str
    port: int
    local: str
    """`host:port` of ours."""
    secured: Secured | None = None
    """None without TLS."""

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
    services: Mapping[int, Service] = field(default_factory=dict)
    """Command Field → what serves it; without one, C-STORE and C-ECHO apart, pynetdicom answers."""
    speakers: commitment.Speakers = field(default_factory=commitment.Speakers)
    """Who may speak of storage commitment."""
    performers: frozenset[str] = frozenset()
    """Which peers may tell of performed procedure steps (MPPS), by their names."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the receiver is about to end: each association may finish the message in hand."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _sessions: set[Session] = field(default_factory=set)
    _owed: list[AssociationEnd] = field(default_factory=list)

    def open(self, wire: Wire, route: Route) -> Session:
        """Begin to follow a connection."""
        with self._lock:
            session = Session(self, f"{self.run}-{next(self._numbers)}", wire, route)
            self._sessions.add(session)
        return session

    def sessions(self) -> list[Session]:
        """Return the connections open now."""
        with self._lock:
            return list(self._sessions)

    def admit(self, request: Request | Reject) -> Accept | Reject:
        """Decide over a request, unless reading it has decided; who is accepted has a place of its own.

        Only who may enter waits for the receivers' common lock: a flood of strangers holds up nobody.
        """
        if isinstance(request, Reject):
            return request
        answer = admit(request, self.policy, 0)
        if isinstance(answer, Accept) and (found := self.census.enter(self.policy.associations)) is not None:
            return admit(request, self.policy, found)
        return answer

    def forget(self, session: Session) -> None:
        """Stop following a connection that is over."""
        with self._lock:
            self._sessions.discard(session)
        session.leave()

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

    def __init__(self, desk: Desk, name: str, wire: Wire, route: Route) -> None:
        self.name = name
        """Unique in the data folder: `<receiver run>-<number>`."""
        self.peer = ""
        """Set when it is admitted."""
        self.desk = desk
        self.route = route
        self._wire = wire
        self._inside = False
        self._calling = self._called = ""
        self._begun = self._objects = self._bytes = 0

    def admit(self, request: Request | Reject) -> Accept | Reject:
        """Decide over an association request, and say so where it is refused."""
        if isinstance(request, Request):
            self._calling, self._called = request.calling, request.called
        answer = self.desk.admit(request)
        if isinstance(answer, Accept):
            self.peer, self._inside = answer.peer, True
        else:
            self.count(answer.because, answer.why)
            log.warning(
                "association_rejected",
                reason=answer.why,
                address=self.route.remote,
                status=f"{answer.result}/{answer.source}/{answer.reason}",
            )
        return answer

    def begin(self, context: Context, command: Elements, most: int) -> Storing:
        """Begin a C-STORE of at most *most* bytes."""
        self._begun += 1
        arrival = Arrival(
            sop_class=text(command, SOP_CLASS),
            sop_uid=text(command, SOP_INSTANCE),
            transfer_syntax=context.transfer_syntax,
            calling=self._calling,
            called=self._called,
            peer=self.peer,
            address=self.route.remote,
            local_address=self.route.local,
            association=self.name,
            received_at=self.desk.clock(),
            origin=origin(command),
        )
        return Storing(arrival, self.desk.keeper, self.desk.disk, most)

    def end(self, storing: Storing) -> int:
        """End a C-STORE whose dataset is complete, and count it; the status to answer."""
        status = storing.end()
        self.desk.census.stored(self.peer, storing.size, status == SUCCESS)
        if storing.refused is not None:
            self.count(storing.refused, storing.why)
        if status == SUCCESS:
            self._objects += 1
            self._bytes += storing.size
        return status

    @property
    def in_either_role(self) -> str:
        """The SOP class that this peer may be SCU or SCP of, as it proposes; empty for most peers."""
        return commitment.PUSH_MODEL if self.desk.speakers.speaks(self.peer) else ""

    @property
    def as_performer(self) -> str:
        """The SOP class under which this peer may tell of performed procedure steps; empty where it may not."""
        return mpps.SOP_CLASS_UID if self.peer in self.desk.performers else ""

    def serves(self, context: Context, command: Elements) -> bool:
        """Whether it is a message about storage commitment, or about a performed procedure step."""
        return bool(_commitment(context, command) or _step(context, command))

    def serve(self, context: Context, command: Elements, dataset: bytes) -> Answer | None:
        """Answer such a message; None where it is about something else."""
        if name := _step(context, command):
            return self._serve_step(name, context, command, dataset)
        name = _commitment(context, command)
        if not name:
            return None
        message = CommitMessage(
            command=name,
            number=commitment.number(command),
            transfer_syntax=context.transfer_syntax,
            peer=self.peer,
            called=self._called,
            association=self.name,
            received_at=self.desk.clock(),
        )
        status = commitment.keep(message, memoryview(dataset), self.desk.keeper, self.desk.speakers)
        return Answer(commitment.response(command, status))

    def _serve_step(self, name: str, context: Context, command: Elements, dataset: bytes) -> Answer:
        message = StepMessage(
            command=name,
            sop_uid=mpps.instance(command),
            transfer_syntax=context.transfer_syntax,
            peer=self.peer,
            called=self._called,
            association=self.name,
            received_at=self.desk.clock(),
        )
        status = mpps.keep(message, memoryview(dataset), self.desk.keeper, self.desk.performers)
        return Answer(commitment.response(command, status))

    def count(self, reason: Reason, why: str = "") -> None:
        """Count what was refused or ended, who it was, and *why* where the reason does not say it all."""
        now, why = self.desk.clock().timestamp(), "" if reason in _SAY_ALL else why
        words = LastWords(now, self.route.host, self._calling, self._called, why)
        self.desk.census.count(reason, words)

    def broke(self, error: Exception, *, in_hand: bool) -> None:
        """Count an end by *error*, while a message was *in_hand* or between two.

        Whoever watches a port connects and says nothing, or goes again: that is no association.
        """
        if self.peer or not isinstance(error, QuietError | ConnectionError):
            # The text of an error that nobody expected may quote an object.
            self.count(
                cause(error, in_hand), str(error) if isinstance(error, FaultError | TimeoutError) else ""
            )

    def leave(self) -> None:
        """Free its place: before the peer hears of the end, so that it may come again at once."""
        if self._inside:
            self._inside = False
            self.desk.census.leave()

    def stop(self, *, at_once: bool) -> None:
        """Make its thread find that the receiver is stopping: *at_once*, or if it waits for the next message."""
        if at_once or self._wire.idle:
            self._wire.hang_up()

    def finish(self, released: bool) -> None:
        """Account for the end of the connection; called once, whatever ended it.

        An association that began no C-STORE leaves no record: a C-ECHO every few seconds would fill the disk.
        """
        try:
            if self._begun:
                end = AssociationEnd(self.name, self.peer, self._objects, not released, self.desk.clock())
                self.desk.record(end)
        finally:
            self.desk.forget(self)
        if not self.peer:
            return
        log.info(
            "association_released" if released else "association_aborted",
            association=self.name,
            peer=self.peer,
            address=self.route.remote,
            objects=self._objects,
            count=self._begun,
            bytes=self._bytes,
        )


def _commitment(context: Context, command: Elements) -> str:
    if context.abstract_syntax != commitment.PUSH_MODEL:
        return ""
    return commitment.COMMANDS.get(integer(command, FIELD) or 0, "")


def _step(context: Context, command: Elements) -> str:
    if context.abstract_syntax != mpps.SOP_CLASS_UID:
        return ""
    return mpps.COMMANDS.get(integer(command, FIELD) or 0, "")
