"""What may be removed and what must stay, decided from facts alone; `removing` gathers them and acts.

What is received is kept byte for byte until it is over and its time has passed (design §2): over means that
every delivery of it is done, no run waits or works, nobody holds it, and no later revision begins with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from node.model import DeliveryState, RunState, SeriesState
from node.settings import Keep

_DONE = frozenset((DeliveryState.STORED, DeliveryState.COMMITTED, DeliveryState.CANCELLED))
_ARRIVED = frozenset((DeliveryState.STORED, DeliveryState.COMMITTED))
_BUSY = frozenset((RunState.WAITING, RunState.RUNNING))


@dataclass(frozen=True, slots=True)
class Facts:
    """All that decides about one revision of a series, or about one object that belongs to none."""

    changed_at: datetime
    """Of anything that is over: an object came, a run ended, a delivery was done, a person acted."""
    state: SeriesState | None = None
    """None: an object that belongs to no series."""
    held: str = ""
    """Why it waits for a person; empty when it does not."""
    newer: bool = False
    """A later revision that is still kept begins with its objects."""
    aside: bool = False
    """An object in conflict, or one that cannot be read."""
    prior: bool = False
    """It was fetched as a prior: a copy of what another system keeps."""
    runs: frozenset[RunState] = frozenset()
    """Of every run that takes objects of it."""
    deliveries: frozenset[DeliveryState] = frozenset()
    """Of its objects and of its results."""
    uncommitted: bool = False
    """Something is stored at a destination that has still to commit to it (PS3.4 J)."""
    waiting_since: datetime | None = None
    """When the oldest delivery that is not done was queued."""


@dataclass(frozen=True, slots=True)
class Removal:
    """It may go: *kind* is the line of `keep` that held it longest."""

    kind: str
    since: datetime
    """The last change, from which its time ran."""


@dataclass(frozen=True, slots=True)
class Kept:
    """It stays: *reason* in words, the same for all that stay for the same reason."""

    reason: str
    until: datetime | None = None
    """When its time is over, where only time is missing."""


def removable(facts: Facts, keep: Keep, now: datetime) -> Removal | Kept:
    """Whether its files may go at *now*, and why or why not.

    Several lines of `keep` may hold it; the one that ends last counts.
    """
    if reason := _in_use(facts, keep):
        return Kept(reason)
    over, kind, since = max(_lines(facts, keep))
    if now < over:
        return Kept(f"{kind}: its time in `keep` is not over", over)
    return Removal(kind, since)


def _in_use(facts: Facts, keep: Keep) -> str:
    """Why no time lets it go; empty when only time counts."""
    waits = keep.undelivered is None
    reasons = (
        (facts.state is SeriesState.RECEIVING, "it is still being received"),
        (facts.state is SeriesState.SEALED and not facts.held, "it waits to be routed"),
        (bool(facts.held), f"held: {facts.held}"),
        (bool(facts.runs & _BUSY), "a run waits or works"),
        (DeliveryState.HELD in facts.deliveries, "a delivery is held for a person"),
        (DeliveryState.SENDING in facts.deliveries, "it is being sent"),
        (waits and not facts.deliveries <= _DONE, "it is not delivered yet"),
        (waits and facts.uncommitted, "a destination has not committed to it yet"),
        (facts.newer, "a later revision begins with its objects"),
    )
    return next((words for holds, words in reasons if holds), "")


def _lines(facts: Facts, keep: Keep) -> Iterator[tuple[datetime, str, datetime]]:
    """Each line of `keep` that applies: when it is over, its name, and from when it counts."""

    def line(kind: str, span: timedelta, since: datetime) -> tuple[datetime, str, datetime]:
        return since + span, kind, since

    arrived = bool(facts.deliveries & _ARRIVED)
    waits = facts.uncommitted or not facts.deliveries <= _DONE
    if arrived:
        yield line("delivered", keep.delivered, facts.changed_at)
    if waits and keep.undelivered is not None:  # failed attempts do not lengthen it
        yield line("undelivered", keep.undelivered, facts.waiting_since or facts.changed_at)
    if facts.aside or RunState.QUARANTINED in facts.runs:
        yield line("quarantined", keep.quarantined, facts.changed_at)
    if RunState.REFUSED in facts.runs:
        yield line("refused", keep.refused, facts.changed_at)
    if facts.prior:
        yield line("priors", keep.priors, facts.changed_at)
    elif not arrived and not waits:  # nobody else has it: no rule, a shadow rule, all cancelled, discarded
        yield line("unrouted", keep.unrouted, facts.changed_at)
