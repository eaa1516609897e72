"""How many objects in a row a destination answered with the same failure: then it is ill, not the objects."""

from __future__ import annotations

from dataclasses import dataclass, field

from node.send.protocol import Kind, Result
from node.send.status import meaning_of

MOST_EQUAL = 20
"""Objects in a row that fail with the same status, after which a destination is left alone for a while."""


@dataclass
class Streak:
    """Kept over one batch in the sender, and over all batches to a destination in the conductor.

    Scanners send object by object, so a destination that refuses everything may never see twenty in one batch.
    """

    status: int = 0
    objects: set[int] = field(default_factory=set)
    """Deliveries, each once: one object that is tried again and again says nothing about the destination."""

    @property
    def long(self) -> bool:
        """Whether it is left alone."""
        return len(self.objects) >= MOST_EQUAL

    @property
    def words(self) -> str:
        """What it did, to stand behind where it is; the same words each time it is tried again."""
        return f"answered {MOST_EQUAL} objects in a row with {meaning_of(self.status)}; look at its log"

    def see(self, result: Result) -> None:
        """One more answer; what was not asked for, or not by its status, counts neither way."""
        if result.kind in (Kind.STORED, Kind.WARNING):
            self.objects.clear()
        elif result.kind == Kind.FAILED and result.status is not None:
            if result.status != self.status:
                self.objects.clear()
            self.status = result.status
            if not self.long:
                self.objects.add(result.delivery)
