"""Resample against exact courses, sums that must stay, and scipy and SimpleITK as peers."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from node.operator import NO_UNITS, Refused, Volume
from node.operators.resample import resample
from node.operators.sampling import FEW_AT_ONCE, Source, covering, extent_of, means, pixels_of
from node.testing import Grid, ramp_volume, run_operator, sphere_volume

FRAME = {"frame_of_reference": "1.2.3"}
PER_MM = np.array([1.0, 2.0, 4.0])


def noise(grid: Grid, **more: Any) -> Volume:
    """Random values, the same each time."""
    array = np.random.default_rng(4).normal(size=grid.shape).astype(np.float32)
    return Volume(array, grid.affine, NO_UNITS, **more)


def places(volume: Volume) -> Any:
    """The centre of each voxel, (voxels, 3)."""
    index = np.indices(volume.array.shape).reshape(3, -1).T
    return index @ volume.affine[:3, :3].T + volume.origin


@pytest.mark.parametrize("degrees", [0, 35])
@pytest.mark.parametrize("spacing", [0.8, 1.5, 4.0])
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_a_linear_course_stays_linear(degrees: float, spacing: float, interpolation: Any) -> None:
    """Finer or coarser, straight or oblique: every voxel well inside holds the ramp at its centre.

    Linear interpolation and box means are exact for it; a cubic spline is so away from its mirrored ends.
    """
    grid = replace(Grid.tilted(degrees, (24, 24, 24)), spacing=(2.0, 1.5, 1.0))
    volume = ramp_volume(grid, per_mm=tuple(PER_MM))
    made = resample(volume, spacing=spacing, interpolation=interpolation)
    assert np.allclose(made.spacing, spacing)
    assert np.allclose(made.axes, volume.axes)
    index = (places(made) - volume.origin) @ np.linalg.inv(volume.affine[:3, :3]).T
    inside = ((index > 6) & (index < 17)).all(axis=1)
    assert inside.sum() >= 4
    assert np.allclose(made.array.ravel()[inside], places(made)[inside] @ PER_MM, atol=0.05)
    assert made.facts["slice_thickness"] == spacing


def test_whole_blocks_are_plain_means() -> None:
    """Voxels of 2 x 4 x 5 of the source's hold the mean of these forty."""
    volume = noise(Grid((6, 12, 20), (1.0, 0.5, 0.4)))
    made = resample(volume, spacing=2)
    assert np.allclose(made.array, volume.array.reshape(3, 2, 3, 4, 4, 5).mean(axis=(1, 3, 5)), atol=1e-5)


def test_detail_finer_than_the_grid_does_not_come_back_as_a_pattern() -> None:
    """A checkerboard of ±1 sampled at half its resolution is grey, not black or white (no aliasing)."""
    grid = Grid((16, 16, 16), (1.0, 1.0, 1.0))
    board = (-1.0) ** np.indices(grid.shape).sum(axis=0)
    made = resample(Volume(board.astype(np.float32), grid.affine, NO_UNITS), spacing=2)
    assert np.abs(made.array).max() < 1e-6


@settings(max_examples=25, deadline=None)
@given(st.floats(0.5, 5), st.floats(0.5, 5), st.floats(0.5, 5), st.floats(0, 60))
def test_a_ball_keeps_place_and_volume(slices: float, rows: float, columns: float, degrees: float) -> None:
    """On any grid the ball's centre stays within 0.1 mm and its content (mean times volume) within 2 %.

    Linear interpolation spreads content evenly about its place; the ball is off all borders. Sampled at
    steps just below a voxel, the content of a ball with sharp edges is known to a few parts of its surface.
    """
    grid = replace(Grid.tilted(degrees, (20, 22, 24)), spacing=(1.6, 1.4, 1.2))
    volume = sphere_volume(grid, radius=6, centre=(1.0, -1.5, 0.5), outside=0)
    made = resample(volume, between_slices=slices, between_rows=rows, between_columns=columns)
    assert np.allclose(made.spacing, [slices, rows, columns])
    assert made.array.sum(dtype=float) * made.voxel_volume == pytest.approx(
        volume.array.sum(dtype=float) * volume.voxel_volume, rel=0.02
    )
    before, after = (
        v.array.reshape(-1).astype(float) @ places(v) / v.array.sum(dtype=float) for v in (volume, made)
    )
    assert np.abs(before - after).max() < 0.1


