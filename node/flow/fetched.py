"""take_fetched: objects that come because we asked for them, told from those that just arrive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from node.flow.parts import Parts
from node.model import Header, InstanceState, SeriesState
from node.route.priors import different, patient_from_json, patient_of
from node.store import fetches, intake
from node.store.database import move, note
from node.store.intake import object_path
from node.store.schema import series


def fetch_of(tx: Connection, header: Header) -> Mapping[str, Any] | None:
    """The fetch that an object comes of; None where it just arrives.

    A Move Originator (0000,1030) names who asked, and the Message ID (0000,1031) of the request: ours, to the peer that
    sends. A peer may leave them out; what it sends of a series while it is being fetched from it counts as asked for.
    """
    way, number, title = (*header.origin.split(" ", 2), "", "", "")[:3]
    if way in ("move", "get") and number.isdigit():
        known = fetches.by_message(tx, header.peer, way, int(number))
        return next((row for row in known if way == "get" or row["calling"].strip() == title), None)
    return None


def fetch_beside(tx: Connection, parts: Parts, header: Header) -> Mapping[str, Any] | None:
    """The fetch of just this series from just this peer that is under way, for a peer that names no originator."""
    uids = (header.peer, header.study_uid, header.series_uid)
    for key, one in parts.transfers.items():
        if (one.peer, one.study_uid, one.series_uid) == uids and one.objects is None:
            return fetches.by_key(tx, key)
    return None


def take_fetched(
    tx: Connection, parts: Parts, record: tuple[int, int], header: Header, row: Mapping[str, Any],
    about: Mapping[str, Any], rejected: str,
) -> Path | None:  # fmt: skip
    """An object that was asked for: a member of the fetched series, or set aside; a file to remove after the commit.

    *about* are the columns of its series, *rejected* says why nobody should use it.
    """
    transfer = parts.transfers.get(row["id"])
    if transfer is not None and header.sop_uid in transfer.came:
        intake.add_instance(
            tx, header, record, InstanceState.DUPLICATE, reason="fetched twice", series_id=transfer.series_id
        )
        return object_path(parts.data, *record)
    if why := _not_asked_for(header, row):
        said = f"it came with what was asked of {row['peer']}, and {why}; it is not used"
        state = InstanceState.CONFLICT if header.readable else InstanceState.UNREADABLE
        found = intake.add_instance(tx, header, record, state, reason=said, series_id=None)
        note(tx, parts.now(), f"instance_{state}", said, instance_id=found)
        if transfer is not None:
            transfer.wrong = transfer.wrong or why
        return None
    key = _open(tx, parts, header, row, about)
    state = InstanceState.REJECTED if rejected else InstanceState.FETCHED
    reason = f"rejected: {rejected}" if rejected else f"fetched from {row['peer']} as an input"
    found = intake.add_instance(tx, header, record, state, reason=reason, series_id=key)
    if transfer is not None:
        transfer.came.add(header.sop_uid)
        if not rejected:
            transfer.members[found] = header.attributes
    return None


def _not_asked_for(header: Header, row: Mapping[str, Any]) -> str:
    """Why an object is not what was asked for; empty where it is."""
    if not header.readable or header.why:
        return header.why or "it cannot be read"
    if (header.study_uid, header.series_uid) != (row["study_uid"], row["series_uid"]):
        return "is of another series"
    unlike = different(patient_from_json(row["patient"]), patient_of(header.attributes))
    return f"is not surely of the same patient: {unlike}" if unlike else ""


def _open(
    tx: Connection, parts: Parts, header: Header, row: Mapping[str, Any], about: Mapping[str, Any]
) -> int:
    """The row of the fetched series, opened with its first object."""
    transfer = parts.transfers.get(row["id"])
    known = transfer.series_id if transfer is not None else row["series_id"]
    if known is not None:
        return int(known)
    revision = fetches.next_revision(tx, header.study_uid, header.series_uid)
    opened = intake.open_series(
        tx, header, revision, {**about, "prior": row["peer"], "held": ""}, parts.now()
    )
    fetches.came_as(tx, row["id"], opened)
    note(tx, parts.now(), "series_opened", f"a prior, fetched from {row['peer']}", series_id=opened)
    if transfer is None:  # what is left of a transfer that was broken off
        close_unused(tx, parts, opened, "the transfer was broken off")
    else:
        transfer.series_id = opened
    return opened


def close_unused(tx: Connection, parts: Parts, series_id: int, why: str) -> None:
    """A series that did not come as a whole is nobody's input; retention takes it."""
    said = f"fetched as a prior, and not used: {why}"
    if move(tx, series, series_id, SeriesState.UNROUTED, expected=(SeriesState.RECEIVING,), reason=said):
        note(tx, parts.now(), "series_prior", said, series_id=series_id)
