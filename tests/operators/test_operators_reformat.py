"""Reformat against analytic phantoms: exact for whole slabs, partial ones weighed, oblique ones true."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.model import Code
from node.operator import Refused, Volume, affine_of
from node.operators.reformat import place_slabs, reformat

HU = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
AXIAL = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])


def turned(degrees: float) -> np.ndarray[Any, Any]:
    """Axial axes turned by *degrees* about x, then z."""
    a = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x @ AXIAL)


def phantom(
    value: Any, shape: tuple[int, int, int], spacing: tuple[float, float, float], axes: Any = AXIAL
) -> Volume:
    """A volume around (10, -20, 30) mm whose voxels hold *value(x, y, z)* of their centre."""
    affine = affine_of(np.zeros(3), np.asarray(axes, float), np.array(spacing))
    affine[:3, 3] = np.array([10, -20, 30]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    places = np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    return Volume(value(*places.T).reshape(shape).astype(np.float32), affine, HU, facts={"modality": "CT"})


def places(volume: Volume) -> np.ndarray[Any, Any]:
    """The centre of each voxel, (slices, rows, columns, 3)."""
    index = np.indices(volume.array.shape).reshape(3, -1).T
    return (index @ volume.affine[:3, :3].T + volume.origin).reshape(*volume.array.shape, 3)


def ramp(x: Any, y: Any, z: Any) -> Any:
    """A linear course: its mean over a slab is its value at the slab's centre."""
    return 2 * x - 3 * y + 5 * z


def test_whole_slabs_are_the_plain_mean_of_their_slices() -> None:
    """20 slices of 1 mm in slabs of 5 mm: each is the mean of 5 slices, pixel for pixel, at their middle."""
    source = phantom(ramp, (20, 6, 7), (1.0, 0.8, 0.6))
    made = reformat(source, plane="axial", thickness=5)
    assert np.allclose(made.array, source.array.reshape(4, 5, 6, 7).mean(axis=1), rtol=1e-6)
    assert np.allclose(made.array, ramp(*np.moveaxis(places(made), -1, 0)), atol=1e-4)
    assert np.allclose(made.spacing, [5, 0.8, 0.6])
    assert made.valid is None
    assert (made.facts["slice_thickness"], made.facts["modality"]) == (5, "CT")


def test_partial_slices_count_by_their_share() -> None:
    """Slabs of 2.5 mm from slices of 1 mm weigh the cut slice by one half, as its box in the slab is half."""
    source = phantom(lambda x, y, z: z**2, (5, 2, 2), (1.0, 1.0, 1.0))
    a = source.array[:, 0, 0].astype(float)
    made = reformat(source, plane="axial", thickness=2.5)
    expected = [(a[0] + a[1] + a[2] / 2) / 2.5, (a[2] / 2 + a[3] + a[4]) / 2.5]
    assert np.allclose(made.array[:, 0, 0], expected, rtol=1e-6)


def test_overlapping_slabs() -> None:
    """5 mm slabs every 2 mm share slices; each is still the mean of its own five."""
    source = phantom(lambda x, y, z: np.sin(z), (11, 2, 2), (1.0, 1.0, 1.0))
    made = reformat(source, plane="axial", thickness=5, every=2)
    expected = [source.array[n : n + 5, 0, 0].mean() for n in (0, 2, 4, 6)]
    assert np.allclose(made.array[:, 0, 0], expected, atol=1e-6)
    assert made.spacing[0] == pytest.approx(2)


@pytest.mark.parametrize(("combine", "pick"), [("max", np.max), ("min", np.min)])
def test_projections_take_an_extreme_of_the_slab(combine: Any, pick: Any) -> None:
    """Maximum and minimum of each slab's slices, exactly."""
    rng = np.random.default_rng(1)
    source = phantom(lambda x, y, z: rng.normal(size=x.size), (12, 4, 4), (1.0, 1.0, 1.0))
    made = reformat(source, plane="axial", thickness=4, combine=combine)
    assert np.array_equal(made.array, pick(source.array.reshape(3, 4, 4, 4), axis=1))


def test_nothing_is_cut_off_when_slabs_do_not_fit() -> None:
    """22 mm in slabs of 5 mm: five slabs, both end slabs at least half measured, and every slice in one."""
    source = phantom(lambda x, y, z: z * 0 + 1, (22, 2, 2), (1.0, 1.0, 1.0))
    made = reformat(source, plane="axial", thickness=5)
    assert made.array.shape[0] == 5
    assert made.valid is None
    edges = made.origin[2] - 2.5, made.origin[2] + 4 * 5 + 2.5
    assert edges[0] <= source.origin[2] - 0.5 + 1e-6
    assert edges[1] >= source.origin[2] + 21.5 - 1e-6
    assert np.allclose(made.array, 1)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.floats(0.4, 8), st.floats(1, 6), st.floats(0.2, 1))
def test_slabs_cover_the_source_and_are_half_measured(
    n: int, step: float, factor: float, overlap: float
) -> None:
    """Wherever slabs touch or overlap, they cover the whole length, and none hangs out by more than half."""
    length, thickness = n * step, step * factor
    if thickness > length:
        return
    slabs = list(place_slabs(length, thickness, thickness * overlap, step))
    assert slabs[0][0] <= 1e-6 * length
    assert slabs[-1][1] >= length * (1 - 2e-3)
    assert slabs[0][1] >= thickness / 2 - 1e-6
    assert length - slabs[-1][0] >= thickness / 2 * (1 - 1e-6) - 2e-3 * length


