"""How counts are put into words. Imports nothing of ours."""

from __future__ import annotations

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
