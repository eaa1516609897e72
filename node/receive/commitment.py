"""One message about storage commitment: kept as it came, a status out (PS3.4 J.3). Never decodes, never raises.

A peer that `commit_after` speaks for may ask (N-ACTION); one that commits to what we sent may report
(N-EVENT-REPORT). Success is answered only when the message is durable.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from node.model import CommitMessage, Keeper
from node.receive import command as commands
from node.receive.command import MESSAGE_ID, SOP_CLASS, SOP_INSTANCE, Elements, integer
from node.receive.wire import CommandError

PUSH_MODEL = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class (PS3.4 J.3)."""
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT = 0x0115
NO_SUCH_ACTION = 0x0123
NOT_AUTHORISED = 0x0124
NO_ROOM = 0x0213
"""Statuses of PS3.7 Annex C."""
LONGEST = 4 << 20
"""Bytes of a dataset: some 30 000 references."""
COMMANDS = {0x0100: "N-EVENT-REPORT", 0x0130: "N-ACTION"}
"""Command Fields of the requests (PS3.7 Table E.1-1)."""
_REQUESTED_CLASS, _REQUESTED_INSTANCE, _EVENT_TYPE, _ACTION_TYPE = 0x0003, 0x1001, 0x1002, 0x1008
_NUMBERS = {"N-ACTION": ((1,), NO_SUCH_ACTION), "N-EVENT-REPORT": ((1, 2), NO_SUCH_EVENT_TYPE)}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Speakers:
    """Which peers may speak of commitment, by their names."""

    asking: frozenset[str] = frozenset()
    """They may ask us to commit."""
    answering: frozenset[str] = frozenset()
    """They commit to what we send them, and report."""

    def may(self, peer: str, command: str) -> bool:
        """Whether *peer* may send this message."""
        return peer in (self.asking if command == "N-ACTION" else self.answering)

    def speaks(self, peer: str) -> bool:
        """Whether it may say anything at all: then the SOP class is accepted."""
        return peer in self.asking or peer in self.answering


def number(command: Elements) -> int:
    """Return the Event Type ID or Action Type ID, 0 where there is none."""
    found = integer(command, _EVENT_TYPE)
    return (integer(command, _ACTION_TYPE) if found is None else found) or 0


def response(request: Elements, status: int) -> bytes:
    """Return the command set that answers (PS3.7 10.3.1.2, 10.3.4.2). Raises CommandError where it cannot be."""
    if integer(request, MESSAGE_ID) is None:
        raise CommandError("a request without Message ID")
    affected = {SOP_CLASS: _REQUESTED_CLASS, SOP_INSTANCE: _REQUESTED_INSTANCE}
    named = {ours: request[theirs] for ours, theirs in affected.items() if theirs in request}
    return commands.response({**request, **named}, status)


def keep(message: CommitMessage, dataset: memoryview, keeper: Keeper, speakers: Speakers) -> int:
    """Keep one message; return the status of its response."""
    numbers, unknown = _NUMBERS[message.command]
    if not speakers.may(message.peer, message.command):
        log.warning(
            "commitment_unauthorised",
            reason=message.command,
            peer=message.peer,
            association=message.association,
        )
        return NOT_AUTHORISED
    if message.number not in numbers:
        return unknown
    if not dataset:
        return INVALID_ARGUMENT
    if len(dataset) > LONGEST:
        log.warning(
            "commitment_too_long", bytes=len(dataset), peer=message.peer, association=message.association
        )
        return NO_ROOM
    try:
        keeper.commit(message, dataset)
    except Exception as error:  # noqa: BLE001 - one message must not end the association
        log.error(  # noqa: TRY400 - a full disk needs no traceback
            "commitment_not_kept",
            error=type(error).__name__,
            peer=message.peer,
            association=message.association,
        )
        return PROCESSING_FAILURE
    return SUCCESS
