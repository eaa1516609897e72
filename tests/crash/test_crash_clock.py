"""Days pass for a real node: its wall clock jumps, its monotonic one does not (Debian's libfaketime)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import peers
import pytest
from crash.crash_house import ROUTE_ALL, House, Scanner, ball, house
from crash.rogues import Manners, Peer

_LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"
RULE = ROUTE_ALL.replace("to: PACS", "to: [PACS, ARCHIVE]")


@dataclass
class Wall:
    """The wall clock of a node's processes."""

    file: Path
    ahead: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        self.jump()

    @property
    def now(self) -> datetime:
        """What the node takes for now."""
        return datetime.now(UTC) + self.ahead

    @property
    def environ(self) -> dict[str, str]:
        """Environment of its processes."""
        library = next(Path("/").glob(_LIBRARIES.removeprefix("/")), None)
        if library is None:
            peers.missing("libfaketime is not installed")
        ours = str(Path(__file__).parent / "faked")
        return {
            "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
            "PYTHONPATH": os.pathsep.join((ours, *filter(None, [os.environ.get("PYTHONPATH")]))),
        }  # fmt: skip

    def jump(self, **span: float) -> None:
        """Let time pass in no time."""
        self.ahead += timedelta(**span)
        part = self.file.with_suffix(".part")
        part.write_text(f"+{self.ahead.total_seconds():.0f}")
        part.rename(self.file)


@contextmanager
def two(folder: Path, manners: Manners) -> Iterator[tuple[House, Wall, Peer, Peer]]:
    """A running node with a wall clock to set, a destination with these manners, and a healthy one."""
    wall = Wall(folder / "clock")
    pacs, archive = Peer(peers.free_port(), manners=manners), Peer(peers.free_port())
    other = f"  ARCHIVE: {{ae_title: ARCHIVE, address: 127.0.0.1:{archive.port}}}"
    made = house(
        folder / "site", {"all": RULE}, pacs_port=pacs.port, destinations=other, environ=wall.environ
    )
    with made as site, pacs.open(), archive.open():
        site.start()
        yield site, wall, pacs, archive


def states(site: House, to: str) -> list[str]:
    """The states of a destination's deliveries."""
    return [row["state"] for row in site.table("delivery", destination=to)]


def failed(site: House, to: str) -> list[int]:
    """How often each of a destination's deliveries has failed."""
    return [row["failures"] for row in site.table("delivery", destination=to)]


def next_at(site: House) -> datetime:
    """When the one destination that has trouble is asked next."""
    (known,) = site.overview()["destinations"]
    return known["next_at"] or datetime.min.replace(tzinfo=UTC)


def test_a_pacs_that_is_down_for_three_days(tmp_path: Path) -> None:
    """Nothing is parked, it is asked seldom, the other destination has everything, and all arrives in order at last."""
    with two(tmp_path, Manners(hangs_up=lambda _: True)) as (site, wall, pacs, archive):
        scanner = Scanner(site.port)
        scanner.send(ball(tmp_path, "monday"))
        site.wait_for(lambda: len(archive.held) == 8, "the other destination")
        site.wait_for(lambda: bool(site.overview()["destinations"]), "the failed connection")
        began, first = time.monotonic(), len(pacs.connections)
        for _ in range(6):
            wall.jump(hours=12)
            site.wait_for(lambda: next_at(site) > wall.now, "the next question, and its answer")
        (known,) = site.overview()["destinations"]
        assert known["name"] == "PACS" and known["down"] and known["kind"] == "unreachable"
        assert known["next_at"] > datetime.now(UTC) + timedelta(days=2.9), "the clock did not jump"
        assert wall.now - known["since"] > timedelta(days=3) - timedelta(minutes=2)
        asked = len(pacs.connections) - first
        assert asked <= 6 + 4 + (time.monotonic() - began) / 10, f"asked {asked} times"
        scanner.send(ball(tmp_path, "thursday"))
        site.wait_for(lambda: len(archive.held) == 16, "the other destination, on the fourth day")
        assert set(states(site, "PACS")) == {"waiting"} and "parked" not in states(site, "ARCHIVE")

        pacs.behave()
        wall.jump(minutes=2)
        site.wait_for(lambda: len(pacs.held) == 16, "the three days' objects")
        site.wait_idle()
        assert pacs.held == {uid: {digest} for uid, digest in scanner.acknowledged.items()}
        sent = list(scanner.acknowledged)
        ahead = {sent[0], sent[8]}  # of each series one, to see whether it is taken
        assert [uid for uid in pacs.order if uid not in ahead] == [uid for uid in sent if uid not in ahead]
        names = [row["name"] for row in site.table("event", destination="PACS")]
        assert names.count("destination_down") == 1 and names[-1] == "destination_up"
        assert "delivery_parked" not in names
        site.stop()


@pytest.mark.long
def test_a_status_that_stays_for_a_day_parks_and_a_person_releases(tmp_path: Path) -> None:
    """Nothing is parked before a day of failing; then all, in one group, and `retry` sends that group again."""
    with two(tmp_path, Manners(answer=lambda *_: 0xC000)) as (site, wall, pacs, archive):
        scanner = Scanner(site.port)
        scanner.send(ball(tmp_path, slices=4))
        site.wait_for(lambda: pacs.asked.total() == 4, "four refusals")
        for failures in range(1, 12):
            site.wait_for(lambda n=failures: failed(site, "PACS") == [n] * 4, "the outcomes of four refusals")
            assert states(site, "PACS") == ["waiting"] * 4
            wall.jump(hours=2)
        site.wait_for(lambda: failed(site, "PACS") == [12] * 4, "the outcomes after 22 hours")
        assert states(site, "PACS") == ["waiting"] * 4
        wall.jump(hours=3)
        site.wait_for(lambda: states(site, "PACS") == ["parked"] * 4, "giving up")
        parked = site.table("delivery", destination="PACS")
        assert all("C000" in row["reason"] and "given up after" in row["reason"] for row in parked), parked
        assert states(site, "ARCHIVE") == ["stored"] * 4 and not site.table("event", destination="ARCHIVE")
        assert set(archive.asked.values()) == {1}

        pacs.behave()
        done = site.verb("retry", "--to", "PACS", "--status", "C000", **wall.environ)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "4" in done.stdout, done.stdout
        site.wait_idle()
        assert states(site, "PACS") == ["stored"] * 4
        assert pacs.held == {uid: {digest} for uid, digest in scanner.acknowledged.items()}
        site.stop()


@pytest.mark.long
@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_under_a_running_node(tmp_path: Path, hours: int) -> None:
    """An hour forward or back, as at a wrong time zone: what comes next is sealed and delivered as ever."""
    with two(tmp_path, Manners()) as (site, wall, pacs, archive):
        scanner = Scanner(site.port)
        scanner.send(ball(tmp_path, "before"))
        wall.jump(hours=hours)
        scanner.send(ball(tmp_path, "after"))
        site.wait_for(lambda: len(pacs.held) == len(archive.held) == 16, "both series")
        site.wait_idle()
        assert pacs.held == archive.held == {uid: {d} for uid, d in scanner.acknowledged.items()}
        assert all(row["state"] != "receiving" for row in site.table("series"))
        site.stop()
