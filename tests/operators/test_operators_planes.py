"""Reformat in every plane: directions as radiology shows them, places kept, values true."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from node.operator import Refused, Volume
from node.operators.planes import AXIAL, CORONAL, SAGITTAL, aligned
from node.operators.reformat import reformat
from node.testing import Grid, ramp_volume, run_operator, sphere_volume

PER_MM = np.array([1.0, 2.0, 4.0])
SOURCES = {
    "axial": Grid((20, 30, 36), (3.0, 1.5, 1.0)),
    "coronal": Grid((24, 30, 36), (1.5, 1.2, 1.2), (1, 0, 0), (0, 0, -1)),
    "sagittal": Grid((24, 30, 36), (1.5, 1.2, 1.0), (0, 1, 0), (0, 0, -1)),
    "prone": Grid((20, 30, 36), (3.0, 1.5, 1.0), (-1, 0, 0), (0, -1, 0)),
    "tilted 20": replace(Grid.tilted(20, (24, 24, 26)), spacing=(2.0, 2.0, 2.0)),
    "tilted 50": replace(Grid.tilted(50, (24, 24, 26)), spacing=(2.0, 2.0, 2.0)),
}
"""Slabs of 6 mm hold whole voxels of all that are square to a plane: parts of voxels count as constant."""
PLANES: list[dict[str, Any]] = [
    {"plane": "axial"},
    {"plane": "coronal"},
    {"plane": "sagittal"},
    {"plane": "acquired"},
    {"plane": "oblique", "tilt": 15.0, "turn": -25.0},
]


def places(volume: Volume) -> Any:
    """The centre of each voxel, (voxels, 3)."""
    index = np.indices(volume.array.shape).reshape(3, -1).T
    return index @ volume.affine[:3, :3].T + volume.origin


def within(points: Any, volume: Volume) -> Any:
    """Which points lie between the centres of the source's outer voxels."""
    index = (points - volume.origin) @ np.linalg.inv(volume.affine[:3, :3]).T
    return ((index >= -1e-6) & (index <= np.array(volume.array.shape) - 1 + 1e-6)).all(axis=1)


def image_of(volume: Volume) -> sitk.Image:
    """The volume as SimpleITK would have read it."""
    image = sitk.GetImageFromArray(volume.array)
    image.SetOrigin(volume.origin.tolist())
    image.SetSpacing(volume.spacing[::-1].tolist())
    image.SetDirection(volume.axes[:, ::-1].ravel().tolist())
    return image


@pytest.mark.parametrize("options", PLANES, ids=lambda o: str(o["plane"]))
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("spacing", [None, 2.5])
def test_a_linear_course_survives_every_plane_of_every_source(
    source: str, options: dict[str, Any], spacing: float | None
) -> None:
    """Each voxel whose whole box lies in the source holds the ramp's value at its centre.

    Interpolation and box means are exact for a linear course; 0.01 of some 300 units is float32 arithmetic.
    """
    volume = ramp_volume(SOURCES[source], per_mm=tuple(PER_MM))
    made = reformat(volume, thickness=6.0, spacing=spacing, **options)
    centres = places(made)
    whole = np.ones(len(centres), bool)
    for corner in np.indices((2, 2, 2)).reshape(3, -1).T - 0.5:
        whole &= within(centres + made.affine[:3, :3] @ (corner * [6.0 / made.spacing[0], 1, 1]), volume)
    assert whole.sum() > 50
    assert made.valid is None or made.valid.reshape(-1)[whole].all()
    assert np.allclose(made.array.reshape(-1)[whole], centres[whole] @ PER_MM, atol=0.01)


