"""Calcium scores against cylinders and pixels whose score was worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.model import Code
from node.operator import Mask, Refused, Report, Volume, affine_of
from node.operators.codes import AGATSTON_SCALED, ANATOMY
from node.operators.ct.calcium import AGATSTON, calcium_score
from node.testing import HOUNSFIELD, run_operator

AXIAL = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
HEART = Code("80891009", "SCT", "Heart")
NATIVE: dict[str, Any] = {
    "modality": "CT", "kvp": 120.0, "contrast": "", "slice_thickness": 3.0, "convolution_kernel": "B35f",
}  # fmt: skip


def heart(
    array: Any, spacing: tuple[float, float, float] = (3, 0.5, 0.5), **facts: Any
) -> tuple[Volume, Mask]:
    """A native scan of 120 kV in 3 mm slices, and all of it as the region; None takes a fact away."""
    affine = affine_of(np.zeros(3), AXIAL, np.array(spacing, float))
    said = {k: v for k, v in {**NATIVE, **facts}.items() if v is not None}
    volume = Volume(np.asarray(array, np.float32), affine, HOUNSFIELD, facts=said)
    return volume, Mask(np.ones(volume.array.shape, bool), affine, "Heart", ANATOMY, HEART)


def numbers(report: Report) -> dict[str, float]:
    """By the number's name."""
    return {m.name.meaning: m.value for m in report.measurements}


def said(report: Report) -> str:
    """All sentences."""
    return " ".join(remark.text for remark in report.remarks)


def cylinders() -> np.ndarray:
    """Four slices of 3 mm, pixels of 0.5 mm; squares of 4 x 4 pixels (4 mm²), each over two slices.

    Peaks 130, 250, 399 and 400 HU: weights 1, 2, 3 and 4.
    """
    array = np.full((4, 40, 40), 40.0)
    for number, peak in enumerate((130, 250, 399, 400)):
        array[1:3, 4:8, 4 + 8 * number : 8 + 8 * number] = peak
    return array


def test_the_score_of_four_cylinders() -> None:
    """4 mm² in 2 slices with the weights 1 + 2 + 3 + 4: 80; their volume is 4 · 4 mm² · 6 mm = 96 mm³."""
    report = run_operator(calcium_score, *heart(cylinders()))
    assert numbers(report) == pytest.approx({"Calcium score": 80.0, "Calcium Volume": 96.0})
    assert report.measurements[0].method == AGATSTON
    assert {m.region.label for m in report.measurements if m.region} == {"Heart"}
    assert "Candidate calcium in Heart" in said(report)
    assert "No mass: the scanner's calibration" in said(report)


def test_the_mass_by_calibration() -> None:
    """0.8 mg/ml per HU: 24 mm³ each of 130, 250, 399 and 400 HU are 0.8 · 0.024 · 1179 = 22.6368 mg."""
    report = run_operator(calcium_score, *heart(cylinders()), calibration=0.8)
    assert numbers(report)["Calcium Mass"] == pytest.approx(22.6368)
    assert "calibration of 0.8 mg/ml per HU" in said(report)


def test_the_weight_is_that_of_the_peak() -> None:
    """One bright pixel lifts the whole piece it belongs to in its slice, and only there."""
    array = np.full((2, 12, 12), 40.0)
    array[:, 2:6, 2:6] = 150
    array[0, 3, 3] = 410
    report = run_operator(calcium_score, *heart(array))
    assert numbers(report)["Calcium score"] == 4 * 4 + 4 * 1


def test_what_is_small_or_joined_by_a_corner_does_not_count() -> None:
    """3 pixels of 0.25 mm² are 0.75 mm²: too small; 4 make the 1 mm² that counts. A corner joins nothing."""
    array = np.full((1, 12, 12), 40.0)
    array[0, 1, 1:4] = 500
    array[0, 2, 4] = 500  # touches by a corner
    array[0, 8, 2:6] = 130
    array[0, 10, 2:6] = 129.9
    report = run_operator(calcium_score, *heart(array))
    assert numbers(report) == pytest.approx({"Calcium score": 1.0, "Calcium Volume": 3.0})


