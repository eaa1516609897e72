"""Records on their way through the reader process, in order, and who is to blame when it dies."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from node import commitment
from node.child import LineChild
from node.commitment import Dialogue
from node.model import Cell, Header
from node.reader import header_from_json
from node.store.records import Record

_OUTSTANDING = 64
_ENOUGH, _GATHER = 32, 0.01
"""Objects that are taken in at once, and the seconds for which fewer wait for others to go with."""
_READ_TIMEOUT = 10.0
_READ_RATE = 50e6
"""Bytes per second that a slow disk gives: a large object is hashed whole and takes its time."""
_READ_TRIES = 3
"""A reader that is killed from outside twice in a row says nothing about the object it was at."""


@dataclass
class Reading:
    """One record on its way through the reader; an association's end passes without."""

    record: Record | None
    paths: list[Path]
    header: Header | None = None
    failed: str = ""
    ready: bool = False
    asked_at: float = 0.0
    ready_at: float = 0.0
    tries: int = 0
    rebuild: tuple[int, int] | None = None
    """(series, instance) of an open series that is being rebuilt after a restart."""
    compared: int | None = None
    """The instance whose pixels are compared with those of the first path."""
    same: bool = False
    released: int | None = None
    """The instance in conflict that a person takes for the valid one."""
    said: Dialogue | None = None
    """What a message about storage commitment says."""

    @property
    def patience(self) -> float:
        """Seconds the reader may take."""
        size = 0
        for path in self.paths:
            with contextlib.suppress(OSError):
                size += path.stat().st_size
        return _READ_TIMEOUT + size / _READ_RATE


class Readings:
    """The records in order, the reader that works on them, and who is to blame when it dies."""

    def __init__(self) -> None:
        self.child = LineChild("node.reader")
        self.queue: deque[Reading] = deque()
        self._asked: deque[Reading] = deque()
        self._before: Mapping[str, Cell] = {}
        """What the reader last told of: it tells of the next object only what differs."""

    def add(self, reading: Reading) -> None:
        """One more record, last in order."""
        self.queue.append(reading)

    @property
    def room(self) -> int:
        """How many more records may be queued."""
        return 4 * _OUTSTANDING - len(self.queue)

    @property
    def gathering(self) -> bool:
        """Whether something is ready and more is on its way."""
        return bool(self._asked) and bool(self.queue) and self.queue[0].ready

    def worth_taking(self, now: float) -> bool:
        """Whether a transaction is worth while now: all that was asked is there, or enough, or it has waited enough.

        A commit costs the disk the same for one object as for many, and the receivers want the disk as well.
        """
        if not self.gathering:
            return True
        enough = len(self.queue) >= _ENOUGH and self.queue[_ENOUGH - 1].ready
        return enough or now - self.queue[0].ready_at >= _GATHER

    def ask(self, now: float) -> None:
        """Keep the reader busy; give up on one that has taken too long over one object."""
        if self._asked and now - self._asked[0].asked_at > self._asked[0].patience:
            self.died(f"the reader took more than {self._asked[0].patience:.0f} s")
        if not self.child.ensure():
            return
        for reading in self.queue:
            if len(self._asked) >= _OUTSTANDING:
                break
            if not reading.ready and not reading.asked_at:
                if not self.child.say(json.dumps({"paths": [str(path) for path in reading.paths]})):
                    self.died("the reader crashed")
                    return
                reading.asked_at = now
                self._asked.append(reading)

    def listen(self, now: float) -> None:
        """Take the answers that came; they come in the order that was asked."""
        lines, alive = self.child.lines()
        for line in lines:
            answer = json.loads(line)
            reading = self._asked.popleft()
            if self._asked:
                self._asked[0].asked_at = now
            reading.ready, reading.ready_at = True, now
            reading.failed = answer.get("failed", "")
            if "header" in answer:
                reading.header = header_from_json(answer["header"], self._before)
                self._before = reading.header.attributes
            reading.same = answer.get("same", False)
            if "said" in answer:
                reading.said = commitment.from_json(answer["said"])
        if not alive:
            self.died("the reader crashed")

    def died(self, why: str) -> None:
        """The object it was at is to blame when it happens again and again; all others are asked again."""
        self.child.kill()
        self._before = {}
        if self._asked:
            head = self._asked[0]
            head.tries += 1
            if head.tries >= _READ_TRIES:
                head.ready, head.failed = True, why
        for reading in self._asked:
            reading.asked_at = 0.0
        self._asked.clear()

    def done(self, most: int) -> Iterator[Reading]:
        """Finished readings from the front, in order."""
        while most and self.queue and self.queue[0].ready:
            most -= 1
            yield self.queue.popleft()
