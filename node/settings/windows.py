"""When a peer may be sent to: `window: 19:00-06:00`, `window: [mon-fri 19:00-06:00, sat-sun 00:00-24:00]`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from node.shape import Node, Shaper

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = timedelta(days=1)
_FORM = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?\s+)?(?P<h1>\d{1,2}):(?P<m1>\d\d)\s*-\s*(?P<h2>\d{1,2}):(?P<m2>\d\d)"
)


@dataclass(frozen=True, slots=True)
class Window:
    """One span of the day, on the days on which it begins; one that ends before it begins goes past midnight."""

    days: frozenset[int]
    """0 is Monday."""
    start: timedelta
    end: timedelta
    """Since midnight; up to 24 h."""

    def holds(self, local: datetime) -> bool:
        """Whether *local*, a time of the site's clock, lies in it: the start included, the end not."""
        since = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second)
        today, yesterday = local.weekday(), (local.weekday() - 1) % 7
        if self.start < self.end:
            return today in self.days and self.start <= since < self.end
        return (today in self.days and since >= self.start) or (yesterday in self.days and since < self.end)


def is_open(windows: Sequence[Window], local: datetime) -> bool:
    """Whether one of *windows* holds; without any there is no limit."""
    return not windows or any(window.holds(local) for window in windows)


def read_windows(shaper: Shaper, node: Node) -> tuple[Window, ...]:
    """`window:` of a peer: one span or a list of them."""
    if not node.items:
        shaper.wrong(node, "window is empty; leave it out where the peer may be sent to at any time")
    return tuple(window for item in node.items if (window := _window(shaper, item)) is not None)


def _window(shaper: Shaper, node: Node) -> Window | None:
    match = _FORM.fullmatch(node.text.strip().lower()) if node.is_text else None
    if match is None:
        shaper.wrong(
            node, f"expected a window such as 19:00-06:00 or mon-fri 19:00-06:00, found {node.text!r}"
        )
        return None
    start, end = (timedelta(hours=int(match[f"h{i}"]), minutes=int(match[f"m{i}"])) for i in (1, 2))
    if start >= _DAY or end > _DAY or int(match["m1"]) > 59 or int(match["m2"]) > 59:
        shaper.wrong(node, f"{node.text} is no time of the day; it goes from 00:00 to 24:00")
        return None
    if start == end:
        shaper.wrong(node, f"{node.text} is empty; the whole day is 00:00-24:00")
        return None
    first, last = match["first"], match["last"] or match["first"]
    for day in (first, last):
        if day is not None and day not in DAYS:
            shaper.wrong(node, f"{day} is no day; the days are {', '.join(DAYS)}")
            return None
    if first is None:
        return Window(frozenset(range(7)), start, end)
    count = (DAYS.index(last) - DAYS.index(first)) % 7 + 1
    return Window(frozenset((DAYS.index(first) + i) % 7 for i in range(count)), start, end)
