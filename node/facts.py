"""What all instances and frames of a series say: the value that `assemble` builds and `route` judges.

A column per attribute keeps each distinct cell once and one small index per instance, so that a
2 000-slice series costs little and `use` can narrow the instances without reading a file again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from node.model import Cell, Value

ABSENT = -1
_EACH = "each"
"""In JSON: every instance has a cell of its own, in the order in which they came."""
_FEW = 8
"""Instances of which a selection is not worth remembering."""
_MOST_REMEMBERED = 4096
_PARALLEL = 2e-3
"""Difference of direction cosines (0.1°) below which slices are parallel: scanners round them differently."""
_MOST_STACKS = 64
"""Orientations that are compared with a new one; radial acquisitions have some dozens."""
_FARTHEST = 1e6
"""mm: no patient is a kilometre long; a coordinate beyond is no coordinate."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One distinct value and in how many instances it occurs; *value* None is an absent attribute."""

    value: Value | None
    count: int


Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Column:
    """`cells[rows[i]]` is what instance *i* holds; `rows[i] == ABSENT` where it lacks the attribute."""

    cells: tuple[Cell, ...]
    rows: tuple[int, ...]
    memo: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    """What was worked out from it, by a key of whoever did: two hundred rules ask the same of two thousand images."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Column, (self.cells, self.rows)

    def remember(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What *make* says of the column, asked once; what follows from other columns too has them in its key."""
        known: Made | None = self.memo.get(key)
        if known is None:
            if len(self.memo) >= _MOST_REMEMBERED:
                self.memo.clear()
            known = self.memo[key] = make()
        return known

    def seen(self) -> tuple[Seen, ...]:
        """Each distinct value with its count of instances, absence last."""
        return self.remember("seen", self._count)

    def _count(self) -> tuple[Seen, ...]:
        counts: dict[Value | None, int] = {}
        for row, times in Counter(self.rows).items():  # in the order in which they first occur
            for value in self.cells[row] if row != ABSENT else (None,):
                counts[value] = counts.get(value, 0) + times
        absent = counts.pop(None, 0)
        seen = [Seen(value, count) for value, count in counts.items()]
        return (*seen, Seen(None, absent)) if absent else tuple(seen)

    def only(self, instances: Sequence[int]) -> Column:
        """These instances, in this order."""
        return Column(self.cells, tuple([self.rows[i] for i in instances]))


