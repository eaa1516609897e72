"""Which conditions that need a person hold now: a pure decision over a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from node.ops import health
from node.settings import Alarm, Disk
from node.words import counted

_SLACK = 0.01  # of the disk: so far below its limit it must fall before that is over
_LONGEST = 400

Key = tuple[str, str]


@dataclass(frozen=True)
class Condition:
    """Something that is wrong now."""

    what: str
    key: str
    since: datetime
    detail: str
    due: bool = True
    """It has lasted as long as the site file asks."""


@dataclass(frozen=True)
class Snapshot:
    """What conditions are judged by, at one moment."""

    known: Mapping[Key, datetime] = field(default_factory=dict)
    """What was wrong at the last look, and since when."""
    down: Sequence[tuple[str, datetime | None, str]] = ()
    """Destinations that cannot be reached: name, since, why."""
    strangers: Collection[str] = ()
    """Those of them that do not know an AE title: waiting mends nothing, so it is told at once."""
    parked: Mapping[str, int] = field(default_factory=dict)
    """Destination → objects."""
    quarantined: Mapping[str, int] = field(default_factory=dict)
    """Rule → runs."""
    aside: int = 0
    """Objects that cannot be read or contradict an earlier one."""
    used: float = 0.0
    """Share of the disk, 0 to 1."""
    disk: Disk = field(default_factory=Disk)
    waiting: Mapping[str, float] = field(default_factory=dict)
    """Destination → share of the disk that what waits for it takes."""
    rules: str = ""
    """What is wrong with the rule files."""
    certificates: Sequence[str] = ()
    """A sentence for each certificate of ours that has ended, or ends soon."""
    beaten: datetime | None = None
    """When the conductor's loop turned last."""
    opened: datetime | None = None
    """When the series was opened that is open longest."""
    received: datetime | None = None
    """When the last object came."""


Found = tuple[str, datetime | None, str]
"""Key, since when where that is known, and what to say."""


def conditions(snapshot: Snapshot, when: Sequence[Alarm], now: datetime) -> tuple[Condition, ...]:
    """What of *when* is wrong now. What has no time of its own counts from the look that saw it first."""
    found = []
    for alarm in when:
        for key, own, detail in _JUDGES[alarm.what](snapshot, now):
            since = own or snapshot.known.get((alarm.what, key), now)
            at_once = alarm.what == "destination_down" and key in snapshot.strangers
            due = at_once or now - since >= alarm.after
            if due or own is None:
                found.append(Condition(alarm.what, key, since, detail[:_LONGEST], due))
    return tuple(found)


def crowded_words(name: str, share: float, limit: float) -> str:
    """What is said of a destination for which too much waits."""
    takes = f"what waits for {name} takes {share:.0%} of the disk, the limit is {limit:.0%}"
    return f"{takes}: runs that only go there wait"


def _down(snapshot: Snapshot, _now: datetime) -> Iterator[Found]:
    for name, since, reason in snapshot.down:
        why = reason or "it cannot be reached"
        yield name, since, f"{why}; its objects wait (`pacsnode deliveries --to {name}`)"


def _parked(snapshot: Snapshot, _now: datetime) -> Iterator[Found]:
    for name, count in snapshot.parked.items():
        why = f"`pacsnode deliveries --to {name} --state parked` says why"
        again = f"`pacsnode retry --to {name}` sends them again"
        yield name, None, f"refused for good: {counted(count, 'object')}; {why}, {again}"


def _quarantined(snapshot: Snapshot, _now: datetime) -> Iterator[Found]:
    for rule, count in snapshot.quarantined.items():
        told = "`pacsnode runs --state quarantined` says why, `pacsnode retry --run N` tries again"
        yield rule, None, f"{counted(count, 'run')} failed; {told}"


def _disk(snapshot: Snapshot, _now: datetime) -> Iterator[Found]:
    does = {
        "warn": "it fills up",
        "stop_processing": "processing waits",
        "refuse": "senders are answered A700 (out of resources)",
    }
    for key, words in does.items():
        limit = getattr(snapshot.disk, key)
        if snapshot.used >= limit - (_SLACK if ("disk", key) in snapshot.known else 0):
            shares = f"{snapshot.used:.0%} full, the limit is {limit:.0%}"
            yield key, None, f"the disk of node.data is {shares}: {words}"
    most = snapshot.disk.per_destination
    for name, share in snapshot.waiting.items():
        if most < 1 and share >= most - (_SLACK if ("disk", name) in snapshot.known else 0):
            yield (
                name,
                None,
                f"{crowded_words(name, share, most)}; `pacsnode deliveries --to {name}` says why",
            )


def _rules(snapshot: Snapshot, _now: datetime) -> Iterator[Found]:
    if snapshot.rules:
        yield "", None, f"{health.where(snapshot.rules)}; the last rules that passed are in use"


def _certificate(snapshot: Snapshot, _now: datetime) -> Iterator[Found]:
    if snapshot.certificates:
        yield "", None, "; ".join(snapshot.certificates)


def _conductor(snapshot: Snapshot, now: datetime) -> Iterator[Found]:
    if snapshot.beaten is None or abs((now - snapshot.beaten).total_seconds()) > health.STALE:
        yield (
            "",
            snapshot.beaten,
            "what is received is kept, but not indexed, routed or processed; see the log",
        )


def _aside(snapshot: Snapshot, _now: datetime) -> Iterator[Found]:
    if snapshot.aside:
        yield (
            "",
            None,
            f"{counted(snapshot.aside, 'object')} set aside: not readable, or against one received before",
        )


def _attention(snapshot: Snapshot, _now: datetime) -> Iterator[Found]:
    if snapshot.opened is not None:
        yield "", snapshot.opened, "a series is still open; `pacsnode series --state receiving` names it"


def _silence(snapshot: Snapshot, _now: datetime) -> Iterator[Found]:
    if snapshot.received is not None:
        yield "", snapshot.received, "no object was received since then"


_JUDGES: Mapping[str, Callable[[Snapshot, datetime], Iterator[Found]]] = {
    "destination_down": _down,
    "parked": _parked,
    "quarantined": _quarantined,
    "disk": _disk,
    "rules_refused": _rules,
    "tls_certificate": _certificate,
    "conductor_down": _conductor,
    "set_aside": _aside,
    "series_attention": _attention,
    "no_objects": _silence,
}
