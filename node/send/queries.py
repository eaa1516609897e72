"""What the conductor and the querier say to each other: one frozen value per line of JSON.

Conductor → querier: `Count`. Querier → conductor: `Counted`. A line is an object whose `type` names the class;
everything else is its fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from node.errors import Broken
from node.send.protocol import Destination, Timeouts, read_destination

TIMEOUTS = Timeouts(connect=5.0, associate=10.0, transfer=15.0, answer=15.0)
"""For a question: nobody waits long for a peer that hangs."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one question may cost; beyond it the peer is cancelled, then left."""

    seconds: float = 60.0
    responses: int = 20_000
    response_size: int = 64 << 10
    """Bytes of the dataset of one response."""


@dataclass(frozen=True, slots=True)
class Count:
    """Ask a peer how many objects it has of a series."""

    id: int
    destination: Destination
    study_uid: str
    series_uid: str


@dataclass(frozen=True, slots=True)
class Counted:
    """So many, or why that is not known."""

    id: int
    objects: int | None
    error: str = ""


Question = Count
Answer = Counted

_QUESTIONS: Mapping[str, Callable[[dict[str, Any]], Question]] = {
    "Count": lambda d: Count(**{**d, "destination": read_destination(d["destination"])}),
}
_ANSWERS: Mapping[str, Callable[[dict[str, Any]], Answer]] = {"Counted": lambda d: Counted(**d)}


def to_json(message: Question | Answer) -> str:
    """One line, without its newline."""
    return json.dumps(
        {"type": type(message).__name__, **_fields(message)}, default=_fields, separators=(",", ":")
    )


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def question_from_json(line: str | bytes) -> Question:
    """Read what the conductor said. Raises Broken when the line is none of its questions."""
    return _read(line, _QUESTIONS)


def answer_from_json(line: str | bytes) -> Answer:
    """Read what the querier said. Raises Broken when the line is none of its answers."""
    return _read(line, _ANSWERS)


def _read(line: str | bytes, kinds: Mapping[str, Callable[[dict[str, Any]], Any]]) -> Any:
    try:
        data = json.loads(line)
        return kinds[data.pop("type")](data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Broken(
            f"the querier's pipe carried a line that is none of {', '.join(kinds)} ({error!r}); "
            "conductor and querier must be of one version: restart the node"
        ) from error