def test_onto_another_grid_as_scipy_interpolates() -> None:
    """On an oblique finer grid values are scipy's map_coordinates of order 1, and valid only inside."""
    volume = noise(Grid((12, 14, 16), (2.0, 2.0, 2.0)), facts={**FRAME, "modality": "PT"})
    like = ramp_volume(replace(Grid.tilted(25, (20, 22, 24)), spacing=(1.2, 1.2, 1.2)))
    made = run_operator(resample, volume, replace(like, facts=FRAME))
    assert made.same_grid(like)
    index = (places(made) - volume.origin) @ np.linalg.inv(volume.affine[:3, :3]).T
    peer = ndimage.map_coordinates(volume.array, index.T, order=1).reshape(made.array.shape)
    inside = (
        ((index >= 0) & (index <= np.array(volume.array.shape) - 1)).all(axis=1).reshape(made.array.shape)
    )
    assert made.valid is not None
    assert made.valid[inside].all()
    assert np.allclose(made.array[inside], peer[inside], atol=1e-4)
    outside = ((index < -0.6) | (index > np.array(volume.array.shape) - 0.4)).any(axis=1)
    assert not made.valid.reshape(-1)[outside].any()
    assert np.all(made.array[~made.valid] == volume.array.min())
    assert made.facts["modality"] == "PT"


def test_cubic_splines_are_those_of_scipy() -> None:
    """B-spline values are scipy's cubic ones, mirrored at the ends."""
    volume = noise(Grid((10, 12, 14), (1.0, 1.0, 1.0)))
    made = resample(volume, spacing=0.7, interpolation="bspline")
    index = (places(made) - volume.origin) @ np.linalg.inv(volume.affine[:3, :3]).T
    peer = ndimage.map_coordinates(volume.array.astype(float), index.T, order=3, mode="mirror")
    inside = ((index >= 0) & (index <= np.array(volume.array.shape) - 1)).all(axis=1)
    assert np.allclose(made.array.ravel()[inside], peer[inside], atol=1e-3)


def test_labels_stay_labels() -> None:
    """Nearest gives values of the source only, those that SimpleITK gives."""
    volume = noise(Grid((6, 7, 8), (2.0, 1.0, 1.0)))
    volume = replace(volume, array=np.rint(volume.array * 3).astype(np.float32), facts=FRAME)
    like = replace(ramp_volume(replace(Grid.tilted(10, (9, 9, 9)), spacing=(0.6, 0.6, 0.6))), facts=FRAME)
    made = resample(volume, like, interpolation="nearest")
    assert set(np.unique(made.array)) <= set(np.unique(volume.array))
    images = []
    for v in (volume, like):
        image = sitk.GetImageFromArray(v.array)
        image.SetOrigin(v.origin.tolist())
        image.SetSpacing(v.spacing[::-1].tolist())
        image.SetDirection(v.axes[:, ::-1].ravel().tolist())
        images.append(image)
    peer = sitk.GetArrayFromImage(sitk.Resample(*images, sitk.Transform(), sitk.sitkNearestNeighbor, 99))
    inside = peer != 99
    assert np.array_equal(made.array[inside], peer[inside])


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "bspline"])
@pytest.mark.parametrize("spacing", [0.6, 2.0])
def test_padding_is_never_mixed_in(interpolation: Any, spacing: float) -> None:
    """Beside padding of -3000 values stay those of the tissue, and the border moves by half a voxel at most."""
    grid = Grid((10, 10, 12), (1.0, 1.0, 1.0))
    valid = np.ones(grid.shape, bool)
    valid[:, :, :5] = False
    array = np.where(valid, 50, -3000).astype(np.float32)
    made = resample(Volume(array, grid.affine, NO_UNITS, valid), spacing=spacing, interpolation=interpolation)
    assert made.valid is not None
    assert np.allclose(made.array[made.valid], 50, atol=1e-3)
    assert np.all(made.array[~made.valid] == -3000)
    assert np.count_nonzero(made.valid) * made.voxel_volume == pytest.approx(
        valid.sum(), abs=101 * max(spacing, 1) / 2
    )


