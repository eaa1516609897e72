"""The conductor's way in: records become readings, and what was read is taken in, group by group."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from node import faults, flow
from node.assemble.resend import RECOMPRESSED
from node.commitments import Commitments
from node.errors import Broken
from node.model import SeriesState
from node.readings import Reading, Readings
from node.store import aside, intake
from node.store.records import Record, read_end, read_step, receiver_runs, records_after

log = structlog.get_logger()

_AT_A_TIME = 16  # records of one receiver run, before the next one has its turn
GROUP = 200
GROUP_SECONDS = 0.02
"""Objects, and seconds, of one transaction."""


@dataclass
class Arrivals:
    """What was received, on its way into the tables; in order within each receiver run."""

    parts: flow.Parts
    readings: Readings
    commitments: Commitments
    queued: dict[int, int] = field(default_factory=dict)
    """Receiver run → last sequence that was queued for reading."""
    taken: dict[int, int] = field(default_factory=dict)
    """Receiver run → last sequence of the group in hand."""
    behind: int = 0
    """Readings of the start that are still to be taken in: nothing is sealed before."""
    complete: float = 0.0
    """When everything that had come was queued last, monotonic."""
    releasing: set[int] = field(default_factory=set)
    """Objects in conflict that a person released, on their way through."""

    def recover(self, tx: Connection) -> None:
        """At start: open series are rebuilt from their files, and catch-up lists what came since."""
        for duplicate in intake.fresh_duplicates(tx, GROUP):  # committed, and killed before the unlink
            intake.object_path(self.parts.data, *duplicate).unlink(missing_ok=True)
        flow.nobody_asks(tx, self.parts)
        for row in intake.in_state(tx, SeriesState.RECEIVING, held_too=True):
            self._rebuild(tx, row)
        for receiver_run in receiver_runs(self.parts.data):
            cursor = intake.cursor_of(tx, receiver_run)
            self.queued[receiver_run] = cursor
            for record in _listed(self.parts.data, receiver_run, cursor):
                self._queue(record)
        for row, known in intake.to_compare(tx, RECOMPRESSED):
            paths = [
                intake.object_path(self.parts.data, r["receiver_run"], r["sequence"]) for r in (known, row)
            ]
            self.readings.add(Reading(None, paths, compared=row["id"]))
        self.behind = len(self.readings.queue)

    def release(self) -> None:
        """Objects in conflict that a person takes for the valid ones go to the reader."""
        with self.parts.database.read() as tx:
            asked = [key for key in aside.asked_releases(tx) if key not in self.releasing]
            found = intake.instances_of(tx, asked)
        for row in found:
            self.releasing.add(row["id"])
            path = intake.object_path(self.parts.data, row["receiver_run"], row["sequence"])
            self.readings.add(Reading(None, [path], released=row["id"]))

    def _rebuild(self, tx: Any, row: Any) -> None:
        """An open series begins with its previous revision's members; its own come back from the reader."""
        before = intake.revision_before(tx, row["id"])
        members = flow.members_of(tx, before) if before else {}
        own = intake.arrived_in(tx, row["id"])
        peer = own[0]["peer"] if own else ""
        self.parts.assembly.begin(row["id"], peer, members)
        self.parts.assembly.series[row["id"]].last = time.monotonic()
        flow.named_by_steps(tx, self.parts, row["id"], row["series_uid"])
        for found in own:
            path = intake.object_path(self.parts.data, found["receiver_run"], found["sequence"])
            self.readings.add(Reading(None, [path], rebuild=(row["id"], found["id"])))

    def scan(self, now: float) -> bool:
        """Queue what came until the monotonic *now*: in order within each receiver run, and from each in its turn.

        False where nothing new was there.
        """
        before = len(self.readings.queue)
        sources = [
            records_after(self.parts.data, run, self.queued.get(run, 0))
            for run in receiver_runs(self.parts.data)
        ]
        while sources and self.readings.room > 0:
            sources = [source for source in sources if self._queue_some(source)]
        if not sources:
            self.complete = now
        return bool(sources) or len(self.readings.queue) > before

    @property
    def caught_up(self) -> float:
        """The monotonic moment before which all that came is in the tables: sealing knows of nothing later.

        Where the index lags behind, a series whose images still wait to be read must not count as quiet.
        """
        waiting = (reading.since for reading in self.readings.queue if reading.record is not None)
        return next(waiting, self.complete)

    def _queue_some(self, source: Iterator[Record]) -> bool:
        """Queue a few records of one receiver run; whether there may be more."""
        found = list(islice(source, _AT_A_TIME))
        for record in found:
            self._queue(record)
        return len(found) == _AT_A_TIME

    def _queue(self, record: Record) -> None:
        self.queued[record.run] = record.sequence
        reading = Reading(record, [record.path], since=self.complete)
        reading.ready = record.is_end
        self.readings.add(reading)

    def take_in(self) -> bool:
        """One group of finished readings in one transaction.

        A power cut may undo it, with the cursors: then the files are read once more. Only before a file goes is
        what says so made durable.
        """
        if not (self.readings.queue and self.readings.queue[0].ready):
            return False
        remove: list[Path] = []
        compare: list[Reading] = []
        until = time.monotonic() + GROUP_SECONDS
        reading = self.readings.queue[0]
        try:
            with self.parts.database.write(durable=False) as tx:
                strangers = intake.strangers(tx, self.readings.objects(GROUP))
                for reading in self.readings.done(GROUP):
                    self._take(tx, reading, strangers, remove, compare)
                    self.behind = max(0, self.behind - 1)
                    if time.monotonic() > until:
                        break
                flow.counted(tx, self.parts)
                self._set_cursors(tx)
                faults.reach("before-index-commit")
            if remove:
                with self.parts.database.write() as tx:  # durable, and with it all that was committed before
                    self._set_cursors(tx)
            self.taken.clear()
            self.readings.taken_at = time.monotonic()
        except (SQLAlchemyError, OSError):
            raise
        except Exception as error:
            self._blame(reading, error)
            raise
        faults.reach("after-index-commit")
        for path in remove:
            path.unlink(missing_ok=True)
        for reading in compare:
            self.readings.add(reading)
        return True

    def _set_cursors(self, tx: Connection) -> None:
        for cursor in self.taken.items():
            intake.set_cursor(tx, *cursor)

    def _blame(self, reading: Reading, error: Exception) -> None:
        """Set the object aside that we failed over, so that the next conductor gets past it."""
        if reading.record is not None and reading.record.is_object:
            record = (reading.record.run, reading.record.sequence)
            with self.parts.database.write() as tx:
                flow.set_aside(tx, self.parts, record, f"the node failed over it ({type(error).__name__})")

    def _take(
        self, tx: Any, reading: Reading, strangers: set[str], remove: list[Path], compare: list[Reading]
    ) -> None:
        record = reading.record
        if record is not None and record.is_end:
            self._end(record.path)
        elif record is not None and record.is_object and reading.header is not None:
            taken = flow.take_in(tx, self.parts, (record.run, record.sequence), reading.header, strangers)
            if taken.remove:
                remove.append(taken.remove)
            if taken.compare:
                compare.append(Reading(None, list(taken.compare), compared=taken.instance))
        else:
            strangers.clear()  # what follows may make any of them known
            self._take_other(tx, reading)
        if record is not None:
            self.taken[record.run] = record.sequence

    def _take_other(self, tx: Any, reading: Reading) -> None:
        """What is no object that just came with a header to read."""
        if reading.rebuild is not None:
            self._take_rebuilt(tx, reading, *reading.rebuild)
        elif reading.released is not None:
            flow.released(tx, self.parts, reading.released, reading.header)
            self.releasing.discard(reading.released)
        elif reading.compared is not None:
            flow.compared(tx, self.parts, reading.compared, reading.header, reading.same)
        elif reading.record is not None and reading.record.is_object:
            flow.unreadable(tx, self.parts, (reading.record.run, reading.record.sequence), reading.failed)
        elif reading.record is not None:
            self._take_message(tx, reading.record, reading)

    def _end(self, path: Path) -> None:
        try:
            end = read_end(path)
        except (Broken, OSError) as error:  # its series are then sealed by their quiet time
            log.error("association_end_unreadable", error=type(error).__name__)  # noqa: TRY400 - no frames of use
            return
        self.parts.assembly.end(end.association, end.aborted, time.monotonic())

    def _take_message(self, tx: Any, record: Record, reading: Reading) -> None:
        """One that is damaged, or that the node fails over, must not stop what came after it."""
        try:
            with tx.begin_nested():
                if record.is_step:
                    message, _ = read_step(record.path)
                    flow.performed(tx, self.parts, message, reading.performed, reading.failed)
                else:
                    self.commitments.take(tx, record, reading)
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - the next conductor would fail over it again
            event = "step_unreadable" if record.is_step else "commitment_unreadable"
            log.error(event, error=type(error).__name__)  # noqa: TRY400 - no frames of use

    def _take_rebuilt(self, tx: Any, reading: Reading, series_id: int, instance_id: int) -> None:
        if reading.header is None:
            flow.unreadable_now(tx, self.parts, instance_id, reading.failed)
        elif series_id in self.parts.assembly.series:  # a rejection note may have closed it meanwhile
            self.parts.assembly.add(series_id, instance_id, reading.header, time.monotonic())


def _listed(data: Path, receiver_run: int, cursor: int) -> list[Record]:
    """The records past the cursor, gaps allowed where a power cut left them.

    A listing that races with a receiver may show a number and miss the one before it: what the second
    listing shows up to the last number of the first is complete, and the rest is found by the next scan.
    """
    last = max((r.sequence for r in records_after(data, receiver_run, cursor, catch_up=True)), default=0)
    found = records_after(data, receiver_run, cursor, catch_up=True)
    return [record for record in found if record.sequence <= last]
