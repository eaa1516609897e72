"""Values that a scanner means as one and writes as it reached them: 20 and 20.004 ms, b 800.3 and 799.8 s/mm²."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom import Dataset

from node.read.split import Value
from node.read.vendor import frame_facts

TOLERANCES = {
    "b_value": (1.0, 0.002),
    "EchoTime": (0.05, 0.0),
    "InversionTime": (1.0, 0.0),
    "RepetitionTime": (1.0, 0.01),
    "FlipAngle": (0.05, 0.0),
    "gradient": (1e-3, 0.0),
}
"""How far values of one volume may lie above the least of them: s/mm², ms, degrees, or of a unit vector per
component; and the same as a share of the least. The larger counts."""


def gathered(name: str, column: Sequence[Value]) -> list[Value]:
    """*column* with values that lie within the tolerance of *name* from the least of them as one, their mean.

    What is no number, or not stated, stays as it is.
    """
    if name not in TOLERANCES:
        return list(column)
    numbers = {value: found for value in set(column) if (found := _numbers(value)) is not None}
    groups: list[list[Value]] = []
    for value in sorted(numbers, key=lambda value: (len(value), numbers[value])):
        fitting = (group for group in groups if _near(name, numbers[value], numbers[group[0]]))
        group = next(fitting, None)
        if group is None:
            groups.append([value])
        else:
            group.append(value)
    means = {
        value: _mean([numbers[v] for v in group]) for group in groups for value in group if len(group) > 1
    }
    return [means.get(value, value) for value in column]


def stated(headers: Sequence[Dataset], name: str) -> float | None:
    """The mean of what *headers* say of *name*, a keyword or `b_value`; None where one is silent or they differ."""
    told = [frame_facts(h).get(name) if name == "b_value" else h.get(name) for h in headers]
    found = [_numbers((str(value),)) for value in told]
    if any(value is None for value in found):
        return None
    values = [value[0] for value in found if value is not None]
    return float(np.mean(values)) if _near(name, (max(values),), (min(values),)) else None


def same_gradient(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    """Whether two directions, or the absence of one, are meant as one."""
    if one is None or other is None:
        return one is other
    return _near("gradient", tuple(one), tuple(other))


def _near(name: str, one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    absolute, share = TOLERANCES[name]
    if len(one) != len(other):
        return False
    return all(abs(a - b) <= max(absolute, share * abs(b)) for a, b in zip(one, other, strict=True))


def _numbers(value: Value) -> tuple[float, ...] | None:
    try:
        found = tuple(float(v) for v in value)
    except ValueError:
        return None
    return found if found and all(np.isfinite(found)) else None


def _mean(values: Sequence[tuple[float, ...]]) -> Any:
    return tuple(format(float(v), ".6g") for v in np.mean(values, axis=0))
