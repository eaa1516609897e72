"""How counts are put into words. Imports nothing of ours."""

from __future__ import annotations

_PLURALS = {"delivery": "deliveries", "series": "series", "study": "studies"}


def counted(count: int, thing: str) -> str:
    """`1 object`, `2 objects`, `0 deliveries`; *thing* is the singular."""
    return f"{count} {thing if count == 1 else _PLURALS.get(thing, f'{thing}s')}"
