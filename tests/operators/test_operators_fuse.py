"""Fusion: colours as published, values as blended, places kept, and the bar that says what they mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from node.operator import NO_UNITS, Code, Picture, Refused, Volume
from node.operators.colour import (
    Bar,
    bar,
    lettered,
    scale_length,
    share_of,
    sides,
    table,
    text_size,
    unit_text,
)
from node.operators.fuse import LEAST_PIXELS, fuse
from node.operators.planes import CORONAL, SAGITTAL
from node.testing import Grid, ramp_volume, run_operator, sphere_volume

FRAME = {"frame_of_reference": "1.2.3"}
SUV = Code("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight")


def pair(**more: Any) -> tuple[Volume, Volume]:
    """A constant CT of 8 slices, and an SUV map of larger voxels with a hot ball at (20, -10, 4) mm."""
    ct = ramp_volume(Grid((8, 64, 64), (4.0, 2.0, 2.0)), per_mm=(0, 0, 0), offset=40)
    pet = sphere_volume(
        Grid((16, 32, 32), (4.0, 4.0, 4.0)), radius=10, centre=(20, -10, 4), inside=10, outside=0, unit=SUV
    )
    ct = replace(ct, facts={**FRAME, "modality": "CT", "window": (40, 400)})
    return ct, replace(pet, facts={**FRAME, "modality": "PT"}, **more)


def width_without_bar(made: Picture) -> int:
    """Columns of the images themselves."""
    rows, whole = made.array.shape[1:3]
    said = Bar(0, 10, SUV, "hot_iron")
    return next(c for c in range(whole) if c + bar(rows, said, c).shape[1] == whole)


def test_hot_iron_is_the_palette_of_the_standard() -> None:
    """Our Hot Iron is the well-known palette that pydicom ships (PS3.6 B.1.1), entry by entry."""
    file = Path(pydicom.__file__).parent / "data" / "palettes" / "hotiron.dcm"
    palette = pydicom.dcmread(file)
    names = [f"{c}PaletteColorLookupTableData" for c in ("Red", "Green", "Blue")]
    channels = [np.frombuffer(palette[name].value, np.uint8) for name in names]
    assert np.array_equal(table("hot_iron"), np.stack(channels, axis=1))


def test_viridis_goes_evenly_from_dark_to_bright() -> None:
    """Its published ends and middle (#440154, #21918c, #fde725) are hit within 1, and lightness only rises."""
    found = table("viridis")
    assert np.abs(found[[0, 255]].astype(int) - [[0x44, 0x01, 0x54], [0xFD, 0xE7, 0x25]]).max() <= 1
    assert np.abs(found[[127, 128]].astype(int).mean(axis=0) - [0x21, 0x91, 0x8C]).max() <= 1
    light = found[::8] @ [0.2126, 0.7152, 0.0722]  # in steps that rounding to 8 bits cannot turn
    assert (np.diff(light) > 0).all()


def test_pixels_are_the_blend_that_is_promised() -> None:
    """In the ball: opacity · hottest colour + rest · grey; far from it, at the lower end: grey alone."""
    ct, pet = pair()
    made = run_operator(fuse, ct, pet, opacity=0.25, other_center=5.0, other_width=10.0)
    assert made.array.dtype == np.uint8
    assert made.spacing is not None
    rows = made.array.shape[1]
    scale = 2.0 / made.spacing[0]
    row, column = (round((coordinate / 2 + 31.5 + 0.5) * scale) for coordinate in (-10.0, 20.0))
    frame = made.array[4]  # z = 2 mm
    grey = 127.5
    assert np.abs(frame[row, column].astype(float) - (0.25 * 255 + 0.75 * grey)).max() <= 1
    assert np.abs(frame[rows // 4, rows // 4].astype(float) - grey).max() <= 1
    assert made.colour
    assert made.facts["burned_in"] is False
    assert made.title == "PT [SUVbw] on CT [HU]"
    assert made.plane == "patient"


@pytest.mark.parametrize(
    ("plane", "right", "down"), [("axial", 0, 1), ("coronal", 0, -3), ("sagittal", 1, -3)]
)
def test_the_hot_spot_is_where_it_belongs(plane: Any, right: int, down: int) -> None:
    """The centre of the coloured pixels is the ball's, in mm from the middle of the picture, in every plane."""
    ct, pet = pair()
    made = fuse(ct, pet, plane=plane, thickness=8, opacity=1, other_center=5, other_width=10)
    assert made.spacing is not None
    width = width_without_bar(made)
    pixels = made.array[:, :, :width].astype(int)
    red = (pixels[..., 0] - pixels[..., 2]) > 60  # grey is as red as blue; so are black and white
    hot = np.argwhere(red.sum(axis=0) > 0)
    centre = np.array([20, -10, 4, 0])
    expected = [-centre[2] if down == -3 else centre[down], centre[right]]
    size = np.array([made.array.shape[1], width])
    found = ((hot.max(axis=0) + hot.min(axis=0)) / 2 - (size - 1) / 2) * made.spacing[0]
    assert np.abs(found - expected).max() < 2.5  # the ball is sampled by 4 mm voxels


def test_small_images_are_shown_large_enough_for_letters() -> None:
    """A field of 64 pixels comes as at least 480, with the spacing to match, and a frame per slice."""
    ct, pet = pair()
    made = fuse(ct, pet)
    assert made.array.shape[0] == 8
    assert made.array.shape[1] >= LEAST_PIXELS
    assert made.spacing is not None
    assert made.array.shape[1] * made.spacing[0] == pytest.approx(128)


def test_what_was_not_measured_has_no_colour() -> None:
    """Where the second image is padded, or does not reach, grey is shown alone, whatever the padding says."""
    ct, pet = pair()
    valid = pet.array < 5
    made = fuse(ct, replace(pet, valid=valid), opacity=1, other_center=5, other_width=10)
    width = width_without_bar(made)
    pixels = made.array[:, :, :width].astype(int)
    assert np.all(pixels[..., 0] == pixels[..., 2]) or np.abs(pixels[..., 0] - pixels[..., 2]).max() < 20


def test_the_bar_shows_its_colours_from_low_to_high() -> None:
    """The panel is as high as the frame; its ends have the first and last colour, the highest at the top."""
    for rows in (120, 480, 900):
        panel = bar(rows, Bar(-1.5e-6, 23456.7, SUV, "viridis"))
        assert panel.shape[0] == rows
        size = text_size(rows)
        shown = panel[:, 2 * size].tolist()  # down the middle of the colours
        known = table("viridis").tolist()
        order = [known.index(pixel) for pixel in shown if pixel in known]
        assert len(order) > rows // 4
        assert order == sorted(order, reverse=True)


@pytest.mark.parametrize(
    ("columns", "pixel", "length"),
    [(480, 0.8, 50), (480, 0.84, 100), (200, 0.0999, 2), (512, 0.01, 1), (300, 1.4, 100), (480, 0.004, 0.2)],
)
def test_scales_are_round(columns: int, pixel: float, length: float) -> None:
    """1, 2 or 5 times a power of ten, the longest that a quarter of the picture has room for."""
    assert scale_length(columns, pixel) == pytest.approx(length)
    assert length <= columns * pixel / 4 < 2.5 * length


@pytest.mark.parametrize(("rows", "columns", "pixel"), [(480, 480, 0.8), (1024, 700, 0.5), (250, 520, 0.77)])
def test_a_scale_is_as_long_as_it_says(rows: int, columns: int, pixel: float) -> None:
    """In the lower left a bright bar with a dark rim, as many pixels as its mm are; without a pixel size none."""
    for ground in (0, 255):
        empty = np.full((rows, columns, 3), ground, np.uint8)
        plain, scaled = lettered(empty, np.eye(3), ""), lettered(empty, np.eye(3), "", pixel)
        (line,) = {
            tuple(row) for row in scaled[rows - max(2, text_size(rows, columns) // 4) - 1, :, :1].T.tolist()
        }
        bright = np.flatnonzero(np.array(line) == 235)
        bright = bright[bright < columns / 3]
        assert len(bright) == bright[-1] - bright[0] + 1 == round(scale_length(columns, pixel) / pixel)
        changed = np.argwhere((plain != scaled).any(axis=2))
        assert changed[:, 0].min() > rows / 2
        assert changed[:, 1].max() < columns * 0.4


def test_letters_grow_with_the_picture() -> None:
    """A capital letter is about one thirtieth of the longer side, whatever the side; never below eight pixels."""
    for rows, columns in ((480, 480), (1024, 600), (600, 1024), (2048, 2048), (64, 64)):
        empty = np.zeros((rows, columns, 3), np.uint8)
        written = np.flatnonzero((lettered(empty, np.eye(3), "")[:, -columns // 4 :] > 128).any(axis=(1, 2)))
        tall = written.max() - written.min() + 1
        assert max(8, max(rows, columns) / 36) <= tall <= max(13, max(rows, columns) / 26), (rows, columns)


def test_letters_name_the_sides_of_the_patient() -> None:
    """A coronal picture has R left, L right, H above, F below; oblique axes have two letters."""
    assert (sides(CORONAL[:, 2]), sides(CORONAL[:, 1])) == (("R", "L"), ("H", "F"))
    assert (sides(SAGITTAL[:, 2]), sides(SAGITTAL[:, 1])) == (("A", "P"), ("H", "F"))
    assert sides(np.array([0.8, 0.6, 0.0])) == ("RA", "LP")


@pytest.mark.parametrize(
    ("value", "said"), [("[hnsf'U]", "HU"), ("g/ml{SUVbw}", "SUVbw"), ("1", ""), ("ms", "ms")]
)
def test_units_read_as_people_write_them(value: str, said: str) -> None:
    """UCUM's codes become what is printed beside a bar."""
    assert unit_text(Code(value, "UCUM", "")) == said


def test_shares_end_at_the_window() -> None:
    """Values beyond the window take its end colours."""
    assert share_of(np.array([-5.0, 0.0, 2.5, 10.0, 99.0]), 0, 10).tolist() == [0, 0, 0.25, 1, 1]


@pytest.mark.parametrize(
    ("options", "changes", "words"),
    [
        ({"opacity": 1.5}, {}, "out of range"),
        ({"other_center": 3.0}, {}, "other_center and other_width belong together"),
        ({"center": 3.0, "width": 0.0}, {}, "too narrow"),
        ({}, {"facts": {"frame_of_reference": "9"}}, "different frames of reference"),
        ({}, {"facts": {}}, "no frame of reference"),
        ({}, {"array": np.zeros((16, 32, 32), np.float32)}, "one value only"),
        ({}, {"valid": np.zeros((16, 32, 32), bool)}, "no measured voxel"),
        ({"plane": "coronal", "thickness": 0.5}, {}, "thinner"),
    ],
)
def test_what_cannot_be_fused_is_refused(
    options: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    """Options out of range and images that do not belong together are refused in words."""
    ct, pet = pair()
    with pytest.raises(Refused, match=words):
        run_operator(fuse, ct, replace(pet, **changes), **options)


def test_images_that_do_not_meet_are_refused() -> None:
    """Two volumes of one frame of reference a metre apart have nothing to show."""
    ct, pet = pair()
    affine = pet.affine.copy()
    affine[2, 3] += 1000
    with pytest.raises(Refused, match="do not overlap"):
        fuse(replace(ct, unit=NO_UNITS), replace(pet, affine=affine))
