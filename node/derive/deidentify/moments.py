"""Dates and times moved back by whole days (PS3.15 E.3.6): what lies between two of them stays, to the second."""

from __future__ import annotations

import re
from datetime import date, timedelta

_DATE = re.compile(r"(\d{4})(\.?)(\d{2})\2(\d{2})")
_DATETIME = re.compile(r"(\d{8})(\d{0,6}(?:\.\d{1,6})?)([+-]\d{4})?")
_TIME = re.compile(r"\d{2}(:?)\d{0,2}\1\d{0,2}(\.\d{1,6})?")


def shifted(vr: str, text: str, days: int) -> str | None:
    """One value of a DA, DT or TM, *days* earlier; None where it is too vague or too odd to be moved."""
    text = text.strip(" \0")
    if not text:
        return ""
    if vr == "TM":
        return text if _TIME.fullmatch(text) else None
    if vr == "DA":
        return _date(text, days)
    found = _DATETIME.fullmatch(text)
    if not found:
        return None
    moved = _date(found[1], days)
    return None if moved is None else f"{moved}{found[2]}{found[3] or ''}"


def _date(text: str, days: int) -> str | None:
    found = _DATE.fullmatch(text)
    if not found:
        return None
    try:
        moved = date(int(found[1]), int(found[3]), int(found[4])) - timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04}{moved.month:02}{moved.day:02}"
