"""What a person does to what waits: hold, release, cancel, retry.

Every change names the states it expects, so that an act is safe beside a running conductor: what moved on
in the meantime is left alone. Each act leaves one event per series that it touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, or_, update

from node.model import DeliveryState, RunState, SeriesState
from node.store import choosing, deliveries, intake
from node.store.choosing import Wanted
from node.store.database import note, rows
from node.store.schema import delivery, destination, run, series

BY_HAND = "by hand"
"""Who did it, in reasons and events."""
_MOST = 500
"""Rows of one statement: it takes 32 766 parameters on SQLite, 65 535 on PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Move:
    """What an act does to rows of one table: from which states to which, and in which words."""

    done: str
    """`held`, `cancelled` …: the end of the event's name and of the sentence."""
    expected: tuple[str, ...]
    to: str


DELIVERIES: Mapping[str, Move] = {
    "hold": Move("held", (DeliveryState.WAITING, DeliveryState.PARKED), DeliveryState.HELD),
    "release": Move("released", (DeliveryState.HELD,), DeliveryState.WAITING),
    "cancel": Move(
        "cancelled",
        (DeliveryState.WAITING, DeliveryState.PARKED, DeliveryState.HELD),
        DeliveryState.CANCELLED,
    ),
    "retry": Move("retried", (DeliveryState.PARKED,), DeliveryState.WAITING),
}
RUNS: Mapping[str, Move] = {
    "cancel": Move("cancelled", (RunState.WAITING, RunState.RUNNING), RunState.CANCELLED),
    "retry": Move("retried", (RunState.QUARANTINED, RunState.REFUSED, RunState.CANCELLED), RunState.WAITING),
}


@dataclass(frozen=True, slots=True)
class Act:
    """One act of a person: a verb, when, and why."""

    verb: str
    """hold, release, cancel, retry."""
    at: datetime
    why: str = ""
    dry_run: bool = False
    """Count what would change, and change nothing."""


@dataclass(frozen=True, slots=True)
class Acted:
    """What an act changed, and what it named and left alone because of its state."""

    changed: int = 0
    left: Mapping[str, int] = field(default_factory=dict)
    """State → how many."""


def on_deliveries(tx: Connection, act: Act, wanted: Wanted) -> Acted:
    """Hold, release, cancel or retry the deliveries that *wanted* names; what is being sent is left alone.

    `retry` also lets what waits after a failure go at once, and asks a destination that is down now. What a
    person cancelled is retried where `state: cancelled` is asked for, unless its run was superseded.
    """
    move, chosen = DELIVERIES[act.verb], choosing.deliveries_chosen(wanted)
    if act.verb == "retry" and wanted.state == DeliveryState.CANCELLED:
        move = Move(move.done, (DeliveryState.CANCELLED,), move.to)
        chosen = chosen.where(delivery.c.reason.startswith(f"cancelled {BY_HAND}"))
        chosen = chosen.where(or_(run.c.id.is_(None), run.c.state == RunState.DONE))
    found = _named(tx, chosen, delivery)
    values: dict[str, Any] = {"state": move.to, "reason": _reason(act, move)}
    if move.to == DeliveryState.CANCELLED:
        values["finished_at"] = act.at
    if move.to == DeliveryState.WAITING:
        values |= {"due_at": act.at, "failures": 0, "failing_since": None}
        values |= {**deliveries.NO_COPY, "commit_failures": 0}  # it may be taken in its own syntax now
    acted = _apply(tx, act, _Moved("deliveries", delivery, move, values, wanted.destination), found)
    if act.verb != "retry" or act.dry_run:
        return acted
    pushed = _hurry(tx, act, wanted, found)
    left = {state: count for state, count in acted.left.items() if state != DeliveryState.WAITING}
    still = acted.left.get(DeliveryState.WAITING, 0) - pushed
    return Acted(acted.changed + pushed, {**left, **({DeliveryState.WAITING: still} if still else {})})


def _hurry(tx: Connection, act: Act, wanted: Wanted, found: Sequence[Mapping[str, Any]]) -> int:
    """What waits for its next try is due now, and a destination that is down is asked now."""
    ids = [row["id"] for row in found if row["state"] == DeliveryState.WAITING]
    later = (delivery.c.state == DeliveryState.WAITING) & (delivery.c.due_at > act.at)
    pushed = _each_chunk(tx, delivery, ids, later, {"due_at": act.at})
    down = destination.c.down & (destination.c.name == wanted.destination if wanted.destination else True)
    tx.execute(update(destination).where(down).values(next_at=act.at))
    return pushed


