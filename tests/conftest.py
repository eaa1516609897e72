"""Fixtures that all rooms' tests share; the processes behind them are in peers.py."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import peers
import pytest

_MEMORY = Path("/dev/shm")
_ENOUGH = 6 << 30  # all that the tests write is 5.4 GB, and the folders of those that pass go at once


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' folders in memory where there is room, unless pytest or the caller was told another place.

    Tests commit thousands of transactions, and each would wait for the disk. What a killed process wrote is there
    afterwards either way; what only a disk can show is tested on one: how objects are kept (test_store_files), and
    all that is long.
    """
    told = config.option.basetemp or {"PYTEST_DEBUG_TEMPROOT", "TMPDIR"} & os.environ.keys()
    if not told and "not long" in config.option.markexpr and _room_in_memory():
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(_MEMORY)


def _room_in_memory() -> bool:
    try:
        room = os.statvfs(_MEMORY)
        free = re.search(r"MemAvailable: *([0-9]+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return False
    least = min(room.f_bavail * room.f_frsize, int(free[1]) * 1024 if free else 0)
    return not room.f_flag & os.ST_NOEXEC and os.access(_MEMORY, os.W_OK) and least >= _ENOUGH


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shuffle files, and the tests in each, where PACSNODE_ORDER gives a seed: a test that leans on another falls."""
    seed = os.environ.get("PACSNODE_ORDER")
    if seed:
        chance = random.Random(seed)
        files = [list(tests) for _, tests in itertools.groupby(items, key=lambda item: item.path)]
        chance.shuffle(files)
        for tests in files:
            chance.shuffle(tests)
        items[:] = itertools.chain.from_iterable(files)


@pytest.fixture
def table(record_property: Callable[[str, object], None]) -> Callable[[str, list[str]], None]:
    """Have lines stand under a title at the end of the test output, whichever process ran the test."""

    def show(title: str, lines: list[str]) -> None:
        record_property(f"table: {title}", "\n".join(lines))

    return show


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the tables that tests asked for."""
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for name, text in report.user_properties:
            if name.startswith("table: "):
                terminalreporter.section(name.removeprefix("table: "))
                terminalreporter.write_line(str(text))


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
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a node that nobody kills makes of the ball and of a short storm's series, by their folders' names.

    Worked out once, however many processes share the tests.
    """
    from crash.crash_house import ball, made_undisturbed, storm_series

    common = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent
    answer = common / "undisturbed.json"
    with (common / "undisturbed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not answer.exists():
            folder = tmp_path_factory.mktemp("undisturbed")
            made = made_undisturbed(folder, [ball(folder), *storm_series(folder, 3)])
            answer.write_text(json.dumps(made))
    found: dict[str, list[str]] = json.loads(answer.read_text())
    return found


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