@pytest.mark.parametrize(
    ("plane", "row", "column", "normal"),
    [
        ("axial", (1, 0, 0), (0, 1, 0), (0, 0, 1)),
        ("coronal", (1, 0, 0), (0, 0, -1), (0, 1, 0)),
        ("sagittal", (0, 1, 0), (0, 0, -1), (-1, 0, 0)),
    ],
)
@pytest.mark.parametrize("source", SOURCES)
def test_directions_are_those_of_the_department(
    source: str, plane: Any, row: Any, column: Any, normal: Any
) -> None:
    """Head up, and left on the right; a sagittal picture has the face on the left."""
    made = reformat(ramp_volume(SOURCES[source]), plane=plane, thickness=6)
    found = [made.axes[:, 2], made.axes[:, 1], made.axes[:, 0]]
    assert np.allclose(found, [row, column, normal], atol=1e-6)


@pytest.mark.parametrize(("plane", "code"), [("axial", "LPS"), ("coronal", "LIP"), ("sagittal", "PIR")])
@pytest.mark.parametrize("source", ["axial", "coronal", "sagittal", "prone"])
def test_square_sources_are_turned_as_simpleitk_turns_them(source: str, plane: Any, code: str) -> None:
    """Voxels of 1 mm in slabs of 1 mm are those of SimpleITK's DICOMOrient, each at the same place.

    Exactly so but for the axial plane of other sources, which has been interpolated from the start.
    """
    grid = replace(SOURCES[source], spacing=(1.0, 1.0, 1.0))
    rng = np.random.default_rng(5)
    volume = Volume(rng.normal(size=grid.shape).astype(np.float32), grid.affine, ramp_volume().unit)
    turned = sitk.DICOMOrient(image_of(volume), code)
    made = reformat(volume, plane=plane, thickness=1)
    assert np.allclose(made.array, sitk.GetArrayFromImage(turned), atol=1e-5)
    assert np.allclose(made.origin, turned.GetOrigin(), atol=1e-6)


def test_a_coronal_maximum_is_that_of_the_voxels() -> None:
    """A coronal 4 mm maximum of a 1 mm axial source takes four rows of voxels, none interpolated."""
    rng = np.random.default_rng(0)
    grid = Grid((7, 12, 9), (1.0, 1.0, 1.0))
    volume = Volume(rng.normal(size=grid.shape).astype(np.float32), grid.affine, ramp_volume().unit)
    made = reformat(volume, plane="coronal", thickness=4, combine="max")
    expected = volume.array.reshape(7, 3, 4, 9).max(axis=2).transpose(1, 0, 2)[:, ::-1]
    assert np.array_equal(made.array, expected)
    assert made.facts["projection"] == "max"


def test_thick_axial_slices_give_square_coronal_pixels() -> None:
    """5 mm slices of 0.8 mm pixels make coronal pixels of 0.8 x 0.8 mm that cover the source."""
    volume = ramp_volume(Grid((10, 40, 30), (5.0, 0.8, 0.8)))
    made = reformat(volume, plane="coronal", thickness=4)
    assert np.allclose(made.spacing, [4, 0.8, 0.8])
    assert made.array.shape == (8, 63, 30)
    axial = reformat(ramp_volume(), plane="axial", thickness=3)
    assert np.allclose(axial.spacing, [3, 1.5, 1.0])  # a source in the plane keeps its pixels


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-60, 60),
    st.floats(-90, 90),
    st.tuples(*[st.floats(-6, 6)] * 3),
    st.sampled_from(sorted(SOURCES)),
)
def test_a_sphere_stays_where_it_is(
    tilt: float, turn: float, centre: tuple[float, float, float], source: str
) -> None:
    """Cut obliquely at any angles, a sphere keeps its centre in the patient within half a millimetre.

    The tolerance is a third of a source voxel; the centre of some 500 voxels is known far better, the
    sampled edge errs by at most a voxel on all sides alike.
    """
    grid = SOURCES[source]
    volume = sphere_volume(
        replace(grid, spacing=(1.5, 1.5, 1.5), shape=(24, 24, 24)), radius=8, centre=centre, outside=0
    )
    made = reformat(volume, plane="oblique", thickness=3, tilt=tilt, turn=turn)
    weights = made.array.reshape(-1) / made.array.sum()
    assert np.abs(weights @ places(made) - centre).max() < 0.5


