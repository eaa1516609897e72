"""take_in: one received object → its row, its series, and what rules route at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from node.assemble.resend import OTHER_PIXELS, RECOMPRESSED, Known, judge
from node.errors import Broken
from node.flow.fetched import fetch_beside, fetch_of, take_fetched
from node.flow.joining import about_series, adopt, join, series_for
from node.flow.parts import Parts
from node.flow.rejecting import came_rejected
from node.flow.routing import route_at_once
from node.model import Arrival, Header, InstanceState
from node.store import aside, deliveries, intake, rejections
from node.store.arrival import read_arrival
from node.store.database import note
from node.store.intake import object_path


@dataclass(frozen=True, slots=True)
class Taken:
    """What must follow the commit: a duplicate's file to remove, or two files whose pixels to compare."""

    remove: Path | None = None
    compare: tuple[Path, Path] | None = None
    instance: int = 0


def take_in(
    tx: Connection, parts: Parts, record: tuple[int, int], header: Header, strangers: set[str] | None = None
) -> Taken:
    """Index one received object, put it into its series, and queue what rules route at once.

    `counted` follows within the same transaction. Who is among the *strangers* (`intake.strangers`) is looked for
    nowhere, and none from here on; a rejection note may make any of them known.
    """
    stranger = strangers is not None and header.sop_uid in strangers
    if strangers is not None:
        strangers.discard(header.sop_uid)
        if header.rejection:
            strangers.clear()
    if not stranger and intake.has_file(tx, *record):  # catch-up met it twice
        return Taken()
    why = "" if stranger else rejections.why_rejected(tx, header.sop_uid)
    fetched = _fetched(tx, parts, record, header, why)
    if fetched is None and why:
        came_rejected(tx, parts, record, header, why, about_series(tx, parts, header))
    elif fetched is None and not header.readable:
        _unreadable(tx, parts, record, header)
    if fetched is not None or why or not header.readable:
        return fetched or Taken()
    row = intake.kept(tx, header.sop_uid) if header.sop_uid and not stranger else None
    judged = judge(_known(row) if row else None, header)
    if judged.state is InstanceState.DUPLICATE and row:
        intake.add_instance(tx, header, record, judged.state, reason=judged.why, series_id=row["series_id"])
        _send_again(tx, parts, row)
        return Taken(remove=object_path(parts.data, *record))
    if judged.state is InstanceState.CONFLICT and row:
        if judged.why != RECOMPRESSED:
            _keep_aside(tx, parts, record, header, judged.state, judged.why)
            return Taken()
        aside = intake.add_instance(tx, header, record, judged.state, reason=judged.why, series_id=None)
        known = object_path(parts.data, row["receiver_run"], row["sequence"])
        return Taken(compare=(known, object_path(parts.data, *record)), instance=aside)
    _keep(tx, parts, record, header, row["id"] if row and judged.replaces else None)
    return Taken()


def _fetched(
    tx: Connection, parts: Parts, record: tuple[int, int], header: Header, rejected: str
) -> Taken | None:
    """What was asked for is an input and no arrival; None where an object just came."""
    if not header.origin and not parts.transfers:
        return None
    row = fetch_of(tx, header) if header.origin else fetch_beside(tx, parts, header)
    if row is not None:
        about = about_series(tx, parts, header)
        return Taken(remove=take_fetched(tx, parts, record, header, row, about, rejected))
    if header.origin.startswith("get "):  # of a request that the database does not know any more
        why = "fetched as an input, and nobody remembers for what"
        intake.add_instance(tx, header, record, InstanceState.FETCHED, reason=why, series_id=None)
        return Taken()
    return None


def counted(tx: Connection, parts: Parts) -> None:
    """Write down how many objects came since, before the group's transaction ends: once per series, not per object."""
    for series_id, count in parts.arrived.items():
        intake.touched(tx, series_id, count, parts.now())
    parts.arrived.clear()


def unreadable(tx: Connection, parts: Parts, record: tuple[int, int], why: str) -> None:
    """The reader could not tell anything of this object: it is kept as it came, visible and releasable."""
    if not intake.has_file(tx, *record):
        header = _header_of_arrival(parts, record, why)
        if _fetched(tx, parts, record, header, "") is None:
            _unreadable(tx, parts, record, header)


def set_aside(tx: Connection, parts: Parts, record: tuple[int, int], why: str) -> None:
    """The node itself failed over this object: aside, and not even routed, so that it fails only once."""
    if not intake.has_file(tx, *record):
        header = _header_of_arrival(parts, record, why)
        _keep_aside(tx, parts, record, header, InstanceState.UNREADABLE, why)