def test_a_single_slice_can_be_made_finer_in_its_plane() -> None:
    """One slice of 5 mm keeps its thickness when only rows and columns are asked for."""
    volume = ramp_volume(Grid((1, 10, 10), (5.0, 2.0, 2.0)), per_mm=(1, 1, 0))
    made = resample(volume, between_rows=1, between_columns=1)
    assert made.array.shape == (1, 20, 20)
    assert made.spacing[0] == 5
    inner = (slice(None), slice(1, -1), slice(1, -1))
    assert np.allclose(
        made.array[inner], (places(made) @ [1, 1, 0]).reshape(made.array.shape)[inner], atol=1e-4
    )


@pytest.mark.parametrize(
    ("like", "options", "words"),
    [
        (None, {}, "either spacing"),
        ("same", {"spacing": 1.0}, "either spacing"),
        (None, {"spacing": -1.0}, "greater than 0"),
        (None, {"spacing": 1e-4}, "coarser spacing"),
        ("other frame", {}, "different frames of reference"),
        ("no frame", {}, "no frame of reference"),
        ("elsewhere", {}, "do not overlap"),
    ],
)
def test_what_cannot_be_resampled_is_refused(like: str | None, options: dict[str, float], words: str) -> None:
    """Contradictory, impossible or foreign grids are refused in words."""
    volume = replace(ramp_volume(), facts=FRAME)
    affine = volume.affine.copy()
    affine[0, 3] += 1000 * (like == "elsewhere")
    facts = {"other frame": {"frame_of_reference": "9"}, "no frame": {}}.get(like or "", FRAME)
    other = None if like is None else replace(volume, affine=affine, facts=facts)
    with pytest.raises(Refused, match=words):
        resample(volume, other, **options)


def test_coarser_voxels_take_little_memory_beside_themselves() -> None:
    """The points that are averaged are not copied, nor are their shares and sums held whole: a PET fits beside itself.

    Means are those of NumPy over the same points, to the bit.
    """
    array = np.random.default_rng(5).normal(100, 9, (48, 256, 256)).astype(np.float32)
    volume = Volume(array, Grid(array.shape, (2.0, 1.5, 1.5)).affine, NO_UNITS)
    source, points = Source(volume), covering(*extent_of(volume), volume.axes, (2.0, 2.0, 2.0))
    assert source.parts_for(points) == (1, 2, 2)
    tracemalloc.start()
    made, share = means(source, points)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most - made.nbytes < 4 * FEW_AT_ONCE
    assert share.min() == 1
    values, measured = source.sample(points.slices(3, 1).split((1, 2, 2)))
    assert measured.all()
    sums = values[..., ::2].astype(np.float64) + values[..., 1::2]
    assert np.array_equal(made[3], ((sums[:, ::2] + sums[:, 1::2]) / 4).astype(np.float32)[0])


def test_pixels_of_an_image_outlive_it() -> None:
    """An array of them holds the image's memory, and may be written to."""
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    found = pixels_of(image)
    del image
    gc.collect()
    noise = [np.full(24, -1, np.float32) for _ in range(100)]
    found[0, 0, 0] = 7
    assert found.ravel().tolist() == [7, *range(1, 24)] and len(noise) == 100
