"""Subtraction voxel by voxel, and every way in which two images may not belong together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from node.operator import Code, Refused, Volume
from node.operators.subtract import subtract
from node.testing import Grid, ramp_volume, run_operator

GRID = Grid((4, 6, 5), (2.0, 1.0, 1.0))
FRAME = {"frame_of_reference": "1.2"}


def two() -> tuple[Volume, Volume]:
    """Two volumes of random values on one grid."""
    rng = np.random.default_rng(0)
    unit = ramp_volume().unit
    first, second = (rng.normal(size=GRID.shape).astype(np.float32) for _ in range(2))
    return Volume(first, GRID.affine, unit, facts={**FRAME, "modality": "MR"}), Volume(
        second, GRID.affine, unit, facts=FRAME
    )


@pytest.mark.parametrize("scale", [1.0, 0.25, -2.0])
def test_each_voxel_is_the_difference(scale: float) -> None:
    """The result is a - scale · b, as numpy does it in double precision, with the first unit and facts."""
    first, second = two()
    made = run_operator(subtract, first, second, scale=scale)
    assert np.array_equal(made.array, (first.array.astype(float) - scale * second.array).astype(np.float32))
    assert (made.unit, made.facts, made.valid) == (first.unit, first.facts, None)


def test_negative_differences_can_be_cut_off() -> None:
    """With clip_negative nothing is below 0, and what is above stays."""
    first, second = two()
    plain, cut = subtract(first, second), subtract(first, second, clip_negative=True)
    assert plain.array.min() < 0
    assert np.array_equal(cut.array, np.maximum(plain.array, 0))


def test_only_what_both_have_is_valid() -> None:
    """A voxel padded in either is not valid, and the padding never makes the lowest value."""
    first, second = two()
    ours, theirs = np.ones(GRID.shape, bool), np.ones(GRID.shape, bool)
    ours[0], theirs[:, 0] = False, False
    made = subtract(
        replace(first, array=np.where(ours, first.array, -3000), valid=ours),
        replace(second, array=np.where(theirs, second.array, 3000), valid=theirs),
    )
    assert made.valid is not None
    assert np.array_equal(made.valid, ours & theirs)
    assert made.array.min() > -20
    one = subtract(first, replace(second, valid=theirs))
    assert one.valid is not None
    assert np.array_equal(one.valid, theirs)


def other(what: str) -> dict[str, Any]:
    """Changes to the second volume."""
    moved, wide = GRID.affine.copy(), GRID.affine.copy()
    moved[0, 3] += 7
    wide[:3, 1] *= 1.5
    tilted = replace(GRID, row=(np.cos(0.1), np.sin(0.1), 0.0), column=(-np.sin(0.1), np.cos(0.1), 0.0))
    return {
        "shape": {"array": np.zeros((4, 6, 6), np.float32)},
        "place": {"affine": moved},
        "spacing": {"affine": wide},
        "direction": {"affine": tilted.affine},
        "unit": {"unit": Code("Bq/ml", "UCUM", "Becquerels/milliliter")},
        "frame": {"facts": {"frame_of_reference": "9"}},
        "padding": {"valid": np.zeros(GRID.shape, bool)},
    }[what]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("shape", "4 x 6 x 5 against 4 x 6 x 6 voxels; resample"),
        ("place", "first voxels are 7 mm apart"),
        ("spacing", "voxels of 2 x 1 x 1 against 2 x 1.5 x 1 mm"),
        ("direction", "directions differ by 5.73°"),
        ("unit", "Bq/ml cannot be subtracted"),
        ("frame", "different frames of reference"),
        ("padding", "no voxel was measured in both"),
    ],
)
def test_what_does_not_belong_together_is_refused(what: str, words: str) -> None:
    """Another grid is refused with in what it differs; another unit or frame of reference, too."""
    first, second = two()
    with pytest.raises(Refused, match=words):
        subtract(first, replace(second, **other(what)))
