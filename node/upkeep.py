"""Upkeep: `python -m node.upkeep`. The clock of retention and alerts; it decides nothing itself.

Retention runs every night, and at once when the disk fills, then for what is past its time and no more. A pass
that fails is logged and tried again at the next occasion.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from node import app, fullness
from node.errors import Misconfigured
from node.ops import alerts, health
from node.ops import log as logging
from node.ops.leftovers import sweep, sweep_copies
from node.ops.removing import remove
from node.settings import Settings
from node.store import lookups, steps, watch
from node.store.database import Database
from node.supervisor import follow

NIGHT = 2
"""Hour of the site's day at which retention runs."""
LOOK = 30.0
"""Seconds between two looks at what may need an alert."""
START = 120.0
"""Seconds a conductor may take to start before its silence is news: until its first sign of life the tables and
its last sign tell of the time before this start."""
DISK_LOOK = 300.0
"""Seconds between two looks at the disk."""
NICE = 10
STEPS = timedelta(days=90)
"""So long a performed procedure step is kept after the last message about it."""
FORGET = timedelta(days=30)
"""How long a table that values are looked up in is kept after its last use, where nothing names it."""

log = structlog.get_logger()


@dataclass
class Upkeep:
    """What is done, and whether it is being done now; *now* is the wall clock, *monotonic* runs evenly."""

    settings: Settings
    database: Database
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic
    stop: threading.Event = field(default_factory=threading.Event)
    _at_work: threading.Lock = field(default_factory=threading.Lock)
    started: bool = False
    """The conductor has shown a sign of life since we began, or took too long."""
    _disk_at: float = float("-inf")

    def __post_init__(self) -> None:
        self._began = self.monotonic()
        self._pulse = health.Pulse(health.beat_path(self.settings.node.data))
        self._pulse.restart()

    def look(self) -> bool:
        """Tell what is wrong; whether retention is wanted now, because the disk fills."""
        now = self.monotonic()
        self.started = self.started or self._pulse.age(now) is not None or now - self._began >= START
        if self.started:
            self._guarded("alerts_failed", lambda: alerts.check(self.settings, self.database, self.now()))
        if self.monotonic() - self._disk_at < DISK_LOOK:
            return False
        self._disk_at = self.monotonic()
        self._guarded("disk_look_failed", self._count_waiting)
        self._guarded("retention_failed", lambda: sweep_copies(self.database, self.settings.node.data))
        return self._guarded("disk_look_failed", self._disk_fills)

    def _count_waiting(self) -> None:
        """How much waits for each destination; the conductor, `status` and the alerts go by it."""
        with self.database.read() as tx:
            counted = watch.count_waiting_bytes(tx)
        with self.database.write() as tx:
            watch.remember_waiting_bytes(tx, counted)

    def retain(self) -> None:
        """One pass of retention and of leftovers; nothing where one is under way."""
        if not self._at_work.acquire(blocking=False):
            return
        try:
            self._guarded("retention_failed", self._pass)
        finally:
            self._at_work.release()

    def _disk_fills(self) -> bool:
        return fullness.disk_used(self.settings.node.data) >= self.settings.disk.stop_processing

    def _pass(self) -> bool:
        began = self.monotonic()
        removed = remove(self.database, self.settings, self.now(), self.stop.is_set)
        with self.database.write() as tx:
            steps.forget(tx, self.now() - STEPS)
            lookups.forget(tx, self.now() - FORGET)
            watch.swept(tx, self.now())  # durable, and with it what the index says of the files that go
        files = 0 if self.stop.is_set() else sweep(self.database, self.settings.node.data).count
        log.info(
            "retention_done", series=removed.series, objects=removed.objects, products=removed.results,
            bytes=removed.bytes, files=files, seconds=round(self.monotonic() - began, 1),
        )  # fmt: skip
        return True

    def _guarded(self, name: str, work: Callable[[], object]) -> bool:
        """Do *work*; a failure is logged and ends nothing."""
        try:
            return bool(work())
        except Exception:  # whatever it was, the next pass comes
            log.exception(name, exc_info=True)
            return False


def nightly(timezone: str) -> CronTrigger:
    """Once every night of *timezone*."""
    return CronTrigger(hour=NIGHT, timezone=timezone)


def run(upkeep: Upkeep) -> None:
    """Work until `stop` is set. APScheduler is the clock of the night; it is woken often, in case ours was set."""
    scheduler = BackgroundScheduler(timezone=upkeep.settings.node.timezone)
    # Hours late, after a suspended night, is better than never; two missed nights are made up for once.
    scheduler.add_job(
        upkeep.retain,
        nightly(upkeep.settings.node.timezone),
        id="night",
        misfire_grace_time=None,
        coalesce=True,
    )
    scheduler.start()
    log.info("upkeep_started")
    while True:
        if upkeep.look():
            scheduler.add_job(upkeep.retain, id="disk", misfire_grace_time=None, replace_existing=True)
        scheduler.wakeup()
        if upkeep.stop.wait(LOOK if upkeep.started else health.BEAT_EVERY):
            break
    scheduler.shutdown(wait=True)
    log.info("upkeep_stopped")


def main(arguments: list[str] | None = None) -> int:
    """Keep house until SIGTERM; exit code 2 when the configuration does not allow it."""
    parser = argparse.ArgumentParser(prog="python -m node.upkeep")
    parser.add_argument("--file", default="node.yaml")
    parser.add_argument("--parent", type=int, default=os.getppid())
    given = parser.parse_args(arguments)
    logging.configure("upkeep")
    follow(given.parent)
    os.nice(NICE)
    try:
        settings = app.settings_from_stdin(given.file)
        logging.configure("upkeep", data=settings.node.data)
        upkeep = Upkeep(settings, app.own_database(settings))
    except Misconfigured as error:
        log.error("misconfigured", reason=str(error))  # noqa: TRY400 - a sentence for people, not a fault of ours
        return 2
    signal.signal(signal.SIGTERM, lambda *_: upkeep.stop.set())
    try:
        run(upkeep)
    finally:
        upkeep.database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