def on_runs(tx: Connection, act: Act, wanted: Wanted) -> Acted:
    """Cancel or retry the runs that *wanted* names; a worker that runs one is ended by the conductor.

    A run that a later revision or replay cancelled is taken up only where it is asked for by its number
    or by its state, never as part of a group.
    """
    move = RUNS[act.verb]
    if act.verb == "retry" and not (wanted.run or wanted.state):
        move = Move(move.done, (RunState.QUARANTINED, RunState.REFUSED), move.to)
    values: dict[str, Any] = {"state": move.to, "reason": _reason(act, move)}
    values |= {"finished_at": act.at} if move.to == RunState.CANCELLED else {"due_at": act.at}
    found = _named(tx, choosing.runs_chosen(wanted), run)
    return _apply(tx, act, _Moved("runs", run, move, values), found)


@dataclass(frozen=True, slots=True)
class _Moved:
    """How rows of one table are moved."""

    what: str
    table: Table
    move: Move
    values: Mapping[str, Any]
    destination: str = ""


def _named(tx: Connection, chosen: Select[Any], table: Table) -> list[Mapping[str, Any]]:
    """The rows an act names, locked until its transaction ends (a writer on SQLite has the whole database)."""
    return rows(tx, chosen.with_for_update(of=table))


def _apply(tx: Connection, act: Act, moved: _Moved, found: Sequence[Mapping[str, Any]]) -> Acted:
    may = [row for row in found if row["state"] in moved.move.expected]
    left = Counter(str(row["state"]) for row in found if row["state"] not in moved.move.expected)
    if act.dry_run:
        return Acted(len(may), dict(left))
    guard = moved.table.c.state.in_(moved.move.expected)
    changed = _each_chunk(tx, moved.table, [row["id"] for row in may], guard, moved.values)
    _note_each(tx, act, moved, may)
    return Acted(changed, dict(left))


def _each_chunk(
    tx: Connection,
    table: Table,
    ids: Sequence[int],
    guard: ColumnElement[bool],
    values: Mapping[str, Any],
) -> int:
    changed = 0
    for start in range(0, len(ids), _MOST):
        where = table.c.id.in_(ids[start : start + _MOST]) & guard
        changed += tx.execute(update(table).where(where).values(**values)).rowcount
    return changed


def _note_each(tx: Connection, act: Act, moved: _Moved, may: Sequence[Mapping[str, Any]]) -> None:
    """One event per series; of a single run it names the run."""
    of_series = Counter(row["series_id"] for row in may)
    why = f": {act.why}" if act.why else ""
    alone = moved.table is run and len(may) == 1
    for series_id, count in of_series.items():
        note(
            tx, act.at, f"{moved.what}_{moved.move.done}", f"{count} {moved.move.done} {BY_HAND}{why}",
            series_id=series_id, run_id=may[0]["id"] if alone else None, destination=moved.destination,
        )  # fmt: skip


def _reason(act: Act, move: Move) -> str:
    return f"{move.done} {BY_HAND}" + (f": {act.why}" if act.why else "")


# --- series


def on_series(tx: Connection, act: Act, wanted: Wanted) -> Acted:
    """Hold series before they are routed, or release those that are held.

    A held series is sealed as always but not judged: no rule runs on it, and sealed rules send nothing of
    it, until it is released. Immediate rules go on sending objects as they arrive (promise 2: what is
    received is not gated); `hold` their deliveries where that is not wanted.
    """
    waiting = set(intake.held_series(tx))
    chosen = choosing.series_chosen(wanted)
    if act.verb == "release" and wanted == Wanted():  # all that are held
        chosen = chosen.where(series.c.held.not_in(("", intake.RELEASED)))
    found = _named(tx, chosen, series)
    if act.verb == "release":
        may = [row["id"] for row in found if row["id"] in waiting]
    else:
        early = (SeriesState.RECEIVING, SeriesState.SEALED)
        may = [row["id"] for row in found if row["state"] in early and row["id"] not in waiting]
    left = Counter(str(row["state"]) for row in found if row["id"] not in may)
    if act.dry_run:
        return Acted(len(may), dict(left))
    done = [key for key in may if _hold_or_release(tx, act.verb, key)]
    why = f": {act.why}" if act.why else ""
    for key in done:
        note(
            tx,
            act.at,
            "series_released" if act.verb == "release" else "series_held",
            BY_HAND + why,
            series_id=key,
        )
    return Acted(len(done), dict(left))


def _hold_or_release(tx: Connection, verb: str, series_id: int) -> bool:
    if verb == "release":
        return intake.release_series(tx, series_id)
    early = series.c.state.in_((SeriesState.RECEIVING, SeriesState.SEALED))
    where = (series.c.id == series_id) & early & series.c.held.in_(("", intake.RELEASED))
    return tx.execute(update(series).where(where).values(held=BY_HAND)).rowcount == 1
