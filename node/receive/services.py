"""What serves a message that is neither C-STORE nor C-ECHO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from node.receive.command import Elements


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