@dataclass(frozen=True)
class Facts:
    """The columns of *size* instances, in the order they were added."""

    size: int
    columns: Mapping[str, Column] = field(default_factory=dict)

    def seen(self, name: str) -> tuple[Seen, ...]:
        """Each distinct value of *name* with its count of instances, absence last; `()` when no instance is used."""
        column = self.columns.get(name)
        if column is None:
            return (Seen(None, self.size),) if self.size else ()
        return column.seen()

    def cell(self, name: str, instance: int) -> Cell | None:
        """What one instance holds, None where it lacks the attribute."""
        column = self.columns.get(name)
        if column is None or column.rows[instance] == ABSENT:
            return None
        return column.cells[column.rows[instance]]

    def one(self, instance: int) -> Facts:
        """The facts of one instance alone."""
        return self.only((instance,))

    def only(self, instances: Sequence[int]) -> Facts:
        """The facts of these instances, in this order."""
        if len(instances) < _FEW or not isinstance(instances, tuple):
            return Facts(len(instances), {name: c.only(instances) for name, c in self.columns.items()})
        key = ("only", id(instances))  # the tuple stands in what is remembered: nothing else gets its number
        columns = {
            name: c.remember(key, lambda c=c: (instances, c.only(instances)))[1]  # type: ignore[misc]
            for name, c in self.columns.items()
        }
        return Facts(len(instances), columns)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and texts; `from_json` gives back an equal value."""
        columns = {name: [c.cells, _packed(c.rows)] for name, c in self.columns.items()}
        return {"size": self.size, "columns": columns}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Facts:
        """The inverse of `to_json`."""
        columns = {
            name: Column(
                tuple([tuple([tuple(v) for v in cell]) for cell in cells]), _unpacked(rows, data["size"])
            )
            for name, (cells, rows) in data["columns"].items()
        }
        return Facts(data["size"], columns)


def _packed(rows: tuple[int, ...]) -> Sequence[int] | int | str:
    """Most attributes are the same everywhere, the others often different everywhere: one word says it."""
    if rows and rows.count(rows[0]) == len(rows):
        return rows[0]
    return _EACH if rows == tuple(range(len(rows))) else rows


def _unpacked(rows: Sequence[int] | int | str, size: int) -> tuple[int, ...]:
    if isinstance(rows, int):
        return (rows,) * size
    return tuple(range(size)) if rows == _EACH else tuple(rows)  # type: ignore[arg-type]


class Gathering:
    """Facts that grow by one instance after the other, so that they are there when the last one came."""

    def __init__(self, instances: Iterable[Mapping[str, Cell]] = ()) -> None:
        self.size = 0
        self._columns: dict[str, tuple[dict[Cell, int], list[int]]] = {}
        for attributes in instances:
            self.add(attributes)

    def add(self, attributes: Mapping[str, Cell]) -> None:
        """One more instance: a mapping from attribute name to cell."""
        size, columns = self.size, self._columns
        for name, cell in attributes.items():
            column = columns.get(name)
            if column is None:
                column = columns[name] = {}, []
            known, rows = column
            if len(rows) != size:
                rows.extend([ABSENT] * (size - len(rows)))
            rows.append(known.setdefault(cell, len(known)))
        self.size = size + 1

    def facts(self) -> Facts:
        """Facts over all of them now."""
        for _, rows in self._columns.values():
            rows.extend([ABSENT] * (self.size - len(rows)))
        columns = {name: Column(tuple(known), tuple(rows)) for name, (known, rows) in self._columns.items()}
        return Facts(self.size, columns)


def gather(instances: Iterable[Mapping[str, Cell]]) -> Facts:
    """Facts over *instances*, each a mapping from attribute name to cell."""
    return Gathering(instances).facts()


@dataclass(frozen=True)
class Stack:
    """Parallel slices: their common orientation and the distinct places along its normal."""

    orientation: tuple[float, ...]
    """Row and column direction cosines (Image Orientation (Patient), PS3.3 C.7.6.2.1.1)."""
    offsets: tuple[float, ...]
    """Sorted distinct distances along the slice normal, mm."""
    shear: float
    """Largest sideways step between neighbours, mm: not 0 where the gantry was tilted."""


def _numbers(value: Value, length: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple([float(v) for v in value])
    except ValueError:
        return None
    if len(numbers) != length:
        return None
    sane = all(abs(n) < _FARTHEST for n in numbers)  # NaN and infinity are not
    return numbers if sane else None


def stacks(facts: Facts) -> tuple[Stack, ...]:
    """The parallel stacks in a series, largest first; instances without plane geometry are left out."""
    orientations, positions = (facts.columns.get(name) for name in _PLANE)
    if orientations is None or positions is None:
        return ()
    key = ("stacks", id(positions))  # which stands in what is remembered: nothing else gets its number
    return orientations.remember(key, lambda: (positions, _stacks(orientations, positions)))[1]


_PLANE = ("ImageOrientationPatient", "ImagePositionPatient")


def _stacks(orientations: Column, positions: Column) -> tuple[Stack, ...]:
    groups: list[tuple[tuple[float, ...], set[tuple[float, ...]]]] = []
    group_of: dict[Value, int] = {}
    for oriented, placed in zip(orientations.rows, positions.rows, strict=True):
        if ABSENT in (oriented, placed) or len(orientations.cells[oriented]) != 1:
            continue
        (stated,) = orientations.cells[oriented]
        if stated not in group_of:
            group_of[stated] = _group(groups, _numbers(stated, 6))
        if group_of[stated] != ABSENT:
            found = (_numbers(p, 3) for p in positions.cells[placed])
            groups[group_of[stated]][1].update(p for p in found if p is not None)
    made = (_stack(orientation, points) for orientation, points in groups)
    return tuple(sorted(made, key=lambda s: -len(s.offsets)))


def _group(
    groups: list[tuple[tuple[float, ...], set[tuple[float, ...]]]], orientation: tuple[float, ...] | None
) -> int:
    """The index of the group with this orientation, a new one where none is within _PARALLEL; ABSENT without one."""
    if orientation is None:
        return ABSENT
    for index, (known, _) in enumerate(groups[:_MOST_STACKS]):
        if all(abs(a - b) <= _PARALLEL for a, b in zip(known, orientation, strict=True)):
            return index
    groups.append((orientation, set()))
    return len(groups) - 1


def _stack(orientation: tuple[float, ...], points: set[tuple[float, ...]]) -> Stack:
    (rx, ry, rz, cx, cy, cz) = orientation
    nx, ny, nz = ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx
    along = sorted([(x * nx + y * ny + z * nz, (x, y, z)) for x, y, z in points])
    offsets: list[float] = []
    shear, last = 0.0, None
    for offset, point in along:
        if last is not None:
            if offset - offsets[-1] < 1e-2:
                continue
            dx, dy, dz = point[0] - last[0], point[1] - last[1], point[2] - last[2]
            dot = dx * nx + dy * ny + dz * nz
            aside = (dx - dot * nx) ** 2 + (dy - dot * ny) ** 2 + (dz - dot * nz) ** 2
            shear = max(shear, aside)
        offsets.append(offset)
        last = point
    return Stack(orientation, tuple(offsets), shear**0.5)
