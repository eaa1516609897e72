"""Coded concepts of nuclear medicine reports; private ones where no standard code means exactly this."""

from __future__ import annotations

import hashlib

from node.operator import Code

PRIVATE = "99PACSNODE"
_LONGEST = 16

ACTIVITY = Code("110820", "DCM", "Nuclear Medicine Projection Activity")  # CID 7180
TOMOGRAPHIC = Code("110821", "DCM", "Nuclear Medicine Tomographic Activity")
COUNTS = Code("{counts}", "UCUM", "Counts")
PER_SECOND = Code("{counts}/s", "UCUM", "Counts per second")
PERCENT = Code("%", "UCUM", "Percent")
RATIO = Code("{ratio}", "UCUM", "ratio")
SECONDS = Code("s", "UCUM", "second")
LINES = Code("{lines}", "UCUM", "lines")

TOTAL = Code("255619001", "SCT", "Total")  # derivations: CID 7464
MEAN = Code("373098007", "SCT", "Mean")
MAXIMUM = Code("56851009", "SCT", "Maximum")

LEFT = Code("7771000", "SCT", "Left")  # CID 244
RIGHT = Code("24028007", "SCT", "Right")

GEOMETRIC_MEAN = Code("GEOMETRICMEAN", PRIVATE, "Geometric mean of anterior and posterior counts")
ONE_VIEW = Code("ONEVIEW", PRIVATE, "Counts of one view")
SHARE = Code("COUNTSHARE", PRIVATE, "Share of counts of both sides")
RELATIVE_UPTAKE = Code("RELATIVEUPTAKE", PRIVATE, "Relative uptake, mean counts per pixel")
RELATIVE_MEAN = Code("RELATIVEMEAN", PRIVATE, "Relative uptake, mean of voxels")
BINDING = Code("BINDINGRATIO", PRIVATE, "Specific binding ratio")
COUNT_RATE = Code("COUNTRATE", PRIVATE, "Count rate")
TIME_TO_PEAK = Code("TIMETOPEAK", PRIVATE, "Time from the first frame to the highest count rate")
AREA = Code("CURVEAREA", PRIVATE, "Area under the time-activity curve")
HALF_TIME = Code("HALFTIME", PRIVATE, "Time from the highest count rate to half of it")
DECAY_CORRECTED = Code("DECAYCORRECTED", PRIVATE, "Corrected for decay to the start of the first frame")
NOT_CORRECTED = Code("NOTDECAYCORRECTED", PRIVATE, "Not corrected for decay")
EMPTY_LINES = Code("EMPTYLINES", PRIVATE, "Rows and columns without counts inside the image")
INTEGRAL = Code("INTEGRALUNIF", PRIVATE, "Integral uniformity")
DIFFERENTIAL = Code("DIFFUNIF", PRIVATE, "Differential uniformity")
DIFFERENTIAL_X = Code("DIFFUNIFX", PRIVATE, "Differential uniformity along rows")
DIFFERENTIAL_Y = Code("DIFFUNIFY", PRIVATE, "Differential uniformity along columns")
NEMA = Code("NEMANU1", PRIVATE, "NEMA NU 1-2007, 2.4.4")

_SITES = {
    "kidney": Code("64033007", "SCT", "Kidney"),
    "lung": Code("39607008", "SCT", "Lung"),
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
    rest = " ".join(word for word in words if side is None or word not in ("left", "right")) or name
    return _SITES.get(rest) or Code(private_value(rest), PRIVATE, rest[:64]), side


def private_value(name: str) -> str:
    """A code value of our own scheme for a *name*: at most 16 characters (PS3.5 6.2, SH), another for each name.

    Its letters where they are few and plain; else the first of them and a digest.
    """
    plain = "".join(c for c in name.upper() if c.isalnum() and c.isascii())
    if 0 < len(plain) <= _LONGEST and name.isascii():
        return plain
    return plain[:8] + hashlib.sha256(name.lower().encode()).hexdigest()[:8].upper()
