"""Time windows: when they open next, by the site's clock, also where that clock is set forward or back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.settings.windows import is_open, next_opening, spelled, windows_of

BERLIN = "Europe/Berlin"


def local(text: str, zone: str = BERLIN, fold: int = 0) -> datetime:
    """A moment of the site's clock."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def opens(text: str, at: str, *others: str) -> str:
    """When these windows are open next, by the site's clock."""
    found = next_opening((windows_of(text), *map(windows_of, others)), local(at).astimezone(UTC), BERLIN)
    return "" if found is None else found.astimezone(ZoneInfo(BERLIN)).isoformat()


@pytest.mark.parametrize(
    ("window", "at", "expected"),
    [
        ("19:00-06:00", "2026-03-02 12:00", "2026-03-02T19:00:00+01:00"),
        ("19:00-06:00", "2026-03-02 05:59:59", "2026-03-02T05:59:59+01:00"),  # it is open
        ("mon-fri 19:00-06:00", "2026-03-07 12:00", "2026-03-09T19:00:00+01:00"),  # a Saturday
        ("mon-fri 19:00-06:00", "2026-03-07 05:30", "2026-03-07T05:30:00+01:00"),  # Friday's, past midnight
        ("sat-sun 00:00-24:00", "2026-03-04 12:00", "2026-03-07T00:00:00+01:00"),
        (
            "02:30-06:00",
            "2026-03-29 01:00",
            "2026-03-29T03:00:00+02:00",
        ),  # 02:30 is skipped: it is past it at 03:00
        ("02:15-02:45", "2026-03-29 01:00", "2026-03-30T02:15:00+02:00"),  # all of it is skipped that night
        (
            "02:00-03:00",
            "2026-10-25 01:00",
            "2026-10-25T02:00:00+02:00",
        ),  # there are two such hours that night
        ("03:00-04:00", "2026-10-25 01:00", "2026-10-25T03:00:00+01:00"),  # three hours to wait, not two
    ],
)
def test_the_next_opening(window: str, at: str, expected: str) -> None:
    """It opens when the site's clock first shows a time inside, in summer, in winter and in between."""
    assert opens(window, at) == expected


def test_both_windows_must_be_open() -> None:
    """What a rule lets go at night waits for a peer that takes things after ten only."""
    assert opens("19:00-06:00", "2026-03-02 12:00", "22:00-23:00") == "2026-03-02T22:00:00+01:00"
    assert opens("08:00-09:00", "2026-03-02 12:00", "22:00-23:00") == ""


@pytest.mark.parametrize(
    "text",
    ["19:00-06:00", "mon-fri 19:00-06:00, sat-sun 00:00-24:00", "fri-mon 08:30-09:15", "wed 00:00-24:00"],
)
def test_a_window_is_spelled_as_it_is_read(text: str) -> None:
    """What a delivery keeps is read back as the same windows."""
    assert spelled(windows_of(text)) == text and windows_of("") == ()


_TIMES = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda t: f"{t[0]:02d}:{t[1]:02d}")


@given(
    st.tuples(_TIMES, _TIMES).filter(lambda t: t[0] != t[1]).map(lambda t: f"{t[0]}-{t[1]}"),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),
    st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "UTC"]),
)
def test_nothing_is_open_before_the_next_opening(window: str, at: datetime, zone: str) -> None:
    """It is open then, and at no whole minute between now and then; a daily window opens within two days."""
    windows, now, clock = windows_of(window), at.replace(tzinfo=UTC), ZoneInfo(zone)
    found = next_opening((windows,), now, zone)
    assert found is not None and now <= found <= now + timedelta(days=2, hours=2)
    assert is_open(windows, found.astimezone(clock))
    step = now
    while step < found:
        assert not is_open(windows, step.astimezone(clock))
        step += timedelta(minutes=7)
