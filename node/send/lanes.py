"""A thread per association, a limit per destination, and outcomes in groups."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable

from node import faults
from node.commitment import Dialogue
from node.model import Trouble
from node.send import commitment, scu
from node.send.protocol import (
    MOST_OBJECTS,
    Ask,
    Asked,
    Command,
    Echo,
    Echoed,
    Finished,
    Kind,
    Outcome,
    Outcomes,
    Report,
    Reported,
    Result,
)

_GROUP_FOR = 0.1
"""Seconds a result may wait for others to go with."""

Write = Callable[[Outcome], None]


class Outbox:
    """Results on their way to the conductor, at most 200 or 100 ms together (fewer commits there)."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._results: dict[int, list[Result]] = {}
        self._some = threading.Event()
        self._full = threading.Event()
        threading.Thread(target=self._run, name="outbox", daemon=True).start()

    def add(self, batch: int, result: Result) -> None:
        """Take one result of *batch*."""
        with self._lock:
            group = self._results.setdefault(batch, [])
            group.append(result)
            full = len(group) >= MOST_OBJECTS
        self._some.set()
        if full:
            self._full.set()

    def flush(self) -> None:
        """Write everything that waits."""
        with self._lock:  # held while writing: `Finished` must not overtake
            self._some.clear()
            self._full.clear()
            for batch, results in self._results.items():
                for start in range(0, len(results), MOST_OBJECTS):
                    self._write(Outcomes(batch, tuple(results[start : start + MOST_OBJECTS])))
            self._results = {}

    def end(self, last: Finished | Echoed | Asked | Reported) -> None:
        """Write what waits, then *last*."""
        self.flush()
        with self._lock:
            self._write(last)

    def _run(self) -> None:
        while True:
            self._some.wait()
            self._full.wait(_GROUP_FOR)
            self.flush()


class Lanes:
    """Runs commands, each on a thread of its own, at most `max_associations` at a time per destination.

    Storage commitment has a lane of its own to each destination: waiting for an answer blocks no object.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._lock = threading.Condition()
        self._queues: dict[str, deque[Command]] = {}
        self._running: dict[str, int] = {}
        self._stopping = threading.Event()

    def take(self, command: Command) -> None:
        """Start *command*, or queue it behind others on its lane."""
        lane, most = _lane(command)
        with self._lock:
            self._queues.setdefault(lane, deque()).append(command)
            if self._running.get(lane, 0) >= most:
                return
            self._running[lane] = self._running.get(lane, 0) + 1
        threading.Thread(target=self._work, args=(lane,), name=f"to {lane}", daemon=True).start()

    def stop(self, within: float) -> bool:
        """Let every association finish the object in hand; False when some did not *within* seconds."""
        self._stopping.set()
        deadline = time.monotonic() + within
        with self._lock:
            done = self._lock.wait_for(lambda: not self._running, timeout=max(deadline - time.monotonic(), 0))
        self._outbox.flush()
        return done

    def _work(self, name: str) -> None:
        """Run this lane's commands one after another until there is none."""
        while True:
            with self._lock:
                queue = self._queues[name]
                if not queue:
                    self._running[name] -= 1
                    if not self._running[name]:
                        del self._running[name]
                        del self._queues[name]
                    self._lock.notify_all()
                    return
                command = queue.popleft()
            self._run(command)

    def _run(self, command: Command) -> None:
        if isinstance(command, Echo):
            answer: str | None = "the node is stopping; ask again after the restart"
            if not self._stopping.is_set():
                answer = self._guarded(lambda: scu.echo(command.destination), command)
            self._outbox.end(Echoed(command.id, answer and str(answer), _trouble(answer)))
            return
        if isinstance(command, Ask | Report):
            self._outbox.end(self._commitment(command))
            return
        reported: set[int] = set()
        faults.reach("before-send")

        def report(result: Result) -> None:
            faults.reach("after-send")
            reported.add(result.delivery)
            self._outbox.add(command.id, result)

        error = self._guarded(
            lambda: scu.send_objects(command.destination, command.objects, report, self._stopping.is_set),
            command,
        )
        for item in command.objects:
            if item.delivery not in reported:  # only after a fault of ours
                report(Result(item.delivery, item.attempt, Kind.NOT_TRIED, None, "the sender failed"))
        self._outbox.end(Finished(command.id, error and str(error), _trouble(error)))

    def _commitment(self, command: Ask | Report) -> Asked | Reported:
        """Ask for commitment, or report on it."""
        heard: list[Dialogue] = []

        def work() -> str | None:
            if self._stopping.is_set():
                return "the node is stopping; it is done after the restart"
            if isinstance(command, Report):
                return commitment.report(command.destination, command.said)
            return commitment.ask(command, heard.append, self._stopping.is_set)

        error = self._guarded(work, command)
        if isinstance(command, Report):
            return Reported(command.id, error)
        return Asked(command.id, error, heard[0] if heard else None)

    @staticmethod
    def _guarded(work: Callable[[], str | None], command: Command) -> str | None:
        """*work*, with a fault of ours turned into words: one bad batch must not end the others."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - the frames go to stderr, without values
            print("".join(traceback.format_tb(error.__traceback__)), file=sys.stderr)
            where = command.destination.where
            return f"{where} was not reached: fault in the sender ({type(error).__name__}); report it"


def _lane(command: Command) -> tuple[str, int]:
    """Where a command queues, and how many of that lane may run at a time."""
    if isinstance(command, Ask | Report):
        return f"{command.destination.name} (commitment)", 1
    return command.destination.name, max(command.destination.max_associations, 1)


def _trouble(error: str | None) -> Trouble:
    return error.trouble if isinstance(error, scu.Hindrance) else Trouble.UNREACHABLE
