"""How counts are put into words. Imports nothing of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence

_PLURALS = {"delivery": "deliveries", "series": "series", "study": "studies"}


def counted(count: int, thing: str) -> str:
    """`1 object`, `2 objects`, `0 deliveries`; *thing* is the singular."""
    return f"{count} {thing if count == 1 else _PLURALS.get(thing, f'{thing}s')}"


_FEW = 3


def is_few(said: Sequence[object]) -> bool:
    """Whether all of them are said: a lone fourth is, rather than counted."""
    return len(said) <= _FEW + 1


def first_few(said: Sequence[str], thing: str) -> str:
    """All of them, or the first three and how many more there are."""
    if is_few(said):
        return "; ".join(said)
    return f"{'; '.join(said[:_FEW])}; and {len(said) - _FEW} more {thing}"


_DS, _WRITTEN_OUT = 16, 1e15
"""Characters that a Decimal String may have (PS3.5 6.2), and whole numbers that fit."""


def legible(value: float) -> str:
    """Six significant digits, and all before the point, as a Decimal String (PS3.5 6.2): `6182640`, `0.0123456`."""
    if value == 0:
        return "0"
    rounded = round(value, max(0, 5 - math.floor(math.log10(abs(value)))))
    if rounded.is_integer() and abs(rounded) < _WRITTEN_OUT:
        return str(int(rounded))
    return str(rounded) if len(str(rounded)) <= _DS else f"{rounded:.9g}"


def unit_words(unit: str) -> str:
    """A UCUM unit as people write it: `HU` for `[hnsf'U]`."""
    return unit.replace("[hnsf'U]", "HU")
