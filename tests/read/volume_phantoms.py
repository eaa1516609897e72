"""Phantoms for the tests of this room: objects of known geometry and values, written as DICOM files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

Change = Callable[[Dataset, int], Any]
SPACING = (0.8, 0.6)
"""mm between rows and between columns of every phantom."""


def turned(angle: float) -> np.ndarray:
    """Rotation by *angle* degrees about x and then z; its columns are row, column and slice direction."""
    a = np.radians(angle)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x)


def texts(numbers: Any, digits: int = 8) -> list[str]:
    """Decimal strings."""
    return [f"{float(n):.{digits}f}" for n in numbers]


def blank(sop: str, stored: np.ndarray) -> Dataset:
    """An object of class *sop* with *stored* as 16-bit pixels, signed where their type is; no geometry."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.InstanceNumber = sop, generate_uid(), 1
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.1", "1.2.2", "1.2.3"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        ds.NumberOfFrames = len(stored)
    if stored.dtype == np.float32:
        ds.BitsAllocated, ds.FloatPixelData = 32, stored.tobytes()
    elif stored.dtype == np.float64:
        ds.BitsAllocated, ds.DoubleFloatPixelData = 64, stored.tobytes()
    else:
        bits = stored.dtype.itemsize * 8
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
        ds.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
        ds.add_new("PixelData", "OW", stored.tobytes())
    return ds


def save(ds: Dataset, path: Path) -> Path:
    """Write a Part 10 file."""
    ds.save_as(path, enforce_file_format=True)
    return path


def series(
    folder: Path,
    change: Change = lambda ds, k: None,
    count: int = 4,
    angle: float = 0.0,
    sop: str = CTImageStorage,
) -> list[Path]:
    """Slices of 5 x 6 pixels, 2 mm apart, turned by *angle* degrees about x and then z."""
    turn = turned(angle)
    paths = []
    for k in range(count):
        stored = np.arange(30).reshape(5, 6) + 100 * k
        ds = blank(sop, stored.astype("<i2"))
        ds.InstanceNumber = k + 1
        ds.ImageOrientationPatient = texts((*turn[:, 0], *turn[:, 1]))
        ds.ImagePositionPatient = texts(np.array([-30, 12, 7]) + turn[:, 2] * 2 * k, 6)
        ds.PixelSpacing, ds.SliceThickness = list(SPACING), 2
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1000
        change(ds, k)
        paths.append(save(ds, folder / f"{(k * 7) % 10}.dcm"))  # file order is not slice order
    return sorted(paths)


def item(**values: Any) -> Dataset:
    """A sequence item of keywords."""
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def code(value: str, scheme: str, meaning: str) -> list[Dataset]:
    """A code sequence of one item."""
    return [item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)]


def enhanced(
    positions: Sequence[Any], stored: np.ndarray, angle: float = 0.0, sop: str = EnhancedMRImageStorage
) -> Dataset:
    """A multi-frame object with functional groups: one frame per position, turned as `series` is."""
    turn = turned(angle)
    ds = blank(sop, stored)
    ds.Modality, ds.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M", "NONE"]
    ds.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=[item(ImageOrientationPatient=texts((*turn[:, 0], *turn[:, 1])))],
            PixelMeasuresSequence=[
                item(PixelSpacing=list(SPACING), SliceThickness=2, SpacingBetweenSlices=2)
            ],
        )
    ]
    ds.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=texts(position, 6))]) for position in positions
    ]
    return ds


def mapping(unit: str, slope: float, intercept: float = 0.0, **more: Any) -> Dataset:
    """A Real World Value Mapping of the stored values -1000 to 30000."""
    ds = item(
        MeasurementUnitsCodeSequence=code(unit, "UCUM", unit),
        RealWorldValueSlope=slope,
        RealWorldValueIntercept=intercept,
        **more,
    )
    ds.add_new("RealWorldValueFirstValueMapped", "SS", -1000)
    ds.add_new("RealWorldValueLastValueMapped", "SS", 30000)
    return ds
