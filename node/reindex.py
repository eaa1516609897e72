"""Files are the truth about what was received: `pacsnode reindex` adds rows for those the database lacks.

Only instance and series rows are added. What was done with them is not known any more, so nothing is
routed and a series found this way is *held: restored* until a person releases it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from sqlalchemy import Connection

from node import flow
from node.errors import Broken
from node.model import SeriesState
from node.read.header import read_header
from node.store import intake
from node.store.arrival import read_arrival
from node.store.database import adopt_database
from node.store.records import Record, receiver_runs, records_after

_GROUP = 200
RESTORED = "restored"


def reindex(parts: flow.Parts, tell: Callable[[int], None]) -> tuple[int, int]:
    """Index every received file that no row names; how many, and in how many held series.

    The caller holds the conductor's lock: the node is not running.
    """
    parts = replace(parts, hold=RESTORED)
    untouched = _reopen(parts)
    added = 0
    for group in _groups(_lacking(parts)):
        with parts.database.write() as tx:
            for record in group:
                _take(tx, parts, record)
        added += len(group)
        tell(added)
    found = [i for i, series in parts.assembly.series.items() if len(series.members) != untouched.get(i)]
    with parts.database.write() as tx:
        for series_id in found:
            intake.hold_series(tx, series_id, RESTORED)
            flow.seal(tx, parts, series_id, "found by reindex")
    adopt_database(parts.database, parts.data)
    return added, len(found)


def _reopen(parts: flow.Parts) -> dict[int, int]:
    """Rebuild what is still receiving; series → members, for those that the node itself goes on with."""
    members: dict[int, int] = {}
    with parts.database.read() as tx:
        for row in intake.in_state(tx, SeriesState.RECEIVING, held_too=True):
            before = intake.revision_before(tx, row["id"])
            own = intake.arrived_in(tx, row["id"])
            parts.assembly.begin(
                row["id"], own[0]["peer"] if own else "", flow.members_of(tx, before) if before else {}
            )
            for found in own:
                path = intake.object_path(parts.data, found["receiver_run"], found["sequence"])
                if path.exists():
                    parts.assembly.add(row["id"], found["id"], read_header(path, *read_arrival(path)), 0.0)
            if not row["held"]:  # a held one is left over from a reindex that was broken off
                members[row["id"]] = len(parts.assembly.series[row["id"]].members)
    return members


def _take(tx: Connection, parts: flow.Parts, record: Record) -> None:
    try:
        header = read_header(record.path, *read_arrival(record.path))
    except (Broken, OSError) as error:
        flow.unreadable(tx, parts, (record.run, record.sequence), f"reindex: {type(error).__name__}")
    else:
        flow.take_in(tx, parts, (record.run, record.sequence), header)
    flow.counted(tx, parts)
    if record.sequence > intake.cursor_of(tx, record.run):
        intake.set_cursor(tx, record.run, record.sequence)


def _lacking(parts: flow.Parts) -> Iterator[Record]:
    for receiver_run in receiver_runs(parts.data):
        for record in records_after(parts.data, receiver_run, 0, catch_up=True):
            with parts.database.read() as tx:
                known = intake.has_file(tx, receiver_run, record.sequence)
            if record.is_object and not known:
                yield record


def _groups(records: Iterator[Record]) -> Iterator[list[Record]]:
    group: list[Record] = []
    for record in records:
        group.append(record)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group
