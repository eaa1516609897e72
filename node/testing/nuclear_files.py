"""Nuclear medicine phantoms as NM images (PS3.3 A.5): planar, dynamic, gated, reconstructed; the same bytes always."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import NuclearMedicineImageStorage

from node.operator import Volume
from node.testing.nuclear import VIEWS, Floats, Phase, phase_vector, slice_vector
from node.testing.series import Series, _changed, _code, _decimals, _header, _save

_POINTERS = {
    "STATIC": (0x00540010, 0x00540020),
    "WHOLE BODY": (0x00540010, 0x00540020),
    "DYNAMIC": (0x00540010, 0x00540020, 0x00540030, 0x00540100),
    "GATED": (0x00540010, 0x00540020, 0x00540060, 0x00540070),
    "RECON TOMO": (0x00540080,),
}
"""Frame Increment Pointer of each kind (Table C.8-8), the fastest index last."""


def write_nm_image(
    folder: Path, frames: Any, views: Sequence[str] = ("",), *, phases: Sequence[Phase] = (),
    duration: float = 300000.0, spacing: float = 4.8, kind: str = "", series: Series | None = None,
) -> list[Path]:  # fmt: skip
    """Write planar *frames* as one NM image: STATIC, WHOLE BODY, GATED, or DYNAMIC where there are *phases*.

    Frames are ordered head by head (*views*: anterior, posterior or empty), in time within each. Raises ValueError
    for counts outside 0 … 65535.
    """
    array = np.rint(np.asarray(frames, float))
    said = kind or ("DYNAMIC" if phases else "STATIC")
    series = series or Series(f"nm-{said.lower()}")
    header = _nuclear_header(series, said, array)
    count, each = len(array), len(array) // len(views)
    header.EnergyWindowVector = [1] * count
    header.DetectorVector = np.repeat(np.arange(len(views)) + 1, each).tolist()
    header.NumberOfDetectors = len(views)
    header.PixelSpacing = _decimals([spacing, spacing])
    header.DetectorInformationSequence = [_head(view) for view in views]
    if said in ("STATIC", "WHOLE BODY"):
        header.ActualFrameDuration = str(int(duration))
    if said == "WHOLE BODY":
        header.ScanVelocity, header.ScanLength = "2.5", str(round(array.shape[1] * spacing))
    if phases:
        header.NumberOfPhases = len(phases)
        header.PhaseVector = list(phase_vector(phases) * len(views))
        header.TimeSliceVector = list(slice_vector(phases) * len(views))
        header.PhaseInformationSequence = [_phase(phase) for phase in phases]
    if said == "GATED":
        _set_gates(header, each, len(views))
    return _written(folder, header, array, series)


def write_nm_tomo(folder: Path, volume: Volume, *, series: Series | None = None) -> list[Path]:
    """Write *volume* (counts, whole numbers) as one reconstructed tomogram: RECON TOMO (C.8.4.15)."""
    array = np.rint(volume.array.astype(float))
    series = series or Series("nm-tomo")
    header = _nuclear_header(series, "RECON TOMO", array)
    header.SliceVector = list(range(1, len(array) + 1))
    header.NumberOfSlices, header.NumberOfDetectors, header.NumberOfRotations = len(array), 1, 1
    header.PixelSpacing = _decimals(volume.spacing[1:])
    header.SliceThickness = header.SpacingBetweenSlices = _decimals(volume.spacing[:1])[0]
    head = _head("")
    head.ImagePositionPatient = _decimals(volume.origin)
    head.ImageOrientationPatient = _decimals([*volume.axes[:, 2], *volume.axes[:, 1]])
    header.DetectorInformationSequence = [head]
    turn = Dataset()
    turn.StartAngle, turn.AngularStep, turn.RotationDirection, turn.ScanArc = "0", "6", "CW", "360"
    turn.ActualFrameDuration, turn.NumberOfFramesInRotation = "20000", 60
    turn.RadialPosition = ["250"]
    header.RotationInformationSequence = [turn]
    header.TypeOfDetectorMotion = "STEP AND SHOOT"
    return _written(folder, header, array, series)


def _phase(phase: Phase) -> Dataset:
    item = Dataset()
    item.PhaseDelay, item.PauseBetweenFrames = str(int(phase.delay)), str(int(phase.pause))
    item.ActualFrameDuration, item.NumberOfFramesInPhase = str(int(phase.duration)), phase.frames
    return item


def _head(view: str) -> Dataset:
    """One item of the Detector Information Sequence (C.8.4.11)."""
    item = Dataset()
    item.CollimatorType, item.CollimatorGridName, item.FocalDistance = "PARA", "LEHR", "0"
    item.ImagePositionPatient = item.ImageOrientationPatient = None  # type 2
    if view:
        code, words, side = VIEWS[view]
        item.ViewCodeSequence = [_code(code, "SCT", words)]
        item.ViewCodeSequence[0].ViewModifierCodeSequence = []
        item.ImageOrientationPatient = _decimals([side, 0, 0, 0, 0, -1])
        item.ImagePositionPatient = _decimals([-side * 300, -side * 100, 300])
    return item


def _set_gates(header: Dataset, slots: int, heads: int) -> None:
    """NM Multi-gated Acquisition Module (C.8.4.13): one R-R interval of 800 ms, cut into slots."""
    header.NumberOfRRIntervals, header.NumberOfTimeSlots = 1, slots
    header.RRIntervalVector = [1] * (slots * heads)
    header.TimeSlotVector = list(range(1, slots + 1)) * heads
    gate, data = Dataset(), Dataset()
    data.FrameTime = _decimals([800 / slots])[0]
    data.TimeSlotInformationSequence = []
    gate.DataInformationSequence = [data]
    header.GatedInformationSequence = [gate]


def _nuclear_header(series: Series, kind: str, array: Floats) -> Dataset:
    """Return what all NM images have: patient orientation, isotope, energy window, counts."""
    if array.min() < 0 or array.max() > 65535:
        raise ValueError("NM phantoms hold 0 to 65535 counts per pixel")
    header = _header(series, str(NuclearMedicineImageStorage), "NM")
    del header.PatientPosition  # said by the codes below (C.7.3.1.1.2)
    header.PatientOrientationCodeSequence = [_code("102538003", "SCT", "recumbent")]
    header.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence = [
        _code("40199007", "SCT", "supine")
    ]
    header.PatientGantryRelationshipCodeSequence = [_code("102540008", "SCT", "headfirst")]
    header.ImageType = [
        "DERIVED" if kind == "RECON TOMO" else "ORIGINAL",
        "PRIMARY",
        kind,
        "EMISSION",
    ]
    header.BodyPartExamined = "CHEST"
    header.CountsAccumulated = str(int(array.sum()))
    header.NumberOfEnergyWindows = 1
    header.EnergyWindowInformationSequence = [_window()]
    header.RadiopharmaceuticalInformationSequence = [_tracer()]
    header.FrameIncrementPointer = list(_POINTERS[kind])
    header.LossyImageCompression = "00"
    return header


def _window() -> Dataset:
    limits, item = Dataset(), Dataset()
    limits.EnergyWindowLowerLimit, limits.EnergyWindowUpperLimit = "126.45", "154.55"
    item.EnergyWindowRangeSequence, item.EnergyWindowName = [limits], "Tc99m"
    return item


def _tracer() -> Dataset:
    item = Dataset()
    item.RadionuclideCodeSequence = [_code("72454006", "SCT", "^99m^Technetium")]
    item.Radiopharmaceutical, item.RadionuclideTotalDose = "Phantom", "150"  # MBq in NM (C.8.4.10)
    return item


def _written(folder: Path, header: Dataset, array: Floats, series: Series) -> list[Path]:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.NumberOfFrames, header.Rows, header.Columns = len(array), *array.shape[1:]
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = 0
    header.SOPInstanceUID = series.uid(f"instance:{series.study or series.name}:{series.name}:0")
    header.InstanceNumber = "1"
    header.WindowCenter, header.WindowWidth = _decimals([array.max() / 2, max(array.max(), 1.0)])
    header.PixelData = array.astype("<u2").tobytes()
    path = folder / f"{series.name}.dcm"
    _save(_changed(header, series.changes), path)
    return [path]
