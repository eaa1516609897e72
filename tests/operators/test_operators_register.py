"""Registration against a phantom moved by a known rigid motion, on another grid and with other noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from node.operator import NO_UNITS, Refused, Volume
from node.operators.register import register_rigid
from node.operators.resample import resample
from node.testing import Grid, run_operator

FRAME = {"frame_of_reference": "1.2.3", "modality": "MR"}
FIXED = Grid((32, 40, 40), (5.5, 4.5, 4.5))


def motion(
    rotation: tuple[float, float, float], translation: tuple[float, float, float]
) -> sitk.Euler3DTransform:
    """Points of the fixed image → points of the moving one; degrees and mm about the origin."""
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*np.radians(rotation).tolist())
    transform.SetTranslation(translation)
    return transform


def scene(points: Any, seed: int) -> Any:
    """Seven soft organs of different size and brightness, nowhere symmetric, and noise of 5; (3, …) mm."""
    array = np.random.default_rng(seed).normal(0, 5, points.shape[1:])
    organs = [
        ((0, 0, 0), (48, 60, 52), 300), ((25, -20, 18), (14, 10, 12), 400), ((-30, 12, 25), (9, 16, 10), 350),
        ((8, 34, -22), (13, 11, 9), 500), ((-22, -30, -15), (11, 12, 15), -200), ((34, 15, -28), (9, 9, 14), 450),
        ((-10, -5, -36), (16, 9, 9), 300),
    ]  # fmt: skip
    for centre, widths, bright in organs:
        away = (points - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(widths, (3, 1, 1, 1))
        array += bright * np.exp(-(away**2).sum(axis=0) / 2)
    return array.astype(np.float32)


def moved(rotation: Any, translation: Any) -> Volume:
    """The scene, moved, on another grid and with noise of its own."""
    grid = Grid((38, 44, 40), (4.6, 4.2, 4.2))
    transform = motion(rotation, translation)
    matrix = np.array(transform.GetMatrix()).reshape(3, 3)
    shift = np.array(transform.GetTranslation()).reshape(3, 1)
    points = grid.coordinates()
    before = matrix.T @ (points.reshape(3, -1) - shift)
    return Volume(scene(before.reshape(points.shape), 1), grid.affine, NO_UNITS, facts=FRAME)


def fixed() -> Volume:
    """The scene where it belongs."""
    return Volume(scene(FIXED.coordinates(), 0), FIXED.affine, NO_UNITS, facts=FRAME)


@pytest.mark.parametrize(
    ("metric", "rotation", "translation"),
    [
        ("mutual_information", (-8.0, 5.0, 12.0), (15.0, 10.0, -12.0)),
        ("mean_squares", (4.0, -3.0, 6.0), (7.0, -5.0, 4.0)),
    ],
)
def test_a_known_motion_is_found(metric: Any, rotation: Any, translation: Any) -> None:
    """The motion is found within 0.5° and 0.25 mm, and every corner of the head-sized scene within 0.5 mm.

    That is a tenth of a voxel (4.5 x 4.5 x 5.5 mm), which is what noise in voxels of this size leaves.
    """
    volume = fixed()
    made = run_operator(register_rigid, volume, moved(rotation, translation), metric=metric)
    told = made.facts["registration"]
    assert np.abs(np.subtract(told["rotation"], rotation)).max() < 0.5
    assert np.abs(np.subtract(told["translation"], translation)).max() < 0.25
    assert told["after"] < told["before"]
    truth, found = motion(rotation, translation), motion(told["rotation"], told["translation"])
    for corner in np.array([[60, 80, 60], [-60, 80, -60], [60, -80, -60], [-60, -80, 60]], float):
        apart = np.subtract(truth.TransformPoint(corner.tolist()), found.TransformPoint(corner.tolist()))
        assert np.linalg.norm(apart) < 0.5
    assert made.same_grid(volume)
    inner = (slice(5, -5), slice(6, -6), slice(6, -6))
    before = np.abs(resample(moved(rotation, translation), volume).array - volume.array)[inner].mean()
    assert np.abs(made.array - volume.array)[inner].mean() < 0.4 * before


def test_other_contrast_is_registered_and_the_result_is_reproducible() -> None:
    """Mutual information finds the motion of a scene in reversed contrast, with one thread or several alike."""
    other = moved((3.0, 2.0, -5.0), (-6.0, 4.0, 3.0))
    other = replace(other, array=np.float32(1000) - other.array)
    results = []
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    for number in (1, 4):
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(number)
        results.append(register_rigid(fixed(), other))
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    told = results[0].facts["registration"]
    assert np.abs(np.subtract(told["translation"], (-6, 4, 3))).max() < 0.5
    assert np.abs(np.subtract(told["rotation"], (3, 2, -5))).max() < 0.5
    assert told == results[1].facts["registration"]
    assert np.array_equal(results[0].array, results[1].array)


def test_images_of_two_frames_are_laid_center_on_center() -> None:
    """With start: centers an image 400 mm away in another frame is found, and gets the frame of the first."""
    volume, other = fixed(), moved((0.0, 0.0, 4.0), (3.0, 0.0, 0.0))
    affine = other.affine.copy()
    affine[:3, 3] += [0, 0, 400]
    other = replace(other, affine=affine, facts={**FRAME, "frame_of_reference": "9", "b_value": 0.0})
    with pytest.raises(Refused, match="different frames of reference"):
        register_rigid(volume, other)
    made = register_rigid(volume, other, start="centers", farthest=500)
    assert np.abs(np.subtract(made.facts["registration"]["translation"], (3, 0, 400))).max() < 0.5
    assert made.facts["frame_of_reference"] == "1.2.3"
    assert made.facts["b_value"] == 0
    with pytest.raises(Refused, match="beyond the 50 mm"):
        register_rigid(volume, other, start="centers")


def test_padding_is_left_out_of_the_metric() -> None:
    """A third of the moving image padded with -3000 does not pull the result by more than 0.5 mm."""
    other = moved((0.0, 0.0, 3.0), (4.0, -3.0, 2.0))
    valid = np.ones(other.array.shape, bool)
    valid[:12] = False
    other = replace(other, array=np.where(valid, other.array, np.float32(-3000)), valid=valid)
    made = register_rigid(fixed(), other)
    assert np.abs(np.subtract(made.facts["registration"]["translation"], (4, -3, 2))).max() < 0.5
    assert made.valid is not None
    assert not made.valid[:6].any()
    assert made.array[made.valid].min() > -100


@pytest.mark.parametrize("case", ["frame", "unit", "thin", "far", "padding", "nothing"])
def test_what_cannot_be_trusted_is_refused(case: str) -> None:
    """No frame of reference, another unit, too few slices, no overlap, nothing measured: refused in words."""
    volume = fixed()
    far = volume.affine.copy()
    far[2, 3] += 150
    other = {
        "frame": replace(volume, facts={}),
        "unit": replace(volume, unit=replace(volume.unit, value="Bq/ml")),
        "thin": replace(volume, array=volume.array[:3]),
        "far": replace(volume, affine=far),
        "padding": replace(volume, valid=np.zeros(volume.array.shape, bool)),
        "nothing": replace(volume, array=np.full_like(volume.array, 5)),
    }[case]
    words = {
        "frame": "no frame of reference",
        "unit": "units differ",
        "thin": "fewer than 4 slices",
        "far": "do not show the same region",
        "padding": "no measured voxel",
        "nothing": "one value only",
    }[case]
    with pytest.raises(Refused, match=words):
        register_rigid(volume, other, metric="mean_squares" if case == "unit" else "mutual_information")
