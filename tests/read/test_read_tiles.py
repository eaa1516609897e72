"""Reading slides: every tile in its place, one at a time, and the whole as other readers rebuild it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import peers
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    VLWholeSlideMicroscopyImageStorage,
    generate_uid,
)

from node.errors import Broken, Refused
from node.operator import Level
from node.read.slide_frames import open_frames
from node.read.tiles import tiles

Change = Callable[[Dataset], Any]
ROWS, COLUMNS, TILE = 7, 10, (4, 3)  # of the matrix; 2 x 4 tiles, the last ones beyond both edges


def matrix(seed: int = 0, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """A coloured matrix in which no two pixels are likely to be the same."""
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)


def cut(pixels: np.ndarray) -> np.ndarray:
    """(tiles, rows, columns, 3) in reading order, padded with zeros beyond the edges."""
    rows, columns = pixels.shape[:2]
    down, across = -(-rows // TILE[0]), -(-columns // TILE[1])
    whole = np.zeros((down * TILE[0], across * TILE[1], 3), np.uint8)
    whole[:rows, :columns] = pixels
    return whole.reshape(down, TILE[0], across, TILE[1], 3).swapaxes(1, 2).reshape(-1, *TILE, 3)


def slide(folder: Path, pixels: np.ndarray, name: str = "a", change: Change = lambda ds: None) -> Path:
    """One TILED_FULL level of *pixels*, 0.5 µm per pixel at 10 columns, uncompressed."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = VLWholeSlideMicroscopyImageStorage, generate_uid()
    ds.SeriesInstanceUID, ds.FrameOfReferenceUID, ds.ContainerIdentifier = "1.2.3", "1.2.4", "S1"
    ds.Modality, ds.ImageType, ds.InstanceNumber = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], 1
    ds.Rows, ds.Columns, ds.NumberOfFrames = *TILE, len(cut(pixels))
    ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns = pixels.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.DimensionOrganizationType, ds.TotalPixelMatrixFocalPlanes = "TILED_FULL", 1
    measures, shared, origin = Dataset(), Dataset(), Dataset()
    step = f"{0.005 / pixels.shape[1]:.8g}"
    measures.PixelSpacing, shared.PixelMeasuresSequence = [step, step], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = "12.5", "30"
    ds.TotalPixelMatrixOriginSequence = [origin]
    ds.ImageOrientationSlide = ["0", "-1", "0", "-1", "0", "0"]
    ds.OpticalPathSequence = [Dataset()]
    ds.OpticalPathSequence[0].OpticalPathIdentifier = "1"
    ds.add_new("PixelData", "OB", cut(pixels).tobytes())
    change(ds)
    path = folder / f"{name}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def rebuilt(level: Level) -> np.ndarray:
    """The total pixel matrix from all tiles of a level."""
    down, across = -(-level.rows // level.tile[0]), -(-level.columns // level.tile[1])
    rows = [np.hstack([level.read(r, c) for c in range(across)]) for r in range(down)]
    return np.vstack(rows)[: level.rows, : level.columns]


@pytest.mark.parametrize("name", ["highdicom-sm/sm_image.dcm", "openslide-boxes/boxes_0.dcm"])
def test_a_real_slide_is_what_highdicom_rebuilds(name: str) -> None:
    """All tiles of a native and of a JPEG slide, put together, are highdicom's total pixel matrix."""
    path = peers.need_samples("PATH", *name.split("/"))
    found = next(tiles([path]))
    level = found.value.levels[0]
    np.testing.assert_array_equal(
        rebuilt(level), hd.imread(path).get_total_pixel_matrix(apply_icc_profile=False)
    )
    assert level.spacing == pytest.approx((0.000499, 0.000499))
    assert found.value.orientation == (0, -1, 0, -1, 0, 0)
    assert "PixelData" not in found.headers[0]


def test_the_thumbnail_is_set_aside() -> None:
    """Of the two OpenSlide objects one is a thumbnail: no level, but named in the facts; its header is no source."""
    folder = peers.need_samples("PATH", "openslide-boxes")
    found = next(tiles(sorted(folder.glob("*.dcm"))))
    assert len(found.value.levels) == len(found.headers) == 1
    uid = dcmread(folder / "boxes_1.dcm").SOPInstanceUID
    assert found.value.facts["set_aside"] == (("THUMBNAIL", uid),)


def _rle(fragments: int, table: str) -> Change:
    """Compress the frames, *fragments* to each, with a basic, an extended or no offset table."""

    def change(ds: Dataset) -> None:
        ds.compress(RLELossless, generate_instance_uid=False)
        from pydicom.encaps import generate_frames

        frames = list(generate_frames(ds.PixelData, number_of_frames=int(ds.NumberOfFrames)))
        if table == "extended":
            ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(frames)
        else:
            ds.PixelData = encapsulate(frames, fragments_per_frame=fragments, has_bot=table == "basic")
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True

    return change


ENCODINGS: dict[str, Change] = {
    "explicit": lambda ds: None,
    "implicit": lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", ImplicitVRLittleEndian),
    "basic table": _rle(1, "basic"),
    "basic table, fragments": _rle(2, "basic"),
    "extended table": _rle(1, "extended"),
    "no table": _rle(1, "none"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tiles_are_found_however_the_frames_are_stored(tmp_path: Path, encoding: str) -> None:
    """Native and encapsulated frames, in fragments, with either offset table or none: each in its place."""
    pixels = matrix()
    found = next(tiles([slide(tmp_path, pixels, change=ENCODINGS[encoding])])).value
    np.testing.assert_array_equal(rebuilt(found.levels[0]), pixels)
    assert found.levels[0].tile == TILE
    assert found.origin == (12.5, 30.0)


def test_one_tile_costs_one_tile(tmp_path: Path) -> None:
    """Opening a slide reads no pixels, and a tile reads its own: a damaged neighbour does not matter."""
    pixels = matrix()
    path = slide(tmp_path, pixels, change=_rle(1, "basic"))
    file = open_frames(path)
    level = next(tiles([path])).value.levels[0]
    data = bytearray(path.read_bytes())
    first = file.start + file.offsets[0] + 8
    data[first : first + 4] = b"\xff\xff\xff\xff"  # frame 0 claims an impossible number of RLE segments
    path.write_bytes(data)
    np.testing.assert_array_equal(level.read(0, 1), cut(pixels)[1])
    with pytest.raises(Broken, match="frame 1 of"):
        level.read(0, 0)


def test_edge_tiles_are_whole_and_beyond_is_broken(tmp_path: Path) -> None:
    """The last tile has all its rows and columns; one further in any direction is an operator's mistake."""
    level = next(tiles([slide(tmp_path, matrix())])).value.levels[0]
    assert level.read(1, 3).shape == (*TILE, 3)
    for place in ((2, 0), (0, 4), (-1, 0), (0, -1)):
        with pytest.raises(Broken, match="outside the level's 2 x 4 tiles"):
            level.read(*place)


def _sparse(kept: list[int], shift: int = 0) -> Change:
    """Make the slide TILED_SPARSE with the tiles *kept* in that order."""

    def change(ds: Dataset) -> None:
        pixels = np.frombuffer(ds.PixelData, np.uint8)[: 8 * TILE[0] * TILE[1] * 3].reshape(8, -1)
        groups = []
        for frame in kept:
            group, place = Dataset(), Dataset()
            place.RowPositionInTotalImagePixelMatrix = 1 + frame // 4 * TILE[0] + shift
            place.ColumnPositionInTotalImagePixelMatrix = 1 + frame % 4 * TILE[1]
            group.PlanePositionSlideSequence = [place]
            groups.append(group)
        ds.DimensionOrganizationType, ds.NumberOfFrames = "TILED_SPARSE", len(kept)
        ds.PerFrameFunctionalGroupsSequence = groups
        ds.PixelData = pixels[kept].tobytes()

    return change


def test_sparse_tiles_lie_where_they_say(tmp_path: Path) -> None:
    """TILED_SPARSE frames in any order go to their positions; what was not scanned is white."""
    pixels = matrix()
    level = next(tiles([slide(tmp_path, pixels, change=_sparse([6, 0, 3]))])).value.levels[0]
    whole = cut(pixels)
    for place, frame in {(1, 2): 6, (0, 0): 0, (0, 3): 3}.items():
        np.testing.assert_array_equal(level.read(*place), whole[frame])
    assert (level.read(1, 0) == 255).all()


def test_levels_come_finest_first_and_slides_apart(tmp_path: Path) -> None:
    """Objects of one container are its levels by size; another container in the series is another slide."""
    fine, coarse, other = matrix(1), matrix(2, 4, 5), matrix(3)
    paths = [
        slide(tmp_path, coarse, "b", lambda ds: setattr(ds, "InstanceNumber", 1)),
        slide(tmp_path, fine, "a", lambda ds: setattr(ds, "InstanceNumber", 2)),
        slide(tmp_path, other, "c", lambda ds: ds.update({"InstanceNumber": 3, "ContainerIdentifier": "S2"})),
    ]
    first, second = tiles(paths)
    assert [(level.rows, level.columns) for level in first.value.levels] == [(7, 10), (4, 5)]
    assert first.value.levels[1].spacing == pytest.approx((0.001, 0.001))
    assert [h.TotalPixelMatrixColumns for h in first.headers] == [10, 5]
    np.testing.assert_array_equal(rebuilt(first.value.levels[1]), coarse)
    np.testing.assert_array_equal(rebuilt(second.value.levels[0]), other)


def test_spacing_from_the_imaged_volume(tmp_path: Path) -> None:
    """Without Pixel Measures, the imaged volume's width and height over the columns and rows are the spacing."""

    def change(ds: Dataset) -> None:
        ds.SharedFunctionalGroupsSequence = []
        ds.ImagedVolumeWidth, ds.ImagedVolumeHeight = 0.01, 0.014

    level = next(tiles([slide(tmp_path, matrix(), change=change)])).value.levels[0]
    assert level.spacing == pytest.approx((0.002, 0.001))


def _set(**values: Any) -> Change:
    return lambda ds: ds.update(values)


REFUSALS: dict[str, tuple[Change, str]] = {
    "another class": (_set(SOPClassUID=SecondaryCaptureImageStorage), "no whole slide"),
    "a label only": (_set(ImageType=["ORIGINAL", "PRIMARY", "LABEL", "NONE"]), "only label"),
    "two paths": (_set(OpticalPathSequence=[Dataset(), Dataset()]), "2 optical paths"),
    "three planes": (_set(TotalPixelMatrixFocalPlanes=3), "3 focal planes"),
    "concatenation": (_set(ConcatenationUID="1.2.3.4"), "concatenation"),
    "no spacing": (_set(SharedFunctionalGroupsSequence=[]), "sizes are unknown"),
    "no origin": (_set(TotalPixelMatrixOriginSequence=[]), "where its image begins"),
    "no orientation": (_set(ImageOrientationSlide=None), "how its image lies"),
    "tiles missing": (_set(NumberOfFrames=7), "7 tiles, its total pixel matrix asks for 8"),
    "fluorescence": (_set(BitsAllocated=16, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2"), "16 bits"),
    "beside the raster": (_sparse([0, 1], shift=1), "beside their raster"),
    "one place twice": (_sparse([0, 0]), "in one place"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_read_is_refused_in_words(tmp_path: Path, case: str) -> None:
    """Focal planes, stains, missing geometry and tiles off the raster are refused, and the next slide is read."""
    change, words = REFUSALS[case]
    bad = slide(tmp_path, matrix(), "bad", change)
    good = slide(tmp_path, matrix(), "good", _set(InstanceNumber=2, ContainerIdentifier="S2"))
    found = tiles([good, bad])
    with pytest.raises(Refused, match=words):
        next(found)
    assert len(next(found).value.levels) == 1


def test_two_images_of_one_size_are_refused(tmp_path: Path) -> None:
    """Two objects of one slide with the same matrix are focal planes or stains: which is meant is unknown."""
    with pytest.raises(Refused, match="several images of one size"):
        next(tiles([slide(tmp_path, matrix(k), str(k)) for k in range(2)]))
