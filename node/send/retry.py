"""What follows from the outcome of one delivery: pure, so that every line of it is in a table of tests.

Trouble with a destination as a whole is not decided here, and never parks anything: `next_probe` says
when to ask it again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from node.model import Trouble
from node.send.protocol import Kind

_PROBES = (1, 2, 5, 10, 30, 60)
"""Seconds between attempts at a destination that is down; the last one repeats."""
_TRIALS = (10, 30, 60)
"""The same for one that refuses everything: it is up, and being asked costs it something."""
_DUPLICATE = 0x0111
_HOPELESS = {
    0x0122: "it does not take this SOP class",
    0x0124: "it does not authorise us",
    _DUPLICATE: "it already holds another object with this SOP Instance UID",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient we are with one object."""

    first: timedelta = timedelta(seconds=30)
    """Pause after the first failure; doubled after each further one."""
    longest: timedelta = timedelta(minutes=30)
    patience: timedelta = timedelta(days=1)
    """After this time of failing an object is parked."""
    least: int = 10
    """Attempts that this time must hold: a destination that was down for a day has not refused it for a day."""
    file_patience: timedelta = timedelta(minutes=10)
    """The same where our own file cannot be read: a disk or share that comes back does so soon."""
    spread: float = 0.1
    """Share of a pause by which it is shortened or lengthened, so that objects do not come in one wave."""


@dataclass(frozen=True, slots=True)
class Again:
    """Try again, not before *at*."""

    at: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The destination has it."""

    why: str


@dataclass(frozen=True, slots=True)
class Parked:
    """A person must act; `retry` takes it up again."""

    why: str


Decision = Again | Stored | Parked

LONGEST = Policy().longest * (1 + Policy().spread)
"""How long an object waits at most for its next attempt."""
LONGEST_PROBE = timedelta(seconds=max(*_PROBES, *_TRIALS))
"""How long a destination that is down is left alone at most."""


def decide(
    kind: Kind,
    status: int | None,
    attempts: int,
    now: datetime,
    policy: Policy,
    *,
    seed: int = 0,
    claims: int = 0,
    blamed: bool = False,
    since: datetime | None = None,
) -> Decision:
    """Say what follows from the result of attempt number *attempts* (1 = the first).

    *status* is the C-STORE status or None; *seed* (the delivery's number) decides the jitter; *claims* counts
    the times it was taken up, also those whose result was lost with the process; *since* is the moment of the
    first failure. An object whose association
    died is never parked: that is the destination's trouble until it says otherwise, or until the object is
    *blamed*, since others got through meanwhile.
    """
    if kind in (Kind.STORED, Kind.WARNING):
        return Stored("stored" if kind == Kind.STORED else f"stored, with warning {_shown(status)}")
    if kind == Kind.NOT_TRIED:
        return Again(now, "it was not tried")
    if kind == Kind.FAILED and status == _DUPLICATE and max(attempts, claims) > 1:
        # The answer to an earlier attempt was lost; that attempt had succeeded.
        return Stored("an earlier attempt had stored it: status 0111, the destination already holds it")
    hopeless = _hopeless(kind, status)
    if hopeless:
        return Parked(f"{hopeless}; that does not change by waiting")
    patience = policy.file_patience if kind == Kind.UNREADABLE_FILE else policy.patience
    why = _reason(kind, status) + (", while others got through" if blamed else "")
    answered = status is not None or kind == Kind.UNREADABLE_FILE or blamed
    if answered and _long_enough(attempts, now, policy, patience, since):
        return Parked(f"{why}; given up after {attempts} attempts over {_span(patience)}")
    jitter = random.Random(f"{seed}/{attempts}").uniform(-policy.spread, policy.spread)  # noqa: S311 - no secret
    at = now + pause(attempts, policy) * (1 + jitter)
    return Again(at, f"{why}; attempt {attempts + 1} follows")


def next_probe(failures: int, now: datetime, trouble: Trouble = Trouble.UNREACHABLE) -> datetime:
    """When to try a destination again after *failures* failures in a row (1 = the first)."""
    pauses = _TRIALS if trouble == Trouble.PAUSED else _PROBES
    return now + timedelta(seconds=pauses[min(max(failures, 1), len(pauses)) - 1])


def pause(attempts: int, policy: Policy) -> timedelta:
    """Return the pause after attempt number *attempts*, before jitter."""
    doublings = min(max(attempts, 1) - 1, 40)
    return min(policy.first * 2**doublings, policy.longest)


def _hopeless(kind: Kind, status: int | None) -> str:
    """Name what a person must change first, else empty."""
    if kind == Kind.REFUSED_CONTEXT:
        return "the destination does not accept this SOP class in this transfer syntax"
    if kind != Kind.FAILED or status is None:
        return ""
    if status & 0xFF00 == 0xA900:
        return f"status {_shown(status)}: it finds that the dataset does not match its SOP class"
    return f"status {_shown(status)}: {_HOPELESS[status]}" if status in _HOPELESS else ""


def _reason(kind: Kind, status: int | None) -> str:
    if kind == Kind.UNREADABLE_FILE:
        return "our file cannot be read"
    return "the association ended while it was on its way" if status is None else f"status {_shown(status)}"


def _long_enough(
    attempts: int, now: datetime, policy: Policy, patience: timedelta, since: datetime | None
) -> bool:
    """Whether its patience is over.

    Attempts may come sooner than their pauses say, as trials of a destination that was paused: where the first
    failure is known, the time since then counts.
    """
    if since is None:
        return _waited(attempts, policy) >= patience
    return now - since >= patience and attempts >= policy.least


def _waited(attempts: int, policy: Policy) -> timedelta:
    """Sum of the pauses before attempt number *attempts*."""
    return sum((pause(n, policy) for n in range(1, min(attempts, 1000))), timedelta())


def _shown(status: int | None) -> str:
    return "unknown" if status is None else f"{status:04X}"


def _span(time: timedelta) -> str:
    hours = time.total_seconds() / 3600
    return f"{hours:g} h" if hours >= 1 else f"{time.total_seconds() / 60:g} min"
