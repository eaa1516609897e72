"""C-MOVE and C-GET as SCU, Study Root (PS3.4 C.4.2, C.4.3): one series of a peer, with limits on all it may cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from node.send import command, find
from node.send.association import Association, open_association
from node.send.link import Lost
from node.send.negotiation import MOST_CONTEXTS, Pair, proposable
from node.send.queries import Fetch, Limits

MOVE = ("1.2.840.10008.5.1.4.1.2.2.2", str(ImplicitVRLittleEndian))
GET = ("1.2.840.10008.5.1.4.1.2.2.3", str(ImplicitVRLittleEndian))
"""Study Root Query/Retrieve Information Model, MOVE and GET."""
_SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless, RLELossless,
    JPEGBaseline8Bit, JPEGExtended12Bit, JPEG2000, DeflatedExplicitVRLittleEndian,
)  # fmt: skip
"""Proposed for each SOP class: a peer may send an object as it has it."""
_MOST_PDU = 131072
_PENDING = (0xFF00, 0xFF01)
_WARNING = 0xB000
_SUCCESS, _OUT_OF_RESOURCES, _NOT_ASKED = 0x0000, 0xA700, 0x0110
_COMMAND, _LAST = 1, 2
_LONGEST_COMMAND = 64 << 10


@dataclass(frozen=True, slots=True)
class Come:
    """An object that a peer is about to send on our association."""

    sop_class: str
    sop_uid: str
    transfer_syntax: str


class Keeping(Protocol):
    """Where one object goes that comes by C-GET."""

    def write(self, data: memoryview) -> None:
        """Append to it."""

    def keep(self) -> int:
        """Make it durable; the status of its C-STORE-RSP."""

    def give_up(self) -> None:
        """Remove what came so far."""


Begin = Callable[[Come], Keeping]


def fetch(asked: Fetch, limits: Limits, begin: Begin) -> tuple[str, ...]:
    """Have one series sent; the SOP Instance UIDs that it has there. Raises Lost unless all were sent."""
    until = time.monotonic() + asked.seconds
    with open_association(asked.destination, [find.FIND]) as association:
        if why := association.refused.get(find.FIND):
            raise Lost(f"does not accept C-FIND (Study Root): {why}; see its settings")
        soon = min(until, time.monotonic() + limits.seconds)
        objects = find.objects_of(association, asked.study_uid, asked.series_uid, limits, soon)
    if not objects:
        raise Lost("does not know any object of the series any more")
    if asked.way == "get":
        _get(asked, objects, begin, until)
    else:
        _move(asked, until)
    return tuple(objects)


def _identifier(asked: Fetch) -> bytes:
    wanted = Dataset()
    wanted.QueryRetrieveLevel = "SERIES"
    wanted.StudyInstanceUID, wanted.SeriesInstanceUID = asked.study_uid, asked.series_uid
    return find.encoded(wanted)


def _move(asked: Fetch, until: float) -> None:
    """C-MOVE; the objects come over associations that the peer opens to our receivers."""
    with open_association(asked.destination, [MOVE]) as association:
        if why := association.refused.get(MOVE):
            raise Lost(f"does not accept C-MOVE (Study Root): {why}; see its settings, or say priors: get")
        request = command.query_request(asked.message_id, command.C_MOVE_RQ, MOVE[0], asked.move_to)
        association.say(association.accepted[MOVE], request, _identifier(asked))
        try:
            while True:  # responses while it goes on are optional (PS3.4 C.4.2.1.5)
                _, elements, _ = association.message(asked.seconds, until)
                if _is_final(elements, command.C_MOVE_RSP, asked.message_id):
                    break
        except Lost:
            with suppress(Lost):
                association.say(association.accepted[MOVE], command.cancel_request(asked.message_id))
            raise
    judge_last("C-MOVE", elements, asked)


def _is_final(elements: Mapping[int, bytes], field: int, message_id: int) -> bool:
    about = command.number(elements, command.MESSAGE_ID_BEING_RESPONDED_TO)
    if command.number(elements, command.COMMAND_FIELD) != field or about != message_id:
        raise Lost("answered something that was not asked; see its log")
    return command.number(elements, command.STATUS) not in _PENDING


def judge_last(what: str, elements: Mapping[int, bytes], asked: Fetch) -> None:
    """Raise Lost unless the last response says that all was sent."""
    status = command.number(elements, command.STATUS)
    failed = command.number(elements, command.FAILED) or 0
    if status == 0xA801:
        raise Lost(
            f"does not know {asked.move_to} as a destination of C-MOVE; enter our AE title, address and port there"
        )
    if status == _WARNING or (status == _SUCCESS and failed):
        raise Lost(f"could not send {failed or 'some'} of the objects asked for by {what}; see its log")
    if status != _SUCCESS:
        raise Lost(f"answered {what} with {find.failure(status, elements)}; see its log")


def _get(asked: Fetch, objects: Mapping[str, str], begin: Begin, until: float) -> None:
    """C-GET; the objects come on the same association, we being the SCP of their classes (PS3.4 C.4.3)."""
    pairs = _pairs(objects.values())
    classes = dict.fromkeys(sop_class for sop_class, _ in pairs[1:])
    with open_association(asked.destination, pairs, classes, _MOST_PDU) as association:
        if why := association.refused.get(GET):
            raise Lost(f"does not accept C-GET (Study Root): {why}; see its settings, or say priors: move")
        request = command.query_request(asked.message_id, command.C_GET_RQ, GET[0])
        association.say(association.accepted[GET], request, _identifier(asked))
        try:
            elements = _Taking(association, asked, frozenset(objects), begin, until).to_the_end()
        except Lost:
            with suppress(Lost):
                association.say(association.accepted[GET], command.cancel_request(asked.message_id))
            raise
    judge_last("C-GET", elements, asked)


def _pairs(sop_classes: Iterable[str]) -> list[Pair]:
    found = [
        (sop_class, str(syntax))
        for sop_class in dict.fromkeys(sop_classes)
        for syntax in _SYNTAXES
        if proposable((sop_class, str(syntax)))
    ]
    return [GET, *found[: MOST_CONTEXTS - 1]]


class _Taking:
    """What comes on an association between C-GET and its last response."""

    def __init__(
        self, association: Association, asked: Fetch, objects: frozenset[str], begin: Begin, until: float
    ) -> None:
        self._association = association
        self._asked = asked
        self._objects = objects
        self._begin = begin
        self._until = until
        self._pairs = {number: pair for pair, number in association.accepted.items()}
        # The message in hand.
        self._command = bytearray()
        self._elements: Mapping[int, bytes] = {}
        self._context = 0
        self._size = 0
        self._keeping: Keeping | None = None
        self._status = _SUCCESS

    def to_the_end(self) -> Mapping[int, bytes]:
        """Take objects until the last response came, and return it. Raises Lost."""
        try:
            while True:
                for context, control, data in self._association.fragments(
                    self._association.patience, self._until
                ):
                    last = self._take(context, control, memoryview(data))
                    if last is not None:
                        return last
        finally:
            if self._keeping is not None:
                self._keeping.give_up()

    def _take(self, context: int, control: int, data: memoryview) -> Mapping[int, bytes] | None:
        """One fragment; the last response, once that came."""
        if not control & _COMMAND:
            self._write(data)
            if control & _LAST:
                self._end_of_object()
            return None
        self._command += data
        if len(self._command) > _LONGEST_COMMAND:
            raise Lost("sent a command of more than 64 KiB; see its log")
        if not control & _LAST:
            return None
        try:
            self._elements, self._command = command.parse(bytes(self._command)), bytearray()
        except ValueError as error:
            raise Lost(f"sent a message that cannot be read ({error}); see its log") from error
        self._context = context
        if command.number(self._elements, command.COMMAND_FIELD) == command.C_STORE_RQ:
            self._begin_object()
        elif _is_final(self._elements, command.C_GET_RSP, self._asked.message_id):
            return self._elements
        return None

    def _begin_object(self) -> None:
        pair = self._pairs.get(self._context)
        uid = command.text(self._elements, command.AFFECTED_SOP_INSTANCE_UID)
        if pair is None or self._keeping is not None:
            raise Lost("sent an object where none was expected; see its log")
        self._size, self._status = 0, _SUCCESS
        if uid not in self._objects:  # nothing of what was not asked for is written down
            self._status = _NOT_ASKED
            return
        try:
            self._keeping = self._begin(Come(pair[0], uid, pair[1]))
        except OSError:
            self._status = _OUT_OF_RESOURCES

    def _write(self, data: memoryview) -> None:
        self._size += len(data)
        if self._keeping is None:
            if self._size > self._asked.object_size:
                raise Lost(f"sent an object of more than {self._asked.object_size} bytes")
            return
        if self._size > self._asked.object_size:
            self._refuse()
            raise Lost(f"sent an object of more than {self._asked.object_size} bytes")
        try:
            self._keeping.write(data)
        except OSError:
            self._refuse()

    def _refuse(self) -> None:
        if self._keeping is not None:
            self._keeping.give_up()
        self._keeping, self._status = None, _OUT_OF_RESOURCES

    def _end_of_object(self) -> None:
        if self._keeping is not None:
            self._status = self._keeping.keep()
            self._keeping = None
        self._association.say(self._context, command.store_response(self._elements, self._status))
        if self._status == _NOT_ASKED:
            raise Lost("sent an object by C-GET that was not asked for; see its log")
