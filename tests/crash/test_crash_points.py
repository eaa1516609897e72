"""SIGKILL of every role at every named point: nothing acknowledged is lost, nothing is made twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from crash.crash_house import (
    MEASURE_CT,
    ROUTE_ALL,
    House,
    Pacs,
    Scanner,
    assert_delivered,
    ball,
    derived,
    house,
)

from node import faults

RULES = {"all": ROUTE_ALL, "measure": MEASURE_CT}
GROUPS = {
    "receiver": ("before-sync:2", "after-sync:3", "after-rename:4", "after-keep:2"),
    "reader": ("before-header:3",),
    "index": ("after-recover", "before-index-commit", "after-index-commit"),
    "seal": ("after-seal", "after-route", "after-run-claim"),
    "worker": ("before-job", "after-products"),
    "run": ("after-worker-end", "before-run-finish", "after-run-finish"),
    "claim": ("after-delivery-claim", "before-outcomes", "after-outcomes", "before-batch-end"),
    "sender": ("before-send:2", "after-send:5"),
}
"""Points of one role that one node passes after another."""
ALONE = ("after-rename:2", "after-route", "before-products", "after-send:2")
"""Points at which the whole node is killed with the process that reached them."""


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """SOP Instance UIDs of all that an undisturbed node derives from the ball, sent to another PACS."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with house(folder / "site", RULES) as site, Pacs(site.pacs_port).open() as pacs:
        site.start()
        scanner = Scanner(site.port)
        scanner.send(ball(folder))
        site.wait_idle()
        assert_delivered(scanner, pacs)
        made = derived(scanner, pacs)
        assert len(made) == 6, made  # four slabs of 6 mm, one segmentation, one report
        assert all(pacs.times(uid) == 1 for uid in pacs.held), "an undisturbed node sends each object once"
        site.stop()
    return made


def assert_as_undisturbed(scanner: Scanner, pacs: Pacs, site: House, made: set[str]) -> None:
    """All that was acknowledged arrived, and what was derived is what an undisturbed node derives."""
    assert_delivered(scanner, pacs)
    assert derived(scanner, pacs) == made
    states = {row["state"] for row in site.table("delivery")}
    assert states == {"stored"}, site.state()
    assert [row["state"] for row in site.table("run")] == ["done"]


@pytest.mark.parametrize("group", GROUPS)
def test_a_role_killed_at_its_points(group: str, tmp_path: Path, undisturbed: set[str]) -> None:
    """A role that dies at each of its points in turn, and is restarted by the node itself, costs nothing."""
    points = [point.partition(":")[0] for point in GROUPS[group]]
    once = tmp_path / "once"
    with house(tmp_path / "site", RULES) as site, Pacs(site.pacs_port).open() as pacs:
        site.start(PACSNODE_FAULT=",".join(GROUPS[group]), PACSNODE_FAULT_ONCE=str(once))
        scanner = Scanner(site.port)
        scanner.send(ball(tmp_path))
        site.wait_idle(60)
        met = [p for p in points if Path(f"{once}.{p}" if len(points) > 1 else once).exists()]
        assert met == points, f"not reached: {set(points) - set(met)}"
        assert_as_undisturbed(scanner, pacs, site, undisturbed)
        assert max(pacs.times(uid) for uid in pacs.held) <= 1 + len(points), (
            "sent again more often than killed"
        )
        site.stop()


@pytest.mark.parametrize("point", ALONE)
def test_the_whole_node_killed_at_a_point(point: str, tmp_path: Path, undisturbed: set[str]) -> None:
    """When every process dies the moment one of them reaches a point, the next start makes good for it."""
    once = tmp_path / "once"
    with house(tmp_path / "site", RULES) as site, Pacs(site.pacs_port).open() as pacs:
        site.start(PACSNODE_FAULT=point, PACSNODE_FAULT_ONCE=str(once))
        scanner = Scanner(site.port)
        scanner.try_once(ball(tmp_path))
        until = time.monotonic() + 30
        while not once.exists() and time.monotonic() < until:
            time.sleep(0.005)
        assert once.exists(), f"{point} was not reached: {site.tail()}"
        site.kill_all()
        site.start()
        scanner.send(ball(tmp_path))
        site.wait_idle(60)
        assert_as_undisturbed(scanner, pacs, site, undisturbed)
        site.stop()


def test_every_point_is_in_a_group() -> None:
    """The points killed at here are all the points there are."""
    tested = {point.partition(":")[0] for group in (*GROUPS.values(), ALONE) for point in group}
    assert tested == set(faults.POINTS)
