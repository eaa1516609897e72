"""What all instances and frames of a series say: the value that `assemble` builds and `route` judges.

A column per attribute keeps each distinct cell once and one small index per instance, so that a
2 000-slice series costs little and `use` can narrow the instances without reading a file again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from node.model import Cell, Value

ABSENT = -1
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


@dataclass(frozen=True, slots=True)
class Column:
    """`cells[rows[i]]` is what instance *i* holds; `rows[i] == ABSENT` where it lacks the attribute."""

    cells: tuple[Cell, ...]
    rows: tuple[int, ...]


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
        counts: dict[Value | None, int] = {}
        for row in column.rows:
            for value in column.cells[row] if row != ABSENT else (None,):
                counts[value] = counts.get(value, 0) + 1
        absent = counts.pop(None, 0)
        seen = [Seen(value, count) for value, count in counts.items()]
        return (*seen, Seen(None, absent)) if absent else tuple(seen)

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
        columns = {
            name: Column(column.cells, tuple(column.rows[i] for i in instances))
            for name, column in self.columns.items()
        }
        return Facts(len(instances), columns)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and texts; `from_json` gives back an equal value."""
        return {"size": self.size, "columns": {name: [c.cells, c.rows] for name, c in self.columns.items()}}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Facts:
        """The inverse of `to_json`."""
        columns = {
            name: Column(tuple(tuple(tuple(v) for v in cell) for cell in cells), tuple(rows))
            for name, (cells, rows) in data["columns"].items()
        }
        return Facts(data["size"], columns)


def gather(instances: Iterable[Mapping[str, Cell]]) -> Facts:
    """Facts over *instances*, each a mapping from attribute name to cell."""
    cells: dict[str, dict[Cell, int]] = {}
    rows: dict[str, list[int]] = {}
    size = 0
    for attributes in instances:
        for name, cell in attributes.items():
            known = cells.setdefault(name, {})
            column = rows.setdefault(name, [])
            column.extend([ABSENT] * (size - len(column)))
            column.append(known.setdefault(cell, len(known)))
        size += 1
    columns = {
        name: Column(tuple(cells[name]), tuple(column + [ABSENT] * (size - len(column))))
        for name, column in rows.items()
    }
    return Facts(size, columns)


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
        numbers = tuple(float(v) for v in value)
    except ValueError:
        return None
    sane = all(abs(n) < _FARTHEST for n in numbers)  # NaN and infinity are not
    return numbers if len(numbers) == length and sane else None


def stacks(facts: Facts) -> tuple[Stack, ...]:
    """The parallel stacks in a series, largest first; instances without plane geometry are left out."""
    groups: list[tuple[tuple[float, ...], set[tuple[float, ...]]]] = []
    group_of: dict[Value, int] = {}
    for i in range(facts.size):
        orientations = facts.cell("ImageOrientationPatient", i)
        positions = facts.cell("ImagePositionPatient", i)
        if not orientations or not positions or len(orientations) != 1:
            continue
        stated = orientations[0]
        if stated not in group_of:
            group_of[stated] = _group(groups, _numbers(stated, 6))
        if group_of[stated] != ABSENT:
            found = (_numbers(p, 3) for p in positions)
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
    normal = (ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx)
    along = sorted((sum(p * n for p, n in zip(point, normal, strict=True)), point) for point in points)
    offsets: list[float] = []
    shear, last = 0.0, None
    for offset, point in along:
        if last is not None and offset - offsets[-1] < 1e-2:
            continue
        if last is not None:
            step = [b - a for a, b in zip(last, point, strict=True)]
            dot = sum(s * n for s, n in zip(step, normal, strict=True))
            shear = max(shear, sum((s - dot * n) ** 2 for s, n in zip(step, normal, strict=True)) ** 0.5)
        offsets.append(offset)
        last = point
    return Stack(orientation, tuple(offsets), shear)
