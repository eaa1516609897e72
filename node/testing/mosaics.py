"""Stacks as Siemens writes them: all slices of a volume as tiles of one image, explained in a CSA header."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.operator import Stack, Volume
from node.testing.series import Series
from node.testing.stacks import write_mr_stack


def csa_header(values: Mapping[str, Sequence[str]]) -> bytes:
    """Named values as a CSA header of type 2, laid out as nibabel documents it."""
    head = b"SV10\4\3\2\1" + struct.pack("<2I", len(values), 77)
    for name, texts in values.items():
        head += struct.pack("<64si4s3i", name.encode(), len(texts), b"FD", 4, len(texts), 77)
        for text in texts:
            data = text.encode() + b"\0"
            head += struct.pack("<4i", len(data), len(data), 77, len(data)) + data + b"\0" * (-len(data) % 4)
    return head + b"\0" * 4


def write_mosaic_series(folder: Path, stack: Stack, *, series: Series | None = None) -> list[Path]:
    """Write each volume of *stack* as one mosaic; b-value and direction stand in Siemens' private elements."""
    written = write_mr_stack(folder, stack, series=series or Series("mr-mosaic"))
    count = len(stack.volumes[0].array)
    paths = []
    for number, volume in enumerate(stack.volumes):
        first, *others = written[number * count : (number + 1) * count]
        ds = dcmread(first)
        _tile(ds, volume)
        ds.InstanceNumber = ds.AcquisitionNumber = number + 1
        ds.save_as(first, enforce_file_format=True)
        for other in others:
            other.unlink()
        paths.append(first)
    return paths


def _tile(ds: Dataset, volume: Volume) -> None:
    """Make *ds*, the first slice of *volume*, its mosaic.

    Its position is that of a slice as large as the mosaic, centred on the first slice (nibabel, dicom_mosaic).
    """
    count, rows, columns = (int(n) for n in volume.array.shape)
    across = ceil(sqrt(count))
    tiles = np.zeros((across * rows, across * columns), "<u2")
    for k in range(count):
        row, column = k // across * rows, k % across * columns
        tiles[row : row + rows, column : column + columns] = np.rint(volume.array[k])
    moved = np.array([0.0, rows, columns]) * (across - 1) / 2 * volume.spacing
    ds.ImagePositionPatient = [round(float(v), 6) for v in volume.origin - volume.axes @ moved]
    ds.Rows, ds.Columns, ds.PixelData = across * rows, across * columns, tiles.tobytes()
    ds.Manufacturer, ds.ImageType = "SIEMENS", ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "ND", "MOSAIC"]
    ds.SpacingBetweenSlices = float(volume.spacing[0])
    said = {
        "NumberOfImagesInMosaic": [str(count)],
        "SliceNormalVector": [f"{v:.8f}" for v in volume.axes[:, 0]],
    }
    own = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    if "b_value" in volume.facts:
        said["B_value"] = [f"{volume.facts['b_value']:g}"]
        own.add_new(0x0C, "IS", f"{volume.facts['b_value']:.0f}")
    if "gradient" in volume.facts:
        said["DiffusionGradientDirection"] = [f"{v:.8f}" for v in volume.facts["gradient"]]
        own.add_new(0x0E, "FD", list(volume.facts["gradient"]))
    for keyword in (
        "DiffusionBValue",
        "DiffusionGradientOrientation",
        "DiffusionDirectionality",
        "SliceLocation",
    ):
        if keyword in ds:
            delattr(ds, keyword)
    data = csa_header(said)
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", data + b"\0" * (len(data) % 2))
