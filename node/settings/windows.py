"""When something may be sent: `window: 19:00-06:00`, `window: [mon-fri 19:00-06:00, sat-sun 00:00-24:00]`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from node.shape import Node, Shaper

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY, _HOUR, _MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
_AHEAD = 8 * 24 * 60
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


@lru_cache(maxsize=256)
def next_opening(windows: tuple[tuple[Window, ...], ...], now: datetime, zone: str) -> datetime | None:
    """The first minute from *now* on in which each of these *windows* is open; None where there is none in 8 days.

    It is looked for minute by minute of UTC, by what the site's clock shows then: where that clock is set forward
    or back a window begins when it shows a time that lies in it, and not at a time that it never shows.
    """
    at = now.astimezone(UTC)
    ahead = at.replace(second=0, microsecond=0)
    moments = (at, *(ahead + minutes * timedelta(minutes=1) for minutes in range(1, _AHEAD)))
    local = ZoneInfo(zone)
    return next((m for m in moments if all(is_open(w, m.astimezone(local)) for w in windows)), None)


def spelled(windows: Sequence[Window]) -> str:
    """The same as text, as `windows_of` reads it."""
    return ", ".join(_spelled(window) for window in windows)


@lru_cache(maxsize=256)
def windows_of(text: str) -> tuple[Window, ...]:
    """What `spelled` wrote; no windows of an empty text."""
    found = (_parse(part)[0] for part in text.split(", ") if part)
    return tuple(window for window in found if window is not None)


def _spelled(window: Window) -> str:
    times = "-".join(
        f"{int(t / _HOUR):02d}:{int(t % _HOUR / _MINUTE):02d}" for t in (window.start, window.end)
    )
    if len(window.days) == len(DAYS):
        return times
    first = next(
        day for day in sorted(window.days) if (day - 1) % 7 not in window.days
    )  # they follow each other
    last = (first + len(window.days) - 1) % 7
    return f"{DAYS[first] if first == last else f'{DAYS[first]}-{DAYS[last]}'} {times}"


def read_windows(shaper: Shaper, node: Node) -> tuple[Window, ...]:
    """`window:` of a peer, a rule or an entry under `send`: one span or a list of them."""
    if not node.items:
        shaper.wrong(node, "window is empty; leave it out where anything may be sent at any time")
    return tuple(window for item in node.items if (window := _window(shaper, item)) is not None)


def _window(shaper: Shaper, node: Node) -> Window | None:
    window, wrong = _parse(node.text if node.is_text else "")
    if wrong:
        shaper.wrong(node, wrong)
    return window


def _parse(text: str) -> tuple[Window | None, str]:
    """A window, or why *text* is none."""
    match = _FORM.fullmatch(text.strip().lower())
    if match is None:
        return None, f"expected a window such as 19:00-06:00 or mon-fri 19:00-06:00, found {text!r}"
    start, end = (timedelta(hours=int(match[f"h{i}"]), minutes=int(match[f"m{i}"])) for i in (1, 2))
    if start >= _DAY or end > _DAY or int(match["m1"]) > 59 or int(match["m2"]) > 59:
        return None, f"{text} is no time of the day; it goes from 00:00 to 24:00"
    if start == end:
        return None, f"{text} is empty; the whole day is 00:00-24:00"
    first, last = match["first"], match["last"] or match["first"]
    for day in (first, last):
        if day is not None and day not in DAYS:
            return None, f"{day} is no day; the days are {', '.join(DAYS)}"
    if first is None:
        return Window(frozenset(range(7)), start, end), ""
    count = (DAYS.index(last) - DAYS.index(first)) % 7 + 1
    return Window(frozenset((DAYS.index(first) + i) % 7 for i in range(count)), start, end), ""
