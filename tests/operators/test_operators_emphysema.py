"""Emphysema against a chest of which it is known how much is darker than -950 HU, and every refusal in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.operator import Mask, Measurement, Refused, Report, Segments, Volume, affine_of
from node.operators.codes import ANATOMY, BOTH, LAA, LEFT, LUNG, PERC15, RIGHT
from node.operators.ct.emphysema import emphysema
from node.operators.ct.kernels import SHARP, SMOOTH, matching
from node.operators.ct.lungs import segment_lungs
from node.testing import HOUNSFIELD, Chest, Grid, chest_volume, run_operator

FINE = Grid(shape=(165, 90, 120), spacing=(1.5, 2.8, 2.8))
FACTS: dict[str, Any] = {
    "modality": "CT", "slice_thickness": 1.5, "kvp": 120.0, "convolution_kernel": "STANDARD", "contrast": "",
    "frame_of_reference": "1.2.3",
}  # fmt: skip
AXIAL = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])


def told(volume: Volume, **changed: Any) -> Volume:
    """*volume* with what a native thin scan says of itself; None takes a fact away."""
    facts = {k: v for k, v in {**FACTS, **changed}.items() if v is not None}
    return replace(volume, facts=facts)


def by_lung(report: Report) -> dict[tuple[str, str], float]:
    """(whose, what) → value."""

    def whose(m: Measurement) -> str:
        if m.region is not None:
            return m.region.label
        assert (m.site, m.laterality) == (LUNG, BOTH)
        return "both"

    return {
        (whose(m), m.name.value if m.derivation is None else m.derivation.meaning): m.value
        for m in report.measurements
    }


def test_the_share_of_emphysema_is_that_of_the_phantom() -> None:
    """A cap of 30 % and one of 60 % of the lungs' height are emphysema: LAA-950 is their share of the ellipsoids.

    The share of a cap of height h (of a radius of 1) is h²(3-h)/4. The vessel, closed, is 0.5 % of the lung; edges
    and voxels of 2.8 mm add as much.
    """
    chest = Chest(diseased=(0.3, 0.6))
    volume = told(chest_volume(FINE, chest, noise=10))
    segments = run_operator(segment_lungs, volume)
    found = by_lung(run_operator(emphysema, volume, segments))
    assert found["Left lung", LAA.value] == pytest.approx(100 * chest.emphysema_share(0), abs=0.7)
    assert found["Right lung", LAA.value] == pytest.approx(100 * chest.emphysema_share(1), abs=0.7)
    assert found["both", LAA.value] == pytest.approx(
        (found["Left lung", LAA.value] + found["Right lung", LAA.value]) / 2, abs=0.1
    )
    for whose, factor in (("Left lung", 1), ("Right lung", 1), ("both", 2)):
        assert found[whose, "118565006"] == pytest.approx(factor * chest.lung_millilitres, rel=0.01)


def two_lungs(values: np.ndarray) -> tuple[Volume, Segments]:
    """The first and the last row of every slice are the lungs, with these values (slices, 2, columns)."""
    array = np.full((len(values), 5, values.shape[2]), 40.0, np.float32)
    array[:, 0], array[:, 4] = values[:, 0], values[:, 1]
    affine = affine_of(np.zeros(3), AXIAL, np.array([1.0, 0.5, 0.5]))
    volume = told(Volume(array, affine, HOUNSFIELD), slice_thickness=1.0)
    masks = []
    for row, label, side in ((0, "Left lung", LEFT), (4, "Right lung", RIGHT)):
        inside = np.zeros(array.shape, bool)
        inside[:, row] = True
        masks.append(Mask(inside, affine, label, ANATOMY, LUNG, laterality=side))
    return volume, Segments(tuple(masks), {"frame_of_reference": "1.2.3"})


@given(st.lists(st.integers(-1024, -400), min_size=20, max_size=20))
def test_the_numbers_are_counted(values: list[int]) -> None:
    """LAA-950 counts voxels below -950, not at it; Perc15 is the value that 15 % lie below (linear), HU as they are."""
    array = np.array(values, float).reshape(2, 2, 5)
    found = by_lung(run_operator(emphysema, *two_lungs(array)))
    assert found["both", LAA.value] == pytest.approx(100 * sum(v < -950 for v in values) / 20)
    ranked = sorted(values)
    at = 0.15 * 19
    low, part = int(at), at - int(at)
    assert found["both", PERC15.value] == pytest.approx(ranked[low] * (1 - part) + ranked[low + 1] * part)
    assert found["both", "Mean"] == pytest.approx(sum(values) / 20)
    assert found["both", "118565006"] == pytest.approx(20 * 0.25 / 1000)


def test_padding_does_not_count() -> None:
    """A voxel of -3024 HU in the lung that is not measured is neither dark nor any volume."""
    volume, segments = two_lungs(np.full((2, 2, 5), -800.0))
    array, valid = volume.array.copy(), np.ones(volume.array.shape, bool)
    array[:, 0, 0], valid[:, 0, 0] = -3024, False
    found = by_lung(run_operator(emphysema, replace(volume, array=array, valid=valid), segments))
    assert found["Left lung", LAA.value] == 0
    assert found["Left lung", PERC15.value] == -800
    assert found["Left lung", "118565006"] == pytest.approx(8 * 0.25 / 1000)


def test_how_it_was_made_stands_in_the_report() -> None:
    """Kernel, slice thickness and increment, tube voltage, and that no contrast was given."""
    volume, segments = two_lungs(np.full((2, 2, 5), -800.0))
    report = run_operator(emphysema, volume, segments)
    said = " ".join(remark.text for remark in report.remarks)
    for words in ("kernel STANDARD", "thickness 1 mm, one slice every 1 mm", "voltage 120 kV", "No contrast"):
        assert words in said


def test_a_lung_partly_outside_the_image_is_told() -> None:
    """A segmentation of a wider scan: its lungs' volume is that of the part in the image, and the report says so."""
    volume, segments = two_lungs(np.full((2, 2, 5), -800.0))
    narrow = replace(volume, array=volume.array[:, :, :4])
    report = run_operator(emphysema, narrow, segments)
    said = [remark.text for remark in report.remarks if remark.missing]
    outside = "20 % of it lie outside the image and were not measured."
    assert said == [f"Left lung: {outside}", f"Right lung: {outside}"]


