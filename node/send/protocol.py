"""What the conductor and the sender say to each other: one frozen value per line of JSON.

Conductor → sender: `Batch`, `Echo`, `Ask`, `Report`. Sender → conductor: `Outcomes`, `Finished`, `Echoed`,
`Asked`, `Reported`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from node import commitment
from node.commitment import Dialogue
from node.model import Trouble
from node.send import lines

MOST_OBJECTS = 200
"""Objects in one batch, and results in one group."""


class Kind(StrEnum):
    """What became of one object at the destination; `retry.decide` says what follows from it."""

    STORED = "stored"
    WARNING = "warning"  # stored, and the destination noted something (B000, B006, B007)
    FAILED = "failed"  # it answered with a failure, or the association ended while it was on its way
    REFUSED_CONTEXT = "refused_context"  # this SOP class in this transfer syntax is not accepted
    UNREADABLE_FILE = "unreadable_file"  # our own file: a matter of our disk, not of the destination
    NOT_TRIED = "not_tried"  # nothing of it was sent


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds after which waiting for the destination ends. A byte that moves starts *transfer* again."""

    connect: float = 10.0
    associate: float = 30.0
    """For the answer to A-ASSOCIATE-RQ or A-RELEASE-RQ (ARTIM, PS3.8 9.1.5)."""
    transfer: float = 30.0
    """Without a single byte being taken."""
    answer: float = 120.0
    """From the last byte of an object to its C-STORE-RSP."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files (PEM) for an association over TLS, PS3.15 B.12; our certificate is shown when it is given."""

    trusted: str
    """Certificates of the authorities, or of the destination itself."""
    certificate: str = ""
    key: str = ""
    server_name: str = ""
    """The name its certificate must carry; empty = the host we connect to."""
    check_name: bool = True
    """False: any certificate that *trusted* vouches for."""
    minimum: str = "1.2"


@dataclass(frozen=True, slots=True)
class Destination:
    """One peer as the sender needs it; *name* is the one in the site file."""

    name: str
    host: str
    port: int
    ae_title: str
    """Called AE title."""
    calling_ae: str
    max_associations: int = 1
    timeouts: Timeouts = field(default_factory=Timeouts)
    tls: Tls | None = None
    alternatives: tuple[str, ...] = ()
    """Transfer syntaxes, best first, in which it is asked whether it takes a SOP class as well."""

    @property
    def where(self) -> str:
        """`PACS at 10.1.2.9:4242`: how every message begins."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name} at {host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Item:
    """One object to send: a Part 10 file, and what it is whatever its file meta claims."""

    delivery: int
    attempt: int
    path: str
    sop_class: str
    sop_uid: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one item."""

    delivery: int
    attempt: int
    kind: Kind
    status: int | None
    """The C-STORE status (PS3.4 B.2.3); None when there was none."""
    what: str
    """In words; never holds patient data."""
    comment: str = ""
    """The destination's own Error Comment (0000,0902). It may name a patient: show it, never log it."""
    accepts: tuple[str, ...] = ()
    """Where the context was refused: the destination's alternatives in which it takes the SOP class, best first."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Send these objects, in this order."""

    id: int
    destination: Destination
    objects: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Echo:
    """Ask the destination whether it is there (C-ECHO)."""

    id: int
    destination: Destination


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Results of a batch as they come, in groups; each item of it is in exactly one of them."""

    batch: int
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The batch is over, after its last `Outcomes`; *destination_error* is what, where and what next."""

    batch: int
    destination_error: str | None
    trouble: Trouble = Trouble.UNREACHABLE
    """Where there is an error: of which kind."""


@dataclass(frozen=True, slots=True)
class Echoed:
    """The answer to an `Echo`; *error* None means that it is there and accepts us."""

    id: int
    error: str | None
    trouble: Trouble = Trouble.UNREACHABLE


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the destination to commit to these objects (N-ACTION, PS3.4 J.3.2)."""

    id: int
    destination: Destination
    said: Dialogue
    patience: float = 5.0
    """Seconds that the association is kept open for the answer; later it comes over one of the peer's."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The answer to an `Ask`: taken, or why not; and what the peer reported on the same association, if it did."""

    id: int
    error: str | None
    answer: Dialogue | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Tell a peer what was committed to of what it asked (N-EVENT-REPORT, PS3.4 J.3.3)."""

    id: int
    destination: Destination
    said: Dialogue


@dataclass(frozen=True, slots=True)
class Reported:
    """The answer to a `Report`; *error* None means that the peer took it."""

    id: int
    error: str | None


Command = Batch | Echo | Ask | Report
Outcome = Outcomes | Finished | Echoed | Asked | Reported


def to_json(message: Command | Outcome) -> str:
    """One line, without its newline."""
    whole = lines.whole(message)
    for name in ("said", "answer"):
        if isinstance(said := whole.get(name), Dialogue):
            whole[name] = commitment.to_json(said)
    return lines.line(whole)


def command_from_json(line: str | bytes) -> Command:
    """Read what the conductor said.

    Raises Broken when the line is none of its commands: the two processes are not of one version.
    """
    kinds = {"Batch": _batch, "Echo": _echo, "Ask": _saying(Ask), "Report": _saying(Report)}
    return lines.read(line, kinds, "sender")


def outcome_from_json(line: str | bytes) -> Outcome:
    """Read what the sender said. Raises Broken like `command_from_json`."""
    return lines.read(
        line,
        {
            "Outcomes": lambda d: Outcomes(d["batch"], tuple(_result(r) for r in d["results"])),
            "Finished": lambda d: Finished(**{**d, "trouble": Trouble(d["trouble"])}),
            "Echoed": lambda d: Echoed(**{**d, "trouble": Trouble(d["trouble"])}),
            "Asked": lambda d: Asked(**{**d, "answer": d["answer"] and commitment.from_json(d["answer"])}),
            "Reported": lambda d: Reported(**d),
        },
        "sender",
    )


def read_destination(data: Mapping[str, Any]) -> Destination:
    """A destination as `to_json` wrote it."""
    tls = data["tls"]
    own = {"timeouts": Timeouts(**data["timeouts"]), "tls": None if tls is None else Tls(**tls),
           "alternatives": tuple(data["alternatives"])}  # fmt: skip
    return Destination(**{**data, **own})


def _batch(data: Mapping[str, Any]) -> Batch:
    objects = tuple(Item(**item) for item in data["objects"])
    return Batch(data["id"], read_destination(data["destination"]), objects)


def _echo(data: Mapping[str, Any]) -> Echo:
    return Echo(data["id"], read_destination(data["destination"]))


def _saying(kind: type[Ask] | type[Report]) -> Callable[[Mapping[str, Any]], Ask | Report]:
    def read(data: Mapping[str, Any]) -> Ask | Report:
        own = {
            "destination": read_destination(data["destination"]),
            "said": commitment.from_json(data["said"]),
        }
        return kind(**{**data, **own})

    return read


def _result(data: Mapping[str, Any]) -> Result:
    return Result(**{**data, "kind": Kind(data["kind"]), "accepts": tuple(data["accepts"])})
