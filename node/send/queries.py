"""What the conductor and the querier say to each other: one frozen value per line of JSON.

Conductor → querier: `Count`, `Search`, `Fetch`. Querier → conductor: `Counted`, `Found`, `Fetched`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from node.send import lines
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


@dataclass(frozen=True, slots=True)
class Search:
    """Ask a peer for the series of a patient's earlier studies."""

    id: int
    destination: Destination
    patient_id: str
    issuer: str
    dates: str
    """Of the studies: a range such as `20200101-20250704` (PS3.4 C.2.2.2.5)."""
    not_study: str
    """The study that asks: nothing of it is an answer."""
    modalities: tuple[str, ...]
    """Of the series; empty: any."""
    study_keys: tuple[str, ...]
    series_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The series that a peer offers, each with what it says of it: keyword → values."""

    id: int
    offers: tuple[tuple[str, str, Mapping[str, Any]], ...]
    """Study Instance UID, Series Instance UID, and keyword → distinct values."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Have a peer send one series to us: C-MOVE to our AE title, or C-GET on the same association."""

    id: int
    destination: Destination
    way: str
    """move | get."""
    study_uid: str
    series_uid: str
    message_id: int
    """Of the C-MOVE: what comes of it names it."""
    move_to: str
    """Our AE title, as the peer knows it among its destinations."""
    seconds: float
    """For all of it."""
    object_size: int
    """Bytes of one object that comes by C-GET."""
    data: str
    """The data folder, where what comes by C-GET is kept as receivers keep it."""
    refuse: float
    """Share of the disk from which nothing more is taken."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """It was sent, or why not; *objects* are the SOP Instance UIDs that the series has there."""

    id: int
    objects: tuple[str, ...]
    error: str = ""


Question = Count | Search | Fetch
Answer = Counted | Found | Fetched

_QUESTIONS: Mapping[str, Callable[[dict[str, Any]], Question]] = {
    "Count": lambda d: Count(**{**d, "destination": read_destination(d["destination"])}),
    "Search": lambda d: Search(**{**_tuples(d), "destination": read_destination(d["destination"])}),
    "Fetch": lambda d: Fetch(**{**d, "destination": read_destination(d["destination"])}),
}
_ANSWERS: Mapping[str, Callable[[dict[str, Any]], Answer]] = {
    "Counted": lambda d: Counted(**d),
    "Found": lambda d: Found(d["id"], tuple((s, r, dict(a)) for s, r, a in d["offers"]), d["error"]),
    "Fetched": lambda d: Fetched(**_tuples(d)),
}


def to_json(message: Question | Answer) -> str:
    """One line, without its newline."""
    return lines.line(lines.whole(message))


def question_from_json(line: str | bytes) -> Question:
    """Read what the conductor said. Raises Broken when the line is none of its questions."""
    return lines.read(line, _QUESTIONS, "querier")


def answer_from_json(line: str | bytes) -> Answer:
    """Read what the querier said. Raises Broken when the line is none of its answers."""
    return lines.read(line, _ANSWERS, "querier")


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
