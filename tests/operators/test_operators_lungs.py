"""Lungs against a chest whose lungs, airways and vessels are known in millimetres."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import peers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.model import Code
from node.operator import Mask, Refused, Segments, Volume
from node.operators.ct.halves import _cheapest
from node.operators.ct.lungs import segment_lungs
from node.operators.segment import segment_body
from node.read.volume import load
from node.testing import Chest, Grid, body_volume, chest_volume, run_operator, sphere_volume

GRID = Grid(shape=(100, 100, 130), spacing=(2.5, 2.5, 2.5))


def millilitres(mask: Mask) -> float:
    """Of all its voxels."""
    return float(np.count_nonzero(mask.array)) * mask.voxel_volume / 1000


def lungs(volume: Volume, **options: float) -> tuple[Mask, Mask]:
    """Left and right, as a rule gets them."""
    found = run_operator(segment_lungs, volume, **options)
    assert isinstance(found, Segments)
    left, right = found.masks
    return left, right


@pytest.mark.parametrize(
    ("chest", "tolerance"),
    [
        (Chest(), 0.01),
        (Chest(trachea=0), 0.01),
        (Chest(vessel=3.9), 0.01),  # as thick as the ball that closes is wide
        (Chest(field=165.0), 0.01),
        (Chest(parenchyma=-700, diseased=(0.3, 0.6)), 0.01),
        (Chest(apart=46.5), 0.02),  # the two overlap by 3 mm over 35 x 52 mm
        (Chest(body=(80, 60), lung=(22, 30, 45), apart=28, trachea=4), 0.03),  # a small child
    ],
    ids=["plain", "no airway", "vessels", "padding", "emphysema", "fused", "child"],
)
def test_both_lungs_have_the_volume_of_their_ellipsoids(chest: Chest, tolerance: float) -> None:
    """Each lung measures 4/3·π·abc: its vessel belongs to it, trachea, bronchi, table foam and air outside do not.

    On 2.5 mm voxels counting centres errs by about 0.3 %; the bronchi end up to 2 ml within a lung.
    """
    left, right = lungs(chest_volume(GRID, chest, noise=15), at_least=50)
    for mask in (left, right):
        assert millilitres(mask) == pytest.approx(chest.lung_millilitres, rel=tolerance)
    assert not (left.array & right.array).any()


def test_they_say_what_they_are() -> None:
    """Both are Lung with their side; left is where the patient's left is, whichever way the columns run."""
    volume = chest_volume(GRID)
    mirrored = replace(volume, array=volume.array[::-1, :, ::-1].copy(), affine=_turned(volume))
    for source in (volume, mirrored):
        left, right = lungs(source)
        assert left.type.value == right.type.value == "39607008"
        assert (left.laterality, right.laterality) == (
            Code("7771000", "SCT", "Left"),
            Code("24028007", "SCT", "Right"),
        )
        for mask, sign in ((left, 1), (right, -1)):
            middle = (mask.affine @ [*np.argwhere(mask.array).mean(axis=0), 1])[:3]
            assert middle[0] == pytest.approx(sign * Chest().apart, abs=1.0)


def _turned(volume: Volume) -> np.ndarray:
    """The affine of *volume* with its slices and columns counted from the other end."""
    affine = volume.affine.copy()
    for axis in (0, 2):
        affine[:3, 3] += affine[:3, axis] * (volume.array.shape[axis] - 1)
        affine[:3, axis] *= -1
    return affine


def test_the_airway_is_no_lung() -> None:
    """No voxel of the trachea's or a main bronchus' lumen is lung, where voxels are smaller than its wall."""
    fine = Grid(shape=(150, 204, 250), spacing=(1.5, 1.25, 1.25))
    left, right = lungs(chest_volume(fine))
    x, y, z = fine.coordinates()
    trachea = (np.hypot(x, y) <= 7) & (z >= 17)
    bronchus = (np.hypot((np.abs(x) + z - 20) / np.sqrt(2), y) <= 4) & (np.abs(x) < 13) & (z < 20)
    both = left.array | right.array
    assert np.count_nonzero(trachea) * np.count_nonzero(bronchus) > 0
    assert np.count_nonzero(both & trachea) == 0
    assert np.count_nonzero(both & bronchus) == 0


