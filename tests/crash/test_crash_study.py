"""SIGKILL around rules over a study: the run opens once, its results are made once, whenever the node dies."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from crash.crash_house import House, Pacs, Scanner, assert_delivered, derived, house

from node.testing import Grid, Series, sphere_volume, write_ct_series

GRID = Grid((4, 16, 16), (5.0, 5.0, 5.0))
DIFFERENCE = """
rule: difference
purpose: Of two series of the study the one minus the other.
owner: tests@hospital.example
scope: study
when: {}
inputs:
  one: {when: {Modality: CT, SeriesNumber: 1}}
  other: {when: {Modality: CT, SeriesNumber: 2}}
  third: {when: {Modality: CT, SeriesNumber: 3}, optional: yes}
wait: {at_most: 20 s, then: run_without}
do:
  - subtract: {volume: one, other: other}
    as: rest
  - subtract: {volume: rest, other: third}
    as: more
send:
  - {what: rest, to: PACS}
  - {what: more, to: PACS}
"""
ALL = "rule: all\npurpose: p\nowner: o\nwhen: {}\nsend: [{what: received, to: PACS}]\n"
POINTS = {
    "route": ("after-seal", "after-route:2", "after-run-claim", "after-products"),
    "wait": ("before-study-commit", "after-study", "before-run-finish", "after-run-finish"),
}  # fmt: skip
"""Which rule → where the node dies, one point after another: its run opens with a series, or when a wait ends."""
RULES = {"wait": DIFFERENCE, "route": re.sub(r"  third: .*\n", "", DIFFERENCE).replace("run_without", "skip")}
RULES["route"] = re.sub(r"  - subtract: {volume: rest(.|\n)*?more\n|  - {what: more.*\n", "", RULES["route"])


def two(folder: Path) -> list[Path]:
    """Two CT series of one study."""
    return [
        path
        for number in (1, 2)
        for path in write_ct_series(
            folder / str(number), sphere_volume(GRID, radius=10.0 * number),
            series=Series(f"ct{number}", study="s", number=number),
        )
    ]  # fmt: skip


def wait_for_the_run(site: House) -> None:
    """Until the rule has waited for its third input, has run without it, and all is sent."""
    site.wait_for(lambda: [row["state"] for row in site.table("run")] == ["done"], "the run")
    site.wait_idle()


@pytest.mark.parametrize("name", ["route", pytest.param("wait", marks=pytest.mark.long)])
def test_the_whole_node_killed_around_a_study(tmp_path: Path, name: str) -> None:
    """At every point from the seal to the end of the run, all processes die: the next start goes on, with no twins."""
    files = two(tmp_path)
    rules = {"d": RULES[name], "all": ALL}
    with house(tmp_path / "site", rules) as site, Pacs(site.pacs_port).open() as pacs:
        scanner = Scanner(site.port)
        for number, point in enumerate(POINTS[name]):
            once = tmp_path / f"once-{number}"
            site.start(PACSNODE_FAULT=point, PACSNODE_FAULT_ONCE=str(once))
            if number == 0:
                scanner.send(files)
            until = time.monotonic() + 60
            while not once.exists() and time.monotonic() < until:
                time.sleep(0.005)
            assert once.exists(), f"{point} was not reached: {site.tail()}"
            site.kill_all()
        site.start()
        wait_for_the_run(site)
        assert_delivered(scanner, pacs)
        made = {row["sop_uid"]: {row["digest"]} for row in site.table("product")}
        assert derived(scanner, pacs) == set(made)
        assert len(made) == 4
        assert all(len(pacs.held[uid]) == 1 for uid in made), "two objects under one UID"
        assert [(row["state"], row["turn"]) for row in site.table("run")] == [("done", 1)]
        assert [row["state"] for row in site.table("study_rule")] == ["ran"]
        assert {row["state"] for row in site.table("delivery")} == {"stored"}
        site.stop()
