"""One association that we open: negotiate, C-STORE, C-ECHO or a message with a short dataset, release.

pynetdicom says what goes into an A-ASSOCIATE and reads the answer; the exchange itself is ours, on one
thread. `Association.send_c_store` of pynetdicom decodes and encodes the dataset, queues the whole
object in memory, and never returns when the peer stops reading. Here the file's bytes leave as they
are, through one buffer, and every wait is bounded.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from node.errors import Broken
from node.send import command
from node.send.link import Link, Lost, abort_words, connect
from node.send.negotiation import Pair, judge, read_answer, request
from node.send.protocol import Destination

VERIFICATION = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")

_BUFFER = 256 * 1024
_MOST_FRAGMENT = 128 * 1024
_HEADER = struct.Struct(">BxIIBB")  # P-DATA-TF and one PDV: PS3.8 9.3.5, E.2
_MOST_ANSWER = 4 << 20
"""Longest message with a dataset that we take, bytes: a report on 30 000 objects."""
_COMMAND, _LAST = 1, 2
_DATA, _RELEASE_RQ, _RELEASE_RP, _ABORT = 4, 5, 6, 7
_RELEASE = {_RELEASE_RQ: struct.pack(">BxIxxxx", 5, 4), _RELEASE_RP: struct.pack(">BxIxxxx", 6, 4)}


@dataclass(frozen=True, slots=True)
class Answer:
    """A C-STORE-RSP: its status, the elements it complains about, and its own comment."""

    status: int
    offending: str
    comment: str


class Association:
    """An established association; use it as a context manager: it is released, or aborted on an error."""

    def __init__(self, link: Link, destination: Destination, most: int) -> None:
        self._link = link
        self._destination = destination
        self.accepted: Mapping[Pair, int] = {}
        self.refused: Mapping[Pair, str] = {}
        self._fragment = _fragment(most)
        self._buffer = memoryview(bytearray(_BUFFER))
        self._message_id = 0

    def __enter__(self) -> Association:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._release()
        else:
            self._link.abort()

    def store(self, pair: Pair, sop_uid: str, dataset: BinaryIO, length: int) -> Answer:
        """Send *length* bytes from where *dataset* stands, as they are, and wait for the answer.

        *pair* must be in `accepted`. Raises Lost when the association is over, Broken when the file
        ends too early, OSError when it cannot be read; after any of them it must be left.
        """
        self._message_id = self._message_id % 0xFFFF + 1
        context = self.accepted[pair]
        used = self._put(context, _COMMAND, command.store_request(self._message_id, pair[0], sop_uid))
        self._put_file(context, dataset, length, used)
        elements = self._answer(context, command.C_STORE_RSP)
        status = command.number(elements, command.STATUS)
        if status is None:
            raise Lost("answered C-STORE without a status; see its log")
        return Answer(status, command.offending(elements), command.text(elements, command.ERROR_COMMENT))

    def echo(self) -> int | None:
        """C-ECHO; returns its status."""
        self._message_id += 1
        context = self.accepted[VERIFICATION]
        used = self._put(context, _COMMAND, command.echo_request(self._message_id))
        self._link.send(self._buffer[:used])
        return command.number(self._answer(context, command.C_ECHO_RSP), command.STATUS)

    @property
    def patience(self) -> float:
        """Seconds an answer may take, as the destination is set."""
        return self._destination.timeouts.answer

    def next_id(self) -> int:
        """A Message ID for a request."""
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def say(self, context: int, message: bytes, dataset: bytes = b"") -> None:
        """Send a command set, and a dataset where there is one. Raises Lost."""
        used = self._put(context, _COMMAND, message)
        self._put_file(context, BytesIO(dataset), len(dataset), used)

    def ready(self, within: float) -> bool:
        """Whether a message begins *within* seconds. Raises Lost."""
        return self._link.ready(within)

    def message(self, within: float, until: float | None = None) -> tuple[int, Mapping[int, bytes], bytes]:
        """Wait for the peer's next message: its context, command set and dataset. Raises Lost.

        Each PDU may take *within* seconds, all of it until the monotonic moment *until*.
        """
        parts, whole = {_COMMAND: bytearray(), 0: bytearray()}, False
        context, elements = 0, dict[int, bytes]()
        while not whole:
            for on, control, data in self.fragments(within, until):
                part = parts[control & _COMMAND]
                part += data
                context = on
                if len(part) > _MOST_ANSWER:
                    raise Lost("sent more than we take; see its log")
                if not control & _LAST:
                    continue
                if control & _COMMAND:
                    elements = dict(_parsed(part))
                whole = not control & _COMMAND or not command.has_dataset(elements)
        return context, elements, bytes(parts[0])

    def fragments(self, within: float, until: float | None = None) -> Iterable[tuple[int, int, bytes]]:
        """The fragments of the next PDU (PS3.8 9.3.5, Annex E): context, control header, data. Raises Lost."""
        kind, body = self._receive(within, until)
        if kind == _ABORT:
            raise Lost(abort_words(body))
        if kind == _RELEASE_RQ:
            self._link.send(_RELEASE[_RELEASE_RP])
            raise Lost("released the association; see its log")
        if kind != _DATA:
            raise Lost(f"sent PDU type {kind} instead of a message; see its log")
        position = 0
        while position + 6 <= len(body):
            length, on, control = struct.unpack_from(">IBB", body, position)
            if length < 2 or position + 4 + length > len(body):
                raise Lost("sent a PDU that breaks PS3.8; see its log")
            yield on, control, body[position + 6 : position + 4 + length]
            position += 4 + length

    def _receive(self, within: float, until: float | None) -> tuple[int, bytes]:
        if until is None:
            return self._link.receive(within)
        left = until - time.monotonic()
        try:
            return self._link.receive(max(0.0, min(within, left)))
        except Lost:
            if time.monotonic() < until:
                raise
            raise Lost("did not come to an end in time; look whether it is overloaded") from None

    def _put(self, context: int, control: int, data: bytes) -> int:
        """Lay a short message into the buffer as PDUs; returns how much of it is used."""
        used = 0
        for start in range(0, len(data), self._fragment):
            part = data[start : start + self._fragment]
            last = _LAST if start + len(part) == len(data) else 0
            _HEADER.pack_into(
                self._buffer, used, _DATA, len(part) + 6, len(part) + 2, context, control | last
            )
            used += _HEADER.size
            self._buffer[used : used + len(part)] = part
            used += len(part)
        return used

    def _put_file(self, context: int, file: BinaryIO, length: int, used: int) -> None:
        """Send the buffer's *used* bytes and the file after them, many PDUs with one system call."""
        while length:
            size = min(length, self._fragment)
            if used + _HEADER.size + size > _BUFFER:
                self._link.send(self._buffer[:used])
                used = 0
            last = _LAST if size == length else 0
            _HEADER.pack_into(self._buffer, used, _DATA, size + 6, size + 2, context, last)
            used += _HEADER.size
            _read_exactly(file, self._buffer[used : used + size])
            used += size
            length -= size
        self._link.send(self._buffer[:used])

    def _answer(self, context: int, expected: int) -> Mapping[int, bytes]:
        """Wait for the response to the request in hand; anything else ends the association."""
        received = bytearray()
        while True:
            kind, body = self._link.receive(self._destination.timeouts.answer)
            if kind == _ABORT:
                raise Lost(abort_words(body))
            if kind == _RELEASE_RQ:
                self._link.send(_RELEASE[_RELEASE_RP])
                raise Lost("released the association instead of answering; see its log")
            if kind != _DATA:
                raise Lost(f"sent PDU type {kind} instead of an answer; see its log")
            if self._take(body, context, received):
                break
        elements = _parsed(received)
        about = command.number(elements, command.MESSAGE_ID_BEING_RESPONDED_TO)
        if command.number(elements, command.COMMAND_FIELD) != expected or about != self._message_id:
            raise Lost("answered something that was not asked; see its log")
        return elements

    @staticmethod
    def _take(body: bytes, context: int, received: bytearray) -> bool:
        """Add the command fragments of one P-DATA-TF; True with the last one (PS3.8 Annex E)."""
        position = 0
        while position + 6 <= len(body):
            length, on, control = struct.unpack_from(">IBB", body, position)
            if length < 2 or position + 4 + length > len(body) or on != context or not control & _COMMAND:
                raise Lost("sent a PDU that breaks PS3.8; see its log")
            received += body[position + 6 : position + 4 + length]
            position += 4 + length
            if control & _LAST:
                return True
        return False

    def _release(self) -> None:
        """A-RELEASE; every object has its answer already, so a peer that spoils this changes nothing."""
        within = self._destination.timeouts.associate
        try:
            self._link.send(_RELEASE[_RELEASE_RQ])
            kind, _ = self._link.receive(within)
            if kind == _RELEASE_RQ:  # both sides at once: PS3.8 9.2.2, Sta9 to Sta11
                self._link.send(_RELEASE[_RELEASE_RP])
                self._link.receive(within)
            self._link.close()
        except Lost:
            self._link.abort()


