"""Values that stand where a real one was (action D of PS3.15 Table E.1-1a), consistent with the VR."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from node.derive.deidentify.secrets import Secrets

REMOVED = "REMOVED"
_BY_VR: dict[str, Any] = {
    "AE": REMOVED, "AS": "000D", "CS": REMOVED, "DA": "19000101", "DS": "0", "DT": "19000101000000", "IS": "0",
    "LO": REMOVED, "LT": REMOVED, "PN": REMOVED, "SH": REMOVED, "ST": REMOVED, "TM": "000000", "UC": REMOVED,
    "UR": "removed:", "UT": REMOVED, "FD": 0.0, "FL": 0.0, "SL": 0, "SS": 0, "SV": 0, "UL": 0, "US": 0, "UV": 0,
    "AT": 0, "OB": b"\0\0", "OD": b"\0" * 8, "OF": b"\0" * 4, "OL": b"\0" * 4, "OV": b"\0" * 8, "OW": b"\0\0",
    "UN": b"\0\0",
}  # fmt: skip
_IDENTIFIERS = ("ID", "Identifier", "ApprovalNumber")


def dummy(vr: str, keyword: str, value: str, secrets: Secrets) -> Any:
    """Stand in for *value*; the same identifier gets the same dummy in every object (PS3.15 E.1.1)."""
    if vr == "UI":
        return secrets.uid(value) or secrets.uid(keyword)
    if vr in ("LO", "SH", "UC") and keyword.endswith(_IDENTIFIERS) and value:
        return secrets.token("identifier", keyword, value)
    return _BY_VR[vr]


def code() -> Dataset:
    """A coded entry that says only that there was one (PS3.3 Table 8.8-1)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = REMOVED, "99PACSNODE", "Removed"
    return item


def remark() -> Dataset:
    """A content item in the place of content that was removed whole (PS3.3 C.17.3)."""
    item, name = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "121106", "DCM", "Comment"
    item.RelationshipType, item.ValueType, item.ConceptNameCodeSequence = "CONTAINS", "TEXT", [name]
    item.TextValue = REMOVED
    return item


def label() -> Dataset:
    """A text object in the place of graphics that were removed whole (PS3.3 C.10.5)."""
    item = Dataset()
    item.UnformattedTextValue, item.AnchorPointAnnotationUnits = REMOVED, "DISPLAY"
    item.AnchorPoint, item.AnchorPointVisibility = [0.0, 0.0], "N"
    return item
