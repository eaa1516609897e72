"""Messages in P-DATA-TF: one command, then perhaps its dataset, in fragments on one context (PS3.8 Annex E)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

from node.receive.command import DATA_SET_TYPE, NO_DATASET, Elements, decode, integer
from node.receive.wire import P_DATA, FaultError

_COMMAND_LIMIT = 64 * 1024
_FRAGMENT = struct.Struct(">IBB")  # length of the rest, context, control header
_COMMAND, _LAST = 1, 2
_EMPTY_LIMIT = 1000  # fragments of nothing in one message: some senders end with one, nobody needs many


class Receiver(Protocol):
    """Takes what the fragments say, in their order."""

    def begin(self, context: int, command: Elements) -> None:
        """A command is complete; its dataset, or *end*, follows."""

    def write(self, fragment: memoryview) -> None:
        """A part of the dataset, valid during the call."""

    def end(self) -> None:
        """The message is complete."""


class Messages:
    """Follows the messages of an association and hands them to a receiver as they come in."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._command = bytearray()
        self._context: int | None = None
        self._in_dataset = False
        self._empty = 0

    @property
    def in_hand(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._context is not None

    def take(self, body: memoryview) -> None:
        """Take the content of one P-DATA-TF. Raises FaultError, and whatever the receiver raises."""
        offset, end = 0, len(body)
        if not end:
            raise FaultError("P-DATA without a fragment")
        while offset < end:
            if end - offset < _FRAGMENT.size:
                raise FaultError("a fragment without its header")
            length, context, control = _FRAGMENT.unpack_from(body, offset)
            if length < 2 or length > end - offset - 4:
                raise FaultError(f"a fragment of {length} bytes in {end - offset - 4}")
            payload = body[offset + 6 : offset + 4 + length]
            offset += 4 + length
            if length == 2:
                self._bear_with_nothing()
            if self._context is not None and context != self._context:
                raise FaultError("a message on two presentation contexts")
            if control & _COMMAND:
                self._take_command(context, payload, bool(control & _LAST))
            else:
                self._take_dataset(payload, bool(control & _LAST))

    def _bear_with_nothing(self) -> None:
        """Count a fragment without content: a message of them would cost much and come to no end."""
        self._empty += 1
        if self._empty > _EMPTY_LIMIT:
            raise FaultError(f"more than {_EMPTY_LIMIT} empty fragments in a message")

    def _take_command(self, context: int, payload: memoryview, is_last: bool) -> None:
        if self._in_dataset:
            raise FaultError("a command inside a dataset")
        self._context = context
        self._command += payload
        if len(self._command) > _COMMAND_LIMIT:
            raise FaultError("a command longer than 64 KiB")
        if not is_last:
            return
        elements, self._command = decode(self._command), bytearray()
        kind = integer(elements, DATA_SET_TYPE)
        if kind is None:
            raise FaultError("a command without Command Data Set Type")
        self._receiver.begin(context, elements)
        self._in_dataset = kind != NO_DATASET
        if not self._in_dataset:
            self._end()

    def _take_dataset(self, payload: memoryview, is_last: bool) -> None:
        if not self._in_dataset:
            raise FaultError("a dataset without its command")
        self._receiver.write(payload)
        if is_last:
            self._end()

    def _end(self) -> None:
        self._receiver.end()
        self._context, self._in_dataset, self._empty = None, False, 0


def encode_message(context: int, command: bytes, dataset: bytes, most: int) -> bytes:
    """Return a message in PDUs of at most *most* bytes of content.

    0 means that the peer takes any length (PS3.8 D.1); as do 1 to 6, in which no fragment would fit.
    """
    pieces = [*_cut(command, _COMMAND, most), *_cut(dataset, 0, most)]
    return b"".join(
        struct.pack(">BBI", P_DATA, 0, len(piece) + _FRAGMENT.size)
        + _FRAGMENT.pack(len(piece) + 2, context, control)
        + piece
        for piece, control in pieces
    )


def _cut(data: bytes, control: int, most: int) -> Iterator[tuple[bytes, int]]:
    size = most - _FRAGMENT.size if most > _FRAGMENT.size else max(1, len(data))
    for at in range(0, len(data), size):
        yield data[at : at + size], control | (_LAST if at + size >= len(data) else 0)
