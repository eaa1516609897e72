"""What is sent: analytic CT and MR phantoms of the sizes of real slices, made anew for each run."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    generate_uid,
)

from node.errors import Broken
from node.operator import Volume
from node.testing import Grid, Series, body_volume, head_volume, write_ct_series, write_mr_series

_PERIOD = 10
"""Slices that are made; longer series repeat them, each with its own UID and position."""


def write_ct(folder: Path, slices: int, name: str = "ct") -> list[Path]:
    """Write CT slices of 512 × 512 × 16 bit, about 525 kB each."""
    made = body_volume(Grid((_PERIOD, 512, 512), (2.5, 0.625, 0.625)))
    return write_ct_series(folder, _repeated(made, slices), series=Series(name, "bench"))


def write_mr(folder: Path, slices: int, name: str = "mr") -> list[Path]:
    """Write MR slices of 128 × 128 × 16 bit, about 34 kB each."""
    made = head_volume(Grid((_PERIOD, 128, 128), (3.0, 1.875, 1.875)))
    return write_mr_series(folder, _repeated(made, slices), series=Series(name, "bench"))


def write_examination(folder: Path, number: int) -> list[Path]:
    """Write a T1-weighted head of 20 slices of 256 × 256; each *number* is a study of its own."""
    made = head_volume(Grid((20, 256, 256), (5.0, 0.94, 0.94)))
    return write_mr_series(folder, made, series=Series("mr", f"bench-{number}"))


def _repeated(made: Volume, slices: int) -> Volume:
    return dataclasses.replace(made, array=np.resize(made.array, (slices, *made.array.shape[1:])))


def write_big_head(folder: Path, frames: int) -> int:
    """Write a multi-frame object up to where its pixels begin; returns how many bytes of them belong to it.

    Multi-frame Grayscale Word Secondary Capture (PS3.3 A.8.4), 512 × 512 × 16 bit, Explicit VR Little Endian. Raises
    Broken where the pixels would need more than the 32 bits of their length.
    """
    size = frames * 512 * 512 * 2
    if not 0 < size < 0xFFFFFFFF:
        raise Broken(
            f"{frames} frames of 512 kB do not fit into one object; a native one has less than 4.29 GB"
        )
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = (
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        generate_uid(),
    )
    header.PatientName, header.PatientID = "Phantom^Big", "PHANTOM-BIG"
    header.StudyInstanceUID, header.SeriesInstanceUID = generate_uid(), generate_uid()
    header.Modality, header.ConversionType, header.SeriesNumber, header.InstanceNumber = "OT", "SYN", 1, 1
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.NumberOfFrames, header.Rows, header.Columns = frames, 512, 512
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 0
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    folder.mkdir(parents=True)
    path = folder / "head.dcm"
    header.save_as(path, enforce_file_format=True)
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, size))
    return size
