"""For plugin authors and for us: analytic phantoms as arrays and as DICOM series, and a call like the node's.

A phantom is sampled at the voxel centres of any grid, so its truth is known in millimetres whatever the
orientation. Files are classic CT and MR Image Storage (PS3.3 A.3, A.4); same arguments, same bytes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from node.model import Code, Plan, Step
from node.operator import Mask, Volume, affine_of
from node.process import steps
from node.process.signature import spec_of

__all__ = [
    "Grid", "Series", "body_volume", "head_volume", "nodules", "ramp_volume", "run_operator", "sphere_volume",
    "write_ct_series", "write_mr_series",
]  # fmt: skip

Array = NDArray[np.float64]
Triple = tuple[float, float, float]

HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
NO_UNITS = Code("1", "UCUM", "no units")


@dataclass(frozen=True)
class Grid:
    """Where a phantom is sampled: centred on the phantom's own origin."""

    shape: tuple[int, int, int] = (60, 128, 128)
    """Slices, rows, columns."""
    spacing: Triple = (2.5, 2.5, 2.5)
    """mm between slices, rows, columns."""
    row: Triple = (1.0, 0.0, 0.0)
    """Direction in which the column index grows (first half of Image Orientation (Patient))."""
    column: Triple = (0.0, 1.0, 0.0)
    """Direction in which the row index grows; perpendicular to *row*."""

    @property
    def affine(self) -> Array:
        """4 x 4, array index → LPS mm; slices advance along *row* x *column*."""
        row, column = (np.array(v, float) / np.linalg.norm(v) for v in (self.row, self.column))
        axes = np.stack([np.cross(row, column), column, row], axis=1)
        extent = axes @ ((np.array(self.shape) - 1) * np.array(self.spacing))
        return affine_of(-extent / 2, axes, np.array(self.spacing))

    def coordinates(self) -> Array:
        """Return x, y, z in mm of every voxel centre: shape (3, slices, rows, columns)."""
        affine = self.affine
        indices = np.indices(self.shape, dtype=float)
        found: Array = np.tensordot(affine[:3, :3], indices, 1) + affine[:3, 3].reshape(3, 1, 1, 1)
        return found

    @staticmethod
    def tilted(degrees: float, shape: tuple[int, int, int] = (60, 128, 128)) -> Grid:
        """Return an oblique grid: axial, turned about the x and then about the z axis by *degrees*."""
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        row = (float(cosine), float(sine), 0.0)
        column = (float(-sine * cosine), float(cosine * cosine), float(sine))
        return Grid(shape=shape, row=row, column=column)


@dataclass(frozen=True)
class Blob:
    """One ellipsoid of a phantom; a radius of inf makes it a cylinder."""

    centre: Triple
    radii: Triple
    value: float


def sphere_volume(
    grid: Grid = Grid((32, 48, 48), (2.0, 1.0, 1.0)),
    *,
    radius: float = 15.0,
    centre: Triple = (0.0, 0.0, 0.0),
    inside: float = 100.0,
    outside: float = -1000.0,
    unit: Code = HOUNSFIELD,
) -> Volume:
    """Return a sphere of *radius* mm with a sharp edge: a voxel is inside when its centre is."""
    offset = grid.coordinates() - np.array(centre).reshape(3, 1, 1, 1)
    array = np.where((offset**2).sum(axis=0) <= radius**2, inside, outside).astype(np.float32)
    return Volume(array, grid.affine, unit)


def ramp_volume(
    grid: Grid = Grid((20, 30, 40), (3.0, 1.5, 1.0)),
    *,
    per_mm: Triple = (1.0, 2.0, 4.0),
    offset: float = 0.0,
    unit: Code = HOUNSFIELD,
) -> Volume:
    """Return *offset* plus *per_mm* · (x, y, z): any linear resampling reproduces it exactly."""
    array = np.tensordot(np.array(per_mm), grid.coordinates(), 1) + offset
    return Volume(array.astype(np.float32), grid.affine, unit)


def nodules() -> tuple[Blob, ...]:
    """Return the spheres in the lungs of `body_volume`: their volumes are 4/3 π r³."""
    return (
        Blob((62.0, -22.0, 40.0), (12.0, 12.0, 12.0), 40.0),
        Blob((-62.0, 12.0, 45.0), (8.0, 8.0, 8.0), 40.0),
        Blob((-56.0, -28.0, 15.0), (5.0, 5.0, 5.0), 40.0),
        Blob((70.0, 14.0, 5.0), (6.0, 6.0, 6.0), 800.0),  # calcified
    )


