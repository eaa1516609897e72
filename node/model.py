"""The frozen values and the states that every room speaks. Imports nothing of ours."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

Value = tuple[str, ...]
"""One attribute as text: its values in order; `()` is present but empty (PS3.5 6.2, 6.4)."""

Cell = tuple[Value, ...]
"""The distinct values one instance holds for an attribute: one, or several over its frames."""

RECEIVED = "received"
"""How steps and sends call the series itself."""

PART_NAME = re.compile(r"part_[1-9][0-9]{0,1}")
"""How steps call one of several parts that come together, in the order of what splits them."""

KIND_OF = {
    "Volume": "image", "Picture": "picture", "Recording": "recording", "Tiles": "tiles", "Mask": "segmentation",
    "FractionalMask": "segmentation", "Map": "parametric_map", "Measurements": "report", "Document": "document",
    "KeyImages": "key_images", "Presentation": "presentation", "Stack": "image", "Segments": "segmentation",
    "Report": "report",
}  # fmt: skip
"""What an operator returns → the kind of object that it leaves as (`Product.kind`)."""


NOTICE = "For research use. Not for primary diagnosis."
"""Of reports, where the site says no other."""

REJECTION = "rejection"
"""The kind of the notes by which the node takes its own results back (`Product.kind`); no operator makes them."""


def is_received(name: str) -> bool:
    """Whether a step's input is the series itself or a part of it."""
    return name == RECEIVED or bool(PART_NAME.fullmatch(name))


REJECTIONS: Mapping[str, str] = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}
"""Titles (DCM) that make a Key Object Selection Document a rejection note (IHE RAD IOCM, PS3.16 CID 7011)."""

EXPIRED = "113039"
"""Its objects were right and may come again; the others name objects that nobody should use."""


class InstanceState(StrEnum):
    """What became of one received object; its file is kept in each of them but *duplicate*."""

    KEPT = "kept"
    DUPLICATE = "duplicate"
    REPLACED = "replaced"  # a newer header or transfer syntax of the same object was kept
    CONFLICT = "conflict"  # same SOP Instance UID, other pixels or other series: shown, releasable
    UNREADABLE = "unreadable"
    REJECTED = "rejected"
    FETCHED = "fetched"  # asked for as a prior: an input only, and no arrival
    REMOVED = "removed"  # by retention; its file is gone


class SeriesState(StrEnum):
    """receiving → sealed → routed | unrouted | discarded | rejected."""

    RECEIVING = "receiving"
    SEALED = "sealed"
    ROUTED = "routed"
    UNROUTED = "unrouted"
    DISCARDED = "discarded"
    REJECTED = "rejected"


class RunState(StrEnum):
    """waiting → running → done | refused | quarantined | cancelled | superseded."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class DeliveryState(StrEnum):
    """waiting → sending → stored → committed | parked | held | cancelled."""

    WAITING = "waiting"
    SENDING = "sending"
    STORED = "stored"
    COMMITTED = "committed"
    PARKED = "parked"
    HELD = "held"
    CANCELLED = "cancelled"


class Trouble(StrEnum):
    """What keeps a destination as a whole from taking objects; they wait, and none of them is parked for it."""

    UNREACHABLE = "unreachable"  # no connection, or it ended
    REJECTED = "rejected"  # it answers and takes no association now, or nothing of what was proposed
    UNKNOWN_AE = "unknown_ae"  # it does not know our AE title or not its own: a person must correct that
    PAUSED = "paused"  # it answered many objects in a row with the same failure


class Priority(StrEnum):
    """How a rule's deliveries rank among those that wait for the same destination."""

    URGENT = "urgent"
    NORMAL = "normal"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Manner:
    """How a rule wants something sent."""

    priority: Priority = Priority.NORMAL
    lossy: bool = False
    """It may be transcoded with loss where the destination takes it in no other way."""
    treatment: str = ""
    """JSON: what is changed in the copy that is sent in its place; empty: it goes as it is."""
    window: str = ""
    """When it may be sent, as `settings.windows` reads it; empty: whenever the destination may be sent to."""
    hold: bool = False
    """It waits for a person."""
    due_at: datetime | None = None
    """When it may go first; None: at once."""
    why: str = ""
    """Why it goes there, waits, or is held, in words."""


PLAIN = Manner()
"""How things are sent where nobody says more."""


