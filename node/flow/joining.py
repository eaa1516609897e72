"""join: an object that is kept goes into its series, or takes the place of an older one there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from node.flow.parts import Parts
from node.flow.performing import named_by_steps
from node.flow.queueing import holds_for, queue_received
from node.flow.rejecting import reject
from node.flow.routing import route_at_once
from node.model import Cell, Header, InstanceState, SeriesState
from node.store import deliveries, intake, rejections, work
from node.store.database import note


def join(
    tx: Connection, parts: Parts, new: int, header: Header, series_id: int | None, *, late: bool
) -> None:
    """An object is kept, in its series where it has one: it counts there, and rules route it at once."""
    if series_id is None:
        note(tx, parts.now(), "instance_ungrouped", header.why, instance_id=new)
    else:
        parts.assembly.add(series_id, new, header, parts.monotonic(), late=late)
        parts.arrived[series_id] = parts.arrived.get(series_id, 0) + 1
    route_at_once(tx, parts, new, header)
    if header.rejection:
        reject(tx, parts, new, header)


def adopt(
    tx: Connection, parts: Parts, new: int, header: Header, old: int | None, *, by_hand: bool = False
) -> None:
    """Put an object into its series and route it at once; *old* is the one whose place it takes."""
    series_id = None if header.why else series_for(tx, parts, header)
    if old is not None:
        why = "a newer header of the same pixels came"
        work.replaced(tx, old, f"object {new} was released by hand in its place" if by_hand else why)
        _hand_over(tx, parts, old, new)
        name, why = ("header_revision", "newest header wins")
        if by_hand:
            name, why = ("instance_taken", f"it takes the place of object {old}, by hand")
        note(tx, parts.now(), name, why, series_id=series_id, instance_id=new)
    intake.adopt(tx, new, series_id, header.why)
    if series_id is not None and old is not None:
        parts.assembly.drop(series_id, old)
        _end_runs(tx, parts, series_id, old, new)
    join(tx, parts, new, header, series_id, late=old is None)


def _hand_over(tx: Connection, parts: Parts, old: int, new: int) -> None:
    """What waits of the older object sends the newer one, and where the older one went, or was refused, it goes too."""
    deliveries.hand_over(tx, old, new)
    parts.treated = True  # what goes as a treated copy waits for another one
    for to, rule, how in deliveries.went_to(tx, old) if not parts.hold else ():
        queue_received(tx, parts, new, to, rule, replace(how, hold=holds_for(parts, rule, to)))
    deliveries.cancel_of(tx, old, "a newer header of the same object is sent instead", parts.now())


def _end_runs(tx: Connection, parts: Parts, series_id: int, old: int, new: int) -> None:
    """Runs over the older object end: the open revision is judged anew, with the newer one (design §6)."""
    why = f"object {new} is a newer one of what it uses"
    for over in rejections.busy_runs_using(tx, series_id, old):
        if rejections.end_run(tx, over["id"], why, parts.now()):
            note(tx, parts.now(), "run_cancelled", why, series_id=over["series_id"], run_id=over["id"])


def series_for(tx: Connection, parts: Parts, header: Header) -> int:
    """The revision that is open for this object's series, opened now where there is none."""
    known = parts.assembly.open_as(header.study_uid, header.series_uid)
    if known is not None:
        return known
    newest = intake.latest(tx, header.study_uid, header.series_uid)
    if newest and newest["state"] == SeriesState.RECEIVING:
        return parts.assembly.known_as(header.study_uid, header.series_uid, int(newest["id"]))
    members: dict[int, Mapping[str, Cell]] = {}
    revision = 1
    if newest:
        revision = newest["revision"] + 1
        members = members_of(tx, newest["id"])
    about = about_series(tx, parts, header)
    if newest and newest["held"] not in ("", intake.RELEASED):  # nobody has released it yet
        about["held"] = newest["held"]
    opened = intake.open_series(tx, header, revision, about, parts.now())
    parts.assembly.begin(opened, header.peer, members)
    named_by_steps(tx, parts, opened, header.series_uid)
    note(tx, parts.now(), "series_opened", f"revision {revision}", series_id=opened)
    return parts.assembly.known_as(header.study_uid, header.series_uid, opened)


def members_of(tx: Connection, series_id: int) -> dict[int, Mapping[str, Cell]]:
    """A sealed revision's members that are still kept, with their attributes."""
    ids, facts = intake.members_and_facts(tx, series_id)
    kept = {row["id"] for row in intake.instances_of(tx, ids) if row["state"] == InstanceState.KEPT}
    return {
        key: {name: cell for name in facts.columns if (cell := facts.cell(name, i)) is not None}
        for i, key in enumerate(ids)
        if key in kept
    }


def about_series(tx: Connection, parts: Parts, header: Header) -> dict[str, Any]:
    """The columns of a series that people search by."""

    def first(name: str) -> str:
        cell = header.attributes.get(name)
        return cell[0][0] if cell and cell[0] else ""

    number = first("SeriesNumber")
    return {
        "patient_id": first("PatientID"),
        "issuer": first("IssuerOfPatientID"),
        "accession": first("AccessionNumber"),
        "modality": first("Modality")[:16],
        "series_number": int(number) if re.fullmatch(r"-?[0-9]{1,9}", number) else None,
        "ours": work.is_ours(tx, header.sop_uid) or made_by_a_node(header),
        "held": parts.hold,
    }


def made_by_a_node(header: Header) -> bool:
    """Contributing Equipment (0018,A001) names a node like this one: process nothing twice (design §6)."""
    return any(
        name.startswith("ContributingEquipmentSequence[")
        and name.endswith((".Manufacturer", ".ManufacturerModelName"))
        and any(value == ("PACSNode",) for value in cell)
        for name, cell in header.attributes.items()
    )
