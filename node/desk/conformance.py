"""What the DICOM conformance statement rests on: services and roles, statuses, limits.

Every UID, limit and status comes from the module that acts on it, so that the statement cannot say anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydicom.uid import UID

from node import __version__
from node.derive import document, key_images, presentation, standard, stored
from node.receive import commitment, mpps
from node.receive.listener import MAXIMUM_PDU
from node.send import find, retrieve, retry
from node.send.protocol import Timeouts
from node.send.status import kind_of, meaning_of
from node.settings import Limits, Peer, Settings
from node.store.arrival import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION

ANSWERS = (0x0000, 0xB000, 0xB006, 0xB007, 0xA700, 0xA900, 0xC000, 0x0110, 0x0111, 0x0122, 0x0124)
"""Statuses of C-STORE (PS3.4 Table B.2-1, PS3.7 Annex C) that peers answer with."""
VERIFICATION = "1.2.840.10008.1.1"
DERIVED: Mapping[str, Sequence[str]] = {
    "images, in the class of their source or the classic one": (standard.CT, standard.MR, standard.PT, standard.NM),
    "segmentations": (standard.SEG,),
    "maps": ("1.2.840.10008.5.1.4.1.1.30",),
    "measurements (TID 1500)": (standard.COMPREHENSIVE_3D_SR,),
    "pictures": (stored.SECONDARY_CAPTURE, stored.GREY_BYTE, stored.GREY_WORD, stored.TRUE_COLOUR),
    "documents": (document.ENCAPSULATED_PDF,),
    "key objects and rejection notes": (key_images.KEY_OBJECT,),
    "presentation states": (presentation.GRAYSCALE_STATE,),
}  # fmt: skip
"""What results are written as; operators of others may bring waveforms, slides and pictures of their source's class."""


@dataclass(frozen=True)
class Service:
    """One SOP class in one role, and for whom."""

    service: str
    sop_class: str
    """UID; empty: any."""
    role: str
    """SCU or SCP."""
    peers: str
    """With whom, in words."""

    @property
    def name(self) -> str:
        """The SOP class by its name."""
        return (
            UID(self.sop_class).name if self.sop_class else "every Storage SOP Class, private ones included"
        )


def services(settings: Settings | None) -> list[Service]:
    """What the node does as SCU and SCP; without a site file, what it may do."""
    receivers = _those(settings, "that have an `address`", lambda peer: peer.receives)
    senders = "every peer" if settings is None or settings.unknown_senders == "refuse" else "everybody"
    return [
        Service("Verification", VERIFICATION, "SCP", senders),
        Service("Verification", VERIFICATION, "SCU", receivers),
        Service("Storage", "", "SCP", senders),
        Service("Storage", "", "SCU", receivers),
        Service("Storage Commitment", commitment.PUSH_MODEL, "SCU",
                _those(settings, "with `commit`", lambda peer: peer.commit is not None)),
        Service("Storage Commitment", commitment.PUSH_MODEL, "SCP",
                _those(settings, "with `commit_after`", lambda peer: bool(peer.commit_after))),
        Service("Modality Performed Procedure Step", mpps.SOP_CLASS_UID, "SCP", "every peer"),
        *(
            Service("Query/Retrieve", uid, "SCU", "peers that a rule's `prior`, or `count_from`, names")
            for uid in (find.FIND[0], retrieve.MOVE[0], retrieve.GET[0])
        ),
    ]  # fmt: skip


def _those(settings: Settings | None, words: str, fits: Callable[[Peer], bool]) -> str:
    """The peers that are so, by name; in *words* where there is no site."""
    if settings is None:
        return f"peers {words}"
    names = [peer.name for peer in settings.peers.values() if fits(peer)]
    return ", ".join(names) or f"nobody: there are no peers {words}"


def as_json(settings: Settings | None) -> dict[str, Any]:
    """The services for scripts."""
    return {
        "version": __version__,
        "implementation_class_uid": IMPLEMENTATION_UID,
        "implementation_version_name": IMPLEMENTATION_VERSION,
        "ae_titles": list(settings.node.ae_titles) if settings else [],
        "maximum_pdu": MAXIMUM_PDU,
        "services": [
            {"service": one.service, "sop_class": one.sop_class, "name": one.name, "role": one.role,
             "peers": one.peers}
            for one in services(settings)
        ],
        "derived": {kind: list(uids) for kind, uids in DERIVED.items()},
    }  # fmt: skip


def behaviour(status: int) -> tuple[str, str, str]:
    """What `retry` decides about an object that is answered so for the first time."""
    policy = retry.Policy()
    decision = retry.decide(kind_of(status), status, 1, datetime(2000, 1, 1, tzinfo=UTC), policy)
    what = {
        retry.Stored: "stored",
        retry.Parked: "parked at once: a person must act",
        retry.Again: f"sent again, after {policy.first.seconds} s and up to {policy.longest.seconds // 60} min; parked "
        f"after {policy.patience.days} day",
    }[type(decision)]
    return f"{status:04X}", meaning_of(status).removeprefix(f"{status:04X} ").strip("()"), what


def associations(settings: Settings | None) -> Iterator[tuple[str, str, str]]:
    """What is negotiated, or set: as acceptor, as requestor."""
    limits, waits = settings.limits if settings else Limits(), Timeouts()
    listens = "{}:{}".format(*settings.node.listen) if settings else "`node.listen`"
    titles = ", ".join(settings.node.ae_titles) if settings else "`node.ae_titles`"
    first = settings.node.ae_titles[0] if settings else "the first of `node.ae_titles`"
    yield "AE title", f"called: {titles}", f"calling: {first}, else the peer's `call_as`"
    yield "Port", listens, "–"
    yield "Application Context", "1.2.840.10008.3.1.1.1", "1.2.840.10008.3.1.1.1"
    yield "Maximum PDU", f"{MAXIMUM_PDU} bytes", "as the peer says; 16384 bytes are taken, 131072 with C-GET"
    yield "At a time", f"{limits.associations} in all", "1, else the peer's `associations`"
    yield "Outstanding operations", "1 (no asynchronous operations)", "1"
    yield (
        "Waits", f"{_seconds(limits.artim)} for the request, {_seconds(limits.idle)} between messages, "
        f"{_seconds(limits.pdu)} within one",
        f"{waits.connect:g} s for the connection, {waits.associate:g} s for the association, {waits.answer:g} "
        "s for an answer",
    )  # fmt: skip
    yield "Implementation Class UID", IMPLEMENTATION_UID, IMPLEMENTATION_UID
    yield "Implementation Version Name", IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION
    yield (
        "SCP/SCU role selection",
        "Storage Commitment Push Model",
        "Storage Commitment Push Model; storage with C-GET",
    )
    yield "SOP class extended negotiation, user identity", "not used", "not used"


def _seconds(span: Any) -> str:
    return f"{span.total_seconds():g} s"
