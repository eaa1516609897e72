"""The same objects again, later ones, changed ones, and ones that contradict: kept apart, and said."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers
import pydicom
import pytest
from crash.crash_house import (
    MEASURE_CT,
    ROUTE_ALL,
    House,
    Pacs,
    Scanner,
    assert_delivered,
    ball,
    changed,
    house,
)
from pydicom.dataset import Dataset

RULES = {"all": ROUTE_ALL, "measure": MEASURE_CT}


@dataclass(frozen=True)
class Study:
    """One study at the node and at the PACS: each test has its own."""

    site: House
    pacs: Pacs
    scanner: Scanner
    files: list[Path]
    uid: str

    def series(self) -> list[Mapping[str, Any]]:
        """Its series' revisions."""
        return self.site.table("series", study_uid=self.uid)

    def runs(self) -> list[Mapping[str, Any]]:
        """The runs over its revisions."""
        return [run for row in self.series() for run in self.site.table("run", series_id=row["id"])]

    def instances(self) -> list[Mapping[str, Any]]:
        """All received objects under the UIDs of its files, in the order they came."""
        uids = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in self.files}
        return [row for row in self.site.table("instance") if row["sop_uid"] in uids]

    def states(self) -> list[str]:
        """What became of them."""
        return [str(row["state"]) for row in self.instances()]

    def came(self) -> list[tuple[str, str]]:
        """What of it came to the PACS: SOP Instance UID and digest."""
        return [
            (uid, digest) for uid, digest in self.pacs.got if self.pacs.read(uid).StudyInstanceUID == self.uid
        ]

    def derived(self) -> set[str]:
        """The SOP Instance UIDs at the PACS that nobody sent to the node."""
        return {uid for uid, _ in self.came()} - set(self.scanner.acknowledged)

    def stored(self) -> int:
        """How many of its objects the node has files of."""
        data = self.site.data / "objects"
        places = {(row["receiver_run"], row["sequence"]) for row in self.instances()}
        return sum((data / f"{run:08d}" / "0000" / f"{number:08d}.dcm").exists() for run, number in places)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Pacs]]:
    """Run a node and a PACS for all tests here, and stop the node at the end."""
    folder = tmp_path_factory.mktemp("again")
    with house(folder / "site", RULES) as site, Pacs(site.pacs_port).open() as pacs:
        site.start()
        yield site, pacs
        site.stop()


@pytest.fixture
def study(running: tuple[House, Pacs], tmp_path: Path, request: pytest.FixtureRequest) -> Study:
    """Eight slices of a ball that were not sent yet, in a study named after the test."""
    site, pacs = running
    files = ball(tmp_path, request.node.name)
    uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    return Study(site, pacs, Scanner(site.port), files, uid)


def test_late_images_and_resends(study: Study) -> None:
    """A late image opens a revision that is processed again; the whole series sent again changes nothing."""
    site, scanner, pacs = study.site, study.scanner, study.pacs
    scanner.send(study.files[:-1])
    site.wait_idle()
    first = study.derived()
    assert len(first) >= 4

    scanner.send(study.files[-1:])
    site.wait_idle()
    assert [(r["revision"], r["state"], r["instances"]) for r in study.series()] == [
        (1, "routed", 7),
        (2, "routed", 8),
    ]
    assert [row["state"] for row in study.runs()] == ["superseded", "done"]
    second = study.derived() - first
    assert len(second) >= 4
    assert all(str(pacs.read(uid).SeriesDescription).endswith("(rev 2)") for uid in second)
    assert {str(pacs.read(uid).SeriesInstanceUID) for uid in first}.isdisjoint(
        {str(pacs.read(uid).SeriesInstanceUID) for uid in second}
    ), "what a later revision makes is not mixed into the earlier series"

    before = study.came()
    scanner.send(study.files)
    site.wait_idle()
    assert study.came() == before, "a re-send within `redeliver_after` sends nothing again"
    assert len(study.series()) == 2 and len(study.runs()) == 2
    assert study.states().count("kept") == 8 and study.states().count("duplicate") == 8
    assert study.stored() == 8, "duplicates' files are removed"
    assert_delivered(scanner, pacs)


def test_a_corrected_header(study: Study, tmp_path: Path) -> None:
    """The same pixels with another header take the old one's place, go to the PACS, and are processed again."""
    site, scanner, pacs = study.site, study.scanner, study.pacs

    def correct(ds: Dataset) -> None:
        ds.AccessionNumber = "CORRECTED"

    scanner.send(study.files)
    site.wait_idle()
    first = study.derived()
    scanner.send([changed(path, tmp_path / "corrected" / path.name, correct) for path in study.files])
    site.wait_idle()
    assert study.states().count("kept") == 8 and study.states().count("replaced") == 8
    assert [r["revision"] for r in study.series()] == [1, 2]
    for uid in scanner.acknowledged:
        assert pacs.times(uid) == 2 and pacs.read(uid).AccessionNumber == "CORRECTED"
    second = study.derived() - first
    assert len(second) == len(first) > 0
    assert {pacs.read(uid).AccessionNumber for uid in second} == {"CORRECTED"}


def test_a_recompressed_copy(study: Study, tmp_path: Path) -> None:
    """The same pixels in another transfer syntax are a header revision, found by decoding both."""
    packed = tmp_path / "packed.dcm"
    subprocess.run([peers.need("dcmcjpeg"), "+e1", "+un", str(study.files[0]), str(packed)], check=True)
    study.scanner.send(study.files[:2])
    study.site.wait_idle()
    peers.storescu(study.site.port, "-xs", packed, calling="CT01")
    study.site.wait_for(lambda: len(study.instances()) == 3, "the copy")
    study.site.wait_idle()
    old, _, new = study.instances()
    assert (old["state"], new["state"]) == ("replaced", "kept"), (old["reason"], new["reason"])
    assert new["transfer_syntax"] == "1.2.840.10008.1.2.4.70"
    assert study.pacs.times(str(old["sop_uid"])) == 2


def test_other_pixels_under_a_known_uid(study: Study, tmp_path: Path) -> None:
    """The same SOP Instance UID with other pixels is kept aside and shown, and reaches neither series nor PACS."""
    site = study.site

    def forge(ds: Dataset) -> None:
        ds.PixelData = bytes(len(ds.PixelData))

    study.scanner.send(study.files)
    site.wait_idle()
    before = study.came()
    assert len(before) > 8
    Scanner(site.port).send([changed(study.files[0], tmp_path / "forged.dcm", forge)])
    site.wait_for(lambda: len(study.instances()) == 9, "the ninth object")
    site.wait_idle()
    (aside,) = (row for row in study.instances() if row["state"] == "conflict")
    assert aside["series_id"] is None and "other pixels" in aside["reason"]
    events = site.table("event", instance_id=aside["id"])
    assert [event["name"] for event in events] == ["instance_conflict"]
    assert study.came() == before
    assert len(study.series()) == 1
