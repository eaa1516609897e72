"""When a PET series was acquired, when its dose was given, and how long that dose decayed in between.

Images are decay corrected to one moment (PS3.3 C.8.9.1.1.5): the start of the scan, the administration, or, in
enhanced objects, what Decay Correction DateTime says. The start of the scan is sought as the vendor-neutral
computation of QIBA does it ("happy path", qibawiki.rsna.org, Standardized Uptake Value): over all images of the
series, since a bed position has an Acquisition Time of its own, and with distrust of a Series Time that lies
behind what was acquired. Nothing is taken for granted that a header does not say: what cannot be told is Refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

from pydicom import Dataset
from pydicom.valuerep import DA, DT, TM

from node.errors import Refused

EARLIEST = -600.0
"""s: a dynamic scan is started minutes before the injection; a dose given later belongs to another clock."""
MOST_HALF_LIVES = 5.0
"""Of a dose that is older, 3 % are left: one of the two times is wrong (date shifting does that)."""
NEEDS_A_DATE = 41400.0
"""s: with a longer half-life a scan on a later day is plausible, so a time of day alone does not say when the
dose was given (IBSI, Standardizing SUV Computation 3.0, "Administration time")."""
_AGREE = 2.0
"""s within which the bed positions of one series must give the same start."""


class Scan:
    """All images of one series, which are asked once when their scan began: a dynamic one has many volumes."""

    def __init__(self, headers: Sequence[Dataset]) -> None:
        self._headers = headers
        self._starts: dict[float, datetime | str] = {}

    def start(self, half_life: float) -> datetime:
        """What `scan_start` says of the series."""
        if half_life not in self._starts:
            try:
                self._starts[half_life] = scan_start(self._headers, half_life)
            except Refused as reason:
                self._starts[half_life] = str(reason)
        found = self._starts[half_life]
        if isinstance(found, str):
            raise Refused(found)
        return found


def scan_start(headers: Sequence[Dataset], half_life: float) -> datetime:
    """The moment to which a series with Decay Correction START is corrected. Raises Refused where that is unknown."""
    started = [_when(header, "Series") for header in headers]
    acquired = [_acquired(header) for header in headers]
    if None in acquired:
        raise Refused(
            "AcquisitionDate and AcquisitionTime are not in every image, so the scan's start is unknown"
        )
    earliest = min(when for when in acquired if when is not None)
    stated = started[0]
    if stated is not None and all(when == stated for when in started) and stated <= earliest:
        return stated
    # The Series Time is that of a series made later: look for what the makers write elsewhere.
    private = [_ge_start(header) for header in headers]
    if private[0] is not None and all(when == private[0] for when in private):
        return private[0]
    return _from_frames(headers, half_life) or earliest


def _from_frames(headers: Sequence[Dataset], half_life: float) -> datetime | None:
    """Siemens: from the middle of each bed position back by its Frame Reference Time, which counts from the start.

    The middle is the moment of the average count rate: ln(x / (1 - exp(-x))) / lambda, x = lambda x duration.
    None where the images do not say it, or are of another maker, whose Frame Reference Time means something else.
    """
    starts = []
    for header in headers:
        acquired = _acquired(header)
        duration, offset = (_number(header, k) for k in ("ActualFrameDuration", "FrameReferenceTime"))
        siemens = "SIEMENS" in str(header.get("Manufacturer") or "").upper()
        if (
            not siemens
            or acquired is None
            or duration is None
            or offset is None
            or min(duration, offset) <= 0
        ):
            return None
        starts.append(acquired + timedelta(seconds=average_rate(duration / 1000, half_life) - offset / 1000))
    if (max(starts) - min(starts)).total_seconds() > _AGREE:
        raise Refused(
            "SeriesTime is later than the acquisition, and FrameReferenceTime counts from different moments: "
            f"{min(starts):%H:%M:%S} to {max(starts):%H:%M:%S}; the scan's start is unknown"
        )
    return min(starts)


def average_rate(duration: float, half_life: float) -> float:
    """Seconds from the start of a frame to the moment at which the count rate is its average."""
    decayed = math.log(2) * duration / half_life
    if decayed < 1e-8:
        return duration / 2
    return math.log(decayed / -math.expm1(-decayed)) * half_life / math.log(2)


def given_at(dose: Dataset, header: Dataset, until: datetime, half_life: float) -> datetime:
    """When the dose was given, *until* being the moment that the images are corrected to.

    Radiopharmaceutical Start DateTime where it is plausible; else the time of day of Start Time on the scan's date,
    or on the day before where only that is plausible. Raises Refused, with both moments, where none is.
    """
    full = _moment(dose.get("RadiopharmaceuticalStartDateTime"), header)
    if full is not None and _plausible(full, until, half_life):
        return full
    clock = _time(dose.get("RadiopharmaceuticalStartTime"))
    if clock is None:
        if full is None:
            raise Refused("RadiopharmaceuticalStartDateTime and RadiopharmaceuticalStartTime are absent")
        raise Refused(_implausible("RadiopharmaceuticalStartDateTime", full, until, half_life))
    if half_life >= NEEDS_A_DATE:
        raise Refused(
            f"RadiopharmaceuticalStartTime {clock:%H:%M:%S} names no day, and with a half-life of "
            f"{half_life / 3600:.1f} h the dose may be days old; RadiopharmaceuticalStartDateTime is "
            + ("absent" if full is None else f"{full:%Y-%m-%d %H:%M}, which is not plausible")
        )
    same_day = datetime.combine(until.date(), clock)
    for when in (same_day, same_day - timedelta(days=1)):
        if _plausible(when, until, half_life):
            return when
    raise Refused(_implausible("RadiopharmaceuticalStartTime", same_day, until, half_life))


def _plausible(given: datetime, until: datetime, half_life: float) -> bool:
    return EARLIEST <= (until - given).total_seconds() <= MOST_HALF_LIVES * half_life


def _implausible(keyword: str, given: datetime, until: datetime, half_life: float) -> str:
    seconds = (until - given).total_seconds()
    where = "before" if seconds >= 0 else "after"
    return (
        f"{keyword} {given:%Y-%m-%d %H:%M:%S} lies {abs(seconds) / 60:.0f} min {where} {until:%Y-%m-%d %H:%M:%S}, to "
        f"which the images are decay corrected; with a half-life of {half_life:g} s that is not plausible"
    )


def corrected_to(header: Dataset) -> datetime | None:
    """Decay Correction DateTime (0018,9701) of an enhanced object."""
    return _moment(header.get("DecayCorrectionDateTime"), header)


def _acquired(header: Dataset) -> datetime | None:
    return _when(header, "Acquisition") or _moment(header.get("AcquisitionDateTime"), header)


def _when(header: Dataset, what: str) -> datetime | None:
    day, clock = _date(header.get(f"{what}Date")), _time(header.get(f"{what}Time"))
    return datetime.combine(day, clock) if day is not None and clock is not None else None


def _ge_start(header: Dataset) -> datetime | None:
    """GE's private scan datetime (0009,xx0D GEMS_PETD_01)."""
    try:
        value = header.private_block(0x0009, "GEMS_PETD_01")[0x0D].value
    except KeyError:
        return None
    return _moment(value.decode("ascii", "replace") if isinstance(value, bytes) else value, header)


def _moment(value: Any, header: Dataset) -> datetime | None:
    """A DT to the second, on the clock of the object where both say their offset from UTC."""
    text = str(value or "").strip(" \0")
    if len(text) < 14 or not text[:14].isdigit():
        return None
    try:
        stated = DT(text)
    except ValueError:
        return None
    own, theirs = _offset(header), stated.utcoffset()
    shift = own - theirs if own is not None and theirs is not None else timedelta(0)
    return datetime.combine(stated.date(), stated.time()) + shift


def _offset(header: Dataset) -> timedelta | None:
    """Timezone Offset From UTC (0008,0201)."""
    text = str(header.get("TimezoneOffsetFromUTC") or "").strip()
    if len(text) != 5 or text[0] not in "+-" or not text[1:].isdigit():
        return None
    span = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return -span if text[0] == "-" else span


def _date(value: Any) -> date | None:
    try:
        return DA(str(value)) if value else None
    except ValueError:
        return None


def _time(value: Any) -> time | None:
    try:
        return TM(str(value)) if value else None
    except ValueError:
        return None


def _number(header: Dataset, keyword: str) -> float | None:
    try:
        number = float(header.get(keyword))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
