"""One association on one thread, from A-ASSOCIATE-RQ to its end: the fast lane for C-STORE.

Dataset fragments go from the socket's buffer into the object's file as they come; each request is answered
before the next byte is read, so that TCP holds back a peer that pipelines (PS3.7 D.3.3.3). What is neither
C-STORE nor C-ECHO is gathered whole, within a limit, and given to the session (storage commitment, performed
procedure steps), else to the desk's service of its Command Field; without one it is answered that the operation is
not recognised.
"""

from __future__ import annotations

import contextlib
import time

import structlog

from node.receive.admission import Reject
from node.receive.association import Session
from node.receive.command import (
    C_CANCEL,
    C_ECHO,
    C_STORE,
    FIELD,
    MESSAGE_ID,
    SOP_CLASS,
    Elements,
    integer,
    response,
)
from node.receive.limits import Pace, Progress
from node.receive.messages import Messages, encode_message
from node.receive.negotiation import Agreement, Negotiator, read, rejection
from node.receive.reasons import Reason
from node.receive.services import UNRECOGNISED, Answer, Context, unrecognised
from node.receive.storing import SUCCESS, Storing
from node.receive.wire import (
    ABORT,
    ASSOCIATE_RQ,
    BY_PROVIDER,
    BY_USER,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    CommandError,
    EndOfStreamError,
    FaultError,
    QuietError,
    SlowError,
    Wire,
)

log = structlog.get_logger()


class _StoppingError(Exception):
    """The receiver is about to end, and the message in hand is answered."""


