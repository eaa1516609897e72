"""The conductor: `python -m node.conductor`. It waits, and calls the steps of `flow`; nothing else decides.

One per data folder. It never parses a peer's bytes (the reader does) and never speaks DIMSE (the
sender does). Whatever it cannot handle ends it: the supervisor starts the next, which gives all
claims back and goes on from the tables and the files.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from node import app, faults, flow
from node.assemble.completeness import Sealed, verdict
from node.assemble.resend import RECOMPRESSED
from node.child import LineChild
from node.commitments import Commitments
from node.engine import Engine
from node.errors import Broken, Misconfigured
from node.model import SeriesState
from node.ops import log as logging
from node.ops.health import beat, beat_path
from node.ops.reserve import tend
from node.readings import Reading, Readings
from node.send.protocol import Asked, Finished, Outcomes, Reported
from node.sendings import Sendings, UnderWay
from node.store import aside, deliveries, intake, watch, work
from node.store.database import note
from node.store.records import Record, read_end, receiver_runs, records_after
from node.supervisor import follow
from node.transcodings import GROUP, Transcodings

log = structlog.get_logger()

_GROUP = 200
_GROUP_SECONDS = 0.02
_PAUSE = 0.002
"""Between two transactions, so that a command-line writer gets its turn."""
_POLL = 1.0


@dataclass
class Conductor:
    """Its timers, its children, and the one loop."""

    parts: flow.Parts
    wake_fd: int | None
    readings: Readings = field(default_factory=Readings)
    sendings: Sendings = field(default_factory=Sendings)
    stopping: bool = False

    def __post_init__(self) -> None:
        self.engine = Engine(self.parts.settings.limits)
        self.transcodings = Transcodings(self.parts.settings.limits.run_memory)
        self.commitments = Commitments(self.parts, self.sendings)
        self.selector = selectors.DefaultSelector()
        self.queued: dict[int, int] = {}  # receiver run → last sequence that was queued for reading
        self.taken: dict[int, int] = {}  # receiver run → last sequence of the group in hand
        self.behind = 0  # readings of the start that are still to be taken in: nothing is sealed before
        self.watched: dict[str, tuple[int, int | None]] = {}  # child → generation and descriptor we listen to
        self.poll_at = 0.0
        self.polled = 0.0
        self.clocks: tuple[datetime, float] | None = None  # the wall and the monotonic clock at the last turn
        self.disk_note = ""
        self.releasing: set[int] = set()  # objects in conflict that a person released, on their way through
        self.attended: set[int] = set()  # open series that were shown for being open so long

    # --- the loop

    def run(self) -> None:
        """Work until SIGTERM."""
        self._recover()
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.set_wakeup_fd(self._stop_pipe())
        if self.wake_fd is not None:
            self.selector.register(self.wake_fd, selectors.EVENT_READ, "wake")
        self.selector.register(self.engine.wake_fd, selectors.EVENT_READ, "engine")
        log.info("conductor_started")
        while not self.stopping:
            wait = self._turn()
            self._watch(self.readings.child, "reader")
            self._watch(self.sendings.child, "sender")
            self._watch(self.transcodings.child, "transcoder")
            for key, _ in self.selector.select(wait):
                self._heard(key.data, key.fd)
        self._stop()

    def _stop_pipe(self) -> int:
        read, write = os.pipe()
        os.set_blocking(write, False)
        os.set_blocking(read, False)
        self.selector.register(read, selectors.EVENT_READ, "signal")
        return write

    def _on_sigterm(self, _signal: int, _frame: object) -> None:
        self.stopping = True

    def _watch(self, child: LineChild, name: str) -> None:
        """Have the selector listen to the child that runs now; a new one may have its predecessor's number."""
        runs = (child.generation, child.fileno)
        if self.watched.get(name) == runs:
            return
        self.watched[name] = runs
        known = {key.data: key.fd for key in self.selector.get_map().values()}
        if name in known:
            self.selector.unregister(known[name])
        if child.fileno is not None:
            self.selector.register(child.fileno, selectors.EVENT_READ, name)

    def _heard(self, name: str, fd: int) -> None:
        if name == "reader":
            self.readings.listen(time.monotonic())
            self._forget(self.readings.child, fd)
        elif name == "sender":
            self._hear_sender()
            self._forget(self.sendings.child, fd)
        elif name == "transcoder":
            self.transcodings.listen(time.monotonic())
            self._forget(self.transcodings.child, fd)
            self.poll_at = 0.0
        else:
            heard = _drain(fd)
            while heard is not None and len(heard) == 4096:
                heard = _drain(fd)
            if heard == b"" and name == "wake":  # its end: the supervisor, who holds it open, is gone
                self.stopping = True
            if name != "wake":  # a record that came is found by every turn's look into the folders
                self.poll_at = 0.0

    def _forget(self, child: LineChild, fd: int) -> None:
        """A child that died closed its pipe: its descriptor may soon be another's."""
        if child.fileno != fd:
            self.selector.unregister(fd)

    def _turn(self) -> float:
        """Everything that can be done now; returns how long nothing needs us."""
        now = time.monotonic()
        beat(beat_path(self.parts.data), time.time())
        self._look_at_clocks(now)
        self._scan()
        self.readings.ask(now)
        took = self.readings.worth_taking(now) and self._take_in()
        wait = self._seal(now)
        if took:  # what it brought is acted on with what comes in the next moment
            self.poll_at = min(self.poll_at, self.polled + _GROUP_SECONDS)
        if now >= self.poll_at:
            tend(self.parts.data)
            self._obey()
            self._route()
            self._finish()
            self._start_runs()
            self._transcode()
            self._deliver()
            self.commitments.turn(settled=not self.readings.queue)
            self.polled = time.monotonic()
            self.poll_at = self.polled + _POLL
        if took or self.readings.gathering:
            time.sleep(_PAUSE)
            return 0.0 if took else _PAUSE
        return max(0.0, min(wait, _POLL, self.poll_at - time.monotonic() + 0.001))

    def _look_at_clocks(self, now: float) -> None:
        """Where the wall clock was set back, what waits for a moment of before waits no longer than it should."""
        wall, before = self.parts.now(), self.clocks
        self.clocks = (wall, now)
        if flow.set_back(wall, now, before):
            with self.parts.database.write() as tx:
                capped = flow.cap_waits(tx, self.parts)
            log.warning("clock_set_back", count=capped)

    # --- start

    def _recover(self) -> None:
        """All claims return to waiting; open series are rebuilt from their files; catch-up lists what came since."""
        parts = self.parts
        with parts.database.write() as tx:
            for duplicate in intake.fresh_duplicates(tx, _GROUP):  # committed, and killed before the unlink
                intake.object_path(parts.data, *duplicate).unlink(missing_ok=True)
            runs, sending = work.give_back(tx)
            flow.cap_waits(tx, parts)
            self.commitments.recover(tx)
            for run_id in runs:
                note(tx, parts.now(), "run_waiting", "the node was restarted", run_id=run_id)
            for row in intake.in_state(tx, SeriesState.RECEIVING, held_too=True):
                self._rebuild(tx, row)
            for receiver_run in receiver_runs(parts.data):
                cursor = intake.cursor_of(tx, receiver_run)
                self.queued[receiver_run] = cursor
                for record in _listed(parts.data, receiver_run, cursor):
                    self._queue(record)
            for row, known in intake.to_compare(tx, RECOMPRESSED):
                paths = [
                    intake.object_path(parts.data, r["receiver_run"], r["sequence"]) for r in (known, row)
                ]
                self.readings.add(Reading(None, paths, compared=row["id"]))
            self.behind = len(self.readings.queue)
        faults.reach("after-recover")
        log.info("recovered", runs=len(runs), deliveries=sending, count=len(self.readings.queue))

    def _rebuild(self, tx: Any, row: Any) -> None:
        """An open series begins with its previous revision's members; its own come back from the reader."""
        before = intake.revision_before(tx, row["id"])
        members = flow.members_of(tx, before) if before else {}
        own = intake.arrived_in(tx, row["id"])
        peer = own[0]["peer"] if own else ""
        self.parts.assembly.begin(row["id"], peer, members)
        self.parts.assembly.series[row["id"]].last = time.monotonic()
        for found in own:
            path = intake.object_path(self.parts.data, found["receiver_run"], found["sequence"])
            self.readings.add(Reading(None, [path], rebuild=(row["id"], found["id"])))

    # --- take in

    def _scan(self) -> None:
        """Queue the records that came since, in order within each receiver run."""
        for receiver_run in receiver_runs(self.parts.data):
            if self.readings.room <= 0:
                return
            last = self.queued.get(receiver_run, 0)
            for record in records_after(self.parts.data, receiver_run, last):
                self._queue(record)
                if self.readings.room <= 0:
                    return

    def _queue(self, record: Record) -> None:
        self.queued[record.run] = record.sequence
        reading = Reading(record, [record.path])
        reading.ready = record.is_end
        self.readings.add(reading)

    def _take_in(self) -> bool:
        """One group of finished readings in one transaction."""
        if not (self.readings.queue and self.readings.queue[0].ready):
            return False
        remove: list[Path] = []
        compare: list[Reading] = []
        until = time.monotonic() + _GROUP_SECONDS
        reading = self.readings.queue[0]
        try:
            with self.parts.database.write() as tx:
                for reading in self.readings.done(_GROUP):
                    self._take(tx, reading, remove, compare)
                    self.behind = max(0, self.behind - 1)
                    if time.monotonic() > until:
                        break
                flow.counted(tx, self.parts)
                for cursor in self.taken.items():
                    intake.set_cursor(tx, *cursor)
                self.taken.clear()
                faults.reach("before-index-commit")
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

    def _blame(self, reading: Reading, error: Exception) -> None:
        """Set the object aside that we failed over, so that the next conductor gets past it."""
        if reading.record is not None and reading.record.is_object:
            record = (reading.record.run, reading.record.sequence)
            with self.parts.database.write() as tx:
                flow.set_aside(tx, self.parts, record, f"the node failed over it ({type(error).__name__})")

    def _take(self, tx: Any, reading: Reading, remove: list[Path], compare: list[Reading]) -> None:
        if reading.rebuild is not None:
            self._take_rebuilt(tx, reading, *reading.rebuild)
            return
        if reading.released is not None:
            flow.released(tx, self.parts, reading.released, reading.header)
            self.releasing.discard(reading.released)
            return
        if reading.compared is not None:
            flow.compared(tx, self.parts, reading.compared, reading.header, reading.same)
            return
        record = reading.record
        assert record is not None  # noqa: S101 - only rebuilt and compared readings have none
        if record.is_end:
            self._end(record.path)
        elif not record.is_object:
            self._take_message(tx, record, reading)
        elif reading.header is None:
            flow.unreadable(tx, self.parts, (record.run, record.sequence), reading.failed)
        else:
            taken = flow.take_in(tx, self.parts, (record.run, record.sequence), reading.header)
            if taken.remove:
                remove.append(taken.remove)
            if taken.compare:
                compare.append(Reading(None, list(taken.compare), compared=taken.instance))
        self.taken[record.run] = record.sequence

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
                self.commitments.take(tx, record, reading)
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - the next conductor would fail over it again
            log.error("commitment_unreadable", error=type(error).__name__)  # noqa: TRY400 - no frames of use

    def _take_rebuilt(self, tx: Any, reading: Reading, series_id: int, instance_id: int) -> None:
        if reading.header is None:
            flow.unreadable_now(tx, self.parts, instance_id, reading.failed)
        elif series_id in self.parts.assembly.series:  # a rejection note may have closed it meanwhile
            self.parts.assembly.add(series_id, instance_id, reading.header, time.monotonic())

    # --- seal and route

    def _seal(self, now: float) -> float:
        """Seal what is complete; how long until the next series may be."""
        if self.behind:
            return _POLL
        wait = _POLL
        for series_id in list(self.parts.assembly.series):
            found = verdict(
                self.parts.assembly.evidence(series_id, now), flow.seal_policy(self.parts, series_id)
            )
            self._attend(series_id, now)
            if isinstance(found, Sealed):
                with self.parts.database.write() as tx:
                    flow.seal(tx, self.parts, series_id, found.reason)
                faults.reach("after-seal")
                self.poll_at = 0.0
            else:
                wait = min(wait, found.wait.total_seconds())
        return wait

    def _attend(self, series_id: int, now: float) -> None:
        """Show a series that has been open for very long; it is never cut."""
        if series_id in self.attended or now < flow.attention_at(self.parts, series_id):
            return
        self.attended.add(series_id)
        with self.parts.database.write() as tx:
            note(
                tx,
                self.parts.now(),
                "series_attention",
                "still open after attention_after",
                series_id=series_id,
            )
        log.warning("series_attention", series=series_id)

    def _route(self) -> None:
        with self.parts.database.read() as tx:
            sealed = intake.in_state(tx, SeriesState.SEALED)
        for row in sealed:
            with self.parts.database.write() as tx:
                flow.route(tx, self.parts, row)
            faults.reach("after-route")
            log.info("series_routed", series=row["id"])

    # --- what a person asked for

    def _obey(self) -> None:
        """Workers of cancelled runs are ended; objects in conflict that were released go to the reader."""
        with self.parts.database.read() as tx:
            gone = work.not_running(tx, self.engine.running)
            asked = [key for key in aside.asked_releases(tx) if key not in self.releasing]
            found = intake.instances_of(tx, asked)
        for run, attempt in gone:
            self.engine.give_up(run, attempt)
        for row in found:
            self.releasing.add(row["id"])
            path = intake.object_path(self.parts.data, row["receiver_run"], row["sequence"])
            self.readings.add(Reading(None, [path], released=row["id"]))

    # --- run

    def _start_runs(self) -> None:
        room = self.engine.room
        if room <= 0 or not self._disk_allows():
            return
        with self.parts.database.read() as tx:
            due = work.due_runs(tx, self.parts.now(), room)
            waiting = watch.waiting_bytes(tx) if due else {}
        if crowded := app.crowding(self.parts.settings, waiting):
            with self.parts.database.write() as tx:
                due = flow.startable(tx, self.parts, room, crowded)
        for row in due:
            with self.parts.database.write() as tx:
                started = flow.start_run(tx, self.parts, row)
            faults.reach("after-run-claim")
            if started is not None:
                self.engine.start(started)
                log.info("run_started", run=started.run, attempt=started.attempt)

    def _disk_allows(self) -> bool:
        """Processing stops before reception has to; one event when the disk fills and one when it is well again."""
        share, disk = app.disk_used(self.parts.data), self.parts.settings.disk
        state = "disk_full" if share >= disk.stop_processing else "disk_warning" if share >= disk.warn else ""
        if state != self.disk_note:
            with self.parts.database.write() as tx:
                note(tx, self.parts.now(), state or "disk_well", f"{share:.0%} of the disk is used")
            self.disk_note = state
        return state != "disk_full"

    def _finish(self) -> None:
        for started, ended in self.engine.finished():
            with self.parts.database.write() as tx:
                flow.finish_run(tx, self.parts, started, ended)
                faults.reach("before-run-finish")
            faults.reach("after-run-finish")
            log.info("run_ended", run=started.run, attempt=started.attempt, state=ended.state.value)

    # --- deliver

    def _deliver(self) -> None:
        with self.parts.database.read() as tx:
            waiting = deliveries.waiting_destinations(tx, self.parts.now())
        for to in waiting if self.sendings.child.ensure() else ():
            peer = self.parts.settings.peers.get(to)
            if peer and self.sendings.count(to) >= peer.associations:
                continue  # without a transaction: it may hang for long, and the others have their turn
            with self.parts.database.write() as tx:
                found = flow.deliver(tx, self.parts, to, self.sendings.count(to))
            if found is None:
                continue
            faults.reach("after-delivery-claim")
            if found.items:
                self.sendings.send(found.where, found.items)
            else:
                self.sendings.ask(found.where)

    def _transcode(self) -> None:
        """Copies of what a destination takes in another transfer syntax only; none while the disk is full."""
        for made in self.transcodings.made():
            with self.parts.database.write() as tx:
                ours = flow.copied(tx, self.parts, made.copying, made.syntax, made.failed)
            faults.reach("after-copied")
            if not ours:
                made.copying.out.unlink(missing_ok=True)
        now = time.monotonic()
        if self.transcodings.hungry(now) and self._disk_allows():
            with self.parts.database.read() as tx:
                self.transcodings.feed(flow.to_copy(tx, self.parts, GROUP), now)
        self.transcodings.work(now)

    def _hear_sender(self) -> None:
        found, lost = self.sendings.heard()
        for one, message in found:
            if isinstance(message, Outcomes):
                self._outcomes(one, message)
            elif isinstance(message, Finished):
                self._batch_over(one, message)
            elif isinstance(message, Asked | Reported):
                self.commitments.heard(one, message)
            else:
                with self.parts.database.write() as tx:
                    flow.probed(tx, self.parts, one.to, message.error, message.trouble)
        if lost or self.sendings.child.process is None:
            log.warning("sender_died", count=len(lost))
            with self.parts.database.write() as tx:
                deliveries.unclaim_deliveries(tx, [key for one in lost for key in one.deliveries])
            self.commitments.lost(lost)
        self.poll_at = 0.0

    def _outcomes(self, one: UnderWay, message: Outcomes) -> None:
        faults.reach("before-outcomes")
        with self.parts.database.write() as tx:
            heard = flow.delivered(tx, self.parts, one.to, message.results)
        self.sendings.see(one, message.results)
        one.blamed = one.blamed or heard.blamed
        one.taken = one.taken or heard.taken
        if heard.transcode:
            self.transcodings.wanted()
        faults.reach("after-outcomes")
        for path in heard.copies:
            path.unlink(missing_ok=True)

    def _batch_over(self, one: UnderWay, message: Finished) -> None:
        faults.reach("before-batch-end")
        error, trouble = self.sendings.trouble(one, message)
        with self.parts.database.write() as tx:
            flow.batch_over(
                tx, self.parts, one.to, error, one.deliveries, trouble,
                taken=one.taken or one.blamed,
            )  # fmt: skip
        if error:
            log.warning("destination_down", destination=one.to, reason=error)

    # --- stop

    def _stop(self) -> None:
        """Senders finish their object; workers are ended, and their runs wait for the next start."""
        log.info("conductor_stopping")
        self.sendings.child.ask_to_stop()
        until = time.monotonic() + 10
        while self.sendings.open and time.monotonic() < until:
            self._hear_sender()
            time.sleep(0.02)
        for child in (self.sendings.child, self.readings.child, self.transcodings.child):
            child.kill()
        self.engine.stop()
        with self.parts.database.write() as tx:
            work.give_back(tx)
        self.parts.database.close()
        log.info("conductor_stopped")


