"""performed: what a modality says of its work (MPPS, PS3.4 F.7), and what that means for its series.

The receiver has answered with success before anybody could look: what contradicts what is known is an event.
"""

from __future__ import annotations

from sqlalchemy import Connection

from node.flow.parts import Parts
from node.model import SeriesState, StepMessage
from node.performed import Performed, StepState
from node.store import steps
from node.store.database import note
from node.words import counted


def performed(
    tx: Connection, parts: Parts, message: StepMessage, said: Performed | None, failed: str = ""
) -> None:
    """A message about a step: its row, and the open series that it names learn what belongs to them.

    *said* is None where the message cannot be read, and *failed* says why.
    """
    if said is None:
        why = f"{message.command} of {message.peer}: {failed}"
        note(tx, parts.now(), "step_unreadable", why, destination=message.peer)
        return
    known = steps.find(tx, message.peer, message.sop_uid)
    if message.command == "N-CREATE":
        if known is not None:
            _strange(tx, parts, message, "it was begun before; what N-SET says of it counts")
            return
        if said.state is not StepState.IN_PROGRESS:
            _strange(tx, parts, message, "a step begins IN PROGRESS; this one is taken as it is")
    elif known is None:
        _strange(tx, parts, message, "nobody told us that it was begun; it is taken as it is")
    elif known["state"] != StepState.IN_PROGRESS:
        _strange(tx, parts, message, f"it was {known['state']} already, and stays as it was")
        return
    _take(tx, parts, message, said, known["id"] if known else None)


def _strange(tx: Connection, parts: Parts, message: StepMessage, why: str) -> None:
    said = f"{message.command} of {message.peer} for {message.sop_uid}: {why}"
    note(tx, parts.now(), "step_strange", said, destination=message.peer)


def _take(tx: Connection, parts: Parts, message: StepMessage, said: Performed, key: int | None) -> None:
    now, state = parts.now(), said.state or StepState.IN_PROGRESS
    if key is None:
        key = steps.add_step(
            tx, peer=message.peer, sop_uid=message.sop_uid, study_uid=(*said.study_uids, "")[0],
            station=said.station, state=state, begun_at=message.received_at, changed_at=now,
        )  # fmt: skip
    else:
        steps.change(tx, key, state, now)
    if said.series is not None:
        steps.name_series(tx, key, said.series)
    if state is StepState.IN_PROGRESS:
        return
    named = steps.series_of(tx, key)
    for row in named:
        if row["state"] == SeriesState.RECEIVING:
            named_by_steps(tx, parts, row["id"], row["series_uid"])
        elif state is StepState.COMPLETED and row["instances"] < row["objects"]:
            why = f"MPPS of {message.peer} names {counted(row['objects'], 'object')}"
            why += f"; it was sealed with {row['instances']}"
            note(tx, now, "step_names_more", why, series_id=row["id"])
    what = f"MPPS of {message.peer} is {state}: {counted(len(said.series or ()), 'series')}"
    what += f" with {counted(sum(len(one.objects) for one in said.series or ()), 'object')}"
    note(tx, now, f"step_{state}", what, destination=message.peer)


def named_by_steps(tx: Connection, parts: Parts, series_id: int, series_uid: str) -> None:
    """Tell an open series what completed steps say belongs to it, and that others were broken off."""
    found = parts.assembly.series.get(series_id)
    said = steps.of_series(tx, series_uid) if found is not None else []
    here: set[str] | None = None
    for row in said:
        if found is not None and row["state"] == StepState.DISCONTINUED:
            found.claims.remarks[f"MPPS of {row['peer']} was discontinued"] = None
        if row["state"] != StepState.COMPLETED or not row["named"]:
            continue
        if here is None:
            here = steps.uids_of(tx, parts.assembly.series[series_id].members)
        parts.assembly.names(series_id, row["step"], row["peer"], row["named"], here)
