"""A rotating projection as people read it: what is where, and which side of the patient it says that is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node.operator import Picture, Refused
from node.operators.turning import mip_turning
from node.testing import Grid, run_operator, sphere_volume

GRID = Grid((30, 60, 60), (4.0, 4.0, 4.0))


def shown(**options: object) -> Picture:
    """A bright ball at the patient's left front, turned in eight views."""
    volume = sphere_volume(GRID, radius=16, centre=(60, -70, 0), inside=500, outside=-1000)
    made = run_operator(
        mip_turning, replace(volume, facts={"modality": "CT"}), center=250.0, width=600.0, views=8, **options
    )
    assert isinstance(made, Picture)
    return made


def across(frame: np.ndarray, pixel: float) -> float:
    """Mm from the middle to the centre of what is bright, letters at the edges left out."""
    inner = frame[frame.shape[0] // 3 : -frame.shape[0] // 3, 60:-60]
    at = np.argwhere(inner > 200)[:, 1].mean()
    return float(at + 60 - (frame.shape[1] - 1) / 2) * pixel


def test_the_ball_goes_around() -> None:
    """At x = 60, y = -70 (left, front) it is seen at 60, 130/√2, 70 … mm to the right as the observer walks around."""
    made = shown()
    assert made.spacing is not None
    expected = [60 * np.cos(a) - 70 * np.sin(a) for a in np.radians(45) * np.arange(8)]
    # Seen from the left (a quarter around), the patient's back lies to the right.
    found = [across(frame, made.spacing[1]) for frame in made.array]
    assert found == pytest.approx(expected, abs=3)


def test_it_is_large_and_black_and_white() -> None:
    """At least 512 pixels, bytes under no further window; the ball has the grey that the window gives 500 HU."""
    made = shown()
    assert made.array.dtype == np.uint8
    assert max(made.array.shape[1:]) >= 512
    assert made.facts["window"] == (128.0, 256.0)
    assert made.facts["burned_in"] is False
    assert np.median(made.array[0][made.array[0] > 200]) == round((500 - 250 + 300) / 600 * 255)


def test_columns_that_stay_black_are_cut_off_evenly() -> None:
    """A small thing near the axis makes a narrow picture, the axis in its middle."""
    near = sphere_volume(GRID, radius=16, centre=(12, 0, 0), inside=500, outside=-1000)
    made = run_operator(mip_turning, near, center=250.0, width=600.0, views=4)
    assert made.spacing is not None
    assert made.array.shape[2] * made.spacing[1] < 120
    assert across(made.array[0], made.spacing[1]) == pytest.approx(12, abs=3)


def test_padding_is_black() -> None:
    """What was not measured is not shown, whatever it holds."""
    volume = sphere_volume(GRID, radius=16, inside=500, outside=-1000)
    array, valid = volume.array.copy(), np.ones(volume.array.shape, bool)
    array[:, :, :5], valid[:, :, :5] = 3000, False
    made, plain = (
        run_operator(mip_turning, replace(volume, array=a, valid=valid), center=250.0, width=600.0, views=4)
        for a in (array, volume.array.copy())
    )
    assert np.array_equal(made.array, plain.array)


def test_a_window_without_width_is_refused() -> None:
    """Said before the work is done."""
    with pytest.raises(Refused, match="too narrow"):
        run_operator(mip_turning, sphere_volume(GRID), center=0.0, width=0.0)