def test_an_airway_that_was_not_found_is_told() -> None:
    """Its air would count as emphysema: who reads the numbers is told; nothing is said where it was left out."""
    volume, segments = two_lungs(np.full((2, 2, 5), -800.0))
    for found, told_ in (("not found", True), ("left out", False)):
        known = replace(segments, facts={**segments.facts, "airways": found})
        said = " ".join(remark.text for remark in run_operator(emphysema, volume, known).remarks)
        assert ("Trachea and main bronchi were not found" in said) is told_


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"contrast": "Iomeron 400"}, r"contrast was given \(Iomeron 400\)"),
        ({"contrast": None}, "whether contrast was given is unknown"),
        ({"slice_thickness": 1.6}, "slices of 1.6 mm are too thick"),
        ({"slice_thickness": None}, "Slice Thickness is not stated"),
        ({"slice_thickness": 0.6}, "slices of 0.6 mm every 1 mm leave gaps"),
        ({"convolution_kernel": "B70f"}, r"kernel B70f is a sharp one \(B7\?\* in"),
        ({"convolution_kernel": "LUNG"}, "kernel LUNG is a sharp one"),
        ({"convolution_kernel": "I70f\\3"}, "is a sharp one"),
        ({"convolution_kernel": None}, "Convolution Kernel is not stated"),
        ({"convolution_kernel": "Xq17"}, "kernel Xq17 is on neither list"),
    ],
)
def test_what_would_not_be_comparable_is_refused(changed: dict[str, Any], words: str) -> None:
    """Contrast, thick slices, gaps and kernels that sharpen: refused in words, never a number."""
    volume, segments = two_lungs(np.full((2, 2, 5), -800.0))
    with pytest.raises(Refused, match=words):
        run_operator(emphysema, told(volume, **{"slice_thickness": 1.0, **changed}), segments)


def test_a_site_has_its_own_lists() -> None:
    """What a site names as smooth is measured, what it names as sharp is not, whatever the lists of the node."""
    volume, segments = two_lungs(np.full((2, 2, 5), -800.0))
    ours = told(volume, slice_thickness=1.0, convolution_kernel="Xq17")
    assert run_operator(emphysema, ours, segments, smooth_kernels="STANDARD, xq*").measurements
    with pytest.raises(Refused, match="sharp one"):
        run_operator(emphysema, volume, segments, sharp_kernels="ST*")


@pytest.mark.parametrize(
    ("kernel", "sharp", "smooth"),
    [
        ("B31f", False, True), ("B45f", True, False), ("B60s", True, False), ("Br40d\\3", False, True),
        ("Br64f", True, False), ("Bl57d", True, False), ("I31f\\2", False, True), ("STANDARD", False, True),
        ("BONEPLUS", True, False), ("EDGE", True, False), ("SOFT", False, True), ("B", False, True),
        ("YC", True, False), ("D", True, False), ("FC01", False, True), ("FC51", True, False),
        ("Hr40f", False, False), ("1", False, False),
    ],
)  # fmt: skip
def test_the_lists_of_the_node(kernel: str, sharp: bool, smooth: bool) -> None:
    """Kernels of Siemens, GE, Philips and Canon by name; what is on no list is unknown, not smooth."""
    assert (bool(matching(kernel, SHARP)), bool(matching(kernel, SMOOTH))) == (sharp, smooth)


def test_lungs_that_were_cut_off_are_refused() -> None:
    """Lungs that go on above the first slice have no volume of their own: which slice, and how much, is told."""
    chest = Chest()
    whole = chest_volume(FINE, chest)
    cut = told(replace(whole, array=whole.array[40:], affine=whole.affine))
    segments = run_operator(segment_lungs, cut)
    with pytest.raises(Refused, match=r"not imaged as a whole: [0-9.]+ cm² of them lie in the first slice"):
        run_operator(emphysema, cut, segments)


def test_a_segmentation_without_two_lungs_is_refused() -> None:
    """One lung, or lungs without side: told with what there is."""
    volume, segments = two_lungs(np.full((2, 2, 5), -800.0))
    one = replace(segments, masks=segments.masks[:1])
    with pytest.raises(Refused, match=r"has no segments that are right lung \(Left lung\)"):
        run_operator(emphysema, volume, one)
    sideless = replace(segments, masks=tuple(replace(m, laterality=None) for m in segments.masks))
    with pytest.raises(Refused, match="has no segments that are left lung"):
        run_operator(emphysema, volume, sideless)
