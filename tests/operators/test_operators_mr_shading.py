"""N4: a known shading goes, structure stays, and the same image gives the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from node.errors import Refused
from node.operator import Code, Mask, Volume
from node.operators.mr.shading import n4
from node.testing import HOUNSFIELD, Grid, head_volume, run_operator

GRID = Grid((20, 96, 96), (6.0, 2.5, 2.5))


def shaded(grid: Grid = GRID) -> tuple[Volume, Volume, np.ndarray]:
    """A head, the same under a known shading of about ± 35 %, and where its white matter is."""
    plain = head_volume(grid, noise=4.0)
    x, y, z = grid.coordinates()
    flat = plain.array / (1 + 0.12 * (y / 96))  # the phantom has a coil's shading of its own
    field = np.exp(0.3 * np.cos(x / 60) + 0.2 * np.sin(y / 80) + 0.1 * z / 60)
    white = (np.abs(flat - 720) < 25) & (np.sqrt((x / 50) ** 2 + (y / 66) ** 2 + (z / 62) ** 2) < 1)
    as_is = replace(plain, array=flat.astype(np.float32))
    return as_is, replace(plain, array=(flat * field).astype(np.float32)), white


def spread(volume: Volume, where: np.ndarray) -> float:
    """Coefficient of variation of what is one tissue."""
    values = volume.array[where].astype(float)
    return float(values.std() / values.mean())


def test_a_known_shading_is_taken_out() -> None:
    """The coefficient of variation of white matter falls to less than a third, near that without shading."""
    truth, bad, white = shaded()
    good = run_operator(n4, bad)
    assert spread(bad, white) > 0.08
    assert spread(good, white) < spread(bad, white) / 3
    assert spread(good, white) < 3 * spread(truth, white)
    assert good.unit == bad.unit and good.same_grid(bad) and good.array.dtype == np.float32
    # What was told apart stays so: the ventricles against white matter, as a ratio.
    dark = (truth.array > 120) & (truth.array < 180) & (np.abs(GRID.coordinates()[0]) < 20)
    ratio = [float(np.median(v.array[dark]) / np.median(v.array[white])) for v in (truth, good)]
    assert ratio[1] == pytest.approx(ratio[0], rel=0.1)


def test_the_field_is_applied_at_full_resolution() -> None:
    """Two neighbours keep their ratio but for what the smooth field changes between them: nothing is blurred."""
    _, bad, _ = shaded()
    good = run_operator(n4, bad)
    with np.errstate(divide="ignore", invalid="ignore"):
        field = bad.array.astype(float) / good.array
    steps = np.abs(np.diff(np.log(field), axis=2))
    assert np.nanmax(steps) < 0.05


def test_more_threads_give_the_same_bytes() -> None:
    """One thread or three: the same result to the bit."""
    _, bad, _ = shaded()
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    made = []
    try:
        for threads in (1, 2, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            made.append(run_operator(n4, bad).array.tobytes())
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert made[0] == made[1] == made[2]


def test_a_mask_says_where_to_fit() -> None:
    """Fitted within a given mask the result differs from Otsu's, and serves the masked tissue."""
    _, bad, white = shaded()
    brain = Mask(white, bad.affine, "White matter", Code("1", "X", "x"), Code("1", "X", "x"))
    good = run_operator(n4, bad, brain)
    assert spread(good, white) < spread(bad, white) / 4
    other = replace(brain, affine=np.diag([9.0, 1, 1, 1]))
    with pytest.raises(Refused, match="another grid"):
        run_operator(n4, bad, other)


def test_padding_is_not_asked() -> None:
    """What the scanner padded plays no part in the fit."""
    _, bad, white = shaded()
    valid = np.ones(bad.array.shape, bool)
    valid[:, :, :6] = False
    padded = replace(bad, array=np.where(valid, bad.array, 30000).astype(np.float32), valid=valid)
    good = run_operator(n4, padded)
    assert spread(good, white) < spread(bad, white) / 3
    assert np.array_equal(good.valid, valid)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda v: replace(v, unit=HOUNSFIELD), {}, r"values are in \[hnsf'U\]"),
        (lambda v: replace(v, unit=Code("Bq/ml", "UCUM", "x")), {}, "MR images of arbitrary units only"),
        (lambda v: replace(v, array=np.zeros_like(v.array)), {}, "0 voxels above 0"),
        (
            lambda v: replace(v, array=v.array[9:10]),
            {},
            r"has 1 x 96 x 96 voxels .* needs 2 or more along each",
        ),
        (lambda v: replace(v, array=v.array[:, 40:41]), {}, r"has 20 x 1 x 96 voxels"),
        (lambda v: v, {"shrink": 0}, "shrink 0 is out of range: 1 to 16"),
        (lambda v: v, {"levels": 9}, "levels 9 is out of range"),
        (lambda v: v, {"iterations": 0}, "iterations 0 is out of range"),
    ],
)
def test_what_cannot_be_corrected_is_refused(change, options, words) -> None:  # type: ignore[no-untyped-def]
    """Measured values, empty images and impossible options are refused in words."""
    with pytest.raises(Refused, match=words):
        run_operator(n4, change(shaded()[1]), **options)


def test_few_slices_are_corrected_too() -> None:
    """A stack of two thick slices has no room along its axis; it is corrected all the same."""
    grid = Grid((2, 96, 96), (6.0, 2.5, 2.5))
    _, bad, white = shaded(grid)
    assert spread(run_operator(n4, bad), white) < spread(bad, white) / 2


def test_two_slices_are_enough() -> None:
    """The least that is not refused is corrected: two slices, with finite values."""
    _, bad, white = shaded()
    thin, where = replace(bad, array=bad.array[9:11]), white[9:11]
    good = run_operator(n4, thin)
    assert np.isfinite(good.array).all()
    assert spread(good, where) < spread(thin, where)


def test_no_units_in_other_words() -> None:
    """(1, UCUM) means no units whatever its meaning is called."""
    bad = shaded()[1]
    found = run_operator(n4, replace(bad, unit=Code("1", "UCUM", "Unity")), iterations=1, levels=1)
    assert np.array_equal(found.array, run_operator(n4, bad, iterations=1, levels=1).array)
