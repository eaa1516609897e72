"""The rotating projection of uptake: greys, sides, scale and size, seen with a ruler."""

from __future__ import annotations

import numpy as np
import pytest

from node.errors import Refused
from node.operator import Volume
from node.operators.colour import Bar, bar
from node.operators.pet.suv import suv
from node.operators.pet.turning import mip_uptake
from node.testing import Grid, run_operator
from node.testing.pet import Sphere, nema_volume, with_dose

GRID = Grid((40, 60, 60), (4.0, 5.0, 5.0))
LEFT = (60.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def one() -> Volume:
    """A body of SUV 1 and, on the patient's left, a sphere of 6."""
    return run_operator(suv, with_dose(nema_volume(GRID, background=1.0, spheres=(Sphere(LEFT, 20.0, 6.0),))))


def test_uptake_is_dark_and_turns_with_the_patient(one: Volume) -> None:
    """The sphere is black at the right of frame 1 (the patient's left), in the middle after a quarter turn."""
    picture = run_operator(mip_uptake, one, views=4, highest=6.0)
    frames, rows, columns = picture.array.shape
    assert (frames, max(rows, columns) >= 512, picture.unit.value) == (4, True, "1")
    said = Bar(0, 6.0, one.unit, "inverse_grey")
    wide = next(c for c in range(columns) if c + bar(rows, said, c).shape[1] == columns)
    centres = []
    for n in (0, 1, 2):
        row = picture.array[n, rows // 2 - 10 : rows // 2 + 10, : wide - 28].mean(axis=0)
        centres.append(float(np.flatnonzero(row < 30).mean()))
    middle = centres[1]
    assert centres[0] > middle > centres[2]
    assert (centres[0] - middle) * picture.spacing[1] == pytest.approx(60, abs=5)
    assert abs(middle - wide / 2) < wide * 0.1


def test_greys_are_shares_of_the_highest(one: Volume) -> None:
    """SUV 6 of 12 is half grey, 1 of 12 nearly white, and beside the body it is white."""
    picture = run_operator(mip_uptake, one, views=2, highest=12.0)
    frame = picture.array[0]
    counts = np.bincount(frame.ravel(), minlength=256)
    assert counts[255 - round(255 / 2) - 3 : 255 - round(255 / 2) + 4].sum() > 1000
    assert counts[255 - round(255 / 12) - 1 : 255 - round(255 / 12) + 2].sum() > 10000
    assert counts[255] > 1000


def test_what_was_not_measured_is_white(one: Volume) -> None:
    """Padding does not show as a dark frame that turns with the patient."""
    valid = np.ones(GRID.shape, bool)
    valid[:, :, :6] = False
    from dataclasses import replace

    picture = run_operator(mip_uptake, replace(one, valid=valid), views=4, highest=6.0)
    assert (picture.array[:, 100:110, 2:6] > 250).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"highest": 0.0}, "highest 0 must be greater than 0"), ({"views": 1}, "1 views are out")],
)
def test_what_makes_no_sense_is_refused(one: Volume, options: dict[str, float], words: str) -> None:
    """Options out of range, in words."""
    with pytest.raises(Refused, match=words):
        run_operator(mip_uptake, one, **options)


def test_no_uptake_at_all_is_refused() -> None:
    """A volume of zeros has nothing to scale to."""
    empty = with_dose(nema_volume(Grid((6, 10, 10), (4.0, 5.0, 5.0)), background=0.0, spheres=()))
    with pytest.raises(Refused, match="the volume holds no uptake"):
        run_operator(mip_uptake, empty, views=2)
