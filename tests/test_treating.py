"""Claims about what rules change in objects on their way: what goes with a change, and what keeps it from going."""

from __future__ import annotations

from datetime import UTC, datetime

from pydicom.dataset import Dataset

from node.read.encoding import EXPLICIT
from node.treating import Treated, header_of, treated, tree_of

ABOUT = {
    "received": True,
    "at": datetime(2026, 3, 1, 12, tzinfo=UTC).isoformat(),
    "from": "CT01",
    "system": "PACSNODE",
}


def source(**changes: str) -> Treated:
    """A small signed object."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    dataset.PatientID, dataset.StudyID = "P1", "S1"
    signature = Dataset()
    signature.DigitalSignatureUID = "1.2.4"
    dataset.DigitalSignaturesSequence = [signature]
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return Treated(tree_of(dataset), EXPLICIT, "1.2.3")


def edit(*changes: dict[str, object]) -> dict[str, object]:
    """What the transcoder is asked."""
    return {"treatment": {"edit": {"changes": list(changes)}}, "about": ABOUT}


def test_a_signature_goes_with_what_it_was_over() -> None:
    """What is edited carries no Digital Signatures Sequence any more; what is not edited keeps it."""
    removed = {"op": "remove", "path": "StudyID"}
    after = header_of(treated(source(), edit(removed)).tree)
    assert "DigitalSignaturesSequence" not in after and not after.get("StudyID")
    same = header_of(treated(source(StudyID=""), edit({"op": "remove", "path": "StationName"})).tree)
    assert "DigitalSignaturesSequence" in same
