"""Regions drawn over the image, and one energy window out of several."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import ImageColor

from node.operator import Picture, Refused
from node.operators.graphs import COLOURS
from node.operators.nm.activity import time_activity_values
from node.operators.nm.frames import of_window
from node.operators.nm.geometric import geometric_mean
from node.operators.nm.overlay import show_regions
from node.operators.nm.ratio import roi_ratio
from node.operators.nm.sides import left_right
from node.testing import Phase, kidney_frames, lung_frames, nuclear_picture, run_operator

REGIONS = "left kidney: 40,20,60,40; right kidney: ellipse 40,80,60,100; background: 100,20,110,40"
SHORT = (Phase(4, 10000.0),)
BOTH = ("anterior", "posterior")


def kidneys() -> Picture:
    """A short renogram from behind."""
    return nuclear_picture(kidney_frames(SHORT), ("posterior",), phases=SHORT)


def drawn(picture: Picture, colour: str) -> np.ndarray[Any, Any]:
    """Where a picture has exactly this colour."""
    return np.asarray((picture.array[0] == ImageColor.getrgb(colour)).all(axis=-1))


def test_outlines_lie_where_the_regions_are() -> None:
    """In a picture of 512 x 512, four times as large, each edge lies inside its region and reaches its box."""
    made = run_operator(show_regions, kidneys(), regions=REGIONS)
    assert made.array.shape == (1, 512, 512, 3)
    assert (made.spacing, made.plane) == ((1.2, 1.2), "patient")
    left = drawn(made, COLOURS[0])[160:240, 80:160]
    assert left[:2].all() and left[-2:].all() and left[:, :2].all() and left[:, -2:].all()
    assert not left[10:-10, 10:-10].any()
    assert drawn(made, COLOURS[1])[160:240, 320:400].any()
    assert drawn(made, "#d9d9d9")[400:440, 80:160].any()  # the background, grey
    assert "sum of 4 frames" in made.title


def test_the_sum_is_seen_through() -> None:
    """Away from lines and letters it is the enlarged sum of the frames, in grey."""
    made = show_regions(kidneys(), regions="a: 100,100,110,110")
    inner = made.array[0, 200:260, 40:200]
    assert (inner[..., 0] == inner[..., 1]).all()
    assert inner.max() > 200  # the left kidney, brightest


def test_sides_are_lettered_where_they_are_stated() -> None:
    """With directions in the header there are letters at the edges; the same without them has other pixels there."""
    picture = kidneys()
    stated = replace(
        picture,
        facts={
            **picture.facts,
            "row_directions": ((-1.0, 0.0, 0.0),) * 4,
            "column_directions": ((0.0, 0.0, -1.0),) * 4,
        },
    )
    plain, lettered = (show_regions(p, regions=REGIONS).array[0] for p in (picture, stated))
    assert (lettered[240:272, :30] != plain[240:272, :30]).any()
    assert (lettered[300:380, 200:300] == plain[300:380, 200:300]).all()


def test_a_dark_image_is_drawn_all_the_same() -> None:
    """Without any counts there are the outlines alone."""
    made = show_regions(nuclear_picture(np.zeros((1, 128, 128))), regions=REGIONS)
    assert drawn(made, COLOURS[0]).any()


def two_windows() -> Picture:
    """Anterior and posterior of a photopeak and of a scatter window with a tenth of its counts, left for right."""
    peak, scatter = lung_frames(left=0.4), lung_frames(left=0.6) * 0.1
    picture = nuclear_picture(np.concatenate([peak, scatter]), ("anterior", "posterior") * 2)
    return replace(
        picture,
        facts={
            **picture.facts,
            "detectors": (1, 2, 1, 2),
            "energy_windows": (1, 1, 2, 2),
            "energy_window_names": ("Tc99m", "Tc99m", "scatter", "scatter"),
        },
    )


def test_one_energy_window_is_taken_by_its_number() -> None:
    """The photopeak's split is 40 %, the scatter window's 60 %; without a window the rule is asked for one."""
    shares = {}
    for window in (1, 2):
        report = run_operator(left_right, two_windows(), energy_window=window)
        (shares[window],) = [
            m.value
            for m in report.measurements
            if m.unit.value == "%" and m.method is not None and m.method.value == "GEOMETRICMEAN"
            if m.laterality is not None and m.laterality.meaning == "Left"
        ]
    assert shares[1] == pytest.approx(40, abs=0.1)
    assert shares[2] == pytest.approx(60, abs=0.5)
    with pytest.raises(Refused, match="name one energy window"):
        left_right(two_windows())
    mean = run_operator(geometric_mean, two_windows(), energy_window=1)
    assert np.array_equal(mean.array, geometric_mean(nuclear_picture(lung_frames(left=0.4), BOTH)).array)
    assert len(geometric_mean(two_windows()).array) == 2


def test_windows_are_chosen_by_the_other_operators_too() -> None:
    """Ratios, curves and overlays take the frames of the window, and say so where they need one."""
    one_view = of_window(two_windows(), 1)
    assert one_view.facts["energy_windows"] == (1, 1)
    regions = "left lung: ellipse 30,70,98,106; right lung: ellipse 30,22,98,58"
    report = roi_ratio(
        two_windows(), regions=regions, reference="right lung", use="anterior", energy_window=2
    )
    assert report.measurements[1].value > 1
    frames = kidney_frames(SHORT)
    picture = nuclear_picture(np.concatenate([frames, frames * 3]), ("posterior", "posterior"), phases=SHORT)
    facts = {"detectors": (1,) * 8, "energy_windows": (1,) * 4 + (2,) * 4}
    picture = replace(picture, facts={**picture.facts, **facts})
    options: dict[str, Any] = {"regions": REGIONS}
    first, second = (time_activity_values(picture, energy_window=n, **options) for n in (1, 2))
    assert second.measurements[0].value == pytest.approx(3 * first.measurements[0].value)
    for operator in (time_activity_values, show_regions):
        with pytest.raises(Refused, match="frames of 2 energy windows; say which with `energy_window`"):
            run_operator(operator, picture, **options)


@pytest.mark.parametrize(
    ("facts", "options", "words"),
    [
        ({}, {"energy_window": 3}, "there is no energy window 3; the image has 1 Tc99m, 2 scatter"),
        ({"energy_windows": ()}, {"energy_window": 1}, "does not say which energy window"),
        ({}, {"energy_window": 1, "anterior": 1, "posterior": 2}, "leave energy_window out"),
    ],
)
def test_windows_that_are_not_there_are_refused(facts: Any, options: dict[str, Any], words: str) -> None:
    """A number that is no window, an image that states none, and a frame that says it already."""
    picture = two_windows()
    with pytest.raises(Refused, match=words):
        left_right(replace(picture, facts={**picture.facts, **facts}), **options)
