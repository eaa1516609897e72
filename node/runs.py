"""Runs as the conductor sees them: handed to workers while there is room, and taken back as they end."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from node import faults, flow, fullness
from node.engine import Engine
from node.store import watch, work
from node.store.database import note

log = structlog.get_logger()


@dataclass
class Runs:
    """The engine, and whether the disk has room for what runs make."""

    parts: flow.Parts
    engine: Engine
    disk_note: str = ""
    """What was said of the disk last."""

    def end_cancelled(self) -> None:
        """Workers of cancelled runs are ended."""
        with self.parts.database.read() as tx:
            gone = work.not_running(tx, self.engine.running)
        for run, attempt in gone:
            self.engine.give_up(run, attempt)

    def start(self) -> None:
        """Hand what is due to workers, as many as there is room for."""
        room = self.engine.room
        if room <= 0 or not self.disk_allows():
            return
        with self.parts.database.read() as tx:
            due = work.due_runs(tx, self.parts.now(), room)
            waiting = watch.waiting_bytes(tx) if due else {}
        if crowded := fullness.crowding(self.parts.settings, waiting):
            with self.parts.database.write() as tx:
                due = flow.startable(tx, self.parts, room, crowded)
        for row in due:
            with self.parts.database.write() as tx:
                started = flow.start_run(tx, self.parts, row)
            faults.reach("after-run-claim")
            if started is not None:
                self.engine.start(started)
                log.info("run_started", run=started.run, attempt=started.attempt)

    def disk_allows(self) -> bool:
        """Processing stops before reception has to; one event when the disk fills and one when it is well again."""
        share, disk = fullness.disk_used(self.parts.data), self.parts.settings.disk
        state = "disk_full" if share >= disk.stop_processing else "disk_warning" if share >= disk.warn else ""
        if state != self.disk_note:
            with self.parts.database.write() as tx:
                note(tx, self.parts.now(), state or "disk_well", f"{share:.0%} of the disk is used")
            self.disk_note = state
        return state != "disk_full"

    def finish(self) -> None:
        """Take what came of the runs that ended."""
        for started, ended in self.engine.finished():
            with self.parts.database.write() as tx:
                flow.finish_run(tx, self.parts, started, ended)
                faults.reach("before-run-finish")
            faults.reach("after-run-finish")
            log.info("run_ended", run=started.run, attempt=started.attempt, state=ended.state.value)
