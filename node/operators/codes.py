"""Coded concepts that several operators use, each in one place; and all that are of our own scheme.

A private code (99PACSNODE) stands where no standard code means exactly this. It has one meaning, and its meaning no
other code: who collects numbers by their codes must not find two things under one, or one thing under two. What
depends on a number or a name has a code made of its meaning (`private_code`).
"""

from __future__ import annotations

import hashlib

from node.operator import Code

PRIVATE = "99PACSNODE"
OURS: dict[str, Code] = {}
"""Code value → every private code that depends on nothing."""
_LONGEST = 16
"""Characters of a Code Value (PS3.5 6.2, SH)."""
_STEM = 9


def _ours(value: str, meaning: str) -> Code:
    if value in OURS or meaning in {code.meaning for code in OURS.values()}:
        raise ValueError(f"{value}, {meaning}: one of them stands for something else already")
    return OURS.setdefault(value, Code(value, PRIVATE, meaning))


def private_code(stem: str, meaning: str, *, whole: bool = False) -> Code:
    """The code of a meaning that depends on a number or a name: another *meaning* has another value.

    The value begins with *stem*; behind the hyphen, which stands in no code of a table or of a name, is a digest. A
    stem that says *whole* what the meaning does is the value, where it is short enough.
    """
    meaning = meaning[:64]
    if whole and len(stem) <= _LONGEST:
        return Code(stem, PRIVATE, meaning)
    digest = hashlib.sha256(meaning.encode()).hexdigest()[: _LONGEST - _STEM - 1].upper()
    return Code(f"{stem[:_STEM]}-{digest}", PRIVATE, meaning)


def private_value(name: str) -> str:
    """A code value of our own scheme for a *name*, whatever its case: another one for each name.

    The name itself where it has up to 16 letters and digits and nothing else, and no code of ours is called so; else
    its first letters and a digest.
    """
    plain = name.upper()
    if name.isascii() and name.isalnum() and len(plain) <= _LONGEST and plain not in OURS:
        return plain
    letters = "".join(c for c in plain if c.isalnum() and c.isascii())
    return f"{letters[:7]}.{hashlib.sha256(name.lower().encode()).hexdigest()[:8].upper()}"


PERCENT = Code("%", "UCUM", "Percent")
RATIO = Code("{ratio}", "UCUM", "ratio")
SECONDS = Code("s", "UCUM", "second")
MILLILITER = Code("ml", "UCUM", "milliliter")
CUBIC_MM = Code("mm3", "UCUM", "cubic millimeter")
VOXELS = Code("{voxels}", "UCUM", "voxels")
COUNTS = Code("{counts}", "UCUM", "Counts")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")

MEAN = Code("373098007", "SCT", "Mean")  # derivations: CID 7464
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
MINIMUM = Code("255605001", "SCT", "Minimum")
MAXIMUM = Code("56851009", "SCT", "Maximum")
MEDIAN = Code("373099004", "SCT", "Median")
TOTAL = Code("255619001", "SCT", "Total")
PEAK = Code("126031", "DCM", "Peak Value Within ROI")

LEFT = Code("7771000", "SCT", "Left")  # CID 244
RIGHT = Code("24028007", "SCT", "Right")
BOTH = Code("51440002", "SCT", "Right and left")

TISSUE = Code("85756007", "SCT", "Tissue")  # category (CID 7150) and type (CID 7151)
ANATOMY = Code("91723000", "SCT", "Anatomical Structure")  # CID 7150
ENTIRE_BODY = Code("38266002", "SCT", "Entire body")  # CID 7151
LUNG = Code("39607008", "SCT", "Lung")  # CID 6202 and others

