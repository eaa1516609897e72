"""Destinations that are away, refuse, or answer with a failure: nothing is lost, and the tables say why."""

from __future__ import annotations

from pathlib import Path

import peers
from crash.crash_house import MEASURE_CT, ROUTE_ALL, Pacs, Scanner, assert_delivered, ball, derived, house

RULES = {"all": ROUTE_ALL, "measure": MEASURE_CT}


def test_a_pacs_that_is_down_gets_everything_later(tmp_path: Path) -> None:
    """While the PACS is down it is shown down with its reason and nothing is parked; when it is up all arrives."""
    with house(tmp_path / "site", RULES) as site:
        site.start()
        scanner = Scanner(site.port)
        scanner.send(ball(tmp_path))
        site.wait_for(lambda: bool(site.table("product")), "the run")
        site.wait_for(lambda: bool(site.overview()["destinations"]), "the failed connection")
        (known,) = site.overview()["destinations"]
        assert known["down"] and str(site.pacs_port) in known["reason"], known
        assert {row["state"] for row in site.table("delivery")} <= {"waiting", "sending"}
        with Pacs(site.pacs_port).open() as pacs:
            site.wait_idle()
            assert_delivered(scanner, pacs)
            assert len(derived(scanner, pacs)) == 6
        (known,) = site.overview()["destinations"]
        assert not known["down"]
        names = [e["name"] for e in site.table("event", destination="PACS")]
        assert names == ["destination_down", "destination_up"], names
        site.stop()


def test_a_pacs_that_dies_in_the_middle(tmp_path: Path) -> None:
    """A PACS that goes away between two objects gets the rest when it is back, and none of them twice in store."""
    port = peers.free_port()
    with house(tmp_path / "site", {"all": ROUTE_ALL}, pacs_port=port) as site:
        site.start()
        scanner = Scanner(site.port)
        with Pacs(port).open() as first:
            scanner.send(ball(tmp_path, "one"))
            site.wait_for(lambda: len(first.held) >= 3, "three objects")
        scanner.send(ball(tmp_path, "two"))
        with Pacs(port, got=first.got, datasets=first.datasets).open() as pacs:
            site.wait_idle()
            assert_delivered(scanner, pacs)
        site.stop()


def test_three_destinations_with_three_troubles(tmp_path: Path) -> None:
    """A stranger, an overloaded PACS and a puzzled one: each is shown in words, and none stops another."""
    first: list[str] = []

    def overloaded(uid: str, nth: int) -> int:  # A700 once
        return 0xA700 if nth == 2 else 0

    def puzzled(uid: str, nth: int) -> int:  # C000 for one object, always
        first.extend([uid] * (nth == 0))
        return 0xC000 if uid in first else 0

    ports = [peers.free_port() for _ in range(2)]
    others = f"""
  STRANGER: {{ae_title: WE_THINK, address: 127.0.0.1:{ports[0]}}}
  PUZZLED: {{ae_title: PUZZLED, address: 127.0.0.1:{ports[1]}}}
"""
    rule = ROUTE_ALL.replace("to: PACS", "to: [PACS, STRANGER, PUZZLED]")
    with (
        house(tmp_path / "site", {"all": rule}, destinations=others) as site,
        Pacs(ports[0], ae_title="SOMEBODY").open() as stranger,
        Pacs(ports[1], ae_title="PUZZLED", answer=puzzled).open() as other,
        Pacs(site.pacs_port, answer=overloaded).open() as pacs,
    ):
        site.start()
        scanner = Scanner(site.port)
        scanner.send(ball(tmp_path))
        for name in ("PACS", "PUZZLED"):
            site.wait_for(
                lambda name=name: len(site.table("delivery", destination=name, state="stored")) == 7,
                f"7 at {name}",
            )
        site.wait_for(lambda: bool(site.overview()["destinations"]), "the rejection")

        (known,) = [d for d in site.overview()["destinations"] if d["down"]]
        assert known["name"] == "STRANGER" and "called AE" in known["reason"].replace("Called", "called")
        assert {row["state"] for row in site.table("delivery", destination="STRANGER")} <= {
            "waiting",
            "sending",
        }
        assert not stranger.held

        (failed,) = [row for row in site.table("delivery", destination="PACS") if row["state"] != "stored"]
        assert (failed["state"], failed["status"]) == ("waiting", 0xA700) and "A700" in failed["reason"]

        (refused,) = [
            row for row in site.table("delivery", destination="PUZZLED") if row["state"] != "stored"
        ]
        assert (refused["state"], refused["status"]) == ("waiting", 0xC000) and "C000" in refused["reason"]
        (event,) = site.table("event", destination="PUZZLED")
        assert event["instance_id"] == refused["instance_id"] and "C000" in event["detail"]
        assert len(other.held) == 7

        site.hurry()  # the pause after a failure is half a minute
        site.wait_for(
            lambda: len(site.table("delivery", destination="PACS", state="stored")) == 8, "the eighth"
        )
        assert_delivered(scanner, pacs)
        assert all(pacs.times(uid) == 1 for uid in pacs.held)
        site.stop()