def test_only_the_region_counts() -> None:
    """Bone outside the region, and padding within it, are not calcium."""
    volume, mask = heart(cylinders())
    inside = np.zeros(mask.array.shape, bool)
    inside[:, :, :10] = True
    valid = np.ones(mask.array.shape, bool)
    valid[2] = False
    report = run_operator(calcium_score, replace(volume, valid=valid), replace(mask, array=inside))
    assert numbers(report) == pytest.approx({"Calcium score": 4.0, "Calcium Volume": 12.0})


def test_nothing_bright_scores_zero() -> None:
    """A score of 0 is a result, not a refusal."""
    assert numbers(run_operator(calcium_score, *heart(np.full((2, 8, 8), 40.0)))) == {
        "Calcium score": 0.0,
        "Calcium Volume": 0.0,
    }


def test_another_increment_is_an_approximation_and_says_so() -> None:
    """2.5 mm slices: 80 · 2.5/3 = 66.67, under a method and with a sentence that call it approximate."""
    report = run_operator(calcium_score, *heart(cylinders(), (2.5, 0.5, 0.5), slice_thickness=2.5))
    assert numbers(report)["Calcium score"] == pytest.approx(80 * 2.5 / 3)
    assert report.measurements[0].method == AGATSTON_SCALED
    assert "multiplied by 0.8333" in said(report)
    assert "approximat" in AGATSTON_SCALED.meaning


@pytest.mark.parametrize(
    ("spacing", "facts", "words"),
    [
        (3, {"kvp": 100.0}, "the tube voltage was 100 kV"),
        (3, {"kvp": None}, "the tube voltage is not stated"),
        (3, {"contrast": "Ultravist"}, r"contrast was given (Ultravist)"),
        (3, {"contrast": None}, "do not say whether contrast was given"),
        (1, {"slice_thickness": 1.0}, "slices of 2.5 to 3 mm, and these have 1 mm"),
        (5, {"slice_thickness": 5.0}, "these have 5 mm"),
        (3, {"slice_thickness": None}, "Slice Thickness is not stated"),
        (5, {"slice_thickness": 3.0}, "slices of 3 mm every 5 mm leave gaps"),
    ],
)
def test_without_its_conditions_there_is_no_agatston_score(
    spacing: float, facts: dict[str, Any], words: str
) -> None:
    """Only the volume is given then, and a sentence says why there is no score."""
    report = run_operator(calcium_score, *heart(cylinders(), (spacing, 0.5, 0.5), **facts))
    assert set(numbers(report)) == {"Calcium Volume"}
    assert "No Agatston score: " in said(report)
    assert words in said(report)


@given(st.integers(0, 2**32 - 1))
def test_the_score_is_that_of_plain_counting(seed: int) -> None:
    """On random pixels the score is the sum over pieces that a walk from pixel to pixel finds."""
    random = np.random.default_rng(seed)
    array = random.choice([40.0, 135.0, 220.0, 390.0, 450.0], (1, 9, 9), p=[0.6, 0.1, 0.1, 0.1, 0.1])
    expected, volume = 0.0, 0.0
    left = {(int(r), int(c)) for r, c in np.argwhere(array[0] >= 130)}
    while left:
        piece, edge = set(), {left.pop()}
        while edge:
            r, c = edge.pop()
            piece.add((r, c))
            near = {(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)} & left
            left -= near
            edge |= near
        if len(piece) * 0.25 >= 1:
            peak = max(array[0][at] for at in piece)
            expected += len(piece) * 0.25 * (1 + (peak >= 200) + (peak >= 300) + (peak >= 400))
            volume += len(piece) * 0.75
    found = numbers(run_operator(calcium_score, *heart(array)))
    assert found["Calcium score"] == pytest.approx(expected)
    assert found["Calcium Volume"] == pytest.approx(volume)


def test_what_cannot_be_measured_is_refused() -> None:
    """An empty region, another grid, other units and a calibration below 0."""
    volume, mask = heart(cylinders())
    with pytest.raises(Refused, match="the region Heart holds no measured voxel"):
        run_operator(calcium_score, volume, replace(mask, array=np.zeros(mask.array.shape, bool)))
    with pytest.raises(Refused, match="another grid"):
        run_operator(calcium_score, volume, replace(mask, affine=mask.affine + np.eye(4)))
    with pytest.raises(Refused, match="Hounsfield"):
        run_operator(calcium_score, replace(volume, unit=Code("1", "UCUM", "no units")), mask)
    with pytest.raises(Refused, match="greater than 0"):
        run_operator(calcium_score, volume, mask, calibration=-1.0)
