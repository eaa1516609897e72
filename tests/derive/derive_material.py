"""Headers, jobs and volumes for the tests of derive: analytic ones and real samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import peers
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from node.model import Code, Job, Output, Plan, Provenance, Step
from node.operator import Mask, Measurement, Volume

HU = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
LUNG = (Code("123037004", "SCT", "Anatomical Structure"), Code("39607008", "SCT", "Lung"))


def job(*names: str, attributes: Mapping[str, str] | None = None, **provenance: object) -> Job:
    """Make a job whose outputs are *names*, made by the shipped operators."""
    steps = (
        Step("reformat", {"volume": "received"}, {"thickness": 10.0, "combine": "mean"}, "thick"),
        Step("segment_threshold", {"volume": "received"}, {"above": 0}, "body"),
        Step("statistics", {"volume": "received", "mask": "body"}, {}, "stats"),
    )
    outputs = tuple(Output(name, i, attributes or {}) for i, name in enumerate(names, 1))
    known = {
        "identity": "ab" * 32,
        "first_run_at": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        "software": "PACSNode 0.1.0",
        "device": "PACSNODE",
        "series_numbers": {name: 300 + i for i, name in enumerate(names, 1)},
        "operators": {"reformat": "0.1.0", "segment_threshold": "0.1.0", "statistics": "0.1.0"},
    }
    return Job(
        1, Plan("rule", "m" * 64, steps, outputs), Provenance(**{**known, **provenance}), (), "Europe/Berlin"
    )


def affine(spacing: Sequence[float], tilt: float = 0.0) -> np.ndarray:
    """Index-to-patient matrix of a stack with *spacing* (slice, row, column), turned by *tilt* about two axes."""
    c, s = np.cos(tilt), np.sin(tilt)
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    axes = turn @ np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    made = np.eye(4)
    made[:3, :3] = axes * np.asarray(spacing)
    made[:3, 3] = [-20.0, -30.0, 100.0]
    return made


def ct_headers(slices: int, rows: int, columns: int, place: np.ndarray, **changed: object) -> list[Dataset]:
    """Conformant CT headers on a grid; *changed* attributes are set in each, None removes one."""
    return [_ct_header(k, rows, columns, place, changed) for k in range(slices)]


def _ct_header(k: int, rows: int, columns: int, place: np.ndarray, changed: Mapping[str, object]) -> Dataset:
    spacing = np.linalg.norm(place[:3, :3], axis=0)
    header = Dataset()
    for keyword, value in {
        "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": f"1.2.3.4.{k + 1}", "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4", "FrameOfReferenceUID": "1.2.3.5", "PositionReferenceIndicator": "",
        "StudyDate": "20251230", "StudyTime": "101112", "SeriesDate": "20251230", "SeriesTime": "101200",
        "AcquisitionDate": "20251230", "AcquisitionTime": f"1013{k % 60:02d}", "ContentDate": "20251230",
        "ContentTime": "101400", "AccessionNumber": "ACC1", "Modality": "CT", "Manufacturer": "Phantom Works",
        "ReferringPhysicianName": "", "SeriesDescription": "Thorax 1.0 B60", "PatientName": "Müller^Jürgen",
        "PatientID": "P-1", "PatientBirthDate": "19500102", "PatientSex": "M", "StudyID": "S1",
        "SeriesNumber": 3, "AcquisitionNumber": 1, "InstanceNumber": k + 1, "KVP": "120", "BodyPartExamined": "CHEST",
        "PatientPosition": "HFS", "SliceThickness": f"{spacing[0]:.4g}", "Exposure": "100",
        "XRayTubeCurrent": str(200 + k), "WindowCenter": "40", "WindowWidth": "400", "RescaleIntercept": "-1024",
        "RescaleSlope": "1", "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": rows,
        "Columns": columns, "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0,
        "PixelSpacing": [f"{v:.6g}" for v in spacing[1:]],
        "ImagePositionPatient": [f"{v:.8g}" for v in place[:3, 3] + k * place[:3, 0]],
        "ImageOrientationPatient": [f"{v:.10g}" for v in (*(place[:3, 2] / spacing[2]), *(place[:3, 1] / spacing[1]))],
        **changed,
    }.items():  # fmt: skip
        if value is not None:
            setattr(header, keyword, value)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return header


def volume(shape: tuple[int, int, int], place: np.ndarray, unit: Code = HU) -> Volume:
    """Make a ramp of whole numbers from -1000 up."""
    return Volume((np.arange(np.prod(shape)).reshape(shape) % 3000 - 1000).astype(np.float32), place, unit)


def mask(shape: tuple[int, int, int], place: np.ndarray, label: str = "Lung") -> Mask:
    """Make a box that touches no border, on a grid; asymmetric, so that no flip or swap goes unseen."""
    array = np.zeros(shape, bool)
    array[1:3, 2:5, 1:3] = True
    array[2, 5, 1] = True
    return Mask(array, place, label, *LUNG, description="Threshold")


def numbers(region: Mask | None) -> list[Measurement]:
    """Make a volume and a mean of *region*."""
    return [
        Measurement(Code("118565006", "SCT", "Volume"), 12.5, Code("mm3", "UCUM", "mm3"), region=region),
        Measurement(
            Code("112031", "DCM", "Attenuation Coefficient"), -45.25, HU,
            derivation=Code("373098007", "SCT", "Mean"), region=region,
        ),
    ]  # fmt: skip


def sample(folder: str, count: int | None = None) -> tuple[np.ndarray, np.ndarray, list[Dataset]]:
    """Values, affine and headers of a regular stack among the samples; skips where there are none."""
    paths = sorted(peers.need_samples(*folder.split("/")).iterdir())
    found = [dcmread(path) for path in paths if path.suffix == ".dcm"]
    found = [d for d in found if "ImagePositionPatient" in d]
    axes = np.array(found[0].ImageOrientationPatient, float)
    normal = np.cross(axes[:3], axes[3:])
    places = {round(float(np.array(d.ImagePositionPatient, float) @ normal), 2): d for d in found}
    chosen = [places[offset] for offset in sorted(places)][:count]
    array = np.stack([d.pixel_array * float(d.get("RescaleSlope", 1)) + float(d.get("RescaleIntercept", 0))
                      for d in chosen])  # fmt: skip
    first, last = (np.array(d.ImagePositionPatient, float) for d in (chosen[0], chosen[-1]))
    place = np.eye(4)
    place[:3, 0] = (last - first) / (len(chosen) - 1)
    place[:3, 1] = axes[3:] * float(chosen[0].PixelSpacing[0])
    place[:3, 2] = axes[:3] * float(chosen[0].PixelSpacing[1])
    place[:3, 3] = first
    return array, place, [dcmread(d.filename, stop_before_pixels=True) for d in chosen]


def complaints(path: Path | str) -> set[str]:
    """Collect what dciodvfy calls an error in a file."""
    return set(peers.dciodvfy(Path(path)))


def flattened(source: Dataset) -> tuple[tuple[Dataset, ...], tuple[int, ...]]:
    """Headers of an enhanced object's frames, their macros lifted to the top, and the frame numbers."""
    shared = source.SharedFunctionalGroupsSequence[0]
    headers = []
    for group in source.PerFrameFunctionalGroupsSequence:
        header = Dataset()
        dropped = (
            "SharedFunctionalGroupsSequence",
            "PerFrameFunctionalGroupsSequence",
            "PixelData",
            "NumberOfFrames",
        )
        header.update({e.tag: e for e in source if e.keyword not in dropped})
        for macro in (*shared, *group):
            if macro.VR == "SQ" and not macro.tag.is_private and len(macro.value) == 1:
                header.update({e.tag: e for e in macro.value[0]})
        header.file_meta = source.file_meta
        headers.append(header)
    return tuple(headers), tuple(range(1, len(headers) + 1))


