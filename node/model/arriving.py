"""What is known of an object on its way in: of its C-STORE, of its file, of its header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from node.model.attributes import Cell


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


REJECTIONS: Mapping[str, str] = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}
"""Titles (DCM) that make a Key Object Selection Document a rejection note (IHE RAD IOCM, PS3.16 CID 7011)."""
EXPIRED = "113039"
"""Its objects were right and may come again; the others name objects that nobody should use."""


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
