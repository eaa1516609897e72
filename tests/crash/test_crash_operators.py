"""Operators that refuse, crash, hang and eat memory: it stays with their run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crash.crash_house import ROUTE_ALL, House, Pacs, Scanner, assert_delivered, ball, derived, house

OPERATORS = '''
import os, signal, time
import numpy as np
from node.operator import Refused, Volume

def refuse(volume: Volume) -> Volume:
    """Refuse."""
    raise Refused("there is no liver in this series")

def crash(volume: Volume) -> Volume:
    """Crash."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return volume

def hang(volume: Volume) -> Volume:
    """Hang."""
    time.sleep(600)
    return volume

def eat(volume: Volume) -> Volume:
    """Eat memory."""
    held = []
    while True:
        held.append(np.empty(64 << 20, np.uint8))

def fail(volume: Volume) -> Volume:
    """Fail."""
    raise ValueError("seven is no colour")

def invert(volume: Volume) -> Volume:
    """Do what is asked."""
    return Volume(-volume.array, volume.affine, volume.unit, volume.valid, volume.facts)
'''
ENDS = {  # what a step does → state of its run, and what the reason must say
    "refuse": ("refused", "no liver"),
    "crash": ("quarantined", "SIGSEGV"),
    "hang": ("quarantined", "did not end within 20 s"),
    "eat": ("quarantined", "memory"),
    "fail": ("quarantined", "seven is no colour"),
    "invert": ("done", ""),
}
LIMITS = "limits: {run_time: 20 s, run_memory: 1200 MB, workers: 2}"
SLICES = {"one": 5, "two": 6}
"""Series → its slices; the operator that hangs until it is killed is asked for the first one only."""
RETRIES = 1


def rule(name: str, of: str = "", slices: str = "at_least: 4") -> str:
    """A rule whose one step is the operator `acme.<name>`."""
    return f"""
rule: {of or name}
purpose: Tries an operator that may misbehave.
owner: tests@hospital.example
when: {{Modality: CT, slices: {{{slices}}}}}
do:
  - acme.{name}: {{}}
    as: made
send:
  - {{what: made, to: PACS}}
on_failure: {{retry: 0, then: quarantine}}
"""


def installed(folder: Path) -> dict[str, str]:
    """Make a distribution `acme` out of OPERATORS; the environment in which it counts as installed."""
    info = folder / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "acme_misbehaving.py").write_text(OPERATORS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    points = [f"acme.{name} = acme_misbehaving:{name}" for name in ENDS]
    (info / "entry_points.txt").write_text("\n".join(["[node.operators]", *points, ""]))
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


def runs_of(site: House, name: str) -> list[Mapping[str, Any]]:
    """All runs of one rule."""
    return site.table("run", rule=name)


@dataclass(frozen=True)
class Lived:
    """A node that met all these operators, when it was idle again."""

    site: House
    scanner: Scanner
    pacs: Pacs


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    """Send two series; each operator has a rule, and one that crashes has another, which is to be tried again."""
    folder = tmp_path_factory.mktemp("operators")
    rules = {"all": ROUTE_ALL, **{name: rule(name) for name in ENDS}}
    rules["hang"] = rule("hang", slices=f"at_most: {SLICES['one']}")
    again = rule("crash", of="again", slices=f"at_most: {SLICES['one']}")
    rules["again"] = again.replace("retry: 0", f"retry: {RETRIES}")
    environ = installed(folder / "plugins")
    with (
        house(folder / "site", rules, extra=LIMITS, environ=environ) as site,
        Pacs(site.pacs_port).open() as pacs,
    ):
        site.start()
        scanner = Scanner(site.port)
        for name, slices in SLICES.items():
            scanner.send(ball(folder, name, slices=slices))
        site.wait_for(lambda: set(scanner.acknowledged) <= set(pacs.held), "the originals at the PACS")
        site.wait_idle()
        site.stop()
        yield Lived(site, scanner, pacs)


def test_bad_operators_stay_alone(lived: Lived) -> None:
    """Whatever an operator does, originals arrive, and its neighbours and the next series succeed."""
    assert_delivered(lived.scanner, lived.pacs)
    good = runs_of(lived.site, "invert")
    assert [row["state"] for row in good] == ["done", "done"]
    made = derived(lived.scanner, lived.pacs)
    assert len(made) == sum(SLICES.values()), "only what the good operator made"
    assert {row["state"] for row in lived.site.table("delivery")} == {"stored"}


@pytest.mark.parametrize("name", ENDS)
def test_a_run_says_how_it_ended_and_why(name: str, lived: Lived) -> None:
    """Each run of an operator has its state, the reason in words, and one event of its end."""
    state, words = ENDS[name]
    runs = runs_of(lived.site, name)
    assert len(runs) == (1 if name == "hang" else 2)
    for row in runs:
        assert (row["state"], words in row["reason"]) == (state, True), row["reason"]
        events = [e for e in lived.site.table("event", run_id=row["id"]) if e["name"] == f"run_{state}"]
        assert len(events) == 1, "no event of its end"


def test_a_failure_is_tried_again_as_often_as_the_rule_says(lived: Lived) -> None:
    """A crashing run is tried `retry` more times, then quarantined, with the number of attempts on record."""
    (row,) = runs_of(lived.site, "again")
    assert (row["state"], row["attempt"]) == ("quarantined", 1 + RETRIES)
    events = [e for e in lived.site.table("event", run_id=row["id"]) if e["name"] == "run_waiting"]
    assert len(events) == RETRIES
