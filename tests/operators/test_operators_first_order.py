"""First-order statistics against the digital phantom of the Image Biomarker Standardisation Initiative."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from node.operator import NO_UNITS, Code, Mask, Refused, Report, Segments, StoredSegment, Volume, affine_of
from node.operators.first_order import FEATURES, features, first_order, first_order_segments, squared
from node.testing import ball_mask, run_operator, sphere_volume
from node.testing.phantoms import HOUNSFIELD, Grid

# theibsi/data_sets 6da96021, ibsi_1_digital_phantom (Zwanenburg; CC BY 4.0): 5 x 4 x 4 voxels of 2 mm, slice by slice.
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [1, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 1, 1, 1], [1, 1, 9, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ],
    np.float32,
)
OUTSIDE = ((1, 2, 0), (2, 0, 3), (2, 0, 4), (2, 2, 2), (3, 0, 3), (3, 0, 4))
"""The voxels that are not of the region; 9 is the intensity of the excluded one inside."""
# IBSI reference manual (arXiv:1612.07003v11), section 3.3: the digital phantom's reference values, to the digits given.
REFERENCE = {
    "mean": (2.15, 2), "variance": (3.05, 2), "skewness": (1.08, 2), "kurtosis": (-0.355, 3), "median": (1, 0),
    "minimum": (1, 0), "p10": (1, 0), "p90": (4, 0), "maximum": (6, 0), "iqr": (3, 0), "range": (5, 0),
    "mad": (1.55, 2), "rmad": (1.11, 2), "medad": (1.15, 2), "cov": (0.812, 3), "qcod": (0.6, 1),
    "energy": (567, 0), "rms": (2.77, 2),
}  # fmt: skip
AFFINE = affine_of(np.zeros(3), np.array([[0, 0, 1.0], [0, 1, 0], [1, 0, 0]]), np.full(3, 2.0))
LESION = Code("52988006", "SCT", "Lesion")
MORPHOLOGY = Code("49755003", "SCT", "Morphologically Altered Structure")


def phantom() -> tuple[Volume, Mask]:
    """The phantom and its region."""
    inside = np.ones(PHANTOM.shape, bool)
    for place in OUTSIDE:
        inside[place] = False
    mask = Mask(inside, AFFINE, "Lesion", MORPHOLOGY, LESION, stored=StoredSegment("1.2", 3))
    return Volume(PHANTOM, AFFINE, HOUNSFIELD, facts={"frame_of_reference": "1.2.3"}), mask


def by_code(report: Report) -> dict[str, float]:
    """The numbers of a report by the value of their code."""
    return {m.name.value: m.value for m in report.measurements}


@pytest.mark.parametrize("name", list(REFERENCE))
def test_the_digital_phantom(name: str) -> None:
    """Each of the 18 features is the reference value of the manual, to all its digits, under its identifier."""
    found = by_code(run_operator(first_order, *phantom()))
    value, digits = REFERENCE[name]
    assert round(found[FEATURES[name].value], digits) == value


def test_numbers_say_what_they_are() -> None:
    """Unit, method and region of each; squares have the square of the unit, ratios none; the volume is 74 voxels'."""
    volume, mask = phantom()
    report = first_order(volume, mask)
    assert set(by_code(report)) == {code.value for code in FEATURES.values()} | {"118565006"}
    assert by_code(report)["118565006"] == pytest.approx(74 * 8.0)
    units = {m.name.value: m.unit.value for m in report.measurements}
    assert units["Q4LE"] == units["8DWT"] == "[hnsf'U]"
    assert units["ECT3"] == units["N8CA"] == "[hnsf'U]2"
    assert units["KE2A"] == units["9S40"] == "1"
    assert all(m.region is mask for m in report.measurements)
    assert {m.method.value for m in report.measurements if m.method} == {"UHIW", "126030"}
    assert report.remarks == ()
    assert squared(Code("g/ml{SUVbw}", "UCUM", "SUV")).value == "g/ml{SUVbw}.g/ml{SUVbw}"
    assert squared(NO_UNITS) == NO_UNITS


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-2000, 4000, width=32), min_size=3, max_size=400))
def test_moments_and_percentiles_as_scipy_and_numpy_have_them(listed: list[float]) -> None:
    """Over any values; the moments by scipy, the percentiles by numpy, both in double precision."""
    values = np.array(listed, np.float32)
    exact = values.astype(np.float64)
    found = features(values)
    scale = max(1.0, float(np.abs(exact).max()))
    assert found["mean"] == pytest.approx(exact.mean(), abs=1e-9 * scale)
    assert found["variance"] == pytest.approx(exact.var(), rel=1e-9, abs=1e-9)
    for percent, name in ((10, "p10"), (50, "median"), (90, "p90")):
        assert found[name] == pytest.approx(np.percentile(exact, percent), abs=1e-9 * scale)
    assert found["minimum"] == exact.min()
    assert found["maximum"] == exact.max()
    if exact.std() > 1e-3 * scale:  # else scipy itself warns of lost digits
        assert found["skewness"] == pytest.approx(stats.skew(exact), rel=1e-6, abs=1e-6)
        assert found["kurtosis"] == pytest.approx(stats.kurtosis(exact), rel=1e-6, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-1000, 3000), min_size=12, max_size=60), st.integers(-500, 500))
def test_a_shift_moves_places_and_leaves_spreads(listed: list[int], shift: int) -> None:
    """Adding a number to every value adds it to mean and percentiles, and leaves the deviations as they are."""
    before, after = features(np.array(listed, float)), features(np.array(listed, float) + shift)
    for name in ("mean", "median", "minimum", "p10", "p90", "maximum"):
        assert after[name] == pytest.approx(before[name] + shift, abs=1e-9)
    for name in ("variance", "skewness", "kurtosis", "iqr", "range", "mad", "rmad", "medad"):
        assert after.get(name) == pytest.approx(before.get(name), rel=1e-6, abs=1e-6)


