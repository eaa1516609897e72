"""The conductor: `python -m node.conductor`. It waits, and calls the steps of `flow`; nothing else decides.

One per data folder. It never parses a peer's bytes (the reader does) and never speaks DIMSE (the
sender does). Whatever it cannot handle ends it: the supervisor starts the next, which gives all
claims back and goes on from the tables and the files.

What it turns stands beside it: `arrivals` and `readings` (in), `sealings`, `runs` with the `engine`, `dispatch` with
`sendings` and `transcodings` (out), `commitments`, `queryings`, `refusals`, `rulewatch`; `listening` wakes it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError

from node import app, faults, flow, holding
from node.arrivals import Arrivals
from node.child import LineChild
from node.collecting import collect_less
from node.commitments import Commitments
from node.dispatch import Dispatch
from node.engine import Engine
from node.errors import Misconfigured
from node.listening import Listening, drain
from node.ops import log as logging
from node.ops.health import beat, beat_path
from node.ops.reserve import is_out_of_room, tend
from node.queryings import Queryings
from node.readings import Readings
from node.refusals import Refusals
from node.rulewatch import RuleWatch
from node.runs import Runs
from node.sealings import Sealings
from node.sendings import Sendings
from node.store import work
from node.store.database import note
from node.supervisor import follow
from node.transcodings import Transcodings

_READER = "reader "  # its number follows
_WAKE = "wake"

log = structlog.get_logger()

_LOOK = 0.02
"""Between two looks at what comes while it keeps coming: a look costs as much for one object as for thirty."""
_PAUSE = 0.005
"""Between two turns while objects are read, so that answers come together, and a command-line writer gets its turn."""
_NICE = 5
"""With its children it stands behind the receivers where the processor is short: a sender waits for those only."""
_POLL = 1.0
_SOON = 0.05
"""Seconds from one look into the tables to the next while they grow."""
_QUIET = 2.0
"""Seconds without a new object after which the database's log is emptied."""


