"""SIGKILL of receivers while many associations are open over several of them: nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crash.crash_house import House, house
from peers import wait_for
from receive.soak_house import (
    Crowd,
    assert_exact,
    assert_quiet_log,
    assert_series,
    crowd,
    jobs_of,
    wait_indexed,
    wait_receiving,
)

RECEIVERS = 3
SENDERS = {"S1": "power", "S2": "power", "S3": "process", "S4": "process"}
"""Their durability: a killed process loses nothing with either."""


def storm(site: House, senders: Crowd, kills: int, chance: random.Random) -> None:
    """Kill any receiver at random moments, spread over the way of the senders."""
    for nth in range(1, kills + 1):
        due = nth * senders.planned // (kills + 1)
        wait_for(lambda due=due: senders.acknowledged >= due, f"{due} objects", 120)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.2))
        wait_for(lambda: bool(site.pids("receiver")), "a receiver")
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(site.pids("receiver")), signal.SIGKILL)


def survive(
    folder: Path, kills: int, series: int, each: int, table: Callable[[str, list[str]], None]
) -> None:
    """Four senders send so much while receivers are killed: everything is kept exactly once."""
    lines = "\n".join(f"  {name}: {{sends_as: [{name}], durability: {d}}}" for name, d in SENDERS.items())
    environ = {"PACSNODE__NODE__RECEIVERS": str(RECEIVERS)}
    chance = random.Random(int(os.environ.get("PACSNODE_SEED", "1")))
    with house(folder / "site", {}, destinations=lines, environ=environ, quiet_for="3 s") as site:
        site.start()
        wait_receiving(site, RECEIVERS)
        with crowd(jobs_of(folder, site.port, list(SENDERS), series, each, pause=0.003)) as senders:
            storm(site, senders, kills, chance)
            wait_for(lambda: not senders.working, "the senders", 60 + senders.planned / 50)
            senders.assert_well()
            seconds = time.monotonic() - senders.began
        wait_receiving(site, RECEIVERS)
        wait_indexed(site, senders.planned, 60 + senders.planned / 50)
        again = assert_exact(site, senders.acks(), senders.planned)
        assert_series(site, series, each)
        lost = senders.counted("lost")
        assert lost.total() > 0  # the claim is about associations that were cut
        assert again <= lost.total()
        site.stop()
        logged = assert_quiet_log(site, but_for=["role_died"])
        assert logged["role_died"] == kills
    table(
        f"{kills} receivers killed",
        [
            f"{senders.planned} objects acknowledged in {seconds:.0f} s, {again} of them sent twice",
            ", ".join(f"{what}: {count}" for what, count in lost.most_common()),
        ],
    )


@pytest.mark.long
def test_killed_receivers_lose_nothing_that_was_acknowledged(
    tmp_path: Path, table: Callable[[str, list[str]], None]
) -> None:
    """Six of three receivers killed while four senders send 2 000 objects: all are kept once, byte for byte."""
    survive(tmp_path, 6, 8, 250, table)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_eighteen_killed_receivers(tmp_path: Path, table: Callable[[str, list[str]], None]) -> None:
    """The same with eighteen kills in 6 000 objects: each time a receiver dies in a row, its successor waits longer."""
    survive(tmp_path, 18, 12, 500, table)
