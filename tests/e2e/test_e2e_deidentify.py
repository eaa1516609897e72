"""De-identified copies over real associations: who gets them, what they hold, and that nothing else goes there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import peers
import pydicom
import pytest
from commit_peers import Archive
from crash.crash_house import MEASURE_CT, House, Pacs, Scanner, ball, changed, fresh_uids, house
from pydicom.data import get_testdata_file

RULE = """
rule: research
purpose: Everything goes to research without identity.
owner: tests@hospital.example
when: {}
send: [{what: received, to: RESEARCH, deidentify: basic}]
"""
IDENTIFIED = RULE.replace("rule: research", "rule: plain").replace(", deidentify: basic", "")
NAME, NUMBER = "Quentin", "Q-471108"


def named(folder: Path, files: list[Path]) -> list[Path]:
    """The files as images of Quentin's."""

    def change(ds: pydicom.Dataset) -> None:
        ds.PatientName, ds.PatientID, ds.ReferringPhysicianName = f"Original^{NAME}", NUMBER, "Physician^Otto"
        ds.StudyDescription, ds.AccessionNumber = f"Follow-up {NAME}", "ACC-99887766"

    return [changed(path, folder / path.name, change) for path in files]


def at(port: int, **more: str) -> str:
    """The peer RESEARCH in the site file."""
    rest = "".join(f", {key}: {value}" for key, value in more.items())
    return f'  RESEARCH: {{ae_title: RESEARCH, address: "127.0.0.1:{port}", only: deidentified{rest}}}'


def assert_nameless(path: Path) -> None:
    """No byte of the file says who it was."""
    data = path.read_bytes()
    for secret in (NAME, NUMBER, "Original", "Otto", "ACC-99887766"):
        assert secret.encode() not in data, (path, secret)


def command(site: House, *arguments: str) -> str:
    """What a verb prints."""
    done = site.verb(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pseudonyms(site: House, *narrowed: str) -> list[dict[str, str]]:
    """Who stands behind which name."""
    return json.loads(command(site, "pseudonyms", "--json", *narrowed))


def test_received_objects_go_without_identity(tmp_path: Path) -> None:
    """A peer marked `only: deidentified` gets nameless copies with UIDs of their own, and nothing else; once each."""
    files = named(tmp_path / "sent", ball(tmp_path / "ball", slices=3))
    with (
        peers.storescp(tmp_path / "pacs", "+xa", ae_title="RESEARCH") as research,
        house(tmp_path / "site", {"r": RULE, "p": IDENTIFIED}, destinations=at(research.port)) as site,
    ):
        site.start()
        Scanner(site.port).send(files)
        site.wait_for(lambda: len(research.files()) >= 3, "three copies")
        site.wait_idle()
        got = [pydicom.dcmread(path) for path in research.files()]
        sent = {str(pydicom.dcmread(path).SOPInstanceUID) for path in files}
        assert len(got) == 3 and not {str(ds.SOPInstanceUID) for ds in got} & sent
        assert len({str(ds.SeriesInstanceUID) for ds in got}) == 1 == len({str(ds.PatientID) for ds in got})
        for path in research.files():
            assert_nameless(path)
            assert not peers.dciodvfy(path)
        refused = {row["detail"] for row in site.table("event", name="delivery_refused")}
        assert any("takes only de-identified data" in detail for detail in refused)
        (row,) = pseudonyms(site)
        assert (row["patient_id"], row["pseudonym"]) == (NUMBER, str(got[0].PatientID))
        assert pseudonyms(site, row["pseudonym"]) == pseudonyms(site, "--patient", NUMBER) == [row]
        assert (site.data / "deidentify.key").stat().st_mode & 0o777 == 0o600
        log = "".join(path.read_text(errors="replace") for path in (tmp_path / "site").rglob("*.log"))
        assert NUMBER not in log and NAME not in log
        site.stop()


def test_results_go_with_references_that_lead_somewhere(tmp_path: Path) -> None:
    """Images and report of a run: nameless, valid, and they refer to the copies that went there."""
    profile = "{profile: basic, clean: [structured_content]}"
    rule = re.sub(r"to: PACS", f"to: RESEARCH, deidentify: {profile}", MEASURE_CT)
    route = RULE.replace("deidentify: basic", f"deidentify: {profile}")
    with (
        peers.storescp(tmp_path / "pacs", "+xa", ae_title="RESEARCH") as research,
        house(tmp_path / "site", {"m": rule, "r": route}, destinations=at(research.port)) as site,
    ):
        site.start()
        Scanner(site.port).send(named(tmp_path / "sent", ball(tmp_path / "ball")))
        site.wait_for(lambda: len(site.table("product")) > 2, "results")
        site.wait_idle()
        assert not site.table("delivery", state="parked"), site.table("delivery", state="parked")
        got = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, research.files())}
        assert len(got) == len(site.table("delivery", state="stored"))
        kinds = {ds.Modality for ds in got.values()}
        assert {"CT", "SR"} <= kinds
        for path in research.files():
            assert_nameless(path)
            assert not peers.dciodvfy(path)
        references = {uid for ds in got.values() for uid in referenced(ds)}
        assert references and references <= set(got)
        assert len({str(ds.StudyInstanceUID) for ds in got.values()}) == 1
        site.stop()


