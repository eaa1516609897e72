"""Priors between processes, Orthanc as the PACS: found by C-FIND, fetched by C-MOVE or C-GET, inputs only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import peers
import pydicom
import pytest
from crash.crash_house import House, Pacs, Scanner, house

from node.store.database import rows
from node.store.schema import prior_fetch, wanted_prior
from node.testing import Grid, Series, sphere_volume, write_ct_series

RULES = {
    "all": """
rule: all
purpose: Everything that is received goes to the archive at once.
owner: tests@hospital.example
when: {}
send:
  - {what: received, to: ARCHIVE}
""",
    "growth": """
rule: growth
purpose: What changed since the last CT of the same patient.
owner: tests@hospital.example
scope: study
when: {}
inputs:
  now: {when: {Modality: CT}}
  old: {prior: {at: PACS, max_age: 5 y}, when: {Modality: CT}}
wait: {at_most: 20 min, then: skip}
do:
  - subtract: {volume: now, other: old}
    as: change
send:
  - {what: change, to: ARCHIVE}
""",
    "whole": """
rule: whole
purpose: Would run on any CT that arrives.
owner: tests@hospital.example
when: {Modality: CT, SeriesDescription: Prior}
do:
  - reformat: {plane: axial, thickness: 6 mm, every: 6 mm, combine: mean}
    as: thick
send:
  - {what: thick, to: ARCHIVE}
