"""Files that a power cut left damaged: one bad thing stays one bad thing."""

from __future__ import annotations

from pathlib import Path

from crash.crash_house import ROUTE_ALL, Pacs, Scanner, assert_delivered, ball, house


def test_damaged_records_stop_nothing(tmp_path: Path) -> None:
    """An empty object, one of noise and a torn end of an association are shown; what comes after them is served."""
    with (
        house(tmp_path / "site", {"all": ROUTE_ALL.replace("{}", "{Modality: CT}")}) as site,
        Pacs(site.pacs_port).open() as pacs,
    ):
        site.start()
        scanner = Scanner(site.port)
        scanner.send(ball(tmp_path, "one"))
        site.wait_idle()
        site.stop()

        bucket = next((site.data / "objects").glob("*/0000"))
        last = max(int(path.stem) for path in bucket.iterdir() if path.stem.isdigit())
        (bucket / f"{last + 1:08d}.dcm").touch()
        (bucket / f"{last + 2:08d}.end").write_bytes(b'{"assoc')
        (bucket / f"{last + 4:08d}.dcm").write_bytes(b"\xff" * 5000)  # and one number is missing

        site.start()
        scanner.send(ball(tmp_path, "two"))
        site.wait_idle()
        bad = site.table("instance", state="unreadable")
        assert [row["sequence"] for row in bad] == [last + 1, last + 4]
        assert all(row["reason"] for row in bad)
        assert_delivered(scanner, pacs)
        assert "role_died" not in site.log.read_text()
        site.stop()


def test_an_object_of_an_open_series_that_is_gone(tmp_path: Path) -> None:
    """A file that vanished while its series was open is shown as unreadable, and its series is sealed without it."""
    with (
        house(tmp_path / "site", {}, quiet_for="3 s") as site,
        Pacs(site.pacs_port).open(),
    ):
        site.start()
        Scanner(site.port).send(ball(tmp_path))
        site.wait_for(lambda: site.instances() == 8, "the index")
        site.kill_all()
        lost = site.table("instance")[3]
        (
            site.data / "objects" / f"{lost['receiver_run']:08d}" / "0000" / f"{lost['sequence']:08d}.dcm"
        ).unlink()
        site.start()
        site.wait_idle()
        (bad,) = site.table("instance", state="unreadable")
        assert bad["id"] == lost["id"] and "any more" in bad["reason"]
        assert [row["state"] for row in site.table("series")] == ["unrouted"]
        assert site.table("series")[0]["incomplete"], "the missing slice is noticed"
        site.stop()
