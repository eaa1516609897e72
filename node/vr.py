"""What a Value Representation allows (PS3.5 6.2), judged on text: how long it may be and of which form."""

from __future__ import annotations

import re
from datetime import date

from pydicom.datadict import dictionary_VM

CHARSET_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Text whose bytes depend on Specific Character Set (PS3.5 6.1.2.2)."""
TEXT_VRS = CHARSET_VRS | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
SINGLE_VRS = frozenset({"LT", "ST", "UT", "UR"})
"""VRs in which a backslash is no separator."""
_LENGTHS = {"AE": 16, "CS": 16, "LO": 64, "SH": 16, "DS": 16, "IS": 12, "DT": 26, "TM": 14, "UI": 64,
            "LT": 10240, "ST": 1024}  # fmt: skip
_SIZES = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 4, "SV": 8, "UV": 8, "OW": 2}
_FORMS = {
    "AS": (re.compile(r"\d{3}[DWMY]"), "is no age such as 045Y"),
    "CS": (re.compile(r"[A-Z0-9 _]*"), "has characters a code string may not have"),
    "DS": (re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *"), "is no decimal number"),
    "IS": (re.compile(r" *[+-]?\d+ *"), "is no whole number"),
    "TM": (re.compile(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?"), "is no time"),
    "UI": (re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+"), "is no UID"),
    "DT": (re.compile(r"\d{4}(\d{2}(\d{2}(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?"),
           "is no date and time"),
}  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
"""Control characters beside TAB, LF, FF, CR and ESC."""
_LINE_BREAK = re.compile(r"[\x09\x0a\x0c\x0d]")


def text_defect(tag: int, vr: str, text: str) -> str:
    """Say what is wrong with *text* as all values of an attribute, empty when nothing is; never quotes the value."""
    parts = [text] if vr in SINGLE_VRS else text.split("\\")
    wrong = count_defect(tag, len(parts))
    return wrong or next(filter(None, (part_defect(vr, part) for part in parts)), "")


def part_defect(vr: str, part: str) -> str:
    """Say what is wrong with one value, empty when nothing is."""
    text = part if vr in ("LT", "ST", "UT", "DS", "IS") else part.strip(" ")
    return (length_defect(vr, text) or _form_defect(vr, text)) if text else ""


def length_defect(vr: str, text: str) -> str:
    """Say that a value is too long for its VR, empty when it is not."""
    groups = text.split("=") if vr == "PN" else []
    if len(groups) > 3 or any(len(group) > 64 or group.count("^") > 4 for group in groups):
        return "is longer than a person name may be"
    if len(text) > _LENGTHS.get(vr, len(text)):
        return f"has {len(text)} characters, {vr} allows {_LENGTHS[vr]}"
    return ""


def _form_defect(vr: str, text: str) -> str:
    if _CONTROL.search(text) or (vr not in ("LT", "ST", "UT") and _LINE_BREAK.search(text)):
        return "has control characters"
    form = _FORMS.get(vr)
    if form and not form[0].fullmatch(text):
        return form[1]
    if vr == "IS" and not -(2**31) <= int(text) < 2**31:
        return "is too large for an integer string"
    return "is no date" if vr == "DA" and not _is_date(text) else ""


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"\d{8}", text):
        return False
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True


def count_defect(tag: int, count: int) -> str:
    """Say what is wrong with a number of values (PS3.6 VM), empty when nothing is or the tag is unknown."""
    try:
        vm = dictionary_VM(tag)
    except KeyError:
        return ""
    low, _, high = vm.partition("-")
    step = high.removesuffix("n") if high.endswith("n") else ""
    least = int(low)
    fits = count >= least
    if not high:
        fits = count == least
    elif not high.endswith("n"):
        fits = fits and count <= int(high)
    elif step:
        fits = fits and count % int(step) == 0
    return "" if fits else f"has {count} values, the standard asks for {vm}"


def size_defect(vr: str, length: int) -> str:
    """Say what is wrong with the byte length of a binary value."""
    size = _SIZES.get(vr, 1)
    return "" if length % size == 0 else f"has {length} bytes, no multiple of {size}"
