"""Siemens mosaics: tiles become slices at their true places, or the image is refused in words."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import MRImageStorage
from volume_phantoms import SPACING, blank, save, texts, turned

from node.errors import Refused
from node.read.csa import csa, protocol
from node.read.volume import load, volumes

ROWS, COLUMNS = 5, 6
CORNER = np.array([-30.0, 12.0, 7.0])
"""Centre of the first pixel of the first slice, mm."""
PROTOCOL = """### ASCCONV BEGIN object=MrProtDataImpl ###
sSliceArray.lSize\t = \t5
sSliceArray.asSlice[0].sNormal.dTra\t = \t1.0
tProtocolName = "ep2d"
### ASCCONV END ###"""


def csa_header(values: Mapping[str, Sequence[str]], second: bool = True) -> bytes:
    """A CSA header as a scanner writes it: type 2 with `SV10`, type 1 with lengths increased by a constant."""
    base = 6 if values and not second else 0
    head = (b"SV10\4\3\2\1" if second else b"") + struct.pack("<2I", len(values), 77)
    for n, (name, texts_) in enumerate(values.items()):
        items = [text.encode() + b"\0" for text in texts_]
        count = base if n == 0 and not second else len(items)
        items += [b""] * (count - len(items))
        head += struct.pack("<64si4s3i", name.encode(), len(texts_), b"FD", 4, count, 77)
        for data in items:
            size = len(data)
            lengths = (size, size, 77, size) if second else (size + base, 0, 77, 0)
            head += struct.pack("<4i", *lengths) + data + b"\0" * (-size % 4)
    return head + b"\0" * 4


def mosaic(count: int, angle: float = 0.0, reverse: bool = False, second: bool = True) -> Dataset:
    """*count* slices of 5 x 6 pixels, 2 mm apart; slice k holds 100 k + 0 … 29, the rest of the mosaic is 0."""
    across = int(np.ceil(np.sqrt(count)))
    tiles = np.zeros((across * ROWS, across * COLUMNS), np.int16)
    for k in range(count):
        row, column = k // across * ROWS, k % across * COLUMNS
        tiles[row : row + ROWS, column : column + COLUMNS] = np.arange(30).reshape(5, 6) + 100 * k
    ds = blank(MRImageStorage, tiles)
    turn = turned(angle)
    # nibabel's formula turned round: the header has the place of a slice as large as the mosaic.
    corner = CORNER - turn[:, 1] * SPACING[0] * ROWS * (across - 1) / 2
    corner = corner - turn[:, 0] * SPACING[1] * COLUMNS * (across - 1) / 2
    ds.Manufacturer, ds.ImageType = "SIEMENS", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    ds.ImageOrientationPatient = texts((*turn[:, 0], *turn[:, 1]))
    ds.ImagePositionPatient, ds.PixelSpacing = texts(corner), list(SPACING)
    ds.SliceThickness, ds.SpacingBetweenSlices = 1.5, 2
    normal = texts(turn[:, 2] * (-1 if reverse else 1))
    named = {"NumberOfImagesInMosaic": [str(count)], "SliceNormalVector": normal, "B_value": ["800"]}
    private(ds, 0x10, csa_header(named, second))
    return ds


def private(ds: Dataset, element: int, data: bytes) -> None:
    """Put *data* into Siemens' CSA block."""
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(element, "OB", data + b"\0" * (len(data) % 2))


@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("angle", [0.0, 33.0])
@pytest.mark.parametrize("count", [4, 7])
def test_tiles_become_slices_at_their_places(tmp_path: Path, count: int, angle: float, second: bool) -> None:
    """Slice k has its tile's values and lies k x 2 mm along the normal from the first (nibabel, dicom_mosaic)."""
    loaded = load([save(mosaic(count, angle, second=second), tmp_path / "m.dcm")])
    volume = loaded.value
    assert volume.array.shape == (count, ROWS, COLUMNS)
    assert volume.array[:, 1, 2].tolist() == [8 + 100 * k for k in range(count)]
    turn = turned(angle)
    for k in range(count):
        at = CORNER + turn[:, 2] * 2 * k + turn[:, 1] * 4 * SPACING[0] + turn[:, 0] * 5 * SPACING[1]
        assert np.allclose((volume.affine @ [k, 4, 5, 1])[:3], at, atol=1e-5)
    assert volume.facts["b_value"] == 800
    assert loaded.frames == (0,) * count
    assert [(h.Rows, h.Columns) for h in loaded.headers] == [(ROWS, COLUMNS)] * count


