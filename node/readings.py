"""Records on their way through the readers, in order, and who is to blame when one dies."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from node import commitment, performed
from node.child import LineChild
from node.commitment import Dialogue
from node.model import Cell, Header
from node.performed import Performed
from node.reader import IN_GAPS, header_from_json
from node.store.records import Record

_OUTSTANDING = 64  # of each reader
_ENOUGH, _GATHER = 128, 0.05
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
    since: float = 0.0
    """It came after this monotonic moment."""
    rebuild: tuple[int, int] | None = None
    """(series, instance) of an open series that is being rebuilt after a restart."""
    compared: int | None = None
    """The instance whose pixels are compared with those of the first path."""
    same: bool = False
    released: int | None = None
    """The instance in conflict that a person takes for the valid one."""
    said: Dialogue | None = None
    """What a message about storage commitment says."""
    performed: Performed | None = None
    """What a message about a performed procedure step says."""

    @property
    def patience(self) -> float:
        """Seconds the reader may take."""
        size = 0
        for path in self.paths:
            with contextlib.suppress(OSError):
                size += path.stat().st_size
        return _READ_TIMEOUT + size / _READ_RATE


class _Reader:
    """One reader process and what it was asked, in order."""

    def __init__(self, *arguments: str) -> None:
        self.child = LineChild("node.reader", *arguments)
        self.asked: deque[Reading] = deque()
        self._before: Mapping[str, Cell] = {}
        """What it last told of: it tells of the next object only what differs."""

    def look(self, now: float) -> None:
        """Give up on one that has taken too long over one object."""
        if self.asked and now - self.asked[0].asked_at > self.asked[0].patience:
            self.died(f"the reader took more than {self.asked[0].patience:.0f} s")

    def ask(self, reading: Reading, now: float) -> bool:
        """Ask for one record more; False where it is dead."""
        if not self.child.say(json.dumps({"paths": [str(path) for path in reading.paths]})):
            self.died("the reader crashed")
            return False
        reading.asked_at = now
        self.asked.append(reading)
        return True

    def listen(self, now: float) -> None:
        """Take the answers that came; they come in the order that was asked."""
        if self.child.fileno is None:
            return
        lines, alive = self.child.lines()
        for line in lines:
            answer = json.loads(line)
            reading = self.asked.popleft()
            if self.asked:
                self.asked[0].asked_at = now
            reading.ready, reading.ready_at = True, now
            reading.failed = answer.get("failed", "")
            if "header" in answer:
                reading.header = header_from_json(answer["header"], self._before)
                self._before = reading.header.attributes
            reading.same = answer.get("same", False)
            if "said" in answer:
                reading.said = commitment.from_json(answer["said"])
            if "performed" in answer:
                reading.performed = performed.from_json(answer["performed"])
        if not alive:
            self.died("the reader crashed")

    def died(self, why: str) -> None:
        """The object it was at is to blame when it happens again and again; all others are asked again."""
        self.child.kill()
        self._before = {}
        if self.asked:
            head = self.asked[0]
            head.tries += 1
            if head.tries >= _READ_TRIES:
                head.ready, head.failed = True, why
        for reading in self.asked:
            reading.asked_at = 0.0
        self.asked.clear()


class Readings:
    """The records in order, and the readers that work on them."""

    def __init__(self, readers: int = min(2, os.cpu_count() or 1)) -> None:
        """Use *readers* processes, all but the first of them in the gaps that the receivers leave."""
        self.readers = [_Reader(*([IN_GAPS] if number else [])) for number in range(readers)]
        self.queue: deque[Reading] = deque()

    @property
    def children(self) -> list[LineChild]:
        """The processes."""
        return [reader.child for reader in self.readers]

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
        under_way = any(reader.asked for reader in self.readers)
        return under_way and bool(self.queue) and self.queue[0].ready

    def worth_taking(self, now: float) -> bool:
        """Whether a transaction is worth while now: all that was asked is there, or enough, or it has waited enough.

        A commit costs the disk the same for one object as for many, and the receivers want the disk as well.
        """
        if not self.gathering:
            return True
        enough = len(self.queue) >= _ENOUGH and self.queue[_ENOUGH - 1].ready
        return enough or now - self.queue[0].ready_at >= _GATHER

    def ask(self, now: float) -> None:
        """Keep the readers busy, the one with the least to do first."""
        for reader in self.readers:
            reader.look(now)
        able = [reader for reader in self.readers if reader.child.ensure()]
        for reading in self.queue if able else ():
            if reading.ready or reading.asked_at:
                continue
            reader = min(able, key=lambda one: len(one.asked))
            if len(reader.asked) >= _OUTSTANDING or not reader.ask(reading, now):
                return

    def listen(self, now: float) -> None:
        """Take the answers that came."""
        for reader in self.readers:
            reader.listen(now)

    def done(self, most: int) -> Iterator[Reading]:
        """Finished readings from the front, in order."""
        while most and self.queue and self.queue[0].ready:
            most -= 1
            yield self.queue.popleft()
