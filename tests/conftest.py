"""Fixtures that all rooms' tests share; the processes behind them are in peers.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import peers
import pytest


@pytest.fixture(scope="session")
def samples() -> Path:
    """Return the folder of real images; skip where it is absent."""
    return peers.need_samples()


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Callable[..., peers.Storescp]]:
    """Start DCMTK's storescp, as often as wanted, with extra options; each writes to a folder of its own."""
    numbers = itertools.count(1)
    with ExitStack() as stack:

        def start(*options: str, ae_title: str = "STORESCP") -> peers.Storescp:
            folder = tmp_path / f"storescp-{next(numbers)}"
            return stack.enter_context(peers.storescp(folder, *options, ae_title=ae_title))

        yield start


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[peers.Orthanc]:
    """Run an empty Orthanc for one test."""
    with peers.orthanc(tmp_path / "orthanc") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[peers.Postgres]:
    """Run one PostgreSQL for the whole session."""
    with peers.postgres_server() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: peers.Postgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of an empty PostgreSQL database of the test's own."""
    name = f"test_{abs(hash(request.node.nodeid)):x}"
    postgres_server.run(f"CREATE DATABASE {name}")
    yield postgres_server.url(name)
    postgres_server.run(f"DROP DATABASE {name} WITH (FORCE)")