VOLUME = Code("118565006", "SCT", "Volume")
VOXEL_SUM = Code("126030", "DCM", "Sum of segmented voxel method for volume")  # CID 7474
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")  # CID 7180
SIGNAL = Code("110852", "DCM", "MR signal intensity")
TOMOGRAPHIC = Code("110821", "DCM", "Nuclear Medicine Tomographic Activity")
PROJECTION = Code("110820", "DCM", "Nuclear Medicine Projection Activity")
SUV_LEAN = Code("126402", "DCM", "SUVlbm")
"""Lean body mass by a formula that the image does not name."""
SUVS = {
    "g/ml{SUVbw}": Code("126401", "DCM", "SUVbw"),
    "g/ml{SUVibw}": Code("126404", "DCM", "SUVibw"),
    "g/ml{SUVlbm}": SUV_LEAN,
    "g/ml{SUVlbm(James128)}": Code("126406", "DCM", "SUVlbm(James128)"),
    "g/ml{SUVlbm(Janma)}": Code("126405", "DCM", "SUVlbm(Janma)"),
    "cm2/ml{SUVbsa}": Code("126403", "DCM", "SUVbsa"),
}
"""UCUM unit of a Standardized Uptake Value (CID 85) → which one it is."""

VOXEL_VALUE = _ours("VOXELVALUE", "Voxel value")
"""Of which no coded quantity is known: the unit says what is known of it, a standard code would claim more."""
NOT_MEASURED = _ours("NOTMEASURED", "Number of voxels left out as not measured")
LEFT_OUT = _ours("RESEGMENTED", "Number of voxels left out by their value")

LAA = _ours("LAA950", "Low attenuation area of lung below -950 HU (LAA-950)")
PERC15 = _ours("PERC15", "15th percentile of lung density (Perc15)")
SHARE_OF_VOXELS = _ours("VOXELSHARE", "Share of measured voxels of the segment")
AGATSTON_SCALED = _ours("AGATSTONSCALED", "Agatston, approximated: sum x increment / 3 mm")

PERCENT_ENHANCEMENT = _ours("PERCENTENHANCEMENT", "Percent enhancement over the signal before contrast")
SIGNAL_ENHANCEMENT_RATIO = _ours("SER", "Signal enhancement ratio: early over late enhancement")

MEASURABLE = _ours("PERCISTMIN", "Least peak of a measurable focus (PERCIST 1.0)")

GEOMETRIC_MEAN = _ours("GEOMETRICMEAN", "Geometric mean of anterior and posterior counts")
ONE_VIEW = _ours("ONEVIEW", "Counts of one view")
ANTERIOR_ALONE = _ours("ANTERIORONLY", "Anterior projection alone")
SHARE = _ours("COUNTSHARE", "Share of counts of both sides")
RELATIVE_UPTAKE = _ours("RELATIVEUPTAKE", "Relative uptake, mean counts per pixel")
RELATIVE_MEAN = _ours("RELATIVEMEAN", "Relative uptake, mean of voxels")
BINDING = _ours("BINDINGRATIO", "Specific binding ratio")
COUNT_RATE = _ours("COUNTRATE", "Count rate")
TIME_TO_PEAK = _ours("TIMETOPEAK", "Time from the first frame to the highest count rate")
AREA = _ours("CURVEAREA", "Area under the time-activity curve")
HALF_TIME = _ours("HALFTIME", "Time from the highest count rate to half of it")
DECAY_CORRECTED = _ours("DECAYCORRECTED", "Corrected for decay to the start of the first frame")
NOT_CORRECTED = _ours("NOTDECAYCORRECTED", "Not corrected for decay")
EMPTY_LINES = _ours("EMPTYLINES", "Rows and columns without counts inside the image")
SOME_REGION = _ours("REGION", "Region of the image")
"""Of which its name says the side alone."""
ALL_FRAMES = _ours("ALLFRAMES", "All frames of the image")
INTEGRAL = _ours("INTEGRALUNIF", "Integral uniformity")
DIFFERENTIAL = _ours("DIFFUNIF", "Differential uniformity")
DIFFERENTIAL_X = _ours("DIFFUNIFX", "Differential uniformity along rows")
DIFFERENTIAL_Y = _ours("DIFFUNIFY", "Differential uniformity along columns")
NEMA = _ours("NEMANU1", "NEMA NU 1-2007, 2.4.4")
USEFUL_FIELD = _ours("UFOV", "Useful field of view")
CENTRAL_FIELD = _ours("CFOV", "Central field of view")
