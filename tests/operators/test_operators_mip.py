"""Projections against phantoms whose shadow is known from every side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from node.operator import NO_UNITS, Refused, Volume
from node.operators.mip import mip, mip_rotating
from node.operators.reformat import reformat
from node.operators.turntable import Turntable
from node.testing import Grid, body_volume, run_operator, sphere_volume


def noise(grid: Grid, **more: Any) -> Volume:
    """Random values, the same each time."""
    array = np.random.default_rng(3).normal(size=grid.shape).astype(np.float32)
    return Volume(array, grid.affine, NO_UNITS, **more)


@pytest.mark.parametrize(("plane", "axis"), [("axial", 0), ("coronal", 1), ("sagittal", 2)])
@pytest.mark.parametrize("combine", ["max", "min", "mean"])
def test_square_volumes_are_projected_voxel_for_voxel(plane: Any, axis: int, combine: Any) -> None:
    """Each pixel is the extreme, or mean, of its line of voxels, as SimpleITK's projection filters say."""
    volume = noise(Grid((9, 12, 15), (1.0, 1.0, 1.0)))
    made = run_operator(mip, volume, plane=plane, combine=combine)
    filters = {
        "max": sitk.MaximumProjection,
        "min": sitk.MinimumProjection,
        "mean": sitk.MeanProjection,
    }
    peer = sitk.GetArrayFromImage(filters[combine](sitk.GetImageFromArray(volume.array), 2 - axis))
    peer = np.squeeze(peer, axis)
    expected = peer if plane == "axial" else peer[::-1]  # rows run to the foot
    assert made.array.shape == (1, *expected.shape)
    assert np.allclose(made.array[0], expected, atol=1e-6)
    assert made.facts["projection"] == combine
    depth = {"axial": 9, "coronal": 12, "sagittal": 15}[plane]
    assert made.facts["slice_thickness"] == pytest.approx(depth)
    assert made.spacing[0] == pytest.approx(depth)


@pytest.mark.parametrize("source", [Grid((40, 60, 60), (3.0, 1.0, 1.0)), Grid.tilted(30, (50, 50, 50))])
def test_the_mean_of_a_ball_is_its_chord(source: Grid) -> None:
    """A ball of 100 and radius 20 mm in nothing has the mean 100 · 2·sqrt(r² - d²) / depth at its pixels.

    Straight and oblique sources; the tolerance, 5 %, is a voxel at each end of a chord of 40 mm, within
    15 mm of the middle: towards the edge the chord falls off within one slice of 3 mm.
    """
    volume = sphere_volume(source, radius=20, outside=0)
    made = mip(volume, plane="coronal", combine="mean")
    valid = np.ones(made.array.shape, bool) if made.valid is None else made.valid
    index = np.indices(made.array.shape).reshape(3, -1).T
    x, _, z = (index @ made.affine[:3, :3].T + made.origin).T
    chord = 2 * np.sqrt(np.maximum(20**2 - x**2 - z**2, 0))
    total = made.array.astype(float).sum() * np.prod(made.spacing[1:])
    if source.row == (1.0, 0.0, 0.0):
        expected = 100 * chord / made.spacing[0]
        inner = np.hypot(x, z) < 15
        assert np.abs(made.array.ravel() - expected)[inner].max() < 0.05 * expected.max()
        assert total * made.spacing[0] == pytest.approx(100 * 4 / 3 * np.pi * 20**3, rel=0.01)
    middle = valid.ravel() & (np.hypot(x, z) < 15)
    assert made.array.ravel()[middle].min() > made.array.ravel()[valid.ravel() & (np.hypot(x, z) > 22)].max()


def test_thick_slices_give_square_pixels() -> None:
    """A coronal projection of 5 mm slices has pixels of 0.7 x 0.7 mm that cover the same field."""
    made = mip(noise(Grid((10, 30, 40), (5.0, 0.7, 0.7))), plane="coronal")
    assert np.allclose(made.spacing[1:], 0.7)
    assert made.array.shape == (1, 72, 40)


