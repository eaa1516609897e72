"""What the same SOP Instance UID is when it comes again (design §6)."""

from __future__ import annotations

from dataclasses import dataclass

from node.model import Header, InstanceState


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of the object that was kept under this SOP Instance UID."""

    id: int
    study_uid: str
    series_uid: str
    transfer_syntax: str
    digest: str
    pixel_digest: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The state of the newcomer and, in words, why."""

    state: InstanceState
    why: str = ""
    replaces: bool = False
    """It takes the place of the one that was kept."""


def judge(known: Known | None, header: Header) -> Judged:
    """Kept (new, or a newer header of the same pixels), duplicate, or conflict.

    A copy in another transfer syntax cannot be told from other pixels by its bytes: it is kept aside
    as a conflict until `same_pixels` says that both decode to the same.
    """
    if known is None:
        return Judged(InstanceState.KEPT)
    if known.digest == header.digest:
        return Judged(InstanceState.DUPLICATE, "the same bytes came before")
    if (known.study_uid, known.series_uid) != (header.study_uid, header.series_uid):
        return Judged(InstanceState.CONFLICT, "its SOP Instance UID is known from another study or series")
    if known.pixel_digest == header.pixel_digest and known.transfer_syntax == header.transfer_syntax:
        return Judged(InstanceState.KEPT, "a newer header of the same pixels", replaces=True)
    if known.transfer_syntax != header.transfer_syntax:
        return Judged(InstanceState.CONFLICT, RECOMPRESSED)
    return Judged(InstanceState.CONFLICT, "other pixels under a known SOP Instance UID")


RECOMPRESSED = "another transfer syntax of a known object; its pixels are being compared"
OTHER_PIXELS = "another transfer syntax, and other pixels, under a known SOP Instance UID"