def _parsed(received: bytearray) -> Mapping[int, bytes]:
    try:
        return command.parse(bytes(received))
    except ValueError as error:
        raise Lost(f"sent a message that cannot be read ({error}); see its log") from error


def _read_exactly(file: BinaryIO, into: memoryview) -> None:
    done = 0
    while done < len(into):
        got = file.readinto(into[done:])  # type: ignore[attr-defined]
        if not got:
            raise Broken("it became shorter while it was sent")
        done += got


def _fragment(most: int) -> int:
    """Dataset bytes per PDU, even (PS3.8 9.3.1), for a peer that takes *most* (0 = any length)."""
    room = _MOST_FRAGMENT if most == 0 else min(most - 6, _MOST_FRAGMENT)
    if room < 2:
        raise Lost(
            f"announced a maximum PDU length of {most}, in which nothing can be sent; see its settings"
        )
    return room // 2 * 2


def open_association(
    destination: Destination, pairs: Iterable[Pair], as_scp: Iterable[str] = (), most: int = 16384
) -> Association:
    """Connect and negotiate one presentation context per pair (at most 128).

    For the SOP classes *as_scp* we are the SCP; *most*: bytes of a PDU that we take. What is not accepted is in
    `refused`, each with its reason.
    Raises Lost without an association.
    """
    proposed = {2 * number + 1: pair for number, pair in enumerate(pairs)}
    link = connect(destination)
    try:
        link.send(request(destination, proposed, as_scp, most))
        answer = read_answer(*link.receive(destination.timeouts.associate), destination)
        association = Association(link, destination, answer.maximum_length_received or 0)
        association.accepted, association.refused = judge(proposed, answer)
    except BaseException:
        link.abort()
        raise
    return association
