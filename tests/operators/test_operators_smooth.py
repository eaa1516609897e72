"""Smooth against analytic widths, the noise that must be left, and numpy's median."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.operator import NO_UNITS, Refused, Volume
from node.operators.smooth import FWHM_PER_SIGMA, kernel_of, smooth
from node.testing import Grid, ramp_volume, run_operator


def volume(array: Any, spacing: tuple[float, float, float] = (1, 1, 1), **more: Any) -> Volume:
    """*array* on an axial grid."""
    array = np.asarray(array, np.float32)
    return Volume(array, Grid(array.shape, spacing).affine, NO_UNITS, **more)


def test_a_point_becomes_a_gaussian_of_the_width_asked_for() -> None:
    """A point's profile has the full width at half maximum asked for, in mm along every axis, to 2 %.

    Half maximum is read between voxels by the Gaussian's own logarithm, a parabola in distance.
    """
    spacing, width = (2.0, 1.25, 1.0), 8.0
    point = np.zeros((41, 41, 41))
    point[20, 20, 20] = 1000
    made = run_operator(smooth, volume(point, spacing), width=width).array.astype(float)
    assert made.sum() == pytest.approx(1000, rel=1e-4)
    for axis, step in enumerate(spacing):
        profile = np.moveaxis(made, axis, 0)[:, 20, 20]
        x = (np.arange(41) - 20) * step
        near = np.abs(x) <= width
        curve = np.polyfit(x[near], np.log(profile[near]), 2)
        assert 2 * np.sqrt(np.log(2) / -curve[0]) == pytest.approx(width, rel=0.02)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 8))
def test_the_kernel_has_exactly_its_variance(sigma: float) -> None:
    """However narrow, the discrete Gaussian's variance is sigma² (Lindeberg 1990), but for its cut tails."""
    kernel = kernel_of(sigma)
    at = np.arange(len(kernel)) - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    assert (kernel * at**2).sum() == pytest.approx(sigma**2, rel=5e-4)


def test_white_noise_loses_what_theory_says() -> None:
    """The deviation of white noise falls by prod(4·pi·t)^-1/4, t the variance in voxels² per axis, to 3 %.

    The sum of squares of a Gaussian of variance t is 1 / sqrt(4·pi·t) per axis. With 64³ voxels, some 200
    voxels to a resolved volume, the deviation itself is known to about 2 %.
    """
    noise = np.random.default_rng(1).normal(0, 100, (64, 64, 64))
    made = smooth(volume(noise, (2, 1, 1)), width=6).array
    t = (6 / FWHM_PER_SIGMA / np.array([2, 1, 1])) ** 2
    expected = 100 * np.prod(4 * np.pi * t) ** -0.25
    assert made[8:-8, 8:-8, 8:-8].std() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("method", ["gaussian", "median"])
def test_neither_border_nor_padding_pulls_values_down(method: Any) -> None:
    """A constant stays constant to its border and beside padding of -3000; the padding stays not valid."""
    valid = np.ones((6, 12, 12), bool)
    valid[:, :, :4] = valid[2, 6, 8] = False
    source = volume(np.where(valid, 40, -3000), valid=valid)
    made = smooth(source, width=5, method=method)
    assert np.allclose(made.array[valid], 40, atol=1e-4)
    assert made.valid is valid
    assert np.all(made.array[~valid] == made.array.min())


def test_smoothing_twice_adds_widths_in_quadrature() -> None:
    """3 mm and then 4 mm is 5 mm, away from the border."""
    noise = volume(np.random.default_rng(0).normal(size=(30, 30, 30)))
    twice = smooth(smooth(noise, width=3), width=4)
    inner = (slice(9, -9),) * 3
    assert np.allclose(twice.array[inner], smooth(noise, width=5).array[inner], atol=2e-4)


def test_a_single_slice_is_smoothed_in_its_plane() -> None:
    """One slice of a linear course stays linear inside, and one slice."""
    source = ramp_volume(Grid((1, 30, 30), (5.0, 1.0, 1.0)))
    made = smooth(source, width=4)
    assert np.allclose(made.array[:, 8:-8, 8:-8], source.array[:, 8:-8, 8:-8], atol=1e-3)


@pytest.mark.parametrize("padded", [False, True])
def test_the_median_is_that_of_the_ball(padded: bool) -> None:
    """Every voxel, at the border too, is numpy's median of the measured voxels within the radius."""
    rng = np.random.default_rng(2)
    valid = rng.random((5, 7, 8)) > 0.2 if padded else np.ones((5, 7, 8), bool)
    source = volume(rng.normal(size=(5, 7, 8)), (2.0, 1.0, 0.9), valid=valid if padded else None)
    made = smooth(source, width=4.2, method="median")
    index = np.indices(source.array.shape).reshape(3, -1).T
    for place in index[valid.reshape(-1)]:
        near = np.linalg.norm((index - place) * source.spacing, axis=1) <= 2.1
        expected = np.median(source.array.reshape(-1)[near & valid.reshape(-1)])
        assert made.array[tuple(place)] == pytest.approx(expected, abs=1e-6)


def test_the_median_keeps_an_edge_and_takes_away_a_speck() -> None:
    """A straight edge comes out as it went in, a single bright voxel is gone."""
    array = np.zeros((7, 9, 10))
    array[:, :, 5:] = 100
    speck = array.copy()
    speck[3, 4, 2] = 900
    assert np.array_equal(smooth(volume(speck), width=3, method="median").array, array)


def test_what_was_done_is_told_and_the_rest_kept() -> None:
    """Unit and facts stay, the method and width are added."""
    source = replace(volume(np.zeros((5, 5, 5))), facts={"modality": "PT"})
    assert smooth(source, width=2).facts == {"modality": "PT", "smoothed": "gaussian 2 mm"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 0.0}, "greater than 0"),
        ({"width": 60.0}, "wider than the whole volume"),
        ({"width": 1.9, "method": "median"}, "holds no neighbour"),
    ],
)
def test_widths_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    """A width of nothing, of more than the volume, or a ball of one voxel: refused in words."""
    with pytest.raises(Refused, match=words):
        run_operator(smooth, volume(np.zeros((8, 8, 8)), (5, 1, 1)), **options)
