"""How something is sent, and what keeps a destination from taking it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Trouble(StrEnum):
    """What keeps a destination as a whole from taking objects; they wait, and none of them is parked for it."""

    UNREACHABLE = "unreachable"  # no connection, or it ended
    REJECTED = "rejected"  # it answers and takes no association now, or nothing of what was proposed
    UNKNOWN_AE = "unknown_ae"  # it does not know our AE title or not its own: a person must correct that
    PAUSED = "paused"  # it answered many objects in a row with the same failure


class Priority(StrEnum):
    """How a rule's deliveries rank among those that wait for the same destination."""

    URGENT = "urgent"
    NORMAL = "normal"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Manner:
    """How a rule wants something sent."""

    priority: Priority = Priority.NORMAL
    lossy: bool = False
    """It may be transcoded with loss where the destination takes it in no other way."""
    treatment: str = ""
    """JSON: what is changed in the copy that is sent in its place; empty: it goes as it is."""
    window: str = ""
    """When it may be sent, as `settings.windows` reads it; empty: whenever the destination may be sent to."""
    hold: bool = False
    """It waits for a person."""
    due_at: datetime | None = None
    """When it may go first; None: at once."""
    why: str = ""
    """Why it goes there, waits, or is held, in words."""


PLAIN = Manner()
"""How things are sent where nobody says more."""


class Destinations(dict[str, bool]):
    """Peer name → whether it can receive; and what else rules are checked against."""

    def __init__(
        self,
        receives: Mapping[str, bool],
        deidentified: Collection[str] = (),
        profiles: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(receives)
        self.deidentified = frozenset(deidentified)
        """Peers that take only de-identified data."""
        self.profiles: Mapping[str, Mapping[str, Any]] = profiles or {}
        """The site's profiles of de-identification by name."""
