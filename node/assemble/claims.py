"""What others say belongs to a series: objects named by MPPS, or counted by C-FIND. Pure; words come out.

A claim may delay sealing. It ends the waiting early only where the system that sent the series makes it itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from node.words import counted

CONFIRM = timedelta(seconds=5)
"""So long a count must have stood, with no object coming meanwhile, before it ends the waiting: the source itself
may still be making images."""
_PAUSES = tuple(timedelta(seconds=s) for s in (5, 10, 20, 40, 60))
"""Between two questions for the same series; the last one repeats."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody says of a series, against what is here."""

    by: str
    """`MPPS of CT01 names`, `C-FIND at PACS counts`: the words before the number."""
    said: int
    missing: int
    """Of what was said, not here."""
    more: int = 0
    """Here, beyond what was said."""
    of_source: bool = False
    """The system that sent the series says it."""
    firm: bool = True
    """It will not grow any more."""
    named: bool = False
    """MPPS names the objects; otherwise they were counted."""

    @property
    def whole(self) -> bool:
        """All that it says is here, and nothing else."""
        return not self.missing and not self.more

    @property
    def words(self) -> str:
        """`MPPS of CT01 names 323 objects, 300 here`."""
        what = f"{self.by} {counted(self.said, 'object')}"
        if self.missing:
            return f"{what}, {self.said - self.missing} here"
        return f"{what}, all here and {self.more} more" if self.more else f"{what}, all here"


@dataclass
class Named:
    """The objects of a series that a completed step names (MPPS), and which of them have not come yet."""

    peer: str
    objects: frozenset[str]
    missing: set[str]

    def claim(self, source: str, here: int) -> Claim:
        """What it says now, of a series of *here* objects that *source* sent."""
        more = here - (len(self.objects) - len(self.missing))
        return Claim(
            f"MPPS of {self.peer} names", len(self.objects), len(self.missing), max(0, more), self.peer == source,
            named=True,
        )  # fmt: skip


@dataclass
class Count:
    """The count of a series that another system is asked for, and how the asking goes; times are monotonic."""

    peer: str
    asked: int = 0
    """How often."""
    asked_at: float = 0.0
    under_way: bool = False
    objects: int | None = None
    """As it answered last."""
    since: float = 0.0
    """From when on it gave this number."""
    answered_at: float = 0.0
    failed: str = ""
    """Why it did not answer last; empty where it did."""

    def due(self, last: float, now: float, settle: timedelta) -> bool:
        """Whether to ask now: once the series, whose last object came at *last*, has settled, then in pauses."""
        if self.under_way or now - last < settle.total_seconds():
            return False
        if not self.asked:
            return True
        pause = _PAUSES[min(self.asked, len(_PAUSES)) - 1]
        if last > self.asked_at:
            pause = _PAUSES[0]
        return now - self.asked_at >= pause.total_seconds()

    def ask(self, now: float) -> None:
        """It is being asked."""
        self.asked, self.asked_at, self.under_way = self.asked + 1, now, True

    def answer(self, objects: int | None, failed: str, now: float) -> None:
        """It counts so many, or did not say."""
        self.under_way, self.failed = False, failed
        if objects is None:
            return
        if objects != self.objects:
            self.objects, self.since = objects, now
        self.answered_at = now

    def pending(self, last: float) -> bool:
        """Whether an answer is awaited that may still say something of the series as it is now."""
        if self.objects is None:
            return not self.failed
        return self.under_way and self.answered_at < last

    def claim(self, source: str, here: int, last: float) -> Claim | None:
        """What it says now; None where it said nothing."""
        if self.objects is None:
            return None
        stood = self.answered_at - max(self.since, last)
        return Claim(
            f"C-FIND at {self.peer} counts", self.objects, max(0, self.objects - here),
            max(0, here - self.objects), self.peer == source, stood >= CONFIRM.total_seconds(),
        )  # fmt: skip


@dataclass
class Claims:
    """All that others say of one open series."""

    named: dict[int, Named] = field(default_factory=dict)
    """Step → what it names of the series."""
    count: Count | None = None
    remarks: dict[str, None] = field(default_factory=dict)
    """What else is worth a word when the series is sealed."""

    def ask(self, now: float) -> None:
        """The count is being asked for."""
        if self.count is not None:
            self.count.ask(now)

    def came(self, sop_uid: str) -> None:
        """One of the objects is here."""
        for one in self.named.values():
            one.missing.discard(sop_uid)

    def now(self, source: str, here: int, last: float) -> tuple[Claim, ...]:
        """What they say of the series as it is."""
        found = [one.claim(source, here) for one in self.named.values()]
        counted = self.count.claim(source, here, last) if self.count else None
        return (*found, counted) if counted else tuple(found)

    @property
    def words(self) -> tuple[str, ...]:
        """The remarks, and that nobody answered where nobody did."""
        failed = self.count.failed if self.count and self.count.objects is None else ""
        return (*self.remarks, f"not counted: {failed}") if failed else tuple(self.remarks)


def enough(claims: Sequence[Claim]) -> bool:
    """Whether the source itself says that all is here, and nobody says otherwise."""
    return bool(claims) and all(not c.missing for c in claims) and any(
        c.of_source and c.firm and c.whole for c in claims
    )  # fmt: skip


def short(claims: Sequence[Claim]) -> str:
    """What is missing, in words; empty where nothing is."""
    return "; ".join(c.words for c in claims if c.missing)