def test_the_signs_of_tilt_and_turn() -> None:
    """Positive tilt raises the back edge (rows run up); positive turn brings the front to the left."""
    volume = ramp_volume(Grid((30, 30, 30), (1.0, 1.0, 1.0)))
    tilt = reformat(volume, plane="oblique", thickness=3, tilt=30)
    assert np.allclose(tilt.axes[:, 1], [0, np.cos(np.pi / 6), 0.5])
    assert np.allclose(tilt.axes[:, 2], [1, 0, 0])
    turn = reformat(volume, plane="oblique", thickness=3, turn=30)
    assert np.allclose(-turn.axes[:, 1], [0.5, -np.cos(np.pi / 6), 0])  # to the front: left and forward
    both = reformat(volume, plane="oblique", thickness=3, tilt=90, turn=90)
    assert np.allclose(both.axes[:, 1], [0, 0, 1], atol=1e-9)  # tilted first: rows still run to the head


def test_every_plane_is_right_handed() -> None:
    """Slices advance along row × column cosines, as readers order them (PS3.3 C.7.6.2.1.1)."""
    for axes in (AXIAL, CORONAL, SAGITTAL):
        assert np.array_equal(np.cross(axes[:, 2], axes[:, 1]), axes[:, 0])


def test_padding_stays_out_of_coronal_slabs() -> None:
    """Half of a slab padded: the mean is that of the other half; all padded: not valid."""
    volume = ramp_volume(Grid((6, 8, 5), (1.0, 1.0, 1.0)), per_mm=(0, 0, 0), offset=50)
    valid = np.ones(volume.array.shape, bool)
    valid[:, :2] = False
    valid[:, 4:8, 0] = False
    array = np.where(valid, volume.array, np.float32(-2000))
    made = reformat(replace(volume, array=array, valid=valid), plane="coronal", thickness=4)
    assert made.valid is not None
    assert made.valid[0].all()
    assert made.valid[1].tolist() == [[False, True, True, True, True]] * 6
    assert np.all(made.array[made.valid] == 50)
    assert np.all(made.array[~made.valid] == -2000)


def test_wide_pixels_are_means_over_their_box() -> None:
    """Pixels four times as wide as the source's hold the mean of 4 x 4 of them, to float32."""
    rng = np.random.default_rng(2)
    grid = Grid((3, 16, 20), (2.0, 1.0, 1.0))
    volume = Volume(rng.normal(size=grid.shape).astype(np.float32), grid.affine, ramp_volume().unit)
    made = reformat(volume, plane="acquired", thickness=2, spacing=4)
    assert np.allclose(made.array, volume.array.reshape(3, 4, 4, 5, 4).mean(axis=(2, 4)), atol=1e-5)


def test_a_single_slice_has_its_own_plane_only() -> None:
    """One slice of 3 mm can be kept; a coronal slab of it is as good as its pixels are."""
    volume = ramp_volume(Grid((1, 20, 20), (3.0, 1.0, 1.0)))
    assert np.array_equal(reformat(volume, plane="acquired", thickness=3).array, volume.array)
    coronal = reformat(volume, plane="coronal", thickness=5)
    assert coronal.array.shape == (4, 3, 20)


def test_only_square_sources_are_aligned() -> None:
    """A source 5° off is none of the planes without interpolation."""
    assert aligned(ramp_volume(Grid.tilted(5, (4, 5, 6))), AXIAL) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"plane": "coronal", "thickness": 5, "tilt": 3.0}, "belong to plane: oblique, not to coronal"),
        ({"plane": "oblique", "thickness": 5, "tilt": 95.0}, "out of range"),
        ({"plane": "sagittal", "thickness": 0.5}, "normal of the sagittal plane"),
        ({"plane": "coronal", "thickness": 5, "spacing": 0.0}, "greater than 0"),
        ({"plane": "coronal", "thickness": 5, "spacing": 1e-4}, "coarser spacing"),
        ({"plane": "coronal", "thickness": 500}, "thicker than the source"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    """Options that do not belong together, or that the source cannot give, are refused in words."""
    with pytest.raises(Refused, match=words):
        run_operator(reformat, ramp_volume(), **options)
