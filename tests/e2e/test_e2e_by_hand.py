"""What a person does beside a running node: replay, release of an object in conflict, cancel of a run under way."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pydicom
from crash.crash_house import (
    MEASURE_CT,
    ROUTE_ALL,
    House,
    Pacs,
    Scanner,
    assert_delivered,
    ball,
    changed,
    derived,
    house,
)
from crash.test_crash_operators import LIMITS, installed, rule
from pydicom.dataset import Dataset


def pacsnode(site: House, *arguments: str) -> Any:
    """What `pacsnode … --json` says, as a process of its own beside the node."""
    done = site.verb(*arguments, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_replay_sends_nothing_twice_and_a_new_generation_sends_a_second_set(tmp_path: Path) -> None:
    """The same UIDs are not sent again; with fresh ones the PACS holds both sets, and nothing was cancelled."""
    with (
        house(tmp_path / "site", {"all": ROUTE_ALL, "measure": MEASURE_CT}) as site,
        Pacs(site.pacs_port).open() as pacs,
    ):
        site.start()
        scanner = Scanner(site.port)
        scanner.send(ball(tmp_path))
        site.wait_idle()
        first, came = derived(scanner, pacs), list(pacs.got)
        assert len(first) == 6
        assert pacsnode(site, "replay", "--series", "1")["replayed"] == [1]
        site.wait_for(lambda: len(site.table("run")) == 2, "the second run")
        site.wait_idle()
        assert [row["state"] for row in site.table("run")] == ["superseded", "done"]
        assert pacs.got == came, "the same objects are not sent twice"

        pacsnode(
            site, "replay", "--since", "1 h", "--rule", "measure", "--new-generation", "--why", "rejected"
        )
        site.wait_for(lambda: len(site.table("run")) == 3, "the third run")
        site.wait_idle()
        second = derived(scanner, pacs) - first
        assert len(second) == len(first)
        assert first <= derived(scanner, pacs)
        assert {str(pacs.read(uid).SeriesInstanceUID) for uid in first}.isdisjoint(
            {str(pacs.read(uid).SeriesInstanceUID) for uid in second}
        )
        assert all(pacs.times(uid) == 1 for uid in pacs.held)
        assert {row["state"] for row in site.table("delivery")} == {"stored"}, "none was cancelled"
        (told,) = pacsnode(site, "find", "--run", "3")
        names = [entry["name"] for entry in told["timeline"]]
        assert names.count("series_replayed") == 2 and names.count("run_superseded") == 2
        assert_delivered(scanner, pacs)
        site.stop()


def test_an_object_in_conflict_is_released(tmp_path: Path) -> None:
    """It takes the former's place at the PACS and in a second revision, whose results supersede."""

    def forge(ds: Dataset) -> None:
        ds.PixelData = bytes(len(ds.PixelData))

    with (
        house(tmp_path / "site", {"all": ROUTE_ALL, "measure": MEASURE_CT}) as site,
        Pacs(site.pacs_port).open() as pacs,
    ):
        site.start()
        files = ball(tmp_path)
        Scanner(site.port).send(files)
        site.wait_idle()
        Scanner(site.port).send([changed(files[0], tmp_path / "forged.dcm", forge)])
        site.wait_for(lambda: bool(site.table("instance", state="conflict")), "the conflict")
        (aside,) = pacsnode(site, "objects", "--state", "conflict")
        pacsnode(site, "release", "--object", str(aside["id"]))
        site.wait_for(lambda: len(site.table("series")) == 2, "the second revision")
        site.wait_idle()
        assert [row["state"] for row in site.table("instance", sop_uid=aside["sop_uid"])] == [
            "replaced",
            "kept",
        ]
        assert not any(pacs.read(aside["sop_uid"]).PixelData), "the PACS has the released one last"
        assert [(row["revision"], row["state"]) for row in site.table("series")] == [
            (1, "routed"),
            (2, "routed"),
        ]
        assert [row["state"] for row in site.table("run")] == ["superseded", "done"]
        assert pydicom.dcmread(files[0]).SOPInstanceUID == aside["sop_uid"]
        site.stop()


def test_a_run_under_way_is_cancelled_and_its_worker_ends(tmp_path: Path) -> None:
    """An operator that would sleep for minutes is gone at once; the run says by whom, and its place is free."""
    environ = installed(tmp_path / "plugins")
    rules = {"hang": rule("hang", slices="at_most: 5"), "invert": rule("invert", slices="at_least: 6")}
    extra = LIMITS.replace("20 s", "10 min").replace("workers: 2", "workers: 1")
    with (
        house(tmp_path / "site", rules, extra=extra, environ=environ) as site,
        Pacs(site.pacs_port).open() as pacs,
    ):
        site.start()
        scanner = Scanner(site.port)
        scanner.send(ball(tmp_path, "one", slices=5))
        site.wait_for(lambda: bool(site.table("run", state="running")), "the run")
        before = time.monotonic()
        assert pacsnode(site, "cancel", "--runs", "--rule", "hang", "--why", "a mistake")["changed"] == 1
        scanner.send(ball(tmp_path, "two", slices=6))
        site.wait_for(lambda: bool(site.table("run", rule="invert", state="done")), "the next run")
        assert time.monotonic() - before < 60, "it did not wait for the sleeper"
        (row,) = site.table("run", rule="hang")
        assert (row["state"], row["reason"]) == ("cancelled", "cancelled by hand: a mistake")
        site.wait_idle()
        assert len(pacs.held) == 6
        site.stop()
