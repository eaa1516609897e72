"""Phantoms as DICOM: classic CT, MR and PET Image Storage (PS3.3 A.3, A.4, A.21); same arguments, same bytes."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)
from pydicom.valuerep import format_number_as_ds

from node.operator import Volume
from node.testing.phantoms import body_volume, head_volume


@dataclass(frozen=True)
class Series:
    """What a written series says of itself; *name* decides every UID."""

    name: str
    study: str = ""
    """Series with the same *study* share a study and a frame of reference; empty = one of its own."""
    patient_id: str = "PHANTOM-1"
    number: int = 1
    description: str = "Phantom"
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Keyword → value put into every object at the end; None removes the attribute."""

    def uid(self, part: str) -> str:
        """Return the UID of *part* of this series: always the same one (PS3.5 B.2)."""
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, f'pacsnode:phantom:{part}').int}"


def write_ct_series(
    folder: Path, volume: Volume | None = None, *, series: Series | None = None
) -> list[Path]:
    """Write *volume* (HU; default: `body_volume()`) as CT images, one file per slice, and return their paths.

    Where `volume.valid` is False the pixel padding value stands. Raises ValueError beyond -1024 … 31743 HU.
    """
    volume = body_volume() if volume is None else volume
    stored = np.rint(volume.array).astype(np.int64) + 1024
    measured = stored if volume.valid is None else stored[volume.valid]
    if measured.min() < 0 or measured.max() > 2**15 - 1:
        raise ValueError("CT phantoms hold -1024 to 31743 HU")
    header = _header(series or Series("ct"), CTImageStorage, "CT")
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.BodyPartExamined = "CHEST"
    header.KVP = "120"
    header.ConvolutionKernel = "STANDARD"
    header.ContrastBolusAgent = "Iodinated, simulated"
    header.PixelRepresentation = 1
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = "-1024", "1", "HU"
    header.WindowCenter, header.WindowWidth = "40", "400"
    if volume.valid is not None:
        stored = np.where(volume.valid, stored, -2000)
        header.PixelPaddingValue = -2000
    return _write(Path(folder), header, volume, stored.astype("<i2"), series or Series("ct"))


def write_mr_series(
    folder: Path, volume: Volume | None = None, *, series: Series | None = None
) -> list[Path]:
    """Write *volume* (default: `head_volume()`) as T1-weighted spin echo MR images, one file per slice.

    Raises ValueError for values outside 0 … 65535.
    """
    volume = head_volume() if volume is None else volume
    stored = np.rint(volume.array).astype(np.int64)
    if stored.min() < 0 or stored.max() > 2**16 - 1:
        raise ValueError("MR phantoms hold 0 to 65535")
    header = _header(series or Series("mr"), MRImageStorage, "MR")
    header.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    header.BodyPartExamined = "HEAD"
    header.ScanningSequence, header.SequenceVariant, header.ScanOptions = "SE", "NONE", ""
    header.MRAcquisitionType = "2D"
    header.RepetitionTime, header.EchoTime, header.EchoTrainLength = "500", "12", "1"
    header.MagneticFieldStrength = "1.5"
    header.PixelRepresentation = 0
    header.WindowCenter, header.WindowWidth = "500", "1000"
    return _write(Path(folder), header, volume, stored.astype("<u2"), series or Series("mr"))