class Lane:
    """Serves one association; the `Receiver` of its messages."""

    def __init__(self, session: Session, wire: Wire, negotiator: Negotiator, pace: Pace) -> None:
        self._session = session
        self._wire = wire
        self._negotiator = negotiator
        self._pace = pace
        self._messages = Messages(self)
        self._progress = Progress(pace)
        self._agreed = Agreement({}, 0, b"")
        # The message in hand.
        self._context = Context(0, "", "")
        self._command: Elements = {}
        self._dataset = bytearray()
        self._gathers = False
        self._storing: Storing | None = None

    def run(self) -> bool:
        """Serve until the association is over; True when it was released."""
        try:
            return self._negotiate() and self._serve()
        except (_StoppingError, EndOfStreamError) as error:
            if not self._session.desk.stopping.is_set():
                self._broke(error)
            elif self._session.peer:
                self._wire.abort(BY_USER)
        except (FaultError, OSError) as error:
            self._broke(error)
            self._give_up_on(error)
        except Exception as error:
            self._broke(error)
            self._wire.abort(BY_PROVIDER)
            raise
        finally:
            if self._storing is not None:
                self._storing.give_up()
        return False

    def _broke(self, error: Exception) -> None:
        self._session.broke(error, in_hand=self._messages.in_hand)

    def _give_up_on(self, error: Exception) -> None:
        """Say what the peer did, and abort."""
        name, peer, address = self._session.name, self._session.peer, self._session.route.remote
        if isinstance(error, CommandError):
            log.warning("command_invalid", reason=str(error), association=name, peer=peer, address=address)
            self._wire.abort(BY_USER)
            return
        if isinstance(error, FaultError):
            log.warning("pdu_invalid", reason=str(error), association=name, peer=peer, address=address)
        elif isinstance(error, SlowError):
            log.warning("peer_slow", reason=str(error), association=name, peer=peer, address=address)
        elif peer or not isinstance(error, QuietError | ConnectionError):
            kind, why = (
                type(error).__name__,
                str(error) if isinstance(error, TimeoutError) else "the connection broke",
            )
            log.warning("peer_silent", reason=why, error=kind, association=name, peer=peer, address=address)
        else:
            return  # a connection that says nothing and goes is no event: whoever watches a port makes them
        self._wire.abort(BY_PROVIDER)

    def _negotiate(self) -> bool:
        kind, body = self._wire.pdu(self._pace.negotiate, idle=True)
        if kind == ABORT:
            return False
        if kind != ASSOCIATE_RQ:
            raise FaultError(f"PDU type {kind} before an association")
        request, route = bytes(body), self._session.route
        answer = self._session.admit(read(request, route.host, route.secured))
        if isinstance(answer, Reject):
            self._wire.send(rejection(answer))
            return False
        self._agreed = self._negotiator.agree(
            request, self._session.in_either_role, self._session.as_performer
        )
        self._wire.send(self._agreed.accept)
        return True

    def _serve(self) -> bool:
        while True:
            in_hand = self._messages.in_hand
            kind, body = self._wire.pdu(self._pace.pdu if in_hand else self._pace.idle, idle=not in_hand)
            if kind == P_DATA:
                self._messages.take(body)
                if in_hand and self._messages.in_hand:
                    self._expect_progress(len(body))
            elif kind == ABORT:
                self._session.count(Reason.ABORTED)
                return False
            elif kind == RELEASE_RQ and not in_hand:
                self._session.leave()
                with contextlib.suppress(OSError):  # many close without waiting for the answer
                    self._wire.send(RELEASE_RP)
                return True
            else:
                raise FaultError(f"PDU type {kind} within {'a message' if in_hand else 'an association'}")

    def _expect_progress(self, size: int) -> None:
        """Raise SlowError where the message in hand drips; what our disk held back waits to be read."""
        if self._progress.is_slow(size, time.monotonic()) and not self._wire.has_more():
            raise SlowError(f"a message at less than {self._pace.slowest:g} bytes per second")

    def begin(self, context: int, command: Elements) -> None:
        """A command is complete. Raises FaultError where it cannot be answered."""
        found = self._agreed.contexts.get(context)
        if found is None:
            raise FaultError("a message on a presentation context that was not accepted")
        self._context, self._command, self._dataset = found, command, bytearray()
        field = integer(command, FIELD)
        if field in (C_STORE, C_ECHO) and integer(command, MESSAGE_ID) is None:
            raise CommandError("a request without Message ID")
        if field == C_ECHO and not command.get(SOP_CLASS):
            raise CommandError("C-ECHO without Affected SOP Class UID")
        if field == C_STORE:
            self._storing = self._session.begin(self._context, command, self._pace.object_size)
        else:
            served = field in self._session.desk.services
            self._gathers = served or self._session.serves(self._context, command)

    def write(self, fragment: memoryview) -> None:
        """A part of the dataset came."""
        if self._storing is not None:
            self._storing.write(fragment)
            return
        if not self._gathers:
            return  # nobody will look at it
        self._dataset += fragment
        if len(self._dataset) > self._pace.message_size:
            raise FaultError(f"a dataset of more than {self._pace.message_size} bytes outside C-STORE")

    def end(self) -> None:
        """The message is complete: answer it."""
        self._progress.restart()
        if self._storing is not None:
            status = self._session.end(self._storing)
            self._storing = None
            self._answer(Answer(response(self._command, status)))
        elif integer(self._command, FIELD) == C_ECHO:
            self._answer(Answer(response(self._command, SUCCESS)))
        else:
            self._serve_other()
        if self._session.desk.stopping.is_set():
            raise _StoppingError

    def _serve_other(self) -> None:
        """The one place for what is neither C-STORE nor C-ECHO."""
        field, dataset = integer(self._command, FIELD), bytes(self._dataset)
        service = self._session.desk.services.get(-1 if field is None else field)
        answer = self._session.serve(self._context, self._command, dataset)
        if answer is not None:
            self._answer(answer)
        elif service is not None:
            self._answer(service(self._context, self._command, dataset))
        elif field != C_CANCEL:  # whatever it wants to cancel is answered already
            refusal = Answer(unrecognised(self._command))
            log.warning(
                "request_unserved",
                status=f"{UNRECOGNISED:04X}",
                association=self._session.name,
                peer=self._session.peer,
            )
            self._answer(refusal)

    def _answer(self, answer: Answer) -> None:
        most = self._agreed.peer_maximum
        self._wire.send(encode_message(self._context.number, answer.command, answer.dataset, most))
