"""SIGKILL while results replace others: no note twice, none missing, and none that names what is valid."""

from __future__ import annotations

from pathlib import Path

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
    derived,
    house,
)

KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
FAULTS = (
    "before-run-finish",  # the newer results and the withdrawal are queued in a transaction that is still open
    "after-run-claim:2",  # the withdrawal is claimed, its identity remembered, and no worker knows it
    "before-run-finish:2",  # the note is made, and its delivery not committed
)
"""Where the conductor dies after a late image; the first passage is the newer run, the second its withdrawal."""


def named(pacs: Pacs, uid: str) -> list[str]:
    """What a note rejects."""
    (study,) = pacs.read(uid).CurrentRequestedProcedureEvidenceSequence
    return sorted(
        str(item.ReferencedSOPInstanceUID)
        for s in study.ReferencedSeriesSequence
        for item in s.ReferencedSOPSequence
    )


def sent_late(site: House, pacs: Pacs, scanner: Scanner, image: Path, fault: str, once: Path) -> list[str]:
    """A node that dies at *fault* gets one more image; what new objects the PACS then has, in order."""
    before = set(pacs.held)
    site.start(PACSNODE_FAULT=fault, PACSNODE_FAULT_ONCE=str(once))
    scanner.send([image])
    site.wait_for(lambda: len(site.table("instance")) == len(scanner.acknowledged), "the late image")
    site.wait_idle()
    assert once.exists(), f"{fault} was not reached"
    site.stop()
    return [
        uid
        for uid in dict.fromkeys(uid for uid, _ in pacs.got)
        if uid not in {*before, *scanner.acknowledged}
    ]


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_node_that_dies_while_results_replace_others(tmp_path: Path) -> None:
    """Late image after late image, each with a death in between: one set of results and one note for each."""
    files = ball(tmp_path, "corrected", slices=6 + len(FAULTS))
    first, late = files[: -len(FAULTS)], files[-len(FAULTS) :]
    environ = {"PACSNODE__PEERS__PACS__IOCM": "yes"}
    rules = {"all": ROUTE_ALL, "measure": MEASURE_CT}
    with (
        house(tmp_path / "site", rules, environ=environ) as site,
        Pacs(site.pacs_port).open() as pacs,
    ):
        site.start()
        scanner = Scanner(site.port)
        scanner.send(first)
        site.wait_idle()
        site.stop()
        valid = sorted(derived(scanner, pacs))
        for number, (fault, image) in enumerate(zip(FAULTS, late, strict=True)):
            came = sent_late(site, pacs, scanner, image, fault, tmp_path / f"once-{number}")
            notes = [uid for uid in came if pacs.read(uid).SOPClassUID == KEY_OBJECT]
            assert len(notes) == 1 and came[-1] == notes[0], (fault, "one note, after everything else")
            assert named(pacs, notes[0]) == valid, fault
            valid = sorted(set(came) - set(notes))
        states = [row["state"] for row in site.table("run") if not row["withdraws"]]
        assert states == ["superseded"] * len(FAULTS) + ["done"]
        assert [row["state"] for row in site.table("run") if row["withdraws"]] == ["done"] * len(FAULTS)
        assert_delivered(scanner, pacs)
        assert str(pydicom.dcmread(files[0]).StudyInstanceUID) == pacs.read(notes[0]).StudyInstanceUID