def test_more_values_than_are_taken_at_once() -> None:
    """Three million values, in parts, are as exact as in one go."""
    values = np.random.default_rng(1).gamma(2.0, 100.0, 3_000_000).astype(np.float32)
    exact, found = values.astype(np.float64), features(values)
    assert found["mean"] == pytest.approx(exact.mean(), rel=1e-12)
    assert found["kurtosis"] == pytest.approx(stats.kurtosis(exact), rel=1e-10)
    inside = exact[(exact >= np.percentile(exact, 10)) & (exact <= np.percentile(exact, 90))]
    assert found["rmad"] == pytest.approx(np.abs(inside - inside.mean()).mean(), rel=1e-12)
    assert found["energy"] == pytest.approx((exact**2).sum(), rel=1e-12)


def test_one_value_has_no_spread() -> None:
    """Skewness and kurtosis of a variance of 0 are 0, as the manual says; a division by 0 is left out and remarked."""
    volume, mask = phantom()
    report = run_operator(first_order, replace(volume, array=np.zeros_like(PHANTOM)), mask)
    found = by_code(report)
    assert found["KE2A"] == found["IPH6"] == found["ECT3"] == found["1128"] == 0
    assert "7TET" not in found
    assert "9S40" not in found
    assert [remark.text for remark in report.remarks] == [
        "Lesion: Intensity-based coefficient of variation is left out: it would be a division by 0",
        "Lesion: Intensity-based quartile coefficient of dispersion is left out: it would be a division by 0",
    ]


def test_what_does_not_count_is_counted() -> None:
    """Padding, and values beyond the limits, are left out; how many, the report says; none left is refused."""
    volume, mask = phantom()
    valid = np.ones(PHANTOM.shape, bool)
    valid[0, 0, :2] = False
    found = by_code(first_order(replace(volume, valid=valid), mask, at_least=2, at_most=5))
    assert found["NOTMEASURED"] == 2
    kept = PHANTOM[mask.array & valid]
    kept = kept[(kept >= 2) & (kept <= 5)]
    assert found["RESEGMENTED"] == 72 - kept.size
    assert found["Q4LE"] == pytest.approx(float(kept.astype(float).mean()))
    with pytest.raises(
        Refused, match="none of the 74 values of the region Lesion lies between at_least and at_most"
    ):
        first_order(volume, mask, at_least=7)
    with pytest.raises(Refused, match="none of its 74 voxels was measured"):
        first_order(replace(volume, valid=np.zeros(PHANTOM.shape, bool)), mask)
    with pytest.raises(Refused, match="it is empty"):
        first_order(volume, replace(mask, array=np.zeros_like(mask.array)))
    with pytest.raises(Refused, match="another grid"):
        first_order(volume, replace(mask, array=mask.array[1:]))


def test_arbitrary_intensities_are_remarked() -> None:
    """IBSI: they are not meaningful then; they are given, and the report says so."""
    volume, mask = phantom()
    report = first_order(replace(volume, unit=NO_UNITS), mask)
    assert [remark.text for remark in report.remarks] == [
        "the intensities have no unit: what they say of one image does not hold for another"
    ]


def test_every_segment_of_a_segmentation() -> None:
    """One group of numbers each, of the segment it is; one that cannot be measured becomes a remark."""
    frame = {"frame_of_reference": "1"}
    volume = replace(sphere_volume(Grid((12, 20, 16), (4.0, 2.0, 2.5)), radius=12.0), facts=frame)
    inside, around = ball_mask(volume, 8.0, label="In"), ball_mask(volume, 18.0, label="Around")
    nothing = replace(inside, array=np.zeros_like(inside.array), label="Nothing")
    report = run_operator(
        first_order_segments, volume, Segments((inside, around, nothing), {"frame_of_reference": "1"})
    )
    values = {(m.region.label, m.name.value): m.value for m in report.measurements}
    assert values["In", "Q4LE"] == 100.0
    expected: NDArray[np.float64] = volume.array[around.array].astype(np.float64)
    assert values["Around", "Q4LE"] == pytest.approx(expected.mean())
    assert values["Around", "118565006"] == pytest.approx(expected.size * volume.voxel_volume)
    said = "Nothing: the region Nothing cannot be measured: it is empty"
    assert [remark.text for remark in report.remarks] == [said]
    with pytest.raises(Refused, match=said):
        first_order_segments(volume, Segments((nothing,), frame))


def test_a_report_points_at_segments_on_the_grid_of_the_image() -> None:
    """They are the regions of the numbers themselves; what was brought onto the grid is kept no larger than it is."""
    frame = {"frame_of_reference": "1"}
    volume = replace(sphere_volume(Grid((12, 20, 16), (4.0, 2.0, 2.5)), radius=12.0), facts=frame)
    inside = ball_mask(volume, 8.0, label="In")
    here = first_order_segments(volume, Segments((inside,), frame))
    assert all(m.region is inside for m in here.measurements)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0]
    part = replace(inside, array=inside.array[1:], affine=affine)
    there = first_order_segments(volume, Segments((part,), frame))
    assert [m.value for m in there.measurements] == [m.value for m in here.measurements]
    (region,) = {id(m.region): m.region for m in there.measurements}.values()
    assert region is not None
    assert region.array.shape < part.array.shape
    assert np.array_equal(_points(region), _points(inside))


def _points(mask: Mask) -> NDArray[np.float64]:
    """Where the voxels of a mask lie, mm."""
    places: NDArray[np.float64] = np.argwhere(mask.array) @ mask.affine[:3, :3].T + mask.origin
    return np.round(places, 6)
