"""The same objects again, later ones, changed ones, and ones that contradict: kept apart, and said."""

from __future__ import annotations

import subprocess
from pathlib import Path

import peers
from crash.crash_house import (
    MEASURE_CT,
    ROUTE_ALL,
    Pacs,
    Scanner,
    assert_delivered,
    ball,
    changed,
    derived,
    house,
)
from pydicom.dataset import Dataset

RULES = {"all": ROUTE_ALL, "measure": MEASURE_CT}


def test_late_images_and_resends(tmp_path: Path) -> None:
    """A late image opens a revision that is processed again; the whole series sent again changes nothing."""
    files = ball(tmp_path)
    with house(tmp_path / "site", RULES) as site, Pacs(site.pacs_port).open() as pacs:
        site.start()
        scanner = Scanner(site.port)
        scanner.send(files[:-1])
        site.wait_idle()
        first = derived(scanner, pacs)
        assert len(first) >= 4

        scanner.send(files[-1:])
        site.wait_idle()
        revisions = site.table("series")
        assert [(r["revision"], r["state"], r["instances"]) for r in revisions] == [
            (1, "routed", 7),
            (2, "routed", 8),
        ]
        assert [row["state"] for row in site.table("run")] == ["done", "done"]
        second = derived(scanner, pacs) - first
        assert len(second) >= 4
        assert {str(pacs.read(uid).SeriesInstanceUID) for uid in first}.isdisjoint(
            {str(pacs.read(uid).SeriesInstanceUID) for uid in second}
        ), "what a later revision makes is not mixed into the earlier series"

        before = list(pacs.got)
        scanner.send(files)
        site.wait_idle()
        assert pacs.got == before, "a re-send within `redeliver_after` sends nothing again"
        assert len(site.table("series")) == 2 and len(site.table("run")) == 2
        states = [row["state"] for row in site.table("instance")]
        assert states.count("kept") == 8 and states.count("duplicate") == 8
        assert len(list((site.data / "objects").glob("*/*/*.dcm"))) == 8, "duplicates' files are removed"
        assert_delivered(scanner, pacs)
        site.stop()


def test_a_corrected_header(tmp_path: Path) -> None:
    """The same pixels with another header take the old one's place, go to the PACS, and are processed again."""
    files = ball(tmp_path)

    def correct(ds: Dataset) -> None:
        ds.AccessionNumber = "CORRECTED"

    with house(tmp_path / "site", RULES) as site, Pacs(site.pacs_port).open() as pacs:
        site.start()
        scanner = Scanner(site.port)
        scanner.send(files)
        site.wait_idle()
        first = derived(scanner, pacs)
        scanner.send([changed(path, tmp_path / "corrected" / path.name, correct) for path in files])
        site.wait_idle()
        states = [row["state"] for row in site.table("instance")]
        assert states.count("kept") == 8 and states.count("replaced") == 8
        assert [r["revision"] for r in site.table("series")] == [1, 2]
        for uid in scanner.acknowledged:
            assert pacs.times(uid) == 2 and pacs.read(uid).AccessionNumber == "CORRECTED"
        second = derived(scanner, pacs) - first
        assert len(second) == len(first)
        assert {pacs.read(uid).AccessionNumber for uid in second} == {"CORRECTED"}
        site.stop()


def test_a_recompressed_copy(tmp_path: Path) -> None:
    """The same pixels in another transfer syntax are a header revision, found by decoding both."""
    files = ball(tmp_path)[:2]
    packed = tmp_path / "packed.dcm"
    subprocess.run([peers.need("dcmcjpeg"), "+e1", "+un", str(files[0]), str(packed)], check=True)
    with house(tmp_path / "site", {"all": ROUTE_ALL}) as site, Pacs(site.pacs_port).open() as pacs:
        site.start()
        scanner = Scanner(site.port)
        scanner.send(files)
        site.wait_idle()
        peers.storescu(site.port, "-xs", packed, calling="CT01")
        site.wait_for(lambda: len(site.table("instance")) == 3, "the copy")
        site.wait_idle()
        old, _, new = site.table("instance")
        assert (old["state"], new["state"]) == ("replaced", "kept"), (old["reason"], new["reason"])
        assert new["transfer_syntax"] == "1.2.840.10008.1.2.4.70"
        assert pacs.times(str(old["sop_uid"])) == 2
        site.stop()


def test_other_pixels_under_a_known_uid(tmp_path: Path) -> None:
    """The same SOP Instance UID with other pixels is kept aside and shown, and reaches neither series nor PACS."""
    files = ball(tmp_path)

    def forge(ds: Dataset) -> None:
        ds.PixelData = bytes(len(ds.PixelData))

    with house(tmp_path / "site", RULES) as site, Pacs(site.pacs_port).open() as pacs:
        site.start()
        scanner = Scanner(site.port)
        scanner.send(files)
        site.wait_idle()
        before = list(pacs.got)
        forger = Scanner(site.port)
        forger.send([changed(files[0], tmp_path / "forged.dcm", forge)])
        site.wait_for(lambda: len(site.table("instance")) == 9, "the ninth object")
        site.wait_idle()
        (aside,) = site.table("instance", state="conflict")
        assert aside["series_id"] is None and "other pixels" in aside["reason"]
        assert [e["instance_id"] for e in site.table("event", name="instance_conflict")] == [aside["id"]]
        assert pacs.got == before
        assert len(site.table("series")) == 1
        site.stop()
