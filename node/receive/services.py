"""What serves a message that is neither C-STORE nor C-ECHO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from node.receive import commitment
from node.receive.command import FIELD, Elements, integer
from node.receive.wire import CommandError

UNRECOGNISED = 0x0211
"""Failure: unrecognized operation (PS3.7 C.5.22)."""

_RESPONSE = 0x8000


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    number: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to a message: its encoded command set, and its dataset in the context's transfer syntax."""

    command: bytes
    dataset: bytes = b""


Service = Callable[[Context, Elements, bytes], Answer]
"""Serves one Command Field: the context, the command's elements, the dataset as sent → what to answer.

It runs on the association's thread, which reads on when it returns. FaultError from it aborts the association.
"""


def unrecognised(request: Elements) -> bytes:
    """Return the command set that answers a request nobody serves. Raises CommandError where it is none."""
    field = integer(request, FIELD)
    if field is None or field & _RESPONSE:
        raise CommandError("no request, and nothing of ours to answer")
    return commitment.response(request, UNRECOGNISED)
