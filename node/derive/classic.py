"""What a classic CT, MR or PET image calls the things an enhanced one says otherwise (PS3.3 C.8.13, C.8.15).

Derived images of enhanced and legacy converted sources are written in the classic classes, which every
viewer shows. Only what the source states is translated; nothing is concluded from its silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
)
from pydicom.valuerep import DT

from node.derive.geometry import decimal
from node.derive.standard import CT, MR, PT

_CLASSIC = {
    EnhancedCTImageStorage: CT, LegacyConvertedEnhancedCTImageStorage: CT,
    EnhancedMRImageStorage: MR, LegacyConvertedEnhancedMRImageStorage: MR,
    EnhancedPETImageStorage: PT, LegacyConvertedEnhancedPETImageStorage: PT,
}  # fmt: skip
_SAME_UNIT = {
    "EffectiveEchoTime": "EchoTime", "InversionTimes": "InversionTime", "TransmitterFrequency": "ImagingFrequency",
}  # fmt: skip
"""Enhanced (FD) → classic (DS), in the same unit: ms, MHz."""
_WHOLE = {
    "XRayTubeCurrentInmA": "XRayTubeCurrent",
    "ExposureTimeInms": "ExposureTime",
    "ExposureInmAs": "Exposure",
    "FrameAcquisitionDuration": "ActualFrameDuration",
}
"""Enhanced (FD) → classic (IS), both in mA, ms or mAs; classic rounds."""
_SAME_WORD = {
    "ResonantNucleus": "ImagedNucleus", "PulseSequenceName": "SequenceName", "FrameLaterality": "ImageLaterality",
    "TemporalPositionIndex": "TemporalPositionIdentifier", "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameComments": "ImageComments",
}  # fmt: skip
_FLAGS = {
    "SequenceVariant": (("SegmentedKSpaceTraversal", {"PARTIAL": "SK", "FULL": "SK"}),
                        ("MagnetizationTransfer", {"ON_RESONANCE": "MTC", "OFF_RESONANCE": "MTC"}),
                        ("SteadyStatePulseSequence", {"FREE_PRECESSION": "SS", "TRANSVERSE": "SS",
                                                      "LONGITUDINAL": "SS", "TIME_REVERSED": "TRSS"}),
                        ("Spoiling", {"RF": "SP", "GRADIENT": "SP", "RF_AND_GRADIENT": "SP"}),
                        ("OversamplingPhase", {"2D": "OSP", "3D": "OSP", "2D_3D": "OSP"})),
    "ScanOptions": (("RectilinearPhaseEncodeReordering", {"CENTRIC": "PER", "SEGMENTED": "PER",
                                                          "REVERSE_LINEAR": "PER", "REVERSE_CENTRIC": "PER"}),
                    ("PartialFourierDirection", {"PHASE": "PFP", "FREQUENCY": "PFF"}),
                    ("SpatialPresaturation", {"SLAB": "SP"}),
                    ("SpectrallySelectedSuppression", {"FAT": "FS", "FAT_AND_WATER": "FS"}),
                    ("FlowCompensation", {"ACCELERATION": "FC", "VELOCITY": "FC", "OTHER": "FC"})),
    "CorrectedImage": (("DecayCorrected", {"YES": "DECY"}), ("AttenuationCorrected", {"YES": "ATTN"}),
                       ("ScatterCorrected", {"YES": "SCAT"}), ("DeadTimeCorrected", {"YES": "DTIM"}),
                       ("GantryMotionCorrected", {"YES": "MOTN"}), ("PatientMotionCorrected", {"YES": "PMOT"}),
                       ("CountLossNormalizationCorrected", {"YES": "CLN"}), ("RandomsCorrected", {"YES": "RAN"}),
                       ("NonUniformRadialSamplingCorrected", {"YES": "RADL"}),
                       ("SensitivityCalibrated", {"YES": "DCAL"}),
                       ("DetectorNormalizationCorrection", {"YES": "NORM"})),
}  # fmt: skip
"""Classic attribute → which enhanced ones say one of its terms (C.8.3.1, C.8.9.1 against C.8.13, C.8.22)."""
_CLASSIC_OF_PHASE = {"COLUMN": "COL", "ROW": "ROW"}


def single_frame_class(sop_class: str) -> str:
    """The classic class for images derived from *sop_class*, which is itself where it is no enhanced one."""
    return str(_CLASSIC.get(sop_class, sop_class))


def single_frame(header: Dataset, sop_class: str) -> Dataset:
    """The header of one frame, its functional groups already lifted, in the words of the classic *sop_class*.

    What the header says in classic words stays; the result shares elements with *header*.
    """
    made = Dataset()
    made._dict.update(header._dict)
    made.file_meta = getattr(header, "file_meta", None)
    made._parent_encoding = getattr(header, "_parent_encoding", None)
    made.set_original_encoding(*header.original_encoding, header._character_set)
    if made.get("InPlanePhaseEncodingDirection") not in ("ROW", "COL"):
        made.pop("InPlanePhaseEncodingDirection", None)  # one keyword, other terms (C.8.3.1, C.8.13.5.3)
    for keyword, value in _translated(header, sop_class):
        if value not in (None, "", []) and made.get(keyword) in (None, "", []):
            made.pop(keyword, None)  # an element is shared with the source: it is replaced, never changed
            setattr(made, keyword, value)
    return made


def _translated(header: Dataset, sop_class: str) -> Iterable[tuple[str, Any]]:
    for enhanced, classic in _SAME_UNIT.items():
        yield classic, _one(header, enhanced, decimal)
    for enhanced, classic in _WHOLE.items():
        yield classic, _one(header, enhanced, lambda value: str(round(float(value))))
    for enhanced, classic in _SAME_WORD.items():
        yield classic, header.get(enhanced)
    acquired = header.get("FrameAcquisitionDateTime") or header.get("AcquisitionDateTime")
    moment = _moment(acquired)
    if moment is not None:
        yield "AcquisitionDateTime", str(acquired)
        yield "AcquisitionDate", moment.strftime("%Y%m%d")
        yield "AcquisitionTime", moment.strftime("%H%M%S.%f")
    if sop_class == MR:
        yield from _magnetic(header)
    if sop_class == PT:
        yield from _nuclear(header)


def _one(header: Dataset, keyword: str, said: Callable[[Any], str]) -> str | None:
    """The number of *keyword* as text, None where it is absent or there are several."""
    value = header.get(keyword)
    many = [value] if isinstance(value, int | float) else list(value or ())
    return said(many[0]) if len(many) == 1 else None


def _moment(value: Any) -> datetime | None:
    try:
        return DT(str(value)) if value else None
    except ValueError:
        return None


def _flags(header: Dataset, keyword: str) -> list[str]:
    found = [words.get(str(header.get(enhanced, ""))) for enhanced, words in _FLAGS[keyword]]
    return list(dict.fromkeys(word for word in found if word))


def _magnetic(header: Dataset) -> Iterable[tuple[str, Any]]:
    """Scanning Sequence, Sequence Variant and Scan Options as C.8.3.1 words them."""
    echo = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}.get(
        str(header.get("EchoPulseSequence"))
    )
    if echo:
        prepared = ["IR"] if header.get("InversionRecovery") == "YES" else []
        planar = ["EP"] if header.get("EchoPlanarPulseSequence") == "YES" else []
        yield "ScanningSequence", echo + prepared + planar
    stated = "SegmentedKSpaceTraversal" in header and "SteadyStatePulseSequence" in header
    yield "SequenceVariant", _flags(header, "SequenceVariant") or (["NONE"] if stated else None)
    yield "ScanOptions", _flags(header, "ScanOptions")
    direction = str(header.get("InPlanePhaseEncodingDirection", ""))
    yield "InPlanePhaseEncodingDirection", _CLASSIC_OF_PHASE.get(direction)
    if "TimeOfFlightContrast" in header:
        yield "AngioFlag", "Y" if header.TimeOfFlightContrast == "YES" else "N"


def _nuclear(header: Dataset) -> Iterable[tuple[str, Any]]:
    """What the PET Series and PET Image Modules need (C.8.9.1, C.8.9.4)."""
    yield "CorrectedImage", _flags(header, "CorrectedImage")
    yield "SeriesType", ["STATIC", "IMAGE"]  # of the derived series: one volume at one time (C.8.9.1.1.1)
    yield "DecayCorrection", _decay_correction(header)
    start = _moment(f"{header.get('SeriesDate') or ''}{header.get('SeriesTime') or ''}")
    reference = _moment(header.get("FrameReferenceDateTime"))
    if start is not None and reference is not None:
        offset = (reference.replace(tzinfo=None) - start.replace(tzinfo=None)).total_seconds()
        yield "FrameReferenceTime", decimal(offset * 1000)


def _decay_correction(header: Dataset) -> str | None:
    """NONE, START or ADMIN by the moment that the counts were corrected to, None where that is neither."""
    if header.get("DecayCorrected") == "NO":
        return "NONE"
    to = _moment(header.get("DecayCorrectionDateTime"))
    if header.get("DecayCorrected") != "YES" or to is None:
        return None
    given = [_moment(i.get("RadiopharmaceuticalStartDateTime"))
             for i in header.get("RadiopharmaceuticalInformationSequence") or ()]  # fmt: skip
    if to in given:
        return "ADMIN"
    return "START" if to == _moment(header.get("AcquisitionDateTime")) else None
