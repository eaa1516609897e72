"""What a name in a rule means: a DICOM keyword, a path, a private tag, or a fact of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom.datadict import DicomDictionary, keyword_dict

from node.route.values import Kind
from node.shape import nearest


@dataclass(frozen=True, slots=True)
class Attribute:
    """How the values under one name are read and compared."""

    name: str
    """The column's name in `Facts`."""
    kind: Kind
    unit: str = ""
    """The unit the standard fixes; empty where there is none, or none is known here."""
    least: int = 1
    """The fewest values it holds: the left of its Value Multiplicity (PS3.6)."""
    several: bool = False
    """It may hold more than one value."""
    whole_series: bool = False
    """Known only when all images are there."""
    private: bool = False
    """Its value identifies a person and is not shown in reasons, which get logged."""
    choices: tuple[str, ...] = ()
    """The only values it can have; empty where anything goes."""
    title: str = ""
    """For people: name, tag, VR."""


PLANES = ("axial", "coronal", "sagittal", "oblique")
OURS = {
    a.name: a
    for a in (
        Attribute("from", Kind.TEXT, title="name of the peer that sent the image"),
        Attribute("called", Kind.TEXT, title="the AE title of ours that the sender called"),
        Attribute("instances", Kind.NUMBER, whole_series=True, title="number of images (SOP instances) used"),
        Attribute("frames", Kind.NUMBER, whole_series=True, title="number of frames over all images used"),
        Attribute("slices", Kind.NUMBER, whole_series=True, title="number of distinct slice positions"),
        Attribute("transfer_syntax", Kind.UID, title="how the image was sent: UID or registered name"),
        Attribute("sop_class", Kind.UID, title="the kind of object: UID or registered name"),
        Attribute("revision", Kind.NUMBER, whole_series=True, title="1, and one more for every late change"),
        Attribute("age", Kind.AGE, "y", title="the patient's age at the study"),
        Attribute("local_time", Kind.TIME, title="time of day in the node's timezone"),
        Attribute("weekday", Kind.WEEKDAY, title="mon … sun in the node's timezone"),
        Attribute("orientation", Kind.TEXT, choices=PLANES, title="the plane of the slices"),
        Attribute("has_tilt", Kind.YES_NO, whole_series=True, title="yes where the gantry was tilted"),
        Attribute("b_value", Kind.NUMBER, "s/mm2", title="diffusion b-value, whatever the vendor"),
        Attribute("temporal_position", Kind.NUMBER, title="number of the time point, from 1"),
    )
}
"""Facts that the node itself knows or works out; lower_case is ours."""

NOT_OF_ONE_IMAGE = frozenset({"instances", "slices", "revision", "has_tilt", "local_time", "weekday"})
"""What `use`, which picks single images, cannot ask for."""

_UNITS = {
    "mm": """SliceThickness SpacingBetweenSlices PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing
        ReconstructionDiameter SliceLocation DataCollectionDiameter TableHeight DistanceSourceToDetector
        DistanceSourceToPatient DistanceSourceToEntrance FocalSpots ImagePositionPatient
        DetectorElementSpacing
        SingleCollimationWidth TotalCollimationWidth TableFeedPerRotation BodyPartThickness
        DetectorActiveDimensions""",
    "ms": """RepetitionTime EchoTime InversionTime ExposureTime ExposureTimeInms EffectiveEchoTime TriggerTime
        FrameTime ActualFrameDuration FrameReferenceTime FrameAcquisitionDuration TemporalResolution
        NominalInterval""",
    "us": "ExposureTimeInuS",
    "s": "RadionuclideHalfLife AcquisitionDuration RevolutionTime ScanTime",
    "kg": "PatientWeight",
    "m": "PatientSize",
    "Bq": "RadionuclideTotalDose",
    "ml": "RadiopharmaceuticalVolume ContrastBolusVolume ContrastBolusTotalDose",
    "kV": "KVP",
    "mA": "XRayTubeCurrent XRayTubeCurrentInmA AverageXRayTubeCurrent",
    "uA": "XRayTubeCurrentInuA",
    "mAs": "Exposure ExposureInmAs",
    "uAs": "ExposureInuAs",
    "T": "MagneticFieldStrength",
    "MHz": "ImagingFrequency TransmitterFrequency",
    "Hz": "PixelBandwidth",
    "mGy": "CTDIvol EntranceDoseInmGy",
    "deg": "FlipAngle GantryDetectorTilt",
    "s/mm2": "DiffusionBValue",
    "mm/s": "TableSpeed",
    "N": "CompressionForce",
    "bpm": "HeartRate",
    "y": "PatientAge",
}
UNITS = {keyword: unit for unit, keywords in _UNITS.items() for keyword in keywords.split()}
"""Keyword → the unit PS3.3 fixes for it."""