def _header_of_arrival(parts: Parts, record: tuple[int, int], why: str) -> Header:
    """A header that holds no more than how the object came."""
    try:
        arrival, _ = read_arrival(object_path(parts.data, *record))
    except (Broken, OSError) as error:  # damaged on the disk: it must not stop what came after it
        why = f"{why}; its file meta cannot be read ({type(error).__name__})"
        arrival = Arrival("", "", "", "", "", "", "", "", "", parts.now())
    return Header(
        readable=False, why=why, sop_uid=arrival.sop_uid, sop_class=arrival.sop_class,
        transfer_syntax=arrival.transfer_syntax, study_uid="", series_uid="", peer=arrival.peer,
        calling=arrival.calling, called=arrival.called, association=arrival.association,
        received_at=arrival.received_at, size=0, digest="", pixel_digest="", frames=0,
        attributes={
            "from": ((arrival.peer,),), "called": ((arrival.called,),),
            "sop_class": ((arrival.sop_class,),), "transfer_syntax": ((arrival.transfer_syntax,),),
        },
        origin=arrival.origin,
    )  # fmt: skip


def unreadable_now(tx: Connection, parts: Parts, instance_id: int, why: str) -> None:
    """An object of an open series could be read when it came and cannot any more: aside, and said."""
    reason = f"it cannot be read any more: {why}"
    if intake.set_aside(tx, instance_id, InstanceState.UNREADABLE, reason):
        note(tx, parts.now(), "instance_unreadable", reason, instance_id=instance_id)


def _unreadable(tx: Connection, parts: Parts, record: tuple[int, int], header: Header) -> None:
    """Kept aside, and routed by the rules that need no more than how it came (promise 2)."""
    aside = _keep_aside(tx, parts, record, header, InstanceState.UNREADABLE, header.why)
    route_at_once(tx, parts, aside, header)


def compared(tx: Connection, parts: Parts, instance_id: int, header: Header | None, same: bool) -> None:
    """The pixels of a recompressed copy were compared: the same make it a header revision (design §6)."""
    row = intake.instances_of(tx, [instance_id])[0]
    if row["state"] != InstanceState.CONFLICT:
        return
    if not same or header is None:
        intake.explain_instance(tx, instance_id, OTHER_PIXELS)
        note(tx, parts.now(), "instance_conflict", OTHER_PIXELS, instance_id=instance_id)
        return
    known = intake.kept(tx, row["sop_uid"])
    adopt(tx, parts, instance_id, header, known["id"] if known else None)


def released(tx: Connection, parts: Parts, instance_id: int, header: Header | None) -> None:
    """A person takes an object in conflict for the valid one under its SOP Instance UID.

    The one that was kept becomes `replaced`, as after a header revision: deliveries that wait take the new one,
    rules route it at once, and it opens a revision of its series without the former; when that is sealed and
    processed, its results supersede those made with the former. Where the former belongs to another series,
    that series and its results stay as they are, and an event there says so.
    """
    row = intake.instances_of(tx, [instance_id])[0]
    aside.release_over(tx, instance_id)
    if row["state"] != InstanceState.CONFLICT:
        return
    if header is None:
        why = "released by hand, but it cannot be read any more"
        intake.explain_instance(tx, instance_id, why)
        note(tx, parts.now(), "instance_conflict", why, instance_id=instance_id)
        return
    known = intake.kept(tx, row["sop_uid"])
    if known and (known["study_uid"], known["series_uid"]) != (header.study_uid, header.series_uid):
        why = f"object {known['id']} was replaced by hand with object {instance_id} of another series"
        note(tx, parts.now(), "instance_replaced", why, series_id=known["series_id"], instance_id=known["id"])
        for open_series in parts.assembly.series:
            parts.assembly.drop(open_series, known["id"])
    adopt(tx, parts, instance_id, header, known["id"] if known else None, by_hand=True)


def _send_again(tx: Connection, parts: Parts, row: Mapping[str, Any]) -> None:
    """The sender asked once more: what was delivered long enough ago is delivered again (design §6)."""
    if parts.hold:
        return
    before = {name: parts.now() - peer.redeliver_after for name, peer in parts.settings.peers.items()}
    if again := deliveries.redeliver(tx, row["id"], before, parts.now()):
        parts.treated = True
        note(tx, parts.now(), "redelivery", f"{again} sent again", series_id=row["series_id"])


def _known(row: Mapping[str, Any]) -> Known:
    return Known(
        row["id"], row["study_uid"] or "", row["series_uid"] or "",
        row["transfer_syntax"], row["digest"], row["pixel_digest"],
    )  # fmt: skip


def _keep_aside(
    tx: Connection, parts: Parts, record: tuple[int, int], header: Header, state: InstanceState, why: str
) -> int:
    """Visible and releasable, in no series."""
    found = intake.add_instance(tx, header, record, state, reason=why, series_id=None)
    note(tx, parts.now(), f"instance_{state}", why, instance_id=found)
    return found


def _keep(tx: Connection, parts: Parts, record: tuple[int, int], header: Header, old: int | None) -> None:
    if old is None:
        series_id = None if header.why else series_for(tx, parts, header)
        new = intake.add_instance(
            tx, header, record, InstanceState.KEPT, reason=header.why, series_id=series_id
        )
        join(tx, parts, new, header, series_id, late=True)
        return
    state = InstanceState.CONFLICT  # two cannot be kept under one UID
    adopt(
        tx,
        parts,
        intake.add_instance(tx, header, record, state, reason=header.why, series_id=None),
        header,
        old,
    )