def enhanced(
    slices: int, rows: int, columns: int, place: np.ndarray, sop_class: str, modality: str
) -> Dataset:
    """An enhanced object's header on a grid, its planes and pulse sequence in functional groups, as C.8.13 has it."""
    (made, *_) = ct_headers(1, rows, columns, place, SOPClassUID=sop_class, Modality=modality, KVP=None,
                            ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None,
                            SliceThickness=None, XRayTubeCurrent=None, Exposure=None, RescaleSlope=None,
                            RescaleIntercept=None, WindowCenter=None, WindowWidth=None, NumberOfFrames=slices,
                            AcquisitionDateTime="20251230101300", EchoPulseSequence="GRADIENT",
                            EchoPlanarPulseSequence="YES", SegmentedKSpaceTraversal="SINGLE",
                            SteadyStatePulseSequence="NONE", MRAcquisitionType="2D")  # fmt: skip
    spacing = np.linalg.norm(place[:3, :3], axis=0)
    shared = Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[f"{v:.6g}" for v in spacing[1:]],
                                          SliceThickness=f"{spacing[0]:.4g}")]  # fmt: skip
    axes = [f"{v:.10g}" for v in (*(place[:3, 2] / spacing[2]), *(place[:3, 1] / spacing[1]))]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=axes)]
    shared.MREchoSequence = [_item(EffectiveEchoTime=2.5)]
    shared.MRModifierSequence = [
        _item(InversionRecovery="NO", Spoiling="RF", PartialFourierDirection="PHASE")
    ]
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = [
        _item(PlanePositionSequence=[_item(ImagePositionPatient=[f"{v:.8g}" for v in place[:3, 3] + k * place[:3, 0]])],
              CTXRayDetailsSequence=[_item(KVP=120.0)],
              CTExposureSequence=[_item(XRayTubeCurrentInmA=200.0 + k, ExposureInmAs=100.25)])
        for k in range(slices)
    ]  # fmt: skip
    return made


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def nm_headers(
    slices: int, rows: int, columns: int, place: np.ndarray
) -> tuple[tuple[Dataset, ...], tuple[int, ...]]:
    """Headers of the frames of one RECON TOMO object, planes lifted from its detector, and the frame numbers."""
    isotope = _item(Radiopharmaceutical="FDG", RadionuclideCodeSequence=[])
    detector = _item(CollimatorType="PARA", FocalDistance=None)
    detector.ImagePositionPatient = [f"{v:.8g}" for v in place[:3, 3]]
    headers = ct_headers(slices, rows, columns, place, SOPClassUID="1.2.840.10008.5.1.4.1.1.20", Modality="NM",
                         ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"], KVP=None, RescaleSlope=None,
                         RescaleIntercept=None, WindowCenter=None, WindowWidth=None, XRayTubeCurrent=None,
                         Exposure=None, SOPInstanceUID="1.2.3.4.1", InstanceNumber=1, AcquisitionTime="101300",
                         NumberOfEnergyWindows=1, NumberOfDetectors=1, CountsAccumulated="1000",
                         FrameIncrementPointer=0x00540080, PatientOrientationCodeSequence=[],
                         PatientPosition=None, NumberOfRotations=1,
                         PatientGantryRelationshipCodeSequence=[], EnergyWindowInformationSequence=[],
                         RadiopharmaceuticalInformationSequence=[isotope],
                         DetectorInformationSequence=[detector])  # fmt: skip
    return tuple(headers), tuple(range(1, slices + 1))