@pytest.mark.parametrize("flips", [(-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_flipped_axial_sources_are_turned_without_interpolation(flips: tuple[int, int, int]) -> None:
    """Prone or feet-first axial stacks come out head-up, left to the right, with their exact values."""
    source = phantom(ramp, (8, 5, 6), (2.0, 0.7, 0.9), AXIAL * flips)
    made = reformat(source, plane="axial", thickness=2)
    assert np.allclose(made.axes, AXIAL)
    assert np.allclose(made.array, ramp(*np.moveaxis(places(made), -1, 0)), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("coronal", np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]])),
        ("sagittal", np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])),
        ("oblique 20", turned(20)),
        ("oblique 55", turned(55)),
    ],
)
@pytest.mark.parametrize("thickness", [4.0, 5.3])
def test_a_ramp_survives_any_orientation(name: str, axes: Any, thickness: float) -> None:
    """Each slab that lies wholly in an oblique source holds a linear ramp's value at its centre.

    Linear interpolation is exact for it; the tolerance, 0.01 HU of about 300, is float32 arithmetic.
    """
    source = phantom(ramp, (24, 40, 36), (1.5, 0.9, 0.9), axes)
    made = reformat(source, plane="axial", thickness=thickness)
    assert np.allclose(made.axes, AXIAL)
    assert np.allclose(made.spacing, [thickness, 0.9, 0.9])
    centres = places(made).reshape(-1, 3)
    inside = np.ones(len(centres), bool)
    for up in (-thickness / 2, 0, thickness / 2):
        index = (centres + np.array([0, 0, up]) - source.origin) @ np.linalg.inv(source.affine[:3, :3]).T
        inside &= ((index >= 0) & (index <= np.array(source.array.shape) - 1)).all(axis=1)
    assert inside.sum() > 300
    valid = np.ones(made.array.shape, bool) if made.valid is None else made.valid
    assert valid.reshape(-1)[inside].all()
    assert np.allclose(made.array.reshape(-1)[inside], ramp(*centres[inside].T), atol=0.01)


def test_an_oblique_source_keeps_its_volume_and_says_what_is_empty() -> None:
    """The valid voxels of a reformatted oblique box of 40 x 36 x 36 mm fill its volume to 3 %.

    A voxel counts when half of it was measured; along a face the errors cancel on average, so what is
    left is second order in voxel size over box size (1 x 1 x 3 mm).
    """
    source = phantom(lambda x, y, z: x * 0 + 100, (24, 40, 36), (1.5, 1.0, 1.0), turned(30))
    made = reformat(source, plane="axial", thickness=3)
    assert made.valid is not None
    measured = np.count_nonzero(made.valid) * made.voxel_volume
    assert measured == pytest.approx(source.array.size * source.voxel_volume, rel=0.03)
    assert np.allclose(made.array[made.valid], 100, atol=1e-3)
    assert made.valid.any(axis=(1, 2)).all()


def test_padding_is_never_mixed_into_tissue() -> None:
    """A slab counts where at least half of it was measured, with the mean of that half alone."""
    source = phantom(lambda x, y, z: x * 0 + 50, (4, 2, 3), (1.0, 1.0, 1.0))
    array, valid = source.array.copy(), np.ones(source.array.shape, bool)
    valid[:2, 0, 0] = valid[:3, 0, 1] = valid[:, 0, 2] = False
    array[~valid] = -3024
    for combine in ("mean", "max", "min"):
        made = reformat(Volume(array, source.affine, HU, valid), plane="axial", thickness=4, combine=combine)
        assert made.valid is not None
        assert made.valid[0].tolist() == [[True, False, False], [True, True, True]]
        assert made.array[0].tolist() == [[50, -3024, -3024], [50, 50, 50]]


def test_oblique_padding_is_never_mixed_into_tissue() -> None:
    """Beside an invalid region interpolated values stay those of the tissue, not drawn to -3024."""
    source = phantom(lambda x, y, z: x * 0 + 50, (24, 30, 30), (1.5, 1.0, 1.0), turned(25))
    valid = np.ones(source.array.shape, bool)
    valid[:, :, :12] = False
    array = np.where(valid, source.array, np.float32(-3024))
    made = reformat(Volume(array, source.affine, HU, valid), plane="axial", thickness=3)
    assert made.valid is not None
    assert np.allclose(made.array[made.valid], 50, atol=1e-3)
    assert np.all(made.array[~made.valid] == -3024)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"thickness": 1}, "thinner than the 2 mm"),
        ({"thickness": 50}, "thicker than the source, which is 40 mm"),
        ({"thickness": -3}, "greater than 0"),
        ({"thickness": 4, "every": 0}, "greater than 0"),
    ],
)
def test_what_the_source_cannot_give_is_refused(options: dict[str, float], words: str) -> None:
    """Slabs thinner than the slices, thicker than the source, or without extent are refused in words."""
    with pytest.raises(Refused, match=words):
        reformat(phantom(ramp, (20, 3, 3), (2.0, 1.0, 1.0)), plane="axial", **options)
