"""The nuclear medicine phantoms are valid NM images, and hold what their formulas say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peers
import pydicom
import pytest
from scipy.integrate import quad

from node.testing import (
    Grid,
    Phase,
    Series,
    as_seen,
    flood_frames,
    kidney_frames,
    lung_frames,
    sphere_volume,
    write_nm_image,
    write_nm_tomo,
)
from node.testing.nuclear import gamma_counts, gamma_curve, phase_times

BOTH = ("anterior", "posterior")
SHORT = (Phase(3, 1000.0, pause=200.0), Phase(2, 5000.0, delay=1000.0))


@pytest.mark.parametrize(
    ("frames", "views", "options"),
    [
        (lung_frames(), BOTH, {}),
        (lung_frames(), BOTH, {"kind": "WHOLE BODY"}),
        (np.concatenate([lung_frames()[:1]] * 8), ("anterior",), {"kind": "GATED"}),
        (kidney_frames(SHORT), ("posterior",), {"phases": SHORT}),
        (np.concatenate([kidney_frames(SHORT)] * 2), BOTH, {"phases": SHORT}),
        (flood_frames(), ("",), {"spacing": 6.4}),
    ],
)
def test_planar_phantoms_are_valid(tmp_path: Path, frames: Any, views: Any, options: Any) -> None:
    """Static, whole body, gated, dynamic and flood images: dciodvfy finds no error in any of them."""
    paths = write_nm_image(tmp_path, frames, views, **options)
    assert peers.dciodvfy(paths[0]) == []
    assert np.array_equal(pydicom.dcmread(paths[0]).pixel_array.reshape(frames.shape), frames)


def test_the_tomogram_is_valid(tmp_path: Path) -> None:
    """So it is for the reconstructed one."""
    paths = write_nm_tomo(tmp_path, sphere_volume(Grid((6, 16, 16), (4.0, 4.0, 4.0)), inside=500, outside=10))
    assert peers.dciodvfy(paths[0]) == []


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    """Written twice, a phantom is the same file."""
    first, second = (
        write_nm_image(tmp_path / name, flood_frames(), series=Series("flood"))[0] for name in ("a", "b")
    )
    assert first.read_bytes() == second.read_bytes()


def test_counts_beyond_sixteen_bits_are_refused(tmp_path: Path) -> None:
    """What the pixels cannot hold is not written."""
    with pytest.raises(ValueError, match="65535"):
        write_nm_image(tmp_path, np.full((1, 4, 4), 70000.0))


def test_counts_of_a_frame_are_the_integral_of_its_curve() -> None:
    """The closed form agrees with numerical integration of the curve, and its peak is where it is said to be."""
    wanted, _ = quad(lambda t: float(gamma_curve(t, 60.0, 180.0)), 30, 95)
    assert np.isclose(gamma_counts(30, 95, 60.0, 180.0), wanted, rtol=1e-9)
    assert gamma_curve(180.0, 60.0, 180.0) == 60.0


def test_what_a_camera_shows_keeps_the_counts() -> None:
    """Blur and Poisson noise move counts about: the sum stays within its noise, and the same seed gives the same."""
    frames = lung_frames(per_pixel=100)
    seen = as_seen(frames, seed=4)
    assert abs(seen.sum() - frames.sum()) < 5 * np.sqrt(frames.sum())
    assert np.array_equal(seen, as_seen(frames, seed=4))
    assert seen[0, 64, 34] != frames[0, 64, 34]


def test_times_of_phases_are_those_of_the_standard() -> None:
    """Frames follow by duration and pause, phases by their delay: by hand."""
    begins, lasts = phase_times(SHORT)
    assert begins.tolist() == [0, 1200, 2400, 4400, 9400]
    assert lasts.tolist() == [1000, 1000, 1000, 5000, 5000]
