"""The place of a delivery or a run in its queue: priority, then age."""

from __future__ import annotations

from datetime import datetime, timedelta

from node.model import Priority

_HEAD_START = {
    Priority.URGENT: -timedelta(days=30),
    Priority.NORMAL: timedelta(0),
    Priority.LOW: timedelta(hours=1),
}


def rank_of(priority: Priority, now: datetime) -> int:
    """The place in a queue, lowest first: priority, then age in seconds.

    Urgent overtakes all that has waited for less than 30 days; low lets pass what comes within an hour after
    it, and no more, so that it never starves.
    """
    return int((now + _HEAD_START[priority]).timestamp())
