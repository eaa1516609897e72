"""What the demo sends: real images out of packages the node depends on, and two analytic phantoms.

Nothing is downloaded. pydicom's wheel brings a few dozen small objects of real scanners; `pydicom-data`, where
it is installed, brings full-size ones. None of them is a thin multi-slice scan, so the two phantoms stand in for
the chest CT and the 3-D head MR that the shipped rules work on.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom.data
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.errors import InvalidDicomError

from node.testing import Grid, Series, body_volume, head_volume, write_ct_series, write_mr_series

SCANNERS = ("CT01", "MR01", "NM01", "US01", "XR01", "ECG01")
"""Peer names and calling AE titles."""

CT_GRID = Grid((96, 160, 160), (1.5, 2.0, 2.0))
"""Thin enough and long enough for `ct-chest-thick`."""
MR_GRID = Grid((104, 128, 128), (1.5, 1.6, 1.6), row=(-0.12, 0.99, 0.06), column=(0.0, 0.06, -0.99))
"""Sagittal, turned by some 8° as heads are: for `mr-reformat`."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One series on its way to the node."""

    title: str
    scanner: str
    series_uid: str
    files: tuple[Path, ...]
    """In the order of sending; each has a file meta that names its SOP class and transfer syntax."""


@dataclass(frozen=True, slots=True)
class _Packaged:
    """A real series: one name for `get_testdata_file`, or a folder below pydicom's `dicomdirtests`."""

    title: str
    scanner: str
    name: str


_REAL = (
    _Packaged("CT spine, 1 slice", "CT01", "CT_small.dcm"),
    _Packaged("CT head, 1 slice, JPEG 2000", "CT01", "J2K_pixelrep_mismatch.dcm"),
    _Packaged("CT abdomen, 1 slice, JPEG 2000", "CT01", "explicit_VR-UN.dcm"),
    _Packaged("CT heart, thumbnails", "CT01", "98892001/CT5N"),
    _Packaged("MR head, 1 slice", "MR01", "MR_small.dcm"),
    _Packaged("MR abdomen with overlay", "MR01", "examples_overlay.dcm"),
    _Packaged("MR shoulder, JPEG 2000", "MR01", "MR2_J2KR.dcm"),
    _Packaged("MR head, 10 frames", "MR01", "emri_small.dcm"),
    _Packaged("MR angiography, thumbnails", "MR01", "98892003/MR700"),
    _Packaged("NM whole body, JPEG Lossless", "NM01", "JPEG-LL.dcm"),
    _Packaged("US lymph node, JPEG 2000", "US01", "examples_jpeg2k.dcm"),
    _Packaged("US heart, 30 frames, JPEG", "US01", "examples_ybr_color.dcm"),
    _Packaged("X-ray chest, JPEG 2000", "XR01", "RG1_J2KR.dcm"),
    _Packaged("ECG, 12 leads", "ECG01", "waveform_ecg.dcm"),
)


def gather(folder: Path) -> tuple[Sent, ...]:
    """Copy the packaged images and write the phantoms below *folder*, one folder per series."""
    series: list[Sent] = []
    for packaged in _REAL:
        place = folder / f"{len(series) + 1:02d}"
        files = _copied(_files(packaged.name), place)
        if files:
            series.append(Sent(packaged.title, packaged.scanner, _series_uid(files[0]), files))
    for title, scanner, write in (
        ("CT chest, 1.5 mm, phantom", "CT01", _ct_phantom),
        ("MR head, sagittal 3-D, phantom", "MR01", _mr_phantom),
    ):
        files = tuple(write(folder / f"{len(series) + 1:02d}"))
        series.append(Sent(title, scanner, _series_uid(files[0]), files))
    return tuple(series)


def _ct_phantom(folder: Path) -> list[Path]:
    about = Series("demo-ct", patient_id="DEMO-CT", number=2, description="Chest 1.5 mm")
    return write_ct_series(folder, body_volume(CT_GRID), series=about)


def _mr_phantom(folder: Path) -> list[Path]:
    changes = {"MRAcquisitionType": "3D", "ScanningSequence": "GR", "SequenceVariant": "SP"}
    about = Series("demo-mr", patient_id="DEMO-MR", number=3, description="T1 3D sagittal", changes=changes)
    return write_mr_series(folder, head_volume(MR_GRID), series=about)


def _files(name: str) -> Iterator[Path]:
    """The files of a packaged series; none where this installation lacks them."""
    folder = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests" / name
    if folder.is_dir():
        yield from sorted(folder.iterdir())
    elif found := get_testdata_file(name, download=False):
        yield Path(str(found))


def _copied(files: Iterator[Path], place: Path) -> tuple[Path, ...]:
    copies: list[Path] = []
    for file in files:
        if _can_be_sent(file):
            place.mkdir(parents=True, exist_ok=True)
            copies.append(Path(shutil.copyfile(file, place / f"{len(copies) + 1:04d}.dcm")))
    return tuple(copies)


def _can_be_sent(file: Path) -> bool:
    """Whether the file says what a C-STORE must say; another release of the package may hold other files."""
    try:
        meta = dcmread(file, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True)
    except (OSError, InvalidDicomError):
        return False
    needed = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    return all(keyword in meta.file_meta for keyword in needed) and "SeriesInstanceUID" in meta


def _series_uid(file: Path) -> str:
    return str(dcmread(file, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True).SeriesInstanceUID)