def referenced(dataset: pydicom.Dataset) -> set[str]:
    """Every object that a dataset refers to."""
    found = set()
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                found |= referenced(item)
        elif element.keyword == "ReferencedSOPInstanceUID":
            found.add(str(element.value))
    return found


def test_what_may_show_a_name_stays_here_until_a_template_fits(tmp_path: Path) -> None:
    """An ultrasound image is parked in words; with a template for its device it goes, black where text stood."""
    source = pydicom.dcmread(str(get_testdata_file("examples_rgb_color.dcm")))
    us = named(tmp_path / "sent", [Path(str(get_testdata_file("examples_rgb_color.dcm")))])
    cleaning = RULE.replace("deidentify: basic", "deidentify: {profile: basic, clean: [pixel_data]}")
    port = peers.free_port()
    template = """
deidentify:
  devices:
    - when: {SOPClass: UltrasoundImageStorage, Rows: "*"}
      black: [{left: 0, top: 0, width: 500, height: 20}]
"""
    with (
        house(tmp_path / "site", {"r": cleaning}, destinations=at(port)) as site,
        Pacs(port, ae_title="RESEARCH").open() as pacs,
    ):
        site.start()
        Scanner(site.port).send(us)
        site.wait_for(lambda: site.table("delivery", state="parked"), "a parked delivery")
        (parked,) = site.table("delivery", state="parked")
        assert (
            "ultrasound images commonly show" in parked["reason"] and "deidentify.devices" in parked["reason"]
        )
        site.stop()
        file = tmp_path / "site" / "node.yaml"
        file.write_text(file.read_text() + template)
        site.start()
        command(site, "retry", "--to", "RESEARCH")
        site.wait_for(lambda: len(pacs.datasets) == 1, "the copy")
        (uid,) = pacs.datasets
        copy = pacs.read(uid)
        assert copy.BurnedInAnnotation == "NO" and not copy.pixel_array[:20, :500].any()
        assert (copy.pixel_array[20:] == source.pixel_array[20:]).all()
        site.stop()


@pytest.mark.long
def test_the_same_object_gives_the_same_bytes_and_is_committed_to(tmp_path: Path) -> None:
    """After a restart the copy is the same byte for byte, and the archive is asked about the copy's own UID."""
    port, node_port = peers.free_port(), peers.free_port()
    named_peer = at(port, sends_as="[RESEARCH]", commit="yes", redeliver_after="1 s")
    with (
        house(tmp_path / "site", {"r": RULE}, port=node_port, destinations=named_peer) as site,
        Archive(port, node_port, ae_title="RESEARCH").open(),
    ):
        site.start()
        Scanner(site.port).send(named(tmp_path / "sent", ball(tmp_path / "ball", slices=3)))
        site.wait_for(lambda: len(site.table("delivery", state="committed")) == 3, "commitment to all")
        site.stop()


@pytest.mark.long
def test_a_redelivery_is_byte_for_byte_the_copy_of_before(tmp_path: Path) -> None:
    """Sent again after a restart, an object goes as the same copy; its pseudonym is in the table once."""
    port = peers.free_port()
    with (
        house(tmp_path / "site", {"r": RULE}, destinations=at(port, redeliver_after="1 s")) as site,
        Pacs(port, ae_title="RESEARCH").open() as pacs,
    ):
        site.start()
        files = named(tmp_path / "sent", fresh_uids(ball(tmp_path / "ball", slices=2), tmp_path / "fresh"))
        Scanner(site.port).send(files)
        site.wait_for(lambda: len(pacs.got) == 2, "the first time")
        site.wait_idle()
        site.stop()
        site.start()
        Scanner(site.port).send(files)
        site.wait_for(lambda: len(pacs.got) == 4, "the second time")
        assert all(len(digests) == 1 for digests in pacs.held.values()), pacs.held
        assert len(pseudonyms(site)) == 1
        site.stop()