def write_pet_series(folder: Path, volume: Volume, *, series: Series | None = None) -> list[Path]:
    """Write *volume* (Bq/ml) as PET images, attenuation and decay corrected (PS3.3 A.21), one file per slice.

    Raises ValueError for negative values.
    """
    if volume.array.min() < 0:
        raise ValueError("PET phantoms hold 0 Bq/ml or more")
    slope = max(float(volume.array.max()), 1.0) / 30000
    stored = np.rint(volume.array / slope).astype(np.int64)
    header = _header(series or Series("pet"), PositronEmissionTomographyImageStorage, "PT")
    header.ImageType = ["ORIGINAL", "PRIMARY"]
    header.BodyPartExamined = "CHEST"
    header.SeriesType, header.Units, header.CountsSource = ["STATIC", "IMAGE"], "BQML", "EMISSION"
    header.NumberOfSlices, header.CorrectedImage = len(stored), ["DECY", "ATTN"]
    header.DecayCorrection, header.AttenuationCorrectionMethod = "START", "measured"
    header.CollimatorType, header.PatientWeight, header.PatientSize = "NONE", "70", "1.75"
    header.FrameReferenceTime, header.ActualFrameDuration, header.DecayFactor = "0", "120000", "1"
    del header.PatientPosition  # said by the codes below (C.7.3.1.1.2)
    dose = Dataset()
    dose.Radiopharmaceutical, dose.RadionuclideTotalDose, dose.RadionuclideHalfLife = "FDG", "3.7E8", "6586.2"
    dose.RadiopharmaceuticalStartTime, dose.RadionuclidePositronFraction = "091500", "0.967"
    dose.RadionuclideCodeSequence = [_code("C-111A1", "SRT", "^18^Fluorine")]
    header.RadiopharmaceuticalInformationSequence = [dose]
    header.PatientOrientationCodeSequence = [_code("F-10450", "SRT", "recumbent")]
    header.PatientGantryRelationshipCodeSequence = [_code("F-10470", "SRT", "headfirst")]
    header.PixelRepresentation = 1
    header.RescaleIntercept, header.RescaleSlope = "0", _decimals([slope])[0]
    return _write(Path(folder), header, volume, stored.astype("<i2"), series or Series("pet"))


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _header(series: Series, sop_class: str, modality: str) -> Dataset:
    """Return what all images of *series* share: patient, study, series, frame of reference, equipment."""
    study = series.study or series.name
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SOPClassUID, header.Modality = sop_class, modality
    header.PatientName, header.PatientID = "Phantom^Analytic", series.patient_id
    header.PatientBirthDate, header.PatientSex = "19700101", "O"
    header.StudyInstanceUID = series.uid(f"study:{study}")
    header.StudyID, header.AccessionNumber = "1", "A" + series.uid(f"study:{study}")[-8:]
    header.StudyDescription = "Phantom study"
    for part in ("Study", "Series", "Acquisition", "Content"):
        setattr(header, f"{part}Date", "20240102")
        setattr(header, f"{part}Time", "101500")
    header.ReferringPhysicianName = ""
    header.SeriesInstanceUID = series.uid(f"series:{study}:{series.name}")
    header.SeriesNumber, header.AcquisitionNumber = str(series.number), "1"
    header.SeriesDescription, header.ProtocolName = series.description, "Phantom"
    header.PatientPosition, header.PositionReferenceIndicator = "HFS", ""
    header.FrameOfReferenceUID = series.uid(f"frame:{study}")
    header.Manufacturer, header.ManufacturerModelName = "PACSNode", "Analytic phantom"
    header.DeviceSerialNumber, header.SoftwareVersions = "1", "1"
    return header


def _write(folder: Path, header: Dataset, volume: Volume, stored: NDArray[Any], series: Series) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = stored.shape[1:]
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelSpacing = _decimals(volume.spacing[1:])
    header.SliceThickness = header.SpacingBetweenSlices = _decimals(volume.spacing[:1])[0]
    header.ImageOrientationPatient = _decimals([*volume.axes[:, 2], *volume.axes[:, 1]])
    if header.Modality == "CT":
        del header.SpacingBetweenSlices  # no attribute of the CT Image IOD
    paths = []
    for k, pixels in enumerate(stored):
        position = volume.origin + k * volume.affine[:3, 0]
        header.SOPInstanceUID = series.uid(f"instance:{series.study or series.name}:{series.name}:{k}")
        header.InstanceNumber = str(k + 1)
        if header.Modality == "PT":
            header.ImageIndex = k + 1
        header.ImagePositionPatient = _decimals(position)
        header.SliceLocation = _decimals([position @ np.cross(volume.axes[:, 2], volume.axes[:, 1])])[0]
        header.PixelData = pixels.tobytes()
        paths.append(folder / f"{k + 1:04d}.dcm")
        _save(_changed(header, series.changes), paths[-1])
    return paths


def _changed(header: Dataset, changes: Mapping[str, Any]) -> Dataset:
    changed = Dataset(header)
    for keyword, value in changes.items():
        if value is not None:
            setattr(changed, keyword, value)
        elif keyword in changed:
            delattr(changed, keyword)
    return changed


def _save(dataset: Dataset, path: Path) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)


def _decimals(numbers: Any) -> list[str]:
    """Return *numbers* as decimal strings of at most 16 characters (PS3.5 6.2, DS)."""
    return [format_number_as_ds(float(number) + 0.0) for number in numbers]
