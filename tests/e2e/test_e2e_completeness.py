"""Completeness from evidence between processes: scanners that tell of their steps, and that are asked for counts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peers
import pydicom
import pytest
from crash.crash_house import House, Pacs, Scanner, ball, house
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

MPPS, FIND = "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.5.1.4.1.2.2.1"
RULES = {
    "all": """
rule: all
purpose: Everything goes to the PACS at once.
owner: tests@hospital.example
when: {}
send:
  - {what: received, to: PACS}
""",
    "whole": """
rule: whole
purpose: A whole series is thickened.
owner: tests@hospital.example
when: {Modality: CT}
do:
  - reformat: {plane: axial, thickness: 6 mm, every: 6 mm, combine: mean}
    as: thick
send:
  - {what: thick, to: PACS}
""",
}


def headers(files: list[Path]) -> list[Dataset]:
    """What the files say."""
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in files]


def step(state: str, files: list[Path] = []) -> Dataset:  # noqa: B006 - never changed
    """A performed procedure step that made these images."""
    said, scheduled = Dataset(), Dataset()
    said.PerformedProcedureStepStatus, said.PerformedStationAETitle = state, "CT02"
    said.PerformedSeriesSequence = []
    for ds in headers(files):
        if not said.PerformedSeriesSequence:
            series = Dataset()
            series.SeriesInstanceUID, series.ReferencedImageSequence = ds.SeriesInstanceUID, []
            scheduled.StudyInstanceUID = ds.StudyInstanceUID
            said.PerformedSeriesSequence = [series]
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
        said.PerformedSeriesSequence[0].ReferencedImageSequence.append(image)
    said.ScheduledStepAttributesSequence = [scheduled]
    return said


@dataclass
class Console:
    """A scanner: it sends images and steps, and answers C-FIND with *counts*, one after the other."""

    port: int
    node_port: int
    counts: list[int | None] = field(default_factory=list)
    """None: it hangs; the last one repeats."""
    asked: list[float] = field(default_factory=list)

    @property
    def scanner(self) -> Scanner:
        """Its C-STORE SCU."""
        return Scanner(self.node_port, "CT02")

    def tell(self, what: str, ds: Dataset, uid: str) -> int | None:
        """N-CREATE or N-SET on an association of its own; the status, None where nobody answered."""
        ae = AE("CT02")
        ae.connection_timeout, ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = 5, 20, 30, 30
        ae.add_requested_context(MPPS)
        assoc = ae.associate("127.0.0.1", self.node_port, ae_title="PACSNODE")
        if not assoc.is_established:
            return None
        peers.keep_answers(assoc)
        with contextlib.suppress(RuntimeError, ValueError):  # the association ended in between
            send = assoc.send_n_create if what == "N-CREATE" else assoc.send_n_set
            status, _ = send(ds, MPPS, uid)
            if assoc.is_established:
                assoc.release()
            return status.get("Status")
        return None

    def until_told(self, what: str, ds: Dataset, uid: str) -> None:
        """Again and again, as real ones do."""
        until = time.monotonic() + 60
        while self.tell(what, ds, uid) != 0x0000:
            assert time.monotonic() < until, f"{what} was not answered with success"
            time.sleep(0.2)

    @contextlib.contextmanager
    def open(self) -> Iterator[Console]:
        """Answer C-FIND as long as the block lasts."""
        ae = AE("CT02")
        ae.add_supported_context(FIND)
        server = ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_FIND, self._find)]
        )
        try:
            yield self
        finally:
            server.shutdown()

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Any]]:
        self.asked.append(time.monotonic())
        count = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        if count is None:
            while event.assoc.is_established:  # until we are left
                time.sleep(0.1)
        found = event.identifier
        found.NumberOfSeriesRelatedInstances = count
        yield 0xFF00, found


@contextlib.contextmanager
def place(
    folder: Path, seal: str, quiet: str = "60 s", **environ: str
) -> Iterator[tuple[House, Console, Pacs]]:
    """A node that waits as long for *quiet*, and CT02, whose seal says *seal*."""
    port = peers.free_port()
    peer = f"  CT02: {{ae_title: CT02, address: 127.0.0.1:{port}, sends_as: [CT02], seal: {{{seal}}}}}\n"
    with (
        house(folder / "site", RULES, destinations=peer, quiet_for=quiet) as site,
        Console(port, site.port).open() as console,
        Pacs(site.pacs_port).open() as pacs,
    ):
        site.start(**environ)
        yield site, console, pacs
        site.stop()


def sealed(site: House, count: int = 1, seconds: float = 60.0) -> list[str]:
    """What the seals say, once there are so many."""

    def found() -> list[str]:
        return [str(row["detail"]) for row in site.table("event", name="series_sealed")]

    site.wait_for(lambda: len(found()) >= count, "the seal", seconds)
    return found()


def test_a_step_ends_the_waiting(tmp_path: Path) -> None:
    """COMPLETED before, amid or after its images: sealed at once when all are here, though quiet takes a minute."""
    with place(tmp_path, "quiet_for: 60 s") as (site, console, pacs):
        for number, at in enumerate((0, 5, 8), start=1):
            files, uid = ball(tmp_path, f"ball-{at}"), f"2.25.{number}"
            assert console.tell("N-CREATE", step("IN PROGRESS"), uid) == 0x0000
            console.scanner.send(files[:at])
            assert console.tell("N-SET", step("COMPLETED", files), uid) == 0x0000
            console.scanner.send(files[at:])
            assert set(sealed(site, number)) == {"8 objects: MPPS of CT02 names 8 objects, all here"}
        site.wait_for(lambda: len(pacs.held) == 3 * (8 + 4), "images and results at the PACS")


@pytest.mark.long
def test_an_image_that_never_comes(tmp_path: Path) -> None:
    """One image short of what the step names: incomplete after `count_patience`, and no rule runs on it."""
    files = ball(tmp_path)
    with place(tmp_path, "quiet_for: 500 ms, count_patience: 3 s") as (site, console, pacs):
        assert console.tell("N-CREATE", step("IN PROGRESS"), "2.25.1") == 0x0000
        assert console.tell("N-SET", step("COMPLETED", files), "2.25.1") == 0x0000
        console.scanner.send(files[:-1])
        assert sealed(site) == ["7 objects: nothing more came for 3 s; MPPS of CT02 names 8 objects, 7 here"]
        (short,) = site.table("event", name="series_short")
        assert short["detail"] == "MPPS of CT02 names 8 objects, 7 here"
        site.wait_idle()
        (row,) = site.table("series")
        assert row["incomplete"] == "MPPS of CT02 names 8 objects, 7 here"
        assert not site.table("run") and len(pacs.held) == 7
        console.scanner.send(files[-1:])  # late: a revision that is whole
        assert sealed(site, 2)[1] == "8 objects: MPPS of CT02 names 8 objects, all here"
        site.wait_for(lambda: len(pacs.held) == 8 + 4, "images and results at the PACS")


@pytest.mark.long
def test_the_scanner_is_asked(tmp_path: Path) -> None:
    """Its count grows while it makes images; the series ends when the number stands and all of it is here."""
    files = ball(tmp_path)
    with place(tmp_path, "count_from: source") as (site, console, _):
        console.counts = [6, 8]
        console.scanner.send(files)
        assert sealed(site) == ["8 objects: C-FIND at CT02 counts 8 objects, all here"]
        assert len(console.asked) >= 3 and console.asked[-1] - console.asked[-2] >= 4.9


@pytest.mark.long
def test_a_count_that_never_matches(tmp_path: Path) -> None:
    """More than ever comes: sealed incomplete after `count_patience`."""
    files = ball(tmp_path)
    with place(tmp_path, "quiet_for: 2 s, count_from: source, count_patience: 6 s") as (site, console, _):
        console.counts = [9]
        console.scanner.send(files)
        assert sealed(site) == [
            "8 objects: nothing more came for 6 s; C-FIND at CT02 counts 9 objects, 8 here"
        ]


@pytest.mark.long
def test_a_scanner_that_hangs_holds_up_no_delivery(tmp_path: Path) -> None:
    """It takes the question and never answers: deliveries go on, other series are sealed, and its own in the end."""
    files, other = ball(tmp_path), ball(tmp_path, "other")
    seal = "quiet_for: 1 s, count_from: source, count_patience: 20 s"
    with place(tmp_path, seal, quiet="1 s") as (site, console, pacs):
        console.counts = [None]
        console.scanner.send(files)
        site.wait_for(lambda: bool(console.asked), "the question")
        Scanner(site.port).send(other)
        assert sealed(site) == ["8 objects: quiet for 1 s"]
        site.wait_for(lambda: len(pacs.held) == 8 + 8 + 4, "all images, and results of the other series")
        waiting = "quiet for 1 s; not counted: CT02 at 127.0.0.1"
        assert sealed(site, 2)[1].startswith(f"8 objects: {waiting}"), "a question has its time, too"


def test_a_scanner_that_is_off_is_passed_over(tmp_path: Path) -> None:
    """Nobody answers: sealed by quiet time without delay, and the event says why there is no count."""
    port = peers.free_port()
    peer = f"  CT02: {{ae_title: CT02, address: 127.0.0.1:{port}, sends_as: [CT02], seal: {{count_from: source}}}}\n"
    with house(tmp_path / "site", RULES, destinations=peer, quiet_for="2 s") as site:
        site.start()
        Scanner(site.port, "CT02").send(ball(tmp_path))
        (said,) = sealed(site)
        assert said.startswith(
            f"8 objects: quiet for 2 s; not counted: CT02 at 127.0.0.1:{port} refused the connection"
        )
        site.stop()


@pytest.mark.long
def test_a_receiver_killed_over_steps(tmp_path: Path) -> None:
    """Wherever the receiver dies over a message, the scanner, which had no answer, sends it again; it counts once."""
    files, points = ball(tmp_path), ("before-sync", "after-sync", "after-rename", "after-keep")
    once = {"PACSNODE_FAULT": ",".join(points), "PACSNODE_FAULT_ONCE": str(tmp_path / "once")}
    with place(tmp_path, "quiet_for: 60 s", **once) as (site, console, _):
        console.until_told("N-CREATE", step("IN PROGRESS"), "2.25.1")
        console.until_told("N-SET", step("COMPLETED", files), "2.25.1")
        assert all(Path(f"{tmp_path / 'once'}.{point}").exists() for point in points)
        console.scanner.send(files)
        assert sealed(site) == ["8 objects: MPPS of CT02 names 8 objects, all here"]
        assert len(site.table("event", name="step_completed")) == 1
        strange = [row["detail"] for row in site.table("event", name="step_strange")]
        assert len(strange) == 2 and all("begun before" in one for one in strange), "kept, and not answered"


@pytest.mark.long
def test_a_conductor_killed_over_a_step(tmp_path: Path) -> None:
    """What was answered with success is taken in by the next conductor, once, and the open series knows of it."""
    files, points = ball(tmp_path), ("before-index-commit", "after-index-commit")
    once = {"PACSNODE_FAULT": ",".join(points), "PACSNODE_FAULT_ONCE": str(tmp_path / "once")}
    with place(tmp_path, "quiet_for: 60 s", **once) as (site, console, _):
        console.until_told("N-CREATE", step("IN PROGRESS"), "2.25.1")
        console.until_told("N-SET", step("COMPLETED", files), "2.25.1")
        console.scanner.send(files[:4])
        site.wait_for(lambda: site.instances() == 4, "half of the images")
        site.kill("conductor")
        console.scanner.send(files[4:])
        assert sealed(site) == ["8 objects: MPPS of CT02 names 8 objects, all here"]
        assert len(site.table("event", name="step_completed")) == 1


@pytest.mark.long
def test_a_querier_killed_over_a_question(tmp_path: Path) -> None:
    """It dies before it calls the peer: the question is asked again, and the series ends by the answer."""
    once = {"PACSNODE_FAULT": "before-query", "PACSNODE_FAULT_ONCE": str(tmp_path / "once")}
    with place(tmp_path, "count_from: source", **once) as (site, console, _):
        console.counts = [8]
        console.scanner.send(ball(tmp_path))
        assert sealed(site) == ["8 objects: C-FIND at CT02 counts 8 objects, all here"]
        assert (tmp_path / "once").exists()
