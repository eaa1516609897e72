"""Counts in words."""

from __future__ import annotations

import pytest

from node.words import counted


@pytest.mark.parametrize(
    ("count", "thing", "said"),
    [
        (1, "object", "1 object"), (0, "object", "0 objects"), (2, "run", "2 runs"),
        (1, "delivery", "1 delivery"), (3, "delivery", "3 deliveries"), (2, "series", "2 series"),
    ],
)  # fmt: skip
def test_one_is_one(count: int, thing: str, said: str) -> None:
    """One of a thing is singular, none and several are plural, whatever its plural looks like."""
    assert counted(count, thing) == said
