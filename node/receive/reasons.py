"""Why something was refused or ended, in few words: what the receivers count, and everyone else tells by.

The order is that of the counters in the census page; a label is what metrics call it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from node.receive.wire import FaultError, QuietError


class Kind(Enum):
    """What happened: the name of its event, and one of it in words."""

    REJECTED = "association_rejected", "association rejected"
    """Answered with A-ASSOCIATE-RJ."""
    REFUSED = "connection_refused", "connection refused"
    """Closed before anybody could ask for an association."""
    ENDED = "association_ended", "association ended by us"
    """Aborted by us; the connection of one that never came to be, too."""
    LOST = "association_lost", "association ended by the peer"
    """Ended by the peer, without release."""
    OBJECT = "object_refused", "object refused"
    """A C-STORE answered with another status than success."""

    def __init__(self, event: str, words: str) -> None:
        self.event = event
        self.words = words

    def counted(self, count: int) -> str:
        """`1 connection refused`, `3 connections refused`."""
        noun, rest = self.words.split(" ", 1)
        return f"{count} {noun}{'' if count == 1 else 's'} {rest}"


class Reason(Enum):
    """Why: the kind of thing, the label, and the words."""

    CALLED_TITLE = Kind.REJECTED, "called_title", "the called AE title is none of `node.ae_titles`"
    CALLING_TITLE = Kind.REJECTED, "calling_title", "no peer `sends_as` the calling AE title"
    ADDRESS = Kind.REJECTED, "address", "the peer calls from no address of its `from_address`"
    LIMIT = Kind.REJECTED, "limit", "`limits.associations` are open"
    APPLICATION_CONTEXT = Kind.REJECTED, "application_context", "the application context is not DICOM's"
    PROTOCOL_VERSION = Kind.REJECTED, "protocol_version", "the protocol version is not 1"
    TLS_REQUIRED = Kind.REJECTED, "tls_required", "the peer must come by TLS"
    CERTIFICATE_NAME = Kind.REJECTED, "certificate_name", "the certificate does not name the peer"
    CONNECTIONS = Kind.REFUSED, "connections", "`limits.connections` are open"
    CONNECTIONS_PER_ADDRESS = (
        Kind.REFUSED,
        "connections_per_address",
        "`limits.connections_per_address` are open from one address",
    )
    TLS_HANDSHAKE = Kind.REFUSED, "tls_handshake", "the TLS handshake failed"
    BROKEN_PROTOCOL = Kind.ENDED, "broken_protocol", "the peer broke the protocol"
    TOO_SLOW = Kind.ENDED, "too_slow", "the peer was too slow"
    IDLE = Kind.ENDED, "idle", "nothing came for `limits.idle`"
    ENDED_BY_FAULT = Kind.ENDED, "our_fault", "an error of ours; the log says where"
    ABORTED = Kind.LOST, "aborted", "A-ABORT came"
    CONNECTION_LOST = Kind.LOST, "connection_lost", "the connection closed or broke"
    DISK_FULL = Kind.OBJECT, "disk_full", "the disk did not take it"
    WATERMARK = Kind.OBJECT, "watermark", "the disk is fuller than `disk.refuse`"
    TOO_LONG = Kind.OBJECT, "too_long", "longer than `limits.object_size`"
    NO_DATASET = Kind.OBJECT, "no_dataset", "it came without a dataset"
    OBJECT_BY_FAULT = Kind.OBJECT, "our_fault", "an error of ours; the log says which"

    def __init__(self, kind: Kind, label: str, words: str) -> None:
        self.kind = kind
        self.label = label
        self.words = words


def by_label(counts: Mapping[Reason, int]) -> dict[str, dict[str, int]]:
    """Event → label → how often."""
    found: dict[str, dict[str, int]] = {}
    for reason, number in counts.items():
        found.setdefault(reason.kind.event, {})[reason.label] = number
    return found


def cause(error: Exception, in_hand: bool) -> Reason:
    """Why an association ends by *error*, while a message was *in_hand* or between two."""
    match error:
        case FaultError():
            return Reason.BROKEN_PROTOCOL
        case QuietError() if not in_hand:
            return Reason.IDLE
        case TimeoutError():
            return Reason.TOO_SLOW
        case OSError():
            return Reason.CONNECTION_LOST
        case _:
            return Reason.ENDED_BY_FAULT


def markdown() -> str:
    """The table of all reasons for the documentation."""
    lines = ["| event | reason | because |", "|---|---|---|"]
    lines += [f"| `{reason.kind.event}` | `{reason.label}` | {reason.words} |" for reason in Reason]
    return "\n".join(lines)
