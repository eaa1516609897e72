"""Both databases of the store's tests: SQLite in the test's own folder, and a real PostgreSQL."""

from __future__ import annotations

import pytest

STATES = ("sqlite", "postgresql")


def opened(request: pytest.FixtureRequest) -> str:
    """The `state` of the site file that the fixture's parameter stands for."""
    return "sqlite" if request.param == "sqlite" else str(request.getfixturevalue("postgres"))
