"""Where and when things go, over real associations: peers that share, windows, holds, trials, what is not wanted."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import peers
import pydicom
from crash.crash_house import MEASURE_CT, Pacs, Scanner, ball, changed, house
from pydicom.dataset import Dataset

ROUTING = """
rule: shared
purpose: Each patient goes to one of two.
owner: tests@hospital.example
when: {SeriesDescription: {matches: "ball*"}}
send:
  - {what: received, to: {share: [AI1, AI2], by: patient}}
---
rule: asked
purpose: A person lets it go.
owner: tests@hospital.example
when: {SeriesDescription: ball held}
send:
  - {what: received, to: PACS, hold: yes}
---
rule: late
purpose: It waits for its time.
owner: tests@hospital.example
when: {SeriesDescription: ball late}
send:
  - {what: received, to: PACS, window: WINDOW}
---
rule: unwanted
purpose: Nobody wants it.
owner: tests@hospital.example
when: {SeriesDescription: unwanted}
discard: yes
"""


def of_patient(folder: Path, patient: str, description: str) -> list[Path]:
    """A series of two slices of a patient of its own."""

    def change(ds: Dataset) -> None:
        ds.PatientID, ds.SeriesDescription = patient, description
        ds.StudyInstanceUID = f"{ds.StudyInstanceUID}.{patient}"
        ds.SeriesInstanceUID = f"{ds.SeriesInstanceUID}.{patient}"
        ds.SOPInstanceUID = f"{ds.SOPInstanceUID}.{patient}"

    plain = ball(folder / f"plain-{patient}", slices=2)
    return [changed(path, folder / patient / path.name, change) for path in plain]


def closed_now() -> str:
    """A window that opens in three hours."""
    local = datetime.now(ZoneInfo("Europe/Berlin"))
    return f"{local + timedelta(hours=3):%H:%M}-{local + timedelta(hours=4):%H:%M}"


def test_each_goes_its_way(tmp_path: Path) -> None:
    """Six patients are spread and kept together; one series waits for a person, one for its time, one for nobody."""
    ports = [peers.free_port() for _ in range(3)]
    named = "".join(
        f'  AI{n}: {{ae_title: AI{n}, address: "127.0.0.1:{port}"}}\n' for n, port in enumerate(ports[:2], 1)
    )
    rules = ROUTING.replace("WINDOW", closed_now())
    with (
        house(tmp_path / "site", {"routing": rules}, pacs_port=ports[2], destinations=named) as site,
        Pacs(ports[0], ae_title="AI1").open() as one,
        Pacs(ports[1], ae_title="AI2").open() as two,
        Pacs(ports[2]).open() as pacs,
    ):
        site.start()
        files = [path for n in range(6) for path in of_patient(tmp_path / "sent", f"9{n}", f"ball {n}")]
        held = of_patient(tmp_path / "sent", "81", "ball held")
        late = of_patient(tmp_path / "sent", "82", "ball late")
        unwanted = of_patient(tmp_path / "sent", "83", "unwanted")
        Scanner(site.port).send([*files, *held, *late, *unwanted])
        site.wait_for(lambda: len(one.datasets) + len(two.datasets) == 16, "all shared objects")
        patients = [{pacs_.read(uid).PatientID for uid in pacs_.datasets} for pacs_ in (one, two)]
        assert not patients[0] & patients[1] and len(patients[0] | patients[1]) == 8
        site.wait_for(lambda: len(site.table("series", state="discarded")) == 1, "what is not wanted")
        assert pacs.asked == 0
        states = {
            row["rule"]: (row["state"], row["reason"]) for row in site.table("delivery", destination="PACS")
        }
        assert states["asked"] == ("held", "held by its rule; `pacsnode release --to PACS` lets it go")
        assert states["late"][0] == "waiting" and "waits for its window" in states["late"][1]
        assert "2 held" in site.verb("status").stdout
        assert "waits for its window" in site.verb("deliveries", "--to", "PACS").stdout
        assert "2 deliveries released" in site.verb("release", "--to", "PACS", "--rule", "asked").stdout
        site.wait_for(lambda: len(pacs.datasets) == 2, "what was released")
        assert {str(pydicom.dcmread(path).SOPInstanceUID) for path in held} == set(pacs.datasets)
        (told,) = site.table("event", name="series_discarded")
        assert "unwanted" in told["detail"]
        site.stop()


def test_trials_and_phantoms_send_nothing(tmp_path: Path) -> None:
    """A rule in shadow mode runs and gates and sends nothing; a phantom is not processed at all, and that is said."""
    trial = MEASURE_CT.replace("rule: measure", "rule: trial\nmode: shadow")
    port = peers.free_port()
    with (
        house(
            tmp_path / "site", {"trial": trial}, pacs_port=port, extra="never_process: [{PatientID: QA-1}]"
        ) as site,
        Pacs(port).open() as pacs,
    ):
        site.start()
        patient, phantom = ball(tmp_path / "sent"), ball(tmp_path / "other")

        def change(ds: Dataset) -> None:
            ds.PatientID = "QA-1"
            ds.StudyInstanceUID, ds.SeriesInstanceUID = (
                f"{ds.StudyInstanceUID}.1",
                f"{ds.SeriesInstanceUID}.1",
            )
            ds.SOPInstanceUID = f"{ds.SOPInstanceUID}.1"

        Scanner(site.port).send([*patient, *(changed(p, tmp_path / "qa" / p.name, change) for p in phantom)])
        site.wait_for(lambda: len(site.table("run", state="done")) == 1, "the trial")
        site.wait_idle()
        assert len(site.table("product")) > 2 and site.table("delivery") == [] and pacs.asked == 0
        shown = json.loads(site.verb("runs", "--shadow", "--json").stdout)
        assert [row["rule"] for row in shown] == ["trial"]
        (barred,) = site.table("series", patient_id="QA-1")
        assert barred["state"] == "unrouted" and "never_process: line" in barred["reason"]
        site.stop()
