"""Modality Performed Procedure Step (PS3.4 F.7): what a modality says of its work, as a value.

Read with pydicom in the reader, never in the conductor; nothing of the patient is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

MOST_IMAGES, MOST_SERIES = 50_000, 1_000
"""In one message; beyond them it is taken for an attack."""

_STATUS, _STATION, _PERFORMED_SERIES = 0x00400252, 0x00400241, 0x00400340
_SCHEDULED, _STUDY, _SERIES = 0x00400270, 0x0020000D, 0x0020000E
_IMAGES, _OTHERS, _INSTANCE = 0x00081140, 0x00400220, 0x00081155


class StepState(StrEnum):
    """Performed Procedure Step Status (0040,0252): in progress → completed | discontinued."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    DISCONTINUED = "discontinued"


_STATES = {
    "IN PROGRESS": StepState.IN_PROGRESS,
    "COMPLETED": StepState.COMPLETED,
    "DISCONTINUED": StepState.DISCONTINUED,
}


@dataclass(frozen=True, slots=True)
class PerformedSeries:
    """One item of the Performed Series Sequence: the objects that the step made in a series."""

    series_uid: str
    objects: tuple[str, ...]
    """SOP Instance UIDs, of images and of others (PS3.4 Table F.7.2-1)."""


@dataclass(frozen=True, slots=True)
class Performed:
    """What one message says; None where it says nothing of that."""

    state: StepState | None
    station: str
    """Performed Station AE Title; empty in most N-SETs."""
    study_uids: tuple[str, ...]
    """Of the Scheduled Step Attributes Sequence."""
    series: tuple[PerformedSeries, ...] | None
    """It replaces what was said before (PS3.4 F.7.2.2.2)."""


def decode(dataset: bytes, transfer_syntax: str) -> Performed:
    """Read a peer's dataset. Raises ValueError where it cannot be read."""
    implicit, little = transfer_syntax == ImplicitVRLittleEndian, transfer_syntax != ExplicitVRBigEndian
    try:
        found = read_dataset(BytesIO(dataset), is_implicit_VR=implicit, is_little_endian=little)
        found.set_original_encoding(implicit, little)
        said = _text(found, _STATUS)
        study_uids = tuple(uid for item in _items(found, _SCHEDULED) if (uid := _text(item, _STUDY)))
        series = tuple(_series(found)) if _PERFORMED_SERIES in found else None
        station = _text(found, _STATION)
    except Exception as error:  # pydicom raises whatever a peer's bytes lead it to
        raise ValueError(f"the dataset cannot be parsed ({type(error).__name__})") from error
    if said and said.upper() not in _STATES:
        raise ValueError("its Performed Procedure Step Status is none of the three there are")
    if series and len(series) > MOST_SERIES:
        raise ValueError(f"it names more than {MOST_SERIES} series")
    if series and sum(len(one.objects) for one in series) > MOST_IMAGES:
        raise ValueError(f"it names more than {MOST_IMAGES} objects")
    return Performed(_STATES.get(said.upper()), station, study_uids, series)


def _series(found: Dataset) -> Iterator[PerformedSeries]:
    """The items by series: a modality may tell of one in several."""
    objects: dict[str, dict[str, None]] = {}
    for item in _items(found, _PERFORMED_SERIES):
        named = objects.setdefault(_text(item, _SERIES), {})
        for tag in (_IMAGES, _OTHERS):
            named.update(dict.fromkeys(_text(one, _INSTANCE) for one in _items(item, tag)))
    for uid, named in objects.items():
        named.pop("", None)
        if uid:
            yield PerformedSeries(uid, tuple(named))


def _items(found: Dataset, tag: int) -> Iterable[Dataset]:
    return found[tag].value or () if tag in found else ()


def _text(found: Dataset, tag: int) -> str:
    """A value's bytes as text, not converted: pydicom's warnings would quote them."""
    element: Any = found.get_item(tag) if tag in found else None
    value = getattr(element, "value", None)
    return value.decode("latin-1").strip("\0 ") if isinstance(value, bytes) else ""


def to_json(said: Performed) -> list[Any]:
    """Plain values, short: there may be thousands of objects."""
    series = None if said.series is None else [[one.series_uid, list(one.objects)] for one in said.series]
    return [said.state, said.station, list(said.study_uids), series]


def from_json(data: Iterable[Any]) -> Performed:
    """The inverse of `to_json`."""
    state, station, study_uids, series = data
    return Performed(
        StepState(state) if state else None,
        station,
        tuple(study_uids),
        None if series is None else tuple(PerformedSeries(uid, tuple(named)) for uid, named in series),
    )
