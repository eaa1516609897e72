"""Rules that change what they send, over real associations: what arrives is changed, recorded and valid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peers
import pydicom
import pytest
from commit_peers import Archive
from crash.crash_house import MEASURE_CT, ROUTE_ALL, House, Pacs, Scanner, ball, fresh_uids, house
from e2e_edit_material import EDITED, complaints, of_every_kind, original_of, send_as_they_are
from pydicom.uid import ImplicitVRLittleEndian
from send.sending_peers import dataset_of


def kept_bytes(site: House) -> set[bytes]:
    """The datasets of all that the node received, as it keeps them."""
    return {dataset_of(path) for path in (site.data / "objects").rglob("*.dcm")}


def test_objects_of_every_kind_arrive_changed(tmp_path: Path) -> None:
    """DCMTK gets each object with its new values and the old ones recorded; ours are the bytes that came."""
    files = of_every_kind(tmp_path / "sent")
    with (
        peers.storescp(tmp_path / "pacs", "+xa", ae_title="PACS") as pacs,
        house(tmp_path / "site", {"all": EDITED}, pacs_port=pacs.port) as site,
    ):
        site.start()
        send_as_they_are(site, files)
        site.wait_for(lambda: len(pacs.files()) >= len(files), "all objects")
        site.wait_idle()
        got = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, pacs.files())}
        for path in files:
            before = pydicom.dcmread(path)
            after = got[str(before.SOPInstanceUID)]
            was = str(before.get("PatientID", ""))
            assert str(after.PatientID) == (f"H2-{was}" if was else ""), path.name
            assert after.IssuerOfPatientID == "H2" and "PatientComments" not in after
            assert str(original_of(after).PatientID) == was if was else True
            if "PixelData" in before:
                assert np.array_equal(before.pixel_array, after.pixel_array), path.name
        assert kept_bytes(site) >= {dataset_of(path) for path in files}
        for path in pacs.files():
            uid = str(pydicom.dcmread(path).SOPInstanceUID)
            source = next(p for p in files if str(pydicom.dcmread(p).SOPInstanceUID) == uid)
            if "dfl" not in source.name:  # dciodvfy does not inflate
                assert complaints(path) <= complaints(source), source.name
        told = {row["reason"] for row in site.table("delivery")}
        assert told == {
            "stored, changed by its rule",
            "stored, changed by its rule, as a copy in Explicit VR Little Endian",  # deflated, and Big Endian
        }
        assert not list((site.data / "transcoded").glob("*.dcm"))
        site.stop()


def test_a_changed_object_goes_in_a_syntax_that_is_taken(tmp_path: Path) -> None:
    """An archive that takes no compression gets the changed object uncompressed, with the same pixels."""
    files = [path for path in of_every_kind(tmp_path / "sent") if "jpeg" in path.name or "RLE" in path.name]
    with (
        peers.storescp(tmp_path / "pacs", "+xi", ae_title="PACS") as pacs,
        house(tmp_path / "site", {"all": EDITED}, pacs_port=pacs.port) as site,
    ):
        site.start()
        send_as_they_are(site, files)
        site.wait_for(lambda: len(pacs.files()) >= len(files), "all objects")
        site.wait_idle()
        sent = {str(pydicom.dcmread(path).SOPInstanceUID): pydicom.dcmread(path) for path in files}
        for after in map(pydicom.dcmread, pacs.files()):
            before = sent[str(after.SOPInstanceUID)]
            assert after.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
            assert str(after.PatientID).startswith("H2-")
            assert np.array_equal(before.pixel_array, after.pixel_array)
        assert not list((site.data / "transcoded").glob("*.dcm"))
        site.stop()


def test_what_cannot_be_changed_stays_and_the_rest_goes(tmp_path: Path) -> None:
    """One object that the table does not know is parked with a sentence; after `retry` it is tried again."""
    refusing = EDITED.replace("remove: [PatientComments]", "map: {SeriesDescription: {ball: Ball}}")
    files = [*ball(tmp_path / "sent", slices=2), *ball(tmp_path / "other", "cube", slices=2)]
    strange = files[0]
    ds = pydicom.dcmread(strange)
    ds.SeriesDescription = "unknown"
    ds.save_as(strange)
    for path in files[1:]:
        ds = pydicom.dcmread(path)
        ds.SeriesDescription = "ball"
        ds.save_as(path)
    port = peers.free_port()
    with (
        house(tmp_path / "site", {"all": refusing, "plain": ROUTE_ALL.replace("rule: all", "rule: plain").replace(
            "to: PACS", "to: OTHER")}, pacs_port=port,
            destinations=f'  OTHER: {{ae_title: OTHER, address: "127.0.0.1:{(second := peers.free_port())}"}}') as site,
        Pacs(port).open() as pacs, Pacs(second, ae_title="OTHER").open() as other,
    ):  # fmt: skip
        site.start()
        Scanner(site.port).send(files)
        site.wait_for(lambda: len(pacs.datasets) == 3 and len(other.datasets) == 4, "all but one")
        (parked,) = site.table("delivery", state="parked")
        assert parked["destination"] == "PACS"
        assert "the value of SeriesDescription is not in the table of the rule" in parked["reason"]
        assert len(site.table("event", name="delivery_parked")) == 1
        site.stop()


def test_results_are_changed_and_pass_the_gate_again(tmp_path: Path) -> None:
    """Images, a segmentation and a report go with the prefix; no record of older values, and no new complaint."""
    rule = MEASURE_CT.replace("send:", "edit: [{prefix: {PatientID: H2-}}]\nsend:")
    with (
        peers.storescp(tmp_path / "pacs", "+xa", ae_title="PACS") as pacs,
        house(tmp_path / "site", {"measure": rule}, pacs_port=pacs.port) as site,
    ):
        site.start()
        files = ball(tmp_path / "sent")
        patient = str(pydicom.dcmread(files[0]).PatientID)
        Scanner(site.port).send(files)
        site.wait_for(lambda: len(site.table("product")) > 2, "results")
        site.wait_idle()
        made = {row["sop_uid"]: site.data / row["path"] for row in site.table("product")}
        got = {str(pydicom.dcmread(path).SOPInstanceUID): path for path in pacs.files()}
        assert set(got) == set(made)
        for uid, path in got.items():
            after = pydicom.dcmread(path)
            assert str(after.PatientID) == f"H2-{patient}" and "OriginalAttributesSequence" not in after
            assert pydicom.dcmread(made[uid]).PatientID == patient
            assert complaints(path) <= complaints(made[uid])
        site.stop()


def test_an_archive_commits_to_what_was_changed(tmp_path: Path) -> None:
    """It is asked about under the UID that it got."""
    rule = EDITED.replace("to: PACS", "to: ARCHIVE")
    port = peers.free_port()
    named = (
        f'  ARCHIVE: {{ae_title: ARCHIVE, address: "127.0.0.1:{port}", sends_as: [ARCHIVE], commit: yes, '
        "redeliver_after: 1 s}"
    )
    node_port = peers.free_port()
    with (
        house(tmp_path / "site", {"all": rule}, port=node_port, destinations=named) as site,
        Archive(port, node_port).open(),
    ):
        site.start()
        Scanner(site.port).send(ball(tmp_path / "sent", slices=3))
        site.wait_for(lambda: len(site.table("delivery", state="committed")) == 3, "commitment to all")
        site.stop()


def test_the_same_object_sent_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """A redelivery is the copy of before, byte for byte; a restart in between changes nothing."""
    port = peers.free_port()
    with (
        house(tmp_path / "site", {"all": EDITED.replace("to: PACS", "to: OTHER")}, destinations=(
            f'  OTHER: {{ae_title: OTHER, address: "127.0.0.1:{port}", redeliver_after: 1 s}}')) as site,
        Pacs(port, ae_title="OTHER").open() as pacs,
    ):  # fmt: skip
        site.start()
        files = fresh_uids(ball(tmp_path / "sent", slices=3), tmp_path / "fresh")
        scanner = Scanner(site.port)
        scanner.send(files)
        site.wait_for(lambda: len(pacs.got) == 3, "the first time")
        site.wait_idle()
        site.stop()
        site.start()
        scanner.send(files)
        site.wait_for(lambda: len(pacs.got) == 6, "the second time")
        assert all(len(digests) == 1 for digests in pacs.held.values()), pacs.held
        site.stop()


@pytest.mark.long
def test_a_kill_at_any_point_of_changing_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """The transcoder dies before and with its copy, the conductor with one in hand: each object arrives, changed."""
    points, once = ("before-transcode", "before-transcoded:2", "after-copied"), tmp_path / "once"
    port = peers.free_port()
    with (
        house(
            tmp_path / "site", {"all": EDITED}, pacs_port=port,
            environ={"PACSNODE_FAULT": ",".join(points), "PACSNODE_FAULT_ONCE": str(once)},
        ) as site,
        Pacs(port).open() as pacs,
    ):  # fmt: skip
        site.start()
        files = ball(tmp_path / "sent", slices=5)
        Scanner(site.port).send(files)
        site.wait_for(lambda: len(pacs.datasets) == 5, "all objects")
        site.wait_idle()
        assert {str(pacs.read(uid).PatientID)[:3] for uid in pacs.datasets} == {"H2-"}
        assert all(len(digests) == 1 for digests in pacs.held.values())
        assert len(list(tmp_path.glob("once.*"))) == len(points)
        site.stop()
