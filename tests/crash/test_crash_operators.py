"""Operators that refuse, crash, hang and eat memory: it stays with their run."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
    "hang": ("quarantined", "did not end within 12 s"),
    "eat": ("quarantined", "memory"),
    "fail": ("quarantined", "seven is no colour"),
    "invert": ("done", ""),
}
LIMITS = "limits: {run_time: 12 s, run_memory: 1200 MB, workers: 2}"


def rule(name: str) -> str:
    """A rule whose one step is the operator `acme.<name>`."""
    return f"""
rule: {name}
purpose: Tries an operator that may misbehave.
owner: tests@hospital.example
when: {{Modality: CT, slices: {{at_least: 4}}}}
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


def run_of(site: House, name: str) -> Mapping[str, Any]:
    """The newest run of one rule."""
    return site.table("run", rule=name)[-1]


def test_bad_operators_stay_alone(tmp_path: Path) -> None:
    """Whatever an operator does, originals arrive, the run says why, its neighbours and the next series succeed."""
    rules = {"all": ROUTE_ALL, **{name: rule(name) for name in ENDS}}
    environ = installed(tmp_path / "plugins")
    with (
        house(tmp_path / "site", rules, extra=LIMITS, environ=environ) as site,
        Pacs(site.pacs_port).open() as pacs,
    ):
        site.start()
        scanner = Scanner(site.port)
        for name in ("one", "two"):
            scanner.send(ball(tmp_path, name, slices=5))
        site.wait_for(lambda: set(scanner.acknowledged) <= set(pacs.held), "the originals at the PACS", 20)
        site.wait_idle(90)
        assert_delivered(scanner, pacs)
        for name, (state, words) in ENDS.items():
            for row in site.table("run", rule=name):
                assert (row["state"], words in row["reason"]) == (state, True), f"{name}: {row['reason']}"
            assert len(site.table("run", rule=name)) == 2
            events = [
                e for e in site.table("event", run_id=run_of(site, name)["id"]) if e["name"] == f"run_{state}"
            ]
            assert len(events) == 1, f"{name} left no event of its end"
        assert len(derived(scanner, pacs)) == 10, "only what the good operator made"
        assert {row["state"] for row in site.table("delivery")} == {"stored"}
        site.stop()


@pytest.mark.parametrize("retries", [1])
def test_a_failure_is_tried_again_as_often_as_the_rule_says(retries: int, tmp_path: Path) -> None:
    """A crashing run is tried `retry` more times, then quarantined, with the number of attempts on record."""
    text = rule("crash").replace("retry: 0", f"retry: {retries}")
    environ = installed(tmp_path / "plugins")
    with (
        house(tmp_path / "site", {"crash": text}, environ=environ) as site,
        Pacs(site.pacs_port).open(),
    ):
        site.start()
        Scanner(site.port).send(ball(tmp_path, "one", slices=5))
        site.wait_idle(40)
        row = run_of(site, "crash")
        assert (row["state"], row["attempt"]) == ("quarantined", 1 + retries)
        assert (
            len([e for e in site.table("event", run_id=row["id"]) if e["name"] == "run_waiting"]) == retries
        )
        site.stop()
