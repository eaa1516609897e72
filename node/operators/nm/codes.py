"""Coded concepts of nuclear medicine reports: units, and sites by the names of regions."""

from __future__ import annotations

from node.operator import Code
from node.operators.codes import LEFT, LUNG, PRIVATE, RIGHT, SOME_REGION, private_value

PER_SECOND = Code("{counts}/s", "UCUM", "Counts per second")
LINES = Code("{lines}", "UCUM", "lines")

_SITES = {
    "kidney": Code("64033007", "SCT", "Kidney"),
    "lung": LUNG,
    "liver": Code("10200004", "SCT", "Liver"),
    "spleen": Code("78961009", "SCT", "Spleen"),
    "heart": Code("80891009", "SCT", "Heart"),
    "bladder": Code("89837001", "SCT", "Bladder"),
    "thyroid": Code("69748006", "SCT", "Thyroid"),
}
"""What a word in the name of a region says of where it lies (SNOMED CT)."""


def site_of(name: str) -> tuple[Code, Code | None]:
    """Site and side of a region by its *name*: `left kidney` is kidney and left; other names are sites of our own."""
    words = name.lower().split()
    sides = [side for word, side in (("left", LEFT), ("right", RIGHT)) if word in words]
    side = sides[0] if len(sides) == 1 else None
    rest = " ".join(word for word in words if side is None or word not in ("left", "right"))
    if not rest:
        return SOME_REGION, side
    return _SITES.get(rest) or Code(private_value(rest), PRIVATE, rest[:64]), side