def body_volume(grid: Grid = Grid(), *, noise: float = 12.0, seed: int = 0) -> Volume:
    """Return an enhanced chest in HU on its table: fat, muscle, lungs, heart, liver, spine, ribs, nodules.

    *noise* is the standard deviation of the added Gaussian noise, drawn from *seed*.
    """
    x, y, z = point = grid.coordinates()
    soft = min(grid.spacing)
    array = np.full(grid.shape, -1000.0)
    _paint(array, point, soft, (Blob((0, 0, 0), (140, 95, inf), -100), Blob((0, 0, 0), (128, 84, inf), 50)))
    ring = np.abs(np.hypot(x / 118, y / 76) - 1) < 0.035
    array[ring & (np.mod(z - 0.35 * y, 24) < 9)] = 350.0  # ribs slope down to the front
    lungs = (Blob((-62, -5, 22), (47, 62, 92), -850), Blob((62, -5, 22), (44, 60, 92), -850))
    liver = (Blob((-50, -8, -85), (76, 68, 58), 110),)
    heart = (Blob((16, -25, -12), (46, 38, 46), 50), Blob((22, -27, -14), (29, 24, 31), 190))
    vessels = (Blob((24, 40, 0), (12, 12, inf), 190), Blob((-12, -8, 0), (9, 9, inf), 170))
    bones = (Blob((0, -76, 0), (15, 5, inf), 320), Blob((0, 80, 0), (5, 9, inf), 350))
    _paint(array, point, soft, (*lungs, *liver, *heart, *vessels, *bones))
    _paint(array, point, soft, (Blob((0, 54, 0), (21, 16, inf), 260),))
    array[(np.hypot(x / 21, (y - 54) / 16) < 1) & (np.mod(z, 25) < 6)] = 90.0  # discs between vertebrae
    _paint(array, point, soft, (Blob((0, 74, 0), (9, 8, inf), 20), *nodules()))
    array[(np.abs(y - 110) < 4) & (np.abs(x) < 150)] = -250.0  # the table, 11 mm below the back
    array += np.random.default_rng(seed).normal(0.0, noise, grid.shape)
    return Volume(np.clip(np.rint(array), -1024, 3071).astype(np.float32), grid.affine, HOUNSFIELD)


def head_volume(
    grid: Grid = Grid((40, 128, 128), (4.0, 1.875, 1.875)),
    *,
    noise: float = 15.0,
    seed: int = 0,
) -> Volume:
    """Return a T1-weighted head: scalp, skull, folded cortex, ventricles, eyes and one bright lesion.

    Arbitrary units; a coil's shading (± 12 %) and Rician noise of *noise* units per channel are added.
    """
    x, y, z = point = grid.coordinates()
    soft = min(grid.spacing)
    array = np.zeros(grid.shape)
    shells = ((76, 96, 92, 900), (70, 90, 86, 60), (66, 86, 82, 180))
    _paint(array, point, soft, tuple(Blob((0, 0, 0), (a, b, c), value) for a, b, c, value in shells))
    _paint(array, point, soft, (Blob((0, 0, 0), (63, 83, 79), 480),))
    angle = np.arctan2(y, x)
    folds = 1 + 0.05 * np.sin(11 * angle + z / 9) + 0.04 * np.sin(23 * angle - z / 5)
    array[np.sqrt((x / 55) ** 2 + (y / 74) ** 2 + (z / 70) ** 2) < folds] = 720.0  # white matter
    array[(np.abs(x) < 1.5) & (array > 300) & (array < 800) & (z > 10)] = (
        180.0  # the fissure between the halves
    )
    inner = [Blob((side * 12, 4, 12), (6, 28, 14), 150) for side in (-1, 1)]
    inner += [Blob((side * 20, 2, -6), (11, 16, 12), 520) for side in (-1, 1)]
    inner += [Blob((side * 32, -80, -28), (13, 13, 13), 140) for side in (-1, 1)]
    _paint(array, point, soft, (*inner, Blob((-34, 26, 24), (9, 9, 9), 1100)))
    array *= 1 + 0.12 * (y / 96)
    channels = np.random.default_rng(seed).normal(0.0, noise, (2, *grid.shape))
    array = np.hypot(array + channels[0], channels[1])
    return Volume(np.clip(np.rint(array), 0, 4095).astype(np.float32), grid.affine, NO_UNITS)


def _paint(array: Array, point: Array, soft: float, blobs: tuple[Blob, ...]) -> None:
    """Paint *blobs* over *array*, one after the other, their edges blended over *soft* mm."""
    for blob in blobs:
        parts = zip(point, blob.centre, blob.radii, strict=True)
        away = np.sqrt(sum(((p - c) / r) ** 2 for p, c, r in parts))
        share = np.clip(0.5 - (away - 1) * min(blob.radii) / soft, 0, 1)
        array += share * (blob.value - array)


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
    if stored.min() < 0 or stored.max() > 2**15 - 1:
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


def run_operator(function: Callable[..., Any], volume: Volume, *inputs: Volume | Mask, **options: Any) -> Any:
    """Call an operator the way a run does, with every check of its signature and of what it returns.

    *volume* is its first input, *inputs* are the others; *options* are in the units it declares.
    Raises what a run would: Refused, Broken or Misconfigured, in words.
    """
    given = {f"input_{number}": _giver(value) for number, value in enumerate(inputs, 2)}
    name = getattr(function, "__name__", "operator")
    names = [parameter.name for parameter in spec_of(name, function).inputs]
    sources = dict(zip(names, [steps.RECEIVED, *given], strict=False))
    first = tuple(Step(source, {"volume": steps.RECEIVED}, {}, source) for source in given)
    plan = Plan("test", "", (*first, Step(name, sources, options, "result")), ())
    operators = {**given, name: function}
    # A view: the run makes what it is given read-only, and the caller's array is the caller's.
    return steps.run(plan, replace(volume, array=volume.array.view()), operators.__getitem__)["result"]


def _giver(value: Volume | Mask) -> Callable[..., Any]:
    """Return an operator that gives *value*, so that a plan can name it as a step's result."""
    given = replace(value, array=value.array.view())
    if isinstance(given, Mask):

        def mask(volume: Volume) -> Mask:  # noqa: ARG001 - an operator has an input
            return given

        return mask

    def other(volume: Volume) -> Volume:  # noqa: ARG001 - an operator has an input
        return given

    return other
