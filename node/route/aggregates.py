"""Facts about the used images as a whole: counts, places, tilt, and the clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from node.facts import ABSENT, Column, Facts, stacks
from node.model import Value
from node.route.values import WEEKDAYS, number

_GEOMETRY = ("ImageOrientationPatient", "ImagePositionPatient", "GantryDetectorTilt")
_FROM_GEOMETRY = frozenset({"slices", "has_tilt"})
CLOCK = frozenset({"local_time", "weekday"})
"""What says something else of the same object at another time."""
TILT = 0.5
"""Sideways step between neighbouring slices, mm, above which a stack counts as tilted."""


@dataclass(frozen=True)
class Context:
    """What is true of a series beside its images."""

    now: datetime
    """Aware."""
    timezone: str
    """IANA name; `local_time` and `weekday` are told in it."""
    revision: int = 1
    incomplete: str = ""
    """Why the series is incomplete, empty when it is not."""
    ours: str = ""
    """Why it counts as our own output, empty when it is not."""


def with_aggregates(
    facts: Facts,
    context: Context,
    places: Mapping[str, Value | None],
    given: Mapping[str, Value] | None = None,
) -> Facts:
    """*facts* and a column for each fact about them as a whole.

    *places* comes from `geometry`; *given* ones replace what is worked out.
    """
    worked_out: dict[str, Value | None] = {
        "instances": (str(facts.size),),
        "frames": _frames(facts),
        "revision": (str(context.revision),),
        **places,
        **_clock(context),
    }
    if given is not None:
        worked_out |= {"local_time": None, "weekday": None, **given}
    columns = {
        name: _everywhere(value, facts.size) for name, value in worked_out.items() if value is not None
    }
    kept = {name: column for name, column in facts.columns.items() if name not in worked_out}
    return replace(facts, columns={**kept, **columns})


def narrowed(facts: Facts, names: Collection[str]) -> Facts:
    """Only the columns that these names and the facts about the whole need."""
    wanted = columns_of(names)
    columns = {name: facts.columns[name] for name in wanted if name in facts.columns}
    for name in wanted - columns.keys():
        if name.endswith("Sequence"):
            columns |= _sequence(name, facts)
    return replace(facts, columns=columns)


def columns_of(names: Collection[str]) -> frozenset[str]:
    """The columns that answer these names: their own, and those that facts about the whole are worked out from."""
    return frozenset((*names, "frames", *(_GEOMETRY if needs_geometry(names) else ())))


def needs_geometry(names: Collection[str]) -> bool:
    """Whether one of these is told by where the slices are."""
    return not _FROM_GEOMETRY.isdisjoint(names)


def _sequence(name: str, facts: Facts) -> dict[str, Column]:
    """A sequence is there where something stands in it: only what its items hold has columns."""
    inside = [column.rows for path, column in facts.columns.items() if path.startswith(f"{name}[")]
    if not inside:
        return {}
    rows = tuple(0 if any(row[i] != ABSENT for row in inside) else ABSENT for i in range(facts.size))
    return {name: Column(((("items",),),), rows)}


@lru_cache(maxsize=1024)
def _everywhere(value: Value, size: int) -> Column:
    """The same for every image; one column for all rules that ask, so that what is worked out is worked out once."""
    return Column(((value,),), (0,) * size)


def _frames(facts: Facts) -> Value | None:
    column = facts.columns.get("frames")
    total = column.remember("total", lambda: _total(column)) if column is not None else 0
    return (str(total),) if total else None


def _total(column: Column) -> int:
    """The sum over all images of the first value, where that can be a count."""
    total = 0
    for row, times in Counter(column.rows).items():
        for value in column.cells[row][:1] if row != ABSENT else ():
            found = number(value[0]) if value else None
            total += int(found) * times if found is not None and 0 <= found < 10**9 else 0
    return total


def geometry(facts: Facts) -> dict[str, Value | None]:
    """`slices` and `has_tilt`; None where nothing tells."""
    try:
        found = stacks(facts)
    except (ArithmeticError, ValueError):  # absurd coordinates in a bad header
        found = ()
    places = sum(len(stack.offsets) for stack in found)
    angles = [number(s.value[0]) for s in facts.seen("GantryDetectorTilt") if s.value]
    known = [angle for angle in angles if angle is not None]
    tilted = any(stack.shear > TILT for stack in found) or any(known)
    tilt = ("yes" if tilted else "no",) if found or known else None
    return {"slices": (str(places),) if places else None, "has_tilt": tilt}


@lru_cache(maxsize=8)
def _clock(context: Context) -> dict[str, Value | None]:
    try:
        now = context.now if context.now.tzinfo else context.now.replace(tzinfo=UTC)
        local = now.astimezone(ZoneInfo(context.timezone))
    except (ValueError, OSError, ArithmeticError, LookupError):  # an unknown zone: the clock is not known
        return {"local_time": None, "weekday": None}
    return {"local_time": (local.strftime("%H:%M:%S"),), "weekday": (WEEKDAYS[local.weekday()],)}
