"""What receivers refused, told as events: one per reason, however many there are.

Receivers only count, and leave who it was last in their page. A flood of refusals therefore costs the database
one event per reason at once, one a minute later, and then ever fewer while it goes on, down to one in an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from node import flow
from node.ops.reserve import is_out_of_room
from node.receive.census import Census, LastWords
from node.receive.reasons import Reason
from node.store.database import note

LOOK_EVERY = 1.0
FIRST, LONGEST = 60.0, 3600.0
"""Seconds between two events of one reason: at least, and while it goes on at most."""
_OTHERS = 4
"""How many more senders an event names."""

Ask = Callable[[Reason], Sequence[LastWords]]
"""Reason → who it was last, by each receiver, the newest first."""


@dataclass(frozen=True)
class Told:
    """One event to leave."""

    reason: Reason
    count: int
    """How often it happened since the node started."""
    detail: str


@dataclass
class Telling:
    """Decides what is told, and when; its clock is monotonic, in seconds."""

    told: dict[Reason, int]
    """How much of each reason has been told."""
    due: dict[Reason, float] = field(default_factory=dict)
    pause: dict[Reason, float] = field(default_factory=dict)
    senders: dict[Reason, dict[tuple[str, str], LastWords]] = field(default_factory=dict)
    """Who it was since the last event, by title and address."""
    before: dict[Reason, set[LastWords]] = field(default_factory=dict)
    """What the last event was told by."""

    def look(self, counts: Mapping[Reason, int], last: Ask, now: float) -> list[Told]:
        """What to tell now; whatever must wait is told with what comes until then."""
        found = []
        for reason, count in counts.items():
            more = count - self.told.get(reason, 0)
            if more <= 0:
                continue
            words = last(reason)
            self._remember(reason, words)
            if now >= self.due.get(reason, now):
                found.append(Told(reason, count, self._detail(reason, more)))
                self._told(reason, count, words, now)
        return found

    def _remember(self, reason: Reason, words: Sequence[LastWords]) -> None:
        """Keep those that are new since the last event, each sender once, the newest last."""
        known, senders = self.before.get(reason, set()), self.senders.setdefault(reason, {})
        for one in reversed(words):
            if one not in known:
                senders.pop((one.calling, one.host), None)
                if len(senders) > _OTHERS:
                    del senders[next(iter(senders))]
                senders[one.calling, one.host] = one

    def _told(self, reason: Reason, count: int, words: Sequence[LastWords], now: float) -> None:
        due, pause = self.due.get(reason), self.pause.get(reason, 0.0)
        goes_on = due is not None and now - due < pause
        self.pause[reason] = min(LONGEST, 2 * pause) if goes_on else FIRST
        self.due[reason] = now + self.pause[reason]
        self.told[reason] = count
        self.before[reason] = set(words)
        self.senders.pop(reason, None)

    def _detail(self, reason: Reason, more: int) -> str:
        newest, *others = [_who(reason, one) for one in reversed(self.senders[reason].values())] or [""]
        last = f"; last {newest}" if newest else ""
        also = f"; also {', '.join(others)}" if others else ""
        return f"{reason.kind.counted(more)}: {reason.words}{last}{also}"


def _who(reason: Reason, words: LastWords) -> str:
    """A sender in words, and what it did; what is not printable is escaped."""
    calls = f" calling {words.called!r}" if reason is Reason.CALLED_TITLE else ""
    who = f"{words.calling!r}{calls} from {words.host}" if words.calling else f"from {words.host}"
    why = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words.why)
    return f"{who} ({why})" if why else who


class Refusals:
    """Looks at the receivers' page and leaves the events."""

    def __init__(self, parts: flow.Parts, census_fd: int | None) -> None:
        """Without a page, as where no supervisor is, there is nothing to tell."""
        self._parts = parts
        self._fd = census_fd
        self._peers = tuple(parts.settings.peers)
        self._begin()
        self._next = float("-inf")

    def _begin(self) -> None:
        """Go on from what the page says that was told: by whoever worked before, too."""
        self._telling = Telling({} if self._fd is None else dict(Census.noted(self._fd)))

    def turn(self, now: float) -> None:
        """Look, at most once a second, and tell."""
        fd = self._fd
        if fd is None or now < self._next:
            return
        self._next = now + LOOK_EVERY
        counts = Census.tally(fd, self._peers).reasons
        told = self._telling.look(counts, lambda reason: Census.last_words(fd, reason, self._peers), now)
        if not told:
            return
        try:
            self._leave(told)
        except (SQLAlchemyError, OSError) as error:
            if not is_out_of_room(error):
                raise
            self._begin()  # a full disk refuses objects, and the event that says so
            self._next = now + FIRST
            return
        for one in told:
            Census.note(fd, one.reason, one.count)

    def _leave(self, told: Sequence[Told]) -> None:
        with self._parts.database.write() as tx:
            for one in told:
                note(tx, self._parts.now(), one.reason.kind.event, one.detail)
