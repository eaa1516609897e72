"""One value out of a header or a rule, as something that can be compared: PS3.5 6.2, with units.

Nothing here raises on what came from a header; what a *user* wrote raises ValueError with a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import StrEnum

from pydicom.uid import UID_dictionary

from node import shape

Comparable = Decimal | date | time | datetime | str


class Kind(StrEnum):
    """How the values of an attribute compare."""

    TEXT = "text"
    NUMBER = "number"
    DATE = "date"
    TIME = "time"
    DATETIME = "date and time"
    AGE = "age"
    UID = "UID"
    YES_NO = "yes or no"
    WEEKDAY = "weekday"
    ANY = "text or number"
    """A private attribute: a number where both sides are one, else text."""
    OPAQUE = "sequence"
    """Only presence can be asked for."""


ORDERED = frozenset({Kind.NUMBER, Kind.DATE, Kind.TIME, Kind.DATETIME, Kind.AGE, Kind.ANY})
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
TOLERANCE = Decimal("1e-6")

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_DATE = re.compile(r"([0-9]{4})([.-]?)([0-9]{2})\2([0-9]{2})")
_TIME = re.compile(r"([0-9]{1,2})(?:(:?)([0-9]{2})(?:\2([0-9]{2})(?:\.([0-9]{1,6}))?)?)?")
_AGE = re.compile(r"([0-9]{1,3})([DWMY])", re.IGNORECASE)
_OFFSET = re.compile(r"(.*)([+-])([0-9]{2}):?([0-9]{2})")
_PER_YEAR = {"D": Decimal("365.25"), "W": Decimal("365.25") / 7, "M": Decimal(12), "Y": Decimal(1)}

# unit → (dimension, factor to the dimension's first unit)
_UNITS: dict[str, tuple[str, Decimal]] = {
    name: (dimension, Decimal(factor))
    for dimension, units in {
        "length": {"mm": "1", "cm": "10", "m": "1000", "um": "0.001"},
        "duration": {"ms": "1", "s": "1000", "us": "0.001", "min": "60000", "h": "3600000"},
        "mass": {"kg": "1", "g": "0.001"},
        "activity": {"Bq": "1", "kBq": "1e3", "MBq": "1e6", "GBq": "1e9", "mCi": "37e6"},
        "volume": {"ml": "1", "mL": "1", "cm3": "1", "l": "1000"},
        "voltage": {"kV": "1", "V": "0.001"},
        "current": {"mA": "1", "A": "1000", "uA": "0.001"},
        "charge": {"mAs": "1", "uAs": "0.001"},
        "field": {"T": "1", "mT": "0.001"},
        "frequency": {"Hz": "1", "kHz": "1e3", "MHz": "1e6"},
        "dose": {"mGy": "1", "Gy": "1000", "dGy": "100"},
        "angle": {"deg": "1"},
        "b-value": {"s/mm2": "1"},
        "CT number": {"HU": "1"},
        "speed": {"mm/s": "1", "cm/s": "10", "m/s": "1000"},
        "force": {"N": "1"},
        "heart rate": {"bpm": "1"},
        "share": {"%": "1"},
        "pressure": {"kPa": "1", "Pa": "0.001"},
        "temperature": {"degC": "1"},
    }.items()
    for name, factor in units.items()
}
for _name, _days in {"y": "365.25", "mo": "30.4375", "w": "7", "d": "1"}.items():
    _UNITS[_name] = ("age", Decimal(_days))

_SPELLINGS = {
    "[hnsf'U]": "HU", "a": "y", "year": "y", "years": "y", "months": "mo", "µm": "um", "μm": "um", "µs": "us",
    "°": "deg", "s/mm²": "s/mm2", "s/mm^2": "s/mm2", "1": "", "Cel": "degC", "°C": "degC", "/min": "bpm",
}  # fmt: skip


def unit_name(unit: str) -> str:
    """The one spelling of a unit used in this room: `HU` for UCUM's `[hnsf'U]`, `y` for `a`."""
    return _SPELLINGS.get(unit, unit)


def number(text: str) -> Decimal | None:
    """A finite decimal number (DS, IS, or a binary VR as text); None where it is none."""
    text = text.strip(" \0")
    if len(text) > 64 or not _NUMBER.fullmatch(text):
        return None
    return Decimal(text)


def measured(text: str, unit: str, what: str) -> Decimal:
    """What a user wrote, in *unit*. ValueError where it is no number or its unit does not fit."""
    found = shape.quantity(text)
    value = number(text.strip()[: len(text.strip()) - len(found[1])]) if found else None
    if found is None or value is None:
        raise ValueError(f"expected a number{f' in {unit}' if unit else ''} for {what}, found {text!r}")
    given = unit_name(found[1])
    if not given or given == unit:
        return value
    if not unit:
        raise ValueError(f"no unit is known for {what}; write the number alone, without {found[1]}")
    if given not in _UNITS or unit not in _UNITS or _UNITS[given][0] != _UNITS[unit][0]:
        raise ValueError(f"{found[1]} does not fit {what}, which is in {unit}")
    return value * _UNITS[given][1] / _UNITS[unit][1]


def squeeze(text: str) -> str:
    """Text as it is compared: without case, padding and repeated blanks."""
    return " ".join(text.replace("\0", " ").split()).casefold()


def _day(text: str) -> date | None:
    match = _DATE.fullmatch(text.strip(" \0"))
    try:
        return date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:
        return None


def _clock(text: str) -> time | None:
    match = _TIME.fullmatch(text.strip(" \0"))
    if match is None or (len(match[1]) == 1 and match[2] != ":"):
        return None
    try:
        second = min(int(match[4] or 0), 59)  # 60 is a leap second (PS3.5 6.2)
        return time(int(match[1]), int(match[3] or 0), second, int((match[5] or "0").ljust(6, "0")))
    except ValueError:
        return None


def _moment(text: str) -> datetime | None:
    """DT `YYYYMMDDHHMMSS.FFFFFF&ZZXX` with parts left out from the right, or ISO 8601."""
    text, zone = text.strip(" \0"), None
    match = _OFFSET.fullmatch(text) if len(text) > 10 else None
    if match:
        minutes = int(match[3]) * 60 + int(match[4])
        if minutes < 24 * 60:
            zone = timezone(timedelta(minutes=minutes if match[2] == "+" else -minutes))
        text = match[1]
    split = 10 if "-" in text[:8] else 8
    day, clock = text[:split], text[split:].lstrip("T ")
    if re.fullmatch(r"[0-9]{4}|[0-9]{6}", day):
        day = f"{day}0101" if len(day) == 4 else f"{day}01"
    found, at = _day(day), _clock(clock) if clock else time()
    return datetime.combine(found, at, zone) if found and at else None


def _age(text: str) -> Decimal | None:
    match = _AGE.fullmatch(text.strip(" \0"))
    return Decimal(match[1]) / _PER_YEAR[match[2].upper()] if match else number(text)


def _yes_no(text: str) -> str | None:
    return {"yes": "yes", "true": "yes", "on": "yes", "no": "no", "false": "no", "off": "no"}.get(
        squeeze(text)
    )


def _weekday(text: str) -> str | None:
    full = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    day = squeeze(text)
    return day[:3] if day in WEEKDAYS or day in full else None


def uid(text: str) -> str:
    """A UID as such; a registered name or keyword (`CTImageStorage`) becomes its UID."""
    text = text.strip(" \0")
    if re.fullmatch(r"[0-9.]+", text):
        return text
    wanted = squeeze(text)
    if not wanted:
        return text
    return next((u for u, e in UID_dictionary.items() if wanted in (squeeze(e[0]), squeeze(e[4]))), text)


def uid_name(text: str) -> str:
    """The registered name of a UID, else the UID itself."""
    entry = UID_dictionary.get(text.strip(" \0"))
    return entry[0] if entry else text


_READERS: dict[Kind, Callable[[str], Comparable | None]] = {
    Kind.TEXT: squeeze,
    Kind.OPAQUE: squeeze,
    Kind.ANY: squeeze,
    Kind.NUMBER: number,
    Kind.DATE: _day,
    Kind.TIME: _clock,
    Kind.DATETIME: _moment,
    Kind.AGE: _age,
    Kind.UID: uid,
    Kind.YES_NO: _yes_no,
    Kind.WEEKDAY: _weekday,
}


def stored(kind: Kind, text: str) -> Comparable | None:
    """A value as a header holds it; None where the text is no such thing. Never raises."""
    return _READERS[kind](text)


def written(kind: Kind, unit: str, text: str, what: str) -> Comparable:
    """A value as a user wrote it in a rule. ValueError with a sentence where it does not fit *kind*."""
    if kind is Kind.NUMBER:
        return measured(text, unit, what)
    if kind is Kind.AGE:
        match = _AGE.fullmatch(text.strip())
        return Decimal(match[1]) / _PER_YEAR[match[2].upper()] if match else measured(text, "y", what)
    if kind is Kind.UID:
        return _known_uid(text, what)
    found = stored(kind, text)
    if found is None:
        examples = {
            Kind.DATE: "2024-01-31", Kind.TIME: "14:30", Kind.DATETIME: "2024-01-31T14:30",
            Kind.YES_NO: "yes", Kind.WEEKDAY: "mon",
        }  # fmt: skip
        raise ValueError(f"expected a {kind} such as {examples[kind]} for {what}, found {text!r}")
    return found


def _known_uid(text: str, what: str) -> str:
    found = uid(text)
    if not re.fullmatch(r"[0-9.]+", found):
        names = [entry[4] for entry in UID_dictionary.values() if entry[4]]
        raise ValueError(
            f"{text} is neither a UID nor a registered name for {what}{shape.nearest(text, names)}"
        )
    return found


def equal(kind: Kind, left: Comparable, right: Comparable) -> bool:
    """Same value: numbers within a relative 1e-6, all else exactly; private text may hold a number."""
    if isinstance(left, str) and kind is not Kind.ANY:
        return left == right
    return left == right or order(left, right) == 0


def order(left: Comparable, right: Comparable) -> int | None:
    """-1, 0 or 1 as *left* is less, equal or greater; None where the two do not compare."""
    if isinstance(left, str) and isinstance(right, str):
        a, b = number(left), number(right)
        return _sign(a, b) if a is not None and b is not None else None
    if isinstance(left, Decimal) and isinstance(right, Decimal):
        return _sign(left, right)
    if isinstance(left, datetime) and isinstance(right, datetime):
        if left.tzinfo is None or right.tzinfo is None:  # an offset counts only where both have one
            left, right = left.replace(tzinfo=None), right.replace(tzinfo=None)
        return (left > right) - (left < right)
    if isinstance(left, time) and isinstance(right, time):
        return (left > right) - (left < right)
    if type(left) is date and type(right) is date:
        return (left > right) - (left < right)
    return None


def _sign(a: Decimal, b: Decimal) -> int:
    if abs(a - b) <= TOLERANCE * max(abs(a), abs(b)):
        return 0
    return 1 if a > b else -1


def fits(pattern: str, text: str) -> bool:
    """*text* as a whole fits *pattern*, in which `*` is any text and `?` one character; time is O(n·m)."""
    p = t = 0
    star, resume = -1, 0
    while t < len(text):
        if p < len(pattern) and pattern[p] == "*":
            star, resume, p = p, t, p + 1
        elif p < len(pattern) and pattern[p] in ("?", text[t]):
            p, t = p + 1, t + 1
        elif star >= 0:
            p, resume = star + 1, resume + 1
            t = resume
        else:
            return False
    return not pattern[p:].strip("*")
