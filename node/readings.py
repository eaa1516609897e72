"""Records on their way through the readers, in order, and who is to blame when one dies."""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from node import commitment, performed
from node.child import LineChild
from node.commitment import Dialogue
from node.model import Cell, Header
from node.performed import Performed
from node.reader import IN_GAPS, header_from_json
from node.store.records import Record

_OUTSTANDING = 64  # of each reader
_ENOUGH, _GATHER = 128, 0.04
"""Objects that are taken in at once, and the seconds from one group to the next where fewer have come."""
_LATE = 0.3
"""Seconds that the record at the front may wait for a reader that gets nothing of the processor."""
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
    waits_since: float = 0.0
    """When it was asked for the first time."""
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

    def takes_longer(self, than: float, since: float, now: float) -> bool:
        """Whether more than so many seconds have passed, and those that a slow disk takes for its bytes."""
        return now - since > than and now - since > than + self._size() / _READ_RATE

    def _size(self) -> int:
        size = 0
        for path in self.paths:
            with contextlib.suppress(OSError):
                size += path.stat().st_size
        return size


class _Reader:
    """One reader process and what it was asked, in order."""

    def __init__(self, *arguments: str) -> None:
        self.child = LineChild("node.reader", *arguments)
        self.asked: deque[Reading] = deque()
        self._before: Mapping[str, Cell] = {}
        """What it last told of: it tells of the next object only what differs."""

    def look(self, now: float) -> None:
        """Give up on one that has taken too long over one object."""
        head = self.asked[0] if self.asked else None
        if head is not None and not head.ready and head.takes_longer(_READ_TIMEOUT, head.asked_at, now):
            self.died(f"the reader took more than {now - head.asked_at:.0f} s")

    def ask(self, reading: Reading, now: float) -> bool:
        """Ask for one record more; False where it is dead."""
        if not self.child.say(json.dumps({"paths": [str(path) for path in reading.paths]})):
            self.died("the reader crashed")
            return False
        reading.asked_at = now
        reading.waits_since = reading.waits_since or now
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
            header = None
            if "header" in answer:
                header = header_from_json(answer["header"], self._before)
                self._before = header.attributes
            if not reading.ready:  # else the other reader was first
                _take(reading, answer, header)
        if not alive:
            self.died("the reader crashed")

    def died(self, why: str) -> None:
        """The object it was at is to blame when it happens again and again; all others are asked again."""
        self.child.kill()
        self._before = {}
        if self.asked:
            head = self.asked[0]
            head.tries += 1
            if head.tries >= _READ_TRIES and not head.ready:
                head.ready, head.failed = True, why
        for reading in self.asked:
            reading.asked_at = 0.0
        self.asked.clear()


def _take(reading: Reading, answer: Mapping[str, Any], header: Header | None) -> None:
    """Note what a reader answered."""
    reading.ready = True
    reading.failed = answer.get("failed", "")
    reading.header = header
    reading.same = answer.get("same", False)
    if "said" in answer:
        reading.said = commitment.from_json(answer["said"])
    if "performed" in answer:
        reading.performed = performed.from_json(answer["performed"])


class Readings:
    """The records in order, and the readers that work on them.

    Readers work in the gaps that the receivers leave. Where there are none, one more, which gets its share like any
    process, is asked for what has waited too long; of two answers the first counts.
    """

    def __init__(self, readers: int = min(2, os.cpu_count() or 1)) -> None:
        """Use *readers* processes, and one more in need."""
        self.readers = [_Reader(IN_GAPS) for _ in range(readers)]
        self._helper = _Reader()
        self.queue: deque[Reading] = deque()
        self.taken_at = float("-inf")
        """When a group was taken last, monotonic."""

    @property
    def children(self) -> list[LineChild]:
        """The processes."""
        return [reader.child for reader in self._all]

    @property
    def _all(self) -> list[_Reader]:
        return [*self.readers, self._helper]

    def add(self, reading: Reading) -> None:
        """One more record, last in order."""
        self.queue.append(reading)

    @property
    def room(self) -> int:
        """How many more records may be queued."""
        return 4 * _OUTSTANDING - len(self.queue)

    @property
    def busy(self) -> bool:
        """Whether something is being read, or was and is not taken yet."""
        return any(reader.asked for reader in self._all) or bool(self.queue and self.queue[0].ready)

    def worth_taking(self, now: float) -> bool:
        """Whether a transaction is worth while now: there is enough for one, or the last was a while ago.

        A commit costs the same for one object as for many, and the receivers want the disk and the processor as well.
        """
        enough = len(self.queue) >= _ENOUGH and self.queue[_ENOUGH - 1].ready
        return enough or now - self.taken_at >= _GATHER

    def ask(self, now: float) -> None:
        """Keep the readers busy, the one with the least to do first."""
        for reader in self._all:
            reader.look(now)
        able = [reader for reader in self.readers if reader.child.ensure()]
        for reading in self.queue if able else ():
            if reading.ready or reading.asked_at:
                continue
            reader = min(able, key=lambda one: len(one.asked))
            if len(reader.asked) >= _OUTSTANDING or not reader.ask(reading, now):
                break
        if self._late(now) and not self._helper.asked and self._helper.child.ensure():
            self._help(now)

    def _late(self, now: float) -> bool:
        """Whether the readers come to nothing, while others have the processor."""
        front = self.queue[0] if self.queue else None
        if front is None or front.ready or not front.asked_at:
            return False
        return front.takes_longer(_LATE, front.waits_since, now)

    def _help(self, now: float) -> None:
        """Ask for what has waited longest once more."""
        waiting = [reading for reading in self.queue if reading.asked_at and not reading.ready]
        for reading in waiting[:_OUTSTANDING]:
            if not self._helper.ask(reading, now):
                return

    def listen(self, now: float) -> None:
        """Take the answers that came."""
        for reader in self._all:
            reader.listen(now)

    def objects(self, most: int) -> dict[tuple[int, int], str]:
        """Record → SOP Instance UID of the objects among the finished readings at the front."""
        found = {}
        for reading in islice(self.queue, most):
            if not reading.ready:
                break
            if reading.record and reading.record.is_object and reading.header:
                found[reading.record.run, reading.record.sequence] = reading.header.sop_uid
        return found

    def done(self, most: int) -> Iterator[Reading]:
        """Finished readings from the front, in order."""
        while most and self.queue and self.queue[0].ready:
            most -= 1
            yield self.queue.popleft()