class Destinations(dict[str, bool]):
    """Peer name → whether it can receive; and what else rules are checked against."""

    def __init__(
        self,
        receives: Mapping[str, bool],
        deidentified: Collection[str] = (),
        profiles: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(receives)
        self.deidentified = frozenset(deidentified)
        """Peers that take only de-identified data."""
        self.profiles: Mapping[str, Mapping[str, Any]] = profiles or {}
        """The site's profiles of de-identification by name."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of an object when its C-STORE begins; written into the file meta (PS3.10 7.1)."""

    sop_class: str
    sop_uid: str
    transfer_syntax: str
    calling: str
    """Calling AE title, as sent, without padding."""
    called: str
    peer: str
    """The peer's name in the site file, else its AE title."""
    address: str
    """`host:port` of the sender."""
    local_address: str
    association: str
    """Unique in the data folder: `<receiver run>-<number>`."""
    received_at: datetime
    origin: str = ""
    """Whose request it answers, as its C-STORE says: `move <Message ID> <AE title>` (PS3.7 9.3.1.1), or `get <number>`
    where we fetched it ourselves; empty: it just came."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A durable object: `<receiver run>/<sequence>` names it for ever."""

    receiver_run: int
    sequence: int
    name: str
    """Of its file, in full; a text, since one is made for each object that comes."""

    @property
    def path(self) -> Path:
        """Its file."""
        return Path(self.name)


@dataclass(frozen=True, slots=True)
class AssociationEnd:
    """One association is over; *objects* counts what it stored. *aborted* is everything but a release."""

    association: str
    peer: str
    objects: int
    aborted: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class CommitMessage:
    """How a message about storage commitment came (PS3.4 J.3); its dataset is kept beside it, undecoded."""

    command: str
    """`N-ACTION`: it asks us to commit; `N-EVENT-REPORT`: it answers what we asked."""
    number: int
    """Action Type ID or Event Type ID."""
    transfer_syntax: str
    peer: str
    """The peer's name in the site file."""
    called: str
    """Our AE title, as it was called."""
    association: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class StepMessage:
    """How a message about a performed procedure step came (MPPS, PS3.4 F.7); its dataset is kept, undecoded."""

    command: str
    """`N-CREATE`: a step has begun; `N-SET`: what became of it."""
    sop_uid: str
    """The step's SOP Instance UID, as sent."""
    transfer_syntax: str
    peer: str
    """The peer's name in the site file."""
    called: str
    """Our AE title, as it was called."""
    association: str
    received_at: datetime


class Part(Protocol):
    """An object on its way to the disk: an open `.part` file beside its target."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append to the file."""

    def discard(self) -> None:
        """Remove it: it was never acknowledged."""


class Keeper(Protocol):
    """Where a receiver puts what it got. OSError from any of these means: answer 0xA700."""

    def begin(self, arrival: Arrival) -> Part:
        """Open a part whose file meta holds what is known on arrival."""
        ...

    def keep(self, part: Part) -> Kept:
        """Make it durable under a new name; returns before status 0x0000 is sent."""
        ...

    def end(self, end: AssociationEnd) -> None:
        """Record that an association is over, in the same sequence as its objects."""

    def commit(self, message: CommitMessage, dataset: memoryview) -> None:
        """Record a message about storage commitment there, too; returns before it is answered with success."""

    def step(self, message: StepMessage, dataset: memoryview) -> None:
        """Record a message about a performed procedure step in the same way."""


@dataclass(frozen=True, slots=True)
class Header:
    """One received object as the reader saw it: identity, digests, and every attribute as text."""

    readable: bool
    why: str
    """Why it is unreadable or cannot be grouped, else empty."""
    sop_uid: str
    sop_class: str
    transfer_syntax: str
    study_uid: str
    series_uid: str
    peer: str
    calling: str
    called: str
    association: str
    received_at: datetime
    size: int
    digest: str
    """Over the transfer syntax UID and the dataset's bytes, not the file meta (`digest.whole_digest`)."""
    pixel_digest: str
    """SHA-256 over the bytes from the pixel data (or waveform) element on; empty without one."""
    frames: int
    attributes: Mapping[str, Cell]
    """Keyword, path or fact of ours → its distinct values in this object."""
    rejection: str = ""
    """Of a rejection note the code of its title, one of `REJECTIONS`; else empty."""
    rejects: tuple[str, ...] = ()
    """The SOP Instance UIDs that such a note names."""
    origin: str = ""
    """As in `Arrival`."""
    pixels_at: int = 0
    """Where the pixel data (or waveform) element begins, in bytes from the dataset's begin; 0 without one."""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept: Code Value, Coding Scheme Designator, Code Meaning (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operator, read from its signature."""

    name: str
    type: str
    """Input: Volume, Mask …; option: number, integer, text, yes/no."""
    unit: str = ""
    """UCUM unit of a number; empty when it has none."""
    default: Any = None
    required: bool = True
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OperatorSpec:
    """What a rule may say about an operator; `route` checks steps against it without loading code."""

    name: str
    summary: str
    inputs: tuple[Parameter, ...]
    options: tuple[Parameter, ...]
    returns: str
    """Volume, Mask, Measurements …"""
    version: str
    distribution: str


@dataclass(frozen=True, slots=True)
class Step:
    """One entry under `do:`: an operator, the named inputs it takes, its typed options, its result's name."""

    operator: str
    inputs: Mapping[str, str]
    """Input parameter → name of an earlier result; `received` is the series itself."""
    options: Mapping[str, Any]
    name: str


@dataclass(frozen=True, slots=True)
class Output:
    """A step's result that leaves as DICOM, with the attribute templates its `send` entries ask for."""

    name: str
    """The `as:` name."""
    index: int
    """1-based among the rule's outputs; counts in the series number."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Keyword → template text with `{Keyword}` of the source in braces."""
    picture: bool = False
    """It is also made as a picture, for destinations that do not show what it is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All a worker needs of a rule: the steps and what leaves."""

    rule: str
    meaning: str
    """SHA-256 of the rule's normalised meaning (identity of its outputs)."""
    steps: tuple[Step, ...]
    outputs: tuple[Output, ...]
    split: tuple[str, ...] = ()
    """Keywords and facts that tell the parts of a series from each other."""
    each_part: str = "refuse"
    """run: each part by itself · largest · refuse: more than one · together: `part_1`, `part_2` … are inputs."""
    inputs: tuple[str, ...] = ()
    """Of a rule over a study: how steps call the series it takes, in order; the first stands for the study."""


@dataclass(frozen=True, slots=True)
class SeriesPart:
    """Which part of a series results were made from; an undivided series is its own part 1."""

    number: int = 1
    label: str = ""
    """What tells it from the others, e.g. `b_value 800`."""


WHOLE = SeriesPart()
"""A series that is not split."""


def series_key(output: str, part: int = 1, form: str = "") -> str:
    """How the series of an output is called where it gets its UIDs and its number: `thick#2/picture`."""
    return output + (f"#{part}" if part > 1 else "") + (f"/{form}" if form else "")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who made an output, from what, and when first: everything that decides its UIDs and dates."""

    identity: str
    """Hex digest over source digests, rule meaning, operator versions, node major version, generation."""
    first_run_at: datetime
    """Aware; the dates in every output of this identity, however often it is made again."""
    software: str
    """Name and version of the node, for Contributing Equipment."""
    device: str
    """Our AE title, for Contributing Equipment's Station Name."""
    series_numbers: Mapping[str, int]
    """`series_key` → Series Number."""
    operators: Mapping[str, str] = field(default_factory=dict)
    """Operator name → version."""
    notice: str = ""
    """What results are for, in the site's words; stands in every report."""


@dataclass(frozen=True, slots=True)
class Product:
    """One derived object on disk, gated; rows and files, never a dataset."""

    output: str
    index: int
    kind: str
    """image | picture | recording | tiles | segmentation | parametric_map | report | document | key_images |
    presentation"""
    path: str
    """Relative to the run's folder."""
    sop_uid: str
    sop_class: str
    transfer_syntax: str
    series_uid: str
    digest: str
    size: int = 0
    """Bytes of the file."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A result that left earlier, as what replaces it or takes it back refers to it."""

    output: str
    """Of the rule; in a note of withdrawal the note that names it."""
    kind: str
    """`Product.kind`."""
    sop_uid: str
    sop_class: str
    series_uid: str
    study_uid: str


@dataclass(frozen=True, slots=True)
class Job:
    """What the conductor hands to a worker: `job.json` in the attempt's folder."""

    run: int
    plan: Plan
    provenance: Provenance
    files: tuple[str, ...]
    """Absolute paths of the used objects."""
    inherited_timezone: str = ""
    """IANA name used where the source has no Timezone Offset From UTC."""
    revision: int = 1
    """Of the series, when this identity was first run: from the second on the results say so (design §6)."""
    predecessors: tuple[Issued, ...] = ()
    """Reports that those of this run replace."""
    withdraws: tuple[Issued, ...] = ()
    """Not to make results but rejection notes that name these; *files* are then where patient and study stand."""
    why: str = ""
    """Why they are withdrawn."""
    inputs: Mapping[str, int] = field(default_factory=dict)
    """Of a rule over a study: input → how many of *files* are its, in their order; the first stands for the study."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How one attempt of a run ended."""

    state: RunState
    """done | refused | quarantined; waiting when trying again may help."""
    reason: str
    """In words; empty when done."""
    products: tuple[Product, ...] = ()
    measurements: tuple[Mapping[str, Any], ...] = ()
    """One mapping per number: output, name, value, unit, region (codes as `value^scheme^meaning`)."""
