"""Time-activity curves of an analytic renogram: peak, time to peak, area, half-time and split by their formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq

from node.operator import Picture, Refused, Report
from node.operators.nm.activity import curves_of, decay_factors, time_activity, time_activity_values
from node.operators.nm.geometric import geometric_mean
from node.testing import Phase, kidney_frames, nuclear_picture, run_operator
from node.testing.nuclear import KIDNEYS, RENOGRAM, ellipse, gamma_counts, gamma_curve

REGIONS = (
    "left kidney: ellipse 44,26,72,46; right kidney: ellipse 46,82,74,102; "
    "left kidney background: 80,26,90,46; right kidney background: 80,82,90,102"
)
TC99M = 21636.0
"""Half-life of Tc-99m, 6.01 h, in seconds."""


@pytest.fixture(scope="module")
def renogram() -> Picture:
    """Twenty minutes of two kidneys, seen from behind, without noise."""
    return nuclear_picture(kidney_frames(), ("posterior",), phases=RENOGRAM)


def numbers(report: Report, side: str) -> dict[str, float]:
    """Name → value of one kidney."""
    return {
        m.name.meaning: m.value
        for m in report.measurements
        if m.laterality is not None and m.laterality.meaning == side
    }


@pytest.mark.parametrize("side", ["left", "right"])
def test_numbers_of_a_kidney_are_those_of_its_curve(renogram: Picture, side: str) -> None:
    """Peak · pixels, its moment to a frame, the integral over 20 minutes, and the root of the curve at half of it."""
    box, peak, at = KIDNEYS[side]
    pixels = np.count_nonzero(ellipse((128, 128), box))
    found = numbers(run_operator(time_activity_values, renogram, regions=REGIONS), side.title())
    assert found["Count rate"] == pytest.approx(peak * pixels, rel=1e-3)  # whole counts, frames of 10 s
    assert abs(found["Time from the first frame to the highest count rate"] - at) <= 10
    area = float(gamma_counts(0, 1200, peak, at)) * pixels
    assert found["Area under the time-activity curve"] == pytest.approx(area, rel=1e-3)
    half = brentq(lambda t: float(gamma_curve(t, peak, at)) - peak / 2, at, 20 * at) - at
    assert abs(found["Time from the highest count rate to half of it"] - half) <= 10


def test_the_split_is_that_of_the_areas(renogram: Picture) -> None:
    """From 60 to 120 s the left share is the quotient of the integrals of both curves, background subtracted."""
    report = time_activity_values(renogram, regions=REGIONS, share_from=60, share_to=120)
    wanted = [
        float(gamma_counts(60, 120, peak, at)) * np.count_nonzero(ellipse((128, 128), box))
        for box, peak, at in KIDNEYS.values()
    ]
    share = numbers(report, "Left")["Share of counts of both sides"]
    assert share == pytest.approx(100 * wanted[0] / sum(wanted), abs=0.05)
    assert share + numbers(report, "Right")["Share of counts of both sides"] == pytest.approx(100)
    without = time_activity_values(
        renogram, regions=REGIONS, share_from=60, share_to=120, subtract_background=False
    )
    assert abs(numbers(without, "Left")["Share of counts of both sides"] - share) > 0.3


def test_noise_moves_the_split_little() -> None:
    """With Poisson counts of a usual injection the split stays within 1 % of its truth."""
    noisy = nuclear_picture(kidney_frames(scale=0.05, seed=3), ("posterior",), phases=RENOGRAM)
    clean = nuclear_picture(kidney_frames(), ("posterior",), phases=RENOGRAM)
    shares = [
        numbers(time_activity_values(p, regions=REGIONS, share_from=60, share_to=120), "Left")[
            "Share of counts of both sides"
        ]
        for p in (noisy, clean)
    ]
    assert abs(shares[0] - shares[1]) < 1


def test_pauses_are_bridged() -> None:
    """A rate that rises linearly has, with pauses, the area of its triangle: by hand."""
    phases = (Phase(5, 1000.0, pause=1000.0),)
    frames = np.stack([np.full((4, 4), 2.0 * n + 1) for n in range(5)])  # mean of 2t + 0 … over each second
    picture = nuclear_picture(frames, ("posterior",), phases=phases)
    (curve,) = curves_of(picture, "a: 0,0,4,4", "pixel", "only", None, subtract_background=False)
    assert curve.rates.tolist() == [16, 48, 80, 112, 144]
    assert curve.middles.tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert curve.area == 16 * 25 + 16 * (2 + 4 + 6 + 8)
    assert curve.within(0.5, 3) == 16 * 0.5 + 48


def test_decay_is_undone_to_the_start() -> None:
    """A source that only decays has one rate, from the first frame to the last, once it is corrected."""
    rate = np.log(2) / 6586.2
    begins, lasts = np.array([0.0, 600.0, 4000.0]), np.array([600.0, 1200.0, 60.0])
    counts = 1e6 * (np.exp(-rate * begins) - np.exp(-rate * (begins + lasts))) / rate
    assert np.allclose(counts * decay_factors(begins, lasts, 6586.2) / lasts, 1e6, rtol=1e-12)


def test_correction_is_off_unless_asked_for_and_always_said(renogram: Picture) -> None:
    """Without half-life nothing is corrected; with one the late counts grow, and method and sentence say it."""
    plain = time_activity_values(renogram, regions=REGIONS)
    corrected = time_activity_values(renogram, regions=REGIONS, half_life=TC99M)
    area = "Area under the time-activity curve"
    assert 1.005 < numbers(corrected, "Left")[area] / numbers(plain, "Left")[area] < 1.04
    for report, words in ((plain, "Not corrected for decay"), (corrected, "with a half-life of 21636 s")):
        assert any(words in remark.text for remark in report.remarks)
    assert {m.method.meaning for m in plain.measurements if m.method} == {"Not corrected for decay"}


def test_what_is_not_reached_is_said() -> None:
    """A kidney that does not empty has no half-time, and one without counts no numbers; a sentence says so."""
    phases = (Phase(4, 10000.0),)
    frames = np.full((4, 8, 8), 5.0)
    frames[:, 1:3, 1:3] += np.array([1, 5, 9, 8])[:, None, None]
    report = time_activity_values(
        nuclear_picture(frames, ("posterior",), phases=phases),
        regions="left kidney: 1,1,3,3; right kidney: 5,5,7,7; background: 4,0,5,8",
    )
    said = " ".join(remark.text for remark in report.remarks)
    assert "left kidney: no half-time; the curve does not fall to half" in said
    assert "right kidney: no numbers" in said
    assert {m.laterality.meaning for m in report.measurements if m.laterality} == {"Left"}
    with pytest.raises(Refused, match="no region has counts"):
        time_activity_values(
            nuclear_picture(np.full((4, 8, 8), 5.0), ("posterior",), phases=phases),
            regions="left kidney: 1,1,3,3; background: 4,0,5,8",
        )


def test_the_graph_shows_each_curve_once(renogram: Picture) -> None:
    """One picture of 1024 x 768 in colour, whose axes name minutes and counts per second, the same twice."""
    made = run_operator(time_activity, renogram, regions=REGIONS)
    assert made.array.shape == (1, 768, 1024, 3)
    assert made.title == "Time-activity curves"
    assert made.facts["burned_in"] is False
    again = time_activity(renogram, regions=REGIONS)
    assert np.array_equal(made.array, again.array)
    other = time_activity(renogram, regions=REGIONS, subtract_background=False)
    assert not np.array_equal(made.array, other.array)


def test_the_geometric_mean_of_two_heads_is_a_curve() -> None:
    """Heads that see 4 and 9 times as much give 6 times the curve: gastric emptying is measured this way."""
    frames = kidney_frames()
    both = nuclear_picture(
        np.concatenate([4 * frames, 9 * frames[:, :, ::-1]]), ("anterior", "posterior"), phases=RENOGRAM
    )
    one = nuclear_picture(frames, ("anterior",), phases=RENOGRAM)
    options: dict[str, Any] = {"regions": "stomach: ellipse 44,26,72,46"}
    made, single = (
        time_activity_values(p, use=use, **options) for p, use in ((both, "geometric_mean"), (one, "only"))
    )  # type: ignore[arg-type]
    assert made.measurements[0].value == pytest.approx(6 * single.measurements[0].value, rel=1e-6)
    mean = time_activity_values(geometric_mean(both), **options)
    assert [m.value for m in mean.measurements] == pytest.approx(
        [m.value for m in made.measurements], rel=1e-5
    )
    back = time_activity_values(both, use="posterior", regions="stomach: ellipse 44,82,72,102")
    assert back.measurements[0].value == pytest.approx(9 * single.measurements[0].value, rel=1e-6)


@pytest.mark.parametrize("missing", ["phases", "frame_durations", "times"])
def test_times_must_be_stated(renogram: Picture, missing: str) -> None:
    """Without phases, durations or times there is no axis, and no curve."""
    facts = {k: v for k, v in renogram.facts.items() if k != missing}
    bare = replace(renogram, facts=facts, times=None if missing == "times" else renogram.times)
    for operator in (time_activity, time_activity_values):
        with pytest.raises(Refused, match="does not state when its frames began"):
            run_operator(operator, bare, regions=REGIONS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regions": "background: 1,1,3,3"}, "all regions are backgrounds"),
        ({"half_life": -1.0}, "a half-life of -1 s is none"),
        ({"share_from": 60.0}, "shares need share_from and share_to"),
        ({"share_from": 60.0, "share_to": 5000.0}, "within the 1200 s"),
        ({"regions": "kidney: 1,1,3,3", "share_from": 60.0, "share_to": 120.0}, "one region called left"),
        ({"use": "anterior"}, "states only Posterior projection"),
    ],
)
def test_what_cannot_be_meant_is_refused(renogram: Picture, options: dict[str, Any], words: str) -> None:
    """Regions, half-lives, moments and views that make no sense are refused in words."""
    with pytest.raises(Refused, match=words):
        run_operator(time_activity_values, renogram, **{"regions": REGIONS, **options})


def test_two_frames_are_no_curve_and_two_windows_no_order() -> None:
    """At least three moments are needed, and one at a time."""
    two = nuclear_picture(np.ones((2, 4, 4)), ("posterior",), phases=(Phase(2, 1000.0),))
    with pytest.raises(Refused, match="a curve of 2 frames"):
        time_activity_values(two, regions="a: 0,0,2,2")
    four = nuclear_picture(np.ones((4, 4, 4)), ("posterior", "posterior"), phases=(Phase(2, 1000.0),))
    with pytest.raises(Refused, match="overlap in time"):
        time_activity_values(four, regions="a: 0,0,2,2", use="posterior")


def test_frames_may_stand_in_any_order(renogram: Picture) -> None:
    """Frames written from the last to the first give the curve of their times."""
    facts = {k: v[::-1] if isinstance(v, tuple) else v for k, v in renogram.facts.items()}
    assert renogram.times is not None
    turned = replace(renogram, array=renogram.array[::-1], times=renogram.times[::-1], facts=facts)
    first, second = (time_activity_values(p, regions=REGIONS) for p in (renogram, turned))
    assert [m.value for m in second.measurements] == [m.value for m in first.measurements]