def test_slabs_are_those_of_reformat() -> None:
    """With a thickness the result is the reformat of this thickness, and says that it is a projection."""
    volume = noise(Grid((12, 12, 12), (1.0, 1.0, 1.0)))
    made = mip(volume, plane="sagittal", combine="min", thickness=4)
    assert np.array_equal(made.array, reformat(volume, plane="sagittal", thickness=4, combine="min").array)
    assert made.facts["projection"] == "min"
    assert mip(volume, plane="axial", combine="mean", thickness=3).facts["projection"] == "mean"


def test_padding_is_no_value() -> None:
    """A line with one measured voxel shows that voxel, whatever the padding; one with none is not valid."""
    valid = np.zeros((3, 2, 2), bool)
    valid[1, 0, 0] = valid[:, 1, :] = True
    array = np.where(valid, -50.0, 3000.0).astype(np.float32)
    source = Volume(array, Grid((3, 2, 2), (1.0, 1.0, 1.0)).affine, NO_UNITS, valid)
    made = mip(source, plane="axial")
    assert made.valid is not None
    assert made.valid[0].tolist() == [[True, False], [True, True]]
    assert np.all(made.array[made.valid] == -50)
    with pytest.raises(Refused, match="no voxel"):
        mip(replace(source, valid=np.zeros_like(valid)))


@settings(max_examples=15, deadline=None)
@given(st.floats(-12, 12), st.floats(-12, 12), st.floats(-12, 12), st.sampled_from([0.0, 20.0]))
def test_a_hot_spot_goes_around_as_geometry_says(x: float, y: float, z: float, tilt: float) -> None:
    """At angle a, a spot at (x, y, z) is seen x·cos a + y·sin a to the right of the middle, z above it.

    That is: from the front left is right, after a quarter turn (from the left) the back is right. The spot
    is a ball of 3 mm radius sampled by 1.5 mm voxels: its centre of mass is known to half a voxel.
    """
    grid = Grid((28, 28, 28), (1.5, 1.5, 1.5)) if not tilt else Grid.tilted(tilt, (28, 28, 28))
    volume = sphere_volume(
        replace(grid, spacing=(1.5, 1.5, 1.5)), radius=3, centre=(x, y, z), inside=10, outside=0
    )
    made = mip_rotating(volume, views=8)
    assert made.unit == volume.unit
    assert made.plane == "patient"
    assert made.facts["angles"] == (0, 45, 90, 135, 180, 225, 270, 315)
    assert made.spacing is not None
    rows, columns = (
        np.indices(made.array.shape[1:]) - (np.array(made.array.shape[1:]) - 1).reshape(2, 1, 1) / 2
    )
    for frame, angle in zip(made.array, np.radians(made.facts["angles"]), strict=True):
        right = (frame * columns).sum() / frame.sum() * made.spacing[1]
        down = (frame * rows).sum() / frame.sum() * made.spacing[0]
        assert right == pytest.approx(x * np.cos(angle) + y * np.sin(angle), abs=0.75)
        assert down == pytest.approx(-z, abs=0.75)


def test_a_rotating_view_from_the_front_is_the_coronal_projection() -> None:
    """Frame 1 shows what `mip` shows, within the rim that turning needs; opposite frames are mirrored."""
    volume = sphere_volume(Grid((16, 30, 40), (2.0, 1.0, 1.0)), radius=9, centre=(5, 3, 2))
    made = mip_rotating(volume, views=4)  # 50 columns: the diagonal of 30 x 40, voxel on voxel
    front = mip(volume, plane="coronal").array[0]
    rim = (made.array.shape[2] - front.shape[1]) // 2
    inner = made.array[0][:, rim : rim + front.shape[1]]
    assert inner.shape == front.shape
    assert np.allclose(inner, front, atol=0.1)
    assert np.allclose(made.array[2], made.array[0][:, ::-1], atol=1)


