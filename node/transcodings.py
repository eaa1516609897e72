"""Copies on their way through the transcoder, one at a time, and who is to blame when it dies."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from node.child import LineChild
from node.flow import Copying

_RATE = 2e6
"""Bytes of a file per second that the slowest of decoders and encoders may take."""
_TRIES = 2
"""A transcoder that is killed from outside says nothing about the object it was at; one that dies again does."""
_LATER = 60.0
"""Seconds until the next try where the disk did not take a copy."""
_LOOK = 15.0
"""Seconds between two looks for copies that are wanted, where nobody said that there are any."""
GROUP = 50
_SAID = ("syntax", "failed", "sop_uid", "pseudonym")


@dataclass(frozen=True, slots=True)
class Made:
    """What became of one copy."""

    copying: Copying
    syntax: str = ""
    failed: str = ""
    """Why it cannot be made; empty where it was."""
    sop_uid: str = ""
    """Of the copy."""
    pseudonym: Mapping[str, str] = field(default_factory=dict)
    """Who stands behind the name that a de-identified copy carries."""


@dataclass
class Transcodings:
    """The copies that are wanted, and the child that makes them; it is started for the first one."""

    memory: int
    patience: float = 60.0
    """Seconds that any object may take."""
    child: LineChild = field(init=False)
    queue: deque[Copying] = field(default_factory=deque)
    _asked_at: float | None = None
    _tries: int = 0
    _look_at: float = 0.0
    _news: bool = False
    _made: list[Made] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.child = LineChild("node.transcoder", "--memory", str(self.memory))

    def wanted(self) -> None:
        """Copies are wanted that nobody knew of: look now, for they may be more urgent than those that wait."""
        self._look_at, self._news = 0.0, True

    def hungry(self, now: float) -> bool:
        """Whether to look for more: there is none left, or there are new ones; and it is time."""
        return (self._news or not self.queue) and now >= self._look_at

    def feed(self, found: Iterable[Copying], now: float) -> None:
        """Take the next group in place of what waits; what the child is at stays first."""
        at = [self.queue[0]] if self._asked_at is not None else []
        more = (copying for copying in found if not at or copying.delivery != at[0].delivery)
        self.queue, self._news = deque((*at, *more)), False
        self._look_at = 0.0 if self.queue else now + _LOOK

    def work(self, now: float) -> None:
        """Keep the child at the first of the queue; give up on one that has taken too long."""
        if self._asked_at is not None and now - self._asked_at > self._allowed():
            self._died(f"it took more than {self._allowed():.0f} s")
        if not self.queue or self._asked_at is not None or not self.child.ensure():
            return
        self.queue[0].out.parent.mkdir(mode=0o750, exist_ok=True)
        if self.child.say(json.dumps(self.queue[0].request)):
            self._asked_at = now
        else:
            self.child.kill()

    def listen(self, now: float) -> None:
        """Take the answer that came, or notice that the child died."""
        lines, alive = self.child.lines()
        for line in lines:
            answer = json.loads(line)
            copying, self._asked_at, self._tries = self.queue.popleft(), None, 0
            if "later" in answer:  # a full disk, or a share that is away: all that waits behind it waits, too
                self.queue.clear()
                self._look_at = now + _LATER
            else:
                said = {name: answer[name] for name in _SAID if name in answer}
                self._made.append(Made(copying, **said))
        if not alive:
            self._died("the transcoder crashed over it")

    def made(self) -> Iterator[Made]:
        """What came since the last call."""
        while self._made:
            yield self._made.pop(0)

    def _allowed(self) -> float:
        size = 0
        with contextlib.suppress(OSError):
            size = self.queue[0].source.stat().st_size
        return self.patience + size / _RATE

    def _died(self, why: str) -> None:
        self.child.kill()
        if self._asked_at is None:
            return
        self._asked_at = None
        self._tries += 1
        if self._tries >= _TRIES:
            self._made.append(Made(self.queue.popleft(), failed=why))
            self._tries = 0