def test_a_gap_in_the_airways_wall_is_no_end() -> None:
    """Where a bronchus opens into the lung, its darker lumen is followed on, and the lung stays lung."""
    fine = Grid(shape=(150, 204, 250), spacing=(1.5, 1.25, 1.25))
    volume = chest_volume(fine, noise=10)
    x, y, z = fine.coordinates()
    array = volume.array.copy()
    tube = (
        np.hypot(x - 9, y - 5) < 6
    )  # a bronchus straight down beside the left lung, through a hole to below it
    wall = np.hypot(x - 9, y - 5) < 8
    array[wall & (z < 25) & (z > -40)] = 40.0
    array[(x > 9) & (x < 40) & (np.abs(y - 5) < 5) & (z < -5) & (z > -12)] = -860.0
    array[tube & (z < 25) & (z > -40)] = -1000.0
    left, right = lungs(replace(volume, array=array))
    both = left.array | right.array
    inner = (np.hypot(x - 9, y - 5) < 5) & (z < 15) & (z > -38)
    assert np.count_nonzero(both & inner) < 0.02 * np.count_nonzero(inner)
    assert millilitres(left) == pytest.approx(Chest().lung_millilitres, rel=0.02)


@given(st.integers(0, 2**32 - 1))
def test_the_cut_is_the_cheapest(seed: int) -> None:
    """Among all paths that move by at most two columns a row, none costs less."""
    cost = np.random.default_rng(seed).integers(0, 9, (1, 4, 5)).astype(np.float32)
    cut = _cheapest(cost)[0]
    assert np.abs(np.diff(cut)).max() <= 2
    paths = [p for p in product(range(5), repeat=4) if max(abs(a - b) for a, b in pairwise(p)) <= 2]
    least = min(sum(cost[0, row, at] for row, at in enumerate(path)) for path in paths)
    assert sum(cost[0, row, at] for row, at in enumerate(cut)) == least


def test_lungs_that_touch_are_cut_at_the_membrane() -> None:
    """A sheet 3 mm thin and no brighter than -550 HU, 15 mm off the middle, is where they are parted."""
    volume = chest_volume(GRID, Chest(apart=46.5), noise=10)
    x, y, z = GRID.coordinates()
    array = volume.array.copy()
    joined = (np.abs(x) < 30) & (np.abs(y + 20) < 20) & (np.abs(z) < 40)
    array[joined] = -860.0
    array[joined & (np.abs(x - 15) < 1.5)] = -550.0
    left, right = lungs(replace(volume, array=array))
    beyond = (left.array & joined & (x < 12)) | (right.array & joined & (x > 18))
    assert np.count_nonzero(beyond) < 0.01 * np.count_nonzero(joined)


def test_the_bases_of_real_lungs() -> None:
    """GE chest CT with table, electrodes and padding: all dark voxels within the chest are lung, nothing else is."""
    volume = load(sorted(peers.need_samples("CT", "crlm-1004-chest-abdomen").glob("*"))).value
    left, right = lungs(volume)
    both = left.array | right.array
    body = segment_body(volume).array
    dark = body & (volume.array < -600)
    assert np.count_nonzero(dark & ~both) < 0.002 * np.count_nonzero(dark)
    assert np.count_nonzero(both & (volume.array > -300)) < 0.05 * np.count_nonzero(both)
    assert (millilitres(left), millilitres(right)) == (pytest.approx(385, abs=5), pytest.approx(555, abs=5))


def test_vessels_stay_out_without_closing() -> None:
    """With `close: 0` the lungs are the dark voxels alone: less by the vessel's πr²·2c·√(1-0.35²)."""
    chest = Chest(vessel=3.0, trachea=0)
    left, _ = lungs(chest_volume(GRID, chest), close=0)
    vessel = np.pi * chest.vessel**2 * 2 * chest.lung[2] * np.sqrt(1 - 0.35**2) / 1000
    assert chest.lung_millilitres - millilitres(left) == pytest.approx(vessel, abs=2.5)


def test_padding_is_never_lung() -> None:
    """A field of view that cuts nothing of the lungs, but pads the corners with -3024 HU, changes no voxel."""
    plain, padded = (lungs(chest_volume(GRID, Chest(field=field))) for field in (0.0, 160.0))
    for one, other in zip(plain, padded, strict=True):
        assert np.array_equal(one.array, other.array)
    cut = chest_volume(GRID, Chest(apart=70))
    hole = cut.valid if cut.valid is not None else np.ones(cut.array.shape, bool)
    hole = hole.copy()
    hole[50:52, 45:50, 95:100] = False  # padding within the lung: a dead detector, a bad slice
    left, _ = lungs(replace(cut, valid=hole))
    assert not (left.array & ~hole).any()