@dataclass
class Conductor:
    """Its timers, its children, and the one loop."""

    parts: flow.Parts
    wake_fd: int | None
    census_fd: int | None = None
    readings: Readings = field(default_factory=Readings)
    sendings: Sendings = field(default_factory=Sendings)
    stopping: bool = False

    def __post_init__(self) -> None:
        self.engine = Engine(self.parts.settings.limits)
        self.runs = Runs(self.parts, self.engine)
        self.transcodings = Transcodings(self.parts.settings.limits.run_memory)
        self.commitments = Commitments(self.parts, self.sendings)
        self.arrivals = Arrivals(self.parts, self.readings, self.commitments)
        self.dispatch = Dispatch(self.parts, self.sendings, self.transcodings, self.commitments)
        self.queryings = Queryings(self.parts)
        self.sealings = Sealings(self.parts)
        self.refusals = Refusals(self.parts, self.census_fd)
        self.rules = RuleWatch(app.rule_looks(self.parts))
        self._expect_runs()
        self.listening = Listening()
        self.scan_at = 0.0
        self.poll_at = 0.0
        self.polled = 0.0
        self.written = 0.0  # when objects were taken in last, and the log not emptied since
        self.clocks: tuple[datetime, float] | None = None  # the wall and the monotonic clock at the last turn

    # --- the loop

    def run(self) -> None:
        """Work until SIGTERM."""
        self._recover()
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.set_wakeup_fd(self.listening.to_signals())
        if self.wake_fd is not None:
            self.listening.to(_WAKE, self.wake_fd)
        self.listening.to("engine", self.engine.wake_fd)
        self.rules.start()
        log.info("conductor_started")
        while not self.stopping:
            wait = self._turn()
            self.listening.follow(self._children())
            for name, fd in self.listening.wait(wait):
                self._heard(name, fd)
            self.listening.drop_dead(self._children())
        self._stop()

    def _on_sigterm(self, _signal: int, _frame: object) -> None:
        self.stopping = True

    def _children(self) -> dict[str, LineChild]:
        """Those we listen to, by name."""
        readers = {f"{_READER}{number}": child for number, child in enumerate(self.readings.children)}
        return {**readers, "sender": self.sendings.child, "transcoder": self.transcodings.child,
                "querier": self.queryings.child}  # fmt: skip

    def _heard(self, name: str, fd: int) -> None:
        if name.startswith(_READER):
            self.readings.listen(time.monotonic())
        elif name == "sender":
            self.dispatch.hear()
            self.poll_at = 0.0
        elif name == "transcoder":
            self.transcodings.listen(time.monotonic())
            self.poll_at = 0.0
        elif name == "querier":
            self.queryings.listen()
            self.poll_at = 0.0
        else:
            heard = drain(fd)
            while heard is not None and len(heard) == 4096:
                heard = drain(fd)
            if heard == b"" and name == _WAKE:  # its end: the supervisor, who holds it open, is gone
                self.stopping = True
            if name != _WAKE:  # a record that came is found by the next look into the folders
                self.poll_at = 0.0

    def _turn(self) -> float:
        """Everything that can be done now; returns how long nothing needs us."""
        now = time.monotonic()
        beat(beat_path(self.parts.data), time.time())
        self._look_at_clocks(now)
        look = self._look(now)
        self.readings.ask(now)
        took = self.readings.worth_taking(now) and self.arrivals.take_in()
        self.queryings.turn(now)
        wait = self._seal(now)
        if took:  # what it brought is acted on with what comes in the next moment
            self.written = now
            self.poll_at = min(self.poll_at, self.polled + _SOON)
        if now >= self.poll_at:
            tend(self.parts.data)
            self.refusals.turn(now)
            self._take_rules()
            self._obey()
            self.sealings.route()
            self.sealings.judge_studies()
            self.runs.finish()
            self.runs.start()
            self.queryings.fetch(self.arrivals.caught_up, room=self.runs.disk_allows())
            self.dispatch.transcode(room=self.runs.disk_allows())
            self.dispatch.deliver()
            self.commitments.turn(settled=not self.readings.queue)
            self._rest(now)
            self.polled = time.monotonic()
            self.poll_at = self.polled + _POLL
        if took or self.readings.busy:
            time.sleep(_PAUSE)
            return 0.0 if took else _PAUSE
        return max(0.0, min(wait, look, _POLL, self.poll_at - time.monotonic() + 0.001))

    def _look(self, now: float) -> float:
        """Queue what came; how long until the next look. While more comes, the receivers do not wake us for each."""
        if now >= self.scan_at:
            if self.arrivals.scan(now):
                self.scan_at = now + _LOOK
                self.listening.hush(_WAKE)
            else:
                self.scan_at = 0.0
                self.listening.heed(_WAKE)
        return self.scan_at - now if self.scan_at else _POLL

    def _rest(self, now: float) -> None:
        """Where nothing has come for a while, do what would disturb a burst."""
        if self.written and not self.readings.queue and now - self.written > _QUIET:
            self.written = 0.0
            self.parts.database.empty_log()

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
            runs, sending = work.give_back(tx)
            flow.cap_waits(tx, parts)
            self.commitments.recover(tx)
            for run_id in runs:
                note(tx, parts.now(), "run_waiting", "the node was restarted", run_id=run_id)
            self.arrivals.recover(tx)
        faults.reach("after-recover")
        log.info("recovered", runs=len(runs), deliveries=sending, count=len(self.readings.queue))

    # --- seal

    def _seal(self, now: float) -> float:
        """Seal what is complete; how long until the next series may be."""
        if self.arrivals.behind:
            return _POLL
        sealed, wait = self.sealings.seal(now, self.arrivals.caught_up, _POLL)
        if sealed:
            self.poll_at = 0.0
        return wait

    # --- what a person asked for

    def _obey(self) -> None:
        """Workers of cancelled runs are ended; objects in conflict that were released are taken in."""
        self.runs.end_cancelled()
        self.arrivals.release()

    # --- rules

    def _expect_runs(self) -> None:
        self.engine.expect(any(rule.steps for rule in self.parts.rules.rules))

    def _take_rules(self) -> None:
        """Rules that passed since the last turn take the place of the others, all at once; refused ones are told."""
        for outcome in self.rules.outcomes():
            words = app.use_rules(self.parts, outcome)
            self._expect_runs()
            if outcome.rules is None:
                log.warning("rules_refused", reason=words)
            else:
                log.info("rules_taken", reason=words)

    # --- stop

    def _stop(self) -> None:
        """Senders finish their object; workers are ended, and their runs wait for the next start."""
        log.info("conductor_stopping")
        self.rules.stop()
        self.sendings.child.ask_to_stop()
        until = time.monotonic() + 10
        while self.sendings.open and time.monotonic() < until:
            self.dispatch.hear()
            time.sleep(0.02)
        for child in (
            self.sendings.child,
            *self.readings.children,
            self.transcodings.child,
            self.queryings.child,
        ):
            child.kill()
        self.engine.stop()
        with self.parts.database.write() as tx:
            work.give_back(tx)
        self.parts.database.close()
        log.info("conductor_stopped")


def main(arguments: list[str] | None = None) -> int:
    """Conduct until SIGTERM; exit code 2 when the configuration does not allow it."""
    parser = argparse.ArgumentParser(prog="python -m node.conductor")
    parser.add_argument("--wake-fd", type=int)
    parser.add_argument("--census-fd", type=int)
    parser.add_argument("--file", default="node.yaml")
    parser.add_argument("--parent", type=int, default=os.getppid())
    given = parser.parse_args(arguments)
    logging.configure("conductor")
    follow(given.parent)
    os.nice(_NICE)
    try:
        settings = app.settings_from_stdin(given.file)
        holding.hold(settings.node.data)
        tend(settings.node.data)
        conductor = Conductor(app.build(settings), given.wake_fd, given.census_fd)
        collect_less()
        conductor.run()
    except Misconfigured as error:
        log.error("misconfigured", reason=str(error))  # noqa: TRY400 - a sentence for people, not a fault of ours
        return 2
    except (SQLAlchemyError, OSError) as error:
        if not is_out_of_room(error):
            raise
        why = "the disk of node.data is full; free space, and all goes on by itself"
        log.error("out_of_room", reason=why)  # noqa: TRY400 - a sentence for people, no frames of use
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
