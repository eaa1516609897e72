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
    "until indexed, and the worker": (
        "before-sync:2", "after-sync:3", "after-rename:4", "after-keep:2",  # receiver
        "before-header:3",  # reader
        "after-recover", "before-index-commit", "after-index-commit",  # conductor
        "before-job", "after-products",  # worker
    ),
    "seal and send": ("after-seal", "after-route", "after-run-claim", "before-send:2", "after-send:5"),
    "run": ("after-worker-end", "before-run-finish", "after-run-finish"),
    "claim": ("after-delivery-claim", "before-outcomes", "after-outcomes", "before-batch-end"),
}  # fmt: skip
"""Points that one node passes one after another: the conductor dies at four of them at most, since each
death in a row doubles the pause before it is started again."""
ALONE = ("after-rename:2", "after-route", "before-products", "after-send:2")
"""Points at which the whole node is killed with the process that reached them, in the order of the data's way."""

ELSEWHERE = (
    "after-removal",
    "before-upgrade-commit",
    "before-transcode",
    "before-transcoded",
    "after-copied",
    "after-commit-claim",
    "before-commit-answer",
    "before-study-commit",
    "after-study",
    "before-query",
    "after-fetch",
    "after-fetch-claim",
    "after-fetch-finish",
)
"""Points off the data's way: killed at in the tests of the features they belong to."""


@pytest.fixture(scope="session")
def made(undisturbed: dict[str, list[str]]) -> set[str]:
    """SOP Instance UIDs of all that an undisturbed node derives from the ball, sent to another PACS."""
    assert len(undisturbed["ball"]) == 6  # four slabs of 6 mm, one segmentation, one report
    return set(undisturbed["ball"])


def assert_as_undisturbed(scanner: Scanner, pacs: Pacs, site: House, made: set[str]) -> None:
    """All that was acknowledged arrived, and what was derived is what an undisturbed node derives."""
    assert_delivered(scanner, pacs)
    assert derived(scanner, pacs) == made
    states = {row["state"] for row in site.table("delivery")}
    assert states == {"stored"}, site.state()
    assert [row["state"] for row in site.table("run")] == ["done"]


@pytest.mark.parametrize("group", GROUPS)
def test_a_role_killed_at_its_points(group: str, tmp_path: Path, made: set[str]) -> None:
    """A role that dies at each of its points in turn, and is restarted by the node itself, costs nothing."""
    points = [point.partition(":")[0] for point in GROUPS[group]]
    once = tmp_path / "once"
    with house(tmp_path / "site", RULES) as site, Pacs(site.pacs_port).open() as pacs:
        site.start(PACSNODE_FAULT=",".join(GROUPS[group]), PACSNODE_FAULT_ONCE=str(once))
        scanner = Scanner(site.port)
        scanner.send(ball(tmp_path))
        site.wait_idle()
        met = [p for p in points if Path(f"{once}.{p}").exists()]
        assert met == points, f"not reached: {set(points) - set(met)}"
        assert_as_undisturbed(scanner, pacs, site, made)
        assert max(pacs.times(uid) for uid in pacs.held) <= 1 + len(points), (
            "sent again more often than killed"
        )
        site.stop()


def test_the_whole_node_killed_at_points(tmp_path: Path, made: set[str]) -> None:
    """When every process dies the moment one of them reaches a point, the next start makes good for it.

    The start after one point goes on to the next one, so that each is reached only if nothing was lost before.
    """
    files = ball(tmp_path)
    with house(tmp_path / "site", RULES) as site, Pacs(site.pacs_port).open() as pacs:
        scanner = Scanner(site.port)
        for number, point in enumerate(ALONE):
            once = tmp_path / f"once-{number}"
            site.start(PACSNODE_FAULT=point, PACSNODE_FAULT_ONCE=str(once))
            if number == 0:
                scanner.try_once(files)
            elif number == 1:
                scanner.send(files)
            until = time.monotonic() + 90
            while not once.exists() and time.monotonic() < until:
                time.sleep(0.005)
            assert once.exists(), f"{point} was not reached: {site.tail()}"
            site.kill_all()
        site.start()
        scanner.send(files)
        site.wait_idle()
        assert_as_undisturbed(scanner, pacs, site, made)
        site.stop()


def test_every_point_is_in_a_group() -> None:
    """The points killed at here are all the points there are, and none is named twice in a group."""
    tested = [point.partition(":")[0] for group in (*GROUPS.values(), ALONE, ELSEWHERE) for point in group]
    assert set(tested) == set(faults.POINTS)
    assert all(len(set(group)) == len(group) > 1 for group in GROUPS.values())
