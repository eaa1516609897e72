"""Which attributes `edit:` may change, and how one is named: a keyword, a path into sequences, a part of a name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom.datadict import DicomDictionary, keyword_dict

from node.person import PARTS
from node.shape import nearest

NUMBERS = frozenset({"US", "SS", "UL", "SL", "SV", "UV", "FL", "FD"})
_BULK = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "UN", "AT", "OB or OW", "US or OW", "US or SS or OW",
                   "US or SS", "NONE", ""})  # fmt: skip
_ITEM = re.compile(r"([A-Za-z0-9]+)(?:\[([0-9]+)\])?")
_OF_SHOWING = frozenset({
    "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction", "BurnedInAnnotation",
    "RecognizableVisualFeatures", "QualityControlImage", "PixelSpacingCalibrationDescription",
})  # fmt: skip
"""Of group 0028 what tells how an image is shown and used, not how its pixels are stored."""
_WHY_NOT = {
    "SpecificCharacterSet": "says in which characters all other text is written",
    "ImagePositionPatient": "says where the pixels are",
    "ImageOrientationPatient": "says where the pixels are",
    "SharedFunctionalGroupsSequence": "says how the pixels of each frame came about",
    "PerFrameFunctionalGroupsSequence": "says how the pixels of each frame came about",
    "ContentSequence": "is what the report says",
    "OriginalAttributesSequence": "is the record of such changes",
    "ModifiedAttributesSequence": "is the record of such changes",
    "InstanceCoercionDateTime": "is the record of such changes",
    "DigitalSignaturesSequence": "signs the object as it was",
    "MACParametersSequence": "signs the object as it was",
}


@dataclass(frozen=True, slots=True)
class Target:
    """One attribute, or one part of a name, that an edit looks at or changes."""

    path: str
    """Keyword, or `Sequence[0].Keyword`; a step without a number means every item."""
    part: str
    """`family`, `ideographic.given` …; empty for the whole attribute."""
    keyword: str
    """The last of the path."""
    vr: str

    @property
    def tag(self) -> int:
        """Of the last keyword."""
        return int(keyword_dict[self.keyword])


def target_of(name: str) -> Target:
    """What *name* stands for. Raises ValueError with a sentence and the nearest right word."""
    if name.startswith("("):
        raise ValueError(f"{name}: private attributes mean what their maker says, and are not edited")
    steps = name.split(".")
    for number, step in enumerate(steps):
        match = _ITEM.fullmatch(step)
        keyword = match[1] if match else step
        if keyword not in keyword_dict or not keyword:
            raise ValueError(f"{name}: {keyword} is not a DICOM keyword{nearest(keyword, keyword_dict)}")
        vr, rest = DicomDictionary[keyword_dict[keyword]][0], steps[number + 1 :]
        if vr == "SQ" and rest:
            continue
        if match and match[2] is not None:
            raise ValueError(f"{name}: {keyword} has no items to number" if vr != "SQ" else (
                f"{name}: end the path with the attribute to look at, for example {name}.CodeValue"
            ))  # fmt: skip
        part = ".".join(rest)
        if rest and (vr != "PN" or part not in PARTS):
            raise ValueError(_no_part(name, keyword, vr, part))
        return Target(".".join(steps[: number + 1]), part, keyword, vr)
    raise AssertionError  # the last step always ends the loop


def _no_part(name: str, keyword: str, vr: str, part: str) -> str:
    if vr == "PN":
        return f"{name}: a name has no part {part}{nearest(part, PARTS)} (parts: {', '.join(PARTS[:5])})"
    return f"{name}: {keyword} is not a sequence, so nothing stands below it"


def refusal(target: Target, *, whole: bool = False) -> str:
    """Why no edit may change it, in words; empty where one may. *whole*: it is removed, which a sequence may be."""
    for step in target.path.split("."):
        keyword = step.partition("[")[0]
        if keyword in _WHY_NOT:
            return f"{keyword} {_WHY_NOT[keyword]}; it cannot be edited"
        if reason := _by_group(keyword):
            return f"{keyword} {reason}; it cannot be edited"
    if target.vr == "UI":
        return f"{target.keyword} is a UID, which ties objects together; it cannot be edited"
    if target.vr == "SQ" and not whole:
        return f"{target.keyword} is a sequence; name an attribute in it, as {target.keyword}[0].CodeValue"
    if target.vr in _BULK:
        return f"{target.keyword} holds bulk data; it cannot be edited"
    return ""


def _by_group(keyword: str) -> str:
    group = int(keyword_dict[keyword]) >> 16
    if group <= 0x0006:
        return "belongs to the file or the message, not to the object"
    if (group == 0x0028 and keyword not in _OF_SHOWING) or group in (0x7FE0, 0x5400):
        return "describes how the pixels or samples are stored"
    if 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF:
        return "belongs to an overlay or a curve"
    return ""
