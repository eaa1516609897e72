"""SIGKILL of random roles at random moments under load: the kill storm."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
ROLES = {"receiver": 3, "reader": 2, "conductor": 3, "sender": 3, "worker": 2, "supervisor": 1, "all": 1}
"""Role → how often it is killed, beside the others."""


def storm(site: House, kills: int, seed: int, done: list[str]) -> None:
    """Kill one role after another at random moments; the supervisor is started again by hand, as systemd would."""
    chance, began = random.Random(seed), time.monotonic()
    while len(done) < kills:
        time.sleep(chance.uniform(0.05, 1.2))
        (role,) = chance.choices(list(ROLES), list(ROLES.values()))
        if role == "all":
            site.kill_all()
        elif not kill(site, role):
            continue
        done.append(role)
        if role in ("supervisor", "all"):
            start_again(site)
        if len(done) % 50 == 0:
            print(
                f"{len(done)} of {kills} kills in {time.monotonic() - began:.0f} s",
                file=sys.__stderr__,
                flush=True,
            )


def kill(site: House, role: str, patience: float = 3.0) -> bool:
    """Kill a process of *role*, which may first have to come to life; False when it does not soon."""
    until = time.monotonic() + patience
    while not site.kill(role):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def start_again(site: House) -> None:
    """Start the node; what is left of the one before may hold port and data for some seconds."""
    if site.process is not None:
        site.process.wait()
    site.start()


@dataclass(frozen=True)
class Survived:
    """What came of a storm."""

    done: list[str]
    """The roles that were killed, in order."""
    derived: set[str]
    """SOP Instance UIDs of the results at the PACS."""
    objects: int
    again: int
    """Objects that reached the PACS more than once, each time more counted."""
    seconds: float

    def lines(self) -> list[str]:
        """The summary."""
        roles = ", ".join(f"{role} {count}" for role, count in sorted(Counter(self.done).items()))
        return [
            f"{len(self.done)} kills in {self.seconds:.0f} s: {roles}",
            f"{self.objects} objects received and at the PACS, {len(self.derived)} results, {self.again} sent again",
        ]


def run_storm(tmp_path: Path, sent: list[list[Path]], kills: int) -> Survived:
    """Send these series while *kills* processes are killed, spread over the storm's length; what came of it.

    Everything must be as if nobody had been.
    """
    seed, began = int(os.environ.get("PACSNODE_SEED", "1")), time.monotonic()
    with house(tmp_path / "site", RULES) as site, Pacs(site.pacs_port).open() as pacs:
        site.start()
        scanner = Scanner(site.port)
        done: list[str] = []

        def send() -> None:
            for number, files in enumerate(sent):
                while len(done) < number * kills // len(sent):
                    time.sleep(0.1)
                scanner.send(files, 60 + 3 * kills, pause=0.02)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        storm(site, kills, seed, done)
        sender.join(60 + 3 * kills)
        assert not sender.is_alive(), f"not everything could be sent: {site.tail()}"
        assert len(scanner.acknowledged) == sum(map(len, sent)), "the sender's thread failed"
        site.wait_idle(90 + 5 * len(sent))
        assert_delivered(scanner, pacs)
        states = [(row["state"], row["reason"]) for row in site.table("run") if row["state"] != "done"]
        other = [state for state, _ in states if state not in ("cancelled", "superseded")]
        assert not other, f"{states} after {done}"
        assert {row["state"] for row in site.table("delivery")} == {"stored"}
        times = Counter(uid for uid, _ in pacs.got)
        assert max(times.values()) <= 2 + len(done), f"one object was sent {max(times.values())} times"
        site.stop()
        again = sum(times.values()) - len(times)
        seconds = time.monotonic() - began
        return Survived(done, derived(scanner, pacs), len(scanner.acknowledged), again, seconds)


def assert_made(expected: Iterable[str], survived: Survived) -> None:
    """All that an undisturbed node derives from the same series is there."""
    missing = set(expected) - survived.derived
    assert not missing, f"{len(missing)} derived objects are missing after {survived.done}"


def test_a_short_storm(tmp_path: Path, undisturbed: dict[str, list[str]]) -> None:
    """Seven kills at random moments while three series come in: nothing is lost and nothing is missing."""
    sent = storm_series(tmp_path, 3)
    survived = run_storm(tmp_path, sent, kills=7)
    assert_made([uid for files in sent for uid in undisturbed[files[0].parent.name]], survived)


def survive(tmp_path: Path, kills: int, table: Callable[[str, list[str]], None]) -> None:
    """A storm with a series for every fifth kill, and the summary in the test's output."""
    sent = storm_series(tmp_path, max(3, kills // 5))
    survived = run_storm(tmp_path, sent, kills)
    table(f"a storm of {kills} kills", survived.lines())
    expected = made_undisturbed(tmp_path / "undisturbed", sent)
    assert_made([uid for uids in expected.values() for uid in uids], survived)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_fifty_kills(tmp_path: Path, table: Callable[[str, list[str]], None]) -> None:
    """Fifty kills of any role at random moments while it receives, processes and sends."""
    survive(tmp_path, 50, table)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_long_storm(tmp_path: Path, table: Callable[[str, list[str]], None]) -> None:
    """The same with a thousand kills (PACSNODE_KILLS) and a series for every fifth."""
    survive(tmp_path, int(os.environ.get("PACSNODE_KILLS", "1000")), table)