_IDENTIFYING = frozenset(
    {
        "PatientName", "PatientID", "PatientBirthDate", "PatientBirthTime", "OtherPatientIDs",
        "OtherPatientNames", "PatientAddress", "PatientMotherBirthName", "PatientBirthName",
        "PatientTelephoneNumbers", "AccessionNumber", "IssuerOfPatientID", "MilitaryRank",
        "MedicalRecordLocator", "PatientComments",
    }
)  # fmt: skip
_NUMBERS = frozenset(["DS", "IS", "FL", "FD", "US", "SS", "UL", "SL", "SV", "UV"]) | {"US or SS"}
_KINDS = {"DA": Kind.DATE, "TM": Kind.TIME, "DT": Kind.DATETIME, "AS": Kind.AGE, "UI": Kind.UID}
_BYTES = frozenset(["OB", "OW", "OD", "OF", "OL", "OV", "UN", "NONE"]) | frozenset(
    ["OB or OW", "US or OW", "US or SS or OW"]
)
_PRIVATE = re.compile(r"\(([0-9A-Fa-f]{4}), ?([xX]{2}[0-9A-Fa-f]{2})\) ?(\S.*)")
_TAG = re.compile(r"\(([0-9A-Fa-f]{4}), ?([0-9A-Fa-f]{4})\)(.*)")
_ITEM = re.compile(r"([A-Za-z0-9]+)(?:\[([0-9]+)\])?")


def _of_keyword(keyword: str, name: str) -> Attribute:
    tag = keyword_dict[keyword]
    vr, vm, title = DicomDictionary[tag][:3]
    if vr in _BYTES:
        raise ValueError(f"{name} holds bulk data, which rules do not see; ask for sop_class, frames or Rows")
    kind = Kind.NUMBER if vr in _NUMBERS else Kind.OPAQUE if vr == "SQ" else _KINDS.get(vr, Kind.TEXT)
    return Attribute(
        name,
        kind,
        UNITS.get(keyword, ""),
        least=int(re.match(r"[0-9]*", vm)[0] or 1),  # type: ignore[index]
        several=vm != "1",
        private=keyword in _IDENTIFYING,
        title=f"{title} ({tag >> 16:04X},{tag & 0xFFFF:04X}) {vr}",
    )


def lookup(name: str) -> Attribute:
    """What *name* means in a rule. ValueError with a sentence and the nearest right word."""
    if name in OURS:
        return OURS[name]
    if name in keyword_dict:
        return _of_keyword(name, name)
    if name.startswith("("):
        return _tag(name)
    if "." in name or "[" in name:
        return _path(name)
    return _unknown(name)


def _unknown(name: str) -> Attribute:
    if name[:1].islower():
        hint = nearest(name, OURS) or nearest(name, keyword_dict)
        raise ValueError(f"{name} is not a fact of the node{hint}")
    raise ValueError(f"{name} is not a DICOM keyword{nearest(name, keyword_dict)}")


def _tag(name: str) -> Attribute:
    match = _PRIVATE.fullmatch(name)
    if match and int(match[1], 16) % 2:
        column = f"({match[1].upper()},xx{match[2][2:].upper()}) {match[3].strip()}"
        return Attribute(column, Kind.ANY, several=True, title=f"private attribute {column}")
    match = _TAG.fullmatch(name)
    if match and int(match[1], 16) % 2 == 0:
        entry = DicomDictionary.get(int(match[1] + match[2], 16))
        raise ValueError(
            f"{name}: write the DICOM keyword{f' {entry[4]}' if entry else ''} instead of the tag"
        )
    raise ValueError(f'{name}: a private tag is written "(0019,xx0C) CREATOR", with xx for the block number')


def _path(name: str) -> Attribute:
    *parents, last = name.split(".")
    for part in parents:
        match = _ITEM.fullmatch(part)
        keyword = match[1] if match else part
        if keyword not in keyword_dict:
            raise ValueError(f"{name}: {keyword} is not a DICOM keyword{nearest(keyword, keyword_dict)}")
        if DicomDictionary[keyword_dict[keyword]][0] != "SQ":
            raise ValueError(f"{name}: {keyword} is not a sequence, so nothing stands below it")
        if match is None or match[2] is None:
            raise ValueError(f"{name}: say which item of {keyword}, for example {keyword}[0].{last}")
    match = _ITEM.fullmatch(last)
    keyword = match[1] if match else last
    if not parents or keyword not in keyword_dict or match is None:
        raise ValueError(f"{name}: {keyword} is not a DICOM keyword{nearest(keyword, keyword_dict)}")
    if match[2] is not None:
        raise ValueError(f"{name}: end the path with the attribute to look at, for example {name}.CodeValue")
    return _of_keyword(keyword, name)
