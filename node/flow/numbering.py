"""Series Numbers for all that a run may make (design §8). Pure."""

from __future__ import annotations

from collections.abc import Collection

from node import model
from node.facts import ABSENT, Facts

MOST_PARTS = 99
"""Parts of one series that get a number; a series that is split into more is refused."""


def number_series(
    plan: model.Plan, source: int | None, taken: Collection[int], facts: Facts
) -> dict[str, int]:
    """`series_key` → Series Number for all that a run may make: each output of each part, and its picture."""
    most = 1
    for name in plan.split if plan.each_part == "run" else ():
        most *= _distinct(facts, "ImageOrientationPatient" if name == "orientation" else name)
    used, numbers = set(taken), {}
    forms = [
        (output, form) for form in ("", "picture") for output in plan.outputs if not form or output.picture
    ]
    keys = [
        (output.index, model.series_key(output.name, part, form))
        for part in range(1, min(most, MOST_PARTS) + 1)
        for output, form in forms
    ]
    for index, key in keys:
        number = first_number(source) + index
        while number in used:
            number += 1
        used.add(number)
        numbers[key] = number
    return numbers


def _distinct(facts: Facts, name: str) -> int:
    """At most how many parts *name* divides a series into; absent is one, too."""
    column = facts.columns.get(name)
    if column is None:
        return 1
    return len({value for cell in column.cells for value in cell}) + (ABSENT in column.rows)


def first_number(source: int | None) -> int:
    """What output indices are added to; a Series Number is an IS, at most 2³¹ − 1 (PS3.5 6.2)."""
    return source * 100 if source is not None and 0 < source < 2**31 // 100 - 100 else 9000
