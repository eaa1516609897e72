"""SIGKILL of random roles at random moments under load: the kill storm."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from crash.crash_house import (
    MEASURE_CT,
    ROUTE_ALL,
    House,
    Pacs,
    Scanner,
    assert_delivered,
    derived,
    house,
    made_undisturbed,
    storm_series,
)

PATIENT = MEASURE_CT.replace(
    "retry: 3", "retry: 20"
)  # it is the test that kills the workers, not their operator
RULES = {"all": ROUTE_ALL, "measure": PATIENT}
ROLES = ("receiver", "reader", "conductor", "sender", "worker", "supervisor", "all")


def storm(site: House, kills: int, seed: int) -> list[str]:
    """Kill one role after another at random moments; the supervisor is started again by hand, as systemd would."""
    chance = random.Random(seed)
    done: list[str] = []
    while len(done) < kills:
        time.sleep(chance.uniform(0.05, 1.2))
        role = chance.choice(ROLES)
        if role == "all":
            site.kill_all()
        elif not site.kill(role):
            continue
        done.append(role)
        if role in ("supervisor", "all"):
            start_again(site)
    return done


def start_again(site: House) -> None:
    """Start the node; what is left of the one before may hold port and data for some seconds."""
    if site.process is not None:
        site.process.wait()
    site.start()


def run_storm(tmp_path: Path, sent: list[list[Path]], kills: int) -> tuple[set[str], list[str]]:
    """Send these series while *kills* processes are killed; what was derived, and who was killed.

    Everything must be as if nobody had been.
    """
    seed = int(os.environ.get("PACSNODE_SEED", "1"))
    with house(tmp_path / "site", RULES) as site, Pacs(site.pacs_port).open() as pacs:
        site.start()
        scanner = Scanner(site.port)
        sender = threading.Thread(
            target=lambda: [scanner.send(files, 60 + 3 * kills, pause=0.02) for files in sent], daemon=True
        )
        sender.start()
        done = storm(site, kills, seed)
        sender.join(60 + 3 * kills)
        assert not sender.is_alive(), f"not everything could be sent: {site.tail()}"
        assert len(scanner.acknowledged) == sum(map(len, sent)), "the sender's thread failed"
        site.wait_idle(90 + 5 * len(sent))
        assert_delivered(scanner, pacs)
        states = [(row["state"], row["reason"]) for row in site.table("run") if row["state"] != "done"]
        other = [state for state, _ in states if state not in ("cancelled", "superseded")]
        assert not other, f"{states} after {done}"
        assert {row["state"] for row in site.table("delivery")} == {"stored"}
        most = max(pacs.times(uid) for uid in pacs.held)
        assert most <= 2 + len(done), f"one object was sent {most} times"
        site.stop()
        return derived(scanner, pacs), done


def assert_made(expected: Iterable[str], found: set[str], done: list[str]) -> None:
    """All that an undisturbed node derives from the same series is there."""
    missing = set(expected) - found
    assert not missing, f"{len(missing)} derived objects are missing after {done}"


def test_a_short_storm(tmp_path: Path, undisturbed: dict[str, list[str]]) -> None:
    """Seven kills at random moments while three series come in: nothing is lost and nothing is missing."""
    sent = storm_series(tmp_path, 3)
    found, done = run_storm(tmp_path, sent, kills=7)
    assert_made([uid for files in sent for uid in undisturbed[files[0].parent.name]], found, done)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_long_storm(tmp_path: Path) -> None:
    """The same with hundreds of kills (PACSNODE_KILLS, default 200) and dozens of series."""
    kills = int(os.environ.get("PACSNODE_KILLS", "200"))
    sent = storm_series(tmp_path, max(3, kills // 5))
    found, done = run_storm(tmp_path, sent, kills)
    expected = made_undisturbed(tmp_path / "undisturbed", sent)
    assert_made([uid for uids in expected.values() for uid in uids], found, done)
