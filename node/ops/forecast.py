"""What retention would remove now, and why the rest stays: `pacsnode clean --dry-run`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from node.ops.retention import Kept, Removal
from node.ops.subjects import Subject


@dataclass(slots=True)
class Share:
    """All that goes, or stays, for the same reason."""

    reason: str
    """A line of `keep`, or why it stays."""
    series: int = 0
    """Revisions of series."""
    objects: int = 0
    results: int = 0
    bytes: int = 0
    """Of the received objects."""
    oldest: datetime | None = None
    """The last change of what changed longest ago."""
    until: datetime | None = None
    """Of what stays: when the first of it goes, where only time is missing."""


@dataclass(slots=True)
class Forecast:
    """What would happen."""

    removed: dict[str, Share] = field(default_factory=dict)
    kept: dict[str, Share] = field(default_factory=dict)
    going: list[Subject] = field(default_factory=list)
    """What goes, one by one."""


def forecast(decided: Iterable[tuple[Subject, Removal | Kept]]) -> Forecast:
    """Sum up what was decided, by reason."""
    found = Forecast()
    for subject, decision in decided:
        if isinstance(decision, Removal):
            share = found.removed.setdefault(decision.kind, Share(decision.kind))
            found.going.append(subject)
        else:
            share = found.kept.setdefault(decision.reason, Share(decision.reason))
            share.until = _earlier(share.until, decision.until)
        share.series += subject.of_series
        share.objects += subject.objects
        share.results += subject.results
        share.bytes += subject.bytes
        share.oldest = _earlier(share.oldest, subject.facts.changed_at)
    return found


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((at for at in (one, other) if at is not None), default=None)
