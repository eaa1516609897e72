"""Storage commitment on the wire, when we call: N-ACTION as SCU, N-EVENT-REPORT as SCP (PS3.4 J.3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from pydicom.uid import ImplicitVRLittleEndian

from node import commitment
from node.commitment import INSTANCE, PROCESSING_FAILURE, PUSH_MODEL, REQUEST, Dialogue
from node.send import command
from node.send.association import Association, open_association
from node.send.link import Lost
from node.send.protocol import Ask, Destination

_CONTEXT = (PUSH_MODEL, str(ImplicitVRLittleEndian))  # every SCP takes it (PS3.5 10.1)
_LOOK = 0.5
"""Seconds between two looks at whether the node is stopping."""
_DONE = (0x0000, 0x0001, 0x0107, 0x0116)
"""Success, and warnings (PS3.7 C.4) that leave the request accepted."""
_STATUSES = {
    0x0110: "processing failure",
    0x0112: "no such SOP instance",
    0x0118: "no such SOP class",
    0x0122: "SOP class not supported",
    0x0123: "no such action",
    0x0124: "not authorised",
    0x0131: "duplicate transaction UID",
    0x0211: "unrecognised operation",
    0x0213: "resource limitation",
}


def ask(asking: Ask, heard: Callable[[Dialogue], None], stopping: Callable[[], bool]) -> str | None:
    """Ask to commit; None when the request was taken, else why not and what next.

    What the peer reports of it on this association, at once or within `patience`, is answered with success
    and given to *heard*: whoever loses that must ask again.
    """
    destination = asking.destination
    try:
        with open_association(destination, [_CONTEXT]) as association:
            if fault := _refused(association, destination):
                return fault
            message_id = association.next_id()
            request = command.action_request(message_id, PUSH_MODEL, INSTANCE, REQUEST)
            association.say(association.accepted[_CONTEXT], request, commitment.encode(asking.said))
            talk = _Talk(association, asking.said.transaction_uid, heard)
            status = talk.response(command.N_ACTION_RSP, message_id, destination.timeouts.answer)
            if status not in _DONE:
                return _failed(destination, "N-ACTION", status)
            talk.wait(asking.patience, stopping)
    except Lost as error:
        return f"{destination.where} {error}"
    return None


def report(destination: Destination, said: Dialogue) -> str | None:
    """Tell a peer what became of its request; None when it took it, else why not and what next."""
    try:
        with open_association(destination, [_CONTEXT], as_scp=[PUSH_MODEL]) as association:
            if fault := _refused(association, destination):
                return fault
            message_id = association.next_id()
            request = command.event_report(message_id, PUSH_MODEL, INSTANCE, said.event_type)
            association.say(association.accepted[_CONTEXT], request, commitment.encode(said))
            talk = _Talk(association, "", lambda _said: None)
            status = talk.response(command.N_EVENT_REPORT_RSP, message_id, destination.timeouts.answer)
    except Lost as error:
        return f"{destination.where} {error}"
    return None if status in _DONE else _failed(destination, "N-EVENT-REPORT", status)


def _refused(association: Association, destination: Destination) -> str:
    why = association.refused.get(_CONTEXT)
    return f"{destination.where} does not accept Storage Commitment: {why}; see its settings" if why else ""


def _failed(destination: Destination, what: str, status: int | None) -> str:
    if status is None:
        return f"{destination.where} answered {what} without a status; see its log"
    words = _STATUSES.get(status, "a status the standard does not explain")
    return f"{destination.where} answered {what} with {status:04X}, {words}; see its log"


class _Talk:
    """What a peer says on an association that is open for commitment."""

    def __init__(
        self, association: Association, transaction_uid: str, heard: Callable[[Dialogue], None]
    ) -> None:
        self._association = association
        self._transaction_uid = transaction_uid
        self._heard = heard
        self._answered = False

    def response(self, field: int, message_id: int, within: float) -> int | None:
        """The status of the response to our request; some peers report before they respond. Raises Lost."""
        while True:
            context, elements, dataset = self._association.message(within)
            if command.number(elements, command.COMMAND_FIELD) == field:
                if command.number(elements, command.MESSAGE_ID_BEING_RESPONDED_TO) != message_id:
                    raise Lost("answered something that was not asked; see its log")
                return command.number(elements, command.STATUS)
            self._take(context, elements, dataset)

    def wait(self, patience: float, stopping: Callable[[], bool]) -> None:
        """Wait for the report; without it, or without the peer, it comes over another association."""
        until = time.monotonic() + patience
        try:
            while not self._answered and not stopping() and (left := until - time.monotonic()) > 0:
                if self._association.ready(min(left, _LOOK)):
                    self._take(*self._association.message(30.0))
        except Lost:
            return

    def _take(self, context: int, elements: Mapping[int, bytes], dataset: bytes) -> None:
        if command.number(elements, command.COMMAND_FIELD) != command.N_EVENT_REPORT_RQ:
            raise Lost("said something that was not asked; see its log")
        said = None
        try:
            said = commitment.decode(dataset, _CONTEXT[1])
        except ValueError:
            status = PROCESSING_FAILURE
        else:  # of another request it is kept only where it comes over an association of the peer's
            ours = said.transaction_uid == self._transaction_uid
            status = 0x0000 if ours else PROCESSING_FAILURE
        self._association.say(context, command.event_report_response(elements, status))
        if said is not None and status == 0x0000:
            self._answered = True
            self._heard(said)
