"""When the volumes of a series were acquired, relative to the first: only by attributes of the acquisition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from pydicom import Dataset
from pydicom.valuerep import DT

Moments = tuple[tuple[float, ...], str]


def moments_of(volumes: Sequence[Sequence[Dataset]]) -> Moments:
    """Seconds of each volume from the earliest, and the attribute that says it; `((), "")` where none does.

    A volume begins with the earliest of its slices. Content Time is not asked: it says when an image was made,
    which may be long after the acquisition (PS3.3 C.7.6.1). Times of which all are equal say nothing, and an
    attribute that tells all volumes apart says more than one that only tells some, as an Acquisition Time that
    the scanner writes once for all phases after the first.
    """
    if len(volumes) < 2:
        return (), ""
    best: Moments = ((), "")
    most = 1
    for keyword, seconds in _SOURCES.items():
        found = [[seconds(header) for header in headers] for headers in volumes]
        if any(value is None for values in found for value in values):
            continue
        begins = [min(value for value in values if value is not None) for values in found]
        times = tuple(round(begin - min(begins), 6) for begin in begins)
        if len(set(begins)) > most:
            best, most = (times, keyword), len(set(begins))
    return best


CLOCKS = {"AcquisitionDateTime": "", "AcquisitionTime": "AcquisitionDate", "ContentTime": "ContentDate"}
"""Times of day → what says of which day; a time of day alone puts what came after midnight first."""


def clock_of(headers: Sequence[Dataset], keyword: str) -> list[tuple[str, ...]]:
    """What each header says of *keyword*, one of CLOCKS, with its date where all state one; `()` where it says nothing.

    As digits that can be put in order, with every decimal of the seconds.
    """
    times = [_digits(str(header.get(keyword) or ""), 14 if not CLOCKS[keyword] else 6) for header in headers]
    days = [str(header.get(CLOCKS[keyword]) or "") if CLOCKS[keyword] else "" for header in headers]
    if not all(len(day) == 8 and day.isdigit() for day in days):
        days = [""] * len(headers)
    return [(day + time,) if time else () for day, time in zip(days, times, strict=True)]


def _digits(text: str, length: int) -> str:
    """A time in one form, so that 1200, 120000 and 120000.00 are one value; what is no time stays as it is."""
    whole, _, fraction = text.strip().partition(".")
    if not whole.isdigit() or (fraction and not fraction.isdigit()):
        return text.strip()
    fraction = fraction.rstrip("0")
    return whole.ljust(length, "0") + (f".{fraction}" if fraction else "")


def _moment(header: Dataset) -> float | None:
    """Acquisition DateTime, else Acquisition Date and Time."""
    stated = str(header.get("AcquisitionDateTime") or "")
    if not stated:
        date, time = (str(header.get(f"Acquisition{part}") or "") for part in ("Date", "Time"))
        stated = f"{date}{time}" if date and time else ""
    if not stated[:14].isdigit() or len(stated) < 14:
        return None
    try:
        moment = DT(stated)
    except ValueError:
        return None
    if moment is None:
        return None
    plain = datetime(moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    offset = moment.utcoffset() or timedelta()
    return (plain - datetime(1900, 1, 1) - offset).total_seconds() + moment.microsecond / 1e6


def _number(keyword: str, scale: float) -> Callable[[Dataset], float | None]:
    def seconds(header: Dataset) -> float | None:
        try:
            return float(header.get(keyword)) * scale
        except (TypeError, ValueError):
            return None

    return seconds


_SOURCES: dict[str, Callable[[Dataset], float | None]] = {
    "TemporalPositionTimeOffset": _number("TemporalPositionTimeOffset", 1.0),
    "FrameReferenceTime": _number("FrameReferenceTime", 1e-3),
    "AcquisitionTime": _moment,
    "TriggerTime": _number("TriggerTime", 1e-3),
}
"""Seconds; Frame Reference Time (C.8.9.4) and Trigger Time are in ms."""
