"""Flood uniformity against values worked out by hand, NEMA NU 1-2007 2.4.4 read aloud, and Poisson statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.operator import Picture, Refused, Report
from node.operators.nm.uniformity import (
    binned,
    fields_of,
    lit,
    measured,
    rectangle,
    shrunk,
    smoothed,
    uniformity,
)
from node.testing import flood_frames, nuclear_picture, run_operator

FULL = {"width": 20 * 6.4, "height": 20 * 6.4}


def flood(frames: Any, spacing: float | None = 6.4) -> Picture:
    """A flood image of one head."""
    return nuclear_picture(frames, spacing=spacing)


def values(report: Report, field: str) -> dict[str, float]:
    """Name → percent of one field."""
    return {
        m.name.meaning: m.value
        for m in report.measurements
        if m.site is not None and m.site.meaning.startswith(field)
    }


def by_the_book(counts: np.ndarray, useful: np.ndarray) -> tuple[float, float, float]:
    """Integral, X and Y differential uniformity over *useful*: the sentences of 2.4.4, pixel by pixel."""
    rows, columns = counts.shape
    smooth = np.zeros_like(counts)
    for r in range(rows):
        for c in range(columns):
            if not useful[r, c]:
                continue
            total = weight = 0.0
            for dr in (-1, 0, 1):
                for dc in (-1, 0, 1):
                    rr, cc = r + dr, c + dc
                    if 0 <= rr < rows and 0 <= cc < columns and useful[rr, cc]:
                        w = (2 - abs(dr)) * (2 - abs(dc))
                        total, weight = total + w * counts[rr, cc], weight + w
            smooth[r, c] = total / weight
    inside = smooth[useful]
    integral = 100 * (inside.max() - inside.min()) / (inside.max() + inside.min())
    found = []
    for values_, mask in ((smooth, useful), (smooth.T, useful.T)):
        worst = 0.0
        for line, kept in zip(values_, mask, strict=True):
            for n in range(len(line) - 4):
                five = line[n : n + 5]
                if kept[n : n + 5].all():
                    worst = max(worst, 100 * (five.max() - five.min()) / (five.max() + five.min()))
        found.append(worst)
    return integral, found[0], found[1]


def test_one_hot_pixel_is_a_quarter_of_itself() -> None:
    """1600 among 1000 is smoothed to (4 · 1600 + 12 · 1000) / 16 = 1150: both uniformities are 150 / 2150 = 6.977 %."""
    counts = np.full((1, 20, 20), 1000.0)
    counts[0, 10, 10] = 1600
    report = run_operator(uniformity, flood(counts), **FULL)
    for field in ("Useful", "Central"):
        found = values(report, field)
        assert found["Integral uniformity"] == pytest.approx(100 * 150 / 2150, abs=1e-9)
        assert found["Differential uniformity"] == pytest.approx(100 * 150 / 2150, abs=1e-9)
        assert found["Differential uniformity along rows"] == found["Differential uniformity along columns"]


def test_a_ramp_is_steep_along_its_direction_alone() -> None:
    """1000 + 10 · column, 20 columns: the central field goes from 1020 to 1170, its worst five from 1020 to 1060.

    In the interior a straight line smooths to itself. Of the 20 columns those are central of which half lies within
    2.5 … 17.5: columns 2 to 17.
    """
    ramp = np.tile(1000.0 + 10 * np.arange(20), (20, 1))[None]
    found = values(uniformity(flood(ramp), **FULL), "Central")
    assert found["Integral uniformity"] == pytest.approx(100 * 150 / (1020 + 1170))
    assert found["Differential uniformity along rows"] == pytest.approx(100 * 40 / (1020 + 1060))
    assert found["Differential uniformity along columns"] == pytest.approx(0, abs=1e-9)
    assert found["Differential uniformity"] == found["Differential uniformity along rows"]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_the_operator_is_the_standard_read_aloud(seed: int) -> None:
    """On random floods with a dent, integral and both differentials agree with the text, loop by loop."""
    counts = flood_frames((26, 32), field=(20, 24), mean=300, dent=0.3, seed=seed)[0]
    fields = fields_of(counts)
    for mask in (fields.useful, fields.central):
        smooth = smoothed(counts, fields.useful)
        found = measured(smooth, mask)
        inside = smooth[mask]
        assert found.integral == pytest.approx(100 * np.ptp(inside) / (inside.max() + inside.min()))
    found = measured(smoothed(counts, fields.useful), fields.useful)
    assert (found.integral, found.rows, found.columns) == pytest.approx(by_the_book(counts, fields.useful))


@pytest.mark.parametrize("seed", range(6))
def test_a_perfect_camera_has_the_uniformity_of_its_noise(seed: int) -> None:
    """Poisson counts of mean 12000, 42 x 58 pixels: the noise of the smoothed image is 0.375 / √12000 = 0.342 %.

    The weights of the filter have Σw² / (Σw)² = 36 / 256, hence 0.375. The extremes of some 2400 normal values lie
    about 3.4 ± 0.35 standard deviations out, correlated ones a little less: ± 1.0 to 1.5 %, and any five neighbours
    differ by less.
    """
    found = values(uniformity(flood(flood_frames(seed=seed))), "Useful")
    assert 0.85 < found["Integral uniformity"] < 1.6
    assert 0.5 < found["Differential uniformity"] < found["Integral uniformity"]
    central = values(uniformity(flood(flood_frames(seed=seed))), "Central")
    assert central["Integral uniformity"] <= found["Integral uniformity"]


def test_without_noise_a_perfect_camera_is_perfect() -> None:
    """All figures are 0."""
    report = uniformity(flood(flood_frames(seed=None)))
    assert [m.value for m in report.measurements] == [0.0] * 8


def test_a_drifting_tube_is_seen() -> None:
    """A dent of 10 % raises both figures beyond any noise."""
    found = values(uniformity(flood(flood_frames(dent=0.1))), "Central")
    assert 4.5 < found["Integral uniformity"] < 6
    assert found["Differential uniformity"] > 2.5


@given(st.floats(0.2, 5), st.sampled_from([0, 1, 2, 3]), st.booleans())
@settings(max_examples=15, deadline=None)
def test_figures_do_not_depend_on_scale_or_side(scale: float, turns: int, flip: bool) -> None:
    """More counts, a turned or mirrored detector: the same figures, rows and columns exchanged by a quarter turn."""
    base = flood_frames((40, 40), field=(30, 30), dent=0.2)
    changed = np.rot90(base * scale, turns, axes=(1, 2))
    changed = changed[:, :, ::-1] if flip else changed
    first, second = (values(uniformity(flood(f)), "Useful") for f in (base, changed))
    names = ["Differential uniformity along rows", "Differential uniformity along columns"]
    if turns % 2:
        names = names[::-1]
    assert second["Integral uniformity"] == pytest.approx(first["Integral uniformity"], rel=1e-4)
    assert second["Differential uniformity along rows"] == pytest.approx(first[names[0]], rel=1e-4)
    assert second["Differential uniformity along columns"] == pytest.approx(first[names[1]], rel=1e-4)


def test_the_central_field_is_three_quarters_of_the_useful_one() -> None:
    """44 x 60 shrink to 33 x 45, to pixels of which half lies inside; a disc stays a disc of 9/16 of its area."""
    useful = rectangle((64, 64), (44, 60), 1.0)
    assert useful.sum() == 44 * 60
    assert shrunk(useful).sum() == rectangle((64, 64), (44, 60), 0.75).sum() == 34 * 46 - 4
    rows, columns = np.indices((101, 101)) - 50
    disc = np.hypot(rows, columns) <= 40
    assert shrunk(disc).sum() / disc.sum() == pytest.approx(9 / 16, rel=0.02)


def test_edges_are_left_out_once() -> None:
    """The outer pixels of a field found in the image, and a half-lit rim before them, take no part."""
    counts = flood_frames(seed=None)[0]
    assert fields_of(counts).useful.sum() == 42 * 58
    rim = counts.copy()
    rim[10], rim[53] = 0.6 * 12000, 0.6 * 12000  # below 75 %: left out, and the rows beside them
    useful = fields_of(rim).useful
    assert not useful[11].any()
    assert useful[12, 4:60].all()


def test_a_dead_spot_inside_is_no_edge() -> None:
    """A pixel without counts in the middle stays in the analysis: it is what the test is for."""
    counts = flood_frames(seed=None)
    counts[0, 30, 30] = 0
    found = values(uniformity(flood(counts)), "Central")
    assert found["Integral uniformity"] == pytest.approx(100 * 0.25 / 1.75)


def test_small_pixels_are_summed_and_said() -> None:
    """Pixels of 1.6 mm are summed 4 x 4 to 6.4 mm, and give what the summed image gives."""
    small = np.repeat(np.repeat(flood_frames(seed=None, dent=0.2), 4, axis=1), 4, axis=2)
    fine, coarse = uniformity(flood(small, 1.6)), uniformity(flood(flood_frames(seed=None, dent=0.2)))
    assert [m.value for m in fine.measurements] == pytest.approx([m.value for m in coarse.measurements])
    assert any("4 x 4 of them summed to 6.4 mm" in remark.text for remark in fine.remarks)
    assert binned(np.ones((9, 10)), 4).tolist() == [[16, 16], [16, 16]]


def test_pixels_out_of_range_and_few_counts_are_said() -> None:
    """4.418 mm is not within 6.4 mm ± 30 %, and too few counts at the centre make noise: the report says both."""
    report = uniformity(flood(flood_frames(mean=500), 4.418))
    said = " ".join(remark.text for remark in report.remarks)
    assert "4.418 mm is not within 6.4 mm" in said
    assert "The pixel at the centre holds" in said
    good = " ".join(remark.text for remark in uniformity(flood(flood_frames())).remarks)
    assert "not within" not in good
    assert "at the centre" not in good


def test_each_head_is_a_flood_of_its_own() -> None:
    """Two frames give two useful and two central fields, named by frame and head."""
    frames = np.concatenate([flood_frames(seed=None), flood_frames(seed=None, dent=0.1)])
    report = uniformity(nuclear_picture(frames, ("", ""), spacing=6.4))
    assert values(report, "Useful field of view, frame 1 (head 1)")["Integral uniformity"] == 0
    assert values(report, "Useful field of view, frame 2 (head 2)")["Integral uniformity"] > 4


def test_a_rule_that_knows_the_camera_may_say_how_many_pixels_make_one() -> None:
    """Without pixel spacing nothing is measured unless the rule says what to sum; then the report says so."""
    bare = flood(flood_frames(), None)
    with pytest.raises(Refused, match=r"states no pixel spacing.*\(summed\)"):
        run_operator(uniformity, bare)
    report = uniformity(bare, summed=1)
    assert any("of unknown size, as the rule says" in remark.text for remark in report.remarks)
    with pytest.raises(Refused, match="width and height are in mm"):
        uniformity(bare, summed=1, **FULL)


@pytest.mark.parametrize(
    ("picture", "options", "words"),
    [
        (flood(flood_frames()), {"width": 100.0}, "belong together"),
        (flood(flood_frames()), {"summed": 0}, "give 1 or more"),
        (flood(flood_frames()), {"summed": 100}, "cannot be summed"),
        (flood(flood_frames()), {"width": 12.0, "height": 12.0}, "too small"),
        (
            flood(np.full((1, 20, 30), 2e4)),
            {"width": 192.1, "height": 128.0},
            r"larger than the image, .* 192 x 128 mm",
        ),
        (
            flood(np.full((1, 20, 30), 2e4)),
            {"width": 190.0, "height": 130.0},
            "190 x 130 mm is larger than the image",
        ),
        (flood(np.zeros((1, 32, 32))), {}, "holds no counts"),
        (flood(np.ones((9, 32, 32))), {}, "one for each head"),
        (replace(flood(flood_frames()), spacing=(6.4, 3.2)), {}, "not square"),
    ],
)
def test_what_is_no_flood_is_refused(picture: Picture, options: dict[str, Any], words: str) -> None:
    """Options and images of which no figure can be made are refused in words."""
    with pytest.raises(Refused, match=words):
        run_operator(uniformity, picture, **options)


def test_a_round_field_is_found_in_the_image() -> None:
    """A disc over scattered counts outside it is the useful field, whatever its place."""
    rows, columns = np.indices((64, 64))
    disc = np.hypot(rows - 30, columns - 34) <= 25
    counts = np.where(disc, 12000.0, 40.0)
    counts[5, 5] = 9000  # a stray pixel is none of it
    assert np.array_equal(lit(counts), disc)