""",
}
PATIENT = {
    "PatientID": "P-7", "IssuerOfPatientID": "HOSPITAL", "PatientBirthDate": "19600131", "PatientSex": "F",
}  # fmt: skip


def ct(folder: Path, name: str, day: str, **changes: Any) -> list[Path]:
    """A small CT of the patient, of a day, on the same grid and in the same frame of reference."""
    volume = sphere_volume(Grid((8, 24, 24), (3.0, 2.0, 2.0)), radius=9.0, inside=40.0)
    said = {
        **PATIENT, "StudyDate": day, "StudyTime": "100000", "FrameOfReferenceUID": "2.25.99",
        "SeriesDescription": "Prior", **changes,
    }  # fmt: skip
    return write_ct_series(folder / name, volume, series=Series(name, changes=said))


@dataclass
class Place:
    """A node, its PACS with what it holds, and the archive that it sends to."""

    site: House
    pacs: peers.Orthanc
    archive: Pacs

    def row(self) -> Mapping[str, Any]:
        """The one prior that is wanted."""
        (found,) = self.table(wanted_prior)
        return found

    def table(self, table: Any) -> list[Mapping[str, Any]]:
        """All rows of a table."""
        database = self.site.database()
        try:
            with database.read() as tx:
                return rows(tx, table.select().order_by(table.c.id))
        finally:
            database.close()

    def until(self, state: str, seconds: float = 90.0) -> Mapping[str, Any]:
        """Wait for what becomes of the prior."""

        def ready() -> bool:
            found = self.table(wanted_prior)
            return bool(found) and found[0]["state"] == state

        self.site.wait_for(ready, f"prior {state} (is {self.table(wanted_prior)})", seconds)
        return self.row()

    def hurry(self) -> None:
        """Let what is tried again have it now."""
        database = self.site.database()
        try:
            with database.write() as tx:
                waits = wanted_prior.c.state == "wanted"
                tx.execute(wanted_prior.update().where(waits).values(due_at=datetime.now(UTC)))
        finally:
            database.close()


@contextlib.contextmanager
def place(folder: Path, way: str = "move", **environ: str) -> Iterator[Place]:
    """A node that fetches in this way from an Orthanc that knows where it is."""
    port, archive_port = peers.free_port(), peers.free_port()
    with peers.orthanc(folder / "orthanc", {"node": ("PACSNODE", "127.0.0.1", port)}) as pacs:
        destinations = (
            f"  ARCHIVE: {{ae_title: ARCHIVE, address: 127.0.0.1:{archive_port}}}\n"
            f"  ORTHANC: {{ae_title: ORTHANC, address: 127.0.0.1:{pacs.port}, priors: {way}}}\n"
        )
        rules = {name: text.replace("at: PACS", "at: ORTHANC") for name, text in RULES.items()}
        with (
            house(folder / "site", rules, port=port, destinations=destinations) as site,
            Pacs(archive_port, "ARCHIVE").open() as archive,
        ):
            site.start(**environ)
            yield Place(site, pacs, archive)
            site.stop()


def uids(files: list[Path]) -> set[str]:
    """Their SOP Instance UIDs."""
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files}


@pytest.mark.parametrize("way", ["move", "get"])
def test_a_prior_is_fetched_and_used_and_nothing_else(tmp_path: Path, way: str) -> None:
    """Found, fetched whole, an input of the run; no other rule is asked about it, and nothing of it is sent on."""
    old, now = ct(tmp_path, "old", "20240105"), ct(tmp_path, "now", "20260301", SeriesDescription="Now")
    with place(tmp_path, way) as here:
        for path in (*old, *ct(tmp_path, "older", "20230105")):
            here.pacs.put(path)
        Scanner(here.site.port).send(now)
        row = here.until("fetched")
        here.site.wait_for(lambda: len(here.archive.held) == 8 + 8, "images and results at the archive")
        (series,) = here.site.table("series", id=row["series_id"])
        assert (series["prior"], series["state"], series["instances"]) == ("ORTHANC", "unrouted", 8)
        assert series["revision"] == 0 and "an input only" in series["reason"]
        (run,) = here.site.table("run")
        assert (run["rule"], run["state"]) == ("growth", "done")
        assert not uids(old) & set(here.archive.held)
        fetched = here.site.table("instance", state="fetched")
        assert {one["sop_uid"] for one in fetched} == uids(old)
        (asked,) = here.table(prior_fetch)
        assert (asked["state"], asked["way"]) == ("done", way)
        events = [e["name"] for e in here.site.table("event", destination="ORTHANC")]
        assert [name for name in events if name.startswith("prior")] == [
            "prior_wanted", "prior_asked", "prior_fetched",
        ]  # fmt: skip
        # The same objects sent ordinarily are ordinary arrivals: routed, judged, a first revision.
        Scanner(here.site.port).send(old)
        here.site.wait_idle()
        assert uids(old) <= set(here.archive.held)
        again = [s for s in here.site.table("series", series_uid=series["series_uid"]) if not s["prior"]]
        assert [(s["revision"], s["state"]) for s in again] == [(1, "routed")]
        assert "whole" in {one["rule"] for one in here.site.table("run")}


@pytest.mark.long
def test_killed_at_every_point_of_a_fetch(tmp_path: Path) -> None:
    """Whoever dies, wherever: the prior is there in the end, once, and no object of it was taken for an arrival."""
    points = ("before-query", "after-fetch-claim", "after-fetch", "after-fetch-finish")
    once = {"PACSNODE_FAULT": ",".join(points), "PACSNODE_FAULT_ONCE": str(tmp_path / "once")}
    old, now = ct(tmp_path, "old", "20240105"), ct(tmp_path, "now", "20260301", SeriesDescription="Now")
    with place(tmp_path, **once) as here:
        for path in old:
            here.pacs.put(path)
        Scanner(here.site.port).send(now)

        def over() -> bool:
            here.hurry()
            return len(here.archive.held) == 8 + 8

        here.site.wait_for(over, "images and results at the archive", 150)
        assert all(Path(f"{tmp_path / 'once'}.{point}").exists() for point in points)
        assert here.row()["state"] == "fetched"
        states = [row["state"] for row in here.table(prior_fetch)]
        assert states[-1] == "done" and set(states[:-1]) == {"failed"}
        assert not uids(old) & set(here.archive.held)
        assert [run["state"] for run in here.site.table("run")] == ["done"]
        mine = [row for row in here.site.table("instance") if row["sop_uid"] in uids(old)]
        assert {row["state"] for row in mine} == {"fetched"}


def test_no_prior_and_why(tmp_path: Path) -> None:
    """Another patient by one of four values: none is fetched, the reason is said, and the rule skips the study."""
    with place(tmp_path) as here:
        for path in ct(tmp_path, "old", "20240105", PatientSex="M"):
            here.pacs.put(path)
        Scanner(here.site.port).send(ct(tmp_path, "now", "20260301", SeriesDescription="Now"))
        row = here.until("none")
        assert "sex differs" in row["reason"]
        here.site.wait_idle()
        assert not here.site.table("run") and not here.table(prior_fetch)
        assert len(here.archive.held) == 8


def test_what_others_asked_the_pacs_for_is_an_arrival(tmp_path: Path) -> None:
    """A C-MOVE to the node that a workstation asked the PACS for carries its originator: routed as anything else."""
    old = ct(tmp_path, "old", "20240105", SeriesDescription="Other")
    with place(tmp_path) as here:
        for path in old:
            here.pacs.put(path)
        instances = [entry["ID"] for entry in here.pacs.get("/instances?expand")]
        here.pacs.post(
            "/modalities/node/store",
            {"Resources": instances, "MoveOriginatorAet": "WORKSTATION", "MoveOriginatorID": 1},
        )
        here.site.wait_for(lambda: uids(old) <= set(here.archive.held), "the images at the archive")
        assert {row["state"] for row in here.site.table("instance")} == {"kept"}