@pytest.mark.parametrize("combine", ["max", "min", "mean"])
def test_nothing_is_seen_outside_the_volume(combine: Any) -> None:
    """Pixels whose line misses the volume are not valid; all others lie between its extremes."""
    volume = noise(Grid((6, 20, 20), (2.0, 2.0, 2.0)))
    made = mip_rotating(volume, views=6, combine=combine, spacing=2)
    assert made.valid is not None
    shown = made.array[made.valid]
    assert shown.min() >= volume.array.min() - 1e-5
    assert shown.max() <= volume.array.max() + 1e-5
    assert np.all(made.array[~made.valid] == volume.array.min())


def test_coarser_views_keep_what_they_show() -> None:
    """Views of 4 mm pixels of 1 mm voxels show the ball where it is, at its full value in the middle."""
    volume = sphere_volume(Grid((48, 48, 48), (1.0, 1.0, 1.0)), radius=12, outside=0)
    made = mip_rotating(volume, views=4, spacing=4)
    assert made.spacing == (4, 4)
    assert made.array.max() == pytest.approx(100, abs=1e-3)
    area = np.count_nonzero(made.array[1] > 50) * 16
    assert area == pytest.approx(np.pi * 12**2, rel=0.2)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"views": 1}, "2 to 720"), ({"views": 900}, "2 to 720"), ({"spacing": 0.0}, "greater")],
)
def test_views_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    """A number of views or a pixel size out of range is refused in words."""
    with pytest.raises(Refused, match=words):
        run_operator(mip_rotating, noise(Grid((4, 4, 4))), **options)


@pytest.mark.parametrize("combine", ["max", "min", "mean"])
@pytest.mark.parametrize("padded", [False, True])
def test_views_of_axial_slices_are_those_of_points_in_space(
    combine: Any, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is projected slice by slice equals interpolation in space, at right angles and between, padding too."""
    volume = body_volume(Grid((10, 48, 50), (8.0, 6.0, 6.0)))
    if padded:
        volume = replace(volume, valid=volume.array > -900)
    quick = run_operator(mip_rotating, volume, views=5, combine=combine)
    monkeypatch.setattr(Turntable, "sees", lambda *_: False)
    slow = run_operator(mip_rotating, volume, views=5, combine=combine)
    assert np.abs(quick.array - slow.array).max() < 1e-3
    assert (quick.valid is None) == (slow.valid is None)
    assert quick.valid is None or np.array_equal(quick.valid, slow.valid)


@pytest.mark.parametrize("count", [39, 40, 41, 42])
@pytest.mark.parametrize("view", [0, 1, 2, 3])
def test_a_single_hot_voxel_keeps_its_value_from_four_sides(count: int, view: int) -> None:
    """From the front, the back and both sides lines go through voxel centres, however many columns there are."""
    grid = Grid((5, count, count), (2.0, 2.0, 2.0))
    array = np.zeros(grid.shape, np.float32)
    array[2, 7, 11] = 10.0
    made = run_operator(mip_rotating, Volume(array, grid.affine, NO_UNITS), views=4)
    assert made.array[view].max() == pytest.approx(10.0, rel=1e-5)


@pytest.mark.parametrize("combine", ["max", "min", "mean"])
def test_what_was_not_measured_may_be_nan(combine: Any) -> None:
    """NaN where nothing was measured gives the same projections, turning and still, as any other number there."""
    volume = body_volume(Grid((6, 24, 24), (4.0, 8.0, 8.0)))
    valid = np.ones(volume.array.shape, bool)
    valid[1:3, 8:12, 8:12] = valid[4] = False
    plain = replace(volume, array=np.where(valid, volume.array, volume.array[valid].min()), valid=valid)
    odd = replace(volume, array=np.where(valid, volume.array, np.nan).astype(np.float32), valid=valid)
    for operator, options in ((mip_rotating, {"views": 4}), (mip, {})):
        expected, found = (run_operator(operator, v, combine=combine, **options) for v in (plain, odd))
        assert np.isfinite(found.array).all()
        assert np.array_equal(found.array, expected.array)
