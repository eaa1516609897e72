"""What all tests of the whole node share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cli.cli_material import installed

from node import app


@pytest.fixture(scope="module", autouse=True)
def operators_asked_once() -> Iterator[None]:
    """Have what a worker says of the installed operators asked once for the runs of rules in this process.

    Nodes and verbs of the command line, which are processes of their own, ask for themselves.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "operators", installed)
        yield
