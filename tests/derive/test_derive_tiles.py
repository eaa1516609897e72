"""Whole slides we write: the same pixels in the same place on the glass, valid to peers and to highdicom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import peers
import pytest
from derive_material import complaints, ct_headers, job
from pydicom import dcmread

from node.derive.sources import Sources
from node.derive.write import write
from node.errors import Broken, Refused
from node.model import Product
from node.operator import Level, Tiles
from node.read.loaded import Loaded
from node.read.tiles import tiles

Pixels = np.ndarray


def source(*names: str) -> tuple[Loaded[Tiles], list[Path]]:
    """A real slide of the samples."""
    paths = [peers.need_samples("PATH", *name.split("/")) for name in names or ("highdicom-sm/sm_image.dcm",)]
    return next(tiles(paths)), paths


def level_of(pixels: Pixels, tile: tuple[int, int], spacing: tuple[float, float]) -> Level:
    """A level that cuts *pixels*; beyond their edges its tiles are black."""
    rows, columns = pixels.shape[:2]

    def read(row: int, column: int) -> Pixels:
        found = np.zeros((*tile, *pixels.shape[2:]), np.uint8)
        part = pixels[row * tile[0] : (row + 1) * tile[0], column * tile[1] : (column + 1) * tile[1]]
        found[: part.shape[0], : part.shape[1]] = part
        return found

    return Level(rows, columns, spacing, tile, read)


def written(folder: Path, loaded: Loaded[Tiles], value: Tiles) -> list[Product]:
    """The products of *value*, gated."""
    products = write({"slide": value}, job("slide"), Sources(loaded.headers, loaded.frames), folder)
    assert {product.kind for product in products} == {"tiles"}
    return products


@pytest.mark.parametrize("name", ["highdicom-sm/sm_image.dcm", "openslide-boxes/boxes_0.dcm"])
def test_a_real_slide_comes_back_equal(tmp_path: Path, name: str) -> None:
    """Written as read: highdicom rebuilds the source's matrix, on the same place, with no new dciodvfy error."""
    loaded, paths = source(name)
    made = tmp_path / written(tmp_path, loaded, loaded.value)[0].path
    ours, theirs = hd.imread(made), hd.imread(paths[0])
    np.testing.assert_array_equal(
        ours.get_total_pixel_matrix(apply_icc_profile=False),
        theirs.get_total_pixel_matrix(apply_icc_profile=False),
    )
    one, other = ours.get_volume_geometry(), theirs.get_volume_geometry()
    assert one is not None
    np.testing.assert_allclose(one.affine, other.affine)
    assert complaints(made) <= complaints(paths[0])


def test_what_belongs_to_the_slide_stays_with_it(tmp_path: Path) -> None:
    """Container, specimen, optical path, frame of reference and lossy history are the source's; the rest is ours."""
    loaded, paths = source("openslide-boxes/boxes_0.dcm")
    made = dcmread(tmp_path / written(tmp_path, loaded, loaded.value)[0].path)
    theirs = dcmread(paths[0])
    for keyword in ("ContainerIdentifier", "SpecimenDescriptionSequence", "OpticalPathSequence", "AcquisitionDateTime",
                    "FrameOfReferenceUID", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):  # fmt: skip
        assert made[keyword].value == theirs[keyword].value, keyword
    assert made.LossyImageCompression == "01"
    assert list(made.ImageType) == ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == theirs.SOPInstanceUID
    (series,) = made.ReferencedSeriesSequence
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == theirs.SOPInstanceUID
    assert made.SeriesInstanceUID != theirs.SeriesInstanceUID