def test_a_reversed_normal_stacks_the_other_way(tmp_path: Path) -> None:
    """With the slice normal against row x column the first tile is the last slice, at the same place."""
    volume = load([save(mosaic(4, reverse=True), tmp_path / "m.dcm")]).value
    assert volume.array[:, 0, 0].tolist() == [300, 200, 100, 0]
    assert np.allclose((volume.affine @ [3, 0, 0, 1])[:3], CORNER)


def test_several_mosaics_are_parts(tmp_path: Path) -> None:
    """A time series of mosaics is refused as one volume with the split that helps, and read as parts with it."""
    paths = []
    for n in range(3):
        ds = mosaic(4)
        ds.InstanceNumber = ds.AcquisitionNumber = n + 1
        paths.append(save(ds, tmp_path / f"{n}.dcm"))
    with pytest.raises(Refused, match=r"split: \[AcquisitionNumber\]"):
        load(paths)
    loaded = [part.load() for part in volumes(paths, ["AcquisitionNumber"], "run")]
    assert [one.label for one in loaded] == [f"AcquisitionNumber {n}" for n in (1, 2, 3)]
    assert all(one.value.array.shape == (4, ROWS, COLUMNS) for one in loaded)


def test_the_protocol_helps_where_the_image_header_is_silent(tmp_path: Path) -> None:
    """Without an image header, number and direction come from the ASCII protocol of the series header."""
    ds = mosaic(5)
    del ds[0x0029, 0x1010]
    private(ds, 0x20, csa_header({"MrPhoenixProtocol": [PROTOCOL]}))
    assert load([save(ds, tmp_path / "m.dcm")]).value.array[:, 0, 0].tolist() == [0, 100, 200, 300, 400]
    assert protocol(PROTOCOL)["tProtocolName"] == "ep2d"


def _united_imaging(ds: Dataset) -> None:
    ds.private_block(0x0065, "Image Private Header", create=True).add_new(0x50, "DS", "9")


REFUSALS: dict[str, tuple[Any, str]] = {
    "anonymised": (lambda ds: delitem(ds, 0x00291010), "private header, which says how many slices"),
    "broken": (lambda ds: private(ds, 0x10, b"SV10 and so on"), "private header, which says how many slices"),
    "no normal": (
        lambda ds: private(ds, 0x10, csa_header({"NumberOfImagesInMosaic": ["4"]})),
        "SliceNormalVector",
    ),
    "oblique": (
        lambda ds: private(
            ds,
            0x10,
            csa_header({"NumberOfImagesInMosaic": ["4"], "SliceNormalVector": ["0", "0.6", "0.8"]}),
        ),
        "not stacked along their normal",
    ),
    "indivisible": (
        lambda ds: private(
            ds, 0x10, csa_header({"NumberOfImagesInMosaic": ["50"], "SliceNormalVector": ["0", "0", "1"]})
        ),
        "which 50 tiles do not divide",
    ),
    "no spacing": (lambda ds: delattr(ds, "SpacingBetweenSlices"), "no usable SpacingBetweenSlices"),
    "united imaging": (_united_imaging, "United Imaging's grid"),
}


def delitem(ds: Dataset, tag: int) -> None:
    """Remove one element."""
    del ds[tag]


@pytest.mark.parametrize("name", REFUSALS)
def test_a_mosaic_that_does_not_say_how_is_refused(tmp_path: Path, name: str) -> None:
    """What cannot be known of a mosaic is refused in words, never guessed."""
    change, words = REFUSALS[name]
    ds = mosaic(4)
    change(ds)
    with pytest.raises(Refused) as refusal:
        load([save(ds, tmp_path / "m.dcm")])
    assert words in str(refusal.value)


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_break_the_csa_reader(junk: bytes, second: bool) -> None:
    """Any bytes, and any change to a good header, give values or ValueError, nothing else."""
    good = csa_header({"NumberOfImagesInMosaic": ["4"], "SliceNormalVector": ["0", "0", "1"]}, second)
    for data in (junk, b"SV10\4\3\2\1" + junk, good[: len(junk)], good[:40] + junk + good[40 + len(junk) :]):
        try:
            found = csa(data)
        except ValueError:
            continue
        assert all(isinstance(v, tuple) for v in found.values())