def _listed(data: Path, receiver_run: int, cursor: int) -> list[Record]:
    """The records past the cursor, gaps allowed where a power cut left them.

    A listing that races with a receiver may show a number and miss the one before it: what the second
    listing shows up to the last number of the first is complete, and the rest is found by the next scan.
    """
    last = max((r.sequence for r in records_after(data, receiver_run, cursor, catch_up=True)), default=0)
    found = records_after(data, receiver_run, cursor, catch_up=True)
    return [record for record in found if record.sequence <= last]


def _drain(fd: int) -> bytes | None:
    """What can be read at once: b"" at the end, None where nothing is there."""
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return None


def main(arguments: list[str] | None = None) -> int:
    """Conduct until SIGTERM; exit code 2 when the configuration does not allow it."""
    parser = argparse.ArgumentParser(prog="python -m node.conductor")
    parser.add_argument("--wake-fd", type=int)
    parser.add_argument("--file", default="node.yaml")
    parser.add_argument("--parent", type=int, default=os.getppid())
    given = parser.parse_args(arguments)
    logging.configure("conductor")
    follow(given.parent)
    try:
        settings = app.settings_from_stdin(given.file)
        app.hold(settings.node.data)
        tend(settings.node.data)
        Conductor(app.build(settings), given.wake_fd).run()
    except Misconfigured as error:
        log.error("misconfigured", reason=str(error))  # noqa: TRY400 - a sentence for people, not a fault of ours
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
