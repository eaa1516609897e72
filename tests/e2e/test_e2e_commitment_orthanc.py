"""Orthanc as the second opinion on storage commitment: it commits to what we sent, and it asks us."""

from __future__ import annotations

from pathlib import Path

import peers
import pydicom
from crash.crash_house import Scanner, ball, house

RULES = {
    "all": """
rule: all
purpose: Everything a scanner sends goes to Orthanc at once.
owner: tests@hospital.example
when: {from: [CT01]}
send:
  - {what: received, to: ORTHANC}
""",
}


def test_orthanc_in_both_roles(tmp_path: Path) -> None:
    """Orthanc commits to what the node stored there, and hears from the node what the archive, itself, committed to.

    An object that the node does not know is told apart.
    """
    node_port = peers.free_port()
    with peers.orthanc(tmp_path / "orthanc", {"NODE": ("PACSNODE", "127.0.0.1", node_port)}) as pacs:
        address = f"address: 127.0.0.1:{pacs.port}"
        destinations = f"  ORTHANC: {{ae_title: ORTHANC, {address}, commit: yes, commit_after: ORTHANC}}"
        with house(tmp_path / "site", RULES, destinations=destinations, port=node_port) as site:
            site.start()
            files = ball(tmp_path)
            Scanner(site.port).send(files)
            site.wait_for(
                lambda: {row["state"] for row in site.table("delivery")} == {"committed"},
                "its commitment",
                60,
            )
            assert len(site.table("delivery")) == 8

            uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files]
            named = [["1.2.840.10008.5.1.4.1.1.2", uid] for uid in [*uids, "1.2.3.4"]]
            asked = pacs.post("/modalities/NODE/storage-commitment", {"DicomInstances": named})
            site.wait_for(
                lambda: pacs.get(f"/storage-commitment/{asked['ID']}")["Status"] != "Pending",
                "our report",
                60,
            )
            told = pacs.get(f"/storage-commitment/{asked['ID']}")
            assert told["Status"] == "Failure" and told["RemoteAET"] == "PACSNODE"
            assert sorted(one["SOPInstanceUID"] for one in told["Success"]) == sorted(uids)
            ((failed, reason),) = ((one["SOPInstanceUID"], one["FailureReason"]) for one in told["Failures"])
            assert (failed, reason) == ("1.2.3.4", 0x0112)
            site.stop()
