"""Text in the pixels: what may hold it, and how a site says where it stands (PS3.15 E.3.1).

Nothing here looks for text in an image. An object of a kind that commonly shows names is held back until the
site's file says, for its device, which rectangles to black out, or that its pixels are clean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydicom.dataset import Dataset
from pydicom.uid import UID

from node.derive import values
from node.derive.deidentify.elements import ascii_of
from node.derive.deidentify.profile import PIXEL_DATA, Profile

Rectangle = tuple[int, int, int, int]
"""Left, top, width, height in pixels; (0, 0) is the upper left corner of the image."""

_ALWAYS = {
    "US": "ultrasound images commonly show the patient's name",
    "SC": "secondary captures commonly show what stood on a screen",
    "OT": "images of modality OT are commonly captures of a screen or paper",
    "SMR": "stress reports are pages with names",
    "DOC": "it is a document, and documents name people",
    "AU": "it is a voice, and people say names",
}
_UNLESS_DENIED = {
    "XA": "angiograms", "RF": "fluoroscopy images", "ES": "endoscopy images", "XC": "photographs",
    "GM": "microscopy images", "DMS": "dermoscopy images", "OP": "ophthalmic photographs",
    "OPT": "ophthalmic tomography images", "DG": "diaphanography images", "TG": "thermograms",
    "HD": "haemodynamic sheets", "IO": "intra-oral radiographs", "PX": "panoramic radiographs",
    "RG": "digitised films", "BI": "biomagnetic images",
}  # fmt: skip
"""Modalities whose images hold text often enough that only Burned In Annotation NO lets them through."""
_SCREENS = frozenset({
    "SCREEN", "SCREEN SAVE", "SCREEN_SAVE", "SCREENSAVE", "SCREENSHOT", "SCREEN SHOT", "REPORT", "CAPTURE",
    "PATIENT_REPORT", "DOSE", "DOSE_INFO", "DOSE REPORT", "PASTED", "CSA REPORT", "LABEL",
})  # fmt: skip
_FILMS = frozenset({"DF", "SD", "SI", "WSD", "DV", "DRW"})
"""Conversion Types of what was a film, a paper, a screen or a drawing (PS3.3 C.8.6.1)."""
_KINDS = {
    "EncapsulatedPDFStorage": "it is a PDF document, whose pages name people",
    "EncapsulatedCDAStorage": "it is a CDA document, which names people",
    "EncapsulatedSTLStorage": "it holds a file of another format, which nobody can clean",
    "EncapsulatedOBJStorage": "it holds a file of another format, which nobody can clean",
    "EncapsulatedMTLStorage": "it holds a file of another format, which nobody can clean",
    "RawDataStorage": "it is raw data, which only its vendor can read",
    "GeneralAudioWaveformStorage": "it is a voice, and people say names",
    "BasicVoiceAudioWaveformStorage": "it is a voice, and people say names",
}
_WORDS = {
    "Video": "it is a video, which cannot be looked through",
    "Ultrasound": _ALWAYS["US"],
    "SecondaryCapture": _ALWAYS["SC"],
}
"""What in the name of an object class says the same."""


@dataclass(frozen=True, slots=True)
class Template:
    """What the site knows of the images of one device."""

    when: Mapping[str, str]
    """Keyword → what it must be; `*` and `?` stand for anything. Rows and Columns are numbers."""
    rectangles: tuple[Rectangle, ...] = ()
    """Where text stands; none: the pixels hold no text."""

    def fits(self, dataset: Dataset) -> bool:
        """Whether it is the one for *dataset*: every line of it fits."""
        return all(_fits(said, wanted) for said, wanted in _sayings(dataset, self.when))


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the pixels of one object."""

    held: str = ""
    """Why it cannot go; empty where it can."""
    rectangles: tuple[Rectangle, ...] = ()
    vouched: bool = False
    """A template said that the pixels are clean, or will be."""


def plan(dataset: Dataset, profile: Profile, templates: Sequence[Template]) -> Plan:
    """Decide about the pixels of *dataset*; the first template that fits counts."""
    risk = _risk(dataset)
    found = next((one for one in templates if one.fits(dataset) and _speaks_of(one, dataset)), None)
    if found is not None and PIXEL_DATA in profile.clean:
        return Plan(rectangles=found.rectangles, vouched=True)
    if not risk:
        return Plan()
    hint = (
        "the profile does not say clean: [pixel_data], so that its template is not used" if found
        else f"a template under deidentify.devices of the site file can say where text stands on {_device(dataset)}"
    )  # fmt: skip
    return Plan(held=f"{risk}; {hint}")


