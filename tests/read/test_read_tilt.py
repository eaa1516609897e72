"""Gantry tilt: a sheared stack becomes a straight grid on which every value stands at its true place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import CTImageStorage
from volume_phantoms import blank, save, texts, turned

from node.read.geometry import grid
from node.read.tilt import shifted, straight
from node.read.volume import load

RAMP = np.array([3.0, -2.0, 5.0])
"""Stored values per mm along x, y and z: linear interpolation of such a phantom is exact."""


def tilted(folder: Path, step: tuple[float, float], count: int = 5, angle: float = 0.0) -> list[Path]:
    """Slices of 20 x 16 pixels of 0.5 x 0.5 mm, 2 mm apart, each *step* mm further along column and row."""
    turn = turned(angle)
    row, column, normal = turn.T
    paths = []
    for k in range(count):
        place = np.array([10, 20, 30]) + k * (2 * normal + step[0] * column + step[1] * row)
        rows, columns = np.meshgrid(np.arange(20), np.arange(16), indexing="ij")
        at = place + 0.5 * (rows[..., None] * column + columns[..., None] * row)
        ds = blank(CTImageStorage, np.round(at @ RAMP * 100).astype(np.int16))
        ds.InstanceNumber, ds.RescaleSlope, ds.RescaleIntercept = k + 1, 0.01, 0
        ds.ImageOrientationPatient, ds.ImagePositionPatient = texts((*row, *column)), texts(place)
        ds.PixelSpacing = [0.5, 0.5]
        paths.append(save(ds, folder / f"{k}.dcm"))
    return paths


@pytest.mark.parametrize("step", [(0.8, 0.0), (-0.53, 0.0), (0.0, 0.31), (0.7, -0.9), (1.0, 0.5)])
@pytest.mark.parametrize("angle", [0.0, 25.0])
def test_a_ramp_stays_the_ramp_it_is(tmp_path: Path, step: tuple[float, float], angle: float) -> None:
    """Every measured voxel of a tilted, oblique stack has the ramp's value at its own place, to its rounding."""
    volume = load(tilted(tmp_path, step, angle=angle)).value
    assert volume.valid is not None
    places = np.stack(np.nonzero(volume.valid), axis=-1)
    at = np.c_[places, np.ones(len(places))] @ volume.affine[:3].T
    assert np.allclose(volume.array[volume.valid], at @ RAMP, atol=0.011)
    assert np.abs(volume.axes.T @ volume.axes - np.eye(3)).max() < 1e-9
    assert volume.facts["gantry_tilt"] == pytest.approx(np.degrees(np.arctan(np.hypot(*step) / 2)))


def test_no_measured_pixel_is_lost(tmp_path: Path) -> None:
    """The grid grows by the shift; as many voxels are measured as pixels were, less one line per broken shift."""
    loaded = load(tilted(tmp_path, (0.8, 0.0)))
    volume = loaded.value
    assert volume.array.shape == (5, 20 + 7, 16)  # 4 x 0.8 mm are 6.4 rows
    assert volume.valid is not None
    assert volume.valid.sum(axis=(1, 2)).tolist() == [20 * 16, 19 * 16, 19 * 16, 19 * 16, 19 * 16]
    assert volume.array[~volume.valid].max() == volume.array[volume.valid].min()
    assert len(loaded.headers) == 5


def test_whole_shifts_move_pixels_unchanged(tmp_path: Path) -> None:
    """A step of exactly two rows copies every pixel, and the first slice always stays as it was."""
    paths = tilted(tmp_path, (1.0, 0.0))
    volume = load(paths).value
    for k in range(5):
        alone = np.frombuffer(_read(paths[k]).PixelData, np.int16).reshape(20, 16) * 0.01
        assert np.allclose(volume.array[k, 2 * k : 2 * k + 20], alone, rtol=1e-6)


def _read(path: Path) -> Dataset:
    from pydicom import dcmread

    return dcmread(path)


def test_padding_spreads_to_what_it_weighs_in(tmp_path: Path) -> None:
    """A padded pixel makes the two voxels it would be interpolated into invalid, and no other."""
    paths = tilted(tmp_path, (0.8, 0.0))
    before = load(paths).value
    for path in paths:
        ds = _read(path)
        stored = np.frombuffer(ds.PixelData, np.int16).reshape(20, 16).copy()
        stored[10, 5] = -32768
        ds.PixelData = stored.tobytes()
        ds.add_new("PixelPaddingValue", "SS", -32768)
        ds.save_as(path)
    after = load(paths).value
    assert before.valid is not None
    assert after.valid is not None
    assert (before.valid & ~after.valid).sum(axis=(1, 2)).tolist() == [1, 2, 2, 2, 2]
    assert np.array_equal(before.array[after.valid], after.array[after.valid])


def test_a_shift_below_a_quarter_pixel_is_none(tmp_path: Path) -> None:
    """Slices that wander by less than interpolation blurs are left as they are."""
    volume = load(tilted(tmp_path, (0.02, 0.0))).value
    assert volume.array.shape == (5, 20, 16)
    assert "gantry_tilt" not in volume.facts


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    st.integers(2, 5),
)
def test_any_shift_is_exact_on_a_plane(sideways: tuple[float, float], count: int) -> None:
    """For any shift in pixels, measured voxels of a linear plane are exact and the others are *fill*."""
    rows, columns = np.meshgrid(np.arange(6.0), np.arange(7.0), indexing="ij")
    onto = straight((count, 6, 7), sideways)
    for k in range(count):
        moved, known = shifted(rows + 10 * columns, None, onto, k, -1.0)
        there = np.argwhere(known)
        row = there[:, 0] + onto.first[0] - onto.shifts[k][0]
        column = there[:, 1] + onto.first[1] - onto.shifts[k][1]
        assert np.allclose(moved[known], row + 10 * column, atol=0.012)  # a thousandth of a pixel is forgiven
        assert (moved[~known] == -1).all()
        assert known.sum() >= 5 * 6


def test_the_grid_says_by_how_much_slices_step() -> None:
    """Rows and columns per slice, and the angle, are those of the header's positions."""
    headers = []
    for k in range(3):
        ds = Dataset()
        ds.Rows, ds.Columns, ds.PixelSpacing = 4, 4, [0.5, 0.25]
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0.5 * k, -1 * k, 2 * k]
        headers.append(ds)
    found = grid(headers, ["a", "b", "c"])
    assert found.sideways == pytest.approx((-2, 2))
    assert found.tilt == pytest.approx(np.degrees(np.arctan2(np.hypot(0.5, 1), 2)))