def test_the_chest_of_the_demo() -> None:
    """Another phantom, with heart, liver and nodules: 10 mm nodules are closed, the 24 mm one is not.

    The truth is counted from its own labels: lung voxels of the noiseless phantom are those below -400 HU.
    """
    grid = Grid(shape=(60, 110, 110), spacing=(4.0, 3.0, 3.0))
    left, right = lungs(body_volume(grid))
    dark = body_volume(grid, noise=0.0).array < -400
    x, y, _ = grid.coordinates()
    dark &= np.hypot(x / 125, y / 80) < 1
    both = left.array | right.array
    assert np.count_nonzero(dark & ~both) < 0.002 * np.count_nonzero(dark)
    assert np.count_nonzero(both & ~dark) < 0.02 * np.count_nonzero(dark)
    assert both[tuple(np.rint(np.linalg.solve(grid.affine, [62, -22, 40, 1])[:3]).astype(int))] == 0


@settings(max_examples=8, deadline=None)
@given(st.floats(-650, -300), st.floats(0, 25))
def test_the_level_hardly_matters(air: float, noise: float) -> None:
    """Any level between tissue and lung gives the same lungs within 1.5 %, whatever the noise of a usual scan."""
    volume = chest_volume(Grid(shape=(60, 66, 86), spacing=(4, 4, 4)), noise=noise)
    for mask in lungs(volume, air=air):
        assert millilitres(mask) == pytest.approx(Chest().lung_millilitres, rel=0.015)


def test_the_same_to_the_bit() -> None:
    """Twice the same volume gives twice the same masks."""
    volume = chest_volume(GRID, Chest(apart=46.5), noise=20)
    for one, other in zip(lungs(volume), lungs(volume), strict=True):
        assert np.array_equal(one.array, other.array)


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (sphere_volume(Grid((40, 60, 60), (4, 4, 4)), radius=80, inside=40), "holds no voxel below -400 HU"),
        (replace(chest_volume(GRID), unit=Code("1", "UCUM", "no units")), "Hounsfield units"),
    ],
    ids=["solid", "unit"],
)
def test_what_has_no_lungs_is_refused(volume: Volume, words: str) -> None:
    """No air in the body, or no CT: refused with the reason."""
    with pytest.raises(Refused, match=words):
        lungs(volume)


def test_one_lung_only_is_refused() -> None:
    """A collapsed or missing lung: no pair, and the sizes that were found are told."""
    volume = chest_volume(GRID)
    array = volume.array.copy()
    array[GRID.coordinates()[0] > 12] = 40.0
    with pytest.raises(Refused, match=r"the right one only has 100 ml or more \(the largest: 14"):
        lungs(replace(volume, array=array))


def test_gas_in_the_belly_is_no_lung() -> None:
    """Two pieces of gas, as dark as air, are none, and neither is a lung with gas far below it for the other."""
    volume = chest_volume(GRID)
    gas = np.where((volume.array < -800) & (volume.array > -900), np.float32(-1000), volume.array)
    with pytest.raises(Refused, match="none has 100 ml"):
        lungs(replace(volume, array=gas))
    x, y, z = GRID.coordinates()
    array = volume.array.copy()
    array[(x > 12) & (z > -55)] = 40.0  # what is left of the left lung lies below the right one's middle
    array[(x < -12) & (z < -40) & (array < 0) & (np.hypot(x / 150, y / 110) < 0.9)] = 40.0
    with pytest.raises(Refused, match="do not lie beside each other"):
        lungs(replace(volume, array=array))


def test_two_pieces_of_stool_are_no_lungs() -> None:
    """Ascending and descending colon lie beside each other and are no darker than lung: too small for the body."""
    colon = Chest(lung=(22, 24, 90), apart=90, trachea=0, vessel=0, parenchyma=-700)
    with pytest.raises(Refused, match=r"take 6 % of the body's cross-section"):
        lungs(chest_volume(GRID, colon))


def test_other_planes_are_refused() -> None:
    """Lungs are sought in axial slices; a coronal stack is told what to do first."""
    coronal = Grid(shape=(50, 60, 60), spacing=(5, 5, 5), row=(1, 0, 0), column=(0, 0, -1))
    with pytest.raises(Refused, match="reformat"):
        lungs(chest_volume(coronal))


def test_a_patient_on_the_side_is_told_what_to_do() -> None:
    """Rows that run from front to back tell no left from right: refused before anything is divided by nothing."""
    aside = Grid(shape=(40, 60, 60), spacing=(5, 5, 5), row=(0, 1, 0), column=(-1, 0, 0))
    with pytest.raises(Refused, match=r"left and right cannot be told; `reformat"):
        lungs(chest_volume(aside))