def pyramid(loaded: Loaded[Tiles]) -> tuple[Tiles, list[Pixels]]:
    """Three levels of noise over the slide's own area: the source's size, and two that it never had."""
    noise = np.random.default_rng(4)
    shapes = [(50, 50), (25, 25), (13, 12)]
    pixels = [noise.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    levels = tuple(level_of(p, (8, 16), (0.02495 / p.shape[0], 0.02495 / p.shape[1])) for p in pixels)
    return replace(loaded.value, levels=levels), pixels


def test_a_pyramid_is_one_series_with_an_object_per_level(tmp_path: Path) -> None:
    """Each level is rebuilt by highdicom and by our reader, edge tiles included; coarser ones are RESAMPLED."""
    loaded, paths = source()
    value, pixels = pyramid(loaded)
    products = written(tmp_path, loaded, value)
    files = [tmp_path / product.path for product in products]
    made = [dcmread(file) for file in files]
    assert len({ds.SeriesInstanceUID for ds in made}) == len({ds.PyramidUID for ds in made}) == 1
    assert [ds.ImageType[3] for ds in made] == ["NONE", "RESAMPLED", "RESAMPLED"]
    assert [ds.InstanceNumber for ds in made] == [1, 2, 3]
    back = next(tiles(files)).value
    for place, expected in enumerate(pixels):
        matrix = hd.imread(files[place]).get_total_pixel_matrix(apply_icc_profile=False)
        np.testing.assert_array_equal(matrix, expected)
        level, asked = back.levels[place], value.levels[place]
        assert (level.rows, level.columns, level.tile) == (asked.rows, asked.columns, asked.tile)
        assert level.spacing == pytest.approx(asked.spacing)
        np.testing.assert_array_equal(level.read(1, 0), asked.read(1, 0))
        assert complaints(files[place]) <= complaints(paths[0])
    assert (back.origin, back.orientation) == (loaded.value.origin, loaded.value.orientation)
    assert peers.dcentvfy(*paths, *files) == []


def test_a_grey_slide_is_monochrome(tmp_path: Path) -> None:
    """A stain's density leaves as MONOCHROME2 in 8 bits, without the colour profile; dciodvfy agrees."""
    loaded, paths = source()
    grey = np.random.default_rng(5).integers(0, 256, (50, 50), np.uint8)
    value = replace(loaded.value, levels=(level_of(grey, (10, 10), (0.000499, 0.000499)),))
    file = tmp_path / written(tmp_path, loaded, value)[0].path
    made = dcmread(file)
    assert (made.PhotometricInterpretation, made.SamplesPerPixel) == ("MONOCHROME2", 1)
    assert all("ICCProfile" not in path for path in made.OpticalPathSequence)
    assert any("ICCProfile" in path for path in dcmread(paths[0]).OpticalPathSequence)
    np.testing.assert_array_equal(hd.imread(file).get_total_pixel_matrix().squeeze(), grey)
    assert complaints(file) <= complaints(paths[0])


def _reads(read: Callable[[int, int], Pixels]) -> Callable[[Level], Level]:
    return lambda level: replace(level, read=read)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_reads(lambda r, c: np.zeros((10, 9, 3), np.uint8)), "whole tiles of uint8"),
        (_reads(lambda r, c: np.zeros((10, 10, 3), np.float32)), "float32"),
        (_reads(lambda r, c: np.zeros((10, 10, 3) if c else (10, 10), np.uint8)), "coloured and some"),
        (lambda level: replace(level, rows=50_000, columns=50_000), "coarser levels"),
    ],
)
def test_tiles_that_cannot_be_stored_are_broken(
    tmp_path: Path, change: Callable[[Level], Level], words: str
) -> None:
    """A tile of another shape, type or colour than its level's, and a level beyond 4 GiB, are named."""
    loaded, _ = source()
    with pytest.raises(Broken, match=words):
        written(tmp_path, loaded, replace(loaded.value, levels=(change(loaded.value.levels[0]),)))


def test_slides_are_made_of_slides_only(tmp_path: Path) -> None:
    """A slide derived from CT images is refused in words, one without levels is broken."""
    loaded, _ = source()
    place = np.diag([2.0, 1.0, 1.0, 1.0])
    with pytest.raises(Refused, match="made of whole slides only"):
        write({"slide": loaded.value}, job("slide"), Sources(tuple(ct_headers(1, 4, 4, place))), tmp_path)
    with pytest.raises(Broken, match="no level"):
        written(tmp_path, loaded, replace(loaded.value, levels=()))


def test_a_rerun_is_the_same_bytes(tmp_path: Path) -> None:
    """Two writes of the same slide give equal products and files."""
    loaded, _ = source()
    value, _ = pyramid(loaded)
    first, second = (written(tmp_path / name, loaded, value) for name in ("a", "b"))
    assert first == second
    assert all(
        (tmp_path / "a" / p.path).read_bytes() == (tmp_path / "b" / p.path).read_bytes() for p in first
    )
