"""Stacks as DICOM: one series of classic MR images, or one enhanced object (PS3.3 A.4, A.36)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

from node.operator import Stack, Volume
from node.testing.series import Series, write_mr_series

_CLASSIC = {
    "b_value": "DiffusionBValue",
    "gradient": "DiffusionGradientOrientation",
    "directionality": "DiffusionDirectionality",
    "echo_time": "EchoTime",
    "inversion_time": "InversionTime",
    "repetition_time": "RepetitionTime",
    "flip_angle": "FlipAngle",
}
"""Facts of a volume → how its images say them."""
_ECHO = {"spin": "SE", "gradient": "GR"}


def write_mr_stack(
    folder: Path, stack: Stack, *, series: Series | None = None, private: Mapping[int, Any] | None = None
) -> list[Path]:
    """Write the volumes of *stack* as one series of MR images and return the paths, volume by volume.

    What their facts say stands in the standard attributes, `time` in Acquisition Time. *private* maps the index of
    a volume to a function that changes each of its datasets, to say things as one maker does.
    """
    series = series or Series("mr-stack")
    uid = series.uid(f"series:{series.study or series.name}:{series.name}")
    paths: list[Path] = []
    for number, volume in enumerate(stack.volumes):
        own = Series(
            f"{series.name}:{number}",
            series.study or series.name,
            series.patient_id,
            series.number,
            series.description,
            {**_said(volume), **series.changes, "SeriesInstanceUID": uid},
        )
        written = write_mr_series(folder / f"{number:02d}", volume, series=own)
        for k, path in enumerate(written, 1):
            ds = dcmread(path)
            ds.InstanceNumber = len(paths) + k
            if private and number in private:
                private[number](ds)
            ds.save_as(path, enforce_file_format=True)
        paths += written
    return paths


def _said(volume: Volume) -> dict[str, Any]:
    facts = volume.facts
    said = {keyword: facts[name] for name, keyword in _CLASSIC.items() if name in facts}
    said = {key: list(value) if isinstance(value, tuple) else value for key, value in said.items()}
    if facts.get("directionality") == "NONE":
        said["DiffusionDirectionality"] = "NONE"
    if "echo" in facts:
        said["ScanningSequence"] = _ECHO[facts["echo"]]
    if facts.get("spoiled") == "yes":
        said["SequenceVariant"] = "SP"
    if "inversion_time" in facts:
        said["ScanningSequence"] = ["SE", "IR"]
    if "time" in facts:
        said |= {
            "AcquisitionTime": _clock(float(facts["time"])),
            "TemporalPositionIdentifier": facts["part"] + 1,
        }
    return said


def _clock(seconds: float) -> str:
    """10:15 and *seconds* as TM."""
    minutes, rest = divmod(15 * 60 + seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{10 + hours:02d}{minutes:02d}{rest:09.6f}"


def write_enhanced_mr(path: Path, stack: Stack, *, series: Series | None = None) -> Path:
    """Write *stack* as one Enhanced MR object, slice by slice and volume by volume within.

    It has the functional groups that are read, not all that the class demands of a scanner.
    """
    series = series or Series("mr-enhanced")
    with TemporaryDirectory() as folder:
        ds = dcmread(write_mr_series(Path(folder), stack.volumes[0], series=replace(series, changes={}))[0])
    frames = [(k, volume) for k in range(len(stack.volumes[0].array)) for volume in stack.volumes]
    stored = np.stack([np.rint(volume.array[k]) for k, volume in frames]).astype("<u2")
    _enhance(ds, stack)
    ds.NumberOfFrames = len(frames)
    ds.PerFrameFunctionalGroupsSequence = [_frame(k, volume) for k, volume in frames]
    ds.PixelData = stored.tobytes()
    for keyword, value in series.changes.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
    return path


_GONE = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "SliceLocation", "WindowCenter", "WindowWidth", "ScanningSequence", "SequenceVariant", "ScanOptions", "EchoTime",
    "RepetitionTime", "EchoTrainLength", "MagneticFieldStrength", "AcquisitionTime", "AcquisitionDate",
    "AcquisitionNumber", "PositionReferenceIndicator", "BodyPartExamined",
)  # fmt: skip
"""What an enhanced object says elsewhere, or not at all."""


def _enhance(ds: Dataset, stack: Stack) -> None:
    """What all frames share (PS3.3 A.36.2.3)."""
    volume = stack.volumes[0]
    ds.SOPClassUID = EnhancedMRImageStorage
    for keyword in _GONE:
        if keyword in ds:
            delattr(ds, keyword)
    kind = "DIFFUSION" if "b_value" in stack.by else "OTHER"
    ds.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    ds.PixelPresentation, ds.VolumetricProperties = "MONOCHROME", "VOLUME"
    ds.VolumeBasedCalculationTechnique, ds.ComplexImageComponent = "NONE", "MAGNITUDE"
    ds.AcquisitionContrast, ds.MagneticFieldStrength, ds.ResonantNucleus = "UNKNOWN", 1.5, "1H"
    ds.AcquisitionDateTime, ds.AcquisitionDuration = "20240102101500", 60.0
    ds.ContentQualification, ds.KSpaceFiltering = "RESEARCH", "NONE"
    ds.ApplicableSafetyStandardAgency, ds.PositionReferenceIndicator = "IEC", ""
    ds.PresentationLUTShape, ds.BurnedInAnnotation, ds.LossyImageCompression = "IDENTITY", "NO", "00"
    ds.AcquisitionContextSequence = []
    _index(ds, stack)
    measures = _item(
        PixelSpacing=[float(s) for s in volume.spacing[1:]], SliceThickness=float(volume.spacing[0])
    )
    measures.SpacingBetweenSlices = float(volume.spacing[0])
    axes = [round(float(v), 9) + 0.0 for v in (*volume.axes[:, 2], *volume.axes[:, 1])]
    pulse = {"spin": "SPIN", "gradient": "GRADIENT"}.get(str(volume.facts.get("echo", "")), "SPIN")
    spoiled = "RF" if volume.facts.get("spoiled") == "yes" else "NONE"
    head = _item(CodeValue="69536005", CodingSchemeDesignator="SCT", CodeMeaning="Head")
    ds.EchoPulseSequence, ds.Spoiling = pulse, spoiled
    ds.SteadyStatePulseSequence, ds.SegmentedKSpaceTraversal, ds.OversamplingPhase = "NONE", "SINGLE", "NONE"
    ds.EchoPlanarPulseSequence, ds.TimeOfFlightContrast, ds.PhaseContrast = "NO", "NO", "NO"
    ds.MultiPlanarExcitation, ds.SaturationRecovery, ds.SpectrallySelectedSuppression = "NO", "NO", "NONE"
    ds.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[measures],
            PlaneOrientationSequence=[_item(ImageOrientationPatient=axes)],
            FrameAnatomySequence=[_item(FrameLaterality="U", AnatomicRegionSequence=[head])],
            PixelValueTransformationSequence=[_item(RescaleIntercept="0", RescaleSlope="1", RescaleType="US")],
            FrameVOILUTSequence=[_item(WindowCenter="500", WindowWidth="1000")],
            MRImageFrameTypeSequence=[
                _item(
                    FrameType=["ORIGINAL", "PRIMARY", kind, "NONE"], PixelPresentation="MONOCHROME",
                    VolumetricProperties="VOLUME", VolumeBasedCalculationTechnique="NONE",
                    ComplexImageComponent="MAGNITUDE", AcquisitionContrast="UNKNOWN",
                )
            ],
        )
    ]  # fmt: skip


_INDEXED = {"b_value": ("DiffusionBValue", "MRDiffusionSequence"),
            "echo_time": ("EffectiveEchoTime", "MREchoSequence"),
            "flip_angle": ("FlipAngle", "MRTimingAndRelatedParametersSequence"),
            "inversion_time": ("InversionTimes", "MRModifierSequence")}  # fmt: skip
"""What the second dimension of a stack points at."""


def _index(ds: Dataset, stack: Stack) -> None:
    """Frames are indexed by place, then by what was varied (PS3.3 C.7.6.17)."""
    uid = f"{ds.SeriesInstanceUID[:50]}.1"
    varied = _INDEXED.get(stack.by[0], ("TemporalPositionIndex", "FrameContentSequence"))
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=uid)]
    ds.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=uid,
            DimensionIndexPointer=tag_for_keyword(pointer),
            FunctionalGroupPointer=tag_for_keyword(group),
        )
        for pointer, group in (("InStackPositionNumber", "FrameContentSequence"), varied)
    ]


def _frame(k: int, volume: Volume) -> Dataset:
    facts = volume.facts
    position = [round(float(v), 6) + 0.0 for v in volume.origin + k * volume.affine[:3, 0]]
    number = int(facts["part"]) + 1
    content = _item(
        StackID="1", InStackPositionNumber=k + 1, TemporalPositionIndex=number if "time" in facts else 1
    )
    content.FrameAcquisitionDateTime = "20240102" + _clock(float(facts.get("time", 0.0)))
    content.FrameReferenceDateTime, content.FrameAcquisitionDuration = (
        content.FrameAcquisitionDateTime,
        1000.0,
    )
    content.DimensionIndexValues = [k + 1, number]
    group = _item(
        FrameContentSequence=[content], PlanePositionSequence=[_item(ImagePositionPatient=position)]
    )
    group.MREchoSequence = [_item(EffectiveEchoTime=float(facts.get("echo_time", 12.0)))]
    timing = _item(RepetitionTime=float(facts.get("repetition_time", 500.0)), EchoTrainLength=1)
    timing.FlipAngle = float(facts.get("flip_angle", 90.0))
    group.MRTimingAndRelatedParametersSequence = [timing]
    if "inversion_time" in facts:
        modifier = _item(InversionRecovery="YES", InversionTimes=float(facts["inversion_time"]))
        group.MRModifierSequence = [modifier]
    if "b_value" in facts:
        weighting = _item(DiffusionBValue=facts["b_value"], DiffusionDirectionality=facts["directionality"])
        if "gradient" in facts:
            along = _item(DiffusionGradientOrientation=list(facts["gradient"]))
            weighting.DiffusionGradientDirectionSequence = [along]
        group.MRDiffusionSequence = [weighting]
    return group


def _item(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds
