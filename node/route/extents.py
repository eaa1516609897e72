"""The verdict of one condition over a whole column, from its smallest and largest value where they tell.

A series has a time, a position and a tube current per image. Whether all of them are at least this much is known
from the smallest and the largest; only where some are and some are not is each one looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.facts import Column
from node.model import Value
from node.route.conditions import Condition, Outcome, Test, judge, told
from node.route.keywords import Attribute
from node.route.values import Comparable, Kind, order, stored

_FEW = 16
"""Distinct values that are asked one by one."""
_KINDS = frozenset({Kind.NUMBER, Kind.DATE, Kind.TIME, Kind.AGE})
_BOUNDS = frozenset({"at_least", "at_most", "between"})


@dataclass(frozen=True, slots=True)
class _Extent:
    """The smallest and the largest value; none where one of them is missing, several, or no such thing."""

    low: Comparable | None = None
    high: Comparable | None = None


def judge_column(
    condition: Condition, attribute: Attribute, column: Column, size: int
) -> tuple[Outcome, str]:
    """As `conditions.judge` over the column's values."""
    seen = column.seen()
    if len(seen) > _FEW and attribute.kind in _KINDS and _bounds_only(condition):
        extent = column.remember(("extent", attribute.kind), lambda: _extent(attribute.kind, column))
        outcome = _within(condition, extent)
        if outcome is not None:
            return outcome, column.remember(("told", attribute), lambda: told(attribute, seen, size))
    return judge(condition, attribute, seen, size)


def _bounds_only(condition: Condition) -> bool:
    return (
        bool(condition.tests)
        and not condition.groups
        and condition.some is None
        and all(
            test.op in _BOUNDS and order(test.operands[0][0], test.operands[-1][0]) != 1
            for test in condition.tests
        )
    )


def _extent(kind: Kind, column: Column) -> _Extent:
    values = [_one(kind, seen.value) for seen in column.seen()]
    known = [value for value in values if value is not None]
    if len(known) != len(values):
        return _Extent()
    return _Extent(min(known), max(known))


def _one(kind: Kind, value: Value | None) -> Comparable | None:
    return stored(kind, value[0]) if value is not None and len(value) == 1 else None


def _within(condition: Condition, extent: _Extent) -> Outcome | None:
    """Yes where all values hold, no where none does; None where that is not known from the extent."""
    if extent.low is None or extent.high is None:
        return None
    verdicts = [_verdict(test, extent.low, extent.high) for test in condition.tests]
    if Outcome.NO in verdicts:
        return Outcome.NO
    return Outcome.YES if all(verdict is Outcome.YES for verdict in verdicts) else None


def _verdict(test: Test, low: Comparable, high: Comparable) -> Outcome | None:
    start = test.operands[0][0] if test.op != "at_most" else None
    end = test.operands[-1][0] if test.op != "at_least" else None
    if (start is not None and order(high, start) == -1) or (end is not None and order(low, end) == 1):
        return Outcome.NO
    above = start is None or order(low, start) in (0, 1)
    below = end is None or order(high, end) in (-1, 0)
    return Outcome.YES if above and below else None