def _speaks_of(template: Template, dataset: Dataset) -> bool:
    """Whether the template means such an object: one for a device's images says nothing of its documents.

    What is no picture goes only where a template says so of its very class.
    """
    kind = UID(ascii_of(dataset, "SOPClassUID")).keyword
    picture = "Rows" in dataset and kind not in _KINDS and "Video" not in kind
    return picture or ("SOPClass" in template.when and not template.rectangles)


def _risk(dataset: Dataset) -> str:
    """Why the pixels may name somebody; empty where nothing speaks for it."""
    sop_class, modality = UID(ascii_of(dataset, "SOPClassUID")), ascii_of(dataset, "Modality").upper()
    kind = "" if sop_class.is_private else sop_class.keyword
    if "Storage" not in kind:
        return "its SOP class is none of the standard's, so that nobody can tell what it holds"
    burned = ascii_of(dataset, "BurnedInAnnotation").upper()
    if burned == "YES":
        return "Burned In Annotation says that text stands in its pixels"
    by_class = _KINDS.get(kind) or next((why for word, why in _WORDS.items() if word in kind), "")
    if by_class or not _has_pixels(dataset):
        return by_class
    by_modality = "" if _ours(kind) else _ALWAYS.get(modality, "")
    return by_modality or _screen(dataset) or _undenied(kind, modality, burned)


def _ours(kind: str) -> bool:
    """Whether the class says more of the pixels than the modality, which is OT for want of a better one."""
    return kind in ("SegmentationStorage", "ParametricMapStorage", "LabelMapSegmentationStorage")


def _has_pixels(dataset: Dataset) -> bool:
    return any(keyword in dataset for keyword in ("PixelData", "Rows", "PixelDataProviderURL"))


def _screen(dataset: Dataset) -> str:
    flavours = {part.strip().upper() for part in ascii_of(dataset, "ImageType").split("\\")}
    if flavours & _SCREENS:
        return f"Image Type says {sorted(flavours & _SCREENS)[0]}, a picture of text"
    if ascii_of(dataset, "ConversionType").upper() in _FILMS:
        return "Conversion Type says that it was a film, paper or screen"
    if ascii_of(dataset, "SpecimenLabelInImage").upper() == "YES":
        return "Specimen Label in Image says that the label of the slide can be read"
    return ""


def _undenied(kind: str, modality: str, burned: str) -> str:
    if burned == "NO":
        return ""
    if modality in _UNLESS_DENIED:
        return f"{_UNLESS_DENIED[modality]} commonly hold text, and Burned In Annotation does not say NO"
    if kind.startswith("VL") and kind not in ("VLWholeSlideMicroscopyImageStorage",):
        return "photographs and endoscopy images commonly hold text, and Burned In Annotation does not say NO"
    if kind.startswith(("XRayAngio", "XRayRadiofluoro", "EnhancedXA", "EnhancedXRF")):
        return (
            "angiograms and fluoroscopy images commonly hold text, and Burned In Annotation does not say NO"
        )
    return ""


def _sayings(dataset: Dataset, when: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(_said(dataset, keyword), wanted) for keyword, wanted in when.items()]


def _said(dataset: Dataset, keyword: str) -> str:
    if keyword == "SOPClass":
        uid = ascii_of(dataset, "SOPClassUID")
        return UID(uid).keyword or uid
    element = dataset.get_item(keyword)
    if element is None:
        return ""
    return (
        ascii_of(dataset, keyword)
        if values.vr_of(element) in values.TEXT_VRS
        else str(dataset[keyword].value)
    )


def _fits(said: str, wanted: str) -> bool:
    return bool(said) and fnmatchcase(" ".join(said.upper().split()), " ".join(wanted.upper().split()))


def _device(dataset: Dataset) -> str:
    parts = (ascii_of(dataset, "Manufacturer"), ascii_of(dataset, "ManufacturerModelName"))
    return " ".join(part for part in parts if part and part.isprintable())[:80] or "its device"
